"""Whether generated images are copies of training images, and whether they show all that real ones do.

Distances are Euclidean between vectors: the voxels of images, or their embeddings.

===============  ===================================================================================================
nearer           share of generated images that are nearer to a training image than any held-out real image is; of
                 images like the held-out ones, about 1 in one more than there are held-out ones is expected
copying z        standardized Mann-Whitney statistic of the distances to the nearest training image, generated against
                 held-out: about 0 where generated images are like new real ones, below -3 where they are nearer to
                 the training images, which is copying (Meehan, Chaudhuri, Dasgupta, AISTATS 2020,
                 https://arxiv.org/abs/2004.05675); far above 0 where they are unlike anything real
coverage         share of real images that have a generated one no farther away than their k-th real neighbor (Naeem,
                 Oh, Uh, Choi, Yoo, ICML 2020, https://arxiv.org/abs/2002.09797, equation 9)
===============  ===================================================================================================
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from .frechet_distance import checked_embeddings


@dataclass(frozen=True)
class CopyCheck:
    """What ``check_copies`` found.

    nearer, copying_z: see above. generated_median, held_out_median: of the distances to the nearest training image.
    closest: index of the generated image that is nearest to a training image, and of that image.
    distances, held_out_distances: of all, (N,) and (H,).
    """

    nearer: float
    copying_z: float
    generated_median: float
    held_out_median: float
    closest: tuple[int, int]
    distances: np.ndarray
    held_out_distances: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if not isinstance(value, np.ndarray)
        }


def check_copies(generated: Any, training: Any, held_out: Any) -> CopyCheck:
    """Compare generated images (N, D) with training images (T, D) as new real images (H, D) compare with them.

    Raises InputError as ``frechet_distance``.
    """
    made, known = checked_embeddings(generated, training)
    new, _ = checked_embeddings(held_out, training)
    distances, which = nearest(made, known)
    usual, _ = nearest(new, known)
    closest = int(distances.argmin())
    return CopyCheck(
        nearer=float((distances < usual.min()).mean()),
        copying_z=_mann_whitney_z(distances, usual),
        generated_median=float(np.median(distances)),
        held_out_median=float(np.median(usual)),
        closest=(closest, int(which[closest])),
        distances=distances,
        held_out_distances=usual,
    )


def nearest(images: Any, others: Any) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each of (N, D) to the nearest of (M, D), and which that is: (N,) and (N,)."""
    distances = cdist(np.asarray(images, dtype=np.float64), np.asarray(others, dtype=np.float64))
    which = distances.argmin(axis=1)
    return distances[np.arange(len(which)), which], which


def coverage(generated: Any, real: Any, neighbors: int = 5) -> float:
    """Share from 0 to 1 of real images (M, D) near which there is one of the generated (N, D).

    neighbors: k; at most one less than there are real images. Raises InputError as ``frechet_distance``.
    """
    made, known = checked_embeddings(generated, real)
    among = cdist(known, known)
    # The nearest of each is itself.
    radius = np.sort(among, axis=1)[:, min(neighbors, len(known) - 1)]
    return float((cdist(known, made).min(axis=1) <= radius).mean())


def _mann_whitney_z(first: np.ndarray, second: np.ndarray) -> float:
    """How many standard deviations the first sample's ranks are above those of the second; ties share their rank."""
    n, m = len(first), len(second)
    ranks = rankdata(np.concatenate([first, second]))
    u = ranks[:n].sum() - n * (n + 1) / 2
    _, ties = np.unique(ranks, return_counts=True)
    shrinking = (ties**3 - ties).sum() / ((n + m) * (n + m - 1))
    variance = n * m / 12 * (n + m + 1 - shrinking)
    return 0.0 if variance <= 0 else float((u - n * m / 2) / math.sqrt(variance))
