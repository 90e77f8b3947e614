"""The filters of filtered backprojection: the ramp, and windows that spare the noise in high frequencies.

Kak and Slaney, "Principles of Computerized Tomographic Imaging" (1988), section 3.3: the ramp is made from its
samples in space, so that the value at frequency zero is right and a constant keeps its height.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError

#: Name → weight of the window at a frequency, 0 to 1 (of the detector's Nyquist frequency).
WINDOWS = {
    "ramp": torch.ones_like,
    "shepp-logan": lambda part: torch.sinc(part / 2),
    "cosine": lambda part: torch.cos(part * (math.pi / 2)),
    "hann": lambda part: 0.5 + 0.5 * torch.cos(part * math.pi),
}


def ramp(size: int, spacing: float) -> Tensor:
    """The ramp's response at the frequencies of ``rfft`` of ``size`` samples: (size / 2 + 1,), float64, 1/mm.

    spacing: between the samples, mm. Twice the sum of an inner product: about |frequency| in cycles per mm.
    """
    place = torch.arange(size, dtype=torch.float64)
    place = torch.minimum(place, size - place)
    kernel = torch.where(place % 2 == 1, -1 / (math.pi * place.clamp(min=1)).square(), 0.0)
    kernel[0] = 0.25
    return torch.fft.rfft(kernel).real / spacing


def response(name: str, size: int, spacing: float, *, cutoff: float = 1.0) -> Tensor:
    """A filter's response at the frequencies of ``rfft`` of ``size`` samples: (size / 2 + 1,), float64, 1/mm.

    name: "ramp", "shepp-logan", "cosine" or "hann". cutoff: the frequency at which the window ends and beyond which
    nothing passes, as a part of the Nyquist frequency, 0 < cutoff ≤ 1. Raises InputError.
    """
    if name not in WINDOWS:
        raise InputError(f"There is no filter {name!r}; there are {', '.join(WINDOWS)}.")
    if not 0 < cutoff <= 1:
        raise InputError(f"The cutoff of a filter is above 0 and at most 1 (the Nyquist frequency), not {cutoff!r}.")
    part = torch.arange(size // 2 + 1, dtype=torch.float64) * (2 / size)
    window = WINDOWS[name](part / cutoff) * (part <= cutoff)
    return ramp(size, spacing) * window


def filter_views(sinogram: Tensor, spacing: float, *, name: str = "ramp", cutoff: float = 1.0) -> Tensor:
    """Each view (…, D) of a sinogram filtered along the detector, padded so that its ends do not meet.

    spacing: between detectors, mm; the result is in the sinogram's unit per mm.
    """
    count = sinogram.shape[-1]
    # At least twice as long, for a linear convolution; a power of two for the transform.
    size = max(64, 2 ** math.ceil(math.log2(2 * count)))
    weights = response(name, size, spacing, cutoff=cutoff).to(sinogram)
    return torch.fft.irfft(torch.fft.rfft(sinogram, size) * weights, size)[..., :count]
