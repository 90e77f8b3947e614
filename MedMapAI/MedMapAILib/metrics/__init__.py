"""How good a result is, and how sure that is."""

from __future__ import annotations

from .bootstrap import bootstrap_interval
from .segmentation import evaluate_labels

__all__ = ["bootstrap_interval", "evaluate_labels"]
