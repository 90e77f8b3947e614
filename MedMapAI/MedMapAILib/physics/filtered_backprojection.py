"""Filtered backprojection: the image that the views' line integrals came from, in one pass."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from .ct_geometry import FanBeam, Geometry
from .ct_projector import CtProjector
from .filters import filter_views
from .view_weights import one_sided, redundancy, view_steps


def filtered_backprojection(
    projector: CtProjector, sinogram: Tensor, *, filter_name: str = "ramp", cutoff: float = 1.0
) -> Tensor:
    """The image (B, 1, H, W) of attenuation in 1/mm from a sinogram (B, 1, A, D) of line integrals.

    filter_name: "ramp", "shepp-logan", "cosine" or "hann"; cutoff: see ``filters.response``. Linear in the sinogram
    and differentiable. Angles may be in any order and unevenly spaced; a limited scan is reconstructed from what it
    has, without weight for what it lacks. Parallel beam: Kak and Slaney (1988), equation 3.33; fan beam with a flat
    detector, scaled to the center of rotation: section 3.4.2. Raises InputError for a sinogram that does not fit.
    """
    geometry = projector.geometry
    geometry.check_sinogram(sinogram.shape)
    steps = torch.from_numpy(view_steps(geometry.angles, geometry.full_turn))[:, None]
    weights = (steps * torch.from_numpy(redundancy(geometry))).to(sinogram)
    spacing = geometry.detector_spacing_mm
    if isinstance(geometry, FanBeam):
        spacing /= geometry.magnification
        # The cosine of the angle to the central ray.
        far = geometry.source_to_detector_mm
        place = torch.from_numpy(geometry.detectors_mm).to(sinogram)
        weights = weights * (far / torch.sqrt(far**2 + place.square()))
    weighted = sinogram * weights
    further = one_sided(geometry)
    if further:
        # What the filter spreads beyond the shorter side is part of the answer.
        weighted = functional.pad(weighted, (max(further, 0), max(-further, 0)))
        projector = _widened(geometry, further, str(sinogram.device))
    return projector.backproject(filter_views(weighted, spacing, name=filter_name, cutoff=cutoff))


@functools.lru_cache(maxsize=2)
def _widened(geometry: Geometry, further: int, device: str) -> CtProjector:
    """With as many detectors more on the side that comes first, or last where the number is negative."""
    return CtProjector(
        replace(
            geometry,
            detectors=geometry.detectors + abs(further),
            detector_offset_mm=geometry.detector_offset_mm - further * geometry.detector_spacing_mm / 2,
        )
    ).to(device)
