"""LUNA16 as it is distributed: ten folders of scans, and tables of the nodules in them.

Setio et al., Validation, comparison, and combination of algorithms for automatic detection of pulmonary nodules in
computed tomography images: the LUNA16 challenge, Medical Image Analysis 2017,
https://doi.org/10.1016/j.media.2017.06.015. Its coordinates are LPS mm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .box_list import case_in_its_scan, class_names, scan_list
from .dataset import Case, Dataset, Problems, is_hidden, listed, patient_finder
from .decathlon import located, shown
from .finding_geometry import FitNotes
from .finding_rows import FindingRow, FindingTable, find_columns
from .table import read_table
from .targets import option_names

_SUBSET = re.compile(r"subset_?(\d+)", re.IGNORECASE)
#: Subsets of the whole set, and the smallest number of scans in one: two have 88, the others 89.
_SUBSETS, _FEWEST = 10, 88
#: Where its tables are unpacked to, relative to its folder.
_PLACES = (".", "CSVFILES", "evaluationScript/annotations", "annotations", "..")


def is_luna16(path: Path) -> bool:
    """Whether a folder holds a subset of LUNA16, with scans in it."""
    return any(next(folder.rglob("*.mhd"), None) is not None for folder in _subset_folders(path).values())


def open_luna16(
    path: Path,
    *,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read the folder with ``subset0/`` … ``subset9/`` (or some of them), ``annotations.csv`` and the other tables.

    The tables lie in the folder itself, in the one above, in CSVFILES/ or in evaluationScript/annotations/. A case and
    its patient are called as the series; ``source["folds"]`` says in which subset each lies. Lesions of
    ``annotations_excluded.csv`` count neither as hits nor as misses; those without a diameter (-1) are of 10 mm, as in
    LUNA16's own evaluation. Scans of subsets that are not there are left out, with a note.

    options: annotations, excluded, seriesuids (other files, relative to the folder), subsets (numbers of those to
    take), fold (the subset that is the test part, for one round of LUNA16's ten-fold cross-validation), candidates (a
    file, or True for candidates_V2.csv or candidates.csv: boxes of 10 mm for a Fast R-CNN; proposals means the same),
    classes (another name for "nodule"). labels plays no part. No scan is read, only headers. Raises InputError that
    lists all scans that are missing, rows that are wrong, or nodules that lie outside of their scans.
    """
    path, options = Path(path), dict(options or {})
    label = (option_names(options, "classes") or ("nodule",))[0]
    subsets = _wanted_subsets(path, options)
    annotations = _file(path, options, "annotations", ("annotations.csv",))
    if annotations is None:
        raise InputError(
            f"{path} has no annotations.csv beside its subsets; bring it, or name it in dataset.annotations."
        )
    scans, fold_of = _scans(path, subsets)
    notes: list[str] = []
    uids = _file(path, options, "seriesuids", ("seriesuids.csv",))
    expected = scan_list(uids) if uids is not None else None
    rows = _rows(annotations, label)
    all_subsets = len(_subset_folders(path)) >= _SUBSETS and len(subsets) >= _SUBSETS
    _compare(path, scans, expected, rows, annotations, uids, all_subsets, notes)
    for number in sorted(subsets):
        count = sum(fold == number for fold in fold_of.values())
        if count < _FEWEST:
            notes.append(f"subset{number} has {count} scans here; LUNA16's has {_FEWEST} or {_FEWEST + 1}.")
    excluded = _file(path, options, "excluded", ("annotations_excluded.csv",))
    ignored = _rows(excluded, label, only=scans, unmeasured=True) if excluded is not None else {}
    proposals = _proposals(path, options, label, scans)
    find_patient = patient_finder(patient_pattern)
    cases, fits, problems = [], FitNotes(), Problems()
    for name in sorted(scans):
        patient = find_patient(name, shown(scans[name], path))
        if patient is None:
            problems.add(f"scan(s) that do not match patient_pattern {patient_pattern!r}", name)
        findings = tuple(row.finding("reference") for row in rows.get(name, ()))
        case = Case(
            name,
            patient or name,
            (scans[name],),
            findings=findings,
            ignored=tuple(row.finding("reference") for row in ignored.get(name, ())),
            proposals=proposals and tuple(row.finding("found") for row in proposals.get(name, ())),
        )
        cases.append(case_in_its_scan(case, fits))
    problems.raise_if_any(path, "correct the pattern")
    fits.raise_if_outside(annotations)
    folds = {name: fold_of[name] for name in sorted(scans)}
    source: dict[str, Any] = {"kind": "luna16", "folds": folds, "notes": (*notes, *fits.sentences)}
    if options.get("fold") is not None:
        source["split"] = _split(folds, options["fold"], path)
    classes = class_names([finding for case in cases for finding in case.findings], (label,), path)
    return Dataset(path.resolve().name, tuple(cases), {}, ("CT",), source, findings=classes)


def _subset_folders(path: Path) -> dict[int, Path]:
    """Number → folder of a subset."""
    try:
        folders = [entry for entry in path.iterdir() if entry.is_dir()]
    except OSError as error:
        raise InputError(f"The folder {path} cannot be read ({error.strerror}); check the path.") from None
    found = {}
    for folder in sorted(folders):
        match = _SUBSET.fullmatch(folder.name)
        if match:
            found[int(match.group(1))] = folder
    return found


def _wanted_subsets(path: Path, options: Mapping[str, Any]) -> dict[int, Path]:
    there = _subset_folders(path)
    if not there:
        raise InputError(f"{path} has no folders subset0 … subset9 of LUNA16; unpack them there.")
    wanted = options.get("subsets")
    if wanted is None or wanted == []:
        return there
    numbers = set()
    for entry in wanted if isinstance(wanted, (list, tuple)) else [wanted]:
        match = re.fullmatch(r"(?:subset_?)?(\d+)", str(entry).strip(), re.IGNORECASE)
        if not match or isinstance(entry, bool):
            raise InputError(f"dataset.subsets holds {entry!r}; it is a list of numbers of subsets, such as [0, 1].")
        numbers.add(int(match.group(1)))
    missing = sorted(numbers - set(there))
    if missing:
        raise InputError(
            f"{path} has no {listed(f'subset{number}' for number in missing)}, which dataset.subsets asks for; it has "
            f"{listed(f'subset{number}' for number in there)}."
        )
    return {number: there[number] for number in sorted(numbers)}


def _scans(path: Path, subsets: Mapping[int, Path]) -> tuple[dict[str, Path], dict[str, int]]:
    """Series → its .mhd file, and → number of its subset."""
    problems = Problems()
    scans: dict[str, Path] = {}
    fold_of: dict[str, int] = {}
    for number, folder in subsets.items():
        for file in sorted(folder.rglob("*.mhd")):
            if is_hidden(file):
                continue
            if file.stem in scans:
                problems.add("scan(s) that lie in two places", file.stem)
            data = _data_file(file)
            if data is not None and not data.is_file():
                problems.add("scan(s) whose voxels (.raw) are missing", shown(data, path))
            scans[file.stem], fold_of[file.stem] = file, number
    problems.raise_if_any(path, "unpack the subsets again")
    if not scans:
        raise InputError(f"{listed(shown(folder, path) for folder in subsets.values())} of {path} hold no .mhd files.")
    return scans, fold_of


def _data_file(header: Path) -> Path | None:
    """The file beside a .mhd header that holds its voxels; None where the header does not name one."""
    try:
        text = header.read_bytes()[:4096].decode("latin-1")
    except OSError as error:
        raise InputError(f"{header} cannot be read ({error.strerror}); check the file.") from None
    match = re.search(r"^\s*ElementDataFile\s*=\s*(.+?)\s*$", text, re.MULTILINE)
    if match is None or match.group(1).upper().startswith(("LOCAL", "LIST")) or "%" in match.group(1):
        return None
    return header.parent / match.group(1)


def _file(path: Path, options: Mapping[str, Any], key: str, names: Sequence[str]) -> Path | None:
    """The file that an option names, or the first of some names where LUNA16 keeps its tables; None where none is."""
    if options.get(key) and not isinstance(options[key], bool):
        file = located(str(Path(str(options[key])).expanduser()), path)
        if not file.is_file():
            raise InputError(f"There is no file {file}, which dataset.{key} names; it counts from {path}.")
        return file
    places = (path / place / name for name in names for place in _PLACES)
    return next((file for file in places if file.is_file()), None)


def _rows(
    file: Path, label: str, *, only: Mapping[str, Any] | None = None, **about: Any
) -> dict[str, list[FindingRow]]:
    """Series → its rows with a place, in their order. only: the series that are wanted."""
    found: dict[str, list[FindingRow]] = {}
    for row in FindingTable(read_table(file, comments=True), file, frame="LPS", label=label, **about).rows():
        if row.place and (only is None or row.image in only):
            found.setdefault(row.image, []).append(row)
    return found


def _compare(
    path: Path,
    scans: dict[str, Path],
    expected: list[str] | None,
    rows: Mapping[str, Any],
    annotations: Path,
    uids: Path | None,
    all_subsets: bool,
    notes: list[str],
) -> None:
    """Drop scans that seriesuids.csv does not list, and tell of those that are missing. Raises InputError."""
    if expected is not None:
        strangers = sorted(set(rows) - set(expected))
        if strangers:
            raise InputError(
                f"{annotations} has nodules of {len(strangers)} scan(s) that {uids} does not list "
                f"({', '.join(strangers)}); correct one of them."
            )
        extra = sorted(set(scans) - set(expected))
        for name in extra:
            del scans[name]
        if extra:
            notes.append(f"{len(extra)} scan(s) are not in {uids.name} and are left out ({listed(extra)}).")
        if not scans:
            raise InputError(f"{path} has none of the scans that {uids} lists; check that they belong together.")
    missing = [name for name in expected or sorted(rows) if name not in scans]
    if missing and all_subsets:
        raise InputError(
            f"{path} lacks {len(missing)} scan(s) that {(uids or annotations).name} lists ({', '.join(missing)}); "
            "unpack their subsets again."
        )
    if missing:
        nodules = sum(len(rows.get(name, ())) for name in missing)
        notes.append(
            f"{len(missing)} scan(s) that {(uids or annotations).name} lists, with {nodules} nodule(s), are not in the "
            f"subsets that are there or chosen, and are left out ({listed(missing)})."
        )


def _proposals(
    path: Path, options: Mapping[str, Any], label: str, scans: Mapping[str, Path]
) -> dict[str, list[FindingRow]] | None:
    """The candidates of the scans; None where none are asked for."""
    key = next((key for key in ("candidates", "proposals") if options.get(key)), None)
    if key is None:
        return None
    file = _file(path, options, key, ("candidates_V2.csv", "candidates.csv"))
    if file is None:
        raise InputError(f"{path} has neither candidates_V2.csv nor candidates.csv; bring one, or name it.")
    return _candidates(file, label, scans)


def _candidates(file: Path, label: str, scans: Mapping[str, Path]) -> dict[str, list[FindingRow]]:
    """The rows of a table of candidates, whose column class says whether one is a nodule and stays in ``about``."""
    table = read_table(file, comments=True)
    columns = find_columns(table)
    wanted = replace(
        table, rows=[entry for entry in table.rows if columns.image is None or entry[1][columns.image] in scans]
    )
    reader = FindingTable(wanted, file, frame="LPS", label=label, columns=replace(columns, label=None), sized=False)
    found: dict[str, list[FindingRow]] = {}
    for row in reader.rows():
        if row.place:
            found.setdefault(row.image, []).append(row)
    return found


def _split(folds: Mapping[str, int], fold: Any, path: Path) -> dict[str, str]:
    """Case → part, with one subset as the test part."""
    if isinstance(fold, bool) or not isinstance(fold, int) or fold not in folds.values():
        raise InputError(
            f"dataset.fold is {fold!r}; it is the number of one of the subsets of {path} "
            f"({', '.join(map(str, sorted(set(folds.values()))))})."
        )
    if set(folds.values()) == {fold}:
        raise InputError(f"dataset.fold is {fold}, the only subset there; then nothing is left to train on.")
    return {name: "test" if number == fold else "train" for name, number in folds.items()}
