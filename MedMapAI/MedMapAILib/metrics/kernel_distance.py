"""How far two sets of images are apart, without bias: the squared maximum mean discrepancy of embeddings, KID.

    MMD² = mean_{i≠j} k(xᵢ, xⱼ) + mean_{i≠j} k(yᵢ, yⱼ) - 2 mean_{i,j} k(xᵢ, yⱼ),   k(x, y) = (x·y / E + 1)³

(Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", ICLR 2018, https://arxiv.org/abs/1801.01401; the
unbiased estimator of Gretton et al., JMLR 13, 2012, equation 3). Its mean does not depend on how many images there are,
and of two sets of the same kind it is 0: it may be negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from .frechet_distance import checked_embeddings


def kernel_distance(first: Any, second: Any) -> float:
    """MMD² of embeddings (N, E) and (M, E). Raises InputError as ``frechet_distance``."""
    a, b = checked_embeddings(first, second)
    return _between(a) + _between(b) - 2 * float(_kernel(a, b).mean())


def kernel_distance_of_subsets(
    first: Any, second: Any, *, size: int = 100, subsets: int = 100, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over random subsets of ``size`` images of each set, and the 2.5th and 97.5th percentile of the subsets.

    That is how KID is published (Bińkowski et al.: 100 subsets of 1,000). The percentiles say how much subsets differ;
    they are wider than an interval of the mean. size: at most as many as the smaller set has; that many are taken where
    it has fewer. Raises InputError as ``frechet_distance``, and for sizes below 2.
    """
    a, b = checked_embeddings(first, second)
    size = min(int(size), len(a), len(b))
    if size < 2 or subsets < 1:
        raise InputError(f"{subsets} subsets of {size} images make no sense; give 1 or more of 2 or more.")
    random = np.random.default_rng(seed)
    values = [
        kernel_distance(a[random.permutation(len(a))[:size]], b[random.permutation(len(b))[:size]])
        for _ in range(subsets)
    ]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _between(a: np.ndarray) -> float:
    """The mean of the kernel over all pairs of different images of one set."""
    values = _kernel(a, a)
    return float((values.sum() - np.trace(values)) / (len(a) * (len(a) - 1)))
