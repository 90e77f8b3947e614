"""Cases that come from an open scene: written, without names, as a folder that can be trained on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic_folder
from ..image import affine_of, check_same_geometry, make_image, write_array, write_image
from ..results import FindingReference, Segment, Segmentation, label_type, write_segmentation


def write_cases(cases: Iterable[tuple[Any, Segmentation]], folder: str | Path) -> dict[str, dict[str, Any]]:
    """Write cases to ``folder/images`` and ``folder/labels`` as case_001.nrrd, case_002.nrrd, …; whole or not at all.

    cases: (image (1, I, J, K), segmentation on the same grid), read one at a time. The same segment is known by its
    name: it gets the same label value in every case, whatever value it has in its own segmentation. An older folder of
    that name is replaced. Returns section [dataset.labels] of a training configuration: value → {"name", "color",
    "terminology"}.
    Raises InputError when image and segmentation do not fit, or there is nothing to learn in a case.
    """
    values: dict[str, int] = {}
    described: dict[str, Segment] = {}
    with atomic_folder(folder) as temporary:
        for part in ("images", "labels"):
            (temporary / part).mkdir()
        for number, (image, segmentation) in enumerate(cases, start=1):
            name = f"case_{number:03d}"
            check_same_geometry(image, segmentation, f"The volume of case {number}", "its segmentation")
            if not segmentation.labels.any():
                raise InputError(f"The segmentation of case {number} is empty; draw in it or leave the case out.")
            for segment in segmentation.segments:
                if segment.name not in values:
                    values[segment.name] = _free_value(segment.value, values.values())
                    described[segment.name] = segment
            write_image(image, temporary / "images" / f"{name}.nrrd")
            write_segmentation(_renumbered(segmentation, values), temporary / "labels" / f"{name}.nrrd")
    return {str(value): _about(described[name]) for name, value in sorted(values.items(), key=lambda item: item[1])}


def write_class_cases(
    samples: Iterable[tuple[Any, tuple[Sequence[float], Sequence[float]] | None, str]],
    folder: str | Path,
    margin: float = 0.0,
) -> tuple[str, ...]:
    """Write samples to ``folder/<class>/patient_001/case_001.nrrd`` and so on; whole or not at all.

    samples: (image (C, I, J, K), ROI or None for the whole image, name of the class), read one at a time. ROI: center
    and size, RAS mm, sides along the patient's axes; of an oblique image the smallest block of voxels that holds it is
    cut out. margin: mm that are kept around each ROI. What is cut from the same image belongs to one patient, so that
    no split tears it apart. An older folder of that name is replaced. Returns the names of the classes in the order in
    which they came. Raises InputError for a name that no folder can have, and for an ROI that lies outside its image.
    """
    if margin < 0:
        raise InputError(f"The margin around an ROI is {margin:g} mm; it must not be negative.")
    classes: dict[str, None] = {}
    patients: dict[bytes, int] = {}
    with atomic_folder(folder) as temporary:
        for number, (image, roi, name) in enumerate(samples, start=1):
            name = name.strip()
            if (
                not name
                or name.startswith((".", "_"))
                or name.endswith(".")
                or re.search(r'[<>:"/\\|?*\x00-\x1f]', name)
            ):
                raise InputError(f"The class {name!r} of sample {number} cannot be the name of a folder; rename it.")
            classes[name] = None
            patient = patients.setdefault(_identity(image), len(patients) + 1)
            place = temporary / name / f"patient_{patient:03d}"
            place.mkdir(parents=True, exist_ok=True)
            cut = image if roi is None else crop(image, *roi, margin=margin, what=f"The ROI of sample {number}")
            write_image(cut, place / f"case_{number:03d}.nrrd")
    return tuple(classes)


def write_image_cases(pairs: Iterable[tuple[Any, Any]], folder: str | Path) -> None:
    """Write images for a reconstruction; whole or not at all.

    pairs: (image (1, I, J, K), image of the same voxels that it should become, or None), read one at a time; all with
    or all without. The folder gets inputs/case_001.nrrd and targets/case_001.nrrd, or images/case_001.nrrd. An older
    folder of that name is replaced. Raises InputError where the two images of a pair do not fit.
    """
    with atomic_folder(folder) as temporary:
        for number, (image, target) in enumerate(pairs, start=1):
            parts = {"images": image} if target is None else {"inputs": image, "targets": target}
            if target is not None:
                check_same_geometry(image, target, f"The volume of image {number}", "its target")
            for part, each in parts.items():
                (temporary / part).mkdir(exist_ok=True)
                write_image(each, temporary / part / f"case_{number:03d}.nrrd")


def write_detection_cases(cases: Iterable[tuple[Any, FindingReference]], folder: str | Path) -> int:
    """Write scans and their findings as a data set that ``open_dataset`` reads as a "box-list"; whole or not at all.

    cases: (image (C, I, J, K), what it holds), read one at a time. The folder gets images/case_001.nrrd and so on,
    findings.csv (RAS mm), and where any finding of a scan has a mask labels/case_001.nrrd, with n + 1 for its nth
    finding. An older folder of that name is replaced. Returns how many findings there are.
    Raises InputError without any finding, and for one that lies outside its image.
    """
    from .findings_table import write_finding_table
    from .instances import instances_of

    table: dict[str, FindingReference] = {}
    with atomic_folder(folder) as temporary:
        (temporary / "images").mkdir()
        for number, (image, reference) in enumerate(cases, start=1):
            name = f"case_{number:03d}.nrrd"
            for finding in reference.findings:
                if not _center_inside(image, finding.center):
                    raise InputError(
                        f"A {finding.label} of case {number} lies outside its image; move it onto the finding, or "
                        "reject it."
                    )
            write_image(image, temporary / "images" / name)
            if any(finding.mask is not None for finding in reference.findings):
                (temporary / "labels").mkdir(exist_ok=True)
                labels = instances_of(reference.findings, image)
                write_array(labels, affine_of(image), temporary / "labels" / name)
            table[f"images/{name}"] = reference
        count = sum(len(reference.findings) for reference in table.values())
        if not count:
            raise InputError("There is no finding in any of the scans; accept or add one, there is nothing to learn.")
        write_finding_table(table, temporary / "findings.csv")
    return count


def _center_inside(image: Any, center: Sequence[float]) -> bool:
    """Whether a place (RAS mm) lies in an image (C, I, J, K)."""
    index = np.linalg.inv(affine_of(image)) @ [*center, 1.0]
    return bool(np.all(index[:3] >= -0.5) and np.all(index[:3] <= np.array(image.shape[-3:]) - 0.5))


def crop(
    image: Any, center: Sequence[float], size: Sequence[float], *, margin: float = 0.0, what: str = "The ROI"
) -> Any:
    """The voxels of an image (C, I, J, K) whose centers may lie in a box in RAS mm, in their place.

    center, size: RAS mm; margin: mm more on each side. Of an oblique image, the smallest block of voxels around the
    box. At least one voxel; what lies beyond the image is left out. Raises InputError, which begins with ``what``,
    where no part of the box is in the image.
    """
    affine = affine_of(image)
    half = np.abs(np.asarray(size, dtype=np.float64)) / 2 + margin
    corners = np.array(np.meshgrid(*np.stack([-half, half], axis=1), indexing="ij")).reshape(3, -1).T + center
    indices = (corners - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    low, high = indices.min(axis=0), indices.max(axis=0)
    shape = np.array(image.shape[-3:])
    # A voxel reaches half a step to either side of its center.
    if (high < -0.5).any() or (low > shape - 0.5).any():
        raise InputError(f"{what} lies outside its image; move it onto the finding.")
    # 1e-6: an edge on a voxel's center takes the voxel in, whatever rounding did.
    first, last = np.ceil(low - 1e-6), np.floor(high + 1e-6)
    middle = np.round((low + high) / 2)
    thin = last < first
    first, last = np.where(thin, middle, first), np.where(thin, middle, last)
    first, last = (np.clip(v, 0, shape - 1).astype(int) for v in (first, last))
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ first + affine[:3, 3]
    part = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
    return make_image(np.asarray(image)[(slice(None), *part)], moved)


def _identity(image: Any) -> bytes:
    """The same for the same voxels in the same place."""
    digest = hashlib.sha256(affine_of(image).tobytes())
    digest.update(np.ascontiguousarray(np.asarray(image)))
    return digest.digest()


def _free_value(wanted: int, taken: Iterable[int]) -> int:
    taken = set(taken)
    return wanted if wanted not in taken else next(value for value in range(1, 65536) if value not in taken)


def _renumbered(segmentation: Segmentation, values: dict[str, int]) -> Segmentation:
    segments = tuple(Segment(values[s.name], s.name, s.color, s.terminology) for s in segmentation.segments)
    labels = np.zeros(segmentation.labels.shape, dtype=label_type(values.values()))
    for old, new in zip(segmentation.segments, segments, strict=True):
        labels[segmentation.labels == old.value] = new.value
    return Segmentation(labels, segmentation.affine, segments)


def _about(segment: Segment) -> dict[str, Any]:
    about: dict[str, Any] = {
        "name": segment.name,
        "color": "#" + "".join(f"{round(part * 255):02x}" for part in segment.color),
    }
    codes = terminology_codes(segment.terminology)
    return about | ({"terminology": codes} if codes else {})


def terminology_codes(entry: str | None) -> dict[str, list[str]] | None:
    """The codes in Slicer's serialized terminology entry: {"category", "type", "modifier": [scheme, code, meaning]}.

    The inverse of ``results.terminology_entry`` for these three; None where category or type is missing.
    """
    parts = (entry or "").split("~")
    codes = {key: part.split("^") for key, part in zip(("category", "type", "modifier"), parts[1:4], strict=False)}
    codes = {key: code for key, code in codes.items() if len(code) == 3 and all(code)}
    return codes if "category" in codes and "type" in codes else None
