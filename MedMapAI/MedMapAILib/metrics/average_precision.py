"""Average precision of boxes, by COCO's rules, in two and three dimensions.

As pycocotools' COCOeval counts (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014,
https://doi.org/10.1007/978-3-319-10602-1_48): of each image the 100 highest boxes, in falling order of score, each take
the finding not yet taken with which they share most (intersection over union, IoU), if that reaches the threshold. A
box that gets none is a false positive, unless it shares enough with what is to be ignored (COCO's "crowds"), measured
by intersection over the box itself. Precision is made monotone, and average precision is its mean at recalls 0, 0.01,
…, 1, and 0 where recall does not get there. Boxes of equal score keep the order of the images. For mAP it is averaged
over thresholds (and by the caller over classes).

Own code, since pycocotools knows two dimensions and one weighting of images: everything here is computed for many
weightings at once, which is what a bootstrap needs. The tests compare with pycocotools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

#: Boxes of an image that count.
AT_MOST = 100
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class ScanBoxes:
    """What was found in an image beside what it holds, of one class.

    boxes: (N, 2D), the D low ends and then the D high ends, in any unit. scores: (N,). truth: (M, 2D). ignored:
    (K, 2D).
    """

    boxes: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    ignored: np.ndarray | None = None


class AveragePrecision:
    """Average precision and recall over images as functions of how often each image counts.

    thresholds: T values of the IoU, 0 to 1.
    """

    def __init__(self, images: Sequence[ScanBoxes], thresholds: Sequence[float], at_most: int = AT_MOST) -> None:
        self.truths = np.array([len(image.truth) for image in images], dtype=np.float64)
        scores, image_of, outcomes = [], [], []
        for number, image in enumerate(images):
            ranked = np.argsort(-np.asarray(image.scores, dtype=np.float64), kind="stable")[:at_most]
            scores.append(np.asarray(image.scores, dtype=np.float64)[ranked])
            image_of.append(np.full(len(ranked), number))
            outcomes.append(_outcomes(np.asarray(image.boxes)[ranked], image, np.asarray(thresholds)))
        order = np.argsort(-np.concatenate(scores), kind="stable") if scores else np.zeros(0, dtype=int)
        image_of = np.concatenate(image_of)[order] if scores else order
        outcomes = (
            np.concatenate(outcomes, axis=1)[:, order] if scores else np.zeros((len(thresholds), 0), dtype=np.int8)
        )
        self._counted = [_Counted(outcome, image_of, len(images)) for outcome in outcomes]

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(average precision, recall of all boxes): (T, B) each, NaN where there is no truth. weights: (B, images)."""
        truths = weights @ self.truths
        truths[truths == 0] = np.nan
        both = [counted.scores(weights, truths) for counted in self._counted]
        return np.array([one[0] for one in both]), np.array([one[1] for one in both])


class _Counted:
    """True and false positives at one threshold, by falling score. outcome: (N,) 1, 0 or −1 (ignored)."""

    def __init__(self, outcome: np.ndarray, image_of: np.ndarray, images: int) -> None:
        hit = outcome == 1
        #: The image of each true positive: (L,).
        self.image_of_hit = image_of[hit]
        # Precision only matters where recall rises: how many false positives of each image come right before each hit.
        false = outcome == 0
        step = np.cumsum(hit)[false]
        before = step < len(self.image_of_hit)
        self._false = sparse.csr_array(
            (np.ones(before.sum()), (step[before], image_of[false][before])), shape=(len(self.image_of_hit), images)
        )

    def scores(self, weights: np.ndarray, truths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(average precision, recall): (B,) each."""
        if not len(self.image_of_hit):
            return truths * 0, truths * 0
        hits = np.cumsum(weights[:, self.image_of_hit], axis=1)
        false = np.cumsum((self._false @ weights.T).T, axis=1)
        recall = hits / truths[:, None]
        with np.errstate(invalid="ignore"):
            precision = np.where(hits > 0, hits / (hits + false), 0)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # How many of the 101 recalls each step covers.
        covered = np.searchsorted(_RECALLS, recall, side="right")
        average = (np.diff(covered, axis=1, prepend=0) * best).sum(axis=1) / len(_RECALLS)
        return np.where(np.isnan(truths), np.nan, average), recall[:, -1]


def average_precision(
    images: Sequence[ScanBoxes], thresholds: Sequence[float], at_most: int = AT_MOST
) -> tuple[np.ndarray, np.ndarray]:
    """(average precision, recall) at each IoU threshold: (T,) each, NaN where no image holds a finding."""
    precision, recall = AveragePrecision(images, thresholds, at_most)(np.ones((1, len(images))))
    return precision[:, 0], recall[:, 0]


def _outcomes(boxes: np.ndarray, image: ScanBoxes, thresholds: np.ndarray) -> np.ndarray:
    """1 for a true positive, 0 for a false one, −1 for ignored: (T, N). boxes: (N, 2D), by falling score."""
    found = np.zeros((len(thresholds), len(boxes)), dtype=np.int8)
    if not len(boxes):
        return found
    # As COCO: even a threshold of 1 lets rounding pass.
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    if image.ignored is not None and len(image.ignored):
        shared = _intersections(boxes, image.ignored) / _volumes(boxes)[:, None]
        found[shared.max(axis=1) >= least] = -1
    if not len(image.truth):
        return found
    shared = _intersections(boxes, image.truth)
    overlaps = shared / (_volumes(boxes)[:, None] + _volumes(image.truth) - shared)
    free = np.ones((len(thresholds), len(image.truth)), dtype=bool)
    rows = np.arange(len(thresholds))
    for number in np.flatnonzero(overlaps.max(axis=1) >= least.min()):
        overlap = np.where(free & (overlaps[number] >= least), overlaps[number], -1.0)
        # Of findings shared with alike COCO takes the last.
        taken = overlap.shape[1] - 1 - overlap[:, ::-1].argmax(axis=1)
        hit = overlap[rows, taken] >= 0
        free[rows[hit], taken[hit]] = False
        found[hit, number] = 1
    return found


def _intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What boxes a (N, 2D) and b (M, 2D) have in common: (N, M)."""
    half = a.shape[1] // 2
    low = np.maximum(a[:, None, :half], b[:, :half])
    high = np.minimum(a[:, None, half:], b[:, half:])
    return np.clip(high - low, 0, None).prod(axis=2)


def _volumes(boxes: np.ndarray) -> np.ndarray:
    half = boxes.shape[1] // 2
    return (boxes[:, half:] - boxes[:, :half]).prod(axis=1)
