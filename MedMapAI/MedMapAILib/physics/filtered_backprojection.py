"""Filtered backprojection: the image that the views' line integrals came from, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from .ct_geometry import FanBeam
from .ct_projector import CtProjector
from .filters import filter_views
from .view_weights import redundancy, view_steps


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
    return projector.backproject(filter_views(sinogram * weights, spacing, name=filter_name, cutoff=cutoff))
