"""The predictor that suits a model: in windows, or of the whole image at once."""

from __future__ import annotations

from typing import Any

from ..bundle import Bundle
from ..errors import InputError
from .predictor import Predictor
from .whole_image import WholeImagePredictor

#: What only makes sense for windows.
_OF_WINDOWS = ("overlap", "memory_bytes", "skip_air")


def open_predictor(
    bundle: Bundle, device: str = "auto", precision: str = "auto", backend: str = "auto", **options: Any
) -> Predictor | WholeImagePredictor:
    """Load a model's network to a device, ready to predict.

    options: as ``Predictor`` takes them; those about windows are left out for a model that sees images at once. Raises
    InputError as the predictors do, and for an overlap where there are no windows.
    """
    if bundle.plan.framing == "windows":
        return Predictor(bundle, device, precision, backend, **options)
    if options.get("overlap") is not None:
        raise InputError(f"The model {bundle.info.name} sees an image at once, not in windows; leave the overlap out.")
    rest = {key: value for key, value in options.items() if key not in _OF_WINDOWS}
    return WholeImagePredictor(bundle, device, precision, backend, **rest)
