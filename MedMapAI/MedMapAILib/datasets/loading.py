"""Cases into memory: image, label, and whether the two fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from monai.data import MetaTensor

from ..errors import InputError
from ..image import (
    affine_of,
    affine_of_itk,
    check_affine,
    check_not_constant,
    check_same_geometry,
    ending_of,
    image_in_voxel_order,
    make_image,
    quiet_itk,
    read_image,
)
from ..pictures import can_be_color, with_channels
from ..results import (
    ClassReference,
    FindingReference,
    ImageReference,
    Segment,
    Segmentation,
    color_of,
    read_segmentation,
)
from .dataset import Case, Dataset, listed

if TYPE_CHECKING:
    from ..measurements.measured import Measurement

Reference = Segmentation | ClassReference | FindingReference | ImageReference


def load_case(case: Case, dataset: Dataset) -> tuple[MetaTensor, Reference | None]:
    """Read one case.

    Returns the image (C, I, J, K), RAS affine, values as acquired, one channel for each of ``dataset.channels``; and
    the label map on the same grid with the segments of ``dataset.labels``, or the classes that are true, or the
    findings, or the image that it should be; None where the case has no label. Of a data set of measurements the image
    is a Measurement.
    Raises InputError where a file cannot be read or is constant, channels and label are not on one grid, the number of
    channels is not that of the data set, a label value is not declared, or a finding lies outside of the image.
    """
    if dataset.target == "measurements":
        return _load_measurement(case)
    image = read_case_image(case, len(dataset.channels))
    for number, channel in enumerate(image):
        check_not_constant(channel, case.images[number % len(case.images)])
    if dataset.target == "clean":
        return image, ImageReference(image.numpy()[0], affine_of(image))
    if dataset.target:
        return image, None if case.target is None else _target(case, image)
    if dataset.kind:
        known = case.classes is not None
        return image, ClassReference(dataset.classes, dataset.kind, case.classes, case.auxiliary) if known else None
    if dataset.findings:
        from .finding_reference import finding_reference

        return image, finding_reference(case, dataset, image)
    if case.label is None:
        return image, None
    segments = [Segment(value, name, color_of(value)) for value, name in dataset.labels.items()]
    reference = read_segmentation(case.label, segments).in_voxel_order(affine_of(image))
    check_same_geometry(image, reference, f"The image {case.images[0]}", f"its label map {case.label}")
    return image, reference


def _target(case: Case, image: MetaTensor) -> ImageReference:
    """What an image should become, on its grid. Raises InputError where it lies elsewhere or is constant."""
    target = image_in_voxel_order(read_image(case.target), affine_of(image))
    check_not_constant(target, case.target)
    check_same_geometry(image, target, f"The image {case.images[0]}", f"its target {case.target}")
    return ImageReference(target.numpy()[0], affine_of(target))


def _load_measurement(case: Case) -> tuple[Measurement, ImageReference | None]:
    from ..measurements.files import read_measurement

    measured = read_measurement(case.images[0])
    if case.target is None:
        return measured, None
    target = read_image(case.target)
    return measured, ImageReference(target.numpy()[0], affine_of(target))


def load_cases(
    dataset: Dataset, cases: Iterable[Case], progress: Callable[[float, str], None] | None = None
) -> Iterator[tuple[Case, MetaTensor, Reference | None]]:
    """Read cases one after the other, and tell of all that cannot be used at once, at the end.

    Raises InputError after the last case, with the first problem in full and the names of the others.
    """
    cases = list(cases)
    problems: dict[str, InputError] = {}
    for number, case in enumerate(cases):
        if progress is not None:
            progress(number / len(cases), f"reading case {number + 1} of {len(cases)}")
        try:
            image, reference = load_case(case, dataset)
        except InputError as error:
            problems[case.name] = error
            continue
        yield case, image, reference
    raise_problems(problems, dataset.name)


def raise_problems(problems: dict[str, InputError], where: str) -> None:
    """InputError for cases that cannot be used: the only sentence as it is, several with their names."""
    if not problems:
        return
    first = next(iter(problems.values()))
    if len(problems) == 1:
        raise first
    raise InputError(
        f"{len(problems)} cases of {where} cannot be used ({listed(problems)}); the first because: {first}"
    )


def labels_of_files(paths: Iterable[Path], where: str) -> dict[int, str]:
    """The labels that occur in label maps: value → name; names from ``.seg.nrrd`` files, else "label 1" and so on.

    Segments of the same name are the same, as ``read_segmentation`` matches them. Raises InputError where files
    contradict each other about a value, or nothing is labelled.
    """
    values: dict[str, int] = {}
    problems: dict[str, InputError] = {}
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # whoever loads the case says it
                found = read_segmentation(path).segments
        except InputError as error:
            problems[path.name] = error
            continue
        for segment in found:
            if values.setdefault(segment.name, segment.value) != segment.value:
                problems[path.name] = InputError(
                    f"{path} gives the label {segment.name!r} the value {segment.value}, and another file "
                    f"{values[segment.name]}; declare the labels in the configuration, section [dataset.labels]."
                )
    raise_problems(problems, where)
    taken: dict[int, str] = {}
    for name, value in values.items():
        if taken.setdefault(value, name) != name:
            raise InputError(
                f"The label maps of {where} call the value {value} both {taken[value]!r} and {name!r}; declare the "
                "labels in the configuration, section [dataset.labels]."
            )
    if not taken:
        raise InputError(f"The label maps of {where} are all empty; there is nothing to learn from them.")
    return dict(sorted(taken.items()))


def grid_of_file(path: Path) -> tuple[tuple[int, int, int], np.ndarray] | None:
    """Size (I, J, K) and matrix voxel index → RAS mm of a volume file or picture, from its header alone.

    None for DICOM and for what cannot be read: reading the voxels says better what is wrong.
    """
    import SimpleITK as sitk

    if path.is_dir() or ending_of(path) in (".dcm", ".ima"):
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_itk(sitk):
            reader.ReadImageInformation()
            size = [int(n) for n in reader.GetSize()[:3]]
            affine = check_affine(affine_of_itk(reader), str(path))
    except (RuntimeError, InputError):
        return None
    return (*size, *(1,) * (3 - len(size))), affine


def frame_count(path: Path) -> int:
    """How many frames or components a volume file holds, from its header alone; 1 for DICOM and what cannot be read."""
    try:
        if path.is_dir() or ending_of(path) == ".dcm":
            return 1
        if ending_of(path) in (".nii", ".nii.gz"):
            import nibabel

            return int(np.prod(nibabel.load(path).shape[3:]))
        import SimpleITK as sitk

        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        return int(np.prod(reader.GetSize()[3:])) * reader.GetNumberOfComponents()
    except Exception:  # reading the voxels says better what is wrong
        return 1


def read_case_image(case: Case, count: int) -> MetaTensor:
    """All channels of a case as one image (count, I, J, K). Raises InputError where they are not that many."""
    if case.member is not None:
        from .medmnist import read_member

        return read_member(case.images[0], case.member)
    if len(case.images) == 1 and can_be_color(case.images[0]):
        image = with_channels(read_image(case.images[0]), count, case.images[0])
        if len(image) == count:
            return image
    if len(case.images) not in (1, count):
        raise InputError(f"Case {case.name} has {len(case.images)} images, and the data set has {count} channels.")
    frames = frame_count(case.images[0]) if len(case.images) == 1 else count
    if frames != count:
        raise InputError(
            f"{case.images[0]} holds {frames} {'image' if frames == 1 else 'images (frames or components)'}, and the "
            f"data set has {count} {'channel' if count == 1 else 'channels'}; save one 3D image a channel."
        )
    if count == 1:
        return read_image(case.images[0])
    if len(case.images) == 1:
        channels = [read_image(case.images[0], frame=number) for number in range(count)]
    else:
        first = read_image(case.images[0])
        others = (image_in_voxel_order(read_image(path), affine_of(first)) for path in case.images[1:])
        channels = [first, *others]
    for path, channel in zip(case.images[1:], channels[1:], strict=False):
        check_same_geometry(channels[0], channel, f"The image {case.images[0]}", f"the image {path} of the same case")
    return make_image(
        np.concatenate([channel.numpy() for channel in channels]),
        channels[0].affine,
        meta={"notes": channels[0].meta["notes"]},
    )
