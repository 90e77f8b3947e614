"""Compressed sensing with wavelets: the image of few large coefficients that fits an undersampled k-space."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..physics.linear_operator import operator_norm
from .iteration import Monitor, Operator, Solution, Stopping
from .wavelets import WaveletTransform

#: The estimate of an operator's norm is a lower bound; so much more is safe.
_MARGIN = 1.05


@torch.no_grad()
def wavelet_compressed_sensing(
    operator: Operator,
    data: Tensor,
    *,
    weight: float = 3e-3,
    moments: int = 4,
    levels: int | None = None,
    stopping: Stopping = Stopping(iterations=100, tolerance=1e-4),  # noqa: B008 - frozen
    norm: float | None = None,
) -> Solution:
    """The least ½ |A W⁻¹ c - y|² + weight · max |Aᴴ y| · |c|₁ over the coefficients c of a wavelet transform.

    weight: as for ``total_variation``; the coarsest image costs nothing. moments, levels: see ``WaveletTransform``.
    norm: of the operator, where it is known. Residuals are those of the point at which an iteration began, which runs
    ahead of the image. Lustig, Donoho and Pauly, "Sparse MRI", MRM 58 (2007); solved as by Beck and Teboulle, "A fast
    iterative shrinkage-thresholding algorithm", SIAM Journal on Imaging Sciences 2 (2009), started over where it
    would overshoot (O'Donoghue and Candès 2015).
    """
    if not weight >= 0:
        raise InputError(f"The weight of the wavelet coefficients is {weight}; it is at least 0.")
    monitor = Monitor(stopping, data)
    back = operator.adjoint(data)
    transform = WaveletTransform(tuple(back.shape[-2:]), moments=moments, levels=levels)
    limit = weight * back.abs().amax(dim=tuple(range(1, back.ndim)), keepdim=True) * transform.details(back)
    if norm is None:
        norm = _MARGIN * operator_norm(operator, tuple(back.shape), dtype=back.dtype, device=back.device)
    step = 1 / norm**2 if norm else 1.0
    coefficients = torch.zeros_like(transform(back))
    point, momentum = coefficients, 1.0
    while True:
        misfit = operator(transform.inverse(point)) - data
        moved = shrunk(point - step * transform(operator.adjoint(misfit)), step * limit)
        if float(((point - moved).conj() * (moved - coefficients)).real.sum()) > 0:
            momentum = 1.0
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        point = moved + (momentum - 1) / following * (moved - coefficients)
        last = monitor.done(misfit.norm(), coefficients, moved)
        coefficients, momentum = moved, following
        if last:
            return monitor.answer(transform.inverse(coefficients))


def shrunk(values: Tensor, limit: Tensor) -> Tensor:
    """Values brought nearer to 0 by ``limit``, those within it to 0; complex ones keep their phase."""
    size = values.abs()
    return values * ((size - limit).clamp(min=0) / size.clamp(min=1e-38))
