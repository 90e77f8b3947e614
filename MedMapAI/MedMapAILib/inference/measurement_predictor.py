"""A model that makes images of measurements, ready to be run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..bundle import Bundle
from ..devices import choose_device, describe
from ..errors import Cancelled, InputError
from ..measurements import ct_methods, mr_methods
from ..measurements.measured import CtMeasurement, Measurement, MrMeasurement
from ..results import Reconstruction
from ..tasks import task_class


class MeasurementPredictor:
    """Runs one model. Building it loads the network to the device; ``predict`` may then be called again and again.

    bundle: from ``load_bundle``. device: as ``Predictor``. backend: "auto" or "torch", which is what computes here: the
    physics lies between the layers. It computes in float32: sums over hundreds of views need it.
    Raises InputError when there is no such device, or for another precision.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", precision: str = "auto", backend: str = "auto"):
        self.bundle = bundle
        if backend not in ("auto", "torch") or precision not in ("auto", "fp32"):
            raise InputError(
                f"The model {bundle.info.name} reconstructs measurements, which torch does in float32; leave --backend "
                "and --precision out."
            )
        self._device = choose_device(device)
        self.task = task_class(bundle.info.task)(bundle.plan, bundle.info.answers, bundle.inference)
        self._network = bundle.build_network().to(self._device)
        #: Seconds that the last prediction took, reading and writing left out.
        self.seconds = 0.0

    @property
    def device_description(self) -> str:
        """Where and in which number format it computes."""
        return describe(self._device, torch.float32)

    @property
    def passes(self) -> int:
        """How often a slice goes through the network."""
        return 1

    def close(self) -> None:
        """Give back what the network holds; it can be run no more."""
        self._network = None

    def predict(
        self,
        measurement: Measurement,
        *,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        **_: Any,
    ) -> Reconstruction:
        """The image that a measurement was made of, on the measurement's own pixels.

        progress: called with a fraction and a message after each slice. cancelled: asked before each. Raises
        InputError for what is no measurement of the kind that the model takes, Cancelled.
        """
        began = time.monotonic()

        def slices(measured: Measurement) -> np.ndarray:
            is_mr = isinstance(measured, MrMeasurement)
            count = measured.shape[2]
            # Of an empty slice there is nothing to compute.
            filled = measured.filled() if is_mr else np.arange(count)
            if not len(filled):
                filled = np.arange(count)
            one = _mr_slices if is_mr else _ct_slices
            made = []
            with torch.inference_mode():
                for number, (data, *physics) in enumerate(one(measured, self._device, filled)):
                    if cancelled is not None and cancelled():
                        raise Cancelled
                    output = self._network(data, *physics)
                    made.append((output.abs() if output.is_complex() else output)[0, 0].float().cpu().numpy())
                    if progress is not None:
                        progress((number + 1) / len(filled), f"slice {number + 1} of {len(filled)}")
            images = np.zeros((count, *made[0].shape), dtype=np.float32)
            images[filled] = made
            return measured.cropped(images) if is_mr else images

        result = self.task.predict(slices, measurement)
        self.seconds = time.monotonic() - began
        notes = (*result.notes, f"Computed on {self.device_description}.")
        return replace(result, method=self.bundle.info.name, notes=notes)


def _ct_slices(measured: CtMeasurement, device: torch.device, slices: np.ndarray):
    scan = ct_methods.Scan(measured, device)
    for number in slices.tolist():
        yield scan.sinogram(number, number + 1), scan.projector, measured.water_per_mm


def _mr_slices(measured: MrMeasurement, device: torch.device, slices: np.ndarray):
    scan = mr_methods.Scan(measured, device)
    for number in slices.tolist():
        # Sensitivities in the air, too: a network has learned with such, and knows by itself where there is nothing.
        yield scan.k_space(number, number + 1), scan.operator(number, number + 1, "espirit", crop=0.0)
