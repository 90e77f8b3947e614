"""False-positive reduction: classifiers look again, and closely, at what a detector found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from monai.data import MetaTensor
from scipy.special import expit, logit

from ..bundle import Bundle
from ..errors import Cancelled
from ..image import make_image
from ..plan import Plan
from ..preprocessing import Grid, canonical_grid, canonical_orientation
from ..results import Detections, Finding
from .whole_image import WholeImagePredictor

#: Findings that are looked at between two questions whether to stop.
_AT_ONCE = 16
#: Around the crop of a classifier, mm: what resampling and smoothing reach for.
_AROUND_MM = 4.0
#: A classifier for slices sees the middle slice and those this share of the finding's height above and below.
_OFF_MIDDLE = 0.25
#: Probabilities this near to 0 or 1 are as good as that.
_SURE = 1e-4


class SecondLook:
    """The stages of a detector's bundle, and how their answers join its score.

    The joint score is the logistic function of a weighted sum of log odds: the detector's and each stage's, and a
    constant; ``fit_weights`` finds the weights, and the bundle's inference settings hold them as "second_look".
    """

    def __init__(self, bundle: Bundle, device: str = "auto"):
        self._stages = [WholeImagePredictor(stage, device) for stage in bundle.stages]
        even = {"weights": [1.0] * (1 + len(self._stages)), "intercept": 0.0}
        self._weights = bundle.inference.get("second_look") or even

    def __call__(
        self,
        result: Detections,
        image: MetaTensor,
        *,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        begin: float = 0.0,
    ) -> Detections:
        """The result with joint scores. progress: called with fractions from ``begin`` to 1."""
        odds = self.log_odds(result.findings, image, progress=progress, cancelled=cancelled, begin=begin)
        return joint(result, odds, self._weights)

    def log_odds(
        self,
        findings: Sequence[Finding],
        image: MetaTensor,
        *,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        begin: float = 0.0,
    ) -> np.ndarray:
        """(N, 1 + stages): of the detector's scores, and of each stage that it is a finding."""
        columns = np.zeros((len(findings), 1 + len(self._stages)))
        columns[:, 0] = _log_odds(np.array([finding.score for finding in findings], dtype=float))
        for start in range(0, len(findings), _AT_ONCE):
            if cancelled is not None and cancelled():
                raise Cancelled
            if progress is not None:
                progress(begin + (1 - begin) * start / len(findings), f"second look at finding {start + 1}")
            some = findings[start : start + _AT_ONCE]
            for number, stage in enumerate(self._stages, start=1):
                parts = [part for finding in some for part in parts_of(image, finding, stage.bundle.plan)]
                counts = [len(places(image, finding, stage.bundle.plan)) for finding in some]
                odds = _log_odds(stage.probabilities(parts)[:, 1])
                ends = np.cumsum(counts)
                columns[start : start + len(some), number] = [
                    odds[end - count : end].mean() for end, count in zip(ends, counts, strict=True)
                ]
        return columns


def joint(result: Detections, odds: np.ndarray, weights: dict) -> Detections:
    """The result with the scores that log odds (N, 1 + stages) of its findings make together; weights: as
    ``fit_weights`` gives them."""
    scores = expit(odds @ np.array(weights["weights"]) + weights["intercept"]) if len(odds) else []
    findings = [replace(finding, score=float(score)) for finding, score in zip(result.findings, scores, strict=True)]
    return replace(result, findings=tuple(findings))


def fit_weights(odds: np.ndarray, is_finding: np.ndarray) -> dict:
    """How much each column of log odds (N, S) counts, by logistic regression against (N,) of 0 and 1, as JSON takes it.

    Findings and others weigh the same in all. No weight is below 0: an answer that speaks against itself is left out.
    With fewer than ten of either kind every column counts the same.
    """
    from scipy.optimize import minimize

    true = np.asarray(is_finding, dtype=bool)
    if min(true.sum(), (~true).sum()) < 10:
        return {"weights": [1.0] * odds.shape[1], "intercept": 0.0}
    weight = np.where(true, 0.5 / true.sum(), 0.5 / (~true).sum())
    sign = np.where(true, 1.0, -1.0)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (odds @ values[:-1] + values[-1])
        slope = -weight * sign * expit(-margin)
        # A little shrinkage: candidates of few scans are not independent of each other.
        total = float(weight @ np.logaddexp(0, -margin)) + 1e-3 * float(values[:-1] @ values[:-1])
        return total, np.append(odds.T @ slope + 2e-3 * values[:-1], slope.sum())

    start = np.append(np.full(odds.shape[1], 0.5), 0.0)
    found = minimize(loss, start, jac=True, bounds=[(0, None)] * odds.shape[1] + [(None, None)], method="L-BFGS-B")
    return {"weights": [round(float(v), 5) for v in found.x[:-1]], "intercept": round(float(found.x[-1]), 5)}


def places(image: MetaTensor, finding: Finding, plan: Plan) -> list[np.ndarray]:
    """Where a classifier looks at a finding, RAS mm: at its middle, and one for slices at some slices of it."""
    center = np.array(finding.center)
    if 1 not in plan.patch:
        return [center]
    axis = plan.patch.index(1)
    grid = canonical_grid(Grid.of(image))
    across = grid.affine[:3, axis] / grid.spacing[axis]
    step = _OFF_MIDDLE * finding.size[axis]
    if step < grid.spacing[axis]:
        return [center]
    return [center - step * across, center, center + step * across]


def parts_of(image: MetaTensor, finding: Finding, plan: Plan) -> list[tuple[MetaTensor, np.ndarray]]:
    """What a classifier needs of an image to look at a finding: small parts, each with the middle of its crop, RAS mm.

    For slices each part is one slice thick. A finding at the border of the image is seen with the border repeated.
    """
    orientation = canonical_orientation(np.asarray(image.affine))
    grid = Grid.of(image)
    inverse = np.linalg.inv(grid.affine)
    result = []
    for center in places(image, finding, plan):
        middle = inverse[:3, :3] @ center + inverse[:3, 3]
        reach = np.zeros(3)
        for own, (axis, _) in enumerate(orientation):
            mm = plan.spacing[int(axis)] or grid.spacing[own]
            reach[own] = 0 if plan.patch[int(axis)] == 1 else (plan.patch[int(axis)] * mm / 2 + _AROUND_MM)
        if 1 not in plan.patch and not np.allclose(np.abs(inverse[:3, :3]).max(axis=0), 1 / grid.spacing, rtol=1e-3):
            reach[:] = np.linalg.norm(reach)  # a box turned inside the image's axes
        first = np.floor(middle - reach / grid.spacing + 0.5 * (reach == 0)).astype(int)
        last = np.where(reach == 0, first, np.ceil(middle + reach / grid.spacing).astype(int))
        indices = [np.clip(np.arange(a, b + 1), 0, n - 1) for a, b, n in zip(first, last, grid.shape, strict=True)]
        affine = grid.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ first
        result.append((make_image(image.numpy()[np.ix_(np.arange(image.shape[0]), *indices)], affine), center))
    return result


def _log_odds(chances: np.ndarray) -> np.ndarray:
    return logit(np.clip(np.asarray(chances, dtype=float), _SURE, 1 - _SURE))
