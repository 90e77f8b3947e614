"""How large the findings of a data set are and how many a scan has: what a detection is planned by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..results import Finding
from .dataset import Case, Dataset

_PERCENTILES = (5, 50, 95)


@dataclass(frozen=True)
class FindingStatistics:
    """Of the cases whose findings are known.

    sizes: (N, 3), sides of all boxes, mm (right, anterior, superior), and diameters: (N,), mm, both in the order of the
    cases. classes: class → how many findings. per_scan: how many findings each scan has, in the order of the cases.
    ignored, synthetic: how many findings are ignored, and how many were put in.
    """

    sizes: np.ndarray
    diameters: np.ndarray
    classes: dict[str, int]
    per_scan: tuple[int, ...]
    ignored: int = 0
    synthetic: int = 0

    @property
    def count(self) -> int:
        """All findings."""
        return len(self.diameters)

    def to_dict(self) -> dict[str, Any]:
        """In a few numbers, as JSON takes them; without sizes where there is no finding."""
        told: dict[str, Any] = {
            "findings": self.count,
            "classes": dict(self.classes),
            "scans": len(self.per_scan),
            "scans with a finding": sum(number > 0 for number in self.per_scan),
            "findings a scan": _spread(self.per_scan),
            "ignored": self.ignored,
            "synthetic": self.synthetic,
        }
        if self.count:
            told["diameter in mm"] = _spread(self.diameters) | {
                f"percentile {p}": float(f"{np.percentile(self.diameters, p):.4g}") for p in _PERCENTILES
            }
            told["size in mm"] = {
                "axes": "right, anterior, superior",
                "median": [float(f"{n:.4g}") for n in np.median(self.sizes, axis=0)],
                "min": [float(f"{n:.4g}") for n in self.sizes.min(axis=0)],
                "max": [float(f"{n:.4g}") for n in self.sizes.max(axis=0)],
            }
        return told


def finding_statistics(dataset: Dataset, cases: Iterable[Case] | None = None) -> FindingStatistics:
    """Measure the findings of some cases (all of the data set by default); no image is read."""
    known = [case for case in (dataset.cases if cases is None else cases) if case.findings is not None]
    findings: list[Finding] = [finding for case in known for finding in case.findings]
    return FindingStatistics(
        np.array([finding.size for finding in findings], dtype=np.float64).reshape(-1, 3),
        np.array([finding.diameter_mm for finding in findings], dtype=np.float64),
        {name: sum(finding.label == name for finding in findings) for name in dataset.findings},
        tuple(len(case.findings) for case in known),
        sum(len(case.ignored) for case in known),
        sum(finding.synthetic for finding in findings),
    )


def _spread(values: Any) -> dict[str, float]:
    if not len(values):
        return {}
    numbers = {"median": np.median(values), "mean": np.mean(values), "min": np.min(values), "max": np.max(values)}
    return {key: float(f"{float(value):.4g}") for key, value in numbers.items()}
