"""What all iterative reconstructions share: when they stop, and what they answer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import InputError, RunError


class Operator(Protocol):
    """A linear map with its adjoint."""

    def __call__(self, image: Tensor) -> Tensor: ...

    def adjoint(self, data: Tensor) -> Tensor: ...


@dataclasses.dataclass(frozen=True)
class Stopping:
    """When an iteration ends.

    iterations: at most so many. tolerance: it has converged when the image changes by less than this part of itself
    from one iteration to the next; 0 for never. discrepancy: it has fitted the data when |A x - y| / |y| is no more
    than this, the part of the data that is noise (Morozov's principle); beyond that it would fit the noise. None: not
    known. progress: called after each iteration with its number and that residual; what it raises ends the iteration.
    """

    iterations: int = 100
    tolerance: float = 1e-5
    discrepancy: float | None = None
    progress: Callable[[int, float], Any] | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"A reconstruction takes at least one iteration, not {self.iterations}.")


@dataclasses.dataclass
class Solution:
    """What an iterative reconstruction answers.

    image: (B, 1, H, W). residuals: |A x - y| / |y| over the whole batch, one for each iteration; of the image with
    which the iteration began, or ended where the method has it for nothing: each method says which. stopped: why, one
    of "converged", "fitted to the noise", "out of iterations".
    """

    image: Tensor
    residuals: list[float]
    stopped: str

    @property
    def iterations(self) -> int:
        """How many were done."""
        return len(self.residuals)


class Monitor:
    """Keeps the residuals of one run and says when it ends."""

    def __init__(self, stopping: Stopping, data: Tensor) -> None:
        self.stopping = stopping
        self.scale = float(data.norm())
        if not math.isfinite(self.scale):
            raise InputError("The measurement holds values that are no numbers.")
        self.residuals: list[float] = []
        self.stopped = "out of iterations"

    def done(self, residual: float | Tensor, before: Tensor, after: Tensor) -> bool:
        """Note the norm of A x - y after an iteration, and whether it was the last.

        before, after: the image at its begin and end. Raises RunError where it diverged.
        """
        # A measurement of nothing is fitted by nothing.
        relative = float(residual) / self.scale if self.scale else float(residual)
        if not math.isfinite(relative):
            raise RunError(f"The reconstruction diverged in iteration {len(self.residuals) + 1}; nothing was kept.")
        self.residuals.append(relative)
        if self.stopping.progress is not None:
            self.stopping.progress(len(self.residuals), relative)
        if self.stopping.discrepancy is not None and relative <= self.stopping.discrepancy:
            self.stopped = "fitted to the noise"
            return True
        change = float((after - before).norm())
        if change <= self.stopping.tolerance * float(after.norm()) and self.stopping.tolerance > 0:
            self.stopped = "converged"
            return True
        return len(self.residuals) >= self.stopping.iterations

    def answer(self, image: Tensor) -> Solution:
        """The result with this image."""
        return Solution(image, self.residuals, self.stopped)


def inverse_of(values: Tensor) -> Tensor:
    """1 / values, and 0 where they are (nearly) 0: pixels that no ray meets, rays that meet no pixel."""
    floor = 1e-6 * float(values.max())
    return torch.where(values > floor, 1 / values.clamp(min=max(floor, 1e-30)), 0.0)


def item_dot(a: Tensor, b: Tensor) -> Tensor:
    """The real part of the inner product of each item of two batches: (B, 1, 1, 1)."""
    product = (a.conj() * b).real if a.is_complex() else a * b
    return product.sum(dim=tuple(range(1, a.ndim)), keepdim=True)


def start_image(operator: Operator, data: Tensor, start: Tensor | None) -> Tensor:
    """A copy of the first image, or zeros of the right form."""
    return torch.zeros_like(operator.adjoint(data)) if start is None else start.detach().clone()
