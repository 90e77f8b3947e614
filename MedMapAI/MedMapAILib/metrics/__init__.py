"""How good a result is, and how sure that is."""

from __future__ import annotations

from .bootstrap import bootstrap_interval, summarize_rows
from .calibration import fit_temperature
from .classification import classification_metrics, confusion_matrix
from .curves import classification_curves
from .operating_point import choose_operating_point
from .predictions import calls
from .report import classification_report
from .segmentation import evaluate_labels

__all__ = [
    "bootstrap_interval",
    "calls",
    "choose_operating_point",
    "classification_curves",
    "classification_metrics",
    "classification_report",
    "confusion_matrix",
    "evaluate_labels",
    "fit_temperature",
    "summarize_rows",
]
