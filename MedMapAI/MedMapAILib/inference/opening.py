"""The predictor that suits a model: in windows that are blended or joined, or of the whole image at once."""

from __future__ import annotations

from typing import Any

from ..bundle import Bundle
from ..errors import InputError
from ..tasks import task_class
from .detection_predictor import DetectionPredictor
from .generator import GeneratorPredictor
from .measurement_predictor import MeasurementPredictor
from .predictor import Predictor
from .whole_image import WholeImagePredictor

AnyPredictor = Predictor | DetectionPredictor | WholeImagePredictor | MeasurementPredictor | GeneratorPredictor

#: What a predictor does not know, by how the task's windows become one answer.
_UNKNOWN = {
    "blended": (),
    "joined": ("memory_bytes", "skip_air", "mirror"),
    "none": ("memory_bytes", "skip_air", "overlap"),
    "measured": ("memory_bytes", "skip_air", "overlap", "mirror"),
    "made": ("memory_bytes", "skip_air", "overlap", "mirror"),
}
_PREDICTORS = {
    "blended": Predictor,
    "joined": DetectionPredictor,
    "none": WholeImagePredictor,
    "measured": MeasurementPredictor,
    "made": GeneratorPredictor,
}


def open_predictor(
    bundle: Bundle, device: str = "auto", precision: str = "auto", backend: str = "auto", **options: Any
) -> AnyPredictor:
    """Load a model's network to a device, ready to predict.

    options: as the predictors take them; those that a predictor has no use for are left out. Raises InputError as the
    predictors do, and for an overlap or mirroring where there is no such thing.
    """
    task, name = task_class(bundle.info.task), bundle.info.name
    windows = task(bundle.plan, bundle.info.answers, bundle.inference).windows
    if windows in ("none", "measured") and options.get("overlap") is not None:
        raise InputError(f"The model {name} sees an image at once, not in windows; leave the overlap out.")
    if windows == "joined" and options.get("mirror"):
        raise InputError(f"The model {name} detects, and boxes of mirrored images are not averaged; leave it out.")
    rest = {key: value for key, value in options.items() if key not in _UNKNOWN[windows]}
    return _PREDICTORS[windows](bundle, device, precision, backend, **rest)
