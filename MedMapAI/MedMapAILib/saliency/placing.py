"""From the grid on which the network looked to the voxels that the user sees."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..preprocessing import Grid, resample


def on_image(values: np.ndarray, model_grid: Grid, image_grid: Grid) -> np.ndarray:
    """A map of the model's grid on the image's own voxels.

    values: (*S), of as many voxels as model_grid; an axis of one voxel may be missing. Both grids in RAS mm, in any
    order of axes and turned in any way. Interpolation is linear; the outermost values reach to the border of their
    voxels, and beyond, where the network saw nothing, the map is 0. Returns float32 (I, J, K) of image_grid. Raises
    InputError where values and model_grid do not go together.
    """
    values = np.asarray(values, dtype=np.float32)
    if tuple(n for n in values.shape if n > 1) != tuple(n for n in model_grid.shape if n > 1):
        raise InputError(f"A map of shape {values.shape} does not lie on a model grid of {model_grid.shape} voxels.")
    placed = resample(values.reshape(1, *model_grid.shape), model_grid, image_grid, "linear")[0].copy()
    # Index on the model's grid of each voxel of the image, plane by plane to spare memory.
    mapping = np.linalg.inv(model_grid.affine) @ image_grid.affine
    along_j = np.arange(image_grid.shape[1])[:, None]
    along_k = np.arange(image_grid.shape[2])[None, :]
    for i, plane in enumerate(placed):
        for row, count in zip(mapping[:3], model_grid.shape, strict=True):
            index = row[0] * i + row[1] * along_j + row[2] * along_k + row[3]
            plane[np.abs(index - (count - 1) / 2) > count / 2 + 1e-6] = 0
    return placed
