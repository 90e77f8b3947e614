"""How far two sets of images are apart, as Gaussians of their embeddings: the Fréchet distance, FID.

    d² = |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½)

of two normal distributions (Dowson, Landau, J. Multivariate Analysis 12, 1982), proposed for images by Heusel et al.
2017, https://arxiv.org/abs/1706.08500, on the features of Inception v3. It depends on the embedding, so its name is
part of every number, and it is biased: fewer images give a larger distance (Bińkowski et al. 2018), so that only sets
of the same size can be compared. Take ``kernel_distance`` where images are few.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError


def frechet_distance(first: Any, second: Any) -> float:
    """d² of the Gaussians with mean and (sample) covariance of two sets of embeddings (N, E) and (M, E).

    Raises InputError for sets of fewer than 2 images, of different length, or with values that are not finite.
    """
    a, b = checked_embeddings(first, second)
    mean = a.mean(axis=0) - b.mean(axis=0)
    if min(len(a), len(b)) > a.shape[1]:
        return frechet_distance_of(mean, _covariance(a), np.zeros_like(mean), _covariance(b))
    # With Σ₁ = AᵀA and Σ₂ = BᵀB the trace of the root of Σ₁ Σ₂ is the sum of the singular values of A Bᵀ, a matrix of
    # images by images: smaller where there are fewer of them than numbers, and exact.
    a, b = (_centered(values) for values in (a, b))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(max(0.0, mean @ mean + (a**2).sum() + (b**2).sum() - 2 * root))


def frechet_distance_of(first_mean: Any, first_covariance: Any, second_mean: Any, second_covariance: Any) -> float:
    """d² of two Gaussians: means (E,), covariances (E, E).

    The trace of the root of Σ₁ Σ₂ is that of the symmetric Σ₁^½ Σ₂ Σ₁^½, whose eigenvalues are real and not negative:
    covariances of few images, which have no inverse, are no trouble.
    """
    mean = np.asarray(first_mean, dtype=np.float64) - np.asarray(second_mean, dtype=np.float64)
    a, b = (np.atleast_2d(np.asarray(c, dtype=np.float64)) for c in (first_covariance, second_covariance))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(_without_rounding(values))) @ vectors.T
    inner = _without_rounding(np.linalg.eigvalsh(root @ b @ root))
    return float(max(0.0, mean @ mean + np.trace(a) + np.trace(b) - 2 * np.sqrt(inner).sum()))


def checked_embeddings(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of embeddings as float64 (N, E) and (M, E). Raises InputError as ``frechet_distance``."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    for values in (a, b):
        if values.ndim != 2 or len(values) < 2:
            raise InputError(f"Embeddings of shape {values.shape} make no set to compare; give 2 images or more.")
        if not np.isfinite(values).all():
            raise InputError("Some embeddings are not finite; the images or the embedding network are damaged.")
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"Embeddings of {a.shape[1]} and of {b.shape[1]} numbers cannot be compared; take one network for both."
        )
    return a, b


def _without_rounding(eigenvalues: np.ndarray) -> np.ndarray:
    """What rounding leaves of eigenvalues that are 0 would come back as its much larger root."""
    least = len(eigenvalues) * np.finfo(np.float64).eps * max(0.0, float(eigenvalues.max()))
    return np.where(eigenvalues > least, eigenvalues, 0.0)


def _centered(values: np.ndarray) -> np.ndarray:
    """A, of which AᵀA is the sample covariance."""
    return (values - values.mean(axis=0)) / np.sqrt(len(values) - 1)


def _covariance(values: np.ndarray) -> np.ndarray:
    centered = _centered(values)
    return centered.T @ centered
