"""Points of ROC, FROC, precision-recall and reliability curves, as lists that JSON and plots take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .calibration import BINS, bins_of, claims
from .predictions import calls, check_predictions
from .ranking import Ranking

#: The name of the reliability curve of kinds whose confidence is the highest probability, whichever class has it.
HIGHEST = "highest probability"


def roc_curve_points(scores: Any, positive: Any) -> dict[str, list[float]]:
    """The ROC curve of one class from (0, 0) to (1, 1): "false_positive_rate", "true_positive_rate", "threshold".

    scores: (N,). positive: (N,), 0 or 1. Three lists. At each point the cases whose score reaches the threshold are
    called; the first threshold lies above all scores. Points within a straight line are left out (as scikit-learn's
    drop_intermediate).
    Raises InputError where there are no positive or no negative cases, since the curve is not defined then.
    """
    hits, misses, thresholds = _counts(scores, positive)
    if not hits[-1] or not misses[-1]:
        raise InputError("A ROC curve needs positive and negative cases, and one of them is missing.")
    kept = _bends(hits, misses)
    return {
        "false_positive_rate": (misses / misses[-1])[kept].tolist(),
        "true_positive_rate": (hits / hits[-1])[kept].tolist(),
        "threshold": thresholds[kept].tolist(),
    }


def froc_points(scores: Any, hit: Any, *, findings: int, scans: int) -> dict[str, list[float]]:
    """The FROC curve from (0, 0): lists "false_positives_per_scan", "sensitivity" and "threshold".

    scores: (N,) of the findings that were hit and of the false positives. hit: (N,), which of them are the former.
    findings: all there are, those that nothing hit included. scans: all, those without any mark included. Points within
    a straight line are left out. Where nothing was marked the curve is the point (0, 0), of threshold 1.
    Raises InputError where there are no findings or no scans.
    """
    if findings < 1 or scans < 1:
        raise InputError("A FROC curve needs scans and findings, and there are none.")
    if not len(scores):
        return {"false_positives_per_scan": [0.0], "sensitivity": [0.0], "threshold": [1.0]}
    hits, misses, thresholds = _counts(scores, hit)
    kept = _bends(hits, misses)
    return {
        "false_positives_per_scan": (misses / scans)[kept].tolist(),
        "sensitivity": (hits / findings)[kept].tolist(),
        "threshold": thresholds[kept].tolist(),
    }


def precision_recall_points(scores: Any, positive: Any, positives: int | None = None) -> dict[str, list[float]]:
    """The precision-recall curve of one class: lists "recall", "precision" and "threshold", from recall 0 to 1.

    Arguments as ``roc_curve_points``. positives: how many positive cases there are, where some have no score at all
    (findings that nothing hit), so that the curve ends before recall 1. The first point, at recall 0, is precision 1,
    as scikit-learn has it. Of points of one recall the first is kept, whose precision is highest.
    Raises InputError where there are no positive cases.
    """
    hits, misses, thresholds = _counts(scores, positive)
    if not hits[-1]:
        raise InputError("A precision-recall curve needs positive cases, and there are none.")
    positives = hits[-1] if positives is None else positives
    kept = np.concatenate([[True], np.diff(hits) > 0])
    precision = np.concatenate([[1.0], hits[1:] / (hits[1:] + misses[1:])])
    return {
        "recall": (hits / positives)[kept].tolist(),
        "precision": precision[kept].tolist(),
        "threshold": thresholds[kept].tolist(),
    }


def reliability_points(confidence: Any, came_true: Any, bins: int = BINS) -> dict[str, list[float]]:
    """What was claimed against what came true, in bins of equal width that hold a case.

    confidence: (N,), 0 to 1. came_true: (N,), 0 or 1. Lists "confidence" (mean claim in the bin), "frequency" (share
    that came true), "cases", and "low" and "high", the frequency's 95 % interval (Wilson, J. Am. Stat. Assoc.
    22, 1927).
    """
    claimed, outcome = np.asarray(confidence, dtype=np.float64), np.asarray(came_true, dtype=np.float64)
    if claimed.ndim != 1 or claimed.shape != outcome.shape or bins < 1:
        raise InputError(f"Confidences {claimed.shape} and outcomes {outcome.shape} must be two lists of one length.")
    number = bins_of(claimed, bins)
    cases = np.bincount(number, minlength=bins)
    held = cases > 0
    cases = cases[held]
    frequency = np.bincount(number, outcome, minlength=bins)[held] / cases
    z = 1.959964
    middle = (frequency + z**2 / (2 * cases)) / (1 + z**2 / cases)
    half = z / (1 + z**2 / cases) * np.sqrt(frequency * (1 - frequency) / cases + (z / (2 * cases)) ** 2)
    return {
        "confidence": (np.bincount(number, claimed, minlength=bins)[held] / cases).tolist(),
        "frequency": frequency.tolist(),
        "cases": cases.tolist(),
        "low": np.clip(middle - half, 0, 1).tolist(),
        "high": np.clip(middle + half, 0, 1).tolist(),
    }


def classification_curves(
    probabilities: Any,
    target: Any,
    *,
    kind: str,
    classes: Sequence[str],
    thresholds: Sequence[float | None] | None = None,
    at_most: int = 1000,
) -> dict[str, dict[str, dict]]:
    """``{"roc": {class: points}, "precision_recall": {class: points}, "reliability": {name: points}}``.

    Binary: of the positive class only. Classes without positive (ROC: or negative) cases are left out. Reliability is
    of what calibration.py's table says: of the positive class, of each label, or of the highest probability.
    Binary's and multi-label's ROC and precision-recall curves also hold "operating_point", the [x, y] on the curve that
    the calls at ``thresholds`` make. Of longer curves than ``at_most`` points some at even steps are given.
    """
    p, true = check_predictions(probabilities, target, kind)
    called = calls(p, kind, thresholds).astype(bool)
    curves: dict[str, dict[str, dict]] = {"roc": {}, "precision_recall": {}, "reliability": {}}
    for k, name in enumerate(classes):
        positives = int(true[:, k].sum())
        if (kind == "binary" and k == 0) or not positives:
            continue
        hits, found = int((true & called)[:, k].sum()), int(called[:, k].sum())
        points = thinned(precision_recall_points(p[:, k], true[:, k]), at_most)
        if kind in ("binary", "multi-label") and found:
            points["operating_point"] = [hits / positives, hits / found]
        curves["precision_recall"][name] = points
        if positives == len(p):
            continue
        points = thinned(roc_curve_points(p[:, k], true[:, k]), at_most)
        if kind in ("binary", "multi-label"):
            points["operating_point"] = [(found - hits) / (len(p) - positives), hits / positives]
        curves["roc"][name] = points
    names = {"binary": classes[1:], "multi-label": classes}.get(kind, (HIGHEST,))
    for name, confidence, outcome in zip(names, *(part.T for part in claims(p, true, kind)), strict=True):
        curves["reliability"][name] = reliability_points(confidence, outcome)
    return curves


def thinned(points: dict[str, list[float]], at_most: int = 1000) -> dict[str, Any]:
    """Points at even steps, with the first and the last, where there are more."""
    length = len(points["threshold"])
    if length <= at_most:
        return dict(points)
    kept = np.linspace(0, length - 1, max(2, at_most)).round().astype(int)
    return {name: [values[i] for i in kept] for name, values in points.items()}


def _bends(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Which points (L,) are ends, or lie off the straight line between their neighbors."""
    return np.concatenate([[True], (np.diff(hits, 2) != 0) | (np.diff(misses, 2) != 0), [True]])


def _counts(scores: Any, positive: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(TP, FP, threshold) from nothing called to everything: (L + 1,) each."""
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive).astype(bool)
    if scores.ndim != 1 or scores.shape != positive.shape or not scores.size or not np.isfinite(scores).all():
        raise InputError(f"Scores {scores.shape} and truth {positive.shape} must be two lists of finite numbers alike.")
    ranking = Ranking(scores, positive)
    hits, misses = (np.concatenate([[0], counts[0]]) for counts in ranking.counts(np.ones((1, len(scores)))))
    above = np.nextafter(ranking.levels[0], np.inf)
    return hits, misses, np.concatenate([[above], ranking.levels])
