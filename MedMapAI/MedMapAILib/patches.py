"""Parts of volumes to train on."""

from __future__ import annotations

import numpy as np


def cut(array: np.ndarray, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The box of (C, *S) that begins at voxel ``start`` and has that size; beyond the volume its border is repeated."""
    indices = [
        np.clip(np.arange(a, a + n), 0, limit - 1) for a, n, limit in zip(start, size, array.shape[1:], strict=True)
    ]
    return array[np.ix_(np.arange(array.shape[0]), *indices)]
