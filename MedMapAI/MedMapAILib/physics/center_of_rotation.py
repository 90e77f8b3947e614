"""Where the center of rotation is projected on the detector of a parallel beam: what ``detector_offset_mm`` wants."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError
from .ct_geometry import ParallelBeam

#: Coarsest to finest step of the search, in detectors.
_STEPS = (8.0, 2.0, 0.5, 0.1)


def center_of_rotation(sinogram: Tensor, geometry: ParallelBeam, *, reach: float = 0.25) -> float:
    """The offset of the detector, mm, with which views half a turn apart agree.

    sinogram: (A, D) or (…, A, D), the leading axes being slices that share the center. The view opposite to the last
    is the mirror image of the first; so a half turn, mirrored about the center and put behind itself, is the sinogram
    of a whole turn. Away from the right center that has waves which no object can make: its Fourier transform is then
    not small outside the double wedge of Vo and others, "Reliable method for calculating the center of rotation in
    parallel-beam X-ray tomography", Optics Express 22 (2014). reach: centers are looked for within this part of the
    detector on either side of its middle. Angles have to be evenly spaced over half a turn (or a whole one, whose
    first half is taken); InputError says so where they are not.
    """
    geometry.check_sinogram(sinogram.shape)
    views = sinogram.reshape(-1, *sinogram.shape[-2:]).float()
    views = views[:, : _half_turn(geometry)]
    limit = reach * geometry.detectors
    best, width = 0.0, limit
    cost = _wedge_cost(views)
    for step in _STEPS:
        count = math.ceil(width / step)
        candidates = [best + n * step for n in range(-count, count + 1)]
        # Beyond the limit the two halves share too few detectors to be compared.
        best = min((c for c in candidates if abs(c) <= limit), key=cost)
        width = 1.5 * step
    # The vertex of the parabola through the best and its neighbors.
    step = _STEPS[-1]
    low, middle, high = cost(best - step), cost(best), cost(best + step)
    if low + high > 2 * middle:
        best += step * 0.5 * (low - high) / (low + high - 2 * middle)
    # The center is at detector (D - 1) / 2 + best, so the middle of the detector is at t = -best.
    return -best * geometry.detector_spacing_mm


def _half_turn(geometry: ParallelBeam) -> int:
    """How many views, from the first, make half a turn. Raises InputError."""
    angles = geometry.angles
    steps = torch.from_numpy(angles).diff()
    if len(steps) < 8 or float((steps - steps.median()).abs().max()) > 0.05 * float(steps.median().abs()):
        raise InputError("The center of rotation can be found only from evenly spaced angles, at least nine of them.")
    count = round(math.pi / abs(float(steps.median())))
    if len(angles) < count:
        span = math.degrees(abs(angles[-1] - angles[0]))
        raise InputError(f"The center of rotation needs half a turn; the angles span {span:.0f} degrees.")
    return count


def _wedge_cost(views: Tensor) -> Callable[[float], float]:
    """The cost of a center, given as detectors from the middle, for views (N, A, D) over half a turn."""
    _, count, detectors = views.shape
    place = torch.arange(detectors, dtype=views.dtype)

    def cost(shift: float) -> float:
        # Mirrored about the middle + shift; where there is no opposite detector the view itself stands in.
        mirrored = detectors - 1 + 2 * shift - place
        below = mirrored.floor().clamp(0, detectors - 2).long()
        part = mirrored - below
        seen = (mirrored >= 0) & (mirrored <= detectors - 1)
        opposite = torch.lerp(views[..., below], views[..., below + 1], part.clamp(0, 1).expand_as(views))
        # Only what both halves saw, so that no edge is made.
        both = torch.cat([views, opposite], dim=1)[..., seen]
        spectrum = torch.fft.fft2(both).abs()
        width = both.shape[-1]
        along = torch.fft.fftfreq(2 * count, 1 / (2 * count)).abs()[:, None]
        across = torch.fft.fftfreq(width).abs()[None]
        # Outside the wedge: an object of radius width / 2 has frequencies along the turn up to π · width · across.
        outside = (along > math.pi * width * across + 2) & (along > 2)
        return float(spectrum[:, outside].mean() / spectrum.mean())

    return cost
