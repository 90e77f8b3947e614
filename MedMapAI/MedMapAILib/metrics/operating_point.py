"""From which probability on a class is called: chosen on validation data, never on what the model is judged on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import InputError
from .predictions import check_predictions
from .ranking import Ranking

RULES = ("youden", "sensitivity")


def choose_operating_point(
    probabilities: Any, target: Any, *, kind: str, rule: str = "youden", sensitivity: float | None = None
) -> tuple[float | None, ...]:
    """The threshold of each class: it is called where its probability reaches it.

    probabilities: (N, K) of validation cases, calibrated as they will be in use. target: (N, K), 0 or 1.
    rule: "youden" maximizes sensitivity + specificity − 1 (Youden, Cancer 3, 1950; of equal points the most sensitive
    one); "sensitivity" is the most specific point whose sensitivity on these cases is at least ``sensitivity``.
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
        return None, _threshold(p[:, 1], true[:, 1], wished)
    if kind == "multi-label":
        return tuple(_threshold(p[:, k], true[:, k], wished) for k in range(p.shape[1]))
    return (None,) * p.shape[1]


def _threshold(scores: np.ndarray, positive: np.ndarray, sensitivity: float | None) -> float | None:
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
    if level + 1 == len(ranking.levels):
        return 0.0
    return float((ranking.levels[level] + ranking.levels[level + 1]) / 2)
