"""Segmentation: which voxels belong to what; reading and writing it as label maps and as Slicer's ``.seg.nrrd``,
which keeps names, colors and terminology.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import check_place
from ..image import (
    WRITABLE,
    check_affine,
    check_finite,
    ending_of,
    in_voxel_order,
    not_an_image,
    read_volume,
    write_array,
)

# The two lists of terms that every Slicer has; a segment's terminology names the list that its codes are from.
_TERMS = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"

_LARGEST_VALUE = 65535
_COUNTED_TOGETHER = 2**20


@dataclass(frozen=True)
class Segment:
    """One structure: its value in the label map, its name, its color (red, green, blue from 0 to 1), and what it is.

    ``terminology`` is Slicer's serialized terminology entry (see :func:`terminology_entry`) or None.
    """

    value: int
    name: str
    color: tuple[float, float, float] = (0.5, 0.5, 0.5)
    terminology: str | None = None

    def __post_init__(self) -> None:
        if not 0 < int(self.value) <= _LARGEST_VALUE or int(self.value) != self.value:
            raise InputError(f"Segment {self.name!r} has the value {self.value}; use a whole number from 1 to 65535.")
        if not self.name.strip():
            raise InputError(f"The segment of value {self.value} has no name; give it one.")
        if len(self.color) != 3 or not all(0 <= part <= 1 for part in self.color):
            raise InputError(f"Segment {self.name!r} has the color {self.color}; use three numbers from 0 to 1.")


@dataclass(frozen=True)
class Segmentation:
    """Which voxel belongs to which segment.

    ``labels`` is (I, J, K), uint8 or uint16, 0 where there is nothing; ``affine`` is 4x4 float64, voxel index → RAS mm;
    ``notes`` are sentences that the user should read with the result.
    """

    labels: np.ndarray
    affine: np.ndarray
    segments: tuple[Segment, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 3 or labels.dtype not in (np.uint8, np.uint16):
            raise InputError(
                f"A segmentation needs labels (i, j, k) of type uint8 or uint16, not {labels.dtype} of shape "
                f"{labels.shape}."
            )
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "affine", check_affine(self.affine, "The segmentation"))
        object.__setattr__(self, "segments", tuple(self.segments))
        object.__setattr__(self, "notes", tuple(self.notes))
        for what in ("value", "name"):
            used = [getattr(segment, what) for segment in self.segments]
            twice = sorted({str(one) for one in used if used.count(one) > 1})
            if twice:
                raise InputError(f"Two segments have the same {what} ({', '.join(twice)}); make it unique.")

    def in_voxel_order(self, like: np.ndarray) -> Segmentation:
        """The same with the voxels in the order of the matrix ``like``; see ``image.in_voxel_order``."""
        labels, affine = in_voxel_order(self.labels, self.affine, like)
        return replace(self, labels=labels, affine=affine)

    def voxel_counts(self) -> dict[str, int]:
        """Number of voxels of each segment, by name."""
        counts = np.zeros(_LARGEST_VALUE + 1, dtype=np.int64)
        # In the order in which they lie in memory, and some at a time, because bincount makes eight bytes of each.
        voxels = self.labels.ravel(order="K")
        for start in range(0, voxels.size, _COUNTED_TOGETHER):
            part = np.bincount(voxels[start : start + _COUNTED_TOGETHER])
            counts[: len(part)] += part
        return {segment.name: int(counts[segment.value]) for segment in self.segments}

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, mL: |det affine| mm³ / 1000."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    def volumes_ml(self) -> dict[str, float]:
        """Volume of each segment in mL, by name: its voxels times the volume of one."""
        return {name: count * self.voxel_ml for name, count in self.voxel_counts().items()}

    def centroids_ras(self) -> dict[str, tuple[float, float, float]]:
        """Mean position of the voxels of each segment in RAS mm, by name; segments without voxels are left out."""
        centroids = {}
        for segment in self.segments:
            inside = self.labels == segment.value
            count = int(np.count_nonzero(inside))
            if not count:
                continue
            index = [
                float(np.dot(inside.sum(axis=tuple(a for a in range(3) if a != axis)), np.arange(inside.shape[axis])))
                / count
                for axis in range(3)
            ]
            x, y, z, _ = self.affine @ [*index, 1.0]
            centroids[segment.name] = (float(x), float(y), float(z))
        return centroids


# --------------------------------------------------------------------------------------------------------------------
# Names of things


Code = tuple[str, str, str]


def terminology_entry(
    *,
    category: Code,
    type: Code,  # noqa: A002 - DICOM's own word
    modifier: Code | None = None,
    region: Code | None = None,
) -> str:
    """Slicer's serialized terminology entry from coded terms (scheme, code, meaning), such as
    ``("SCT", "123037004", "Anatomical Structure")`` and ``("SCT", "10200004", "Liver")``.

    The format is that of ``vtkSlicerTerminologiesModuleLogic::SerializeTerminologyEntry``. Raises InputError where a
    code is incomplete or holds one of the separators ~ ^ |.
    """
    parts = []
    for code in (category, type, modifier, region):
        code = code or ("", "", "")
        if len(code) != 3 or any(mark in str(part) for part in code for mark in "~^|\n"):
            raise InputError(
                f"{code!r} is not a coded term; give (scheme, code, meaning) without the characters ~ ^ |."
            )
        if any(code) and not all(code):
            raise InputError(f"{code!r} is not a whole coded term; give scheme, code and meaning.")
        parts.append("^".join(code))
    return "~".join([_TERMS, parts[0], parts[1], parts[2], _REGIONS, parts[3], "^^"])


def color_of(value: int) -> tuple[float, float, float]:
    """A color for the segment of a value that has none: hues a golden angle apart, so that neighbors differ."""
    hue = (0.08 + (int(value) - 1) * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.6, 0.9)
    return (round(red, 4), round(green, 4), round(blue, 4))


def label_type(values: Iterable[int]) -> type[np.generic]:
    """The smallest of uint8 and uint16 that holds the values."""
    return np.uint8 if max(values, default=0) <= 255 else np.uint16


# --------------------------------------------------------------------------------------------------------------------
# Reading


def read_segmentation(path: str | Path, segments: Sequence[Segment] | None = None) -> Segmentation:
    """A segmentation from a label map in any volume format, or from a ``.seg.nrrd`` with names, colors, terminology.

    ``segments`` are the ones that may occur. A label map then must hold no other value but 0. The segments of a
    ``.seg.nrrd`` are matched by name, and get the declared values. Without ``segments`` every value that occurs
    becomes one.

    Raises InputError where the file is no image, holds fractions, negative, undeclared or non-finite values, or
    segments that overlap.
    """
    path = Path(path)
    found: tuple[Segment, ...] = ()
    header = _segment_header(path) if ending_of(path) in (".seg.nrrd", ".nrrd") else {}
    if header:
        labels, affine, found, notes = _read_layers(path, header)
    else:
        volume = read_volume(path)
        labels, affine, notes = whole_labels(volume.array, str(path)), volume.affine, volume.notes
    if segments is not None:
        labels, found = declared_labels(labels, found, tuple(segments), str(path))
    elif not found:
        found = tuple(Segment(value, f"label {value}", color_of(value)) for value in _values(labels))
    return Segmentation(labels, affine, found, tuple(notes))


def _values(labels: np.ndarray) -> list[int]:
    """The values that occur, without 0, in order."""
    counts = np.bincount(labels.ravel())
    return [int(value) for value in np.flatnonzero(counts) if value]


def whole_labels(array: np.ndarray, what: str) -> np.ndarray:
    """Voxels of any number type as uint8 or uint16; InputError where they are not whole numbers from 0 to 65535."""
    check_finite(array, what)
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and not (array == np.rint(array)).all():
        first = array[array != np.rint(array)][0]
        raise InputError(
            f"{what} is not a label map: it holds fractions such as {first:.6g}; labels are whole numbers."
        )
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if low < 0 or high > _LARGEST_VALUE:
        raise InputError(f"{what} holds label values from {low:g} to {high:g}; labels go from 0 to 65535.")
    return array.astype(label_type([int(high)]))


def declared_labels(
    labels: np.ndarray, found: tuple[Segment, ...], declared: tuple[Segment, ...], what: str
) -> tuple[np.ndarray, tuple[Segment, ...]]:
    """``labels`` in the values of ``declared``, and those segments; InputError where there are others.

    ``found`` are the segments that the source itself names, or none. They are matched by name, whatever the case. Only
    where all names are mere numbers, such as "Segment_1", it goes by value: values of segments that a person has named
    follow the order in which they were drawn, and mean nothing.
    """
    present = _values(labels)
    by_name = {segment.name.casefold(): segment.value for segment in declared}
    occurring = [segment for segment in found if segment.value in present]
    target = {value: value for value in present}
    if any(not re.fullmatch(r"(segment|label)?[ _]*\d+", one.name, re.IGNORECASE) for one in occurring):
        unknown = [one.name for one in occurring if one.name.casefold() not in by_name]
        if unknown:
            raise InputError(
                f"{what} holds the segments {', '.join(unknown)}, and only {', '.join(one.name for one in declared)} "
                "may occur; rename or remove them."
            )
        target = {one.value: by_name[one.name.casefold()] for one in occurring}
    table = np.zeros(_LARGEST_VALUE + 1, dtype=np.uint16)
    for value, new in target.items():
        table[value] = new
    allowed = {segment.value for segment in declared}
    wrong = sorted(value for value in present if target.get(value) not in allowed)
    if wrong:
        listed = ", ".join(str(value) for value in wrong[:10]) + (", …" if len(wrong) > 10 else "")
        expected = ", ".join(f"{segment.value} ({segment.name})" for segment in declared)
        raise InputError(
            f"{what} holds the label {'value' if len(wrong) == 1 else 'values'} {listed}, and only 0 (background), "
            f"{expected} may occur; correct the label map or declare the value."
        )
    if any(value != new for value, new in target.items()):
        labels = table[labels]
    return labels.astype(label_type(allowed), copy=False), declared


def _segment_header(path: Path) -> dict[str, str]:
    """The ``SegmentN_...`` and ``Segmentation_...`` fields of a NRRD file; none if it is a plain one."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
            if start != b"NRRD":
                return {}
            header = b""
            while b"\n\n" not in header and b"\r\n\r\n" not in header and len(header) < (1 << 24):
                part = file.read(1 << 16)
                if not part:
                    break
                header += part
    except OSError:
        return {}  # whoever reads the voxels says it better
    text = re.split(rb"\r?\n\r?\n", header, maxsplit=1)[0].decode("utf-8", "replace")
    fields = {}
    for line in text.splitlines():
        key, mark, value = line.partition(":=")
        if mark and re.match(r"Segment(\d+|ation)_", key):
            fields[key] = value
    return fields


def _read_layers(
    path: Path, header: dict[str, str]
) -> tuple[np.ndarray, np.ndarray, tuple[Segment, ...], tuple[str, ...]]:
    """A ``.seg.nrrd``: a label map, or several on top of each other where segments overlap or once did."""
    numbers = sorted({int(match.group(1)) for key in header if (match := re.match(r"Segment(\d+)_", key))})
    described = [_described_segment(path, header, number) for number in numbers]
    layers = max((layer for layer, _, _ in described), default=0) + 1
    volumes = [read_volume(path, frame=layer if layers > 1 else None) for layer in range(layers)]
    arrays = [whole_labels(volume.array, str(path)) for volume in volumes]
    values = [segment.value for _, _, segment in described]
    # The same value means two things in two layers (in files of old versions it is always 1): number them anew.
    anew = len(set(values)) < len(values)
    labels = np.zeros(arrays[0].shape, dtype=label_type([len(values)] if anew else values))
    owner: dict[int, str] = {}
    segments: list[Segment] = []
    for number, (layer, stored, segment) in enumerate(described, start=1):
        inside = arrays[layer] == stored
        if layers > 1:
            taken = np.unique(labels[inside])
            other = [owner[int(value)] for value in taken if int(value)]
            if other:
                raise InputError(
                    f"{path} holds segments that overlap ({segment.name!r} and {other[0]!r}); a voxel can have one "
                    "label only: make them exclusive in the Segment Editor."
                )
        value = number if anew else segment.value
        labels[inside] = value
        owner[value] = segment.name
        segments.append(replace(segment, value=value))
    stray = sorted({v for layer, a in enumerate(arrays) for v in _values(a)} - {stored for _, stored, _ in described})
    if stray:
        raise InputError(
            f"{path} holds the label values {stray[:10]} that belong to none of its segments; save it again."
        )
    return labels, volumes[0].affine, tuple(unique_names(segments)), volumes[0].notes


def _described_segment(path: Path, header: dict[str, str], number: int) -> tuple[int, int, Segment]:
    """Layer, value in that layer and description of one segment of a ``.seg.nrrd``."""

    def field(name: str, default: str) -> str:
        return header.get(f"Segment{number}_{name}", default)

    try:
        # Slicer before 4.11 wrote neither: one layer for each segment, each of value 1.
        layer, value = int(field("Layer", str(number))), int(field("LabelValue", "1"))
        color = tuple(min(max(float(part), 0.0), 1.0) for part in field("Color", "0.5 0.5 0.5").split())
        terminology = None
        for tag in field("Tags", "").split("|"):
            name, _, content = tag.partition(":")
            # Slicer writes "Tissue" for a segment about which nothing was said.
            if name.endswith("TerminologyEntry") and content.strip("~^ "):
                terminology = content
        name = field("Name", f"Segment {number + 1}").strip() or f"Segment {number + 1}"
        return layer, value, Segment(value, name, color, terminology)
    except ValueError as error:
        raise not_an_image(path, f"its description of segment {number} is damaged") from error


def unique_names(segments: Sequence[Segment]) -> list[Segment]:
    """The segments, with a number behind a name that another one before has already."""
    result: list[Segment] = []
    used: set[str] = set()
    for segment in segments:
        name, count = segment.name, 2
        while name in used:
            name, count = f"{segment.name} ({count})", count + 1
        used.add(name)
        result.append(replace(segment, name=name))
    return result


# --------------------------------------------------------------------------------------------------------------------
# Writing


def write_segmentation(segmentation: Segmentation, path: str | Path) -> None:
    """Write ``.seg.nrrd`` (with names, colors, terminology, as Slicer does) or a label map ``.nii.gz .nii .nrrd .mha``.

    The file appears whole or not at all. Raises as :func:`MedMapAILib.image.write_image`.
    """
    path = Path(path)
    fields = _segment_fields(segmentation) if ending_of(path) == ".seg.nrrd" else {}
    write_array(segmentation.labels, segmentation.affine, path, fields)


def check_writable_segmentation(path: str | Path) -> None:
    """Find out, before any work is done, whether a segmentation can be written to ``path``.

    Raises InputError when its ending is none that can be written, or the folder is missing or does not allow it.
    """
    path = Path(path)
    if ending_of(path) not in (".seg.nrrd", *WRITABLE):
        raise InputError(
            f"{path} cannot be written: its name must end in one of {', '.join(('.seg.nrrd', *WRITABLE))}."
        )
    check_place(path)


def _segment_fields(segmentation: Segmentation) -> dict[str, str]:
    """The header fields by which Slicer (vtkMRMLSegmentationStorageNode) knows the segments of a label map."""
    size = segmentation.labels.shape
    extent = " ".join(f"0 {n - 1}" for n in size)
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, segment in enumerate(segmentation.segments):
        described: dict[str, Any] = {
            "ID": f"Segment_{segment.value}",
            "Name": " ".join(segment.name.split()),
            "NameAutoGenerated": 0,
            "Color": " ".join(f"{part:.6g}" for part in segment.color),
            "ColorAutoGenerated": 0,
            "Extent": extent,
            "LabelValue": segment.value,
            "Layer": 0,
            "Tags": f"TerminologyEntry:{segment.terminology}|" if segment.terminology else "",
        }
        fields.update({f"Segment{number}_{key}": str(value) for key, value in described.items()})
    return fields


# --------------------------------------------------------------------------------------------------------------------
# Another grid


def on_grid(segmentation: Segmentation, shape: Sequence[int], affine: np.ndarray) -> Segmentation:
    """The segmentation on another grid (I, J, K) with its matrix voxel index → RAS mm: each new voxel takes the label
    of the old voxel in which its center lies, or 0 outside. Exact where one grid is a part of the other.
    """
    affine = check_affine(affine, "The grid")
    shape = tuple(int(n) for n in shape)
    if shape == segmentation.labels.shape and np.allclose(affine, segmentation.affine, atol=1e-6):
        return segmentation
    # Old index of each new one. Rounded to 1e-4 voxels first, so that centers half-way fall to one side everywhere.
    matrix = np.linalg.inv(segmentation.affine) @ affine
    old = segmentation.labels
    result = np.zeros(shape, dtype=old.dtype)
    j, k = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    for i in range(shape[0]):  # one sheet at a time: three index arrays of a whole CT would take 6 GB
        index = [
            np.floor(np.round(matrix[a, 0] * i + matrix[a, 1] * j + matrix[a, 2] * k + matrix[a, 3], 4) + 0.5).astype(
                np.int64
            )
            for a in range(3)
        ]
        inside = np.ones(j.shape, dtype=bool)
        for a in range(3):
            inside &= (index[a] >= 0) & (index[a] < old.shape[a])
        result[i][inside] = old[index[0][inside], index[1][inside], index[2][inside]]
    return Segmentation(result, affine, segmentation.segments, segmentation.notes)
