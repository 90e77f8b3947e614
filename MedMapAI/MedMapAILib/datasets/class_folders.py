"""A folder a class: ``normal/a.png``, ``pneumonia/b.png``, also below ``train/``, ``val/`` and ``test/``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..pictures import is_picture
from .csv_list import PARTS, name_of
from .dataset import Case, Dataset, Problems, is_hidden, is_image_name, patient_finder
from .targets import check_order_is_known, kind_of_target, option_names, ordered_classes, picture_channels


def open_class_folders(
    path: Path,
    *,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a folder of folders that are named as classes, which may lie in folders of parts (train, val, test).

    In a class's folder each volume, picture or DICOM file is a case, and a folder is either a DICOM series, which is
    one case, or a patient with several images. ``patient_pattern`` is looked for in the case's name and its path; else
    a folder names a patient, and an image without one is a patient of its own. Hidden and other files are left alone.
    options: classes (their order) and target. Raises InputError that lists all that is wrong.
    """
    path = Path(path)
    options = dict(options or {})
    tops = _folders(path)
    in_parts = [folder for folder in tops if folder.name.lower() in PARTS and _folders(folder)]
    problems = Problems()
    if in_parts:
        for folder in tops:
            if folder not in in_parts:
                problems.add("folder(s) beside those of the parts", folder.name)
        places = [(PARTS[part.name.lower()], folder) for part in in_parts for folder in _folders(part)]
    else:
        places = [(None, folder) for folder in tops]
    found: list[tuple[str | None, str, str | None, Path]] = []  # part, class, patient, image
    for part, folder in places:
        images = _images(folder)
        if not images:
            problems.add("class folder(s) without images", folder.relative_to(path).as_posix())
        found += [(part, folder.name, patient, image) for patient, image in images]
    if not found:
        raise InputError(
            f"{path} holds no images in folders named as classes; put them there, as in normal/ and pneumonia/."
        )
    find_patient = patient_finder(patient_pattern)
    names = _names([image for *_, image in found], path)
    cases, split, class_of = {}, {}, {}
    for name, (part, label, patient, image) in zip(names, found, strict=True):
        if patient_pattern is not None:
            patient = find_patient(name, image.relative_to(path).as_posix())
            if patient is None:
                problems.add(f"image(s) whose name does not match patient_pattern {patient_pattern!r}", name)
        if name in cases:
            problems.add("name(s) that stand for two images", name)
        cases[name], class_of[name] = Case(name, patient or name, (image,)), label
        if part is not None:
            split[name] = part
    problems.raise_if_any(path, "correct the folders")
    declared = option_names(options, "classes") or None
    classes = ordered_classes(set(class_of.values()), declared, path)
    kind = kind_of_target(options.get("target"), classes, path)
    check_order_is_known(kind, classes, declared, path)
    channels, notes = picture_channels([image for *_, image in found], path)
    labelled = tuple(
        Case(name, case.patient, case.images, None, (classes.index(class_of[name]),))
        for name, case in sorted(cases.items())
    )
    source: dict[str, Any] = {"kind": "class-folders"}
    source |= ({"split": split} if split else {}) | ({"notes": notes} if notes else {})
    return Dataset(path.resolve().name, labelled, {}, channels, source, classes, kind)


def _folders(path: Path) -> list[Path]:
    """Folders that hold data: hidden ones and __MACOSX, which archives from there bring, do not."""
    return [p for p in _entries(path) if p.is_dir() and not p.name.startswith("__")]


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(p for p in path.iterdir() if not is_hidden(p))
    except OSError as error:
        raise InputError(f"The folder {path} cannot be read ({error.strerror}); check the path.") from None


def _images(folder: Path) -> list[tuple[str | None, Path]]:
    """The images of a class with the patient that a folder names."""
    images: list[tuple[str | None, Path]] = []
    for entry in _entries(folder):
        if entry.is_file():
            images += [(None, entry)] if _is_image(entry) else []
        elif not entry.name.startswith("__"):
            inside = [file for file in _entries(entry) if file.is_file() and _is_image(file)]
            series = inside and all(_is_dicom(file) for file in inside)
            images += [(None, entry)] if series else [(entry.name, file) for file in inside]
    return images


def _is_image(file: Path) -> bool:
    return is_picture(file) or is_image_name(file) or _is_dicom(file)


def _is_dicom(file: Path) -> bool:
    """DICOM files often have no ending; those that do are taken by it."""
    if file.suffix:
        return file.suffix.lower() in (".dcm", ".ima")
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _names(images: list[Path], root: Path) -> list[str]:
    """The names without ending; where some are there twice, the paths without, and where those are too, with it."""
    ways = (
        [name_of(image) for image in images],
        ["_".join((*image.relative_to(root).parts[:-1], name_of(image))) for image in images],
    )
    for names in ways:
        if max(Counter(names).values()) == 1:
            return names
    return ["_".join(image.relative_to(root).parts) for image in images]
