"""Daubechies' orthogonal wavelets in two dimensions, for images that are few large coefficients.

Daubechies, "Orthonormal bases of compactly supported wavelets", Communications on Pure and Applied Mathematics 41
(1988). The filters are computed, not copied: the roots of her polynomial inside the unit circle.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError

#: Vanishing moments that are offered; 1 is Haar's. Beyond that the roots lose their precision.
MOMENTS = range(1, 9)


@lru_cache(maxsize=8)
def daubechies(moments: int) -> tuple[float, ...]:
    """The 2 · moments coefficients of the scaling filter; their sum is √2, their squares' sum 1."""
    import numpy as np

    if moments not in MOMENTS:
        raise InputError(f"Daubechies wavelets have 1 to {MOMENTS[-1]} vanishing moments, not {moments}.")
    # In y = sin²(ω / 2) the half-band filter is (1 - y)^N Σ C(N - 1 + k, k) y^k; y = (2 - z - 1/z) / 4.
    roots = np.roots([math.comb(moments - 1 + k, k) for k in range(moments)][::-1]) if moments > 1 else []
    taps = np.array([1.0 + 0j])
    for root in roots:
        pair = np.roots([1, 4 * root - 2, 1])
        taps = np.convolve(taps, [1, -pair[np.argmin(np.abs(pair))]])
    for _ in range(moments):
        taps = np.convolve(taps, [1, 1])
    taps = taps.real
    return tuple((taps * (math.sqrt(2) / taps.sum())).tolist())


class WaveletTransform:
    """An orthogonal wavelet transform of images (B, 1, H, W), real or complex, wrapping round at the edges.

    Images whose sides 2^levels does not divide are padded with zeros; ``inverse`` cuts that off again, so that it is
    the adjoint of ``__call__`` and ``inverse(transform(x))`` is x. moments: of the Daubechies wavelet, 1 to 8.
    levels: how often it is halved; by default until a side would be shorter than 16 or the filter.
    """

    def __init__(self, size: tuple[int, int], *, moments: int = 4, levels: int | None = None) -> None:
        self.size, self.moments = tuple(size), moments
        least = max(16, 2 * len(daubechies(moments)))
        if levels is None:
            levels = max(1, int(math.log2(max(2, min(size) / least))) + 1)
        self.levels = levels
        self.padded = tuple(math.ceil(n / 2**levels) * 2**levels for n in size)
        self.coarse = tuple(n // 2**levels for n in self.padded)

    def __call__(self, image: Tensor) -> Tensor:
        """Coefficients (B, 1, H', W'): the coarsest image at the top left, round it the details, finest outermost."""
        (height, width), (rows, columns) = self.size, self.padded
        values = functional.pad(image, (0, columns - width, 0, rows - height))
        for level in range(self.levels):
            rows, columns = (n // 2**level for n in self.padded)
            part = _split(_split(values[..., :rows, :columns], -1, self.moments), -2, self.moments)
            values = _placed(part, values)
        return values

    def inverse(self, coefficients: Tensor) -> Tensor:
        """The image (B, 1, H, W) of coefficients (B, 1, H', W')."""
        values = coefficients
        for level in reversed(range(self.levels)):
            rows, columns = (n // 2**level for n in self.padded)
            part = _joined(_joined(values[..., :rows, :columns], -2, self.moments), -1, self.moments)
            values = _placed(part, values)
        return values[..., : self.size[0], : self.size[1]]

    def details(self, like: Tensor) -> Tensor:
        """1 where a coefficient is a detail, 0 in the coarsest image: (H', W')."""
        mask = torch.ones(self.padded, device=like.device)
        mask[: self.coarse[0], : self.coarse[1]] = 0
        return mask


def _placed(part: Tensor, whole: Tensor) -> Tensor:
    """``whole`` with its top left replaced by ``part``."""
    rows, columns = part.shape[-2:]
    right = torch.cat([part, whole[..., :rows, columns:]], dim=-1)
    return torch.cat([right, whole[..., rows:, :]], dim=-2)


def _filters(moments: int, like: Tensor) -> tuple[list[float], list[float]]:
    low = list(daubechies(moments))
    return low, [(-1) ** n * tap for n, tap in enumerate(reversed(low))]


def _split(values: Tensor, dim: int, moments: int) -> Tensor:
    """Averages, then details, along an axis of even length."""
    halves = []
    for taps in _filters(moments, values):
        total = sum(tap * torch.roll(values, -n, dim) for n, tap in enumerate(taps))
        halves.append(_every_second(total, dim))
    return torch.cat(halves, dim=dim)


def _joined(values: Tensor, dim: int, moments: int) -> Tensor:
    """The transpose of ``_split``."""
    total = 0
    for half, taps in zip(values.chunk(2, dim=dim), _filters(moments, values), strict=True):
        stretched = torch.stack([half, torch.zeros_like(half)], dim=values.ndim if dim == -1 else -2)
        stretched = stretched.flatten(-2) if dim == -1 else stretched.flatten(-3, -2)
        total = total + sum(tap * torch.roll(stretched, n, dim) for n, tap in enumerate(taps))
    return total


def _every_second(values: Tensor, dim: int) -> Tensor:
    return values[..., ::2] if dim == -1 else values[..., ::2, :]
