"""The layout of nnDetection: instance label maps, and a JSON file a case that says of which class each instance is.

Baumgartner et al., nnDetection: A Self-configuring Method for Medical Object Detection, MICCAI 2021; the layout:
github.com/MIC-DKFZ/nnDetection, README.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..image import read_volume
from ..results import Finding
from .dataset import Case, Dataset, Problems, is_hidden
from .folder import build_cases, files_by_stem
from .instances import finding_of_mask
from .targets import option_names

#: Where the folders of images lie below the task's folder.
_ROOTS = (".", "raw_splitted", "raw_splitted_data")
_INFO = ("dataset.json", "dataset.yaml", "dataset.yml")
#: Part of the split → its folders. Label maps of test cases are optional.
_PARTS = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}


def open_nndetection(
    path: Path,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a task of nnDetection: dataset.json (or .yaml) with "labels" {"0": "nodule"} and "modalities", and imagesTr
    with case_0000.nii.gz, labelsTr with case.nii.gz and case.json {"instances": {"1": 0}}, here or in raw_splitted/.

    Findings are the instances, with their voxels: the box round them and the diameter of a ball of the same volume.
    Label maps of test cases (labelsTs) make a split; without them those cases are left out. labels: class number →
    name, instead of what the data set says; options: classes, the names in the order of their numbers, likewise.
    All label maps are read, as nothing else says where the instances are. Raises InputError that lists what is missing
    and instances without a class or without a voxel.
    """
    path = Path(path)
    path = path.parent if path.is_file() else path
    root = next((path / name for name in _ROOTS if (path / name / "labelsTr").is_dir()), None)
    if root is None:
        raise InputError(f"{path} is no task of nnDetection: it holds no labelsTr/, nor raw_splitted/labelsTr/.")
    info = _info(path, root)
    named = dict(labels or {}) or dict(enumerate(option_names(dict(options or {}), "classes"))) or info.get("labels")
    classes = _names(named, path, "labels")
    modalities = info.get("modalities", info.get("modality"))
    problems = Problems()
    cases: list[Case] = []
    parts: dict[str, str] = {}
    channels: tuple[str, ...] = ("image",)
    for part, (images, maps) in _PARTS.items():
        if not (root / maps).is_dir() or not any(not is_hidden(file) for file in (root / maps).iterdir()):
            continue
        listed_cases, channels = build_cases(
            *(files_by_stem(root / name, problems) for name in (images, maps)), root, patient_pattern, problems
        )
        for case in listed_cases:
            findings = _findings(case, classes, problems)
            cases.append(Case(case.name, case.patient, case.images, findings=findings))
            if parts.setdefault(case.name, part) != part:
                problems.add("case(s) in imagesTr and in imagesTs", case.name)
    problems.raise_if_any(path, "correct the label maps and their .json files, or bring what is missing")
    if not cases:
        raise InputError(f"{root / 'labelsTr'} holds no label maps.")
    if modalities:
        names = _names(modalities, path, "modalities")
        if len(names) != len(channels):
            raise InputError(f"{path} declares {len(names)} modalities, and its images have {len(channels)}.")
        channels = names
    source: dict[str, Any] = {"kind": "nndetection"} | ({"split": parts} if len(set(parts.values())) > 1 else {})
    name = str(info.get("name") or info.get("task") or path.resolve().name)
    return Dataset(name, tuple(sorted(cases, key=lambda case: case.name)), {}, channels, source, findings=classes)


def is_nndetection(path: Path) -> bool:
    """Whether a folder, or the one of a dataset.json, holds instance label maps with a JSON file beside each."""
    path = path.parent if path.is_file() else path
    for root in _ROOTS:
        file = next((f for f in sorted((path / root / "labelsTr").glob("*.json")) if not is_hidden(f)), None)
        if file is not None:
            return isinstance(_json(file), dict) and "instances" in _json(file)
    return False


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None


def _info(path: Path, root: Path) -> dict[str, Any]:
    file = next((folder / name for folder in (path, root) for name in _INFO if (folder / name).is_file()), None)
    if file is None:
        return {}
    try:
        if file.suffix == ".json":
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        else:
            import yaml

            content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except Exception as error:  # noqa: BLE001 - each format has errors of its own
        raise InputError(f"{file} cannot be read ({str(error).splitlines()[0]}); correct it.") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold an object with 'labels', as in nnDetection.")
    return content


def _names(numbered: Any, path: Path, key: str) -> tuple[str, ...]:
    """Names in the order of their numbers, which are 0, 1, 2 …"""
    try:
        names = {int(number): str(name).strip() for number, name in dict(numbered).items()}
    except (TypeError, ValueError):
        names = {}
    if sorted(names) != list(range(len(names))) or not all(names.values()) or len(set(names.values())) < len(names):
        names = {}
    if not names:
        raise InputError(
            f'{path} has no {key} {{"0": name, "1": name}} in dataset.json, numbered from 0 with different names; '
            "give the names in dataset.classes."
            if key == "labels"
            else f'{path} has no {key} {{"0": name}} in dataset.json, numbered from 0 with different names; correct it.'
        )
    return tuple(names[number] for number in sorted(names))


def _findings(case: Case, classes: tuple[str, ...], problems: Problems) -> tuple[Finding, ...]:
    """The instances of a case in the order of their numbers."""
    file = case.label.parent / f"{case.name}.json"
    content = _json(file)
    instances = content.get("instances") if isinstance(content, dict) else None
    try:
        numbers = {int(value): int(number) for value, number in instances.items()}
    except (AttributeError, TypeError, ValueError):
        problems.add('case(s) without a .json file of "instances"', case.name)
        return ()
    volume = read_volume(case.label)
    values = np.rint(volume.array).astype(np.int64)
    if values.min() < 0 or (volume.array != values).any():
        problems.add("label map(s) with something else than whole numbers", case.name)
        return ()
    places = ndimage.find_objects(values)
    there = {number + 1 for number, place in enumerate(places) if place is not None}
    for value in sorted(there - set(numbers)):
        problems.add("instance(s) without a class", f"{case.name}: {value}")
    for value in sorted(set(numbers) - there):
        problems.add("instance(s) without a voxel", f"{case.name}: {value}")
    findings = []
    for value in sorted(there & set(numbers)):
        if not 0 <= numbers[value] < len(classes):
            problems.add("instance(s) of a class that is not declared", f"{case.name}: {value}")
            continue
        place = places[value - 1]
        affine = volume.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [part.start for part in place]
        findings.append(finding_of_mask(values[place] == value, affine, classes[numbers[value]], state="reference"))
    return tuple(findings)
