"""From a measurement in a file to an image in the scene: what the worker does, and what it says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..devices import choose_device, describe
from ..image import check_same_geometry
from ..measurements.files import read_measurement
from ..metrics.image_quality import image_quality
from ..preprocessing import Grid
from ..reconstruct_command import reconstructed
from ..results import ImageReference, Reconstruction
from .messages import ReconstructRequest
from .report import RunReport
from .scoring import image_scores


def reconstruct(
    request: ReconstructRequest,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> RunReport:
    """Make the image that a request asks for, and score it where there is a reference.

    progress: called with a fraction and a message. cancelled: asked between iterations or slices. Raises InputError for
    a file, a geometry, an option or a reference that does not fit, Cancelled.
    """
    measurement = read_measurement(request.measurement, request.geometry and Path(request.geometry), **request.reading)
    reference = request.reference
    if reference is not None:
        check_same_geometry(
            Grid(measurement.shape, measurement.affine),
            Grid(reference.values.shape, reference.affine),
            "The image of this measurement",
            "the reference",
        )
    began = time.monotonic()
    result = reconstructed(
        request.method,
        measurement,
        request.options,
        progress=progress,
        cancelled=cancelled,
        device=request.device,
    )
    seconds = time.monotonic() - began
    scores = None
    if reference is not None:
        if progress is not None:
            progress(1.0, "scoring against the reference")
        scores = image_scores(_quality, result, reference)
    device = describe(choose_device(request.device), torch.float32)
    return RunReport(Path(request.method).name, result, device, seconds, scores)


def _quality(result: Reconstruction, reference: ImageReference) -> dict[str, Any]:
    """As the task of reconstructions evaluates, over the window of the result; without one over the reference's range
    of values."""
    values, truth = result.values, reference.values
    window = result.window or (float(truth.min()), float(truth.max()))
    found = image_quality(truth, values, window=window, slices=2).as_dict()
    bias = float(np.mean(values, dtype=np.float64) - np.mean(truth, dtype=np.float64))
    return {"psnr_db": found["psnr"], **{key: found[key] for key in ("ssim", "ms_ssim", "nrmse")}, "bias": bias}
