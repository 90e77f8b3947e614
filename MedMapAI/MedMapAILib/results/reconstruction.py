"""What a reconstruction answers: an image, with its unit, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: What a network for reconstruction is given: an image that is to be better, or a measurement.
DOMAINS = ("image", "measurement")


@dataclass(frozen=True)
class ImageKind:
    """What images a model of a reconstruction makes: its "answers", as segments are those of a segmentation.

    unit: "HU", "1/mm", or "" for arbitrary ones. window: (low, high) in that unit, over which images are shown and
    scored. domain: one of DOMAINS. acquisition: how the measurements that it was trained on came about, as
    ``measurements.acquisition`` describes it; empty where it was trained on pairs of images.
    """

    unit: str
    window: tuple[float, float]
    domain: str = "image"
    acquisition: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageReference:
    """An image to score against. values: float32 (I, J, K); affine: 4×4, voxel index → RAS mm."""

    values: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Reconstruction:
    """An image that was made or made better.

    values: float32 (I, J, K) in ``unit``. affine: 4×4, voxel index → RAS mm. unit, window: as in ImageKind. method:
    how, in words, such as "low-dose-ct" or "TV, weight 0.001". residuals: |A x - y| / |y| after each iteration, where
    the method iterates. notes: sentences for the user.
    """

    values: np.ndarray
    affine: np.ndarray
    unit: str = ""
    window: tuple[float, float] | None = None
    method: str = ""
    residuals: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """One line for a status bar."""
        size = "×".join(str(n) for n in self.values.shape)
        return f"An image of {size} voxels" + (f" by {self.method}." if self.method else ".")
