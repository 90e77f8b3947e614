"""End-to-end variational network: MR images from undersampled k-space, by turns nearer to the data and to an image.

Sriram and others, "End-to-end variational networks for accelerated MRI reconstruction", MICCAI 2020,
https://arxiv.org/abs/2004.06688, equation 10: k ← k - η M (k - data) + G(k), with the mask M of what was measured, a
learned step η, and G a U-Net on the image that the coils have in common, taken there and back by the coils'
sensitivities. What differs: the sensitivities are estimated from the center of k-space by the physics and not by a
network of their own; six cascades of a U-Net of 16 channels instead of twelve of 18, 0.7 million weights instead of
30; no normalization inside the U-Nets, but each k-space is brought to one scale at the beginning; and the answer is
the complex image, not the magnitude over all coils. The U-Nets' last layers begin at zero, so that a network that has
learned nothing gives the zero-filled image, and of a complete k-space the image itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...physics.fourier import image_of_k_space, k_space_of_image
from ...physics.mr_operator import MrOperator, check_k_space
from ..checks import check_count
from .blocks import UNet, check_measurement_network

_TARGET = "MedMapAILib.networks.reconstruction.varnet.VarNet"
ITERATIONS, WIDTH, LEVELS = 6, 16, 3
#: The magnitude that this part of the pixels stays below is made 1; the maximum would be one noisy pixel's.
_SCALE_QUANTILE = 0.99


class VarNet(nn.Module):
    """K-space complex (B, C, H, W) and its operator → complex images (B, 1, H, W). See ``build``."""

    def __init__(self, iterations: int = ITERATIONS, width: int = WIDTH, levels: int = LEVELS) -> None:
        super().__init__()
        self.divisor = 2 ** (levels - 1)
        self.regularizers = nn.ModuleList(UNet(2, 2, 2, width, levels, None, 0.0) for _ in range(iterations))
        self.steps = nn.Parameter(torch.ones(iterations))

    def forward(self, k_space: Tensor, operator: MrOperator) -> Tensor:
        """k_space: complex (B, C, H, W), centered, zero where nothing was measured.

        Returns complex images (B, 1, H, W) in the k-space's unit: a k-space times a number gives the image times that
        number. Raises InputError for a k-space that does not fit the operator.
        """
        check_k_space(k_space, coils=operator.coils, size=tuple(operator.mask.shape[-2:]))
        data = k_space * operator.mask
        scale = _scale(_combined(data, operator))
        data = data / scale
        current = data
        for step, regularizer in zip(self.steps, self.regularizers, strict=True):
            correction = self._on_image(regularizer, _combined(current, operator))
            spread = k_space_of_image(operator.sensitivities * correction)
            current = current - step * operator.mask * (current - data) + spread
        return _combined(current, operator) * scale

    def _on_image(self, network: nn.Module, image: Tensor) -> Tensor:
        """A network of two real channels, applied to a complex image (B, 1, H, W) of any size."""
        height, width = image.shape[-2:]
        parts = torch.cat([image.real, image.imag], dim=1)
        short = (-width % self.divisor, -height % self.divisor)
        made = network(functional.pad(parts, (0, short[0], 0, short[1])) if any(short) else parts)
        made = made[..., :height, :width].float()
        return torch.complex(made[:, :1].contiguous(), made[:, 1:].contiguous())


def _combined(k_space: Tensor, operator: MrOperator) -> Tensor:
    """The image (B, 1, H, W) that the coils (B, C, H, W) have in common."""
    return (operator.sensitivities.conj() * image_of_k_space(k_space)).sum(dim=-3, keepdim=True)


def _scale(image: Tensor) -> Tensor:
    """(B, 1, 1, 1): what each image's magnitude is divided by."""
    magnitude = image.detach().abs().flatten(1)
    # An image so empty that the quantile is nothing is measured by its brightest pixel.
    found = torch.quantile(magnitude, _SCALE_QUANTILE, dim=1)
    found = torch.where(found > 0, found, magnitude.amax(dim=1))
    return torch.where(found > 0, found, 1.0)[:, None, None, None]


def build(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    iterations: int = ITERATIONS,
    width: int = WIDTH,
    levels: int = LEVELS,
) -> VarNet:
    """A network to train, which gives the zero-filled image so far.

    spatial_dims: 2. in_channels, out_channels: 1, whatever the number of coils. iterations: cascades. width: channels
    of the first level of each U-Net, doubled at each of its further levels. Raises InputError.
    """
    arguments = definition(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        iterations=iterations,
        width=width,
        levels=levels,
    )
    arguments.pop("_target_")
    return VarNet(**arguments)


def definition(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    iterations: int = ITERATIONS,
    width: int = WIDTH,
    levels: int = LEVELS,
) -> dict[str, Any]:
    """The same network for inference, as a bundle names it. Raises InputError."""
    check_measurement_network("varnet", spatial_dims, in_channels, out_channels)
    return {
        "_target_": _TARGET,
        "iterations": check_count(iterations, "iterations"),
        "width": check_count(width, "width"),
        "levels": check_count(levels, "levels"),
    }


def size_divisor(*, spatial_dims: int, **_: Any) -> tuple[int, ...]:
    """Ones: k-spaces of every size work."""
    return (1,) * spatial_dims
