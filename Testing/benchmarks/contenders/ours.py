"""MedMapAI's own Predictor, as scripts and the command line use it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from MedMapAILib.image import make_image
from MedMapAILib.inference.predictor import Predictor

from .contender import Contender


class Ours(Contender):
    """bundle: the model. threads: of torch, which the back ends follow. backend, precision: as the Predictor's."""

    def __init__(self, bundle: Any, threads: int, backend: str, precision: str):
        super().__init__()
        torch.set_num_threads(threads)
        self._predictor = Predictor(bundle, "cpu", precision, backend)

    def run(self, image: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """See Contender."""
        estimates: list[Any] = []
        result = self._predictor.predict(make_image(image[None], affine), on_estimate=estimates.append)
        last = estimates[-1] if estimates else None
        self.facts = {
            "device": self._predictor.device_description,
            "notes": list(result.notes),
            "windows": getattr(last, "windows", None),
            "window": list(last.window) if last else None,
            "estimated_seconds": getattr(last, "seconds", None),
            "estimated_bytes": getattr(last, "memory_bytes", None),
        }
        return result.labels
