"""Pairs of images: what there is, and what is to be made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..image import ending_of
from ..pictures import is_picture
from .csv_list import NAME, PARTS, PATIENT, case_names, name_of
from .dataset import Case, Dataset, Problems, is_hidden, is_image_name, patient_finder
from .decathlon import located, shown
from .table import read_table

INPUTS = ("inputs", "input")
TARGETS = ("targets", "target")
#: What ``medmapai simulate --pairs`` says of the pairs that it made.
ABOUT = "about.json"


def open_pairs(
    path: Path,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a folder with ``inputs/`` and ``targets/`` where the same name is one pair, or a table of pairs.

    Images are volumes, pictures, or folders of DICOM series, not necessarily of the same format; whether both lie on
    one grid is found out when they are loaded. A target may be the truth or, for Noise2Noise, another image of the same
    object with noise of its own. In a folder from ``medmapai simulate --pairs``, about.json says which target several
    inputs have in common, and which patient it is of. A table has the columns ``input``, ``target`` and optionally
    ``patient``, ``name`` and ``split``. labels and options play no part; patient_pattern as in ``open_dataset``.
    Raises InputError that lists all inputs without target, targets without input, missing files and ambiguous names.
    """
    path = Path(path)
    return _of_table(path, patient_pattern) if path.is_file() else _of_folder(path, patient_pattern)


def is_pairs(path: Path) -> bool:
    """Whether a folder holds both folders of pairs."""
    return all(any((path / name).is_dir() for name in names) for names in (INPUTS, TARGETS))


def images_by_name(folder: Path, problems: Problems) -> dict[str, Path]:
    """Volumes, pictures, and folders (DICOM series) in a folder by their names without ending."""
    found: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        if is_hidden(entry) or not (entry.is_dir() or is_image(entry)):
            continue
        if name_of(entry) in found:
            problems.add(f"name(s) that stand for two files in {folder.name}/", name_of(entry))
        found[name_of(entry)] = entry
    return found


def is_image(path: Path) -> bool:
    """Whether the name is that of a volume or a picture, and not of a segmentation."""
    return (is_image_name(path) or is_picture(path)) and ending_of(path) != ".seg.nrrd"


def _of_folder(path: Path, patient_pattern: str | None) -> Dataset:
    problems = Problems()
    folders = [_part(path, names) for names in (INPUTS, TARGETS)]
    inputs, targets = (images_by_name(folder, problems) for folder in folders)
    if not inputs:
        raise InputError(f"{folders[0]} holds no images; put one image a case there, its target in {folders[1].name}/.")
    about = _about(path)
    find_patient = patient_finder(patient_pattern)
    cases = []
    used = set()
    for name, file in inputs.items():
        said = about.get(name, {})
        target = str(said.get("target", name))
        used.add(target)
        if target not in targets:
            problems.add("input(s) without a target", name)
            continue
        patient = find_patient(name, file.relative_to(path).as_posix())
        if patient is None:
            problems.add(f"case(s) whose name does not match patient_pattern {patient_pattern!r}", name)
        if patient_pattern is None:
            patient = str(said.get("patient", name))
        cases.append(Case(name, patient or name, (file,), target=targets[target]))
    for name in sorted(set(targets) - used):
        problems.add("target(s) without an input", name)
    problems.raise_if_any(path, f"give every image in {folders[0].name}/ one of the same name in {folders[1].name}/")
    source: dict[str, Any] = {"kind": "pairs"}
    if about:
        source["notes"] = ("The inputs were simulated from the targets.",)
    return Dataset(path.resolve().name, tuple(cases), {}, source=source, target="pairs")


def _of_table(path: Path, patient_pattern: str | None) -> Dataset:
    table = read_table(path)
    missing = [name for name in ("input", "target") if name not in table.columns]
    if missing:
        raise InputError(f"{path} has no column {' and '.join(missing)}; pairs need the columns input and target.")
    if not table.rows:
        raise InputError(f"{path} lists no pairs; write one row a pair below the header.")
    patient_column, name_column = table.first_of(PATIENT), table.first_of(NAME)
    problems = Problems()
    find_patient = patient_finder(patient_pattern)
    cases: dict[str, Case] = {}
    parts: dict[str, str] = {}
    for (line, row), name in zip(table.rows, case_names(table.rows, name_column, "input", path.parent), strict=True):
        empty = [column for column in ("input", "target") if not row[column]]
        if empty:
            problems.add(f"row(s) with nothing under {' and '.join(empty)}", f"line {line}")
            continue
        files = [located(row[column], path.parent) for column in ("input", "target")]
        for file in files:
            if not file.exists():
                problems.add("missing file(s)", shown(file, path.parent))
        patient = row[patient_column] if patient_column else find_patient(name, shown(files[0], path.parent))
        if not patient:
            what = (
                f"with nothing under {patient_column}" if patient_column else f"that do not match {patient_pattern!r}"
            )
            problems.add(f"row(s) {what}", f"line {line}")
        if name in cases:
            problems.add("name(s) given to two rows", name)
        if "split" in table.columns:
            part = PARTS.get(row["split"].lower())
            if part is None:
                problems.add("row(s) whose split is not train, validation or test", f"line {line}")
            else:
                parts[name] = part
        cases[name] = Case(name, patient or name, (files[0],), target=files[1])
    problems.raise_if_any(path, "correct the table or bring the missing files")
    source = {"kind": "pairs"} | ({"split": parts} if parts else {})
    return Dataset(path.stem, tuple(case for _, case in sorted(cases.items())), {}, source=source, target="pairs")


def _part(path: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (path / name).is_dir():
            return path / name
    raise InputError(
        f"The data set folder {path} has no folder {names[0]}/; put the {names[0]} there, one file a case."
    )


def _about(path: Path) -> dict[str, dict[str, Any]]:
    """Name of an input → what ``medmapai simulate`` wrote of it; nothing where it did not make the folder."""
    file = path / ABOUT
    if not file.is_file():
        return {}
    try:
        pairs = json.loads(file.read_text(encoding="utf-8"))["pairs"]
        return {str(name): dict(said) for name, said in pairs.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{file} does not say which images are pairs; delete it, or simulate the folder again."
        ) from None
