"""A result against its reference, as both ways of running a model give it: in the worker and in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..image import make_image
from ..preprocessing import crop_to_roi
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
    if roi is not None:
        _, box = crop_to_roi(make_image(result.values[None], result.affine), *roi)
        parts = [one and replace(one, values=one.values[box]) for one in (result, before)]
        scores["region"] = _both(evaluate, *parts, replace(reference, values=reference.values[box]))
    return scores


def _both(evaluate: Evaluate, result: Any, before: Any, reference: ImageReference) -> dict[str, Any]:
    scores = dict(evaluate(result, reference))
    return scores if before is None else {**scores, "before": evaluate(before, reference)}
