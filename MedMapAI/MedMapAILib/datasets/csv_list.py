"""A table of paths: one case a row, with its label map or its class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..pictures import is_picture
from .dataset import Case, Dataset, Problems, is_image_name, label_names, patient_finder, stem
from .decathlon import located, shown
from .loading import labels_of_files
from .table import Table, read_table

PATIENT = ("patient", "patient_id", "patientid")
NAME = ("name", "case")
_LABEL = ("label", "mask", "segmentation")
_CLASS = ("class", "classes", "target", "diagnosis")
#: What users call the parts of a split → what they are called here.
PARTS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


def open_csv(
    path: Path,
    *,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a table with a header row: of label maps, or of classes (see ``class_list.open_class_list``).

    It is one of classes where ``options`` say so, or it has a column ``class``, or a column ``label`` that names no
    files. One of label maps has the columns ``image`` (further channels ``image2``, ``image3`` …), ``label``, and
    optionally ``patient``, ``name`` and ``split`` (train, validation or test); other columns are left alone.

    Separated by commas, semicolons or tabs; UTF-8, UTF-16 or Windows-1252. Paths are absolute or relative to the
    table's folder, with / or \\. The column ``patient`` goes before ``patient_pattern``. Raises InputError that names
    the missing column or lists all rows and files that are wrong.
    """
    path = Path(path)
    table = read_table(path)
    options = dict(options or {})
    class_column = _class_column(table, path)
    if class_column is not None or {"class_column", "class_columns", "classes", "target"} & set(options):
        from .class_list import open_class_list

        return open_class_list(path, table, class_column, patient_pattern, options)
    columns, rows = table.columns, table.rows
    image_columns = image_columns_of(table)
    label_column, patient_column, name_column = (table.first_of(names) for names in (_LABEL, PATIENT, NAME))
    if not image_columns or label_column is None:
        raise InputError(
            f"{path} needs a header row with the columns image and label (or class; for findings image, x, y, z and "
            f"diameter_mm), and has {', '.join(columns) or 'none'}; name the columns."
        )
    if not rows:
        raise InputError(f"{path} lists no cases; write one row a case below the header.")
    find_patient = patient_finder(patient_pattern)
    problems = Problems()
    names = case_names(rows, name_column, image_columns[0], path.parent)
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
            part = PARTS.get(row["split"].lower())
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


def image_columns_of(table: Table) -> list[str]:
    """The columns image, image2, image3 …, in their order."""
    return sorted((c for c in table.columns if re.fullmatch(r"image\d*", c)), key=lambda c: int(c[5:] or 1))


def _class_column(table: Table, path: Path) -> str | None:
    """The column that holds classes, where the table looks like one of classes."""
    named = table.first_of(_CLASS)
    if named is not None and table.first_of(_LABEL) is None:
        return named
    texts = {row["label"] for _, row in table.rows if row["label"]} if "label" in table.columns else set()
    # A folder proves nothing: folders named as the classes often lie beside the table.
    if texts and not any(is_image_name(Path(text)) or located(text, path.parent).is_file() for text in texts):
        return "label"
    return None


def case_names(
    rows: list[tuple[int, dict[str, str]]], name_column: str | None, image_column: str, folder: Path
) -> list[str]:
    """The column of names, else the stems of the first images, else, where those repeat, their whole relative paths."""
    if name_column is not None and all(row[name_column] for _, row in rows):
        return [row[name_column] for _, row in rows]
    paths = [located(row[image_column], folder) if row[image_column] else Path(f"line {line}") for line, row in rows]
    stems = [name_of(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [f"{shown(path.parent, folder)}/{name_of(path)}".replace("/", "_") for path in paths]


def name_of(image: Path) -> str:
    """The name without its ending, also that of a picture; the name of a folder."""
    return image.stem if is_picture(image) else stem(image)
