"""How far off Hounsfield units are, on average, in air, where it is like water, and in bone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..physics.attenuation import PADDING, without_padding

#: Tissue → lowest and highest HU of the smoothed truth.
TISSUES = {"air": (-np.inf, -900.0), "water": (-50.0, 100.0), "bone": (300.0, np.inf)}
#: Deviation of the smoothing, and voxels between a region and its edge.
_SMOOTH, _EDGE = 1.5, 1


def tissue_regions(truth: np.ndarray, slices: int | None = None) -> dict[str, np.ndarray]:
    """Tissue → bool, like ``truth``: where a reader would draw its region.

    truth: HU, 2D or 3D. slices: the axis that slices are along, each of which is drawn in for itself; None: the whole.
    In the truth smoothed by a Gaussian of 1.5 voxels, and a voxel away from the edge: of single voxels those that noise
    and edges made bright would be taken for bone, and the mean of a better image would be lower there.
    """
    axes = [axis for axis in range(truth.ndim) if axis != slices]
    smooth = ndimage.gaussian_filter(without_padding(truth).astype(np.float32), _SMOOTH, axes=axes)
    across = np.ones([1 if axis == slices else 2 * _EDGE + 1 for axis in range(truth.ndim)], dtype=bool)
    body = truth >= PADDING
    return {
        name: ndimage.binary_erosion((smooth > low) & (smooth < high) & body, across)
        for name, (low, high) in TISSUES.items()
    }


def tissue_bias(truth: np.ndarray, values: np.ndarray, slices: int | None = None) -> dict[str, float | None]:
    """Tissue → mean of values minus truth, HU, in its region; None where there is none. See ``tissue_regions``."""
    return {
        name: mean_difference(truth, values, region) for name, region in tissue_regions(truth, slices=slices).items()
    }


def mean_difference(truth: np.ndarray, values: np.ndarray, where: np.ndarray) -> float | None:
    """Mean of values minus truth where ``where`` is; None where it is nowhere."""
    difference = values[where].astype(np.float64) - truth[where]
    return float(difference.mean()) if difference.size else None
