"""A generator of small images of a class: from numbers drawn at random, by upsampling, as in DCGAN.

The layers double the size from a map of four to seven voxels a side, as in DCGAN (Radford, Metz, Chintala 2016,
https://arxiv.org/abs/1511.06434), by nearest neighbor and convolution (Odena, Dumoulin, Olah 2016,
https://doi.org/10.23915/distill.00003: no checkerboards). What class it is, and the noise, enter each normalization as
scale and shift (self-modulation: Chen, Lucic, Houlsby, Gelly 2019, https://arxiv.org/abs/1810.01365). The normalization
is over groups of channels of one image: it is the same in training and afterwards and does not tie images of a batch
together, which a batch with three images of a rare class would not survive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ...errors import InputError
from ..checks import check_count
from . import LARGEST_IMAGE, SMALLEST_IMAGE

_TARGET = "MedMapAILib.networks.generation.image_generator.ImageGenerator"
#: No axis of the first map is shorter.
_SMALLEST = 4
_CLASS_NUMBERS = 32
_GROUPS = 8


class ImageGenerator(nn.Module):
    """(B, noise) random numbers and (B, classes) flags → images (B, image_channels, *image_size) from -1 to 1.

    See ``build`` for the arguments. classes: 1 for a generator that knows none; its flag is then 1 for every image.
    """

    def __init__(
        self,
        spatial_dims: int,
        image_channels: int,
        classes: int,
        image_size: Sequence[int],
        noise: int,
        width: int,
    ):
        super().__init__()
        self.spatial_dims, self.image_size = spatial_dims, tuple(int(n) for n in image_size)
        self.classes, self.noise_numbers = classes, noise
        conv = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        doublings = _doublings(self.image_size)
        self._first = tuple(-(-n // 2**doublings) for n in self.image_size)
        # The first map has most channels; no more than eight times those of the last, which is where time goes.
        channels = [width * min(8, 2 ** (doublings - level)) for level in range(doublings + 1)]
        self.embedding = nn.Linear(classes, _CLASS_NUMBERS, bias=False)
        steering = noise + _CLASS_NUMBERS
        self.first = nn.Linear(steering, channels[0] * math.prod(self._first))
        self.blocks = nn.ModuleList(
            _Block(conv, before, after, steering) for before, after in zip(channels, channels[1:], strict=False)
        )
        self.last_norm = _SteeredNorm(channels[-1], steering)
        self.last = conv(channels[-1], image_channels, 3, padding=1)

    def forward(self, noise: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """noise: (B, noise), normal. classes: (B, classes), 1 for the class that each image is to show, else 0."""
        # Both parts of equal length, whatever the number of their components.
        flags = F.normalize(self.embedding(classes.to(noise.dtype)), dim=1) * math.sqrt(_CLASS_NUMBERS)
        steering = torch.cat([noise, flags], dim=1)
        x = self.first(steering)
        x = channels_last(x.view(len(x), -1, *self._first))
        for block in self.blocks:
            x = block(x, steering)
        x = torch.tanh(self.last(F.relu(self.last_norm(x, steering))))
        # From the middle, where doubling the first map overshoots the size.
        for axis, wanted in enumerate(self.image_size, start=2):
            x = x.narrow(axis, (x.shape[axis] - wanted) // 2, wanted)
        return x

    def draw_noise(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """(count, noise) on the CPU, from ``generator`` or torch's global one; the same on every device."""
        return torch.randn(count, self.noise_numbers, generator=generator)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """The same tensor with channels last in memory, with which a CPU convolves few channels twice as fast."""
    return x.contiguous(memory_format=(torch.channels_last, torch.channels_last_3d)[x.ndim - 4])


class _SteeredNorm(nn.Module):
    """Group normalization whose scale and shift follow the noise and the class."""

    def __init__(self, channels: int, steering: int):
        super().__init__()
        self.groups = math.gcd(channels, _GROUPS)
        self.scale_and_shift = nn.Linear(steering, 2 * channels)
        nn.init.normal_(self.scale_and_shift.weight, std=0.02)
        nn.init.zeros_(self.scale_and_shift.bias)

    def forward(self, x: torch.Tensor, steering: torch.Tensor) -> torch.Tensor:
        scale, shift = self.scale_and_shift(steering).view(len(x), -1, *(1,) * (x.ndim - 2)).chunk(2, dim=1)
        return F.group_norm(x, self.groups) * (1 + scale) + shift


class _Block(nn.Module):
    """Twice the size: normalize, upsample, convolve."""

    def __init__(self, conv: type[nn.Module], before: int, after: int, steering: int):
        super().__init__()
        self.norm = _SteeredNorm(before, steering)
        self.conv = conv(before, after, 3, padding=1)

    def forward(self, x: torch.Tensor, steering: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(F.relu(self.norm(x, steering)), scale_factor=2, mode="nearest"))


def build(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    image_size: Sequence[int] | None = None,
    noise: int = 64,
    width: int = 32,
) -> ImageGenerator:
    """A generator to train.

    in_channels: of the images that it makes. out_channels: classes that it can be told to make, 1 where it knows none.
    image_size: of the images, voxels along each axis, 16 to 128; the plan's patch where it is not given. noise: how
    many random numbers make an image. width: channels at full size; each halving has twice as many, up to 8 times.
    Raises InputError.
    """
    return ImageGenerator(
        **_arguments(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            image_size=image_size,
            noise=noise,
            width=width,
        )
    )


def definition(**arguments: Any) -> dict[str, Any]:
    """The same network as a MONAI bundle names it. Raises InputError."""
    return {"_target_": _TARGET} | _arguments(**arguments)


def size_divisor(*, spatial_dims: int, **_: Any) -> tuple[int, ...]:
    """Ones: every size can be made."""
    return (1,) * spatial_dims


def _arguments(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    image_size: Sequence[int] | None = None,
    noise: int = 64,
    width: int = 32,
) -> dict[str, Any]:
    good = isinstance(image_size, (list, tuple)) and len(image_size) == spatial_dims
    if not good or not all(isinstance(n, int) and SMALLEST_IMAGE <= n <= LARGEST_IMAGE for n in image_size):
        raise InputError(
            f"The network image-generator cannot make images of {image_size!r} voxels; give {spatial_dims} whole "
            f"numbers from {SMALLEST_IMAGE} to {LARGEST_IMAGE}, such as plan.patch = [64, 64, 1]."
        )
    return {
        "spatial_dims": spatial_dims,
        "image_channels": in_channels,
        "classes": out_channels,
        "image_size": list(image_size),
        "noise": check_count(noise, "noise"),
        "width": check_count(width, "width"),
    }


def _doublings(size: Sequence[int]) -> int:
    """How often the size is doubled from the first map, none of whose axes is shorter than _SMALLEST."""
    return int(math.log2(min(size) / _SMALLEST))
