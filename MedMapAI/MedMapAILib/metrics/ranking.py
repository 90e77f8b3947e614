"""How well scores put positive cases above negative ones, for many weightings of the cases at once.

At each level of the score, from the highest, TP and FP are the weights of the positive and negative cases at or above
it, P and N those of all. Cases of equal score share a level, so their order does not matter.

==================  ================================================================================================
auc                 area under the ROC curve by trapezoids, which is the probability that a positive case scores
                    higher than a negative one, ties counted half (Hanley, McNeil, Radiology 143, 1982)
average_precision   Σ (TP_l − TP_l−1) / P · TP_l / (TP_l + FP_l) over levels l: no interpolation (as scikit-learn)
==================  ================================================================================================

Libraries do this for one weighting, at about a millisecond each, which a bootstrap of many classes cannot wait for.
"""

from __future__ import annotations

import numpy as np


class Ranking:
    """Cases in descending order of their scores. scores: (N,). positive: bool (N,)."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ordered = scores[self.order]
        #: Index of the last case of each level, in descending order of the score.
        self.ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
        #: The score of each level: (L,).
        self.levels = ordered[self.ends]
        self._positive = positive[self.order].astype(np.float64)

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(TP, FP) at each level: both (B, L). weights: (B, N)."""
        ordered = weights[:, self.order]
        above = np.cumsum(ordered, axis=1)
        ordered *= self._positive
        hits = np.cumsum(ordered, axis=1)
        if len(self.ends) < weights.shape[1]:
            above, hits = above[:, self.ends], hits[:, self.ends]
        above -= hits
        return hits, above

    def scores(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(auc, average precision) of each weighting: both (B,), NaN where not defined. weights: (B, N)."""
        hits, misses = self.counts(weights)
        positive, negative = hits[:, -1].copy(), misses[:, -1].copy()
        # Areas under the ROC curve: steps in FP times the mean height; the first level starts at the corner.
        area = np.einsum("bl,bl->b", np.diff(misses, axis=1), hits[:, 1:] + hits[:, :-1]) / 2
        area += misses[:, 0] * hits[:, 0] / 2
        misses += hits
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(misses > 0, hits / misses, 0)
            gained = hits[:, 0] * precision[:, 0] + np.einsum("bl,bl->b", np.diff(hits, axis=1), precision[:, 1:])
            return area / (positive * negative), gained / positive
