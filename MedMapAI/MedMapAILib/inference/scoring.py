"""A result against its reference, as both ways of running a model give it: in the worker and in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..results import ImageReference, Reconstruction
from .messages import Box, Reference

#: Scores an image (a Reconstruction) against its reference.
Evaluate = Callable[[Reconstruction, ImageReference], dict[str, Any]]


def score(task: Any, result: Any, reference: Reference | None, image: Any = None, roi: Box | None = None) -> Any:
    """What ``task.evaluate`` says of a result; None without a reference.

    Of an image that was made of another one, ``image`` (1, I, J, K), the scores have those of that one under "before",
    and with a region of interest (center and size, RAS mm) the scores within it under "region", with their own
    "before".
    """
    if reference is None:
        return None
    if not isinstance(result, Reconstruction):
        return task.evaluate(result, reference)
    return image_scores(task.evaluate, result, reference, image, roi)


def image_scores(
    evaluate: Evaluate,
    result: Reconstruction,
    reference: ImageReference,
    image: Any = None,
    roi: Box | None = None,
) -> dict[str, Any]:
    """``score`` for images; evaluate: as that of a task of reconstructions."""
    before = None
    if image is not None and len(image) == 1:
        before = replace(result, values=np.asarray(image[0], dtype=np.float32))
    scores = _both(evaluate, result, before, reference)
    box = None if roi is None else _voxels_in(roi, result)
    if box is not None:
        parts = [one and replace(one, values=one.values[box]) for one in (result, before)]
        try:
            scores["region"] = _both(evaluate, *parts, replace(reference, values=reference.values[box]))
        except InputError:
            pass  # too small for some score
    return scores


def _both(evaluate: Evaluate, result: Any, before: Any, reference: ImageReference) -> dict[str, Any]:
    scores = dict(evaluate(result, reference))
    return scores if before is None else {**scores, "before": evaluate(before, reference)}


def _voxels_in(roi: Box, result: Reconstruction) -> tuple[slice, ...] | None:
    """The voxels whose centers lie in the box that the corners of a box in RAS mm span; None where there is none."""
    center, half = np.asarray(roi[0]), np.asarray(roi[1]) / 2
    signs = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3), axis=-1).reshape(-1, 3)
    corners = np.c_[center + signs * half, np.ones(8)] @ np.linalg.inv(result.affine).T
    low, high = np.ceil(corners.min(axis=0)[:3] - 1e-6), np.floor(corners.max(axis=0)[:3] + 1e-6)
    low, high = np.maximum(low, 0).astype(int), np.minimum(high + 1, result.values.shape).astype(int)
    return tuple(map(slice, low, high)) if (high > low).all() else None
