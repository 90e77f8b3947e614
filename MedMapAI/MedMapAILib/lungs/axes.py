"""Voxels turned to the patient's axes and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Storage:
    """How an image is stored. order: which of its axes lies closest to left-right, front-back, foot-head. flipped:
    which of these run the other way."""

    order: tuple[int, int, int]
    flipped: tuple[int, ...]


def to_patient_axes(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, ...], Storage]:
    """A view of voxels (I, J, K) whose axes run to the right, to the front and to the head, as nearly as they can; its
    spacing in mm; and how to go back. affine: 4x4, voxel index → RAS mm."""
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    lengths = np.linalg.norm(matrix, axis=0)
    directions = matrix / lengths
    order: list[int] = []
    # Foot-head first: slices are what matters most, and an oblique stack is oblique in the other two.
    for world in (2, 1, 0):
        free = [axis for axis in range(3) if axis not in order]
        order.insert(0, max(free, key=lambda axis: abs(directions[world, axis])))
    flipped = tuple(world for world, axis in enumerate(order) if directions[world, axis] < 0)
    turned = np.flip(np.transpose(voxels, order), flipped)
    return turned, tuple(float(lengths[axis]) for axis in order), Storage(tuple(order), flipped)


def from_patient_axes(voxels: np.ndarray, storage: Storage) -> np.ndarray:
    """Voxels along the patient's axes as the image stores them."""
    return np.ascontiguousarray(np.transpose(np.flip(voxels, storage.flipped), np.argsort(storage.order)))


def oriented_affine(affine: np.ndarray, storage: Storage, shape: tuple[int, ...]) -> np.ndarray:
    """4x4 voxel index → RAS mm of voxels along the patient's axes. affine: of the image. shape: along the axes."""
    affine = np.asarray(affine, dtype=np.float64)
    result = np.eye(4)
    result[:3, :3] = affine[:3, list(storage.order)]
    result[:3, 3] = affine[:3, 3]
    for axis in storage.flipped:
        result[:3, 3] += result[:3, axis] * (shape[axis] - 1)
        result[:3, axis] *= -1
    return result
