"""SIRT, the simultaneous iterative reconstruction technique: all rays at once, each pixel by what its rays lack."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .iteration import Monitor, Operator, Solution, Stopping, inverse_of, start_image


@torch.no_grad()
def sirt(
    operator: Operator,
    data: Tensor,
    *,
    stopping: Stopping = Stopping(),  # noqa: B008 - frozen
    start: Tensor | None = None,
    nonnegative: bool = True,
    relaxation: float = 1.0,
) -> Solution:
    """x ← x + relaxation · C Aᵀ R (y - A x), with R and C one over the sums of A's rows and columns.

    Converges to the image whose misfit, weighted by R, is least, for 0 < relaxation < 2. The operator's entries are
    not negative (CT). nonnegative: negative pixels are set to 0 after each iteration. Residuals are those of the image
    at an iteration's begin. Gregor and Benson, "Computational analysis and improvement of SIRT", IEEE TMI 27 (2008).
    """
    if not 0 < relaxation < 2:
        raise InputError(f"SIRT's relaxation lies between 0 and 2; it is {relaxation}.")
    monitor = Monitor(stopping, data)
    image = start_image(operator, data, start)
    rays = inverse_of(operator(torch.ones_like(image[:1])))
    pixels = inverse_of(operator.adjoint(torch.ones_like(data[:1])))
    while True:
        misfit = data - operator(image)
        after = image + relaxation * pixels * operator.adjoint(rays * misfit)
        after = after.clamp_(min=0) if nonnegative else after
        last = monitor.done(misfit.norm(), image, after)
        image = after
        if last:
            return monitor.answer(image)
