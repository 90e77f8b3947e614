"""MONAI's sliding_window_inference, between MONAI's own transforms, as a MONAI bundle does it.

Orientation, normalization and spacing before; softmax, their inverse and argmax after, in the order of the bundles of
MONAI's model zoo. The image is interpolated as the model's plan says, the probabilities linearly.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import psutil
import torch
from benchmarks.measure import peak_bytes, reset_peak
from MedMapAILib.image import make_image
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import Compose, NormalizeIntensity, Orientation, ScaleIntensityRange, Spacing
from monai.transforms.utils import convert_applied_interp_mode

from .contender import Contender

_BATCHES = (1, 2, 4, 8)
_OVERLAP = 0.5


class MonaiWindows(Contender):
    """bundle: the model. threads: of torch."""

    def __init__(self, bundle: Any, threads: int):
        super().__init__()
        torch.set_num_threads(threads)
        self._network = bundle.build_network()
        self._patch = bundle.plan.patch
        self._values = np.array([0, *(segment.value for segment in bundle.info.segments)], dtype=np.uint8)
        self._before = Compose([Orientation(axcodes="RAS"), _normalization(bundle.plan), _spacing(bundle.plan)])
        self._batch = 1
        self._tried: dict[str, float] = {}

    def warm_up(self, image: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Try batches of windows, then run with the best of them."""
        self._choose_batch()
        return self.run(image, affine)

    def run(self, image: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """See Contender."""
        began = time.perf_counter()
        prepared = self._before(make_image(image[None], affine))
        ready = time.perf_counter()
        with torch.inference_mode():
            logits = sliding_window_inference(
                prepared.as_tensor()[None],
                roi_size=self._patch,
                sw_batch_size=self._batch,
                predictor=self._network,
                overlap=_OVERLAP,
                mode="gaussian",
            )[0]
        computed = time.perf_counter()
        scores = MetaTensor(logits.softmax(dim=0), meta=prepared.meta, applied_operations=prepared.applied_operations)
        del logits
        # Back to the scanner's voxels linearly, by torch: with splines this step alone would take longer than all else.
        scores.applied_operations = convert_applied_interp_mode(scores.applied_operations, mode="bilinear")
        labels = self._before.inverse(scores).argmax(dim=0).numpy()
        ended = time.perf_counter()
        self.facts = {
            "phases": {"before": ready - began, "windows": computed - ready, "after": ended - computed},
            "batch": self._batch,
            "seconds_per_window_by_batch": self._tried,
        }
        return self._values[labels]

    def _choose_batch(self) -> None:
        """The batch with the least time a window, of those that fit into half of the free memory.

        After two in a row that are no better, larger ones are not tried.
        """
        worse, one = 0, 0
        for batch in _BATCHES:
            if worse == 2 or batch * one > 0.5 * psutil.virtual_memory().available:
                break
            windows = torch.randn(batch, 1, *self._patch)
            reset_peak()
            before = psutil.Process().memory_info().rss
            seconds = []
            with torch.inference_mode():
                for _ in range(3 if windows.numel() < 1e6 else 1):
                    began = time.perf_counter()
                    self._network(windows)
                    seconds.append((time.perf_counter() - began) / batch)
            if batch == 1:
                one = max(0, (peak_bytes() or 0) - before)
            best = min(self._tried.values(), default=np.inf)
            self._tried[str(batch)] = min(seconds)
            worse = worse + 1 if min(seconds) > best else 0
        self._batch = int(min(self._tried, key=self._tried.__getitem__))


def _normalization(plan: Any) -> Any:
    settings = plan.normalization
    if settings["kind"] == "zscore":
        return NormalizeIntensity(channel_wise=True)
    if settings["kind"] == "ct":
        low, high = settings["clip"]
        scaled = [(bound - settings["mean"]) / settings["sd"] for bound in (low, high)]
        return ScaleIntensityRange(low, high, *scaled, clip=True)
    raise ValueError(f"no MONAI transform is set up here for the normalization {settings['kind']!r}")


def _spacing(plan: Any) -> Spacing:
    # An order as a number makes MONAI take scipy's splines.
    mode = {"linear": "bilinear", "cubic": 3, "nearest": "nearest"}[plan.interpolation]
    return Spacing(pixdim=plan.spacing, mode=mode, padding_mode="nearest" if mode == 3 else "border")
