"""Total variation: the image that fits the data and is flat in pieces, by a primal-dual iteration."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..physics.linear_operator import operator_norm
from .conjugate_gradient import cgls
from .iteration import Monitor, Operator, Solution, Stopping

#: The square of the gradient's norm in two dimensions.
_GRADIENT = 8.0
#: So many steps of conjugate gradients make the first image.
_FIRST_STEPS = 8
#: The estimate of an operator's norm is a lower bound; so much more is safe.
_MARGIN = 1.05


@torch.no_grad()
def total_variation(
    operator: Operator,
    data: Tensor,
    *,
    weight: float = 1e-3,
    stopping: Stopping = Stopping(iterations=200, tolerance=1e-4),  # noqa: B008 - frozen
    start: Tensor | None = None,
    nonnegative: bool = False,
    norm: float | None = None,
) -> Solution:
    """The least ½ |A x - y|² + weight · max |Aᴴ y| · TV(x), TV being the sum of the gradient's lengths over the pixels.

    weight: as a part of the largest value of Aᴴ y, for each item of a batch, so that it means the same whatever the
    units of the data and the operator: 1e-4 to 1e-2 are usual. Real or complex; nonnegative (real images only):
    without negative pixels. start: by default a few steps of conjugate gradients. norm: of the operator, where it is
    known; otherwise found. Residuals are those of the image at an iteration's end.
    Chambolle and Pock, Journal of Mathematical Imaging and Vision 40 (2011); Sidky, Jørgensen and Pan, Physics in
    Medicine and Biology 57 (2012).
    """
    if not weight >= 0:
        raise InputError(f"The weight of the total variation is {weight}; it is at least 0.")
    monitor = Monitor(stopping, data)
    if start is None:
        start = cgls(operator, data, stopping=Stopping(iterations=_FIRST_STEPS)).image
    image = start.detach().clamp(min=0) if nonnegative else start.detach()
    back = operator.adjoint(data)
    weights = weight * back.abs().amax(dim=tuple(range(1, back.ndim)), keepdim=True)
    if norm is None:
        norm = _MARGIN * operator_norm(operator, tuple(image.shape), dtype=image.dtype, device=image.device)
    # Both parts of the map (A, scale · gradient) have the same norm then.
    scale = norm / _GRADIENT**0.5 or 1.0
    limit = weights / scale
    dual_step = _dual_step(operator, image, norm)
    step = 1 / (2 * dual_step * norm**2 or 1.0)
    seen, slope = operator(image), scale * gradient(image)
    # Begun near their end: the dual variable of the fit is the misfit then, that of the edges points along them.
    fit, edge = seen - data, _within(slope, limit)
    pulled = operator.adjoint(fit) + scale * gradient_adjoint(edge)
    while True:
        after = image - step * pulled
        after = after.clamp_(min=0) if nonnegative else after
        seen_after, slope_after = operator(after), scale * gradient(after)
        fit_after = (fit + dual_step * (2 * seen_after - seen - data)) / (1 + dual_step)
        edge_after = _within(edge + dual_step * (2 * slope_after - slope), limit)
        pulled_after = operator.adjoint(fit_after) + scale * gradient_adjoint(edge_after)
        last = monitor.done((seen_after - data).norm(), image, after)
        image, seen, slope, fit, edge, pulled = after, seen_after, slope_after, fit_after, edge_after, pulled_after
        if last:
            return monitor.answer(image)


def _dual_step(operator: Operator, image: Tensor, norm: float) -> float:
    """The step of the dual variables: what the operator leaves of white noise, as a part of its norm.

    That of the image follows from it. An operator that hardly sees most images, like a projector (0.05 to 0.1), wants
    long steps of the image; one that sees all alike (1) does not. On discs from 40 views, brains from a quarter of the
    lines and plain denoising this is within a factor of three of the best.
    """
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    return float(operator(noise).norm() / noise.norm()) / norm or 1.0 if norm else 1.0


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
