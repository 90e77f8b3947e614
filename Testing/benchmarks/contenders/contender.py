"""What every contender is: from voxels in to a label map out."""

from __future__ import annotations

from typing import Any

import numpy as np


class Contender:
    """One program that segments a scan, ready to be called again and again in its own process."""

    def __init__(self) -> None:
        #: What the last run can say about itself besides its time: "phases" {name: seconds}, "notes" […], …
        self.facts: dict[str, Any] = {}

    def get_ready(self, image: np.ndarray, affine: np.ndarray) -> None:
        """What has to be there before a run begins, and is not measured."""

    def warm_up(self, image: np.ndarray, affine: np.ndarray) -> np.ndarray | None:
        """The first run, not counted; also for choosing what is fastest. As ``run``."""
        return self.run(image, affine)

    def run(self, image: np.ndarray, affine: np.ndarray) -> np.ndarray | None:
        """image: (I, J, K), any number type. affine: voxel index → RAS mm. Returns label values (I, J, K), or None
        where the result went elsewhere."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing behind."""
