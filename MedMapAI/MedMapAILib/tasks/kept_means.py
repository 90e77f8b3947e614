"""Take back what a network changed in the mean of like tissue: noise and streaks average out, so that is bias."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

#: Deviation of the neighborhood that is averaged over, voxels.
_NEARBY = 3.0
#: Values that tissue is told apart by are this many, evenly spaced over the window.
_LEVELS = 9
_TRUNCATE = 3.0


def keep_means(
    output: np.ndarray, given: np.ndarray, *, finer: float, low: float, high: float, flat: int | None = None
) -> np.ndarray:
    """The output of a network, with the means that the image had that it was given.

    output, given: float32 (I, J, K), the same unit. finer: deviation of a Gaussian, voxels. What the network changed at
    scales finer than this stays (an image is blurred there, and the network may make up for it); of the rest the mean
    over like values nearby is subtracted. Values are told apart in the smoothed output, from low to high. flat: the
    axis that the network did not look along, or None.

    The mean is that of a bilateral grid (J. Chen, S. Paris, F. Durand, "Real-time edge-aware image processing with the
    bilateral grid", ACM Transactions on Graphics 26(3), 103, 2007), whose cells along the axis of values are hats.
    """
    change = output - given
    kept = np.empty_like(output)
    pieces = [...] if flat is None else [_plane(flat, number) for number in range(output.shape[flat])]
    for piece in pieces:
        coarse = _smooth(change[piece], finer)
        alike = np.clip(_smooth(output[piece], finer), low, high)
        kept[piece] = output[piece] - _mean_of_alike(coarse, alike, np.linspace(low, high, _LEVELS))
    return kept


def _plane(axis: int, number: int) -> tuple:
    return (*[slice(None)] * axis, number)


def _smooth(values: np.ndarray, deviation: float) -> np.ndarray:
    return ndimage.gaussian_filter(values, deviation, mode="nearest", truncate=_TRUNCATE)


def _mean_of_alike(values: np.ndarray, alike: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """At each voxel the mean of ``values`` nearby where ``alike`` is like it is here."""
    width = levels[1] - levels[0]
    mean = np.zeros_like(values)
    for level in levels:
        weight = np.maximum(1 - np.abs(alike - level) / width, 0).astype(values.dtype)
        if not weight.any():
            continue
        total, weights = (
            ndimage.gaussian_filter(each, _NEARBY, mode="constant", truncate=_TRUNCATE)
            for each in (weight * values, weight)
        )
        # Where no weight is near, that of the voxel itself is zero, too.
        mean += weight * total / np.maximum(weights, np.finfo(values.dtype).tiny)
    return mean
