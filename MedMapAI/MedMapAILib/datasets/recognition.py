"""What kind of data set a path is: found out from names of files, and from the first lines of some."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .box_list import TABLES
from .coco import is_coco
from .finding_rows import is_finding_table
from .folder import IMAGES, LABELS
from .lidc import is_lidc
from .luna16 import is_luna16
from .measurement_folder import MEASUREMENTS, is_measurements
from .nndetection import is_nndetection
from .pairs import is_image, is_pairs
from .table import read_table

#: What says that a table is one of classes, whatever else is in it.
_OF_CLASSES = ("class_column", "class_columns", "target")
#: What ``target`` says of images, and not of classes.
_OF_IMAGES = ("clean", "self")
_DIAGNOSES = ("diagnosis", "target", "classes")


def kind_of(path: Path, options: Mapping[str, Any]) -> str:
    """One of ``DATASETS``. options: of section [dataset]. Raises InputError where it is none."""
    found = _kind_of_reconstruction(path, options)
    if found is None:
        found = _kind_of_file(path, options) if path.is_file() else _kind_of_folder(path, options)
    if found is None:
        raise InputError(
            f"{path} is no data set that can be read; give a folder with images/ and labels/, a folder with a "
            "dataset.json (Medical Segmentation Decathlon), a folder with one folder a class, a MedMNIST .npz, or a "
            ".csv file with the columns image and label (or class); for findings the folder of LUNA16, of LIDC-IDRI or "
            "of nnDetection, a .csv file of boxes, or a COCO .json; for a reconstruction a folder with inputs/ and "
            "targets/, one with measurements/, or volumes."
        )
    return found


def _kind_of_reconstruction(path: Path, options: Mapping[str, Any]) -> str | None:
    """Which kind of data for a reconstruction; None where it may be data for another task."""
    wanted = options.get("task") == "reconstruction"
    if path.is_dir():
        if is_pairs(path):
            return "pairs"
        # Loose .npy files may be anything, unless nothing else is in the folder.
        if (path / MEASUREMENTS).is_dir() or (wanted and is_measurements(path)):
            return "measurements"
        return "volumes" if wanted else None
    if is_measurements(path):
        return "measurements"
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        if _holds_pairs(path, options):
            return "pairs"
        return "volumes" if wanted else None
    return "volumes" if is_image(path) else None


def _kind_of_file(path: Path, options: Mapping[str, Any]) -> str | None:
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv", ".txt"):
        return "box-list" if _holds_findings(path, options) else "csv"
    if ending == ".json":
        if path.name == "dataset.json" and is_nndetection(path):
            return "nndetection"
        return "coco" if is_coco(path) else "decathlon"
    return "medmnist" if ending == ".npz" else None


def _kind_of_folder(path: Path, options: Mapping[str, Any]) -> str | None:
    if is_nndetection(path):
        return "nndetection"
    if (path / "dataset.json").is_file():
        return "decathlon"
    if is_luna16(path):
        return "luna16"
    tables = (str(options["annotations"]),) if options.get("annotations") else TABLES
    if any(_holds_findings(path / name, options) for name in tables):
        return "box-list"
    images = any((path / name).is_dir() for name in IMAGES)
    if images and any((path / name).is_dir() for name in LABELS):
        return "folder"
    if is_coco(path):
        return "coco"
    if images:
        return "folder"
    if is_lidc(path):
        return "lidc"
    if any(child.is_dir() and not child.name.startswith(".") for child in path.iterdir()):
        return "class-folders"
    return "measurements" if is_measurements(path) else None


def _holds_pairs(path: Path, options: Mapping[str, Any]) -> bool:
    """Whether a table has the columns of pairs; what else is wrong with it is said by whoever reads it."""
    if any(options.get(key) for key in _OF_CLASSES if options.get(key) not in _OF_IMAGES):
        return False
    try:
        return {"input", "target"} <= set(read_table(path).columns)
    except InputError:
        return False


def _holds_findings(path: Path, options: Mapping[str, Any]) -> bool:
    """Whether there is a table of findings; what else is wrong with it is said by whoever reads it."""
    if path.suffix.lower() == ".json" or not path.is_file() or any(options.get(key) for key in _OF_CLASSES):
        return False
    try:
        table = read_table(path, comments=True)
    except InputError:
        return False
    # A table of diagnoses may say where the lesions lie, besides.
    return is_finding_table(table) and table.first_of(_DIAGNOSES) is None
