"""MLEM: the image without negative values that makes the measured data most likely, as counts of Poisson."""

from __future__ import annotations

import torch
from torch import Tensor

from .iteration import Monitor, Operator, Solution, Stopping, inverse_of


@torch.no_grad()
def mlem(
    operator: Operator,
    data: Tensor,
    *,
    stopping: Stopping = Stopping(),  # noqa: B008 - frozen
    start: Tensor | None = None,
) -> Solution:
    """x ← x / (Aᵀ 1) · Aᵀ (y / A x): never negative, and the sum of A x is that of y after each iteration.

    Data below zero, as noise makes them of line integrals, count as zero. start: above zero everywhere; by default
    even. Residuals are those of the image at an iteration's begin. Shepp and Vardi, "Maximum likelihood reconstruction
    for emission tomography", IEEE TMI 1 (1982).
    """
    monitor = Monitor(stopping, data)
    data = data.clamp(min=0)
    sensitivity = inverse_of(operator.adjoint(torch.ones_like(data[:1])))
    image = torch.ones_like(operator.adjoint(data)) if start is None else start.detach().clone()
    if start is None:
        # The scale at which the data's sum is met; the first step would find it, and at a better precision.
        dims = tuple(range(1, data.ndim))
        image = image * (data.sum(dims, keepdim=True) / operator(image).sum(dims, keepdim=True).clamp(min=1e-30))
    while True:
        expected = operator(image).clamp(min=0)
        after = image * sensitivity * operator.adjoint(data * inverse_of(expected))
        last = monitor.done((data - expected).norm(), image, after)
        image = after
        if last:
            return monitor.answer(image)
