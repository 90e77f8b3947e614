"""What a detector found in a scan, on the model grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FoundBoxes:
    """By falling score.

    boxes: (N, 6) voxel edges of the model grid. scores: (N,). labels: (N,) numbers of classes. masks: one array each of
    probabilities in the frame of the box, or an empty tuple.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: tuple[np.ndarray, ...] = ()
