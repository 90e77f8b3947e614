"""Which cases a model learns from, is watched on and is tested on: by patient, repeatable, stored."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_atomically
from .dataset import Case, Dataset, listed
from .duplicates import check_labels_agree, find_duplicates
from .folds import deal_cases

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Names of cases in each part, sorted.

    seed: what the split was drawn with. duplicates: one {"cases": names, "crossed": bool} for each group of cases with
    the same voxels; crossed says that they would lie in different parts had they not been found. notes: sentences about
    the split for the user.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()
    seed: int | None = None
    duplicates: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return json.loads(json.dumps(asdict(self)))


def make_split(
    dataset: Dataset,
    validation: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
) -> Split:
    """Draw a split.

    validation, test: share of the cases, 0 to <1. All cases of a patient, and all cases with the same voxels, go into
    the same part. The draw depends on the seed and the patients' identifiers alone: not on the order of files, the
    platform or the version of a library. Where the data set brings its own parts (column split of a table, fold of
    LUNA16), those are taken, and only a validation part that is missing is drawn from the training cases. Of cases with
    classes, or with findings of classes, each part gets its share of every class and of the scans without findings, as
    nearly as patients allow. Raises InputError where the shares are wrong, there are too few patients, a patient lies
    in two given parts, a class is missing from training, or the same image has different labels.
    """
    _check_fractions(validation, test)
    if not dataset.cases:
        raise InputError(f"The data set {dataset.name} has no cases to split.")
    duplicates = find_duplicates(dataset.cases, dataset.name, progress)
    check_labels_agree(dataset, duplicates)
    classes = {case.name: dataset.strata_of(case) for case in dataset.cases} if dataset.strata else None
    given: dict[str, str] = dataset.source.get("split", {})
    alone = {case.name: case.patient for case in dataset.cases}
    together = merged_patients(alone, duplicates)
    if given:
        _check_patients(dataset.cases, given, "the column split")
        parts = _given_parts(given, together, classes, validation, seed, dataset.name)
        before = given
    else:
        parts = _parts(together, classes, validation, test, seed, dataset.name)
        before = parts if together == alone else _parts(alone, classes, validation, test, seed, dataset.name)
    groups = tuple(
        {"cases": list(group), "crossed": len({before.get(name, "train") for name in group}) > 1}
        for group in duplicates
    )
    notes = []
    if groups:
        crossed = [group for group in groups if group["crossed"]]
        notes.append(
            f"{len(groups)} group(s) of cases have the same voxels "
            f"({listed(' = '.join(g['cases']) for g in groups)}); each is kept in one part as one patient, "
            f"{len(crossed)} of them would have lain in two parts."
        )
    split = Split(*(_names(parts, part) for part in PARTS), seed=seed, duplicates=groups, notes=tuple(notes))
    return _with_classes_checked(split, dataset)


def write_split(split: Split, path: str | Path) -> None:
    """Write a split as JSON, whole or not at all. Raises as ``files.atomic_file``."""
    write_atomically(path, (json.dumps(split.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())


def read_split(path: str | Path, dataset: Dataset) -> Split:
    """Read a split of a data set from JSON.

    Cases of the data set that it does not name are in no part; a note says so. Raises InputError where it is not a
    split, names cases that are not there, names one twice, or puts a patient into two parts.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"The split {path} cannot be read ({error.strerror}); check the path.") from None
    except ValueError as error:
        raise InputError(f"The split {path} is not valid JSON ({error}); correct it.") from None
    if not isinstance(content, dict) or not {"train", "validation"} <= set(content):
        raise InputError(f"The split {path} must hold lists of case names under train and validation (and test).")
    named: dict[str, str] = {}
    for part in PARTS:
        names = content.get(part, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{part!r} in the split {path} must be a list of case names.")
        twice = sorted(name for name in names if name in named) + [n for n in sorted(set(names)) if names.count(n) > 1]
        if twice:
            raise InputError(f"The split {path} names cases twice ({listed(twice)}); put each into one part.")
        named |= dict.fromkeys(names, part)
    if not content["train"]:
        raise InputError(f"The split {path} has no training cases; name some under train.")
    known = {case.name for case in dataset.cases}
    gone = sorted(set(named) - known)
    if gone:
        raise InputError(
            f"The split {path} names {len(gone)} case(s) that the data set {dataset.name} does not have "
            f"({listed(gone)}); bring them back or make a new split."
        )
    _check_patients(dataset.cases, named, f"the split {path}")
    left_out = sorted(known - set(named))
    notes = [note for note in content.get("notes", []) if isinstance(note, str) and not note.endswith(_NOTED_AGAIN)]
    if left_out:
        notes.append(f"{len(left_out)} case(s) ({listed(left_out)}) {_IN_NO_PART}")
    duplicates = content.get("duplicates", [])
    split = Split(
        *(tuple(sorted(content.get(part, []))) for part in PARTS),
        seed=content.get("seed"),
        duplicates=tuple(duplicates) if isinstance(duplicates, list) else (),
        notes=tuple(notes),
    )
    return _with_classes_checked(split, dataset)


_IN_NO_PART = "are in no part of the stored split and are not used."
_WITHOUT_CLASS = "so nothing is said about it there."
_NOTED_AGAIN = (_IN_NO_PART, _WITHOUT_CLASS)


def with_duplicates(split: Split, dataset: Dataset) -> Split:
    """A split that a person made, with the groups of cases of the same voxels found and those across parts noted."""
    part_of = {name: part for part in PARTS for name in getattr(split, part)}
    found = find_duplicates([case for case in dataset.cases if case.name in part_of], dataset.name)
    check_labels_agree(dataset, found)
    groups = tuple({"cases": list(group), "crossed": len({part_of[name] for name in group}) > 1} for group in found)
    crossed = [" = ".join(group["cases"]) for group in groups if group["crossed"]]
    notes = split.notes
    if crossed:
        notes = (
            *notes,
            f"The given split has the same voxels in several parts ({listed(crossed)}); its scores are too good.",
        )
    return replace(split, duplicates=groups, notes=notes)


def _with_classes_checked(split: Split, dataset: Dataset) -> Split:
    """The split with a note on each class that a part lacks. InputError where training lacks one, or there is only one
    in it.
    """
    if not dataset.strata:
        return split
    classes = {case.name: dataset.strata_of(case) for case in dataset.cases}
    # A class of findings can be declared that the data at hand do not hold.
    anywhere = {number for own in classes.values() for number in own} if dataset.findings else set()
    notes = list(split.notes)
    for part in PARTS:
        names = getattr(split, part)
        there = {number for name in names for number in classes[name]}
        missing = [name for number, name in enumerate(dataset.strata) if number not in there]
        nowhere = bool(anywhere) and not {dataset.strata.index(name) for name in missing} & anywhere
        if part == "train" and missing and not nowhere:
            raise InputError(
                f"The training part of {dataset.name} has no case of {listed(missing)}; add some, move some there, or "
                "leave the class out."
            )
        what = "finding" if dataset.findings else "case"
        notes += [f"The {part} part has no {what} of {name}, {_WITHOUT_CLASS}" for name in missing if names]
    return replace(split, notes=tuple(notes))


def _check_fractions(validation: float, test: float) -> None:
    for name, value in (("validation", validation), ("test", test)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise InputError(f"split.{name} is {value!r}; it is a share of the cases, a number from 0 to less than 1.")
    if validation + test >= 1:
        raise InputError(
            f"split.validation and split.test are {validation:g} and {test:g}, which leaves nothing to train on; "
            "their sum must be less than 1."
        )


def _check_patients(cases: Iterable[Case], parts: dict[str, str], where: str) -> None:
    of_patient: dict[str, set[str]] = {}
    for case in cases:
        if case.name in parts:
            of_patient.setdefault(case.patient, set()).add(parts[case.name])
    divided = sorted(patient for patient, found in of_patient.items() if len(found) > 1)
    if divided:
        raise InputError(
            f"{len(divided)} patient(s) have cases in more than one part of {where} ({listed(divided)}); put all "
            "cases of a patient into the same part."
        )


def merged_patients(patients: dict[str, str], duplicates: Iterable[Iterable[str]]) -> dict[str, str]:
    """Case → patient, with the patients of each group of equal cases made one (the first of them by name)."""
    parent = {patient: patient for patient in patients.values()}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            patient = parent[patient]
        return patient

    for group in duplicates:
        roots = sorted({root(patients[name]) for name in group})
        for other in roots[1:]:
            parent[other] = roots[0]
    return {name: root(patient) for name, patient in patients.items()}


def _drawn_parts(patients: dict[str, str], validation: float, test: float, seed: int, where: str) -> dict[str, str]:
    """Case → part. Patients come in the order of a hash of seed and identifier; test is filled first, then
    validation.
    """
    cases_of = _cases_of(patients)
    needed = _check_enough(len(cases_of), validation, test, where)
    order = _by_lot(cases_of, seed)
    parts: dict[str, str] = {}
    for part, share in (("test", test), ("validation", validation)):
        # Halves up, as people round; Python's own round() takes 2.5 to 2.
        wanted = max(1, math.floor(share * len(patients) + 0.5)) if share > 0 else 0
        needed -= share > 0
        taken = 0
        while taken < wanted and len(order) > needed:
            names = cases_of[order[0]]
            # A patient with many cases goes in only if that brings the part nearer to its size.
            if taken and taken + len(names) - wanted > wanted - taken:
                break
            parts |= dict.fromkeys(names, part)
            taken += len(names)
            order.pop(0)
    for patient in order:
        parts |= dict.fromkeys(cases_of[patient], "train")
    return parts


def _stratified_parts(
    patients: dict[str, str],
    classes: dict[str, tuple[int, ...]],
    validation: float,
    test: float,
    seed: int,
    where: str,
) -> dict[str, str]:
    """Case → part, with the same share of every class in each; training goes without no class that there is."""
    cases_of = _cases_of(patients)
    _check_enough(len(cases_of), validation, test, where)
    # Who needs no part gets none; the draw must not depend on parts of share 0.
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    wanted = [part for part in PARTS if shares[part] > 0]
    dealt = deal_cases(patients, classes, [shares[part] for part in wanted], seed)
    part_of = {patients[name]: part for part, names in zip(wanted, dealt, strict=True) for name in names}
    order = _by_lot(cases_of, seed)
    has = {patient: {number for name in names for number in classes[name]} for patient, names in cases_of.items()}
    training = Counter(number for patient in order if part_of[patient] == "train" for number in has[patient])
    for patient in order:
        if any(not training[number] for number in has[patient]):
            part_of[patient] = "train"
            training.update(has[patient])
    for part in wanted[1:]:
        if part in part_of.values():
            continue
        # Small classes may all have gone into training: of those that are there twice one is taken.
        spare = [p for p in order if part_of[p] == "train" and all(training[number] > 1 for number in has[p])]
        if not spare:
            raise InputError(
                f"The data set {where} has too few patients of each class for a {part} part beside a training part "
                "that holds all classes; add patients, or set the share of the part to 0."
            )
        part_of[spare[0]] = part
        training.subtract(has[spare[0]])
    return {name: part_of[patient] for name, patient in patients.items()}


def _parts(
    patients: dict[str, str],
    classes: dict[str, tuple[int, ...]] | None,
    validation: float,
    test: float,
    seed: int,
    where: str,
) -> dict[str, str]:
    if classes is None:
        return _drawn_parts(patients, validation, test, seed, where)
    return _stratified_parts(patients, classes, validation, test, seed, where)


def _cases_of(patients: dict[str, str]) -> dict[str, list[str]]:
    cases_of: dict[str, list[str]] = {}
    for name, patient in sorted(patients.items()):
        cases_of.setdefault(patient, []).append(name)
    return cases_of


def _check_enough(patients: int, validation: float, test: float, where: str) -> int:
    """How many patients the parts need at least; InputError where there are fewer."""
    needed = 1 + (validation > 0) + (test > 0)
    if patients < needed:
        asked = " and ".join(part for part, share in (("a validation", validation), ("a test", test)) if share > 0)
        raise InputError(
            f"The data set {where} has {patients} patient(s), too few for a training and {asked} part without a "
            f"patient in two of them; at least {needed} are needed: add patients, or set the share of a part to 0."
        )
    return needed


def _by_lot(patients: Iterable[str], seed: int) -> list[str]:
    return sorted(patients, key=lambda patient: (_hash(seed, patient), patient))


def _given_parts(
    given: dict[str, str],
    patients: dict[str, str],
    classes: dict[str, tuple[int, ...]] | None,
    validation: float,
    seed: int,
    where: str,
) -> dict[str, str]:
    """The parts that the data set brings, with equal cases in the most protected of theirs."""
    strongest: dict[str, str] = {}
    for name, patient in patients.items():
        strongest[patient] = max(strongest.get(patient, "train"), given[name], key=PARTS.index)
    parts = {name: strongest[patient] for name, patient in patients.items()}
    training = {name: patient for name, patient in patients.items() if parts[name] == "train"}
    if not training:
        raise InputError(f"The column split of {where} leaves no training cases; mark some rows as train.")
    if "validation" not in given.values() and validation > 0:
        parts |= _parts(training, classes, validation, 0.0, seed, where)
    return parts


def _hash(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{int(seed)}:{patient}".encode()).hexdigest()


def _names(parts: dict[str, str], part: str) -> tuple[str, ...]:
    return tuple(sorted(name for name, own in parts.items() if own == part))
