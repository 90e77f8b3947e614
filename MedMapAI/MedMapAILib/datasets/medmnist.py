"""MedMNIST: small images of many kinds, with their classes, in one .npz file; also of one's own in that form."""

from __future__ import annotations

import functools
import hashlib
import http.client
import os
import pickle
import re
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from monai.data import MetaTensor

from ..errors import InputError
from ..files import atomic_file
from ..image import check_finite, make_image
from ..pictures import COLORS
from . import medmnist_sets
from .dataset import Case, Dataset, listed
from .targets import kind_of_target, option_names, ordered_classes

_PREFIX = "medmnist:"
_PARTS = {"train": "train", "val": "validation", "test": "test"}
#: ITK's default place, 1 mm: as pictures have it.
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def open_medmnist(
    path: str | Path,
    *,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a file with the arrays ``train_images``, ``train_labels``, and the same for ``val`` and ``test``.

    path: the file, or "medmnist:NAME" (also with a size, as in pneumoniamnist_64), which is downloaded once. Images are
    (N, rows, columns), (N, rows, columns, 3) in color, or volumes (N, slices, rows, columns); labels (N, 1) or, where
    several classes can be true, (N, classes) of 0 and 1. The parts are the split. What the classes are called is known
    by the file's name for the sets of the collection. options: classes (names, in the order of the label values where
    the set is unknown) and target. Who the patients are is not known: each image counts as one. Raises InputError.
    """
    options = dict(options or {})
    if patient_pattern:
        raise InputError("dataset.patient_pattern is set, and a MedMNIST file names no patients; take it out.")
    if str(path).startswith(_PREFIX):
        path = downloaded(str(path).removeprefix(_PREFIX))
    path = Path(path)
    shapes = _shapes(path)
    parts = [part for part in _PARTS if f"{part}_images" in shapes]
    if not parts:
        raise InputError(
            f"{path} has no arrays train_images, val_images or test_images, as a MedMNIST file has; it has "
            f"{listed(shapes) or 'none'}."
        )
    values = {part: _labels(path, part, shapes) for part in parts}
    grids = {shapes[f"{part}_images"][1:] for part in parts}
    if len(grids) > 1:
        raise InputError(f"The parts of {path} hold images of different sizes ({listed(sorted(grids))}).")
    grid = grids.pop()
    color = len(grid) == 3 and grid[-1] == 3
    if len(grid) not in (2, 3) or 0 in grid:
        raise InputError(f"The images in {path} have the shape {grid}; they must be slices, color slices or volumes.")
    several = {array.shape[1] for array in values.values()}
    if len(several) > 1:
        raise InputError(f"The labels in {path} have {listed(sorted(several))} columns in different parts; use one.")
    known = medmnist_sets.SETS.get(_set_name(path.stem))
    classes, kind, index = _classes(path, values, known, options)
    cases = []
    split = {}
    for part, array in values.items():
        width = len(str(len(array) - 1))
        for number, row in enumerate(array.tolist()):
            name = f"{part}_{number:0{width}}"
            true = tuple(index[n] for n, flag in enumerate(row) if flag) if len(row) > 1 else (index[row[0]],)
            cases.append(Case(name, name, (path,), None, tuple(sorted(true)), f"{part}_images/{number}"))
            split[name] = _PARTS[part]
    cases.sort(key=lambda case: case.name)
    source: dict[str, Any] = {"kind": "medmnist", "split": split}
    if known is not None:
        source |= {"license": known.license}
    return Dataset(path.stem, tuple(cases), {}, COLORS if color else ("image",), source, classes, kind)


def read_member(path: Path, member: str) -> MetaTensor:
    """The image "train_images/17" of a file: (C, I, J, K), RAS affine of 1 mm. Index i runs along the columns to the
    patient's left, j down the rows, k along the slices of a volume. Raises InputError.
    """
    array = member_array(path, member)
    check_finite(array, f"{path} ({member})")
    return make_image(array, AFFINE)


def member_array(path: Path, member: str) -> np.ndarray:
    """The same as an array (C, I, J, K) of the type of the file, a view into what is kept in memory."""
    key, _, number = member.partition("/")
    images = _images(path, key)
    if not number.isdigit() or int(number) >= len(images):
        raise InputError(f"{path} has no image {member}; it has {len(images)} in {key}.")
    image = images[int(number)]
    if image.ndim == 3 and image.shape[-1] == 3:
        return image.transpose(2, 1, 0)[..., None]
    return image.T.reshape((*image.T.shape, 1)[:3])[None]


def downloaded(name: str) -> Path:
    """The file of a set of the collection, from the cache or from Zenodo, checked by its published MD5 sum.

    name: such as "pneumoniamnist", or with the length of a side "pneumoniamnist_64". Raises InputError that says which
    file to put where, when it cannot be downloaded.
    """
    name = name.strip().lower().removesuffix(".npz")
    known = medmnist_sets.SETS.get(_set_name(name))
    size = name.removeprefix(_set_name(name) or "").removeprefix("_") or "28"
    if known is None:
        raise InputError(f"MedMNIST has no set {name!r}; it has {', '.join(medmnist_sets.SETS)}.")
    if not size.isdigit() or int(size) not in known.md5:
        raise InputError(f"MedMNIST has {_set_name(name)} with sides of {listed(known.md5)} pixels, and not {size}.")
    file = f"{_set_name(name)}{'' if size == '28' else '_' + size}.npz"
    path = Path(os.environ.get("MEDMAPAI_CACHE") or Path.home() / ".medmapai" / "cache") / "medmnist" / file
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    url = f"{medmnist_sets.FILES}/{file}"
    with atomic_file(path) as temporary:
        try:
            md5 = hashlib.md5(usedforsecurity=False)
            with urllib.request.urlopen(url, timeout=30) as answer, temporary.open("wb") as target:
                while part := answer.read(1 << 20):
                    md5.update(part)
                    target.write(part)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise InputError(
                f"{url} could not be downloaded ({reason}); fetch it otherwise and put it at {path}."
            ) from None
        if md5.hexdigest() != known.md5[int(size)]:
            raise InputError(f"What came from {url} is not the published file (its MD5 sum differs); try again.")
    return path


# --------------------------------------------------------------------------------------------------------------------


def _set_name(stem: str) -> str | None:
    """The set of the collection that a file's name begins with: pneumoniamnist of pneumoniamnist_64."""
    match = re.match(r"[a-z]+mnist(3d)?(?![a-z0-9])", stem.lower())
    return match.group(0) if match else None


def _classes(
    path: Path, values: dict[str, np.ndarray], known: medmnist_sets.PublishedSet | None, options: dict[str, Any]
) -> tuple[tuple[str, ...], str, dict[int, int]]:
    """Names of the classes, kind of target, and label value (or column) → index of the class."""
    declared = option_names(options, "classes")
    columns = next(iter(values.values())).shape[1]
    found = sorted({int(v) for array in values.values() for v in np.unique(array)}) if columns == 1 else range(columns)
    if columns > 1:
        wrong = {int(v) for array in values.values() for v in np.unique(array)} - {0, 1}
        if wrong:
            raise InputError(
                f"The labels in {path} are of {columns} classes each and not all 0 or 1 ({listed(wrong)})."
            )
    if known is not None:
        published = known.classes
        if declared and set(declared) != set(published):
            raise InputError(
                f"dataset.classes ({listed(declared)}) are not the classes of {_set_name(path.stem)} "
                f"({listed(published)}); take the entry out."
            )
        if columns > 1 and columns != len(published) or columns == 1 and known.kind == "multi-label":
            raise InputError(f"The labels in {path} have {columns} columns, and the set has {len(published)} classes.")
        outside = [value for value in found if not 0 <= value < len(published)]
        if outside:
            raise InputError(
                f"The labels in {path} are {listed(outside)}; the set has {len(published)} classes, from 0."
            )
        classes = declared or published
        index = {value: classes.index(published[value]) for value in range(len(published))}
        if len(found) < 2:
            raise InputError(f"{path} has one class only ({published[found[0]]}); a classification needs at least two.")
    else:
        if declared and len(declared) < len(found):
            raise InputError(f"dataset.classes names {len(declared)} classes, and the labels in {path} {len(found)}.")
        # Names go with the values 0, 1, 2 … where the values are like that, else with those that occur.
        if declared and all(0 <= value < len(declared) for value in found):
            found = range(len(declared))
        classes = ordered_classes([str(value) for value in found] if not declared else declared, declared, path)
        index = {value: number for number, value in enumerate(found)}
    kind = kind_of_target(options.get("target") or (known.kind if known else None), classes, path, several=columns > 1)
    return classes, kind, index


def _labels(path: Path, part: str, shapes: dict[str, tuple[int, ...]]) -> np.ndarray:
    """(N, 1) or (N, classes), whole numbers."""
    key = f"{part}_labels"
    if key not in shapes:
        raise InputError(f"{path} has {part}_images and no {key}; every image needs a label.")
    labels = _array(path, key)
    count = shapes[f"{part}_images"][0]
    if labels.ndim == 1:
        labels = labels[:, None]
    if labels.ndim != 2 or len(labels) != count or not count:
        raise InputError(f"{path} has {count} {part}_images and {key} of shape {labels.shape}; one label an image.")
    if labels.dtype.kind not in "iubf":
        raise InputError(f"The labels in {path}, {key}, are not whole numbers but {labels.dtype}; number the classes.")
    if labels.dtype.kind == "f":
        wrong = ~np.isfinite(labels) | (labels != np.round(labels))
        if wrong.any():
            rows = np.flatnonzero(wrong.any(axis=1))
            raise InputError(
                f"{len(rows)} labels in {path}, {key}, are not whole numbers (the first, number {rows[0]}, is "
                f"{labels[rows[0]][wrong[rows[0]]][0]:g}); a class is a number from 0."
            )
    return labels.astype(np.int64)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The arrays of a file, from their headers alone."""
    shapes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".npy"):
                    with archive.open(name) as stream:
                        version = np.lib.format.read_magic(stream)
                        read = (
                            np.lib.format.read_array_header_1_0
                            if version == (1, 0)
                            else np.lib.format.read_array_header_2_0
                        )
                        shapes[name.removesuffix(".npy")] = read(stream)[0]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path) from error
    return shapes


def _images(path: Path, key: str) -> np.ndarray:
    try:
        about = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); bring the file back.") from None
    return _kept(path, key, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=3)  # the images of three parts
def _kept(path: Path, key: str, changed: int, size: int) -> np.ndarray:
    return _array(path, key)


def _array(path: Path, key: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            needed = archive.getinfo(f"{key}.npy").file_size
        free = psutil.virtual_memory().available
        if needed > free:
            raise InputError(
                f"{key} of {path} needs {needed / 2**30:.1f} GB of memory and {free / 2**30:.1f} GB are free; use a "
                "set of smaller images."
            )
        with np.load(path, allow_pickle=False) as file:
            array = file[key]
    except KeyError:
        raise InputError(f"{path} has no array {key}.") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError) as error:
        raise _damaged(path) from error
    except ValueError as error:
        if "pickle" in str(error):
            raise InputError(f"{key} in {path} is not an array of numbers, and is not opened.") from None
        raise _damaged(path) from error
    if array.dtype.kind not in "iubfU":
        raise InputError(f"{key} in {path} is an array of {array.dtype}, and not of numbers.")
    return array


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} cannot be read as a MedMNIST file: it is no .npz, truncated or damaged; get a whole copy."
    )
