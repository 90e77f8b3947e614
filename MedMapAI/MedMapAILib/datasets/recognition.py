"""What kind of data set a path is: found out from names of files, and from the first lines of some."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .finding_rows import is_finding_table
from .folder import IMAGES, LABELS
from .table import read_table

#: What says that a table is one of classes, whatever else is in it.
_OF_CLASSES = ("class_column", "class_columns", "target")
_TABLES = (".csv", ".tsv", ".txt")
#: Entries of a folder that are looked at for a reading of LIDC-IDRI, which lies three folders below.
_LOOKED_AT = 2000


def kind_of(path: Path, options: Mapping[str, Any]) -> str:
    """One of ``DATASETS``. options: of section [dataset]. Raises InputError where it is none."""
    found = _kind_of_file(path, options) if path.is_file() else _kind_of_folder(path, options)
    if found is None:
        raise InputError(
            f"{path} is no data set that can be read; give a folder with images/ and labels/, a folder with a "
            "dataset.json (Medical Segmentation Decathlon), a folder with one folder a class, a MedMNIST .npz, or a "
            ".csv file with the columns image and label (or class); for findings LUNA16's folder, a table of boxes, a "
            "COCO .json, or LIDC-IDRI."
        )
    return found


def _kind_of_file(path: Path, options: Mapping[str, Any]) -> str | None:
    ending = path.suffix.lower()
    if ending in _TABLES:
        return "box-list" if _holds_findings(path, options) else "csv"
    if ending == ".json":
        content = _json(path)
        return "coco" if _is_coco(content) else "nndetection" if _is_nndetection(content, path) else "decathlon"
    return "medmnist" if ending == ".npz" else None


def _kind_of_folder(path: Path, options: Mapping[str, Any]) -> str | None:
    from .box_list import TABLES
    from .coco import is_coco
    from .lidc import is_lidc
    from .luna16 import is_luna16
    from .nndetection import is_nndetection

    if is_nndetection(path):
        return "nndetection"
    if (path / "dataset.json").is_file():
        return "decathlon"
    if is_luna16(path):
        return "luna16"
    tables = [path / str(options["annotations"])] if options.get("annotations") else [path / name for name in TABLES]
    if any(table.is_file() and _holds_findings(table, options) for table in tables):
        return "box-list"
    if any((path / name).is_dir() for name in IMAGES):
        # A folder of images alone may have its truth in a COCO file beside.
        coco = [] if any((path / name).is_dir() for name in LABELS) else [*path.glob("*.json")]
        return "coco" if any(_is_coco(_json(file)) for file in coco) else "folder"
    if _holds_lidc(path):
        return "lidc"
    if any(child.is_dir() and not child.name.startswith(".") for child in path.iterdir()):
        return "class-folders"
    return None


def _holds_findings(path: Path, options: Mapping[str, Any]) -> bool:
    """Whether a table is one of findings; what is wrong with it is said by whoever reads it."""
    if any(options.get(key) for key in _OF_CLASSES):
        return False
    try:
        table = read_table(path, comments=True)
    except InputError:
        return False
    # A table with a column of diagnoses has coordinates beside, and is one of classes.
    return is_finding_table(table) and table.first_of(("diagnosis", "target", "classes")) is None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))


def _is_nndetection(content: Any, path: Path) -> bool:
    """Whether it says which label is searched, or keeps one .json beside each label map."""
    if not isinstance(content, dict):
        return False
    folder = path.parent
    return "target_class" in content or any(
        next((folder / name).glob("*.json"), None) is not None for name in ("labelsTr", "raw_splitted/labelsTr")
    )


def _holds_lidc(path: Path) -> bool:
    for number, file in enumerate(_files(path)):
        if number >= _LOOKED_AT:
            return False
        if file.suffix.lower() == ".xml":
            try:
                with file.open("rb") as stream:
                    if re.search(rb"<(Lidc|Ide?ri)ReadMessage", stream.read(4096), re.IGNORECASE):
                        return True
            except OSError:
                continue
    return False


def _files(path: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        folders.sort()
        # One patient's slices say no more than the first of them.
        for name in sorted(files, key=lambda name: (not name.lower().endswith(".xml"), name))[:3]:
            yield Path(folder) / name
