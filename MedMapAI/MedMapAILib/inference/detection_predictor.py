"""A model that detects, ready to be run: its network over the scan, and the classifiers that look again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from monai.data import MetaTensor

from ..bundle import Bundle
from ..devices import choose_device, choose_precision, describe
from ..errors import InputError
from ..image import check_not_constant
from ..preprocessing import crop_to_roi
from ..region import check_values
from ..results import Detections, Finding
from ..tasks import task_class
from ..tasks.found_boxes import FoundBoxes
from .box_windows import box_ways, find_boxes
from .estimate import Estimate
from .predictor import Roi
from .second_look import SecondLook
from .tiling import window_starts

#: Share of the time of a run that the network takes; the rest is preparation and the second look.
_NETWORK_SHARE = 0.85


class DetectionPredictor:
    """Runs one model. Building it loads its networks to the device; ``predict`` may then be called again and again.

    bundle: from ``load_bundle``. device, precision: as ``Predictor``. backend: "auto" or "torch", which is what
    computes here: what a detector gives has no fixed size. overlap: of neighboring windows, 0 to <1; None takes what
    the model says. second_look: whether the model's classifiers look again at what was found.
    Raises InputError when there is no such device, or it cannot compute in that precision.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
        *,
        overlap: float | None = None,
        second_look: bool = True,
    ):
        self.bundle = bundle
        if backend not in ("auto", "torch"):
            raise InputError(f"A detection is computed by torch, not by {backend}; choose auto or torch.")
        if overlap is not None and not 0 <= overlap < 1:
            raise InputError(f"The overlap of windows is {overlap}; it must be at least 0 and less than 1.")
        self._ways = box_ways(bundle.plan, bundle.inference | ({} if overlap is None else {"overlap": overlap}))
        self._device = choose_device(device)
        # On a CPU the coordinates of boxes want float32, and it is no slower.
        self._dtype = torch.float32 if self._device.type == "cpu" and precision == "auto" else None
        self._dtype = self._dtype or choose_precision(precision, self._device)
        self.task = task_class(bundle.info.task)(bundle.plan, bundle.info.answers, bundle.inference)
        self._network = bundle.build_network().to(self._device)
        self._second_look = SecondLook(bundle, device) if bundle.stages and second_look else None
        #: Seconds that the last prediction took, reading and writing left out.
        self.seconds = 0.0

    @property
    def device_description(self) -> str:
        """Where and in which number format it computes."""
        return describe(self._device, self._dtype)

    @property
    def passes(self) -> int:
        """How often a window goes through the network."""
        return 1

    def close(self) -> None:
        """Give back what the networks hold; it can be run no more."""
        self._network = self._second_look = None

    def predict(
        self,
        image: MetaTensor,
        *,
        roi: Roi | None = None,
        proposals: Sequence[Finding] | None = None,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_estimate: Callable[[Estimate], None] | None = None,
    ) -> Detections:
        """What the model finds in a scan (C, I, J, K): all candidates, by falling score.

        roi: (center, size) of a box along the patient's axes, RAS mm; the model then sees that part alone, whatever
        region its plan names. proposals: boxes that a network chooses among which was trained to (a Fast R-CNN).
        progress: called with a fraction and a message. cancelled: asked before each window. on_estimate: called before
        the windows start. Raises InputError for an image that the model cannot take, Cancelled.
        """
        began = time.monotonic()
        channels, name = self.bundle.network["in_channels"], self.bundle.info.name
        if image.shape[0] != channels:
            raise InputError(
                f"The model {name} takes images of {channels} channel(s) and this one has {image.shape[0]}; choose one "
                "of its channels or another model."
            )
        part = image if roi is None else crop_to_roi(image, *roi)[0]
        part.meta["assume_hounsfield"] = image.meta.get("assume_hounsfield", False)
        if roi is not None:
            # What is HU is told from the whole scan, and lungs cannot be found in a part of them.
            check_values(image, self.bundle.plan.region)
            part.meta["is_region"] = True
        check_not_constant(part, "The image" if roi is None else "The image in the ROI")
        if progress is not None:
            progress(0.0, "preparing the scan")

        def whole(volume: torch.Tensor, boxes: np.ndarray | None = None) -> FoundBoxes:
            if on_estimate is not None:
                on_estimate(self._estimate(volume))
            share = None
            if progress is not None:

                def share(fraction: float, message: str) -> None:
                    progress(_NETWORK_SHARE * fraction, message)

            return find_boxes(self._windows, volume, **self._ways, proposals=boxes, progress=share, cancelled=cancelled)

        result = self.task.predict(whole, part, proposals)
        if self._second_look is not None:
            result = self._second_look(result, image, progress=progress, cancelled=cancelled, begin=_NETWORK_SHARE)
        self.seconds = time.monotonic() - began
        if progress is not None:
            progress(1.0, "done")
        notes = (*image.meta.get("notes", ()), *result.notes, f"Computed on {self.device_description}.")
        return replace(result, notes=notes)

    def _windows(
        self, windows: torch.Tensor, proposals: list[torch.Tensor] | None = None
    ) -> list[dict[str, torch.Tensor]]:
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32),
        ):
            return self._network(windows.to(self._device), proposals=proposals)

    def _estimate(self, volume: torch.Tensor) -> Estimate:
        shape, window = tuple(int(n) for n in volume.shape[2:]), self._ways["window"]
        if 1 in window:
            window = tuple(1 if w == 1 else n for w, n in zip(window, shape, strict=True))
        window = tuple(min(w, n) for w, n in zip(window, shape, strict=True))
        count = len(window_starts(shape, window, 0.0 if 1 in window else self._ways["overlap"]))
        return Estimate(count, window, seconds=None, memory_bytes=None)
