"""The same scan under two names: found by its voxels, whatever file holds them."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import nibabel.orientations as orientations
import numpy as np

from ..errors import InputError
from ..image import affine_of, read_volume
from ..pictures import is_gray, is_picture
from .dataset import Case, Dataset
from .loading import frame_count, raise_problems


def content_hash(case: Case) -> str:
    """SHA-256 (hexadecimal) of size and voxel values of a case's images.

    The same for the same voxels in another format, compression or number type, and in any of the 48 axis orders and
    flips with the matrix that belongs to it: axes are brought nearest to right, anterior, superior first. A picture
    with three equal colors is the same as a gray one. Position and spacing play no part, nor does the label. Raises
    InputError where a file cannot be read.
    """
    digest = hashlib.sha256()
    if case.images[0].suffix.lower() in (".h5", ".hdf5", ".npy"):
        # A measurement, which has no axes of the patient.
        digest.update(case.images[0].read_bytes())
        return digest.hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever loads the case says it
        for array, affine in _arrays(case):
            array = orientations.apply_orientation(array, _orientation(affine.tobytes()))
            digest.update(np.asarray(array.shape, dtype="<i8").tobytes())
            # + 0 turns -0.0, which some writers make of 0, into 0.
            digest.update(np.ascontiguousarray(array, dtype="<f4") + np.float32(0))
    return digest.hexdigest()


def _arrays(case: Case) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The channels of a case, (I, J, K) each, with their matrices voxel index → RAS mm."""
    if case.member is not None:
        from .medmnist import AFFINE, member_array

        for channel in _without_copies(member_array(case.images[0], case.member)):
            yield channel, AFFINE
        return
    for path in case.images:
        frames = frame_count(path) if len(case.images) == 1 and not is_picture(path) else 1
        for frame in range(frames):
            volume = read_volume(path, frame=frame if frames > 1 else None, color=True)
            for channel in _without_copies(volume.array.reshape(-1, *volume.array.shape[-3:])):
                yield channel, affine_of(volume)


def _without_copies(channels: np.ndarray) -> np.ndarray:
    return channels[:1] if len(channels) == 3 and is_gray(channels) else channels


@functools.lru_cache(maxsize=64)  # thousands of pictures have the same
def _orientation(affine: bytes) -> np.ndarray:
    return orientations.io_orientation(np.frombuffer(affine, dtype=np.float64).reshape(4, 4))


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


def check_labels_agree(dataset: Dataset, duplicates: Iterable[tuple[str, ...]]) -> None:
    """InputError that lists the groups of equal images whose classes, or whose numbers of findings of each class,
    differ: one of the labels must be wrong.

    duplicates: groups of names of cases. Cases whose classes or findings are not known agree with all others. Where
    findings lie is not compared: equal voxels may lie in different places.
    """
    truth = {case.name: _truth(case, dataset) for case in dataset.cases}
    truth = {name: text for name, text in truth.items() if text is not None}
    conflicts = [
        " = ".join(f"{name} ({truth[name]})" for name in group if name in truth)
        for group in duplicates
        if len({truth[name] for name in group if name in truth}) > 1
    ]
    if conflicts:
        raise InputError(
            f"The data set {dataset.name} has {len(conflicts)} image(s) more than once with different labels: "
            f"{', '.join(conflicts)}; correct the labels or leave the images out."
        )


def _truth(case: Case, dataset: Dataset) -> str | None:
    """The classes of a case, or how many findings of which class it has; None where that is not known."""
    if dataset.findings:
        if case.findings is None:
            return None
        counts = Counter(finding.label for finding in case.findings)
        return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "no finding"
    if case.classes is None:
        return None
    return " and ".join(dataset.classes[number] for number in case.classes) or "none"
