"""From which probability on a class is called: chosen on validation data, never on what the model is judged on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import InputError
from .predictions import check_predictions
from .ranking import Ranking

RULES = ("youden", "youden-plateau", "sensitivity")


def choose_operating_point(
    probabilities: Any, target: Any, *, kind: str, rule: str = "youden", sensitivity: float | None = None
) -> tuple[float | None, ...]:
    """The threshold of each class: it is called where its probability reaches it.

    probabilities: (N, K) of validation cases, calibrated as they will be in use. target: (N, K), 0 or 1.
    rule: "youden" maximizes sensitivity + specificity − 1 (Youden, Cancer 3, 1950; of equal points the most sensitive
    one); "youden-plateau" is the middle, in log odds, between the outermost thresholds whose index is no more than one
    standard error smaller, which chance moves less where the curve is flat; "sensitivity" is the most specific point
    whose sensitivity on these cases is at least ``sensitivity``.
    Binary: (None, threshold); multi-label: one a class; otherwise None for all, since the highest probability decides.
    A threshold lies midway between the neighboring probabilities that it separates (0 below the lowest). It is None
    where the cases cannot tell: without positive or negative cases of a class, or where no threshold beats chance.
    Raises InputError for a rule or sensitivity that makes no sense.
    """
    p, true = check_predictions(probabilities, target, kind)
    if rule not in RULES:
        raise InputError(f"{rule!r} is no rule for an operating point; choose one of {', '.join(RULES)}.")
    if rule == "sensitivity" and not (sensitivity is not None and 0 < sensitivity <= 1):
        raise InputError(f"The wished sensitivity is {sensitivity}; give a number above 0 and up to 1, such as 0.95.")
    wished = sensitivity if rule == "sensitivity" else None
    if kind == "binary":
        return None, _threshold(p[:, 1], true[:, 1], wished, rule)
    if kind == "multi-label":
        return tuple(_threshold(p[:, k], true[:, k], wished, rule) for k in range(p.shape[1]))
    return (None,) * p.shape[1]


def _threshold(scores: np.ndarray, positive: np.ndarray, sensitivity: float | None, rule: str) -> float | None:
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    ranking = Ranking(scores, positive)
    hits, misses = (counts[0].astype(np.int64) for counts in ranking.counts(np.ones((1, len(scores)))))
    if sensitivity is not None:
        # 0.55 of 20 is 11 and not 12, whatever rounding makes of the product.
        level = int(np.argmax(hits >= math.ceil(sensitivity * positives - 1e-9)))
    else:
        # In whole numbers, so that equal points are equal.
        youden = hits * negatives - misses * positives
        if youden.max() <= 0:
            return None
        level = len(youden) - 1 - int(np.argmax(youden[::-1]))
        if rule == "youden-plateau":
            return _middle_of_plateau(ranking.levels, hits / positives, misses / negatives, level, positives, negatives)
    return _below(ranking.levels, level)


def _below(levels: np.ndarray, level: int) -> float:
    """The threshold that this level and all above it reach, and none below."""
    if level + 1 == len(levels):
        return 0.0
    return float((levels[level] + levels[level + 1]) / 2)


def _middle_of_plateau(
    levels: np.ndarray, hit_rate: np.ndarray, false_rate: np.ndarray, best: int, positives: int, negatives: int
) -> float:
    """The middle between the outermost levels whose Youden index is within a standard error of the best one's.

    The standard error is that of a difference of two independent shares, with Agresti and Coull's two added successes
    and failures (The American Statistician 52, 1998), so that a perfect share has one too.
    """
    variance = 0.0
    for share, count in ((hit_rate[best], positives), (false_rate[best], negatives)):
        adjusted = (share * count + 2) / (count + 4)
        variance += adjusted * (1 - adjusted) / (count + 4)
    good = hit_rate - false_rate >= hit_rate[best] - false_rate[best] - math.sqrt(variance)
    first, last = np.flatnonzero(good)[[0, -1]]
    ends = np.clip([_below(levels, first), _below(levels, last)], 1e-6, 1 - 1e-6)
    middle = float(np.log(ends / (1 - ends)).mean())
    return 1 / (1 + math.exp(-middle))
