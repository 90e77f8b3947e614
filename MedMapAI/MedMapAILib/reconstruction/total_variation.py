"""Total variation: the image that fits the data and is flat in pieces, by a primal-dual iteration."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..physics.linear_operator import operator_norm
from .iteration import Monitor, Operator, Reconstruction, Stopping, start_image

#: The square of the gradient's norm in two dimensions.
_GRADIENT = 8.0
#: By how much the two steps are shifted against each other at first, and how fast that fades.
_SHIFT, _FADE = 0.5, 0.95
#: The estimate of an operator's norm is a lower bound; so much more is safe.
_MARGIN = 1.05


@torch.no_grad()
def total_variation(
    operator: Operator,
    data: Tensor,
    *,
    weight: float = 1e-3,
    stopping: Stopping = Stopping(iterations=200),  # noqa: B008 - frozen
    start: Tensor | None = None,
    nonnegative: bool = False,
    norm: float | None = None,
) -> Reconstruction:
    """The least ½ |A x - y|² + weight · max |Aᴴ y| · TV(x), TV being the sum of the gradient's lengths over the pixels.

    weight: as a part of the largest value of Aᴴ y, for each item of a batch, so that it means the same whatever the
    units of the data and the operator: 1e-4 to 1e-2 are usual. Real or complex; nonnegative (real images only):
    without negative pixels. norm: of the operator, where it is known (of all the items); otherwise found.
    Residuals are those of the image at an iteration's end.
    Chambolle and Pock, Journal of Mathematical Imaging and Vision 40 (2011); Sidky, Jørgensen and Pan, Physics in
    Medicine and Biology 57 (2012); its two step lengths are kept in balance as by Goldstein and others, "Adaptive
    primal-dual hybrid gradient methods for saddle-point problems", arXiv 1305.0546 (2013).
    """
    if not weight >= 0:
        raise InputError(f"The weight of the total variation is {weight}; it is at least 0.")
    monitor = Monitor(stopping, data)
    image = start_image(operator, data, start)
    back = operator.adjoint(data)
    weights = weight * back.abs().amax(dim=tuple(range(1, back.ndim)), keepdim=True)
    if norm is None:
        norm = _MARGIN * operator_norm(operator, tuple(image.shape), dtype=image.dtype, device=image.device)
    # Both parts of the map (A, scale · gradient) have the same norm then.
    scale = norm / _GRADIENT**0.5 or 1.0
    limit = weights / scale
    # The misfit has the curvature 1 for its dual variable, so that 1 suits its step; their product is 1 / |K|².
    dual_step, step = 1.0, 1 / (2 * norm**2 or 1.0)
    shift = _SHIFT
    seen, slope = operator(image), scale * gradient(image)
    # The dual variable of the fit is the misfit in the end; begun with it, the first step is the gradient's.
    fit, edge = seen - data, torch.zeros_like(slope)
    pulled = operator.adjoint(fit)
    while True:
        after = image - step * pulled
        after = after.clamp_(min=0) if nonnegative else after
        seen_after, slope_after = operator(after), scale * gradient(after)
        fit_after = (fit + dual_step * (2 * seen_after - seen - data)) / (1 + dual_step)
        edge_after = _within(edge + dual_step * (2 * slope_after - slope), limit)
        pulled_after = operator.adjoint(fit_after) + scale * gradient_adjoint(edge_after)
        # How far both are from a saddle point.
        primal = ((image - after) / step - (pulled - pulled_after)).norm()
        dual_fit = (fit - fit_after) / dual_step - (seen - seen_after)
        dual_edge = (edge - edge_after) / dual_step - (slope - slope_after)
        dual = (dual_fit.norm().square() + dual_edge.norm().square()).sqrt()
        last = monitor.done((seen_after - data).norm(), image, after)
        image, seen, slope, fit, edge, pulled = after, seen_after, slope_after, fit_after, edge_after, pulled_after
        if last:
            return monitor.answer(image)
        if primal > 2 * dual:
            step, dual_step, shift = step / (1 - shift), dual_step * (1 - shift), shift * _FADE
        elif dual > 2 * primal:
            step, dual_step, shift = step * (1 - shift), dual_step / (1 - shift), shift * _FADE


def gradient(image: Tensor) -> Tensor:
    """Forward differences down and along, 0 at the last pixel: (…, H, W) → (2, …, H, W)."""
    return torch.stack([_forward(image, -2), _forward(image, -1)])


def gradient_adjoint(field: Tensor) -> Tensor:
    """The adjoint of ``gradient``, the negative divergence: (2, …, H, W) → (…, H, W)."""
    return _backward(field[0], -2) + _backward(field[1], -1)


def total_variation_of(image: Tensor) -> Tensor:
    """The total variation of each item of (B, 1, H, W): (B,)."""
    return gradient(image).abs().square().sum(dim=0).sqrt().flatten(1).sum(dim=1)


def _forward(image: Tensor, dim: int) -> Tensor:
    change = torch.diff(image, dim=dim)
    return torch.cat([change, torch.zeros_like(image.narrow(dim, 0, 1))], dim=dim)


def _backward(field: Tensor, dim: int) -> Tensor:
    inner = field.narrow(dim, 0, field.shape[dim] - 1)
    zero = torch.zeros_like(field.narrow(dim, 0, 1))
    return torch.cat([zero, inner], dim=dim) - torch.cat([inner, zero], dim=dim)


def _within(field: Tensor, limit: Tensor) -> Tensor:
    """Vectors (2, B, 1, H, W) shortened to at most ``limit`` (B, 1, 1, 1)."""
    length = field.abs().square().sum(dim=0).sqrt()
    return field * (limit / torch.maximum(length, limit).clamp(min=1e-38))
