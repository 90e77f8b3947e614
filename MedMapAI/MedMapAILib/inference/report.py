"""What a run found, ready to be shown: a row for each segment, class, finding or score of an image, and the sentences
that go with it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

from ..results import Classification, Detections, Reconstruction, Segmentation


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
class ClassRow:
    """One class. probability: 0 to 1. threshold: its operating point, None where the highest probability decides."""

    name: str
    probability: float
    threshold: float | None
    called: bool


@dataclass(frozen=True)
class FindingRow:
    """One finding. rank: from 1, by falling score. score: 0 to 1; None where a reader says so. diameter_mm: mm.
    volume_ml: mL. state: one of ``results.STATES``. called: whether it counts at the operating point. synthetic: put
    into the scan."""

    rank: int
    name: str
    score: float | None
    diameter_mm: float
    volume_ml: float
    state: str
    called: bool
    synthetic: bool


@dataclass(frozen=True)
class ScoreRow:
    """One score of an image against a reference: its name, its unit ("" for none), and its values of the image that was
    made, of the one that it was made of, and of both within the region of interest; None where there is none."""

    name: str
    unit: str
    value: float | None
    before: float | None = None
    region: float | None = None
    region_before: float | None = None


#: Scores of an image in the order in which they are shown: key, name, unit.
IMAGE_SCORES = (
    ("psnr_db", "PSNR", "dB"),
    ("ssim", "SSIM", ""),
    ("ms_ssim", "MS-SSIM", ""),
    ("nrmse", "NRMSE", ""),
    ("bias", "Bias", "unit"),
    ("bias_air", "Bias in air", "unit"),
    ("bias_water", "Bias, water-like", "unit"),
    ("bias_bone", "Bias in bone", "unit"),
)


@dataclass(frozen=True)
class RunReport:
    """A finished run. scores: as ``scoring.score`` gives them, None without a reference. counts: voxels of each
    segment, by name, where they were counted already, which takes long in a large volume."""

    model: str
    result: Segmentation | Classification | Detections | Reconstruction
    device: str
    seconds: float
    scores: dict[str, Any] | None = field(default=None)
    counts: dict[str, int] | None = field(default=None)

    @property
    def segmentation(self) -> Segmentation | None:
        """The result where it is a segmentation, else None."""
        return self.result if isinstance(self.result, Segmentation) else None

    @property
    def classification(self) -> Classification | None:
        """The result where it is a classification, else None."""
        return self.result if isinstance(self.result, Classification) else None

    @property
    def detections(self) -> Detections | None:
        """The result where it is one of a detection, else None."""
        return self.result if isinstance(self.result, Detections) else None

    @property
    def reconstruction(self) -> Reconstruction | None:
        """The result where it is an image that was made, else None."""
        return self.result if isinstance(self.result, Reconstruction) else None

    @functools.cached_property
    def rows(
        self,
    ) -> tuple[ReportRow, ...] | tuple[ClassRow, ...] | tuple[FindingRow, ...] | tuple[ScoreRow, ...]:
        """The segments or classes, in the model's order (segments that were not found are there with volume 0); all
        findings, by falling score; the scores of an image, none without a reference."""
        if isinstance(self.result, Reconstruction):
            return _score_rows(self.scores or {}, self.result.unit)
        if isinstance(self.result, Classification):
            return _class_rows(self.result)
        if isinstance(self.result, Detections):
            return _finding_rows(self.result)
        return self._segment_rows(self.result)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should read with the result; where it was computed is in ``sentence`` already."""
        notes = tuple(note for note in self.result.notes if self.device not in note)
        saliency = getattr(self.result, "saliency", None)
        if saliency is not None and saliency.warning and saliency.warning not in notes:
            notes = (*notes, saliency.warning)
        return notes

    @property
    def warning(self) -> str:
        """The sentence for an image of a kind that the model was not trained on; empty where there is nothing to
        say."""
        familiarity = getattr(self.result, "familiarity", None)
        return familiarity.sentence if familiarity is not None and not familiarity.familiar else ""

    @property
    def sentence(self) -> str:
        """One line for a status bar."""
        if isinstance(self.result, Reconstruction):
            made = replace(self.result, method=self.result.method or self.model)
            said = [made.sentence.rstrip("."), f"{self.seconds:.1f} s on {self.device}"]
            reached = [_value(row) for row in self.rows[:2] if row.value is not None]
            return "; ".join([*said, *([", ".join(reached)] if reached else [])]) + "."
        if isinstance(self.result, (Classification, Detections)):
            return f"{self.result.sentence.rstrip('.')}; {self.seconds:.1f} s on {self.device}."
        found = sum(row.voxels > 0 for row in self.rows)
        said = f"{found} of {len(self.rows)} segments found in {self.seconds:.1f} s on {self.device}"
        dice = (self.scores or {}).get("mean", {}).get("dice")
        return f"{said}; mean Dice {dice:.3f}." if dice is not None else f"{said}."

    def _segment_rows(self, result: Segmentation) -> tuple[ReportRow, ...]:
        counts = result.voxel_counts() if self.counts is None else self.counts
        voxel_ml = result.voxel_ml
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
            for segment in result.segments
        )


def _class_rows(result: Classification) -> tuple[ClassRow, ...]:
    return tuple(
        ClassRow(name, float(probability), threshold, name in result.called)
        for name, probability, threshold in zip(result.classes, result.probabilities, result.thresholds, strict=True)
    )


def _finding_rows(result: Detections) -> tuple[FindingRow, ...]:
    called = set(map(id, result.called))
    return tuple(
        FindingRow(
            rank, one.label, one.score, one.diameter_mm, one.volume_ml, one.state, id(one) in called, one.synthetic
        )
        for rank, one in enumerate(result.findings, start=1)
    )


def _score_rows(scores: dict[str, Any], unit: str) -> tuple[ScoreRow, ...]:
    parts = {
        "value": scores,
        "before": scores.get("before") or {},
        "region": scores.get("region") or {},
        "region_before": (scores.get("region") or {}).get("before") or {},
    }
    rows = [
        ScoreRow(name, unit if said == "unit" else said, **{part: some.get(key) for part, some in parts.items()})
        for key, name, said in IMAGE_SCORES
    ]
    # What is not defined, such as MS-SSIM of a small image, has no row.
    return tuple(row for row in rows if any(getattr(row, part) is not None for part in parts))


def _value(row: ScoreRow) -> str:
    return f"{row.name} {row.value:.2f} {row.unit}" if row.unit else f"{row.name} {row.value:.4f}"
