"""A model, ready to be run on images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from monai.data import MetaTensor

from ..bundle import Bundle
from ..devices import choose_device, choose_precision, describe
from ..errors import InputError
from ..image import check_not_constant
from ..networks import size_divisor
from ..preprocessing import Grid, crop_to_roi
from ..results import Segmentation
from ..tasks import task_class
from .sliding_window import SlidingWindow

Roi = tuple[tuple[float, float, float], tuple[float, float, float]]


class Predictor:
    """Runs one model. Building it loads the network to the device; ``predict`` may then be called again and again.

    bundle: from ``load_bundle``. device: "auto", "cpu", "cuda:0", "mps". precision: "auto", "fp32", "bf16", "fp16".
    Raises InputError when there is no such device, or it cannot compute in that precision.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", precision: str = "auto"):
        self.bundle = bundle
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.task = task_class(bundle.info.task)(bundle.plan, bundle.info.segments, bundle.inference)
        self._network = bundle.build_network().to(self.device)
        #: Seconds that the last prediction took, reading and writing left out.
        self.seconds = 0.0

    @property
    def device_description(self) -> str:
        """Where and in which number format it computes, such as "cpu, fp32"."""
        return describe(self.device, self.dtype)

    def predict(
        self,
        image: MetaTensor,
        *,
        roi: Roi | None = None,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Segmentation:
        """The model's answer for an image (C, I, J, K).

        roi: (center, size) of a box along the patient's axes, RAS mm; the model then sees that part alone, and the
        result, still on the whole image's grid, is empty outside. progress: called with a fraction and a message.
        cancelled: asked before each window. Raises InputError for an image that the model cannot take, Cancelled.
        """
        began = time.monotonic()
        channels = self.bundle.network["in_channels"]
        if image.shape[0] != channels:
            raise InputError(
                f"The model {self.bundle.info.name} takes images of {channels} channel(s) and this one has "
                f"{image.shape[0]}; choose one of its channels or another model."
            )
        source = Grid.of(image)
        part, slices = (image, None) if roi is None else crop_to_roi(image, *roi)
        check_not_constant(part, "The image" if roi is None else "The image in the ROI")

        def network(volume: torch.Tensor) -> torch.Tensor:
            return self._windows()(volume.to(self.device), progress, cancelled)

        result = self.task.predict(network, part)
        if slices is not None:
            labels = np.zeros(source.shape, dtype=result.labels.dtype)
            labels[slices] = result.labels
            result = replace(result, labels=labels, affine=source.affine)
        self.seconds = time.monotonic() - began
        return replace(
            result, notes=(*image.meta.get("notes", ()), *result.notes, f"Computed on {self.device_description}.")
        )

    def _windows(self) -> SlidingWindow:
        plan, inference, network = self.bundle.plan, self.bundle.inference, self.bundle.network
        return SlidingWindow(
            self._forward,
            patch=inference.get("window") or plan.patch,
            divisor=size_divisor(network["name"], spatial_dims=plan.spatial_dims, **network["options"]),
            overlap=inference["overlap"],
            mirror_axes=inference["mirror_axes"],
            batch=1 if self.device.type == "cpu" else plan.batch,
        )

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return self._network(windows)
