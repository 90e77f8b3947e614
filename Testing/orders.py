"""Ways in which one physical volume can be stored."""

from __future__ import annotations

import itertools

import numpy as np


def every_axis_order(array: np.ndarray, affine: np.ndarray):
    """The 48 ways to store (C, I, J, K) by permuting and flipping axes.

    Yields (array, affine, back), with ``back`` a function that brings an (I', J', K') array to the first order.
    """
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            turned = np.transpose(array, (0, *(axis + 1 for axis in order)))
            matrix = affine.copy()
            matrix[:3, :3] = affine[:3, list(order)]
            for axis, flip in enumerate(flips):
                if flip:
                    turned = np.flip(turned, axis + 1)
                    matrix[:3, 3] += matrix[:3, axis] * (turned.shape[axis + 1] - 1)
                    matrix[:3, axis] *= -1

            def back(labels: np.ndarray, order=order, flips=flips) -> np.ndarray:
                labels = np.flip(labels, [axis for axis, flip in enumerate(flips) if flip])
                return np.transpose(labels, np.argsort(order))

            yield np.ascontiguousarray(turned), matrix, back


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """The 3×3 matrix that turns by an angle around an axis (Rodrigues' formula)."""
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
