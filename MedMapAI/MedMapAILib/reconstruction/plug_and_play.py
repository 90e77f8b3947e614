"""Plug and play: any denoiser, trained or not, as what is known of images, beside the physics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .conjugate_gradient import cgls
from .iteration import Monitor, Operator, Solution, Stopping

#: So many steps of conjugate gradients solve for the data in each iteration, from the image before.
_STEPS = 6

#: denoiser(image (B, 1, H, W), deviation of the noise in the image's unit) → image.
Denoiser = Callable[[Tensor, float], Tensor]


@torch.no_grad()
def plug_and_play(
    operator: Operator,
    data: Tensor,
    denoiser: Denoiser,
    *,
    deviations: Sequence[float],
    trust: float,
    start: Tensor | None = None,
    stopping: Stopping = Stopping(tolerance=0),  # noqa: B008 - frozen
) -> Solution:
    """Half-quadratic splitting: by turns denoise, and fit the data near what the denoiser said.

    deviations: of the noise that the denoiser is told, one for each iteration, falling; in the image's unit (see
    ``falling``). trust: the deviation of the noise in the data, in its unit; the fit is the least
    |A x - y|² / trust² + |x - z|² / deviation². start: by default a few steps of conjugate gradients. Residuals are
    those of the fitted image; the answer is the last denoised one. Venkatakrishnan and others (2013); the schedule as
    by Zhang and others, "Plug-and-play image restoration with deep denoiser prior", IEEE TPAMI 44 (2022).
    """
    if not trust > 0 or not len(deviations) or not min(deviations) > 0:
        raise InputError("Plug and play needs a deviation above zero of the data's noise and of each iteration's.")
    monitor = Monitor(stopping, data)
    fitted = cgls(operator, data, stopping=Stopping(_STEPS)).image if start is None else start.detach()
    image = fitted
    for deviation in list(deviations)[: stopping.iterations]:
        before, image = image, denoiser(fitted, deviation)
        damping = (trust / deviation) ** 2
        # Around the denoised image: the least |A d - (y - A z)|² + damping |d|².
        rest = data - operator(image)
        fitted = image + cgls(operator, rest, damping=damping, stopping=Stopping(_STEPS)).image
        if monitor.done((operator(fitted) - data).norm(), before, image):
            break
    return monitor.answer(denoiser(fitted, deviation))


def falling(first: float, last: float, count: int) -> list[float]:
    """``count`` deviations from ``first`` to ``last``, each the same part of the one before."""
    return np.geomspace(first, last, count).tolist()
