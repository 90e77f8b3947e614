"""Data sets: where cases come from. One source a file, one line here for each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .dataset import Case, Dataset
from .recognition import kind_of

__all__ = ["DATASETS", "Case", "Dataset", "open_dataset"]

#: Name → file and function in it: (path, labels=, patient_pattern=) → Dataset; some take options= besides.
DATASETS = {
    "folder": ("folder", "open_folder"),
    "decathlon": ("decathlon", "open_decathlon"),
    "csv": ("csv_list", "open_csv"),
    "medmnist": ("medmnist", "open_medmnist"),
    "class-folders": ("class_folders", "open_class_folders"),
    "box-list": ("box_list", "open_box_list"),
    "luna16": ("luna16", "open_luna16"),
    "coco": ("coco", "open_coco"),
    "nndetection": ("nndetection", "open_nndetection"),
    "lidc": ("lidc", "open_lidc"),
    "pairs": ("pairs", "open_pairs"),
    "volumes": ("volumes", "open_volumes"),
    "measurements": ("measurement_folder", "open_measurements"),
}
_WITHOUT_OPTIONS = ("folder", "decathlon")
#: How a path begins that names a set of the MedMNIST collection, to be downloaded.
_MEDMNIST = "medmnist:"


def open_dataset(
    path: str | Path,
    kind: str | None = None,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """List the cases of a data set; no image is read, and label maps only where nothing says which labels there are.

    path: a folder with images/ and labels/, a folder with a dataset.json (or the file itself), a .csv file, a folder
    with one folder a class, a MedMNIST .npz, or "medmnist:NAME"; for findings a table of boxes or a folder with one and
    the images, the folder of LUNA16, LIDC-IDRI or nnDetection, a COCO .json. kind: one of DATASETS; None finds out.
    labels: value → name; None takes what the data set declares or holds. patient_pattern: a regular expression with one
    group that finds the patient in a case's name, such as ``(LIDC-IDRI-\\d+)``; None takes what the data set says, else
    each case for a patient of its own. options: of section [dataset] of a training configuration, for the kinds that
    have some: image_column, image_folder, class_column, class_columns, patient_column, classes, target; for findings
    annotations, excluded, seriesuids, candidates, subsets, fold, consensus, frame, proposals.
    Raises InputError that lists everything that is missing.
    """
    if str(path).startswith(_MEDMNIST):
        kind = "medmnist"
    else:
        path = Path(path).expanduser()
        if not path.exists():
            raise InputError(f"There is no data set {path}; check the path.")
    if kind is None:
        kind = kind_of(Path(path), options or {})
    elif kind not in DATASETS:
        raise InputError(f"{kind!r} is no kind of data set; there are {', '.join(DATASETS)}.")
    file, function = DATASETS[kind]
    opened = getattr(importlib.import_module(f".{file}", __package__), function)
    arguments: dict[str, Any] = {"labels": labels or None, "patient_pattern": patient_pattern or None}
    if kind not in _WITHOUT_OPTIONS:
        arguments["options"] = {key: value for key, value in (options or {}).items() if _is_set(value)}
    return opened(path, **arguments)


def _is_set(value: Any) -> bool:
    """Whether an option says something; the number 0 (a fold, a column) does."""
    return bool(value) or (value == 0 and not isinstance(value, bool))
