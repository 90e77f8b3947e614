"""What a run found, ready to be shown: one row for each segment."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from ..results import Segmentation


@dataclass(frozen=True)
class ReportRow:
    """One segment. volume_ml: mL. dice, hd95_mm: agreement with the reference, or None."""

    name: str
    color: tuple[float, float, float]
    voxels: int
    volume_ml: float
    dice: float | None = None
    hd95_mm: float | None = None


@dataclass(frozen=True)
class RunReport:
    """A finished run. scores: as the task's ``evaluate`` gives them, None without a reference. counts: voxels of each
    segment, by name, where they were counted already, which takes long in a large volume."""

    model: str
    segmentation: Segmentation
    device: str
    seconds: float
    scores: dict[str, Any] | None = field(default=None)
    counts: dict[str, int] | None = field(default=None)

    @functools.cached_property
    def rows(self) -> tuple[ReportRow, ...]:
        """The segments, in the model's order; those that were not found are there with volume 0."""
        counts = self.segmentation.voxel_counts() if self.counts is None else self.counts
        voxel_ml = self.segmentation.voxel_ml
        scores = (self.scores or {}).get("labels", {})
        return tuple(
            ReportRow(
                name=segment.name,
                color=segment.color,
                voxels=counts[segment.name],
                volume_ml=counts[segment.name] * voxel_ml,
                dice=scores.get(segment.name, {}).get("dice"),
                hd95_mm=scores.get(segment.name, {}).get("hd95_mm"),
            )
            for segment in self.segmentation.segments
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should read with the result; where it was computed is in ``sentence`` already."""
        return tuple(note for note in self.segmentation.notes if self.device not in note)

    @property
    def sentence(self) -> str:
        """One line for a status bar."""
        found = sum(row.voxels > 0 for row in self.rows)
        said = f"{found} of {len(self.rows)} segments found in {self.seconds:.1f} s on {self.device}"
        dice = (self.scores or {}).get("mean", {}).get("dice")
        return f"{said}; mean Dice {dice:.3f}." if dice is not None else f"{said}."
