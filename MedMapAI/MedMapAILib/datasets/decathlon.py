"""The layout of the Medical Segmentation Decathlon: a ``dataset.json`` that lists images and labels.

Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 2022. The dataset.json of nnU-Net v2, which
lists no files and turns the labels around, is read as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .dataset import Case, Dataset, Problems, is_hidden, label_names, patient_finder, stem
from .folder import build_cases, files_by_stem
from .loading import labels_of_files


def open_decathlon(
    path: Path, *, labels: Mapping[int, str] | None = None, patient_pattern: str | None = None
) -> Dataset:
    """Read the labelled cases of a ``dataset.json``; path: the file or its folder. Unlabelled test cases are left out.

    Several modalities are the frames of one 4D file (Decathlon) or files _0000, _0001, … (nnU-Net).
    Raises InputError that names the entry that is wrong, or lists all files that are missing.
    """
    path = Path(path)
    file = path / "dataset.json" if path.is_dir() else path
    content = _read(file)
    problems = Problems()
    declared = content.get("modality", content.get("channel_names", {"0": "image"}))
    channels = tuple(str(name) for _, name in _in_order(declared, file))
    if labels is not None:
        names = label_names(labels, "the configuration")
    elif "labels" in content:
        names = label_names(_mapping(content["labels"], file, "labels"), str(file))
    else:
        names = None
    if "training" in content:
        cases = _listed_cases(content["training"], file, patient_pattern, problems)
    else:
        images, maps = (files_by_stem(file.parent / part, problems) for part in ("imagesTr", "labelsTr"))
        cases, found = build_cases(images, maps, file.parent, patient_pattern, problems)
        if cases and len(found) != len(channels):
            problems.add(f"channel(s) in its files, where {file.name} declares {len(channels)}", ", ".join(found))
    problems.raise_if_any(file, "correct the list or bring the missing files")
    if not cases:
        raise InputError(f"{file} lists no training cases; it needs pairs of image and label under 'training'.")
    if names is None:
        names = labels_of_files([case.label for case in cases if case.label], str(file))
    name = str(content.get("name") or file.resolve().parent.name)
    return Dataset(name, cases, names, channels, {"kind": "decathlon"})


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); check the path.") from None
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error}); correct it.") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{file} must hold an object with 'training' and 'labels', as in the Medical Segmentation Decathlon."
        )
    return content


def _mapping(value: Any, file: Path, key: str) -> dict:
    if isinstance(value, list):
        return {str(number): name for number, name in enumerate(value)}
    if not isinstance(value, dict):
        raise InputError(f'{key!r} in {file} must be an object such as {{"0": "background"}}.')
    return value


def _in_order(value: Any, file: Path) -> list[tuple[str, Any]]:
    pairs = list(_mapping(value, file, "modality").items())
    return sorted(pairs, key=lambda pair: int(pair[0])) if all(str(key).isdigit() for key, _ in pairs) else pairs


def _listed_cases(entries: Any, file: Path, patient_pattern: str | None, problems: Problems) -> tuple[Case, ...]:
    if not isinstance(entries, list):
        raise InputError(f"'training' in {file} must be a list of pairs of image and label.")
    find_patient = patient_finder(patient_pattern)
    cases: dict[str, Case] = {}
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            problems.add("entry or entries under 'training' without an image", f"number {number}")
            continue
        image = located(entry["image"], file.parent)
        if is_hidden(image):  # macOS's resource forks got into some lists
            continue
        name = stem(image)
        if not isinstance(entry.get("label"), str):
            problems.add("case(s) without a label", name)
            continue
        label = located(entry["label"], file.parent)
        for part in (image, label):
            if not part.exists():
                problems.add("missing file(s)", shown(part, file.parent))
        patient = find_patient(name, shown(image, file.parent))
        if patient is None:
            problems.add(f"case(s) whose name does not match patient_pattern {patient_pattern!r}", name)
        if name in cases:
            problems.add("name(s) listed twice", name)
        cases[name] = Case(name, patient or name, (image,), label)
    return tuple(case for _, case in sorted(cases.items()))


def located(text: str, folder: Path) -> Path:
    """The path that a list in ``folder`` means: relative to it, with / or the backslashes of Windows."""
    path = folder / text.strip()
    return path if path.exists() or "\\" not in text else folder / text.strip().replace("\\", "/")


def shown(path: Path, folder: Path) -> str:
    """A path as the user wrote it: relative to the folder of the list where it lies there."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
