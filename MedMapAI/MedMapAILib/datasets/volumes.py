"""Images without any answer: true ones, from which a training simulates its inputs, or noisy ones without truth."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .csv_list import PATIENT, case_names, name_of
from .dataset import Case, Dataset, Problems, is_hidden, patient_finder
from .decathlon import located, shown
from .folder import IMAGES, LABELS
from .pairs import is_image
from .table import read_table

#: Where the images of a data set with further parts are.
_PARTS = (*IMAGES, "imagesTr")
#: Folders below which there are no images to take.
_LEFT_OUT = (*LABELS, "labelsTr", "labelsTs")


def open_volumes(
    path: Path,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read volumes for a reconstruction: one file or DICOM series, a folder of them, or a table with a column image.

    A folder: everything in its ``images/`` (or imagesTr/), else everything below it but segmentations and folders of
    labels; a folder that holds DICOM files is one series. A table may have the columns patient and name besides.
    options: target, "clean" (default: the images are the truth) or "self" (they are noisy, and there is no truth).
    labels plays no part; patient_pattern as in ``open_dataset``.
    Raises InputError where there is no image, or two images have one name.
    """
    path, options = Path(path), dict(options or {})
    target = options.get("target") or "clean"
    if target not in ("clean", "self"):
        raise InputError(
            f'dataset.target is {target!r}; of volumes it is "clean" (they are the truth, inputs are simulated) or '
            '"self" (they are noisy, and there is no truth).'
        )
    problems = Problems()
    patients: dict[str, str] = {}
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".txt"):
        found, patients = _of_table(path, problems)
        root = path.parent
    else:
        root = path if path.is_dir() else path.parent
        found = _named(_images(path), root)
    if not found:
        raise InputError(f"{path} holds no volumes that can be read (.nii.gz, .nrrd, .mha or DICOM series).")
    find_patient = patient_finder(patient_pattern)
    cases = []
    for name, file in sorted(found.items()):
        patient = patients.get(name) or find_patient(name, shown(file, root))
        if patient is None:
            problems.add(f"case(s) whose name does not match patient_pattern {patient_pattern!r}", name)
        cases.append(Case(name, patient or name, (file,)))
    problems.raise_if_any(path, "correct the names or bring the missing files")
    name = path.resolve().name if path.is_dir() else name_of(path)
    return Dataset(name, tuple(cases), {}, source={"kind": "volumes"}, target=target)


def _images(path: Path) -> list[Path]:
    """All images below a path: files, and folders that are DICOM series."""
    if path.is_file() or _is_series(path):
        return [path]
    top = next((path / name for name in _PARTS if (path / name).is_dir()), path)
    found: list[Path] = []
    for folder, folders, files in os.walk(top):
        if Path(folder) != top and _is_series(Path(folder)):
            found.append(Path(folder))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _LEFT_OUT)
        found += [Path(folder) / name for name in files if is_image(Path(name)) and not name.startswith(".")]
    return sorted(found)


def _is_series(path: Path) -> bool:
    """Whether a folder holds DICOM files, told from the first file that is not hidden."""
    first = next((entry for entry in sorted(path.iterdir()) if entry.is_file() and not is_hidden(entry)), None)
    if first is None:
        return False
    if first.suffix.lower() in (".dcm", ".ima"):
        return True
    try:
        with first.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _named(files: list[Path], root: Path) -> dict[str, Path]:
    """Files by their names; by their paths below the root where two have the same name."""
    names = [name_of(file) for file in files]
    if len(set(names)) < len(names):
        names = ["_".join((*file.relative_to(root).parts[:-1], name)) for file, name in zip(files, names, strict=True)]
    found: dict[str, Path] = {}
    for file, name in zip(files, names, strict=True):
        if name in found:
            raise InputError(
                f"{shown(found[name], root)} and {shown(file, root)} in {root} would be one case, {name}; rename one."
            )
        found[name] = file
    return found


def _of_table(path: Path, problems: Problems) -> tuple[dict[str, Path], dict[str, str]]:
    """Images and patients by the name of their case."""
    table = read_table(path)
    if "image" not in table.columns:
        raise InputError(f"{path} has no column image; name the column of the volumes so.")
    patient_column = table.first_of(PATIENT)
    names = case_names(table.rows, table.first_of(("name", "case")), "image", path.parent)
    found: dict[str, Path] = {}
    patients: dict[str, str] = {}
    for (line, row), name in zip(table.rows, names, strict=True):
        file = located(row["image"], path.parent)
        if not row["image"]:
            problems.add("row(s) with nothing under image", f"line {line}")
            continue
        if not file.exists():
            problems.add("missing file(s)", row["image"])
        if name in found:
            problems.add("name(s) given to two rows", name)
        found[name] = file
        if patient_column and row[patient_column]:
            patients[name] = row[patient_column]
    return found, patients
