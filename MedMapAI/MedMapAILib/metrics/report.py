"""Everything that is worth saying about a classifier's answers on many cases, as one dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .classification import classification_metrics, confusion_matrix
from .curves import classification_curves


def classification_report(
    probabilities: Any,
    target: Any,
    *,
    kind: str,
    classes: Sequence[str],
    thresholds: Sequence[float | None] | None = None,
    groups: Sequence | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """``{"kind", "classes", "thresholds", "cases", "summary", "confusion", "curves"}``, as JSON takes it.

    Arguments, and "summary", as ``classification_metrics``; "confusion" as ``confusion_matrix``; "curves" as
    ``classification_curves``; "cases" is their number. ``figures.draw_curves`` draws it.
    """
    common = {"kind": kind, "classes": tuple(classes), "thresholds": thresholds}
    drawn = {"groups": groups, "resamples": resamples, "seed": seed}
    return {
        "kind": kind,
        "classes": list(classes),
        "thresholds": [None] * len(classes) if thresholds is None else list(thresholds),
        "cases": len(probabilities),
        "summary": classification_metrics(probabilities, target, **common, **drawn),
        "confusion": confusion_matrix(probabilities, target, **common, **drawn),
        "curves": classification_curves(probabilities, target, **common),
    }
