"""How far something lies from where training data lie: Mahalanobis distance with a covariance that fits in a file."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

#: Numbers in the table of principal components, in half precision: what takes some 100 kB as text.
_NUMBERS, _COMPONENTS = 40_000, 64
#: More rows than this make the answer no better, only slower.
_ROWS = 4000
#: Up to this width the covariance is computed whole, else from inner products of rows where those are fewer.
_WIDTH = 2048


def fit_gaussian(rows: np.ndarray, noise: np.ndarray, *, standardize: bool) -> dict[str, Any]:
    """Mean and covariance of rows (N, D), as JSON.

    The covariance is (1 − δ) S + δ μ I with Ledoit and Wolf's δ, where S is that of the rows plus diag(noise²); its
    first principal components are kept, and the others share their mean variance. ``noise`` (D,), greater than 0, keeps
    a column that never varied from counting without limit. standardize: each column is divided by its deviation first,
    for columns of different units.
    """
    rows = rows[:: math.ceil(len(rows) / _ROWS)]
    mean = rows.mean(axis=0)
    scale = np.sqrt(rows.var(axis=0) + noise**2) if standardize else np.ones(rows.shape[1])
    centered, noise = (rows - mean) / scale, noise / scale
    width = len(mean)
    variances, basis = _principal_components(centered, noise)
    total = float((centered**2).sum()) / len(centered) + float((noise**2).sum())
    shrinkage, middle = ledoit_wolf(centered), total / width
    kept = max(1, min(len(variances), _COMPONENTS, _NUMBERS // width))
    variances, basis = variances[:kept], basis[:kept]
    rest = max(total - float(variances.sum()), 0.0) / (width - kept) if width > kept else middle
    return {
        "mean": short(mean),
        "scale": short(scale) if standardize else None,
        "components": kept,
        # Half precision where they are many: over so many columns its errors cancel.
        "type": (kind := "<f4" if 2 * basis.size <= _NUMBERS else "<f2"),
        # As text of bytes, a quarter of the length of the numbers themselves.
        "basis": base64.b64encode(basis.astype(kind).tobytes()).decode("ascii"),
        "variances": short((1 - shrinkage) * variances + shrinkage * middle),
        "rest": short([(1 - shrinkage) * rest + shrinkage * middle])[0],
    }


def distance(fitted: Mapping[str, Any], rows: np.ndarray) -> np.ndarray:
    """Mahalanobis distance of rows (N, D) over √D, so that about 1 is usual: (N,)."""
    width = len(fitted["mean"])
    centered = rows - np.asarray(fitted["mean"])
    if fitted["scale"] is not None:
        centered = centered / np.asarray(fitted["scale"])
    basis = np.frombuffer(base64.b64decode(fitted["basis"]), dtype=fitted["type"]).reshape(-1, width).astype(np.float64)
    with np.errstate(all="ignore"):
        along = centered @ basis.T
        square = (along**2 / np.asarray(fitted["variances"])).sum(axis=1)
        if width > len(basis):
            square = square + ((centered - along @ basis) ** 2).sum(axis=1) / fitted["rest"]
        return np.sqrt(square / width)


def ledoit_wolf(centered: np.ndarray) -> float:
    """How far to shrink the covariance of centered rows (N, D) toward a sphere, from 0 to 1.

    Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, Journal of Multivariate
    Analysis 88, 365-411, 2004, section 3.2.
    """
    count, width = centered.shape
    lengths = np.square(centered).sum(axis=1)
    # The squares of all entries of XᵀX add up to those of XXᵀ.
    inner = centered @ centered.T if count < width else centered.T @ centered
    square = float(np.square(inner).sum()) / count**2
    apart = square - float(lengths.sum() / count) ** 2 / width
    if apart <= 0:
        return 1.0
    error = (float(np.square(lengths).sum()) / count - square) / count
    return min(max(error / apart, 0.0), 1.0)


def _principal_components(centered: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances (descending) and unit vectors (rows) of the covariance of centered rows plus diag(noise²)."""
    count, width = centered.shape
    if width <= max(count, _WIDTH):
        variances, vectors = np.linalg.eigh(centered.T @ centered / count + np.diag(noise**2))
        return variances[::-1], vectors.T[::-1]
    variances, vectors = np.linalg.eigh(centered @ centered.T / count)
    used = variances[::-1] > 1e-9 * variances[-1]
    variances, basis = variances[::-1][used], (vectors.T[::-1][used] @ centered)
    basis = basis / np.linalg.norm(basis, axis=1, keepdims=True)
    # The noise of so many columns adds about its mean along every direction.
    return variances + float((noise**2).mean()), basis


def short(numbers: np.ndarray | list[float]) -> list[float]:
    """Six digits: enough, and a third of the room."""
    return [float(f"{number:.6g}") for number in numbers]
