"""Is an image of the kind that a model was trained on?

Three things are looked at, each by its distance from the training data: the intensities as acquired, the size in voxels
and in mm, and the network's embedding (Lee et al., A simple unified framework for detecting out-of-distribution
samples, NeurIPS 2018; here without classes). What counts as far follows from images that the model was not trained on,
at a wished rate of false alarms over all three.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy import special

from ..errors import InputError
from ..results import Familiarity
from .gaussian import distance, fit_gaussian, short
from .statistics import INTENSITY, PERCENTILES, SIZE, image_statistics, statistic_names

#: Of many images: rows as image_statistics gives them, or (N, D) of numbers in that order.
Statistics: TypeAlias = "np.ndarray | Sequence[Mapping[str, float]]"

#: A distance below this (standard deviations, root mean square over all directions) is never far.
_NEAR = 1.0
#: What is said of a distance that is not even a number.
_ENDLESS = 1e6


def fit_familiarity(
    embeddings: np.ndarray,
    statistics: Statistics,
    *,
    held_out: tuple[np.ndarray, Statistics],
    rate: float = 0.01,
) -> dict[str, Any]:
    """Learn what familiar images are like; the result goes into a model's files as JSON (below 200 kB).

    embeddings: (N, E) of training images. statistics: of the same images. held_out: the same two of images of the same
    kind that the model was not trained on (its validation images); they alone set the thresholds. rate: the wished
    share of false alarms over all images, whichever of intensity, size and embedding raises them. Raises InputError
    where there are fewer than two images of either, numbers are not finite, or shapes do not go together.
    """
    if not 0 < rate < 1:
        raise InputError(f"The rate of false alarms must lie between 0 and 1; it is {rate:g}.")
    names = _names_of(statistics)
    embeddings, statistics = _checked(embeddings, _matrix_of(statistics, names), "training")
    others, other_statistics = _checked(held_out[0], _matrix_of(held_out[1], names), "held-out")
    if others.shape[1] != embeddings.shape[1]:
        raise InputError(
            f"Embeddings of held-out images have {others.shape[1]} numbers and those of training images "
            f"{embeddings.shape[1]}; compute both with the same network."
        )
    noise = _unremarkable(statistics)
    # A unit that never answered in training is taken to answer with a hundredth of what is usual.
    silence = max(0.01 * float(np.sqrt(embeddings.var(axis=0).mean())), 1e-6)
    count = statistics.shape[1] - len(SIZE)
    fitted: dict[str, Any] = {
        "names": list(names),
        "rate": rate,
        "low": short(np.quantile(statistics, 0.01, axis=0)),
        "high": short(np.quantile(statistics, 0.99, axis=0)),
        "deviations": short(np.sqrt(statistics.var(axis=0) + noise**2)),
        "intensity": fit_gaussian(statistics[:, :count], noise[:count], standardize=True),
        "size": fit_gaussian(statistics[:, count:], noise[count:], standardize=True),
        "embedding": fit_gaussian(embeddings, np.full(embeddings.shape[1], silence), standardize=False),
    }
    distances = _distances(fitted, others, other_statistics)
    thresholds = _thresholds(np.stack([*distances.values()], axis=1), rate)
    return fitted | {"thresholds": dict(zip(distances, thresholds, strict=True))}


def judge(
    fitted: Mapping[str, Any], embedding: np.ndarray, statistics: np.ndarray | Mapping[str, float]
) -> Familiarity:
    """Whether one image is familiar.

    fitted: from :func:`fit_familiarity`, also after JSON. embedding: (E,) of the network. statistics: of the image.
    Raises InputError where they are not of the lengths that were fitted.
    """
    names, width = fitted["names"], len(fitted["embedding"]["mean"])
    row = _matrix_of([statistics], names)
    vector = np.asarray(embedding, dtype=np.float64).reshape(1, -1)
    if vector.shape[1] != width:
        raise InputError(f"The embedding has {vector.shape[1]} numbers and the model's familiar images have {width}.")
    scores = {}
    for part, values in _distances(fitted, vector, row).items():
        score = float(values[0]) / fitted["thresholds"][part]
        scores[part] = score if math.isfinite(score) else _ENDLESS
    outside = [part for part, score in scores.items() if score > 1]
    return Familiarity(not outside, scores, _sentence(fitted, outside, row[0]) if outside else "")


def _distances(fitted: Mapping[str, Any], embeddings: np.ndarray, statistics: np.ndarray) -> dict[str, np.ndarray]:
    """Distances (N,) by intensity, size and embedding."""
    count = len(fitted["names"]) - len(SIZE)
    return {
        "intensity": distance(fitted["intensity"], statistics[:, :count]),
        "size": distance(fitted["size"], statistics[:, count:]),
        "embedding": distance(fitted["embedding"], embeddings),
    }


def _thresholds(distances: np.ndarray, rate: float) -> list[float]:
    """Of the columns of distances (M, 3), beyond what an image is far, so that the wished share of images is.

    Each column has the same share of its own, the largest that leaves the share of images with any alarm at ``rate``.
    Where the held-out images are too few for a quantile, distances are taken to be log-normal, and none of these far.
    """
    count, columns = distances.shape
    # The next image may itself be the farthest yet, once for each column (split conformal prediction): one less each.
    allowed = int(rate * (count + 1)) - int((np.ptp(distances, axis=0) > 0).sum())
    if allowed >= 1:
        ordered = np.sort(distances, axis=0)
        # 1 for the farthest; equal distances share the rank of the last of them.
        ranks = np.stack(
            [count - np.searchsorted(ordered[:, n], distances[:, n], side="left") for n in range(columns)], axis=1
        )
        beyond = int(np.sort(ranks.min(axis=1))[min(allowed, count - 1)]) - 1
        chosen = ordered[count - 1 - beyond]
    else:
        logarithms = np.log(np.maximum(distances, 1e-12))
        reach = logarithms.mean(axis=0) - special.ndtri(rate / columns) * logarithms.std(axis=0, ddof=1)
        chosen = np.maximum(np.exp(reach), distances.max(axis=0))
    # Room for the last digits of another machine's arithmetic.
    return short(np.maximum(chosen * (1 + 1e-4), _NEAR))


def _unremarkable(statistics: np.ndarray) -> np.ndarray:
    """How far each statistic may be off without a reason, (D,), in its own unit."""
    tolerances = []
    for start in range(0, statistics.shape[1] - len(SIZE), len(INTENSITY)):
        usual = math.exp(float(np.median(statistics[:, start + PERCENTILES])))
        tolerances += [n * (usual if i < PERCENTILES else 1.0) for i, n in enumerate(INTENSITY.values())]
    return np.array([*tolerances, *SIZE.values()])


def _sentence(fitted: Mapping[str, Any], outside: Sequence[str], row: np.ndarray) -> str:
    """What is strange about the image, for the user: of each part the number that is furthest off."""
    low, high = np.asarray(fitted["low"]), np.asarray(fitted["high"])
    apart = np.maximum(low - row, row - high) / np.asarray(fitted["deviations"])
    count = len(low) - len(SIZE)
    reasons = []
    for part, noun, first, last in (("intensity", "intensities", 0, count), ("size", "size", count, len(low))):
        if part in outside:
            number = first + int(np.argmax(np.nan_to_num(apart[first:last], nan=np.inf)))
            if apart[number] <= 0:
                reasons.append(f"its {noun} go together as in none of the training images")
            else:
                compared = _compared(fitted["names"][number], row[number], low[number], high[number])
                reasons.append(f"its {noun} differ{'s' * (part == 'size')} ({compared})")
    if "embedding" in outside:
        reasons.append("the network sees in it what it saw in no training image")
    return f"This is not the kind of image this model was trained on: {'; '.join(reasons)}."


def _compared(name: str, value: float, low: float, high: float) -> str:
    """Such as "median 812, in training 40 to 160"; logarithms are turned back."""
    if name.startswith("logarithm of the "):
        name = name.removeprefix("logarithm of the ")
        value, low, high = (math.exp(min(number, 700.0)) for number in (value, low, high))
    span = f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
    return f"{name} {value:.3g}, in training {span}"


def _names_of(statistics: Statistics) -> tuple[str, ...]:
    """The names of the columns of statistics."""
    if len(statistics) and isinstance(statistics[0], Mapping):
        return tuple(statistics[0])
    width = np.asarray(statistics).shape[-1]
    channels = max(1, (width - len(SIZE)) // len(INTENSITY))
    if len(statistic_names(channels)) != width:
        raise InputError(f"{width} statistics of an image are not what image_statistics gives.")
    return statistic_names(channels)


def _matrix_of(statistics: Statistics, names: Sequence[str]) -> np.ndarray:
    """Statistics as (N, D) in the order of the names."""
    rows = statistics
    if len(rows) and isinstance(rows[0], Mapping):
        if any(tuple(row) != tuple(names) for row in rows):
            raise InputError("The image has not as many channels as the images that the model was trained on.")
        rows = [[*row.values()] for row in rows]
    matrix = np.asarray(rows, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise InputError(f"The model's familiar images have {len(names)} statistics, not shape {matrix.shape[1:]}.")
    return matrix


def _checked(embeddings: np.ndarray, statistics: np.ndarray, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and statistics as float64, or InputError."""
    embeddings = np.asarray(embeddings, dtype=np.float64)
    if embeddings.ndim != 2 or len(embeddings) != len(statistics) or len(embeddings) < 2:
        raise InputError(
            f"What is familiar is learned from at least two {which} images, with an embedding and statistics each; "
            f"here are {len(statistics)} images and embeddings of shape {embeddings.shape}."
        )
    if not (np.isfinite(embeddings).all() and np.isfinite(statistics).all()):
        raise InputError(
            f"What is familiar cannot be learned: embeddings or statistics of {which} images are not finite; "
            "the training may have failed."
        )
    return embeddings, statistics


__all__ = ["fit_familiarity", "image_statistics", "judge", "statistic_names"]
