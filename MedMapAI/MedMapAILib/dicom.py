"""DICOM series as volumes.

pydicom reads the headers, SimpleITK (GDCM) the voxels of each file, with rescale slope and intercept applied. Which
files belong together, in which order, and where they lie is decided here, because everything that can be wrong with a
series (slices that are missing, uneven, tilted, there twice or from several phases) has to be said to the user.

Only the header fields in ``_FIELDS`` are ever read: none of them says who the patient is.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .image import Volume, not_an_image, pick_frame, quiet_itk, ras_from_lps, shear_notes

_FIELDS = (
    "SOPClassUID SOPInstanceUID Modality SeriesDescription SeriesInstanceUID SeriesNumber AcquisitionNumber "
    "InstanceNumber TemporalPositionIdentifier TriggerTime EchoNumbers EchoTime ImagePositionPatient "
    "ImageOrientationPatient PixelSpacing ImagerPixelSpacing SliceThickness SpacingBetweenSlices Rows Columns "
    "NumberOfFrames SamplesPerPixel PhotometricInterpretation SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence"
).split()

# Objects that have rows and columns and are no pictures of the patient: segmentations, dose, surfaces.
_NOT_IMAGES = ("1.2.840.10008.5.1.4.1.1.66.", "1.2.840.10008.5.1.4.1.1.481.")

# Projections, ultrasound and photographs: nobody expects of them to say where in the patient they lie.
_WITHOUT_PLACE = ("CR", "DX", "MG", "RG", "RF", "XA", "IO", "PX", "US", "XC", "ES", "GM", "SM", "OP", "OPT", "OCT")

# Positions closer than this (mm) are the same; scanners write two decimals.
_SAME_POSITION_MM = 0.01


@dataclass(frozen=True)
class _Slice:
    """One slice: a DICOM file, or one frame of a multi-frame file (``frame`` is its index, else None)."""

    path: Path
    frame: int | None
    series: str
    instance: str
    series_number: int
    description: str
    modality: str
    size: tuple[int, int]  # columns, rows
    samples: int
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    pixel: tuple[float, float] | None  # mm between rows, mm between columns
    pixel_is_of_detector: bool
    thickness: float
    order: tuple[float, ...]  # what tells slices at one position apart: time, acquisition, echo, instance
    rescale: tuple[float, float] | None  # only of multi-frame files


def read_dicom(path: Path, *, series: str | int | None, frame: int | None, color: bool = False) -> Volume:
    """One series of a DICOM folder (searched with its subfolders), or one DICOM file, as a volume.

    See :func:`MedMapAILib.image.read_image` for ``series`` and ``frame``. ``color``: a color picture comes with three
    channels, where else one of them has to be chosen. Pictures in which low values are bright (MONOCHROME1) are turned
    around by GDCM, as in Slicer. Slices are ordered along their common normal.
    Where they are not evenly spaced, they are taken as if they were, with the mean distance, as ITK and Slicer do, and
    a note says by how much that is off. Raises InputError.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    slices = [s for file in files for s in _slices_of(file)]
    if not slices:
        raise _no_images(path, files)
    stacks = _stacks(slices)
    stack = _choose(path, stacks, series)
    notes: list[str] = []
    stack = _without_copies(stack, notes)
    if stack[0].samples > 1:
        if len(stack) > 1:
            raise InputError(f"{path} holds {len(stack)} color pictures; save the one that is wanted as a file.")
        color = color and frame is None
        if not color:
            pick_frame(path, stack[0].samples, "color components", frame)
    elif stack[0].position is None or stack[0].orientation is None:
        stack = _without_positions(path, stack, frame, notes)
    else:
        stack = _one_frame(path, stack, frame)
    affine = _affine(path, stack, notes)
    if path.is_file() and len(stack) == 1 and stack[0].frame is None and stack[0].position is not None:
        notes.append("only the one slice in this file is read; name its folder to read the whole series")
    array = _color(stack[0]) if color and stack[0].samples > 1 else _voxels(stack, frame)
    return Volume(array, affine, tuple(notes), {"modality": stack[0].modality})


# --------------------------------------------------------------------------------------------------------------------
# Headers


def _slices_of(file: Path) -> list[_Slice]:
    """The slices in a file; none if it is no DICOM picture."""
    import pydicom

    if file.name.upper() == "DICOMDIR" or file.name.startswith("."):
        return []
    try:
        with file.open("rb") as stream:
            marked = stream.read(132)[128:] == b"DICM"
        if not marked and file.suffix.lower() not in (".dcm", ".ima", ""):
            return []
        # pydicom's warnings quote values of the header.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(file, stop_before_pixels=True, force=not marked, specific_tags=list(_FIELDS))
            return _slices_of_header(file, header)
    except Exception:  # noqa: BLE001 - a damaged header fails in any way; what it is called says nothing to the user
        return []


def _slices_of_header(file: Path, header: Any) -> list[_Slice]:
    if not header.get("Rows") or not header.get("Columns") or not header.get("SOPClassUID"):
        return []
    if str(header.SOPClassUID).startswith(_NOT_IMAGES):
        return []
    pixel = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    samples = int(header.get("SamplesPerPixel") or 1)
    if "PALETTE" in str(header.get("PhotometricInterpretation")):
        samples = 3  # GDCM looks the colors up
    common = _Slice(
        path=file,
        frame=None,
        series=str(header.get("SeriesInstanceUID", "")),
        instance=str(header.get("SOPInstanceUID", "")),
        series_number=int(_number(header.get("SeriesNumber"))),
        description="".join(c for c in str(header.get("SeriesDescription", "")) if c.isprintable())[:40],
        modality=str(header.get("Modality", "")),
        size=(int(header.Columns), int(header.Rows)),
        samples=samples,
        orientation=_tuple(header.get("ImageOrientationPatient"), 6),
        position=_tuple(header.get("ImagePositionPatient"), 3),
        pixel=_tuple(pixel, 2),
        pixel_is_of_detector=not header.get("PixelSpacing") and bool(pixel),
        thickness=_number(header.get("SpacingBetweenSlices")) or _number(header.get("SliceThickness")),
        order=tuple(
            _number(header.get(name))
            for name in ("TemporalPositionIdentifier", "AcquisitionNumber", "EchoNumbers", "EchoTime", "TriggerTime",
                         "InstanceNumber")
        ),
        rescale=None,
    )  # fmt: skip
    count = int(_number(header.get("NumberOfFrames"))) or 1
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    if count == 1 and not groups:
        return [common]
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    return [_frame(common, index, groups[index] if index < len(groups) else None, shared) for index in range(count)]


def _frame(common: _Slice, index: int, own: Any, shared: Any) -> _Slice:
    """One frame of an enhanced multi-frame file; what its functional groups do not say is as in the whole file."""

    def macro(sequence: str) -> Any:
        for group in (own, shared):
            if group is not None and group.get(sequence):
                return group.get(sequence)[0]
        return {}

    measures = macro("PixelMeasuresSequence")
    content = macro("FrameContentSequence")
    values = macro("PixelValueTransformationSequence")
    position = _tuple(macro("PlanePositionSequence").get("ImagePositionPatient"), 3)
    return replace(
        common,
        frame=index,
        orientation=_tuple(macro("PlaneOrientationSequence").get("ImageOrientationPatient"), 6) or common.orientation,
        position=position if position is not None or own is not None else None,
        pixel=_tuple(measures.get("PixelSpacing"), 2) or common.pixel,
        thickness=_number(measures.get("SpacingBetweenSlices"))
        or _number(measures.get("SliceThickness"))
        or common.thickness,
        order=(_number(content.get("TemporalPositionIndex")), float(index)),
        rescale=(_number(values.get("RescaleSlope"), 1.0), _number(values.get("RescaleIntercept"))) if values else None,
    )


def _number(value: Any, default: float = 0.0) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return default


def _tuple(values: Any, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count else None


def _no_images(path: Path, files: list[Path]) -> InputError:
    if path.is_file():
        return not_an_image(path, "it is not a DICOM picture")
    if not files:
        return InputError(f"{path} is an empty folder; name a volume file or a folder with DICOM files.")
    from .image import READABLE

    volumes = sorted(file.name for file in files if file.name.lower().endswith(READABLE))
    if volumes:
        return InputError(
            f"{path} holds no DICOM pictures but {len(volumes)} volume files; name one, such as {volumes[0]}."
        )
    return InputError(
        f"{path} holds {len(files)} files and none is a DICOM picture; name a volume file or another folder."
    )


# --------------------------------------------------------------------------------------------------------------------
# Which slices


def _stacks(slices: Iterable[_Slice]) -> list[list[_Slice]]:
    """Slices that can form one volume: same series, size, orientation and pixel size. In a stable order."""
    stacks = defaultdict(list)
    for s in slices:
        orientation = tuple(round(v, 3) + 0.0 for v in s.orientation) if s.orientation else ()
        pixel = tuple(round(v, 4) for v in s.pixel) if s.pixel else ()
        stacks[(s.series_number, s.series, s.size, orientation, pixel, s.samples)].append(s)
    return [stacks[key] for key in sorted(stacks)]


def _choose(path: Path, stacks: list[list[_Slice]], series: str | int | None) -> list[_Slice]:
    if series is None:
        if len(stacks) == 1:
            return stacks[0]
        raise InputError(
            f"{path} holds {len(stacks)} DICOM series; choose one with series=N (--series N): {_listing(stacks)}."
        )
    wanted = str(series)
    if wanted.isdigit() and 1 <= int(wanted) <= len(stacks):
        return stacks[int(wanted) - 1]
    # Shorter than this it is a number in the list, and would by chance be the end of some UID.
    found = [stack for stack in stacks if len(wanted) >= 5 and stack[0].series.endswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{path} holds {len(found)} stacks of slices in series {wanted}; choose one by its number: "
            f"{_listing(stacks)}."
        )
    raise InputError(f"{path} holds no series {wanted}; there is {_listing(stacks)}.")


def _listing(stacks: list[list[_Slice]], most: int = 20) -> str:
    lines = []
    for number, stack in enumerate(stacks[:most], start=1):
        s = stack[0]
        what = ", ".join(word for word in (s.modality, repr(s.description) if s.description else "") if word)
        slices = "slice" if len(stack) == 1 else "slices"
        lines.append(f"{number}: …{s.series[-12:]} ({what}, {len(stack)} {slices} of {s.size[0]}×{s.size[1]})")
    if len(stacks) > most:
        lines.append(f"and {len(stacks) - most} more")
    return "; ".join(lines)


def _without_copies(stack: list[_Slice], notes: list[str]) -> list[_Slice]:
    kept = {(s.instance or str(s.path), s.frame): s for s in reversed(stack)}
    copies = len(stack) - len(kept)
    if copies:
        notes.append(f"{copies} of its {len(stack)} slices are copies of others and are left out")
    return [s for s in stack if kept[(s.instance or str(s.path), s.frame)] is s]


def _without_positions(path: Path, stack: list[_Slice], frame: int | None, notes: list[str]) -> list[_Slice]:
    """Slices that do not say where they are: frames of a film, one picture, or slices in the order of their numbers."""
    if stack[0].frame is not None:
        if len({s.path for s in stack}) > 1:
            raise InputError(f"{path} holds {len({s.path for s in stack})} films; name one of the files.")
        chosen = pick_frame(path, len(stack), "frames", frame)
        notes.append("it does not say where in the patient it lies")
        return [stack[chosen]]
    pick_frame(path, 1, "frame", frame)
    if len(stack) > 1:
        notes.append(
            "it does not say where in the patient it lies; its slices are in the order of their instance numbers"
        )
    elif stack[0].modality not in _WITHOUT_PLACE:
        notes.append("it does not say where in the patient it lies")
    return sorted(stack, key=lambda s: s.order[-1])


def _one_frame(path: Path, stack: list[_Slice], frame: int | None) -> list[_Slice]:
    """The slices along their normal, one at each position; of several at each position those of one frame."""
    if any(s.position is None for s in stack):
        missing = sum(s.position is None for s in stack)
        raise InputError(f"{path} holds {missing} slices of {len(stack)} that do not say where they lie; remove them.")
    _, _, normal = _axes(path, stack[0])
    ordered = sorted(stack, key=lambda s: (float(np.dot(normal, s.position)), s.order))
    places: list[list[_Slice]] = []
    for s in ordered:
        if places and np.dot(normal, s.position) - np.dot(normal, places[-1][0].position) < _SAME_POSITION_MM:
            places[-1].append(s)
        else:
            places.append([s])
    counts = sorted({len(place) for place in places})
    if len(counts) > 1:
        raise InputError(
            f"{path} holds {counts[0]} to {counts[-1]} slices at each position; keep the slices of one acquisition in "
            "a folder of their own."
        )
    chosen = pick_frame(path, counts[0], "frames (slices at each position)", frame)
    return [sorted(place, key=lambda s: s.order)[chosen] for place in places]


# --------------------------------------------------------------------------------------------------------------------
# Where they are


def _axes(path: Path, s: _Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors (LPS) along i (to the next column), along j (to the next row) and across the slices."""
    along_i, along_j = np.array(s.orientation[:3]), np.array(s.orientation[3:])
    lengths = np.linalg.norm(along_i), np.linalg.norm(along_j)
    # 0.01 lets orientations written with two decimals pass.
    if not np.allclose(lengths, 1, atol=0.01) or not abs(np.dot(along_i, along_j)) < 0.01:
        raise InputError(f"{path} has rows and columns that are not at right angles in its header; export it again.")
    along_i, along_j = along_i / lengths[0], along_j / lengths[1]
    normal = np.cross(along_i, along_j)
    return along_i, along_j, normal / np.linalg.norm(normal)


def _affine(path: Path, stack: list[_Slice], notes: list[str]) -> np.ndarray:
    first = stack[0]
    pixel = first.pixel
    if pixel is None:
        pixel = (1.0, 1.0)
        notes.append("it does not say how large a pixel is; 1 mm is taken")
    elif first.pixel_is_of_detector:
        notes.append("its pixel size is that at the detector, not in the patient")
    if min(pixel) <= 0:
        raise InputError(
            f"{path} gives a pixel spacing of {pixel[0]:g} {pixel[1]:g} mm; each must be greater than zero."
        )
    affine = np.eye(4)
    if first.orientation is None or first.position is None:
        along_i, along_j, normal = np.eye(3)
        origin = np.zeros(3)
    else:
        along_i, along_j, normal = _axes(path, first)
        origin = np.array(first.position)
    thickness = first.thickness if first.thickness > 0 else 1.0
    if len(stack) == 1 or first.position is None:
        step = normal * thickness
        if first.thickness <= 0 and first.modality not in _WITHOUT_PLACE:
            notes.append("it does not say how thick a slice is; 1 mm is taken")
    else:
        positions = np.array([s.position for s in stack])
        step = (positions[-1] - positions[0]) / (len(stack) - 1)
        notes.extend(_unevenness(positions, normal, step))
    affine[:3, 0] = along_i * pixel[1]
    affine[:3, 1] = along_j * pixel[0]
    affine[:3, 2] = step
    affine[:3, 3] = origin
    notes.extend(shear_notes(affine))
    return ras_from_lps(affine)


def _unevenness(positions: np.ndarray, normal: np.ndarray, step: np.ndarray) -> list[str]:
    """Sentences on gaps between slices (mm, LPS, in order along the normal) and on uneven distances."""
    even = positions[0] + np.arange(len(positions))[:, None] * step
    off = float(np.linalg.norm(positions - even, axis=1).max())
    distances = np.diff(positions @ normal)
    usual = float(np.median(distances))
    mean = float(np.linalg.norm(step))
    if off <= max(0.02 * mean, _SAME_POSITION_MM):
        return []
    result = (
        f"they are taken as {mean:.4g} mm apart throughout, which puts them up to {off:.3g} mm from where they were "
        "scanned"
    )
    gaps = np.flatnonzero(distances > 1.5 * usual)
    if len(gaps):
        missing = int(np.round(distances[gaps] / usual - 1).clip(min=1).sum())
        where = int(gaps[np.argmax(distances[gaps])])
        slices = "1 slice seems" if missing == 1 else f"{missing} slices seem"
        return [
            f"{slices} to be missing (slices are {usual:.4g} mm apart, but {distances[where]:.4g} mm between number "
            f"{where + 1} and {where + 2} of {len(positions)}); {result}"
        ]
    if distances.max() - distances.min() > 0.02 * mean:
        return [f"its slices are unevenly spaced ({distances.min():.4g} to {distances.max():.4g} mm); {result}"]
    return [f"its slices are shifted sideways against each other; {result}"]


# --------------------------------------------------------------------------------------------------------------------
# Voxels


def _voxels(stack: list[_Slice], component: int | None) -> np.ndarray:
    """(I, J, K) in the type that GDCM gives after the rescale slope and intercept."""
    if len({s.rescale for s in stack}) > 1:
        raise InputError(
            f"{stack[0].path} has another rescale slope for each frame, which cannot be read here; "
            "convert it to a series of single slices."
        )
    planes = []
    components = 1
    files: dict[Path, np.ndarray] = {}
    for s in stack:
        if s.path not in files:
            files.clear()  # a multi-frame file is read once, a single slice is not kept twice
            files[s.path], components = _pixels(s.path)
        voxels = files[s.path]
        if components > 1:
            voxels = voxels[..., pick_frame(s.path, components, "color components", component)]
        plane = voxels.reshape(-1, *voxels.shape[-2:])[s.frame or 0]
        if plane.shape != s.size[::-1]:
            raise not_an_image(s.path, "its pixels are not as many as its header says")
        planes.append(plane)
    return np.stack(planes).T


def _color(s: _Slice) -> np.ndarray:
    """(3, I, J, 1): red, green and blue of one picture."""
    voxels, _ = _pixels(s.path)
    if voxels.shape[-3:] != (*s.size[::-1], 3):
        raise not_an_image(s.path, "its pixels are not as many as its header says")
    return voxels.reshape(voxels.shape[-3:]).T[..., None]


def _pixels(path: Path) -> tuple[np.ndarray, int]:
    """The voxels of a file (frames, rows, columns) or (…, components), and how many components a voxel has."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with quiet_itk(sitk):
            picture = reader.Execute()
    except RuntimeError as error:
        raise not_an_image(path, "its pixels are truncated, damaged or of an unknown coding") from error
    return sitk.GetArrayFromImage(picture), picture.GetNumberOfComponentsPerPixel()


def is_color(path: Path) -> bool:
    """Whether a DICOM file, or the first picture in a DICOM folder, is in color; False for all that is no DICOM."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    slices = (s for file in files for s in _slices_of(file))
    first = next(slices, None)
    return first is not None and first.samples > 1
