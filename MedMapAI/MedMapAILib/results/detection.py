"""Detection: where is it, how sure is the model, and how large is it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..image import check_affine

#: Where a finding comes from: of a model; of a model, looked at by a reader; of a reader.
STATES = ("found", "accepted", "rejected", "corrected", "added", "reference")


@dataclass(frozen=True)
class FindingClasses:
    """What there is to find. names: of the classes of findings, in their order, such as ("nodule",)."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names) or not all(self.names):
            raise InputError(f"A detection needs at least one class of findings, of different names, not {self.names}.")


@dataclass(frozen=True, eq=False)
class FindingMask:
    """The voxels of a finding. values: bool (i, j, k). affine: 4x4, voxel index of values → RAS mm."""

    values: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=bool)
        if values.ndim != 3:
            raise ValueError(f"the mask of a finding is (i, j, k), not of shape {values.shape}")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "affine", check_affine(self.affine, "The mask of a finding"))

    @property
    def volume_ml(self) -> float:
        """mL."""
        return float(self.values.sum() * abs(np.linalg.det(self.affine[:3, :3])) / 1000)


@dataclass(frozen=True)
class Finding:
    """One finding: a box along the patient's axes, as large as what it holds.

    center: of the box, RAS mm. size: its three sides, mm (right, anterior, superior). label: name of its class. score:
    0 to 1; None where a person, not a model, says so. state: one of STATES. measured_diameter_mm: where somebody
    measured it; else ``diameter_mm`` follows from the box. mask: its voxels, where they are known. synthetic: whether
    it was put into the scan, and is not the patient's. about: what else is known (ratings of readers, for example), as
    JSON takes it.
    """

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    label: str
    score: float | None = None
    state: str = "found"
    measured_diameter_mm: float | None = None
    mask: FindingMask | None = None
    synthetic: bool = False
    about: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        center, size = (tuple(float(x) for x in part) for part in (self.center, self.size))
        if len(center) != 3 or len(size) != 3 or not all(map(math.isfinite, center + size)):
            raise ValueError(f"a finding has a center and a size of three finite numbers, not {center} and {size}")
        if min(size) <= 0:
            raise ValueError(f"the sides of a finding are longer than 0 mm, not {size}")
        if self.score is not None and not -1e-6 <= self.score <= 1 + 1e-6:
            raise ValueError(f"the score of a finding lies between 0 and 1, not {self.score}")
        if self.state not in STATES:
            raise ValueError(f"{self.state!r} is none of {', '.join(STATES)}")
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "size", size)

    @property
    def diameter_mm(self) -> float:
        """As measured, or the geometric mean of the sides of the box: the diameter of a sphere where it is a cube."""
        if self.measured_diameter_mm is not None:
            return float(self.measured_diameter_mm)
        return float(np.prod(self.size) ** (1 / 3))

    @property
    def volume_ml(self) -> float:
        """Of the mask; without one, of the ellipsoid in the box (π/6 of the product of its sides), mL."""
        return self.mask.volume_ml if self.mask is not None else math.pi / 6 * float(np.prod(self.size)) / 1000

    @property
    def bounds(self) -> tuple[float, float, float, float, float, float]:
        """Lowest right, anterior, superior, and then the highest, RAS mm."""
        half = [side / 2 for side in self.size]
        low = tuple(c - h for c, h in zip(self.center, half, strict=True))
        return (*low, *(c + h for c, h in zip(self.center, half, strict=True)))


def finding_of_sphere(center: Sequence[float], diameter_mm: float, label: str, **about: Any) -> Finding:
    """A finding known by its center (RAS mm) and diameter (mm) alone, as in LUNA16."""
    return Finding(tuple(center), (diameter_mm,) * 3, label, measured_diameter_mm=diameter_mm, **about)


@dataclass(frozen=True)
class FindingReference:
    """What a scan really holds.

    classes: all there are. findings: with state "reference". ignored: findings that count neither as hits nor as false
    alarms (seen by a minority of readers). instances: label map of the findings on the image's grid, (I, J, K) of
    integers, where value n + 1 is ``findings[n]`` and 0 none of them; or None where only boxes are known. proposals:
    boxes from outside that a Fast R-CNN chooses among, or None.
    """

    classes: tuple[str, ...]
    findings: tuple[Finding, ...]
    ignored: tuple[Finding, ...] = ()
    instances: np.ndarray | None = None
    proposals: tuple[Finding, ...] | None = None


@dataclass(frozen=True)
class Detections:
    """What a model found in a scan.

    classes: what there is to find. findings: all candidates, by falling score. threshold: the operating point; what
    scores at least that much is called. notes: sentences that the user should read with the result.
    """

    classes: tuple[str, ...]
    findings: tuple[Finding, ...]
    threshold: float
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ordered = sorted(self.findings, key=lambda finding: -1 if finding.score is None else -finding.score)
        object.__setattr__(self, "findings", tuple(ordered))

    @property
    def called(self) -> tuple[Finding, ...]:
        """The findings at the operating point, without those that a reader rejected; what a reader says has no score
        and is called."""
        return tuple(
            finding
            for finding in self.findings
            if finding.state != "rejected"
            and (finding.state in ("accepted", "corrected", "added") or (finding.score or 0.0) >= self.threshold)
        )

    def at(self, threshold: float) -> Detections:
        """The same at another operating point."""
        return replace(self, threshold=float(threshold))

    @property
    def sentence(self) -> str:
        """What was called, in one line."""
        called = self.called
        if not called:
            return f"No finding reaches the operating point of {self.threshold:.2f}."
        first = called[0]
        score = "" if first.score is None else f", score {first.score:.2f}"
        return (
            f"{len(called)} finding{'s' if len(called) > 1 else ''}; the first is a {first.label} of "
            f"{first.diameter_mm:.1f} mm{score}."
        )


def diameter_in_slice(size: Sequence[float], shape: Sequence[int], affine: np.ndarray) -> float | None:
    """The geometric mean of the sides of a box within the slice, mm, where the image is a single one; else None.

    size: mm, along the patient's axes. shape: (I, J, K) of the image. affine: 4x4, voxel index → RAS mm. Of a picture
    the third side is the thickness of the slice, which says nothing about how large a finding is.
    """
    flat = [axis for axis, count in enumerate(shape) if count == 1]
    if len(flat) != 1:
        return None
    across = int(np.argmax(np.abs(np.asarray(affine)[:3, flat[0]])))
    return math.sqrt(math.prod(side for axis, side in enumerate(size) if axis != across))


def unknown_labels(findings: Iterable[Finding], classes: Sequence[str]) -> list[str]:
    """Names of classes that findings have and that are not among ``classes``."""
    return sorted({finding.label for finding in findings} - set(classes))
