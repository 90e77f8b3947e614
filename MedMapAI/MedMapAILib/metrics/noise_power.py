"""How strong the noise of an image is at each spatial frequency: the noise power spectrum.

Of N squares of A × B pixels in a region that would be uniform without noise, with pixels of a × b mm,

    NPS(u, v) = a b / (A B) · mean over the squares of |DFT(square − its trend)|²            HU² mm²

(ICRU Report 87, 2012, section 4.3; Siewerdsen, Cunningham, Jaffray, Med. Phys. 29, 2002). Its sum over all frequencies
times the area of a frequency cell, 1 / (A a · B b), is the variance of the noise (Parseval's theorem). White noise of
standard deviation σ has the flat spectrum σ² a b; filtered noise that of the filter, |H(u, v)|² σ² a b. What smooths
loses the high frequencies, and what invents texture moves the peak: the standard deviation alone tells neither. The
spectrum needs noise that is alike all over the squares, so take them from a uniform phantom or organ, or from the
difference of two scans of the same object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

#: What is taken from each square first: its mean, or the plane, or the second-order surface of least squares.
TRENDS = ("mean", "plane", "quadratic")


@dataclass(frozen=True, eq=False)
class NoisePower:
    """A noise power spectrum.

    spectrum: (A, B), HU² mm², the frequency 0 in the middle (as ``numpy.fft.fftshift``). frequencies: those along each
    axis, 1/mm: (A,) and (B,). radial_frequency: (F,), 1/mm, mean of the frequencies in each ring. radial: (F,), HU²
    mm², mean of the spectrum in each ring; the frequency 0 and the corners beyond the lower Nyquist frequency are in
    none.
    variance: of the noise, HU². squares: how many.
    """

    spectrum: np.ndarray
    frequencies: tuple[np.ndarray, np.ndarray]
    radial_frequency: np.ndarray
    radial: np.ndarray
    variance: float
    squares: int

    @property
    def peak_frequency(self) -> float:
        """1/mm, of the ring of highest power."""
        return float(self.radial_frequency[np.argmax(self.radial)])

    @property
    def mean_frequency(self) -> float:
        """1/mm: Σ f NPS(f) / Σ NPS(f) of the radial spectrum (for the texture of noise: AAPM Task Group 233, 2019)."""
        total = self.radial.sum()
        return float((self.radial_frequency * self.radial).sum() / total) if total > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the radial spectrum and the numbers, with units in their names."""
        return {
            "frequency_per_mm": self.radial_frequency.tolist(),
            "noise_power_hu2_mm2": self.radial.tolist(),
            "peak_frequency_per_mm": self.peak_frequency,
            "mean_frequency_per_mm": self.mean_frequency,
            "variance_hu2": self.variance,
            "squares": self.squares,
        }


def noise_power_spectrum(squares: Any, spacing: Sequence[float], *, trend: str = "plane") -> NoisePower:
    """The noise power spectrum of squares of noise.

    squares: (N, A, B) or (A, B), HU, from regions that would be uniform without noise (``uniform_squares``).
    spacing: of the pixels along A and B, mm. trend: one of TRENDS, the surface of least squares that is removed from
    each square. It takes some noise with it, at the lowest frequencies (1, 3 or 6 of A · B degrees of freedom), which
    is not put back.
    Raises InputError for what has no spectrum: values that are not finite, squares of fewer than 8 pixels a side.
    """
    values = np.asarray(squares, dtype=np.float64)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or len(values) == 0 or min(values.shape[1:]) < 8:
        raise InputError(
            f"Noise of shape {values.shape} has no spectrum; give squares (N, A, B) of 8 pixels a side up."
        )
    wrong = int(values.size - np.isfinite(values).sum())
    if wrong:
        raise InputError(f"The squares have {wrong} values that are not finite; take squares without them.")
    steps = _check_spacing(spacing)
    if trend not in TRENDS:
        raise InputError(f"There is no trend {trend!r}; choose one of {', '.join(TRENDS)}.")
    noise = _without_trend(values, trend)
    sides = noise.shape[1:]
    power = np.mean(np.abs(np.fft.fft2(noise)) ** 2, axis=0) * steps[0] * steps[1] / (sides[0] * sides[1])
    frequencies = tuple(np.fft.fftshift(np.fft.fftfreq(n, step)) for n, step in zip(sides, steps, strict=True))
    spectrum = np.fft.fftshift(power)
    radial_frequency, radial = _rings(spectrum, *frequencies)
    return NoisePower(spectrum, frequencies, radial_frequency, radial, float(np.mean(noise**2)), len(noise))


def uniform_squares(image: Any, mask: Any, side: int, *, overlap: float = 0.5, of: Any = None) -> np.ndarray:
    """All squares of a slice, or of the slices of a volume, that lie wholly in a region: (N, side, side).

    image: (A, B) or (A, B, S), HU. mask: as large, True where the object is uniform. side: pixels; 64 pixels of 0.7 mm
    resolve 0.02/mm. overlap: share of a square's side that it has in common with the next one (half: nearly all that
    there is to know). of: a second scan of the same object, whose differences over √2 are taken instead: structure that
    both have cancels, and the noise of one remains. Squares come in the order of the slices.
    Raises InputError where none fits.
    """
    values, inside = np.asarray(image, dtype=np.float64), np.asarray(mask).astype(bool)
    if values.ndim not in (2, 3) or inside.shape != values.shape:
        raise InputError(f"The image is of shape {values.shape} and its region {inside.shape}; bring both to one grid.")
    if side < 8 or not 0 <= overlap < 1:
        raise InputError(
            f"Squares of {side} pixels with an overlap of {overlap:g} make no sense; take 8 up and 0 to 1."
        )
    if of is not None:
        other = np.asarray(of, dtype=np.float64)
        if other.shape != values.shape:
            raise InputError(f"The scans are of shape {values.shape} and {other.shape}; bring both to one grid.")
        values = (values - other) / np.sqrt(2)
    if values.ndim == 2:
        values, inside = values[..., None], inside[..., None]
    step = max(1, round(side * (1 - overlap)))
    found = []
    for k in range(values.shape[2]):
        if not inside[..., k].any():
            continue
        # From the first row and column of the region, so that a region of just one square's size gives that square.
        rows, columns = (np.flatnonzero(inside[..., k].any(axis=axis)) for axis in (1, 0))
        for row in range(rows[0], rows[-1] - side + 2, step):
            for column in range(columns[0], columns[-1] - side + 2, step):
                place = (slice(row, row + side), slice(column, column + side), k)
                if inside[place].all():
                    found.append(values[place])
    if not found:
        raise InputError(f"No square of {side}×{side} pixels lies in the region; take smaller ones or a larger region.")
    return np.stack(found)


def _without_trend(values: np.ndarray, trend: str) -> np.ndarray:
    """values (N, A, B) less the surface of least squares of each."""
    count, *sides = values.shape
    a, b = (axis.ravel() for axis in np.meshgrid(*(np.linspace(-1, 1, n) for n in sides), indexing="ij"))
    terms = {"mean": [a**0], "plane": [a**0, a, b], "quadratic": [a**0, a, b, a * a, a * b, b * b]}[trend]
    basis, _ = np.linalg.qr(np.stack(terms, axis=1))
    flat = values.reshape(count, -1)
    return (flat - (flat @ basis) @ basis.T).reshape(values.shape)


def _rings(spectrum: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frequency, mean of the spectrum) of rings as wide as the coarser frequency step, up to the lower Nyquist."""
    radius = np.hypot(u[:, None], v[None, :])
    width = max(u[1] - u[0], v[1] - v[0])
    rings = int(np.floor(min(-u[0], -v[0]) / width + 1e-9))
    ring = np.rint(radius / width).astype(int).ravel()
    counted = (ring >= 1) & (ring <= rings)
    cells = np.bincount(ring[counted], minlength=rings + 1)[1:]
    mean = [
        np.bincount(ring[counted], values.ravel()[counted], minlength=rings + 1)[1:] / cells
        for values in (radius, spectrum)
    ]
    return mean[0], mean[1]


def _check_spacing(spacing: Sequence[float]) -> tuple[float, float]:
    steps = tuple(float(step) for step in spacing)
    if len(steps) != 2 or not all(np.isfinite(step) and step > 0 for step in steps):
        raise InputError(f"A spacing of {steps} mm makes no sense; give two numbers above 0, one for each axis.")
    return steps
