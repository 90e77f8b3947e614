"""The predictor that suits a model: in windows that are blended or joined, or of the whole image at once."""

from __future__ import annotations

from typing import Any

from ..bundle import Bundle
from ..errors import InputError
from ..tasks import task_class
from .detection_predictor import DetectionPredictor
from .predictor import Predictor
from .whole_image import WholeImagePredictor

AnyPredictor = Predictor | DetectionPredictor | WholeImagePredictor

#: What a predictor does not know, by how the task's windows become one answer.
_UNKNOWN = {"blended": (), "joined": ("memory_bytes", "skip_air", "mirror"), "none": ("memory_bytes", "skip_air")}


def open_predictor(
    bundle: Bundle, device: str = "auto", precision: str = "auto", backend: str = "auto", **options: Any
) -> AnyPredictor:
    """Load a model's network to a device, ready to predict.

    options: as the predictors take them; those that a predictor has no use for are left out. Raises InputError as the
    predictors do, and for an overlap or mirroring where there is no such thing.
    """
    windows, name = task_class(bundle.info.task).windows, bundle.info.name
    if windows == "none" and options.get("overlap") is not None:
        raise InputError(f"The model {name} sees an image at once, not in windows; leave the overlap out.")
    if windows == "joined" and options.get("mirror"):
        raise InputError(f"The model {name} detects, and boxes of mirrored images are not averaged; leave it out.")
    rest = {key: value for key, value in options.items() if key not in _UNKNOWN[windows]}
    opened = {"blended": Predictor, "joined": DetectionPredictor, "none": WholeImagePredictor}[windows]
    if windows == "none":
        rest.pop("overlap", None)
    return opened(bundle, device, precision, backend, **rest)
