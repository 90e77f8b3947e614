"""Data sets: where cases come from. One source a file, one line here for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from .csv_list import open_csv
from .dataset import Case, Dataset
from .decathlon import open_decathlon
from .folder import IMAGES, open_folder

__all__ = ["DATASETS", "Case", "Dataset", "open_dataset"]

#: Name → function (path, labels=, patient_pattern=) → Dataset.
DATASETS = {"folder": open_folder, "decathlon": open_decathlon, "csv": open_csv}


def open_dataset(
    path: str | Path,
    kind: str | None = None,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
) -> Dataset:
    """List the cases of a data set; no image is read, and label maps only where nothing says which labels there are.

    path: a folder with images/ and labels/, a folder with a dataset.json (or the file itself), or a .csv file. kind:
    one of DATASETS; None finds out. labels: value → name; None takes what the data set declares or holds.
    patient_pattern: a regular expression with one group that finds the patient in a case's name, such as
    ``(LIDC-IDRI-\\d+)``; None takes what the data set says, else each case for a patient of its own.
    Raises InputError that lists everything that is missing.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"There is no data set {path}; check the path.")
    if kind is None:
        kind = _kind_of(path)
    elif kind not in DATASETS:
        raise InputError(f"{kind!r} is no kind of data set; there are {', '.join(DATASETS)}.")
    return DATASETS[kind](path, labels=labels or None, patient_pattern=patient_pattern or None)


def _kind_of(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            return "csv"
        if path.suffix.lower() == ".json":
            return "decathlon"
    elif (path / "dataset.json").is_file():
        return "decathlon"
    elif any((path / name).is_dir() for name in IMAGES):
        return "folder"
    raise InputError(
        f"{path} is no data set that can be read; give a folder with images/ and labels/, a folder with a "
        "dataset.json (Medical Segmentation Decathlon), or a .csv file with the columns image and label."
    )
