"""The slices that a CT scanner would have measured: across the patient's length, whatever the order of the voxels."""

from __future__ import annotations

import numpy as np

from ..image import spacing


class Slicing:
    """A volume (I, J, K) as slices (S, H, W), row and column, and back.

    Slices lie across the last axis. along_body: across the axis nearest to the patient's length (superior), where
    there is more than one slice. affine: 4×4, voxel index → RAS mm.
    """

    def __init__(self, volume: np.ndarray, affine: np.ndarray, *, along_body: bool) -> None:
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        last = int(np.abs(directions[2]).argmax()) if along_body and volume.shape[2] > 1 else 2
        #: Axes of the volume that are columns, rows and slices.
        self.order = (*(axis for axis in range(3) if axis != last), last)
        #: 4×4, index (column, row, slice) → RAS mm.
        self.affine = affine[:, [*self.order, 3]]
        self.slices = volume.transpose(self.order[::-1])

    @property
    def turned(self) -> bool:
        """Whether slices do not lie across the volume's last axis."""
        return self.order != (0, 1, 2)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return self.slices.shape[1], self.slices.shape[2]

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Distance between rows and between columns, mm."""
        columns, rows, _ = spacing(self.affine)
        return rows, columns

    def volume(self, slices: np.ndarray) -> np.ndarray:
        """Slices (S, H, W) as a volume (I, J, K) in the order of the one they came from."""
        return np.ascontiguousarray(slices.transpose(2, 1, 0).transpose(np.argsort(self.order)))
