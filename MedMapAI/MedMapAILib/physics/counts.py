"""What a detector counts: Poisson noise at a stated number of photons, electronic noise, and the logarithm back."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

#: Fewer photons than this count as this many where the logarithm is taken: one that counted nothing saw less than one.
LEAST_COUNT = 0.5


def expected_counts(line_integrals: Tensor, photons: float) -> Tensor:
    """The mean number of photons behind the body: Beer and Lambert's law. photons: that leave for each detector."""
    return _photons(photons) * torch.exp(-line_integrals)


def measure_counts(line_integrals: Tensor, photons: float, *, electronic_noise: float = 0.0, seed: int) -> Tensor:
    """Counts as a detector gives them for line integrals (…, A, D), the same for the same seed on every device.

    photons: that leave for each detector in each view. electronic_noise: standard deviation of what the electronics
    add, in photons; with it, counts may be negative, as real ones are after the offset was subtracted.
    Zeng and others, "A simple low-dose x-ray CT simulation from high-dose scan", IEEE TNS 62 (2015).
    Raises InputError for a number of photons that is not above zero.
    """
    if electronic_noise < 0:
        raise InputError(f"The electronic noise is {electronic_noise}, not a standard deviation of at least 0.")
    generator = torch.Generator().manual_seed(seed)
    # Drawn on the processor, in double precision: a float32 cannot hold a count above 2²⁴.
    counts = torch.poisson(expected_counts(line_integrals.detach().cpu().double(), photons), generator)
    if electronic_noise > 0:
        counts += electronic_noise * torch.randn(counts.shape, generator=generator, dtype=counts.dtype)
    return counts.to(line_integrals)


def line_integrals_of_counts(counts: Tensor, photons: float | Tensor, *, least: float = LEAST_COUNT) -> Tensor:
    """Line integrals of counts: log(photons / counts), counts below ``least`` taken for it.

    photons: counts without a body, one number or a tensor that broadcasts (one for each detector).
    """
    photons = photons if isinstance(photons, Tensor) else torch.as_tensor(_photons(photons)).to(counts)
    return torch.log(photons / counts.clamp(min=least))


def count_weights(counts: Tensor, *, electronic_noise: float = 0.0) -> Tensor:
    """How much each line integral can be trusted: 1 / its variance, (counts)² / (counts + electronic noise²).

    The first-order variance of the logarithm; Thibault and others, Medical Physics 34 (2007).
    """
    counts = counts.clamp(min=LEAST_COUNT)
    return counts.square() / (counts + electronic_noise**2)


def noisy_line_integrals(line_integrals: Tensor, photons: float, *, electronic_noise: float = 0.0, seed: int) -> Tensor:
    """Line integrals as they come from a scan with so many photons: ``measure_counts`` and the logarithm."""
    counts = measure_counts(line_integrals, photons, electronic_noise=electronic_noise, seed=seed)
    return line_integrals_of_counts(counts, photons)


def check_counts(counts: Tensor, *, name: str = "The counts") -> None:
    """Raise InputError where counts cannot be: NaN, infinite, or mostly negative.

    A few negative counts are electronic noise; more than one in a hundred are not counts.
    """
    wrong = int((~torch.isfinite(counts)).sum())
    if wrong:
        raise InputError(f"{name} hold {wrong} values that are no numbers, of {counts.numel()}.")
    below = int((counts < 0).sum())
    if below > counts.numel() / 100:
        raise InputError(
            f"{name} are negative in {below} of {counts.numel()} places; counts of photons are not. Are these line "
            "integrals, or was a dark field subtracted twice?"
        )


def _photons(photons: float) -> float:
    if not photons > 0:
        raise InputError(f"The number of photons is {photons}, not above zero.")
    return float(photons)
