"""What a scan of a detection data set holds, on the grid of its voxels."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..image import GeometryWarning, affine_of, check_same_geometry, read_volume
from ..results import Finding, FindingReference, whole_labels
from ..results.detection import diameter_in_slice
from .dataset import Case, Dataset
from .finding_geometry import FitNotes, fit_findings, voxel_edges
from .instances import instances_of


def finding_reference(case: Case, dataset: Dataset, image: Any) -> FindingReference | None:
    """The findings of a case, cut off at the edge of its image (C, I, J, K) and nowhere thinner than a voxel of it.

    What had to be changed is added to ``image.meta["notes"]`` and warned of. None where its findings are not known.
    Raises InputError where a finding lies outside of the image, is of a class that the data set does not have, or the
    label map is not that of the findings.
    """
    if case.findings is None:
        return None
    shape, affine = tuple(image.shape[-3:]), affine_of(image)
    fitted = fit_findings(case.findings, shape, affine)
    notes = FitNotes()
    notes.add(case.name, fitted)
    notes.raise_if_outside(dataset.name)
    for note in notes.sentences:
        image.meta.setdefault("notes", []).append(note)
        warnings.warn(f"{case.images[0]}: {note}", GeometryWarning, stacklevel=3)
    unknown = sorted({finding.label for finding in fitted.findings} - set(dataset.findings))
    if unknown:
        raise InputError(f"{case.name} has findings of {unknown[0]!r}, which is no class of {dataset.name}.")
    instances = None
    if case.label is not None:
        instances = _instances(case.label, image, case.images[0], fitted.findings)
    elif fitted.findings and all(finding.mask is not None for finding in fitted.findings):
        instances = instances_of(fitted.findings, image)
    elif not fitted.findings and any(finding.mask for other in dataset.cases for finding in other.findings or ()):
        instances = np.zeros(shape, dtype=np.uint8)  # known to hold nothing, where other scans have masks
    proposals = None if case.proposals is None else fit_findings(case.proposals, shape, affine).findings
    ignored = fit_findings(case.ignored, shape, affine).findings
    known, ignored = (tuple(_in_slice(one, shape, affine) for one in some) for some in (fitted.findings, ignored))
    return FindingReference(dataset.findings, known, ignored, instances, proposals)


def _in_slice(finding: Finding, shape: tuple[int, ...], affine: np.ndarray) -> Finding:
    """A finding of a picture with its diameter there, unless somebody measured it; any other as it is."""
    if finding.measured_diameter_mm is not None and finding.mask is None:
        return finding
    across = diameter_in_slice(finding.size, shape, affine)
    return finding if across is None else replace(finding, measured_diameter_mm=across)


def _instances(path: Path, image: Any, image_path: Path, findings: tuple[Finding, ...]) -> np.ndarray:
    """The label map of the findings (I, J, K), value n + 1 for findings[n]. InputError where it is not theirs."""
    from scipy.ndimage import find_objects

    volume = read_volume(path)
    check_same_geometry(image, volume, f"The image {image_path}", f"its label map {path}")
    labels = whole_labels(volume.array, str(path))
    highest = int(labels.max(initial=0))
    if highest > len(findings):
        raise InputError(
            f"The label map {path} numbers its findings up to {highest}, and the image {image_path} has "
            f"{len(findings)}; value n + 1 has to be the nth finding, counted from 0."
        )
    affine = affine_of(image)
    for number, block in enumerate(find_objects(labels), start=1):
        if block is None:
            continue
        low, high = voxel_edges(findings[number - 1], affine)
        if any(part.stop <= a or part.start >= b for part, a, b in zip(block, low, high, strict=True)):
            raise InputError(
                f"Label {number} of {path} lies beside the box of finding {number} of {image_path}; value n + 1 has to "
                "be the nth finding, counted from 0, in the same place."
            )
    return labels
