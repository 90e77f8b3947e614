"""From a measurement in a file to an image: by a method that needs no model, or by a model made for measurements."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..bundle import find_bundle, load_bundle
from ..devices import choose_device, describe
from ..errors import InputError
from ..image import check_same_geometry
from ..measurements.files import read_measurement
from ..measurements.measured import Measurement
from ..measurements.methods import METHODS, reconstruct_measurement
from ..preprocessing import Grid
from ..results import ImageKind, ImageReference, Reconstruction
from ..tasks.reconstruction import ReconstructionTask
from .messages import ReconstructRequest
from .opening import open_predictor
from .report import RunReport
from .scoring import image_scores

Progress = Callable[[float, str], None]


def reconstruct(
    request: ReconstructRequest,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> RunReport:
    """Make the image that a request asks for, and score it where there is a reference.

    progress: called with a fraction and a message. cancelled: asked between iterations or slices. Raises InputError for
    a file, a geometry, an option or a reference that does not fit, Cancelled.
    """
    measurement = read_measurement(
        Path(request.measurement), Path(request.geometry) if request.geometry else None, **request.reading
    )
    reference = request.reference
    if reference is not None:
        check_same_geometry(
            Grid(measurement.shape, measurement.affine),
            Grid(reference.values.shape, reference.affine),
            "the image of this measurement",
            "the reference",
        )
    began = time.monotonic()
    way = _by_method if request.method in METHODS else _by_model
    result, device = way(request, measurement, progress, cancelled)
    seconds = time.monotonic() - began
    scores = None
    if reference is not None:
        if progress is not None:
            progress(1.0, "scoring against the reference")
        scores = scores_of(result, reference)
    return RunReport(request.method, result, device, seconds, scores)


def scores_of(result: Reconstruction, reference: ImageReference) -> dict[str, Any]:
    """As ``scoring.score``, over the window of the result; without one over the reference's range of values."""
    window = result.window
    if window is None:
        window = float(np.min(reference.values)), float(np.max(reference.values))
    task = ReconstructionTask(None, ImageKind(result.unit, window, "measurement"), {})
    return image_scores(task.evaluate, result, reference)


def _by_method(
    request: ReconstructRequest, measurement: Measurement, progress: Progress | None, cancelled: Any
) -> tuple[Reconstruction, str]:
    result = reconstruct_measurement(
        request.method,
        measurement,
        options=request.options,
        progress=progress,
        cancelled=cancelled,
        device=request.device,
    )
    return result, describe(choose_device(request.device), torch.float32)


def _by_model(
    request: ReconstructRequest, measurement: Measurement, progress: Progress | None, cancelled: Any
) -> tuple[Reconstruction, str]:
    bundle = load_bundle(find_bundle(request.method))
    images = bundle.info.images
    if images is None or images.domain != "measurement":
        raise InputError(
            f"The model {bundle.info.name} takes no measurements; reconstruct with a method, such as fbp, and run the "
            "model on the volume that comes of it."
        )
    predictor = open_predictor(bundle, request.device)
    try:
        result = predictor.predict(measurement, progress=progress, cancelled=cancelled)
    finally:
        predictor.close()
    return result, predictor.device_description
