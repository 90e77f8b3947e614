"""How well a classifier's probabilities and calls agree with what is true, each number with a 95 % bootstrap interval.

Definitions follow "Metrics reloaded" (Maier-Hein, Reinke et al., Nature Methods 21, 2024,
https://doi.org/10.1038/s41592-023-02151-z). TP, FP, TN and FN count cases by one class: called or not, true or not.

====================  ==============================================================================================
accuracy              share of cases called right; multi-label: of labels
exact_match           multi-label: share of cases with all labels right
precision             TP / (TP + FP)
recall                TP / (TP + FN): the sensitivity
specificity           TN / (TN + FP)
f1                    2 TP / (2 TP + FP + FN)
balanced_accuracy     mean recall of the classes; multi-label: mean of (recall + specificity) / 2
auc                   area under the ROC curve, see ranking.py
average_precision     see ranking.py
brier                 mean squared error of the probabilities: of the positive class (binary), mean over labels
                      (multi-label), sum over classes (else, from 0 to 2: Brier, Monthly Weather Review 78, 1950)
log_loss              mean −ln of the probability of what is true; multi-label: mean over labels
ece                   expected calibration error in 15 bins, see calibration.py
mean_absolute_error   ordinal: mean distance of the called class from the true one, in classes
quadratic_kappa       ordinal: 1 − observed / expected squared distance (Cohen, Psychological Bulletin 70, 1968)
====================  ==============================================================================================

precision, recall, specificity and f1 without a prefix are those of binary's positive class; "NAME: recall" and so on
are each class against the rest, "macro_recall" their mean, "micro_recall" from the sums of TP, FP, TN and FN. auc and
average_precision without a prefix are the positive class's (binary) or the mean over classes, each against the rest.
A metric that is not defined (a class is absent, or never called) is left out, and so is the mean over classes then: a
mean over the others would look better than the classifier is.

Everything is a sum over cases with weights, so that all resamples are computed together; scikit-learn and torchmetrics,
which take one weighting at a time, are what the tests compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from ..errors import InputError
from .bootstrap import resampled_weights
from .calibration import BINS, bins_of, claims
from .predictions import calls, check_predictions
from .ranking import Ranking

__all__ = ["calls", "classification_metrics", "confusion_matrix"]

_OF_ONE_CLASS = ("precision", "recall", "specificity", "f1", "auc", "average_precision")
_COUNTED = _OF_ONE_CLASS[:4]


def classification_metrics(
    probabilities: Any,
    target: Any,
    *,
    kind: str,
    classes: Sequence[str],
    thresholds: Sequence[float | None] | None = None,
    groups: Sequence | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """All metrics of this file's table: ``{metric: {"mean", "low", "high", "cases"}}``, finite numbers for JSON.

    probabilities: (N, K). target: (N, K), 0 or 1. classes: K names. thresholds: the operating point, see ``calls``.
    groups: one name or number a case, such as the patient, whose cases are resampled together.
    "mean" is the metric of all cases; "low" and "high" hold the central share ``confidence`` of the metric over those
    bootstrap resamples in which it is defined (percentile interval, as ``bootstrap_interval``); "cases" is N.
    Chance makes an ece too large, and each resample's larger again: it has the basic interval, which takes that back
    (Davison, Hinkley, "Bootstrap Methods and their Application", 1997, section 5.2), extended to the value itself.
    Raises InputError where these do not belong together.
    """
    p, true = check_predictions(probabilities, target, kind)
    _check_names(classes, p.shape[1])
    if not 0 < confidence < 1:
        raise InputError(f"An interval of confidence {confidence} makes no sense; give a number between 0 and 1.")
    scores = _Scores(p, true, calls(p, kind, thresholds).astype(bool), kind, tuple(classes))
    values = {name: float(value[0]) for name, value in scores(np.ones((1, len(p)))).items()}
    parts = [scores(weights) for weights in resampled_weights(len(p), groups=groups, resamples=resamples, seed=seed)]
    quantiles = [(1 - confidence) / 2, (1 + confidence) / 2]
    result = {}
    for name, value in values.items():
        if np.isnan(value):
            continue
        drawn = np.concatenate([part[name] for part in parts])
        drawn = drawn[~np.isnan(drawn)]
        low, high = np.quantile(drawn, quantiles) if drawn.size else (value, value)
        if name == "ece":
            low, high = max(0.0, min(value, 2 * value - high)), max(value, 2 * value - low)
        result[name] = {"mean": value, "low": float(low), "high": float(high), "cases": len(p)}
    return result


def confusion_matrix(
    probabilities: Any,
    target: Any,
    *,
    kind: str,
    classes: Sequence[str],
    thresholds: Sequence[float | None] | None = None,
    groups: Sequence | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """What is called what: rows are the true classes, columns the called ones. Arguments as ``classification_metrics``.

    Returns ``{"classes", "counts", "share", "low", "high"}``, nested lists (K, K): numbers of cases, their share of the
    row's, and its bootstrap interval; None in the row of a class without cases. Multi-label: (K, 2, 2), for each label
    rows and columns "no", "yes".
    """
    p, true = check_predictions(probabilities, target, kind)
    _check_names(classes, p.shape[1])
    called = calls(p, kind, thresholds).astype(bool)
    if kind == "multi-label":
        cell, size = 2 * true + called + 4 * np.arange(p.shape[1]), 2
    else:
        cell, size = p.shape[1] * true.argmax(axis=1)[:, None] + called.argmax(axis=1)[:, None], p.shape[1]
    cells = (p.shape[1] * 4) if kind == "multi-label" else size**2
    member = _membership(cell, np.ones(cell.shape), cells)
    counts = (member @ np.ones(len(p))).reshape(-1, size)
    drawn = np.concatenate(
        [(member @ weights.T).T for weights in resampled_weights(len(p), groups=groups, resamples=resamples, seed=seed)]
    ).reshape(resamples, -1, size)
    with np.errstate(invalid="ignore"):
        share = counts / counts.sum(axis=1, keepdims=True)
        shares = drawn / drawn.sum(axis=2, keepdims=True)
    present = counts.sum(axis=1) > 0
    low, high = np.full((2, *share.shape), np.nan)
    low[present], high[present] = np.nanquantile(
        shares[:, present], [(1 - confidence) / 2, (1 + confidence) / 2], axis=0
    )

    def listed(rows: np.ndarray) -> list:
        rows = [[None if np.isnan(value) else float(value) for value in row] for row in rows]
        return [rows[k : k + 2] for k in range(0, len(rows), 2)] if kind == "multi-label" else rows

    whole = counts.astype(int)
    return {
        "classes": list(classes),
        "counts": (whole.reshape(-1, 2, 2) if kind == "multi-label" else whole).tolist(),
        "share": listed(share),
        "low": listed(low),
        "high": listed(high),
    }


class _Scores:
    """The metrics of one set of predictions as functions of the cases' weights."""

    def __init__(
        self, p: np.ndarray, true: np.ndarray, called: np.ndarray, kind: str, classes: tuple[str, ...]
    ) -> None:
        self.kind, self.classes = kind, classes
        self.rankings = [Ranking(p[:, k], true[:, k]) for k in range(len(classes))]
        confidence, came_true = claims(p, true, kind)
        self.labels = confidence.shape[1]
        bins = bins_of(confidence) + BINS * np.arange(self.labels)
        self.gaps = _membership(bins, confidence - came_true, BINS * self.labels)
        #: What is summed over cases, a column each: (N, …).
        columns = {"hit": true & called, "true": true, "called": called, **_losses(p, true, called, kind)}
        self.slices, start = {}, 0
        for name, column in columns.items():
            self.slices[name] = slice(start, start + column.shape[1])
            start += column.shape[1]
        self.columns = np.concatenate(list(columns.values()), axis=1).astype(np.float64)

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Each metric for each weighting: (B,), NaN where it is not defined. weights: (B, N)."""
        total = weights.sum(axis=1)
        sums = weights @ self.columns
        hit, true, called = (sums[:, self.slices[name]].T for name in ("hit", "true", "called"))  # (K, B)
        by_class = dict(zip(_COUNTED, _counted(hit, true, called, total), strict=True))
        ranked = [ranking.scores(weights) for ranking in self.rankings]
        by_class["auc"], by_class["average_precision"] = np.array(ranked).transpose(1, 0, 2)
        micro = _counted(hit.sum(axis=0), true.sum(axis=0), called.sum(axis=0), total * len(self.classes))

        scores: dict[str, np.ndarray] = {}
        if self.kind == "multi-label":
            scores["accuracy"] = (1 - (true + called - 2 * hit) / total).mean(axis=0)
            scores["balanced_accuracy"] = ((by_class["recall"] + by_class["specificity"]) / 2).mean(axis=0)
        else:
            scores["accuracy"] = hit.sum(axis=0) / total
            scores["balanced_accuracy"] = by_class["recall"].mean(axis=0)
        if self.kind == "binary":
            scores |= {name: by_class[name][1] for name in _OF_ONE_CLASS}
        else:
            scores |= {name: by_class[name].mean(axis=0) for name in ("auc", "average_precision")}
        for name in ("exact_match", "brier", "log_loss", "mean_absolute_error"):
            if name in self.slices:
                scores[name] = sums[:, self.slices[name]][:, 0] / total
        gaps = np.abs(self.gaps @ weights.T).reshape(self.labels, BINS, -1)
        scores["ece"] = gaps.sum(axis=1).mean(axis=0) / total
        if self.kind == "ordinal":
            scores["quadratic_kappa"] = _kappa(sums[:, self.slices["squared_error"]][:, 0], true, called, total)
        for name, value in zip(_COUNTED, micro, strict=True):
            scores[f"macro_{name}"] = by_class[name].mean(axis=0)
            scores[f"micro_{name}"] = value
        for k, label in enumerate(self.classes):
            scores |= {f"{label}: {name}": by_class[name][k] for name in _OF_ONE_CLASS}
        return scores


def _counted(hit: np.ndarray, true: np.ndarray, called: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, ...]:
    """(precision, recall, specificity, f1) from TP, TP + FN, TP + FP and all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return hit / called, hit / true, 1 - (called - hit) / (total - true), 2 * hit / (true + called)


def _losses(p: np.ndarray, true: np.ndarray, called: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """What each case adds to the metrics that are means over cases: (N, 1) each."""
    # As scikit-learn: a probability of 0 that comes true would be infinitely bad.
    smallest = np.finfo(np.float64).eps
    squared = (p - true) ** 2
    surprise = -np.log(np.clip(np.where(true, p, 1 - p), smallest, 1))
    if kind == "multi-label":
        losses = {
            "brier": squared.mean(axis=1),
            "log_loss": surprise.mean(axis=1),
            "exact_match": (true == called).all(axis=1),
        }
    else:
        losses = {
            "brier": squared[:, 1] if kind == "binary" else squared.sum(axis=1),
            "log_loss": surprise[true],
        }
    if kind == "ordinal":
        distance = called.argmax(axis=1) - true.argmax(axis=1)
        losses |= {"mean_absolute_error": np.abs(distance), "squared_error": distance**2}
    return {name: loss[:, None] for name, loss in losses.items()}


def _kappa(squared_error: np.ndarray, true: np.ndarray, called: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights: (B,). squared_error, total: (B,). true, called: (K, B)."""
    ranks = np.arange(len(true))
    cost = (ranks[:, None] - ranks) ** 2
    expected = np.einsum("ib,ij,jb->b", true, cost, called) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - squared_error / expected, np.nan)


def _membership(cell: np.ndarray, values: np.ndarray, cells: int) -> sparse.csr_array:
    """A matrix (cells, N) with the values (N, C) of each case in the cells (N, C) that it belongs to."""
    case = np.broadcast_to(np.arange(len(cell))[:, None], cell.shape)
    return sparse.csr_array((values.ravel(), (cell.ravel(), case.ravel())), shape=(cells, len(cell)), dtype=np.float64)


def _check_names(classes: Sequence[str], count: int) -> None:
    if len(classes) != count or len(set(classes)) != count:
        raise InputError(f"The classes {list(classes)} are not {count} different names; give one a class.")
