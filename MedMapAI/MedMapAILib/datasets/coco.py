"""COCO: a JSON file of images, annotations (boxes, polygons or run-length masks) and categories.

Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; the format: cocodataset.org/#format-data. A box is
[x, y, width, height] in pixels from the outer corner of the first pixel, x along the columns.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import InputError
from ..results import Finding, FindingMask
from .csv_list import PARTS
from .dataset import Case, Dataset, Problems, is_hidden, listed, patient_finder, stem
from .finding_geometry import FitNotes, fit_findings
from .instances import box_of_edges, cropped
from .loading import grid_of_file
from .targets import option_names, picture_channels

_KEYS = ("images", "annotations", "categories")
#: Bytes at the start of a file in which its keys are looked for before all of it is read.
_START = 1 << 16


@dataclass(frozen=True)
class _File:
    """One of the JSON files of a data set. part: which part of the split it says it is, or ""."""

    path: Path
    part: str
    content: dict[str, Any]


def open_coco(
    path: Path,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a COCO JSON file, or a folder that holds some (in it, in annotations/, or one in each of train/, valid/ …).

    Files called after train, val or test are the parts of a split. Images are found under image_folder (of options,
    from the JSON's folder), beside the JSON, in images/, or as COCO has them: annotations/instances_val2017.json goes
    with val2017/. They are pictures or volumes of one slice. An image without annotations holds no finding. Crowds
    (iscrowd) are ignored: neither found nor false alarms. The mask of a finding is its segmentation, its box the one
    that is written. A patient is what patient_pattern finds, or what an image says under "patient" or "patient_id",
    else each image. options: also annotations (the JSON file in the folder), classes (the categories that count and
    their order; others are left out). labels plays no part.

    Raises InputError that lists images that are missing, annotations of images that are not listed, and boxes that
    have no size, no category or lie outside their image.
    """
    path, options = Path(path), dict(options or {})
    problems = Problems()
    files = [_read(file) for file in _files(path, options)]
    categories = _categories(files)
    wanted = option_names(options, "classes")
    if unknown := sorted(set(wanted) - set(categories.values())):
        raise InputError(f"{path} has no categories {listed(unknown)}; it has {listed(categories.values())}.")
    names = wanted or tuple(categories[number] for number in sorted(categories))
    cases: dict[str, Case] = {}
    parts: dict[str, str] = {}
    notes = FitNotes()
    for file in files:
        for case in _cases(file, categories, names, patient_pattern, options, notes, problems):
            if case.name in cases:
                problems.add("image name(s) listed twice", case.name)
            cases[case.name] = case
            if file.part:
                parts[case.name] = file.part
    problems.raise_if_any(path, "correct the JSON file, or bring the images")
    notes.raise_if_outside(path)
    if not cases:
        raise InputError(f"{path} lists no images.")
    ordered = tuple(case for _, case in sorted(cases.items()))
    channels, more = picture_channels([case.images[0] for case in ordered], path)
    source: dict[str, Any] = {"kind": "coco"} | ({"split": parts} if len(parts) == len(cases) else {})
    if said := (*more, *notes.sentences):
        source["notes"] = said
    return Dataset(stem_of(path), ordered, {}, channels, source, findings=names)


def is_coco(path: Path) -> bool:
    """Whether a file, or one of the JSON files that a folder holds, is a COCO list."""
    return any(_looks_like(file) for file in ([path] if path.is_file() else _candidates(path)))


def stem_of(path: Path) -> str:
    """What a data set is called after: its folder, or the name of its file without ending."""
    return path.resolve().name if path.is_dir() else path.stem


def _candidates(folder: Path) -> list[Path]:
    found = [*folder.glob("*.json"), *folder.glob("annotations/*.json"), *folder.glob("*/*.coco.json")]
    return sorted(file for file in found if not is_hidden(file) and file.name != "dataset.json")


def _looks_like(file: Path) -> bool:
    try:
        if file.suffix.lower() != ".json":
            return False
        with file.open("rb") as stream:
            start = stream.read(_START)
            if not any(f'"{key}"'.encode() in start for key in _KEYS):
                return False
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _KEYS)


def _files(path: Path, options: Mapping[str, Any]) -> list[Path]:
    if path.is_file():
        return [path]
    if options.get("annotations"):
        file = path / str(options["annotations"])
        if not file.is_file():
            raise InputError(f"There is no file {file}, which dataset.annotations names.")
        return [file]
    found = [file for file in _candidates(path) if _looks_like(file)]
    if not found:
        raise InputError(f"{path} holds no COCO JSON file (with images, annotations and categories).")
    if len(found) > 1 and not all(_part(file) for file in found):
        names = listed(file.relative_to(path).as_posix() for file in found)
        raise InputError(f"{path} holds {len(found)} COCO files ({names}); name the one in dataset.annotations.")
    return found


def _part(file: Path) -> str:
    """The part of a split that a file is called after: instances_val2017.json, train/_annotations.coco.json."""
    words = "".join(c if c.isalpha() else " " for c in f"{file.parent.name} {file.stem}").casefold().split()
    return next((PARTS[word] for word in reversed(words) if word in PARTS), "")


def _read(file: Path) -> _File:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); check the path.") from None
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error}); correct it.") from None
    for key in _KEYS:
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{file} has no list of {key}; a COCO file has {', '.join(_KEYS)}.")
        for entry in entries:
            for name in ("id", "image_id", "category_id"):
                if not isinstance(entry.get(name), int | float | str | None):
                    raise InputError(f"{file} has {key} whose {name} is {entry[name]!r}; give a number.")
    ids = Counter(entry.get("id") for entry in content["images"])
    twice = [number for number, count in ids.items() if count > 1]
    if twice:
        raise InputError(f"{file} has several images with one id ({listed(map(str, twice))}); give each its own.")
    return _File(file, _part(file), content)


def _categories(files: list[_File]) -> dict[Any, str]:
    categories: dict[Any, str] = {}
    for file in files:
        for entry in file.content["categories"]:
            number, name = entry.get("id"), str(entry.get("name") or "").strip()
            if not isinstance(number, int) or not name or categories.setdefault(number, name) != name:
                raise InputError(
                    f"{file.path} has a category without a number or name, or with another name elsewhere."
                )
    if not categories or len(set(categories.values())) < len(categories):
        raise InputError(f"{files[0].path} has no categories, or two of one name; each needs a name of its own.")
    return categories


def _cases(
    file: _File,
    categories: Mapping[Any, str],
    wanted: tuple[str, ...],
    pattern: str | None,
    options: Mapping[str, Any],
    notes: FitNotes,
    problems: Problems,
) -> list[Case]:
    annotations: dict[Any, list[dict]] = {entry.get("id"): [] for entry in file.content["images"]}
    for entry in file.content["annotations"]:
        if entry.get("image_id") in annotations:
            annotations[entry.get("image_id")].append(entry)
        else:
            problems.add("annotation(s) of images that it does not list", f"annotation {entry.get('id')}")
    find_patient = patient_finder(pattern)
    folders = _image_folders(file.path, options)
    cases = []
    for entry in file.content["images"]:
        written = PurePosixPath(str(entry.get("file_name") or "").replace("\\", "/"))
        image = next((folder / written for folder in folders if (folder / written).is_file()), None)
        if image is None or not written.name:
            problems.add("missing image(s)", str(written) if written.name else f"image {entry.get('id')}")
            continue
        name = (
            stem(Path(written)) if Path(written).suffix == "" else written.with_suffix("").as_posix().replace("/", "_")
        )
        patient = find_patient(name, str(written)) if pattern else entry.get("patient") or entry.get("patient_id")
        if patient is None and pattern:
            problems.add(f"image(s) whose name does not match patient_pattern {pattern!r}", name)
        findings, ignored = _findings(
            annotations[entry.get("id")], entry, image, categories, wanted, (name, notes, problems)
        )
        cases.append(Case(name, str(patient or name), (image,), findings=findings, ignored=ignored))
    return cases


def _image_folders(file: Path, options: Mapping[str, Any]) -> list[Path]:
    if options.get("image_folder"):
        folder = file.parent / Path(str(options["image_folder"])).expanduser()
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}, which dataset.image_folder names; it counts from the JSON.")
        return [folder]
    own = file.stem.rpartition("_")[2]
    return [folder for parent in (file.parent, file.parent.parent) for folder in (
        parent, parent / "images", parent / own, parent / "images" / own
    )]  # fmt: skip


def _findings(
    entries: list[dict],
    image: dict,
    path: Path,
    categories: Mapping[Any, str],
    wanted: tuple[str, ...],
    report: tuple[str, FitNotes, Problems],
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """The findings of one image, and those of crowds."""
    name, notes, problems = report
    grid = grid_of_file(path)
    if grid is None:
        from ..image import read_volume

        volume = read_volume(path, color=True)
        grid = tuple(volume.array.shape[-3:]), volume.affine
    shape, affine = grid
    if shape[2] != 1:
        problems.add("image(s) of more than one slice", name)
        return (), ()
    told = [image.get(key) for key in ("width", "height")]
    if None not in told and told != list(shape[:2]):
        problems.add("image(s) of another size than it says", f"{name}: {shape[0]}×{shape[1]}")
        return (), ()
    findings: list[Finding] = []
    ignored: list[Finding] = []
    for entry in entries:
        what = f"annotation {entry.get('id')} of {name}"
        label = categories.get(entry.get("category_id"))
        box = _box(entry.get("bbox"))
        if label is None or box is None:
            problems.add("annotation(s) without a category that it lists, or a box of positive size", what)
            continue
        if label not in wanted:
            continue
        center, size = box_of_edges([box[0], box[1], 0], [box[0] + box[2], box[1] + box[3], 1], affine)
        finding = Finding(center, size, label, state="reference")
        values = _mask(entry.get("segmentation"), shape, what, problems)
        if values is not None and values.any():
            finding = replace(finding, mask=FindingMask(*cropped(values, affine)))
        (ignored if entry.get("iscrowd") else findings).append(finding)
    fitted = fit_findings(findings, shape, affine)
    notes.add(name, fitted)
    return fitted.findings, fit_findings(ignored, shape, affine).findings


def _box(value: Any) -> tuple[float, ...] | None:
    try:
        box = tuple(float(n) for n in value)
    except (TypeError, ValueError):
        return None
    return box if len(box) == 4 and np.isfinite(box).all() and min(box[2:]) > 0 else None


def _mask(segmentation: Any, shape: tuple[int, int, int], what: str, problems: Problems) -> np.ndarray | None:
    """The pixels of a segmentation, bool (I, J, 1); None where there is none."""
    if not segmentation:
        return None
    try:
        from pycocotools import mask
    except ImportError:
        raise InputError("The masks of COCO files are read by the Python package pycocotools: install it.") from None
    columns, rows = shape[:2]
    try:
        if isinstance(segmentation, list):
            coded = mask.merge(mask.frPyObjects(segmentation, rows, columns))
        elif isinstance(segmentation["counts"], list):
            coded = mask.frPyObjects(segmentation, rows, columns)
        else:
            counts = segmentation["counts"]
            coded = {
                "size": segmentation["size"],
                "counts": counts.encode("ascii") if isinstance(counts, str) else counts,
            }
        values = mask.decode(coded)
        if values.shape != (rows, columns):
            raise ValueError
    except Exception:  # noqa: BLE001 - pycocotools raises Exception itself, and more
        problems.add("segmentation(s) that are damaged or of another size than their image", what)
        return None
    return values.T[..., None].astype(bool)
