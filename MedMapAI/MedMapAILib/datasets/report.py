"""What a data set is like, for a person who is about to train on it: every case is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..image import affine_of

#: More problems than this are counted, not listed.
_MOST_PROBLEMS = 8
#: What a data set for reconstruction holds, in words.
_TARGETS = {
    "pairs": "pairs of an input and what it should be",
    "clean": "true images, from which inputs are simulated",
    "self": "noisy images without truth",
    "measurements": "measurements",
}


@dataclass
class DataReport:
    """Measurements of the cases that could be read, one entry a case, and what is wrong with the others.

    sizes: (I, J, K) voxels. spacings: mm. intensities: 1st and 99th percentile. volumes_ml: segment → volume in
    each case. classes: class → number of its cases, or, of a data set of findings, of its findings. kind: of target;
    empty for label maps. patients: how many. findings: their diameters, mm; None for other data. per_scan: how many
    findings each case has. ignored, synthetic: numbers of such findings. target: what kind of images a reconstruction
    is to make of these, see ``dataset.TARGETS``; differences: of inputs and targets, root mean square in their unit and
    PSNR in dB over the range of the target. notes: what the data set says of itself.
    """

    name: str
    cases: int = 0
    kind: str = ""
    patients: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    spacings: list[tuple[float, ...]] = field(default_factory=list)
    intensities: list[tuple[float, float]] = field(default_factory=list)
    volumes_ml: dict[str, list[float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    findings: list[float] | None = None
    per_scan: list[int] = field(default_factory=list)
    ignored: int = 0
    synthetic: int = 0
    target: str = ""
    differences: list[tuple[float, float]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def html(self) -> str:
        """The report as a small HTML page."""
        usable = len(self.sizes)
        lines = [f"<b>{escape(self.name)}</b>: {usable} of {self.cases} cases can be trained on."]
        if usable:
            rows = [
                ("Size, voxels", _ranges(self.sizes, " × ", "g")),
                ("Spacing, mm", _ranges(self.spacings, " × ", ".3g")),
            ]
            if self.intensities:
                middle = np.median(self.intensities, axis=0)
                rows.append(("Intensities (1–99 %)", " to ".join(f"{v:.4g}" for v in middle)))
            if self.kind:
                rows[:0] = [("Target", self.kind), ("Patients", str(self.patients))]
            if self.findings is not None:
                rows[:0] = self._finding_rows()
            if self.target:
                rows = [*self._image_rows(), *rows]
            lines.append(_table(rows))
            counted = bool(self.kind) or self.findings is not None
            if not self.target:
                lines.append(_table(self._class_rows() if counted else self._segment_rows(), head=True))
        if self.notes:
            lines.append(f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in self.notes)}</ul>")
        if self.problems:
            more = len(self.problems) - _MOST_PROBLEMS
            items = [f"<li>{escape(text)}</li>" for text in self.problems[:_MOST_PROBLEMS]]
            items += [f"<li>… and {more} more</li>"] if more > 0 else []
            lines.append(f"<p><b>Problems</b></p><ul>{''.join(items)}</ul>")
        else:
            lines.append("<p>No problems found.</p>")
        return "\n".join(lines)

    def _segment_rows(self) -> list[tuple[str, ...]]:
        rows = [("Segment", "in cases", "median mL")]
        for name, volumes in self.volumes_ml.items():
            there = [volume for volume in volumes if volume > 0]
            rows.append((name, f"{len(there)} of {len(self.sizes)}", f"{np.median(there):.3g}" if there else "–"))
        return rows

    def _class_rows(self) -> list[tuple[str, ...]]:
        of_findings = self.findings is not None
        whole = max(sum(self.classes.values()), 1) if of_findings else len(self.sizes)
        rows = [("Class", "findings" if of_findings else "cases", "share")]
        for name, count in self.classes.items():
            rows.append((name, str(count), f"{100 * count / whole:.1f} %"))
        return rows

    def _image_rows(self) -> list[tuple[str, str]]:
        rows = [("Images", _TARGETS[self.target]), ("Patients", str(self.patients))]
        if self.differences:
            apart, psnr = zip(*self.differences, strict=True)
            rows.append(("Input to target, root mean square", _ranges([(value,) for value in apart], "", ".3g")))
            rows.append(("Input to target, PSNR", f"{_ranges([(value,) for value in psnr], '', '.1f')} dB"))
        return rows

    def _finding_rows(self) -> list[tuple[str, str]]:
        without = sum(not number for number in self.per_scan)
        rows = [
            ("Patients", str(self.patients)),
            ("Findings", f"{len(self.findings)} in {len(self.per_scan)} scans, {without} of which have none"),
        ]
        if self.findings:
            rows.append(("Findings a scan", _ranges([(number,) for number in self.per_scan], "", "g")))
            rows.append(("Diameter, mm", _ranges([(diameter,) for diameter in self.findings], "", ".3g")))
        for count, what in ((self.ignored, "neither a hit nor a miss"), (self.synthetic, "synthetic")):
            if count:
                rows.append((f"{what[0].upper()}{what[1:]}", f"{count} findings"))
        return rows


def measure_dataset(
    path: str | Path,
    labels: dict[int, str] | None = None,
    progress: Callable[[float, str], None] | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> DataReport:
    """Read all cases of a data set and measure them. progress: called with a fraction and a message after each.
    options: as ``open_dataset`` takes them.

    Cases that cannot be read, or whose image and labels do not fit, are problems of the report. Raises InputError when
    there is no data set.
    """
    from . import open_dataset
    from .duplicates import find_duplicates
    from .loading import load_case

    dataset = open_dataset(path, labels=labels or None, options=options)
    report = DataReport(name or dataset.name, cases=len(dataset.cases), kind=dataset.kind)
    report.classes = dict.fromkeys(dataset.strata, 0)
    report.notes = tuple(dataset.source.get("notes", ()))
    report.findings = [] if dataset.findings else None
    report.target = dataset.target
    usable = []
    for number, case in enumerate(dataset.cases):
        if progress is not None:
            progress(number / len(dataset.cases), f"reading case {number + 1} of {len(dataset.cases)}")
        if not case.labelled and not dataset.target:
            what = {"classification": "class", "detection": "findings"}.get(dataset.task, "labels")
            report.problems.append(f"{case.name} has no {what} and is left out.")
            continue
        try:
            image, reference = load_case(case, dataset)
        except InputError as error:
            report.problems.append(str(error))
            continue
        usable.append(case)
        if dataset.target:
            _measure_images(report, image, reference)
            continue
        voxels = np.asarray(image)
        report.sizes.append(tuple(voxels.shape[1:]))
        report.spacings.append(tuple(np.linalg.norm(affine_of(image)[:3, :3], axis=0)))
        report.intensities.append(tuple(np.percentile(voxels, [1, 99])))
        if dataset.findings:
            report.per_scan.append(len(reference.findings))
            report.ignored += len(reference.ignored)
            for finding in reference.findings:
                report.classes[finding.label] += 1
                report.findings.append(finding.diameter_mm)
                report.synthetic += finding.synthetic
            continue
        if dataset.kind:
            for each in reference.names:
                report.classes[each] += 1
            continue
        for segment, volume in reference.volumes_ml().items():
            report.volumes_ml.setdefault(segment, []).append(volume)
        if not reference.labels.any():
            report.problems.append(f"The labels of {case.name} are empty.")
    report.patients = len({case.patient for case in usable})
    what = "finding" if dataset.findings else "case"
    report.problems += [f"There is no {what} of {each}." for each, count in report.classes.items() if not count]
    for group in find_duplicates(usable) if dataset.target != "measurements" else ():
        report.problems.append(f"The same voxels under several names, kept together in the split: {', '.join(group)}.")
    return report


def _measure_images(report: DataReport, image: Any, reference: Any) -> None:
    """Add what is known of an image, or of a measurement, and of the image that it should become."""
    report.sizes.append(tuple(image.shape[-3:]))
    report.spacings.append(tuple(np.linalg.norm(affine_of(image)[:3, :3], axis=0)))
    if report.target == "measurements":
        return
    voxels = np.asarray(image)
    report.intensities.append(tuple(np.percentile(voxels, [1, 99])))
    if report.target == "pairs":
        apart = float(np.sqrt(np.mean(np.square(voxels[0] - reference.values, dtype=np.float64))))
        if apart == 0:
            report.problems.append(
                "The input and the target of a case have the same values; there is nothing to learn."
            )
            return
        report.differences.append((apart, 20 * float(np.log10(np.ptp(reference.values) / apart))))


def describe_dataset(
    path: str | Path,
    labels: dict[int, str] | None = None,
    progress: Callable[[float, str], None] | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """``measure_dataset`` as HTML."""
    return measure_dataset(path, labels, progress, name, options).html


def _ranges(values: list[tuple[float, ...]], separator: str, number: str) -> str:
    low, middle, high = np.min(values, axis=0), np.median(values, axis=0), np.max(values, axis=0)

    def text(row: np.ndarray) -> str:
        return separator.join(format(v, number) for v in row)

    return text(middle) if np.allclose(low, high) else f"median {text(middle)} (from {text(low)} to {text(high)})"


def _table(rows: list[tuple[str, ...]], head: bool = False) -> str:
    def row(cells: tuple[str, ...], tag: str) -> str:
        inside = (f'<{tag} align="left">{escape(str(cell))}&nbsp;&nbsp;</{tag}>' for cell in cells)
        return f"<tr>{''.join(inside)}</tr>"

    return f"<table>{''.join(row(cells, 'th' if head and n == 0 else 'td') for n, cells in enumerate(rows))}</table>"
