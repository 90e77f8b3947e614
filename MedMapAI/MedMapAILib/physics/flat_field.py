"""From a detector's raw counts to line integrals: dark field subtracted, divided by the open beam, logarithm."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

#: A transmission below this is noise: the smallest that the logarithm is taken of.
LEAST_TRANSMISSION = 1e-4


def flat_field_corrected(raw: Tensor, flat: Tensor, dark: Tensor, *, least: float = LEAST_TRANSMISSION) -> Tensor:
    """Line integrals (A, …, D) of raw counts (A, …, D); NaN where a detector pixel has no open beam.

    flat, dark: (N, …, D), N exposures with the beam and without it, whose medians are taken, so that a cosmic ray in
    one of them leaves no trace. The result may be slightly negative outside the body, as noise is.
    Raises InputError for shapes that do not fit and for a flat field that is nowhere above the dark one.
    """
    for name, field in (("flat", flat), ("dark", dark)):
        if field.ndim != raw.ndim or field.shape[1:] != raw.shape[1:]:
            raise InputError(
                f"The {name} field has the shape {tuple(field.shape)} and the views {tuple(raw.shape)}: all but the "
                "first numbers have to agree."
            )
    raw, flat, dark = (values.to(torch.float32) for values in (raw, flat, dark))
    darkness = _median(dark)
    beam = _median(flat) - darkness
    if not (beam > 0).any():
        raise InputError("The flat field is nowhere brighter than the dark field; are they swapped?")
    transmission = (raw - darkness) / torch.where(beam > 0, beam, torch.nan)
    return -torch.log(transmission.clamp(min=least))


def beam_normalized(sinogram: Tensor, *, margin: int) -> Tensor:
    """Line integrals (…, D) shifted in each view so that the air at its ends is 0: undoes a beam that flickers.

    margin: so many detectors at either end see air only. The level between the two ends is a straight line.
    """
    count = sinogram.shape[-1]
    if not 0 < 2 * margin < count:
        raise InputError(f"The margin of air is {margin} detectors of {count}; it is above 0 and less than half.")
    left, right = sinogram[..., :margin].mean(-1, keepdim=True), sinogram[..., -margin:].mean(-1, keepdim=True)
    part = torch.linspace(0, 1, count, device=sinogram.device, dtype=sinogram.dtype)
    return sinogram - (left + (right - left) * part)


def _median(field: Tensor) -> Tensor:
    # torch's median takes the lower of two middle values.
    return torch.quantile(field, 0.5, dim=0)
