"""Learned Primal-Dual: a few steps between image and sinogram, each learned, joined by the physics of the scan.

Adler and Öktem, "Learned primal-dual reconstruction", IEEE Transactions on Medical Imaging 37(6), 2018,
https://arxiv.org/abs/1707.06474. A step on the sinogram sees its own memory, the projection of the image and the data;
a step on the image sees its own memory and the backprojected answer. Each is three 3-wide convolutions whose result is
added to what was there. As published: the memory of five channels and the 32 channels between. What differs: six
iterations instead of ten; the image begins as the filtered backprojection instead of as zero; the rectifiers' slope is
fixed (parametric ones cost a fifth of the time of a step of training); and the last convolution of each step begins
near zero, so that a network that has learned nothing gives about the image that it begins with.

With ``back = "filtered"`` the answer on the sinogram goes through the ramp before it is backprojected: the adjoint
alone blurs by 1 / frequency, which a few small convolutions can hardly undo. On slices of a chest CT kept for
validation, from 60 views, that was worth 0.7 dB after the same few minutes of training.

So that weights hold for other scans, all that the convolutions see has a size that does not depend on the scan: images
are in water's attenuation, line integrals in that of water along the side of the image, and backprojection is scaled
so that projecting and backprojecting has the norm 1. (The paper divides both by the operator's norm; then the values
in a sinogram would grow with fewer views.) Convolutions across views still know the step between them that they were
trained with: train with a range of views what is to be used with a range of views.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...physics.attenuation import WATER_PER_MM
from ...physics.ct_geometry import FanBeam, Geometry
from ...physics.ct_projector import CtProjector
from ...physics.filtered_backprojection import filtered_backprojection
from ...physics.filters import WINDOWS, filter_views
from ...physics.linear_operator import operator_norm
from ..checks import check_count
from .blocks import SLOPE, check_choice, check_measurement_network, convolution, packed, zero

_TARGET = "MedMapAILib.networks.reconstruction.learned_primal_dual.LearnedPrimalDual"
_NAME = "learned-primal-dual"
ITERATIONS, WIDTH, MEMORY = 6, 32, 5
FIRST = ("fbp", "zero")
BACK = ("adjoint", "filtered")
#: What is left of the weights of the last convolution of each step at the beginning.
_SMALL = 1e-3
#: Projection has no negative weights, so power iteration from a positive image is soon there.
_NORM_ITERATIONS = 6
#: Norms of the scans that were seen last; the oldest goes first.
_NORMS: dict[Geometry, float] = {}
_REMEMBERED = 256


class LearnedPrimalDual(nn.Module):
    """Line integrals (B, 1, A, D) and their projector → images (B, 1, H, W) in water units. See ``build``."""

    def __init__(
        self,
        iterations: int = ITERATIONS,
        width: int = WIDTH,
        memory: int = MEMORY,
        first: str = "fbp",
        filter: str = "ramp",
        back: str = "adjoint",
    ) -> None:
        super().__init__()
        self.memory, self.first, self.filter, self.back = memory, first, filter, back
        self.dual = nn.ModuleList(_step(memory + 2, width, memory) for _ in range(iterations))
        self.primal = nn.ModuleList(_step(memory + 1, width, memory) for _ in range(iterations))

    def forward(self, line_integrals: Tensor, operator: CtProjector, water_per_mm: float = WATER_PER_MM) -> Tensor:
        """line_integrals: (B, 1, A, D), without unit. water_per_mm: what one water unit is, 1/mm.

        Returns images (B, 1, H, W), attenuation over that of water: 0 is air and 1 is water, HU = 1000 (x - 1).
        Raises InputError for line integrals that do not fit the projector.
        """
        operator.geometry.check_sinogram(line_integrals.shape)
        length = side_mm(operator.geometry)
        data = line_integrals / (water_per_mm * length)
        if self.first == "fbp":
            image = filtered_backprojection(operator, line_integrals, filter_name=self.filter) / water_per_mm
        else:
            image = data.new_zeros(len(data), 1, *operator.geometry.image_size)
        primal = image.expand(-1, self.memory, -1, -1)
        dual = data.new_zeros(len(data), self.memory, *data.shape[2:])
        for on_sinogram, on_image in zip(self.dual, self.primal, strict=True):
            # The second channel is what the scan would be made of, the first what is given at the end: so the image
            # in between need not look like one.
            projected = operator(primal[:, 1 % self.memory, None]) / length
            dual = dual + on_sinogram(packed(torch.cat([dual, projected, data], dim=1)))
            spread = self._spread(dual[:, :1], operator, length)
            primal = primal + on_image(packed(torch.cat([primal, spread], dim=1)))
        return primal[:, :1]

    def _spread(self, dual: Tensor, operator: CtProjector, length: float) -> Tensor:
        """A dual variable (B, 1, A, D) as an image (B, 1, H, W), in about its own size."""
        if self.back == "adjoint":
            return operator.adjoint(dual) * (length / norm_of(operator) ** 2)
        # Filtered backprojection with the matched adjoint; a fan's weights are left to the network.
        geometry = operator.geometry
        spacing = geometry.detector_spacing_mm
        if isinstance(geometry, FanBeam):
            spacing /= geometry.magnification
        scale = length * math.pi / len(geometry.angles_rad) * spacing / geometry.pixel_mm**2
        return operator.adjoint(filter_views(dual, spacing)) * scale


def side_mm(geometry: Geometry) -> float:
    """The longer side of the image, mm: about the longest way through what is in it."""
    return max(geometry.image_size) * geometry.pixel_mm


def norm_of(operator: CtProjector) -> float:
    """The largest singular value of a projector, mm, remembered for its geometry.

    Raises InputError where no ray meets the image.
    """
    geometry = operator.geometry
    if geometry not in _NORMS:
        device = next((buffer.device for buffer in operator.buffers()), torch.device("cpu"))
        with torch.no_grad():
            found = operator_norm(operator, (1, 1, *geometry.image_size), iterations=_NORM_ITERATIONS, device=device)
        if found == 0:
            raise InputError("No ray of this scan meets the image; check the detector's offset and spacing.")
        while len(_NORMS) >= _REMEMBERED:
            _NORMS.pop(next(iter(_NORMS)))
        _NORMS[geometry] = found
    return _NORMS[geometry]


def _step(channels: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        convolution(2, channels, width),
        nn.LeakyReLU(SLOPE, inplace=True),
        convolution(2, width, width),
        nn.LeakyReLU(SLOPE, inplace=True),
        zero(convolution(2, width, outputs), _SMALL),
    )


def build(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    iterations: int = ITERATIONS,
    width: int = WIDTH,
    memory: int = MEMORY,
    first: str = "fbp",
    filter: str = "ramp",
    back: str = "adjoint",
) -> LearnedPrimalDual:
    """A network to train.

    spatial_dims: 2. in_channels, out_channels: 1. iterations: pairs of steps. width: channels inside a step. memory:
    channels that go from step to step. first: the image that it begins with, "fbp" or "zero". filter: of "fbp", one of
    ``filters.WINDOWS``. back: how a sinogram becomes an image, "adjoint" as published, or
    "filtered". Raises InputError.
    """
    arguments = definition(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        iterations=iterations,
        width=width,
        memory=memory,
        first=first,
        filter=filter,
        back=back,
    )
    arguments.pop("_target_")
    return LearnedPrimalDual(**arguments)


def definition(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    iterations: int = ITERATIONS,
    width: int = WIDTH,
    memory: int = MEMORY,
    first: str = "fbp",
    filter: str = "ramp",
    back: str = "adjoint",
) -> dict[str, Any]:
    """The same network for inference, as a bundle names it. Raises InputError."""
    check_measurement_network(_NAME, spatial_dims, in_channels, out_channels)
    return {
        "_target_": _TARGET,
        "iterations": check_count(iterations, "iterations"),
        "width": check_count(width, "width"),
        "memory": check_count(memory, "memory"),
        "first": check_choice(first, "first", FIRST),
        "filter": check_choice(filter, "filter", tuple(WINDOWS)),
        "back": check_choice(back, "back", BACK),
    }


def size_divisor(*, spatial_dims: int, **_: Any) -> tuple[int, ...]:
    """Ones: images and sinograms of every size work."""
    return (1,) * spatial_dims
