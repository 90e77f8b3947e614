"""A table of images and their classes: one case a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .csv_list import NAME, PARTS, PATIENT, case_names, image_columns_of
from .dataset import Case, Dataset, Problems, listed, patient_finder
from .decathlon import located, shown
from .table import Table
from .targets import check_order_is_known, kind_of_target, option_names, ordered_classes, picture_channels

_IMAGE = ("file", "filename", "file_name", "path", "image_path", "picture")
#: Before the name of an auxiliary column whose logarithm is meant.
_LOGARITHM = "log:"
_TRUE = {"1", "1.0", "true", "yes", "y", "x"}
_FALSE = {"0", "0.0", "false", "no", "n"}


def open_class_list(
    path: Path, table: Table, class_column: str | None, patient_pattern: str | None, options: Mapping[str, Any]
) -> Dataset:
    """Read a table of images and classes, such as image, class (or label), and optionally patient, name and split.

    options: image_column, class_column (the name or number of the one class that is true), class_columns (one column a
    class, 1 where it is true: multi-label), patient_column, image_folder (absolute or relative to the table's folder,
    from which the paths of the images count), classes (their order), auxiliary_columns (numbers to learn beside the
    classes; "log:NAME" for their logarithm; an empty cell is not known) and target. Names of columns are found in
    capital and small letters. class_column: what the table itself shows, where options name none. Raises InputError
    that names the missing column or lists all rows and all files that are wrong.
    """
    columns = table.columns
    if not table.rows:
        raise InputError(f"{path} lists no cases; write one row a case below the header.")
    named = _column(options, "image_column", columns, path)
    first = table.first_of(_IMAGE)
    image_columns = [named] if named else image_columns_of(table) or ([first] if first else [])
    one = _column(options, "class_column", columns, path)
    many = [_existing(name, "class_columns", columns, path) for name in option_names(dict(options), "class_columns")]
    if one and many:
        raise InputError("dataset.class_column and dataset.class_columns are both set; keep the one that is meant.")
    if len(many) == 1:
        raise InputError("dataset.class_columns names one column; name it in dataset.class_column.")
    one = one or (None if many else class_column)
    if not image_columns or not (one or many):
        what = "images (dataset.image_column)" if not image_columns else "classes (dataset.class_column)"
        raise InputError(f"{path} has no column of {what}; it has {', '.join(columns.values())}: name the one.")
    auxiliary = [
        (name, _existing(name.removeprefix(_LOGARITHM), "auxiliary_columns", columns, path))
        for name in option_names(dict(options), "auxiliary_columns")
    ]
    patient_column = _column(options, "patient_column", columns, path) or table.first_of(PATIENT)
    folder = _folder(options.get("image_folder"), path)
    find_patient = patient_finder(patient_pattern)
    names = case_names(table.rows, table.first_of(NAME), image_columns[0], folder)
    problems = Problems()
    missing: list[str] = []
    cases: dict[str, Case] = {}
    texts: dict[str, tuple[str, ...]] = {}
    parts: dict[str, str] = {}
    for (line, row), name in zip(table.rows, names, strict=True):
        empty = [columns[column] for column in (*image_columns, *([one] if one else many)) if not row[column]]
        if empty:
            problems.add(f"row(s) with nothing under {' and '.join(empty)}", f"line {line}")
            continue
        images = tuple(located(row[column], folder) for column in image_columns)
        missing += [shown(image, folder) for image in images if not image.exists()]
        patient = row[patient_column] if patient_column else find_patient(name, shown(images[0], folder))
        if not patient:
            where = (
                f"under {columns[patient_column]}"
                if patient_column
                else f"that patient_pattern {patient_pattern!r} finds"
            )
            problems.add(f"row(s) with nothing {where}", f"line {line}")
        if one:
            texts[name] = (_whole(row[one]),)
        else:
            flags = {column: row[column].casefold() for column in many}
            unclear = [columns[column] for column, flag in flags.items() if flag not in _TRUE | _FALSE]
            if unclear:
                problems.add("row(s) with something else than 0 and 1 under a class", f"line {line}, {unclear[0]}")
            texts[name] = tuple(columns[column] for column, flag in flags.items() if flag in _TRUE)
        if name in cases:
            problems.add("name(s) given to two rows", name)
        if "split" in columns:
            part = PARTS.get(row["split"].lower())
            if part is None:
                problems.add("row(s) whose split is not train, validation or test", f"line {line}")
            else:
                parts[name] = part
        beside = tuple(_number(row[column], text.startswith(_LOGARITHM)) for text, column in auxiliary)
        if None in beside:
            problems.add("row(s) with something else than a number under an auxiliary column", f"line {line}")
        cases[name] = Case(name, patient or name, images, auxiliary=beside)
    if missing:  # all of them: that is the list of what to bring
        raise InputError(
            f"The data set {path} has {len(missing)} missing file(s) ({', '.join(missing)}): bring them or correct the "
            "table and dataset.image_folder."
        )
    problems.raise_if_any(path, "correct the table")
    declared = option_names(dict(options), "classes") or None
    classes = _classes(texts, declared, [columns[column] for column in many], path)
    kind = kind_of_target(options.get("target"), classes, path, several=bool(many))
    check_order_is_known(kind, classes, declared, path)
    index = {name: number for number, name in enumerate(classes)}
    channels, notes = tuple(columns[column] for column in image_columns), ()
    if len(channels) == 1:
        channels, notes = picture_channels([case.images[0] for case in cases.values()], path)
    labelled = tuple(
        replace(case, classes=tuple(sorted(index[text] for text in texts[name])))
        for name, case in sorted(cases.items())
    )
    source: dict[str, Any] = {"kind": "csv"} | ({"split": parts} if parts else {}) | ({"notes": notes} if notes else {})
    return Dataset(path.stem, labelled, {}, channels, source, classes, kind, tuple(text for text, _ in auxiliary))


def _classes(
    texts: dict[str, tuple[str, ...]], declared: tuple[str, ...] | None, many: list[str], path: Path
) -> tuple[str, ...]:
    """The classes in their order. Where the column holds numbers and names are declared, the numbers are put right."""
    if many:
        if declared and set(declared) != set(many):
            raise InputError(
                f"dataset.classes ({listed(declared)}) and dataset.class_columns ({listed(many)}) must name the same."
            )
        return declared or tuple(many)
    found = {text for (text,) in texts.values()}
    numbers = {str(number): name for number, name in enumerate(declared or ())}
    if declared and not found & set(declared) and found <= set(numbers):
        texts.update({name: (numbers[text],) for name, (text,) in texts.items()})
        return ordered_classes(set(declared), declared, path)
    return ordered_classes(found, declared, path)


def _number(text: str, logarithm: bool) -> float | None:
    """The number, or its natural logarithm; NaN for an empty text, None for one that is no (positive) number."""
    if not text:
        return math.nan
    try:
        value = float(text)
        return math.log(value) if logarithm else value if math.isfinite(value) else None
    except ValueError:
        return None


def _whole(text: str) -> str:
    """ "1" for "1.0", which is how some programs write the whole numbers of a column with gaps."""
    stem, dot, zeros = text.partition(".")
    return stem if dot and stem.isdigit() and not zeros.strip("0") else text


def _column(options: Mapping[str, Any], key: str, columns: dict[str, str], path: Path) -> str | None:
    return _existing(options[key], key, columns, path) if options.get(key) else None


def _existing(name: Any, key: str, columns: dict[str, str], path: Path) -> str:
    if str(name).strip().lower() not in columns:
        raise InputError(
            f"{path} has no column {name!r}, which dataset.{key} names; it has {', '.join(columns.values())}."
        )
    return str(name).strip().lower()


def _folder(text: Any, path: Path) -> Path:
    if not text:
        return path.parent
    folder = located(str(Path(str(text)).expanduser()), path.parent)
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder}, which dataset.image_folder names; it counts from the table's folder."
        )
    return folder
