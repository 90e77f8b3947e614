"""How much contrast of fine detail is left: the modulation transfer function, measured at a slanted edge.

An edge that crosses the pixel grid at a small angle is sampled at many distances, finer than the pixels are (ISO
12233:2017, annex E; Judy, Med. Phys. 3, 1976; Buhr, Günther-Kohfahl, Neitzel, Med. Phys. 30, 2003):

1. the line of the edge: in each row the centroid of the derivative, through which a straight line is laid;
2. the edge spread function: pixels by their distance from that line, mm, averaged in bins of a quarter pixel;
3. the line spread function: its derivative, under a window that takes away the noise far from the edge;
4. the transfer: |DFT| of that, 1 at the frequency 0, divided by what bins and differences lost: sinc²(f · bin).

An edge blurred by a Gaussian of standard deviation σ mm has MTF(f) = exp(−2 π² σ² f²): 50 % at 0.1874 / σ and 10 % at
0.3415 / σ per mm. Pixels that average over their area add their own sinc; it belongs to the system and stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal.windows import tukey

from ..errors import InputError

#: Bins a pixel (ISO 12233 has four).
OVERSAMPLING = 4


@dataclass(frozen=True, eq=False)
class Sharpness:
    """What an edge tells.

    frequency: (F,), cycles/mm from 0, up to the Nyquist frequency across the edge. transfer: (F,), 1 at 0/mm.
    distance: (D,), mm from the edge to its bright side. profile: (D,), HU, the edge spread function. angle: of the edge
    against the axis that it is nearer to, degrees, 0 to 45. contrast: of the edge, HU, bright minus dark.
    """

    frequency: np.ndarray
    transfer: np.ndarray
    distance: np.ndarray
    profile: np.ndarray
    angle: float
    contrast: float

    def frequency_at(self, transfer: float) -> float | None:
        """Cycles/mm at which this much is left for the first time; None where more is left at all frequencies."""
        below = np.flatnonzero(self.transfer < transfer)
        if not below.size or below[0] == 0:
            return None
        k = int(below[0])
        high, low = self.transfer[k - 1], self.transfer[k]
        return float(
            self.frequency[k - 1] + (self.frequency[k] - self.frequency[k - 1]) * (high - transfer) / (high - low)
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with units in the names; mtf50 and mtf10 are None where they lie beyond the Nyquist frequency."""
        return {
            "frequency_per_mm": self.frequency.tolist(),
            "transfer": self.transfer.tolist(),
            "mtf50_per_mm": self.frequency_at(0.5),
            "mtf10_per_mm": self.frequency_at(0.1),
            "angle_degrees": self.angle,
            "contrast_hu": self.contrast,
        }


def modulation_transfer(image: Any, spacing: Sequence[float]) -> Sharpness:
    """The modulation transfer function of an image of one slanted edge.

    image: (A, B), HU, a rectangle with one straight edge through its middle that runs from side to side, some pixels of
    plain bright and dark on either side, and turned against the pixel grid by some degrees. spacing: of the pixels, mm.
    Raises InputError where there is no such edge: values that are not finite, no contrast, an edge along the pixel grid
    (every row then samples it at the same places) or at its diagonal, or one that leaves the rectangle.
    """
    values = np.asarray(image, dtype=np.float64)
    steps = tuple(float(step) for step in spacing)
    if len(steps) != 2 or not all(math.isfinite(step) and step > 0 for step in steps):
        raise InputError(f"A spacing of {steps} mm makes no sense; give two numbers above 0, one for each axis.")
    if values.ndim != 2 or min(values.shape) < 16:
        raise InputError(f"An image of shape {values.shape} is too small for an edge; give 16×16 pixels or more.")
    wrong = int(values.size - np.isfinite(values).sum())
    if wrong:
        raise InputError(f"The image of the edge has {wrong} values that are not finite; choose another place.")
    if np.ptp(values) == 0:
        raise InputError(f"The image is {values.flat[0]:g} everywhere; choose a place with one straight edge.")
    # The edge is made to run along the first axis: the contrast lies between the halves along the second.
    across = [abs(_halves(values, axis)) for axis in (0, 1)]
    if across[0] > across[1]:
        values, steps = values.T, steps[::-1]
    if _halves(values, 1) < 0:
        values = values[:, ::-1]
    slope, offset = _edge_line(values, steps)
    angle = math.degrees(math.atan(abs(slope)))
    rows = values.shape[0] * steps[0]
    if abs(slope) * rows < steps[1]:
        raise InputError(
            f"The edge runs along the pixel grid ({angle:.1f} degrees), so that all rows see it alike; "
            "turn it by 2 to 10 degrees."
        )
    distance, profile = _spread(values, steps, slope, offset)
    return _transfer(distance, profile, angle, _bin_width(steps, slope))


def slanted_edge(
    shape: tuple[int, int],
    spacing: Sequence[float],
    *,
    angle: float = 5.0,
    dark: float = 0.0,
    bright: float = 100.0,
    subsamples: int = 8,
) -> np.ndarray:
    """A sharp slanted edge through the middle of an image, to be simulated and reconstructed: (A, B), HU.

    spacing: mm. angle: of the edge against the first axis, degrees. Each pixel is the mean of ``subsamples``² points in
    it. Bright on the far side of the second axis.
    """
    normal = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
    points = [
        ((np.arange(n * subsamples) + 0.5) / subsamples - n / 2) * step for n, step in zip(shape, spacing, strict=True)
    ]
    is_bright = normal[0] * points[1][None, :] + normal[1] * points[0][:, None] > 0
    share = is_bright.reshape(shape[0], subsamples, shape[1], subsamples).mean(axis=(1, 3))
    return dark + (bright - dark) * share


def _halves(values: np.ndarray, axis: int) -> float:
    """How much brighter the second half along an axis is, HU."""
    middle = values.shape[axis] // 2
    first, second = np.split(values, [middle], axis=axis)
    return float(second.mean() - first.mean())


def _edge_line(values: np.ndarray, steps: tuple[float, float]) -> tuple[float, float]:
    """(slope, offset mm) of the edge: it is at slope · (position along the first axis) + offset along the second."""
    rows, columns = values.shape
    along = (np.arange(rows) + 0.5) * steps[0]
    # The derivative lies between the pixels.
    places = np.arange(1, columns) * steps[1]
    derivative = np.diff(values, axis=1)
    center = np.full(rows, columns * steps[1] / 2)
    width = columns * steps[1]
    # Twice the width of the image first, then closer and closer round the line: far noise would pull the centroids.
    for reach in (1.0, 0.5, 0.25, 0.25, 0.25):
        distance = (places[None, :] - center[:, None]) / (reach * width)
        weight = np.where(np.abs(distance) < 1, 0.5 + 0.5 * np.cos(np.pi * np.clip(distance, -1, 1)), 0) * derivative
        total = weight.sum(axis=1)
        strong = total > 0.2 * np.median(total)
        if np.median(total) <= 0 or strong.sum() < rows / 2:
            raise InputError("There is no straight edge from side to side of the image; choose a place with one.")
        centroid = (weight * places).sum(axis=1)[strong] / total[strong]
        slope, offset = np.polyfit(along[strong], centroid, 1)
        center = slope * along + offset
    if center.min() < 4 * steps[1] or center.max() > width - 4 * steps[1]:
        raise InputError("The edge leaves the image through its side; choose a place where it runs from end to end.")
    spread = float(np.sqrt(np.mean((centroid - (slope * along[strong] + offset)) ** 2)))
    if spread > max(steps[1], 0.05 * width):
        raise InputError("The edge is not straight, or too noisy to be found; average slices or choose another place.")
    return float(slope), float(offset)


def _bin_width(steps: tuple[float, float], slope: float) -> float:
    """mm across the edge: a quarter of the pixel's step across it."""
    return steps[1] / math.hypot(1, slope) / OVERSAMPLING


def _spread(
    values: np.ndarray, steps: tuple[float, float], slope: float, offset: float
) -> tuple[np.ndarray, np.ndarray]:
    """(distance, profile) of the edge: bins of the pixels by their distance from the line."""
    along = (np.arange(values.shape[0]) + 0.5) * steps[0]
    across = (np.arange(values.shape[1]) + 0.5) * steps[1]
    distance = (across[None, :] - (slope * along + offset)[:, None]) / math.hypot(1, slope)
    width = _bin_width(steps, slope)
    # As far as every row reaches: beyond, bins would hold some rows and not others.
    reach = min(distance[:, -1].min(), -distance[:, 0].max())
    half = int(reach / width - 0.5)
    bins = np.rint(distance / width).astype(int)
    counted = np.abs(bins) <= half
    index = (bins + half)[counted]
    cells = np.bincount(index, minlength=2 * half + 1)
    if not cells.all():
        raise InputError(
            "The edge does not meet the pixels at enough different places; turn it by 2 to 10 degrees against the "
            "grid, or take a longer piece of it."
        )
    profile = np.bincount(index, values[counted], minlength=2 * half + 1) / cells
    mean_distance = np.bincount(index, distance[counted], minlength=2 * half + 1) / cells
    # Pixels do not fill the bins evenly: the profile is read off at the middle of the bins.
    middle = np.arange(-half, half + 1) * width
    return middle, np.interp(middle, mean_distance, profile)


def _transfer(distance: np.ndarray, profile: np.ndarray, angle: float, width: float) -> Sharpness:
    line = np.diff(profile)
    # Centered on the peak, flat in its middle half: a narrow window would blur the transfer at low frequencies.
    places = (distance[1:] + distance[:-1]) / 2
    keep = np.abs(places) <= places[-1]
    line = line[keep] * tukey(int(keep.sum()), 0.5)
    contrast = float(np.median(profile[-len(profile) // 5 :]) - np.median(profile[: len(profile) // 5]))
    if line.sum() <= 0:
        raise InputError("The edge has no contrast over its noise; average slices or choose another place.")
    padded = max(1024, 2 ** math.ceil(math.log2(4 * line.size)))
    frequency = np.fft.rfftfreq(padded, width)
    transfer = np.abs(np.fft.rfft(line, padded)) / line.sum()
    # Both the mean over a bin and the difference of neighboring bins have the spectrum sinc(f · bin).
    transfer /= np.sinc(frequency * width) ** 2
    below = frequency <= 1 / (2 * OVERSAMPLING * width) + 1e-12
    return Sharpness(frequency[below], transfer[below], distance, profile, min(angle, 90 - angle), contrast)
