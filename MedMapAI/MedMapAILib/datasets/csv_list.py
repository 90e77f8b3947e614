"""A table of paths: one case a row."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from .dataset import Case, Dataset, Problems, label_names, patient_finder, stem
from .decathlon import located, shown
from .loading import labels_of_files

_LABEL = ("label", "mask", "segmentation")
_PATIENT = ("patient", "patient_id", "patientid")
_NAME = ("name", "case")
_PARTS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


def open_csv(path: Path, *, labels: Mapping[int, str] | None = None, patient_pattern: str | None = None) -> Dataset:
    """Read a table with a header row and the columns ``image`` (further channels ``image2``, ``image3`` …), ``label``,
    and optionally ``patient``, ``name`` and ``split`` (train, validation or test); other columns are left alone.

    Separated by commas, semicolons or tabs; UTF-8, UTF-16 or Windows-1252. Paths are absolute or relative to the
    table's folder, with / or \\. The column ``patient`` goes before ``patient_pattern``. Raises InputError that names
    the missing column or lists all rows and files that are wrong.
    """
    path = Path(path)
    columns, rows = _table(path)
    image_columns = sorted((c for c in columns if re.fullmatch(r"image\d*", c)), key=lambda c: int(c[5:] or 1))
    label_column, patient_column, name_column = (_first(columns, names) for names in (_LABEL, _PATIENT, _NAME))
    if not image_columns or label_column is None:
        raise InputError(
            f"{path} needs a header row with the columns image and label, and has {', '.join(columns) or 'none'}; "
            "name the columns."
        )
    if not rows:
        raise InputError(f"{path} lists no cases; write one row a case below the header.")
    find_patient = patient_finder(patient_pattern)
    problems = Problems()
    names = _names(rows, name_column, image_columns[0], path.parent)
    cases: dict[str, Case] = {}
    parts: dict[str, str] = {}
    for (line, row), name in zip(rows, names, strict=True):
        missing = [column for column in (*image_columns, label_column) if not row[column]]
        if missing:
            problems.add(f"row(s) with nothing under {' and '.join(missing)}", f"line {line}")
            continue
        *images, label = (located(row[column], path.parent) for column in (*image_columns, label_column))
        for part in (*images, label):
            if not part.exists():
                problems.add("missing file(s)", shown(part, path.parent))
        if patient_column is not None:
            patient = row[patient_column]
            if not patient:
                problems.add(f"row(s) with nothing under {patient_column}", f"line {line}")
        else:
            patient = find_patient(name, shown(images[0], path.parent))
            if patient is None:
                problems.add(f"row(s) whose image does not match patient_pattern {patient_pattern!r}", f"line {line}")
        if name in cases:
            problems.add("name(s) given to two rows", name)
        if "split" in columns:
            part = _PARTS.get(row["split"].lower())
            if part is None:
                problems.add("row(s) whose split is not train, validation or test", f"line {line}")
            else:
                parts[name] = part
        cases[name] = Case(name, patient or name, tuple(images), label)
    problems.raise_if_any(path, "correct the table or bring the missing files")
    ordered = tuple(case for _, case in sorted(cases.items()))
    if labels is not None:
        values = label_names(labels, "the configuration")
    else:
        values = labels_of_files([case.label for case in ordered if case.label], str(path))
    source = {"kind": "csv"} | ({"split": parts} if parts else {})
    return Dataset(path.stem, ordered, values, tuple(image_columns), source)


def _table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names in lower case, and rows with their line numbers; empty lines are left out."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a .csv file.") from None
    text = _decoded(data, path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns: list[str] = []
    rows = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not columns:
                columns = [cell.lower() for cell in cells]
                twice = [name for name, count in Counter(filter(None, columns)).items() if count > 1]
                if twice:
                    raise InputError(f"{path} has two columns called {twice[0]!r}; rename one.")
            else:
                cells += [""] * (len(columns) - len(cells))
                rows.append((reader.line_num, dict(zip(columns, cells, strict=False))))
    except csv.Error as error:
        raise InputError(f"{path} is not a table that can be read (line {reader.line_num}: {error}).") from None
    return columns, rows


def _decoded(data: bytes, path: Path) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # what Excel calls Unicode text
        encodings = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise InputError(f"{path} is not a text file; save the table as CSV in UTF-8.")


def _first(columns: list[str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in columns), None)


def _names(
    rows: list[tuple[int, dict[str, str]]], name_column: str | None, image_column: str, folder: Path
) -> list[str]:
    """The column of names, else the stems of the first images, else, where those repeat, their whole relative paths."""
    if name_column is not None and all(row[name_column] for _, row in rows):
        return [row[name_column] for _, row in rows]
    paths = [located(row[image_column], folder) if row[image_column] else Path(f"line {line}") for line, row in rows]
    stems = [stem(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [f"{shown(path.parent, folder)}/{stem(path)}".replace("/", "_") for path in paths]
