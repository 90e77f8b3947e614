"""Conjugate gradients on the normal equations: CGLS for CT, CG-SENSE for MR."""

from __future__ import annotations

import torch
from torch import Tensor

from ..physics.mr_operator import MrOperator
from .iteration import Monitor, Operator, Solution, Stopping, item_dot, start_image


@torch.no_grad()
def cgls(
    operator: Operator,
    data: Tensor,
    *,
    damping: float = 0.0,
    stopping: Stopping = Stopping(iterations=30),  # noqa: B008 - frozen
    start: Tensor | None = None,
) -> Solution:
    """The least |A x - y|² + damping |x|²; real or complex, each item of a batch with its own steps.

    In exact arithmetic it is there after as many steps as there are different singular values; with noise it is best
    stopped long before (``discrepancy``). Residuals are those of the image at an iteration's end, and never grow.
    Hestenes and Stiefel (1952); Björck, "Numerical Methods for Least Squares Problems" (1996), algorithm 7.4.1.
    """
    monitor = Monitor(stopping, data)
    image = start_image(operator, data, start)
    misfit = data - operator(image)
    gradient = operator.adjoint(misfit) - damping * image
    direction = gradient
    power = item_dot(gradient, gradient)
    while True:
        measured = operator(direction)
        curvature = item_dot(measured, measured) + damping * item_dot(direction, direction)
        step = torch.where(curvature > 0, power / curvature.clamp(min=1e-38), 0.0)
        after = image + step * direction
        misfit = misfit - step * measured
        gradient = operator.adjoint(misfit) - damping * after
        last, power = power, item_dot(gradient, gradient)
        direction = gradient + torch.where(last > 0, power / last.clamp(min=1e-38), 0.0) * direction
        done = monitor.done(misfit.norm(), image, after)
        image = after
        if done:
            return monitor.answer(image)


def cg_sense(
    operator: MrOperator,
    k_space: Tensor,
    *,
    damping: float = 1e-3,
    stopping: Stopping = Stopping(iterations=30, tolerance=1e-4),  # noqa: B008 - frozen
) -> Solution:
    """The complex image (B, 1, H, W) that fits an undersampled k-space (B, C, H, W) of several coils.

    damping: of the image's own power; the operator's norm is 1 where the squares of the sensitivities add up to 1.
    Pruessmann and others, "Advances in sensitivity encoding with arbitrary k-space trajectories", MRM 46 (2001).
    """
    return cgls(operator, operator.mask * k_space, damping=damping, stopping=stopping)
