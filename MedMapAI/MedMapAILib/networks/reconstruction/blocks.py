"""What the networks for reconstruction have in common: convolutions, a U-Net that ends in zero, checks of options."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError
from ..checks import NORMS, check_norm

#: Of the leaky rectifiers: what is left of a negative value.
SLOPE = 0.1
#: No normalization: it takes away the mean of what a window sees, and with it how many HU a region has.
NO_NORM = "none"
#: The order in memory in which the channels of a pixel are beside each other.
_PACKED = {2: torch.channels_last, 3: torch.channels_last_3d}


def convolution(spatial_dims: int, channels: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Module:
    """A convolution that keeps the size, drawn so that a leaky rectifier after it keeps the spread of the values.

    He and others, "Delving deep into rectifiers", ICCV 2015. Without normalization torch's own draw would let the
    values shrink from layer to layer.
    """
    layer = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2](channels, outputs, kernel, padding=kernel // 2, **options)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer.to(memory_format=_PACKED[spatial_dims])


def zero(layer: nn.Module, part: float = 0.0) -> nn.Module:
    """The layer with its weights times ``part`` and its biases zero: what it gives is nothing, or next to it."""
    with torch.no_grad():
        layer.weight *= part
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def packed(values: Tensor) -> Tensor:
    """The values (B, C, *S) with the channels of a pixel beside each other, which is how convolutions are fastest."""
    return values.contiguous(memory_format=_PACKED[values.ndim - 2])


class UNet(nn.Module):
    """A U-Net (B, C, *S) → (B, O, *S) whose untrained output is zero; sizes are multiples of 2 ** (levels - 1).

    Each level has two 3-wide convolutions and half the voxels along each axis and twice the channels of the one above.
    Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015, https://arxiv.org/abs/1505.04597.
    """

    def __init__(
        self, spatial_dims: int, channels: int, outputs: int, width: int, levels: int, norm: Any, dropout: float
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        pair = itertools.pairwise([channels, *widths])
        self.down = nn.ModuleList(_Pair(spatial_dims, before, after, norm, dropout) for before, after in pair)
        self.enlarge = nn.ModuleList(_Enlarge(spatial_dims, 2 * w, w) for w in widths[:-1])
        self.up = nn.ModuleList(_Pair(spatial_dims, 2 * w, w, norm, dropout) for w in widths[:-1])
        self.last = zero(convolution(spatial_dims, width, outputs, kernel=1))
        self._halve = (functional.max_pool2d, functional.max_pool3d)[spatial_dims - 2]

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, *S) → (B, O, *S)."""
        x = packed(x)
        skips = []
        for level, block in enumerate(self.down):
            x = block(self._halve(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for enlarge, block in zip(reversed(self.enlarge), reversed(self.up), strict=True):
            x = block(torch.cat([skips.pop(), enlarge(x)], dim=1))
        return self.last(x)


class _Pair(nn.Sequential):
    def __init__(self, spatial_dims: int, channels: int, outputs: int, norm: Any, dropout: float) -> None:
        layers: list[nn.Module] = []
        for inputs in (channels, outputs):
            layers.append(convolution(spatial_dims, inputs, outputs, bias=norm is None))
            if norm is not None:
                layers.append(_norm(spatial_dims, outputs, norm))
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
        if dropout:
            layers.append((nn.Dropout2d, nn.Dropout3d)[spatial_dims - 2](dropout))
        super().__init__(*layers)


class _Enlarge(nn.Module):
    """Twice the voxels along each axis: each becomes a block of its own, so no two of them overlap and leave a grid."""

    def __init__(self, spatial_dims: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.layer = (nn.ConvTranspose2d, nn.ConvTranspose3d)[spatial_dims - 2](channels, outputs, 2, stride=2)
        # Each value of the output is the sum over the input's channels at one place.
        nn.init.normal_(self.layer.weight, std=(1 / channels) ** 0.5)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _norm(spatial_dims: int, channels: int, norm: Any) -> nn.Module:
    from monai.networks.layers.factories import Norm

    name, arguments = norm
    kind = Norm[name, spatial_dims]
    return kind(num_channels=channels, **arguments) if name == "GROUP" else kind(channels, **arguments)


def check_reconstruction_norm(norm: Any, filters: list[int]) -> list[Any] | None:
    """MONAI's (name, arguments) of a normalization, None for "none". Raises InputError."""
    if norm == NO_NORM:
        return None
    if not isinstance(norm, str) or norm not in NORMS:
        raise InputError(f"Network option norm is {norm!r}; choose one of {', '.join([NO_NORM, *NORMS])}.")
    return check_norm(norm, filters, more=(NO_NORM,))


def check_channels(name: str, in_channels: int, out_channels: int) -> None:
    """Raise InputError unless an input's first channels can be the output before anything was learned."""
    if out_channels > in_channels:
        raise InputError(
            f"Network {name!r} corrects its input, and cannot make {out_channels} channels of {in_channels}; "
            "give at most as many."
        )


def check_measurement_network(name: str, spatial_dims: int, in_channels: int, out_channels: int) -> None:
    """Raise InputError unless a network for measurements is asked for one slice of one channel."""
    if spatial_dims != 2:
        raise InputError(f"Network {name!r} makes slices from measurements; set spatial_dims to 2, not {spatial_dims}.")
    if (in_channels, out_channels) != (1, 1):
        raise InputError(
            f"Network {name!r} makes one image from one measurement; it has no {in_channels} input and {out_channels} "
            "output channels."
        )


def check_choice(value: Any, option: str, choices: tuple[str, ...]) -> str:
    """One of the choices. Raises InputError that names the option."""
    if value not in choices:
        raise InputError(f"Network option {option} is {value!r}; choose one of {', '.join(choices)}.")
    return value
