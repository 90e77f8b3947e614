"""Free-response ROC: how many findings are found at how many false alarms per scan, as LUNA16 counts it.

The rules are those of the challenge's own evaluation script (Setio et al., Medical Image Analysis 42, 2017,
https://doi.org/10.1016/j.media.2017.06.015, section 2.3; noduleCADEvaluationLUNA16.py as teams distribute it):

* Of each scan at most 100 marks count: those that score higher than the 101st.
* A mark hits a finding when it lies nearer to its center than its radius. A finding that is hit scores as much as the
  highest mark on it; the others on it ("double hits") count neither way. A mark can hit two findings.
* A mark that hits no finding but an excluded one (seen by a minority of readers) counts neither way.
* Every other mark is a false positive. Findings that no mark hits are missed at every threshold.
* Over falling thresholds, sensitivity = findings hit / findings, against false positives / scans, scans without any
  mark or finding included. Between thresholds the curve is straight; beyond its end it stays as high as it got.
* Sensitivity is read at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per scan; their mean is the score.
* Intervals: scans are drawn with replacement, and the curve is made anew from the marks of those drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .bootstrap import resampled_weights
from .curves import froc_points, precision_recall_points, thinned
from .ranking import Ranking

#: False positives per scan at which LUNA16 reads the sensitivity.
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
#: Marks of a scan that count.
AT_MOST = 100
#: Where the curve's interval is given: eight steps an octave, RATES among them.
_BAND = 2.0 ** (np.arange(49) / 8 - 3)
_AT_RATES = [int(np.flatnonzero(_BAND == rate)[0]) for rate in RATES]
#: Numbers at a time: few enough for the cache of a processor.
_AT_ONCE = 250_000


@dataclass(frozen=True)
class FrocScan:
    """The marks on a scan beside what it holds. All coordinates in one frame, mm.

    centers: (N, 3) of the marks. scores: (N,), the higher the surer. truth: (M, 3) centers of the findings. radii:
    (M,). ignored, ignored_radii: (K, 3) and (K,) of findings that count neither as hits nor as false alarms.
    """

    centers: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    radii: np.ndarray
    ignored: np.ndarray = ()
    ignored_radii: np.ndarray = ()

    def __post_init__(self) -> None:
        for points, numbers in (("centers", "scores"), ("truth", "radii"), ("ignored", "ignored_radii")):
            where = np.asarray(getattr(self, points), dtype=np.float64).reshape(-1, 3)
            values = np.asarray(getattr(self, numbers), dtype=np.float64).reshape(-1)
            if len(where) != len(values):
                raise ValueError(f"{len(where)} {points} and {len(values)} {numbers} do not belong together")
            if not (np.isfinite(where).all() and np.isfinite(values).all()):
                raise InputError(f"Of the {points} or {numbers} of a scan some are not finite; leave those out.")
            object.__setattr__(self, points, where)
            object.__setattr__(self, numbers, values)


@dataclass(frozen=True)
class ScanMarks:
    """How the marks on one scan count.

    truth_scores: (M,) the highest mark on each finding, −inf where there is none. false_scores: those of the false
    positives. ignored: marks on excluded findings. doubles: further marks on findings that are hit. marks: all that
    were looked at.
    """

    truth_scores: np.ndarray
    false_scores: np.ndarray
    ignored: int
    doubles: int
    marks: int


def match_marks(scan: FrocScan, at_most: int | None = AT_MOST) -> ScanMarks:
    """Which marks of a scan hit, by the rules at the top of this file. at_most: marks that count; None for all."""
    kept = slice(None)
    if at_most is not None and len(scan.scores) > at_most:
        kept = scan.scores > np.sort(scan.scores)[::-1][at_most]
    centers, scores = scan.centers[kept], scan.scores[kept]
    hits = _within(centers, scan.truth, scan.radii)  # (N, M)
    used = hits.any(axis=1)
    ignored = ~used & _within(centers, scan.ignored, scan.ignored_radii).any(axis=1)
    of_truth = np.where(hits, scores[:, None], -np.inf).max(axis=0, initial=-np.inf)
    doubles = np.maximum(hits.sum(axis=0) - 1, 0).sum()
    return ScanMarks(of_truth, scores[~used & ~ignored], int(ignored.sum()), int(doubles), len(scores))


def _within(points: np.ndarray, centers: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Whether each point lies inside each sphere: (N, M)."""
    return ((points[:, None] - centers) ** 2).sum(axis=2) < radii**2


class Froc:
    """The FROC curve of scans as a function of how often each scan counts. matches: of each scan."""

    def __init__(self, matches: Sequence[ScanMarks]) -> None:
        self.scans = len(matches)
        self.truths = np.array([len(each.truth_scores) for each in matches], dtype=np.float64)
        hit = [each.truth_scores[each.truth_scores > -np.inf] for each in matches]
        false = [each.false_scores for each in matches]
        self.scores = np.concatenate([*hit, *false]) if matches else np.zeros(0)
        self.hit = np.arange(len(self.scores)) < sum(map(len, hit))
        #: The scan that each of them is of.
        self.scan = np.concatenate([np.repeat(np.arange(self.scans), list(map(len, part))) for part in (hit, false)])
        self._ranking = Ranking(self.scores, self.hit) if len(self.scores) else None

    def sensitivities(self, weights: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """Sensitivity at each rate (R,) of false positives per scan: (B, R), NaN where there is no finding.

        weights: (B, scans).
        """
        rates = np.asarray(rates, dtype=np.float64)
        found = np.zeros((len(weights), len(rates)))
        rows = max(1, _AT_ONCE // max(1, len(self.scores)))
        for start in range(0, len(weights) if self._ranking is not None else 0, rows):
            some = weights[start : start + rows]
            hits, misses = self._ranking.counts(some[:, self.scan])
            # In this order, as the script does: where a rate falls on a step, rounding says on which side it is read.
            false = np.maximum(misses[:, -1:], 1)
            misses = misses / false * false / some.sum(axis=1, keepdims=True)
            for row, (y, x) in enumerate(zip(hits, misses, strict=True), start=start):
                # Before the first level nothing is called; at a rate that several levels share, the highest counts.
                found[row] = np.interp(rates, np.concatenate([[0.0], x]), np.concatenate([[0.0], y]))
        with np.errstate(divide="ignore", invalid="ignore"):
            return found / (weights @ self.truths)[:, None]

    def points(self) -> dict[str, list[float]]:
        """The curve: "false_positives_per_scan", "sensitivity", "threshold"; see ``curves.froc_points``."""
        return froc_points(self.scores, self.hit, findings=int(self.truths.sum()), scans=self.scans)

    def precision_recall(self) -> dict[str, list[float]] | None:
        """Precision over recall by the same rules, see ``curves.precision_recall_points``; None where nothing hits."""
        if not self.hit.any():
            return None
        return precision_recall_points(self.scores, self.hit, positives=int(self.truths.sum()))


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of resamples (B, …): those at ⌊B(1 − c)/2⌋ and ⌊B(1 + c)/2⌋ of the sorted ones, as LUNA16 takes them.

    values: finite.
    """
    ordered, tail = np.sort(values, axis=0), (1 - confidence) / 2
    return ordered[math.floor(tail * len(ordered))], ordered[math.floor((1 - tail) * len(ordered))]


def froc(
    scans: Sequence[FrocScan],
    *,
    name: str = "finding",
    at_most: int | None = AT_MOST,
    groups: Sequence | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """LUNA16's evaluation of any marks, as JSON takes it.

    groups: one name or number a scan, such as the patient, whose scans are drawn together. name: of the curve.
    Returns "scans"; "counts": {"findings", "candidates", "true_positives", "false_negatives", "false_positives",
    "ignored_on_excluded", "double_hits"} as LUNA16's file CADAnalysis.txt has them, and "candidates_left_out", those
    beyond ``at_most``; "rates", "sensitivities" (7 each) and "score", their mean; "intervals": {"confidence",
    "resamples", "sensitivities": 7 times [low, high], "score": [low, high]}; "bootstrap_means": {"sensitivities",
    "score"}, over the resamples, which LUNA16 plots; "summary": {"froc": {"mean", "low", "high", "cases"}}, the score
    as other reports have it; "curves": {"froc": {name: points}, "precision_recall": …} for
    ``figures``, where the points of the FROC curve have "band": {"rate", "low", "high"}.
    Raises InputError where no scan holds a finding, since no sensitivity is defined then, and for resamples < 1.
    """
    matches = [match_marks(scan, at_most) for scan in scans]
    curve = Froc(matches)
    findings = int(curve.truths.sum())
    if not findings:
        raise InputError("None of the scans holds a finding, so there is no sensitivity; give scans with findings.")
    if not 0 < confidence < 1:
        raise InputError(f"An interval of confidence {confidence} makes no sense; give a number between 0 and 1.")
    found = curve.sensitivities(np.ones((1, len(scans))), RATES)[0]
    drawn = np.concatenate(
        [
            curve.sensitivities(weights, _BAND)
            for weights in resampled_weights(len(scans), groups=groups, resamples=resamples, seed=seed)
        ]
    )
    # Few scans hold few findings, and some resamples none.
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    drawn = drawn if len(drawn) else curve.sensitivities(np.ones((1, len(scans))), _BAND)
    low, high = interval(drawn, confidence)
    at_rates = drawn[:, _AT_RATES]
    scores = at_rates.mean(axis=1)
    points: dict[str, Any] = thinned(curve.points())
    points["band"] = {"rate": _BAND.tolist(), "low": low.tolist(), "high": high.tolist()}
    precision = curve.precision_recall()
    score = [float(found.mean()), *map(float, interval(scores, confidence))]
    hit = int(curve.hit.sum())
    looked_at = sum(each.marks for each in matches)
    return {
        "scans": len(scans),
        "counts": {
            "findings": findings,
            "candidates": looked_at,
            "candidates_left_out": sum(len(scan.scores) for scan in scans) - looked_at,
            "true_positives": hit,
            "false_negatives": findings - hit,
            "false_positives": int((~curve.hit).sum()),
            "ignored_on_excluded": sum(each.ignored for each in matches),
            "double_hits": sum(each.doubles for each in matches),
        },
        "rates": list(RATES),
        "sensitivities": found.tolist(),
        "score": score[0],
        "intervals": {
            "confidence": confidence,
            "resamples": resamples,
            "sensitivities": np.stack([low, high], axis=1)[_AT_RATES].tolist(),
            "score": score[1:],
        },
        "bootstrap_means": {"sensitivities": at_rates.mean(axis=0).tolist(), "score": float(scores.mean())},
        "summary": {"froc": {**dict(zip(("mean", "low", "high"), score, strict=True)), "cases": len(scans)}},
        "curves": {
            "froc": {name: points},
            "precision_recall": {} if precision is None else {name: thinned(precision)},
        },
    }


def evaluate_luna16(
    annotations: str | Path,
    excluded: str | Path,
    seriesuids: str | Path,
    submission: str | Path,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """LUNA16's evaluation of a submission: what ``froc`` returns, and "notes", sentences that the user should read.

    Arguments, and what is wrong with them, as ``luna16_files.read_luna16``.
    """
    from .luna16_files import read_luna16

    _, scans, notes = read_luna16(annotations, excluded, seriesuids, submission)
    result = froc(scans, name="nodule", resamples=resamples, seed=seed)
    left_out = result["counts"]["candidates_left_out"]
    if left_out:
        notes.append(f"{left_out} candidates do not count: of each scan LUNA16 takes the {AT_MOST} that score highest.")
    return {**result, "notes": notes}
