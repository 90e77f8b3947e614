"""A folder with ``images/`` and ``labels/``: the same name in both is one case."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from .dataset import Case, Dataset, Problems, is_hidden, is_image_name, label_names, patient_finder, stem
from .loading import labels_of_files

IMAGES = ("images", "image")
LABELS = ("labels", "label", "masks", "mask")
#: nnU-Net's names of several channels of a case: liver_001_0000, liver_001_0001.
_CHANNEL = re.compile(r"(.+)_(\d{4})")


def open_folder(path: Path, *, labels: Mapping[int, str] | None = None, patient_pattern: str | None = None) -> Dataset:
    """Read a folder with ``images/`` (or ``image/``) and ``labels/`` (or ``label/``, ``mask/``, ``masks/``).

    Files are volumes of any format that can be read, image and label of a case not necessarily of the same; a folder in
    ``images/`` is a DICOM series. Several channels are named as in nnU-Net: scan_0000.nii.gz, scan_0001.nii.gz with the
    label scan.nii.gz. Hidden and other files are left alone. labels: value → name; without it, what the files hold.
    Raises InputError that lists all images without label, labels without image and ambiguous names.
    """
    path = Path(path)
    images, label_folder = (_part(path, names) for names in (IMAGES, LABELS))
    problems = Problems()
    found_labels = files_by_stem(label_folder, problems)
    found_images = files_by_stem(images, problems)
    if not found_images:
        raise InputError(
            f"{images} holds no image files; put one volume a case there (.nii.gz, .nrrd, .mha or a DICOM folder)."
        )
    dataset_labels = None if labels is None else label_names(labels, "the configuration")
    cases, channels = build_cases(found_images, found_labels, path, patient_pattern, problems)
    problems.raise_if_any(
        path, f"give every image in {images.name}/ a label map of the same name in {label_folder.name}/"
    )
    if dataset_labels is None:
        dataset_labels = labels_of_files([case.label for case in cases if case.label], str(path))
    return Dataset(path.resolve().name, cases, dataset_labels, channels, {"kind": "folder"})


def build_cases(
    images: dict[str, Path], labels: dict[str, Path], root: Path, patient_pattern: str | None, problems: Problems
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Cases and channel names from images and labels by their stems; what does not fit goes into ``problems``."""
    grouped: dict[str, dict[int, Path]] = {}
    for name, file in images.items():
        match = _CHANNEL.fullmatch(name)
        if name not in labels and match and match.group(1) in labels:
            grouped.setdefault(match.group(1), {})[int(match.group(2))] = file
        else:
            grouped.setdefault(name, {})[0] = file
    find_patient = patient_finder(patient_pattern)
    channels = sorted({number for files in grouped.values() for number in files})
    cases = []
    for name, files in sorted(grouped.items()):
        if name not in labels:
            problems.add("image(s) without a label map", name)
            continue
        if sorted(files) != channels:
            problems.add(f"case(s) without all of the channels {', '.join(f'{c:04d}' for c in channels)}", name)
        patient = find_patient(name, files[min(files)].relative_to(root).as_posix())
        if patient is None:
            problems.add(f"case(s) whose name does not match patient_pattern {patient_pattern!r}", name)
        cases.append(Case(name, patient or name, tuple(files[number] for number in sorted(files)), labels[name]))
    for name in sorted(set(labels) - set(grouped)):
        problems.add("label map(s) without an image", name)
    names = ("image",) if channels == [0] else tuple(f"channel {number}" for number in channels)
    return tuple(cases), names


def files_by_stem(folder: Path, problems: Problems) -> dict[str, Path]:
    """Volume files and folders in a folder by their name without ending, hidden ones left out."""
    found: dict[str, Path] = {}
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read ({error.strerror}); check the path.") from None
    for entry in entries:
        if is_hidden(entry) or not (entry.is_dir() or is_image_name(entry)):
            continue
        if stem(entry) in found:
            problems.add(f"name(s) that stand for two files in {folder.name}/", stem(entry))
        found[stem(entry)] = entry
    return found


def _part(path: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (path / name).is_dir():
            return path / name
    raise InputError(
        f"The data set folder {path} has no folder {names[0]}/; put the {names[0]} there, one file a case."
    )
