"""How well findings agree with what scans really hold, each number with a 95 % bootstrap interval over patients.

======================  ============================================================================================
froc                    mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per scan, see froc.py
sensitivity_at_R        the sensitivity at R false positives per scan
average_precision_0.1   area under the precision-recall curve of boxes at IoU 0.1, see average_precision.py
recall_0.1              share of findings whose box is met at IoU 0.1 by any of a scan's 100 highest
map_0.1_0.5             mean average precision over IoU 0.1, 0.15, …, 0.5
map_0.5_0.95            mean average precision over IoU 0.5, 0.55, …, 0.95, as COCO has it
precision               at the operating point: findings hit / (findings hit + false positives)
recall                  at the operating point: findings hit / findings
f1                      at the operating point: their harmonic mean
false_positives_per_scan  at the operating point
======================  ============================================================================================

For froc, the sensitivities, precision and recall a finding is hit as LUNA16 has it: by a center that lies nearer to its
own than its radius; for average precision by the overlap of boxes. What readers said to ignore counts neither way.
With several classes only findings of the same class meet, froc and the average precisions are means over the classes
that occur, "NAME: froc" and so on are each class's, and the operating point counts all together. A metric that is not
defined (no finding in any scan; nothing called) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..results.detection import Detections, Finding, FindingReference
from .average_precision import AveragePrecision, ScanBoxes
from .bootstrap import resampled_weights
from .curves import thinned
from .froc import AT_MOST, RATES, Froc, FrocScan, interval, match_marks

_LOW = np.linspace(0.1, 0.5, 9)
_HIGH = np.linspace(0.5, 0.95, 10)
_COUNTS = ("hits", "missed", "false_positives")


def score_case(result: Detections, reference: FindingReference) -> dict[str, float]:
    """What was called in one scan beside what it holds, by LUNA16's rule of a hit.

    Returns "found" (findings called), "hits" and "missed" (of those that there are), "false_positives", "ignored"
    (called where readers disagreed) and "double_hits".
    Raises InputError where the two name different classes.
    """
    _check_classes(result, reference)
    counts = dict.fromkeys(("found", "hits", "missed", "false_positives", "ignored", "double_hits"), 0)
    for name in reference.classes:
        marks = match_marks(_scan(result.called, reference, name), at_most=None)
        hits = int((marks.truth_scores > -np.inf).sum())
        counts["found"] += marks.marks
        counts["hits"] += hits
        counts["missed"] += len(marks.truth_scores) - hits
        counts["false_positives"] += len(marks.false_scores)
        counts["ignored"] += marks.ignored
        counts["double_hits"] += marks.doubles
    return counts


def detection_report(
    results: Sequence[Detections],
    references: Sequence[FindingReference],
    patients: Sequence | None = None,
    *,
    at_most: int = AT_MOST,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics of this file's table, as JSON takes them.

    results, references: one of each a scan. patients: one name or number a scan, whose scans are drawn together.
    at_most: findings of a scan that count for the curves.
    Returns "classes"; "cases", the number of scans; "counts", the sums of ``score_case``; "summary": {metric: {"mean",
    "low", "high", "cases"}}, where "mean" is of all scans and the interval holds the central share ``confidence`` of
    the resamples in which the metric is defined; "curves": {"froc": {class: points}, "precision_recall": {class:
    points}}, as ``froc.froc`` has them, with the "operating_point" [x, y] of each, for ``figures.draw_curves``.
    Raises InputError where these do not belong together.
    """
    if not results or len(results) != len(references):
        raise InputError(f"There are {len(results)} results for {len(references)} references; give one for each scan.")
    if not 0 < confidence < 1:
        raise InputError(f"An interval of confidence {confidence} makes no sense; give a number between 0 and 1.")
    cases = [score_case(result, reference) for result, reference in zip(results, references, strict=True)]
    scores = _Scores(results, references, cases, at_most)
    values = {name: float(value[0]) for name, value in scores(np.ones((1, len(cases)))).items()}
    parts = [
        scores(weights) for weights in resampled_weights(len(cases), groups=patients, resamples=resamples, seed=seed)
    ]
    summary = {}
    for name, value in values.items():
        if np.isnan(value):
            continue
        drawn = np.concatenate([part[name] for part in parts])
        drawn = drawn[~np.isnan(drawn)]
        low, high = interval(drawn, confidence) if len(drawn) else (value, value)
        summary[name] = {"mean": value, "low": float(low), "high": float(high), "cases": len(cases)}
    return {
        "classes": list(references[0].classes),
        "cases": len(cases),
        "counts": {name: int(sum(case[name] for case in cases)) for name in cases[0]},
        "summary": summary,
        "curves": scores.curves(),
    }


class _Scores:
    """The metrics of a set of scans as functions of how often each counts."""

    def __init__(
        self,
        results: Sequence[Detections],
        references: Sequence[FindingReference],
        cases: Sequence[dict[str, float]],
        at_most: int,
    ) -> None:
        self.classes = references[0].classes
        if any(tuple(reference.classes) != tuple(self.classes) for reference in references):
            raise InputError("The references name different classes of findings; give scans of one data set.")
        self._pairs = list(zip(results, references, strict=True))
        self.froc, self.boxes = {}, {}
        for name in self.classes:
            candidates = [(_candidates(result.findings), reference) for result, reference in self._pairs]
            scans = [_scan(findings, reference, name) for findings, reference in candidates]
            self.froc[name] = Froc([match_marks(scan, at_most) for scan in scans])
            boxes = [_boxes(findings, reference, name) for findings, reference in candidates]
            self.boxes[name] = AveragePrecision(boxes, [*_LOW, *_HIGH], at_most)
        self.counts = np.array([[case[name] for name in _COUNTS] for case in cases], dtype=np.float64)

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Each metric for each weighting: (B,), NaN where it is not defined. weights: (B, scans)."""
        by_class = {name: self._of_class(name, weights) for name in self.classes if self.froc[name].truths.any()}
        scores: dict[str, np.ndarray] = {}
        if by_class:
            metrics = next(iter(by_class.values()))
            scores |= {metric: np.mean([each[metric] for each in by_class.values()], axis=0) for metric in metrics}
        hits, missed, false = weights @ self.counts.T[0], weights @ self.counts.T[1], weights @ self.counts.T[2]
        with np.errstate(divide="ignore", invalid="ignore"):
            scores["precision"] = hits / (hits + false)
            scores["recall"] = hits / (hits + missed)
            scores["f1"] = 2 * hits / (2 * hits + false + missed)
        scores["false_positives_per_scan"] = false / weights.sum(axis=1)
        if len(self.classes) > 1:
            scores |= {f"{name}: {metric}": value for name, each in by_class.items() for metric, value in each.items()}
        return scores

    def _of_class(self, name: str, weights: np.ndarray) -> dict[str, np.ndarray]:
        sensitivities = self.froc[name].sensitivities(weights, RATES).T
        precision, recall = self.boxes[name](weights)
        return {
            "froc": sensitivities.mean(axis=0),
            **{f"sensitivity_at_{rate:g}": value for rate, value in zip(RATES, sensitivities, strict=True)},
            "average_precision_0.1": precision[0],
            "recall_0.1": recall[0],
            "map_0.1_0.5": precision[: len(_LOW)].mean(axis=0),
            "map_0.5_0.95": precision[len(_LOW) :].mean(axis=0),
        }

    def curves(self) -> dict[str, dict[str, dict]]:
        """{"froc": {class: points}, "precision_recall": {class: points}} of the classes that occur."""
        curves: dict[str, dict[str, dict]] = {"froc": {}, "precision_recall": {}}
        for name, froc in self.froc.items():
            if not froc.truths.any():
                continue
            marks = [match_marks(_scan(each.called, reference, name), at_most=None) for each, reference in self._pairs]
            hits = sum(int((scan.truth_scores > -np.inf).sum()) for scan in marks)
            false = sum(len(scan.false_scores) for scan in marks)
            found = hits / int(froc.truths.sum())
            points: dict[str, Any] = thinned(froc.points())
            points["operating_point"] = [false / froc.scans, found]
            curves["froc"][name] = points
            precision = froc.precision_recall()
            if precision is not None:
                curves["precision_recall"][name] = thinned(precision)
                if hits + false:
                    curves["precision_recall"][name]["operating_point"] = [found, hits / (hits + false)]
        return curves


def _check_classes(result: Detections, reference: FindingReference) -> None:
    if tuple(result.classes) != tuple(reference.classes):
        raise InputError(
            f"The model finds {', '.join(result.classes)} and the reference holds {', '.join(reference.classes)}; "
            "evaluate on a data set of the same classes."
        )


def _candidates(findings: Iterable[Finding]) -> list[Finding]:
    """What counts for curves: all that no reader has rejected."""
    return [finding for finding in findings if finding.state != "rejected"]


def _of(findings: Iterable[Finding], name: str) -> list[Finding]:
    return [finding for finding in findings if finding.label == name]


def _scores(findings: Sequence[Finding]) -> np.ndarray:
    """(N,). What a reader says is sure."""
    return np.array([1.0 if finding.score is None else finding.score for finding in findings])


def _scan(findings: Iterable[Finding], reference: FindingReference, name: str) -> FrocScan:
    """The findings of one class as marks, RAS mm."""
    marks, truth, ignored = (_of(some, name) for some in (findings, reference.findings, reference.ignored))
    return FrocScan(
        np.array([finding.center for finding in marks]),
        _scores(marks),
        np.array([finding.center for finding in truth]),
        np.array([finding.diameter_mm / 2 for finding in truth]),
        np.array([finding.center for finding in ignored]),
        np.array([finding.diameter_mm / 2 for finding in ignored]),
    )


def _boxes(findings: Iterable[Finding], reference: FindingReference, name: str) -> ScanBoxes:
    """The boxes of the findings of one class, RAS mm."""
    marks, truth, ignored = (_of(some, name) for some in (findings, reference.findings, reference.ignored))
    bounds = [np.array([finding.bounds for finding in some]).reshape(-1, 6) for some in (marks, truth, ignored)]
    return ScanBoxes(bounds[0], _scores(marks), bounds[1], bounds[2])
