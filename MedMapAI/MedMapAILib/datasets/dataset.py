"""What a data set is, whatever it was read from: cases of patients, and what their labels mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..image import READABLE, ending_of
from ..results import Finding

#: Names in one sentence before it says how many more there are.
_NAMES_IN_A_SENTENCE = 10


@dataclass(frozen=True)
class Case:
    """One scan and what is known about it.

    name: unique in its data set. patient: cases of one patient never lie in two parts of a split. images: one file
    (or DICOM folder) per channel, or one file that holds all channels as frames. label: a label map on the grid of
    the images, for segmentation. classes: indices (into ``Dataset.classes``) of the classes that are true, for
    classification; None where that is not known. auxiliary: numbers that are learned beside the classes (NaN where one
    is not known). member: which image of an archive, "train_images/17". findings, ignored, proposals: for detection, as
    in ``results.FindingReference``; findings is None where they are not known; label may hold them as a label map
    besides, value n + 1 for findings[n]. target: for reconstruction, the image that is to come out, a file; images[0]
    is then what it is made of, an image or a measurement.
    """

    name: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None = None
    classes: tuple[int, ...] | None = None
    member: str | None = None
    auxiliary: tuple[float, ...] = ()
    findings: tuple[Finding, ...] | None = None
    ignored: tuple[Finding, ...] = ()
    proposals: tuple[Finding, ...] | None = None
    target: Path | None = None

    @property
    def labelled(self) -> bool:
        """Whether it comes with an answer to learn from, or to score against."""
        return any(answer is not None for answer in (self.label, self.classes, self.findings, self.target))


#: What a data set for reconstruction holds: inputs with what they should be; true images, from which inputs are
#: simulated; images without truth, for learning from themselves; measurements, with the true image where it is known.
TARGETS = ("pairs", "clean", "self", "measurements")


@dataclass(frozen=True)
class Dataset:
    """Cases, in the order of their names.

    labels: value → name, without 0 (background), of label maps. channels: what each image channel is. source: what kind
    of data set it was read from, and what only that kind knows ("split": case name → part). classes: names, for
    classification, and kind: one of ``results.KINDS``; "" for a data set of label maps. auxiliary: names of the
    numbers that its cases have beside. findings: names of the classes of findings, for detection; empty for other data.
    target: one of TARGETS, for reconstruction; "" for other data.
    """

    name: str
    cases: tuple[Case, ...]
    labels: dict[int, str]
    channels: tuple[str, ...] = ("image",)
    source: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    kind: str = ""
    auxiliary: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    target: str = ""

    @property
    def task(self) -> str:
        """The question that it answers: "segmentation", "classification", "detection" or "reconstruction"."""
        if self.target:
            return "reconstruction"
        return "detection" if self.findings else "classification" if self.kind else "segmentation"

    @property
    def usable(self) -> tuple[Case, ...]:
        """The cases that a model can be scored on: a true image is its own answer, an image without truth has none."""
        return self.cases if self.target == "clean" else tuple(case for case in self.cases if case.labelled)

    @property
    def strata(self) -> tuple[str, ...]:
        """Names of what each part of a split should hold its share of: classes, or classes of findings."""
        return self.findings or self.classes

    def strata_of(self, case: Case) -> tuple[int, ...]:
        """Indices into ``strata`` of what a case holds, each once; none for a scan without findings."""
        if not self.findings:
            return case.classes or ()
        there = {finding.label for finding in case.findings or ()}
        return tuple(number for number, name in enumerate(self.findings) if name in there)


class Problems:
    """Everything that is wrong with a data set, so that the user is told once and not file by file."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, what: str, name: str) -> None:
        """One more ``name`` (a case, a file) of which ``what`` is true; what reads as "images without a label"."""
        self._found.setdefault(what, []).append(name)

    def raise_if_any(self, where: str | Path, advice: str) -> None:
        """InputError in one sentence, with at most ten names of each kind."""
        if self._found:
            parts = [f"{len(names)} {what} ({listed(names)})" for what, names in self._found.items()]
            raise InputError(f"The data set {where} has {'; '.join(parts)}: {advice}.")


def listed(names: Iterable[Any]) -> str:
    """ "a, b, c", or ten of them and how many more there are."""
    names = [str(name) for name in names]
    shown = ", ".join(names[:_NAMES_IN_A_SENTENCE])
    more = len(names) - _NAMES_IN_A_SENTENCE
    return f"{shown} and {more} more" if more > 0 else shown


def stem(path: Path) -> str:
    """The name without its ending, where ``.nii.gz`` and ``.seg.nrrd`` are one ending; the name of a folder."""
    return path.name[: -len(ending_of(path))] if is_image_name(path) else path.name


def is_image_name(path: Path) -> bool:
    """Whether the ending is that of a volume file."""
    return ending_of(path) in (*READABLE, ".seg.nrrd", ".dcm")


def is_hidden(path: Path) -> bool:
    """Whether it is there for an operating system and not for us: ``.DS_Store``, ``._scan.nii.gz``."""
    return path.name.startswith(".")


def label_names(labels: Mapping[Any, Any], where: str) -> dict[int, str]:
    """Labels as value → name, sorted, without background, from value → name or name → value.

    Raises InputError where a value is no whole number from 0 to 65535, or a value or name comes twice.
    """
    result: dict[int, str] = {}
    for key, value in labels.items():
        number, name = (key, value) if _is_whole(key) else (value, key)
        if isinstance(number, (list, tuple)):
            raise InputError(
                f"The label {name!r} in {where} is a region made of several values ({listed(number)}), which is not "
                "supported; give each label one value."
            )
        if not _is_whole(number) or not 0 <= int(number) <= 65535:
            raise InputError(
                f"The label {key!r}: {value!r} in {where} has no whole number from 0 to 65535 as its value."
            )
        name = str(name).strip()
        if int(number) == 0:
            continue
        if int(number) in result or name in result.values() or not name:
            raise InputError(
                f"The labels in {where} must have names, and each value and name only once; correct {key!r}."
            )
        if name.lower() == "ignore":
            raise InputError(f"The label 'ignore' in {where} is not supported; leave it out of the label maps.")
        result[int(number)] = name
    if not result:
        raise InputError(f"{where} declares no label besides background; there is nothing to find.")
    return dict(sorted(result.items()))


def _is_whole(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and re.fullmatch(r"\s*\d+\s*", value) is not None
    )


def patient_finder(pattern: str | None) -> Callable[[str, str], str | None]:
    """A function (case name, path of its image) → patient, or None where the pattern is in neither.

    pattern: a regular expression with one group, looked for in the name first; None makes each case its own patient.
    """
    if pattern is None:
        return lambda name, path: name
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"patient_pattern {pattern!r} is not a regular expression ({error}).") from None
    if expression.groups != 1:
        raise InputError(
            f"patient_pattern {pattern!r} has {expression.groups} groups; put exactly the part that names the "
            "patient in "
            r"parentheses, as in (LIDC-IDRI-\d+)."
        )

    def find(name: str, path: str) -> str | None:
        match = expression.search(name) or expression.search(path)
        return match.group(1) if match and match.group(1) else None

    return find
