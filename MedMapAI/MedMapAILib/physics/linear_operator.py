"""A linear map with its adjoint, differentiable through both without a word from autograd about what lies between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class LinearOperator(nn.Module):
    """A linear map ``operator(x)`` with its adjoint ``operator.adjoint(y)``: <A x, y> = <x, Aᴴ y>.

    A subclass says ``_apply_forward`` and ``_apply_adjoint``; neither is traced by autograd, since the derivative of
    one is the other. So the gradient of the map is its matched adjoint, exactly, and costs no memory.
    """

    def forward(self, image: Tensor) -> Tensor:
        """The measurement of an image."""
        return _Linear.apply(image, self, False)

    def adjoint(self, measurement: Tensor) -> Tensor:
        """The adjoint applied to a measurement: an image."""
        return _Linear.apply(measurement, self, True)

    def _apply_forward(self, image: Tensor) -> Tensor:
        raise NotImplementedError

    def _apply_adjoint(self, measurement: Tensor) -> Tensor:
        raise NotImplementedError


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, operator: LinearOperator, transposed: bool) -> Tensor:
        ctx.operator, ctx.transposed = operator, transposed
        # Half precision is for networks: sums over hundreds of pixels need single.
        dtype = values.dtype if values.dtype in (torch.float64, torch.complex64, torch.complex128) else torch.float32
        ctx.dtype = values.dtype
        apply = operator._apply_adjoint if transposed else operator._apply_forward
        with torch.autocast(values.device.type, enabled=False):
            return apply(values.detach().to(dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(gradient, ctx.operator, not ctx.transposed).to(ctx.dtype), None, None


def dot_product_error(operator: Any, image: Tensor, measurement: Tensor) -> float:
    """How far <A x, y> and <x, Aᴴ y> differ, as a part of |A x| |y|: 0 for an exact adjoint."""
    forward, back = operator(image), operator.adjoint(measurement)
    left = torch.vdot(measurement.flatten().to(_double(forward)), forward.flatten().to(_double(forward)))
    right = torch.vdot(back.flatten().to(_double(forward)), image.flatten().to(_double(forward)))
    return float((left - right).abs() / (forward.norm().double() * measurement.norm().double()))


def operator_norm(operator: Any, shape: tuple[int, ...], *, iterations: int = 20, dtype=None, device=None) -> float:
    """The largest singular value of a linear operator, by power iteration from a fixed start.

    shape: of an image, with one item in the batch. A lower bound that comes within about a percent in 20 iterations
    for tomography; callers keep a margin.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator).to(device=device, dtype=dtype or torch.float32)
    value = 0.0
    for _ in range(iterations):
        image = image / image.norm()
        image = operator.adjoint(operator(image))
        value = float(image.norm()) ** 0.5
        if value == 0:
            return 0.0
    return value


def _double(like: Tensor) -> torch.dtype:
    return torch.complex128 if like.is_complex() else torch.float64
