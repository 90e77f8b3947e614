"""What a detector took for a finding, cut out, for a classifier to learn which of it is one."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from ..datasets import Case, Dataset
from ..datasets.loading import load_case
from ..files import write_atomically
from ..image import make_image, write_array
from ..metrics.matching import FALSE, TRUE, match_findings
from ..preprocessing import Grid
from ..results import Detections, FindingReference

#: Names of the classes in the table; the second is the positive one.
CLASSES = ("other", "finding")
#: A finding is also shown this far off its middle, in parts of its size, because a detector's boxes are not exact.
_OFF = 0.15


@dataclass
class CandidateTable:
    """Crops in ``folder``/images and a table of them, ``folder``/candidates.csv, which is a data set of classes:
    columns image, class, patient, split, score, synthetic."""

    folder: Path
    crop_mm: float
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        case: Case,
        image: MetaTensor,
        result: Detections,
        reference: FindingReference,
        *,
        part: str,
        most: int,
        seed: int = 0,
    ) -> None:
        """Cut out the findings of a scan, and the best scoring false alarms, at most so many.

        part: "train", "validation" or "test". What hits a finding, or a place to ignore, is no false alarm.
        """
        random = np.random.default_rng([seed, len(self.rows)])
        kinds = match_findings(result, reference)
        false = [f for f, kind in zip(result.findings, kinds, strict=True) if kind == FALSE][:most]
        found = [f for f, kind in zip(result.findings, kinds, strict=True) if kind == TRUE]
        moved = [tuple(np.array(f.center) + random.uniform(-_OFF, _OFF, 3) * f.size) for f in reference.findings]
        shown = [(f.center, f, CLASSES[0]) for f in false] + [(f.center, f, CLASSES[1]) for f in found]
        shown += [(place, f, CLASSES[1]) for place, f in zip(moved, reference.findings, strict=True)]
        for center, finding, name in shown:
            file = f"{len(self.rows):05d}.nrrd"
            crop = crop_around(image, center, self.crop_mm)
            write_array(_small(crop.numpy()[0]), np.asarray(crop.affine), self.folder / "images" / file)
            self.rows.append(
                {
                    "image": f"images/{file}",
                    "class": name,
                    "patient": case.patient,
                    "split": part,
                    "score": "" if finding.score is None else f"{finding.score:.4f}",
                    "synthetic": int(finding.synthetic),
                }
            )

    def write(self) -> Path:
        """Write the table; its path."""
        buffer = io.StringIO()
        writer = csv.DictWriter(
            buffer, ("image", "class", "patient", "split", "score", "synthetic"), lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(self.rows)
        path = self.folder / "candidates.csv"
        write_atomically(path, buffer.getvalue().encode())
        return path


def lacking_class(table: Path) -> str:
    """Which class a written table of candidates has none of in its training part, as half a sentence; else empty."""
    with open(table, encoding="utf-8", newline="") as file:
        classes = {row["class"] for row in csv.DictReader(file) if row["split"] == "train"}
    if CLASSES[0] not in classes:
        return "the detector makes no false alarms on the training scans"
    return "" if CLASSES[1] in classes else "the training scans hold no finding"


def crop_around(image: MetaTensor, center: tuple[float, float, float], side_mm: float) -> MetaTensor:
    """The cube of that side around a place (RAS mm), in the image's own voxels; beyond it its border is repeated."""
    grid = Grid.of(image)
    inverse = np.linalg.inv(grid.affine)
    middle = inverse[:3, :3] @ np.array(center) + inverse[:3, 3]
    half = np.maximum(1, np.round(side_mm / grid.spacing / 2)).astype(int)
    first = np.round(middle).astype(int) - half
    indices = [np.clip(np.arange(a, a + 2 * h + 1), 0, n - 1) for a, h, n in zip(first, half, grid.shape, strict=True)]
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    return make_image(image.numpy()[np.ix_(np.arange(image.shape[0]), *indices)], affine)


def _small(voxels: np.ndarray) -> np.ndarray:
    """The same values in two bytes each where they are whole numbers, as in CT."""
    whole = np.array_equal(voxels, np.rint(voxels)) and np.abs(voxels).max() < 2**15
    return voxels.astype(np.int16) if whole else voxels


def collect_candidates(
    predictor: Any,
    dataset: Dataset,
    parts: dict[str, Iterable[Case]],
    folder: Path,
    *,
    per_scan: int,
    crop_mm: float,
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Run a detector over scans and write a table of what it found; its path, or None when stopped.

    predictor: a DetectionPredictor without a second look. parts: part of the split → scans. per_scan: false alarms
    kept of each. crop_mm: side of the crops.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    table = CandidateTable(folder, crop_mm)
    work = [(part, case) for part, cases in parts.items() for case in cases]
    for number, (part, case) in enumerate(work):
        if should_stop():
            return None
        if progress is not None:
            progress(number / len(work), f"looking for candidates in scan {number + 1} of {len(work)}")
        image, reference = load_case(case, dataset)
        table.add(
            case,
            image,
            predictor.predict(image, proposals=reference.proposals),
            reference,
            part=part,
            most=per_scan,
            seed=seed,
        )
    return table.write()
