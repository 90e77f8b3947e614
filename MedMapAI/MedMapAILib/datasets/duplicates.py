"""The same scan under two names: found by its voxels, whatever file holds them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable

import nibabel.orientations as orientations
import numpy as np

from ..errors import InputError
from ..image import read_volume
from .dataset import Case
from .loading import frame_count, raise_problems


def content_hash(case: Case) -> str:
    """SHA-256 (hexadecimal) of size and voxel values of a case's images.

    The same for the same voxels in another format, compression or number type, and in any of the 48 axis orders and
    flips with the matrix that belongs to it: axes are brought nearest to right, anterior, superior first. Position and
    spacing play no part, nor does the label map. Raises InputError where a file cannot be read.
    """
    digest = hashlib.sha256()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever loads the case says it
        for path in case.images:
            frames = frame_count(path) if len(case.images) == 1 else 1
            for frame in range(frames):
                volume = read_volume(path, frame=frame if frames > 1 else None)
                array = orientations.apply_orientation(volume.array, orientations.io_orientation(volume.affine))
                digest.update(np.asarray(array.shape, dtype="<i8").tobytes())
                # + 0 turns -0.0, which some writers make of 0, into 0.
                digest.update(np.ascontiguousarray(array, dtype="<f4") + np.float32(0))
    return digest.hexdigest()


def find_duplicates(
    cases: Iterable[Case], where: str = "the data set", progress: Callable[[float, str], None] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Groups of names of cases that have the same voxels, sorted; nothing for cases that are unlike all others.

    Raises InputError with the names of all cases that cannot be read.
    """
    groups: dict[str, list[str]] = {}
    problems: dict[str, InputError] = {}
    cases = list(cases)
    for number, case in enumerate(cases):
        if progress is not None:
            progress(number / len(cases), f"looking for duplicates, case {number + 1} of {len(cases)}")
        try:
            groups.setdefault(content_hash(case), []).append(case.name)
        except InputError as error:
            problems[case.name] = error
    raise_problems(problems, where)
    return tuple(sorted(tuple(sorted(names)) for names in groups.values() if len(names) > 1))
