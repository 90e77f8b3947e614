"""Images that know where they are in the patient: reading and writing files, and checking that two of them match.

An image is a MONAI ``MetaTensor``: channel first ``(C, I, J, K)``, float32, with ``affine`` (4x4, float64) mapping a
voxel index (i, j, k) to a position in the patient in **RAS millimeters**. The coordinates of a voxel are those of its
center. ITK and DICOM count in LPS; :func:`ras_from_lps` and :func:`lps_from_ras` are the one place where that is
turned around.

Nothing here keeps who the patient is: names, birth dates and identifiers are not read into ``image.meta`` and are not
in any message.

torch and MONAI are imported where they are needed, so that Slicer can import this file before they are installed.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .files import atomic_file
from .graphics import keep_triton_out
from .pictures import ENDINGS as PICTURES
from .pictures import is_picture, read_picture

if TYPE_CHECKING:
    import SimpleITK
    from monai.data import MetaTensor

READABLE = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
WRITABLE = (".nrrd", ".nii", ".nii.gz", ".mha")

# Two images have the same geometry when no corner of one lies further than this part of a voxel from the same corner
# of the other: far below what an eye or a metric sees, far above what six decimals in a header lose.
GEOMETRY_TOLERANCE_VOXELS = 0.01

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class GeometryWarning(UserWarning):
    """What was read is not exactly what the file says, or may not lie where it seems to. Also in ``meta["notes"]``."""


@dataclass(frozen=True)
class Volume:
    """Voxels as they are in a file, before they become an image.

    ``array`` is (I, J, K) in the type of the file, or (3, I, J, K) for red, green and blue of a color picture,
    ``affine`` is 4x4, voxel index to RAS mm, ``notes`` are sentences about the geometry that the user should know,
    ``meta`` holds further facts (never about who the patient is).
    """

    array: np.ndarray
    affine: np.ndarray
    notes: tuple[str, ...]
    meta: dict[str, Any]


# --------------------------------------------------------------------------------------------------------------------
# Coordinates


def ras_from_lps(affine: np.ndarray) -> np.ndarray:
    """A 4x4 matrix that ends in LPS mm (ITK, DICOM) made to end in RAS mm (Slicer, NIfTI)."""
    return _LPS_RAS @ np.asarray(affine, dtype=np.float64)


def lps_from_ras(affine: np.ndarray) -> np.ndarray:
    """A 4x4 matrix that ends in RAS mm made to end in LPS mm."""
    return _LPS_RAS @ np.asarray(affine, dtype=np.float64)


def spacing(image: Any) -> tuple[float, float, float]:
    """Distance in mm between neighboring voxels along i, j, k. Takes whatever has an ``affine``, or a 4x4 matrix."""
    affine = affine_of(image)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return (float(lengths[0]), float(lengths[1]), float(lengths[2]))


def affine_of(image: Any) -> np.ndarray:
    """The 4x4 matrix voxel index → RAS mm (numpy, float64) of what has an ``affine``, or of a matrix itself."""
    affine = getattr(image, "affine", image)
    if hasattr(affine, "detach"):
        affine = affine.detach().cpu().numpy()
    return np.asarray(affine, dtype=np.float64)


def _shape_of(image: Any) -> tuple[int, int, int]:
    """(I, J, K) of an image (C, I, J, K), or of what holds ``labels`` or ``array`` (I, J, K)."""
    for name in ("labels", "array"):
        voxels = getattr(image, name, None)
        if isinstance(voxels, np.ndarray):
            return tuple(int(n) for n in voxels.shape[-3:])
    return tuple(int(n) for n in image.shape[-3:])


def check_affine(affine: np.ndarray, what: str) -> np.ndarray:
    """The matrix as float64, or InputError (it begins with ``what``) where it cannot place voxels in the patient."""
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise InputError(f"{what} has a voxel-to-patient matrix of shape {matrix.shape}; it must be 4x4.")
    if not np.isfinite(matrix).all():
        raise InputError(f"{what} has numbers in its geometry that are not finite; repair its header.")
    if not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise InputError(f"{what} has a voxel-to-patient matrix whose last row is not 0 0 0 1; repair its header.")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if (lengths <= 0).any():
        raise InputError(
            f"{what} has a voxel spacing of {_numbers(lengths)} mm; each must be greater than zero: repair its header."
        )
    # 1e-4 is the volume of a voxel of length 1 whose axes are 0.006 degrees from lying in one plane.
    if abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-4:
        raise InputError(f"{what} has axes that lie in one plane, so its voxels have no volume; repair its header.")
    return matrix


def make_image(array: Any, affine: Any, *, meta: dict[str, Any] | None = None) -> MetaTensor:
    """An image from voxels (C, I, J, K) of any number type and a 4x4 matrix voxel index → RAS mm.

    Raises InputError where the array is not 4D or empty, or the matrix is not finite, singular or has a zero spacing.
    Voxel values are converted to float32 and not looked at (see :func:`check_finite`).
    """
    keep_triton_out()
    import torch
    from monai.data import MetaTensor

    if isinstance(affine, torch.Tensor):
        affine = affine.detach().cpu().numpy()
    matrix = check_affine(affine, "The image")
    if isinstance(array, torch.Tensor):
        voxels = array.detach().as_subclass(torch.Tensor).to(torch.float32)
    else:
        voxels = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if voxels.ndim != 4 or 0 in voxels.shape:
        raise InputError(
            f"An image must be a non-empty array (channel, i, j, k), not one of shape {tuple(voxels.shape)}."
        )
    kept = {"notes": [], "space": "RAS"}
    kept.update(meta or {})
    return MetaTensor(voxels, affine=torch.from_numpy(matrix.copy()), meta=kept)


# --------------------------------------------------------------------------------------------------------------------
# Checks


def check_finite(array: np.ndarray, what: str) -> None:
    """InputError where voxels (…, I, J, K) are NaN or infinite: how many, and the index of the first."""
    if array.dtype.kind not in "fc":
        return
    # The sum is NaN or infinite if any voxel is; it costs a fifth of isfinite() and is nearly always enough.
    with np.errstate(all="ignore"):
        if np.isfinite(np.sum(array, dtype=np.float64)):
            return
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if count:
        first = np.unravel_index(int(np.argmax(bad)), array.shape)[-3:]
        where = ", ".join(str(int(n)) for n in first)
        noun, verb = ("voxel", "is") if count == 1 else ("voxels", "are")
        raise InputError(
            f"{what} has {count} {noun} that {verb} NaN or infinite, the first at index ({where}); "
            "replace them by a number first."
        )


def check_not_constant(image: Any, what: str | Path) -> None:
    """InputError where every voxel of the image has the same value, so that there is nothing in it to look at."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        raise InputError(f"{what} has the same value, {low:g}, in every voxel; there is nothing to see in it.")


def check_same_geometry(a: Any, b: Any, what_a: str, what_b: str) -> None:
    """InputError that names what differs (size, spacing, origin or direction) unless voxels of a and b coincide.

    a and b are images or segmentations. They coincide if the sizes are equal and all eight corners are within
    1 % of the smallest voxel edge of each other; the value of the voxels plays no part.
    """
    shape_a, shape_b = _shape_of(a), _shape_of(b)
    if shape_a != shape_b:
        raise InputError(
            f"{what_a} has {_times(shape_a)} voxels and {what_b} has {_times(shape_b)}; "
            "resample one to the grid of the other."
        )
    affine_a, affine_b = affine_of(a), affine_of(b)
    apart = _corners_apart(shape_a, affine_a, affine_b)
    tolerance = GEOMETRY_TOLERANCE_VOXELS * min(*spacing(a), *spacing(b))
    # A direction along which there is one voxel moves no corner, but its spacing still is the thickness.
    lengths_a, lengths_b = np.array(spacing(a)), np.array(spacing(b))
    if apart <= tolerance and np.allclose(lengths_a, lengths_b, rtol=GEOMETRY_TOLERANCE_VOXELS):
        return
    sizes = np.array(shape_a)
    directions_a, directions_b = affine_a[:3, :3] / lengths_a, affine_b[:3, :3] / lengths_b
    if (np.abs(lengths_a - lengths_b) * np.maximum(sizes - 1, 1) > tolerance).any():
        difference = f"the spacing is {_numbers(lengths_a)} mm against {_numbers(lengths_b)} mm"
    elif (np.linalg.norm(directions_a - directions_b, axis=0) * lengths_a * sizes > tolerance).any():
        cosine = np.clip((directions_a * directions_b).sum(axis=0), -1, 1)
        angle = float(np.degrees(np.arccos(cosine)).max())
        difference = f"the directions of the axes differ by up to {angle:.3g} degrees"
    else:
        difference = f"the origin (RAS) is {_numbers(affine_a[:3, 3])} mm against {_numbers(affine_b[:3, 3])} mm"
    raise InputError(
        f"{what_a} and {what_b} are not in the same place: {difference}, and voxels lie up to {apart:.3g} mm apart; "
        "resample one to the grid of the other."
    )


def in_voxel_order(array: np.ndarray, affine: np.ndarray, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels (I, J, K) and their matrix, in the order of axes and directions that the matrix ``like`` has.

    Programs store one volume in different orders. Where its axes are not those of ``like``, as of an image that lies
    obliquely to it or has other voxels, it is given back as it is; whether it lies in the same place is not looked at.
    """
    from nibabel import orientations

    orientation = _orientation_between(affine, like)
    if orientation is None:
        return array, affine
    turned = np.ascontiguousarray(orientations.apply_orientation(array, orientation))
    return turned, affine @ orientations.inv_ornt_aff(orientation, array.shape)


def image_in_voxel_order(image: MetaTensor, like: np.ndarray) -> MetaTensor:
    """An image (C, I, J, K) with its voxels in the order of the matrix ``like``; see ``in_voxel_order``."""
    if _orientation_between(affine_of(image), like) is None:
        return image
    channels = [in_voxel_order(channel, affine_of(image), like) for channel in image.numpy()]
    about = {key: value for key, value in image.meta.items() if key != "affine"}
    return make_image(np.stack([values for values, _ in channels]), channels[0][1], meta=about)


def _orientation_between(affine: np.ndarray, like: np.ndarray) -> np.ndarray | None:
    """nibabel's orientation from one order of voxels to another; None where it is the same, or there is none."""
    from nibabel import orientations

    steps = np.linalg.solve(np.asarray(like, float)[:3, :3], np.asarray(affine, float)[:3, :3])
    signs = np.rint(steps)
    one_each = (np.abs(signs).sum(axis=0) == 1).all() and (np.abs(signs).sum(axis=1) == 1).all()
    if not one_each or np.abs(steps - signs).max() > GEOMETRY_TOLERANCE_VOXELS or (signs == np.eye(3)).all():
        return None
    turn = np.eye(4)
    turn[:3, :3] = signs
    return orientations.io_orientation(turn)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{float(v):.6g}" for v in values)


def _times(shape: Sequence[int]) -> str:
    return "×".join(str(int(n)) for n in shape)


# --------------------------------------------------------------------------------------------------------------------
# Reading


def read_image(path: str | Path, *, series: str | int | None = None, frame: int | None = None) -> MetaTensor:
    """An image (C, I, J, K) from a volume file (.nrrd .nhdr .nii .nii.gz .mha .mhd), a DICOM folder, a DICOM file, or a
    picture (.png .jpg .jpeg).

    There is one channel, and of a color picture (also a DICOM one, such as an ultrasound image) there are three: red,
    green and blue. ``series`` picks one of several DICOM series: its number in the list that the message gives (from
    1), its SeriesInstanceUID or the end of it. ``frame`` (from 0) picks one of the frames of a 4D image or one
    component of a vector or color image. Values are as the file means them: with rescale slope and intercept applied,
    so CT is in HU.

    What is unusual about the geometry (gaps, uneven or tilted slices, no known position) is in
    ``image.meta["notes"]`` and is warned of (:class:`GeometryWarning`).

    Raises InputError with one sentence for everything that cannot be read as one 3D image.
    """
    path = Path(path)
    volume = read_volume(path, series=series, frame=frame, color=True)
    check_finite(volume.array, str(path))
    voxels = volume.array if volume.array.ndim == 4 else volume.array[None]
    return make_image(voxels, volume.affine, meta={**volume.meta, "notes": list(volume.notes)})


def read_volume(
    path: str | Path, *, series: str | int | None = None, frame: int | None = None, color: bool = False
) -> Volume:
    """The voxels of a file or DICOM folder in their own number type; otherwise as :func:`read_image`.

    ``color``: a color picture comes as (3, I, J, K); without it, one of its colors has to be chosen.
    """
    path = Path(path)
    kind = _kind_of(path)
    try:
        if kind == "dicom":
            from .dicom import read_dicom

            volume = read_dicom(path, series=series, frame=frame, color=color)
        elif kind == "picture":
            volume = read_picture(path, frame=frame, color=color)
        elif kind == "nifti":
            volume = _read_nifti(path, frame)
        else:
            volume = _read_itk(path, frame)
    except MemoryError as error:
        raise InputError(
            f"{path} does not fit into the memory of this computer; crop or downsample it first."
        ) from error
    check_affine(volume.affine, str(path))
    if 0 in volume.array.shape:
        raise InputError(f"{path} holds no voxels (its size is {_times(volume.array.shape)}).")
    for note in volume.notes:
        warnings.warn(f"{path}: {note}", GeometryWarning, stacklevel=3)
    return volume


def ending_of(path: str | Path) -> str:
    """The ending of a file name that says its format, in lower case: ``.nii.gz`` and ``.seg.nrrd`` count as one."""
    name = Path(path).name.lower()
    for double in (".nii.gz", ".seg.nrrd"):
        if name.endswith(double):
            return double
    return Path(name).suffix


def _kind_of(path: Path) -> str:
    """dicom, picture, nifti or itk; InputError for what is none of them."""
    if path.is_dir():
        return "dicom"
    if not path.exists():
        raise InputError(f"There is no file or folder {path}.")
    if not path.is_file():
        raise InputError(f"{path} is not a file; name a volume file or a DICOM folder.")
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if not start:
        raise InputError(f"{path} is an empty file.")
    ending = ending_of(path)
    if start[128:] == b"DICM" or ending in (".dcm", ".ima"):
        return "dicom"
    if is_picture(path):
        return "picture"
    if ending in (".nii", ".nii.gz"):
        return "nifti"
    if ending in READABLE or ending == ".seg.nrrd":
        return "itk"
    raise InputError(
        f"{path} is not an image that can be read here; use {', '.join(READABLE)}, a picture "
        f"({', '.join(PICTURES)}), a DICOM file or a DICOM folder."
    )


def not_an_image(path: Path, reason: str) -> InputError:
    """The error for a file whose ending promises an image and whose bytes are none."""
    return InputError(f"{path} cannot be read as an image: {reason}; get a whole copy of it or convert it again.")


def pick_frame(path: Path, count: int, what: str, frame: int | None) -> int:
    """The frame to take of ``count``; ``what`` says what they are ("frames", "components")."""
    if frame is None:
        if count == 1:
            return 0
        raise InputError(
            f"{path} holds {count} {what} where one 3D image is needed; choose one with frame=N (--frame N), "
            f"N from 0 to {count - 1}."
        )
    if not 0 <= int(frame) < count:
        raise InputError(f"{path} has no frame {frame}: it holds {count} {what}, counted from 0.")
    return int(frame)


def _read_nifti(path: Path, frame: int | None) -> Volume:
    """A NIfTI file by nibabel. SimpleITK is not used: it fills a truncated file with zeros and says nothing."""
    nibabel = _import_nibabel()
    _check_nifti_spacing(path, nibabel)
    try:
        file = nibabel.load(path)
    except (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        OSError,
        EOFError,
        zlib.error,
        ValueError,
    ) as error:
        raise not_an_image(path, "it is not a whole NIfTI file") from error
    header = file.header
    shape = tuple(int(n) for n in file.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    components = header.get_data_dtype().fields
    affine, notes = _nifti_affine(file)
    try:
        if components is not None:
            names = list(components)
            chosen = pick_frame(path, len(names), "color components", frame)
            data = np.asanyarray(file.dataobj)[names[chosen]]
            data = data.reshape(shape)
        elif len(shape) > 3:
            counts = shape[3:]
            chosen = pick_frame(path, int(np.prod(counts)), "frames", frame)
            index = np.unravel_index(chosen, counts, order="F")
            data = np.asanyarray(file.dataobj[(..., *[int(n) for n in index], *[0] * (len(file.shape) - len(shape)))])
        else:
            pick_frame(path, 1, "frame", frame)
            data = np.asanyarray(file.dataobj).reshape(shape)
        _check_whole(path, file)
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise not_an_image(path, "it is truncated or damaged") from error
    if data.dtype.kind == "c":
        raise InputError(f"{path} has complex voxels; save its magnitude as an image first.")
    data = data.reshape(data.shape + (1,) * (3 - data.ndim))
    return Volume(data, affine, tuple(notes), {})


def _check_nifti_spacing(path: Path, nibabel: Any) -> None:
    """InputError where a step of the grid is not greater than zero: nibabel and ITK take 1 or drop the sign."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            block = stream.read(540)
        sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")}
        kind = nibabel.Nifti2Header if 540 in sizes else nibabel.Nifti1Header
        header = kind(block[: kind.template_dtype.itemsize], check=False)
    except (OSError, EOFError, zlib.error, ValueError, nibabel.wrapstruct.WrapStructError) as error:
        raise not_an_image(path, "it is not a whole NIfTI file") from error
    if {348, 540} & sizes:
        check_spacing(path, header["pixdim"][1 : 1 + min(max(int(header["dim"][0]), 0), 3)])


def _import_nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise InputError("Reading and writing NIfTI files needs the Python package nibabel: install it.") from error
    return nibabel


def _check_whole(path: Path, file: Any) -> None:
    """Raise EOFError where a NIfTI file is too short, and gzip's errors where its checksum is wrong.

    nibabel reads no further than the voxels it wants, and so sees neither.
    """
    header = file.header
    expected = int(file.dataobj.offset) + int(np.prod(file.shape)) * header.get_data_dtype().itemsize
    if path.name.lower().endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            present = sum(len(part) for part in iter(lambda: stream.read(1 << 22), b""))
    else:
        present = path.stat().st_size
    if present < expected:
        raise EOFError


def _nifti_affine(file: Any) -> tuple[np.ndarray, list[str]]:
    """Voxel index → RAS mm by the rule of ITK, and so of Slicer, where the two forms of a NIfTI header disagree.

    The sform is taken where it is in scanner coordinates (code 1), there is no qform, or both say the same; else the
    qform. (nibabel itself always prefers the sform.) A file with neither is placed as ITK does it. Only where the axes
    of an sform of code 1 are not at right angles ITK takes the qform, and the sform is kept here.
    """
    header = file.header
    sform, scode = header.get_sform(coded=True)
    qform, qcode = header.get_qform(coded=True)
    notes = []
    if not scode and not qcode:
        lengths = np.ones(3)
        lengths[: min(file.ndim, 3)] = header["pixdim"][1 : 1 + min(file.ndim, 3)]
        notes.append("the file does not say where in the patient it lies; left-right and front-back may be flipped")
        return ras_from_lps(np.diag([*lengths, 1.0])), notes
    affine = np.asarray(sform if scode else qform, dtype=np.float64)
    if scode and qcode:
        apart = _corners_apart(file.shape, sform, qform)
        if apart > 0.1 * np.linalg.norm(sform[:3, :3], axis=0).min():
            affine = np.asarray(sform if scode == 1 else qform, dtype=np.float64)
            notes.append(
                f"the two positions in its header (qform and sform) are up to {apart:.3g} mm apart; "
                f"the {'sform' if scode == 1 else 'qform'} is used"
            )
    return affine, notes + shear_notes(affine)


def _corners_apart(shape: Sequence[int], affine_a: np.ndarray, affine_b: np.ndarray) -> float:
    """The largest distance (mm) between the centers of the same corner voxel of a grid in two places."""
    last = [*(int(n) - 1 for n in shape[:3]), 0, 0][:3]
    corners = np.array([(i, j, k, 1.0) for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])])
    return float(np.linalg.norm((corners @ affine_a.T - corners @ affine_b.T)[:, :3], axis=1).max())


def shear_notes(affine: np.ndarray) -> list[str]:
    """A sentence where the axes are not at right angles (by more than 0.1 degrees), as after a tilted gantry."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs([axes[:, 0] @ axes[:, 1], axes[:, 0] @ axes[:, 2], axes[:, 1] @ axes[:, 2]])
    angle = float(np.degrees(np.arcsin(min(cosines.max(), 1.0))))
    if not np.isfinite(angle) or angle < 0.1:
        return []
    return [f"its axes are {angle:.3g} degrees off a right angle; it is kept sheared, as it is"]


def _read_itk(path: Path, frame: int | None) -> Volume:
    """A NRRD or MetaImage file by SimpleITK."""
    import SimpleITK as sitk

    _check_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_itk(sitk):
            reader.ReadImageInformation()
            size = list(reader.GetSize())
            components = reader.GetNumberOfComponents()
            dimension = reader.GetDimension()
            while len(size) > 3 and size[-1] == 1:
                size.pop()
            frames = int(np.prod(size[3:])) if len(size) > 3 else 1
            chosen = 0
            if components > 1 and frames > 1:
                raise InputError(f"{path} is a 4D image of vectors ({components} components); save one 3D image of it.")
            if components > 1:
                chosen = pick_frame(path, components, "frames or components", frame)
            else:
                chosen = pick_frame(path, frames, "frames", frame)
            if frames > 1:
                index = np.unravel_index(chosen, size[3:], order="F")
                reader.SetExtractIndex([0, 0, 0, *[int(n) for n in index], *[0] * (dimension - len(size))])
                reader.SetExtractSize([*size[:3], *[0] * (dimension - 3)])
            picture = reader.Execute()
    except RuntimeError as error:
        raise not_an_image(path, _reason_of(error)) from error
    array = sitk.GetArrayFromImage(picture)
    if components > 1:
        array = array[..., chosen]
    if array.dtype.kind == "c":
        raise InputError(f"{path} has complex voxels; save its magnitude as an image first.")
    array = array.T
    array = array.reshape((*array.shape, 1)[:3])
    affine = affine_of_itk(picture)
    notes = shear_notes(affine)
    if dimension < 3:
        notes.append("it is a 2D image, taken as one slice of 1 mm at height 0")
    return Volume(array, affine, tuple(notes), {})


def affine_of_itk(picture: SimpleITK.Image) -> np.ndarray:
    """Voxel index → RAS mm of an ITK image of 2, 3 or 4 dimensions (the first three are space)."""
    dimension = picture.GetDimension()
    count = min(dimension, 3)
    affine = np.eye(4)
    direction = np.array(picture.GetDirection()).reshape(dimension, dimension)[:count, :count]
    affine[:count, :count] = direction * np.array(picture.GetSpacing())[:count]
    affine[:count, 3] = np.array(picture.GetOrigin())[:count]
    return ras_from_lps(affine)


def set_itk_geometry(picture: SimpleITK.Image, affine: np.ndarray) -> None:
    """Give an ITK image of three dimensions the place that a matrix voxel index → RAS mm describes."""
    matrix = lps_from_ras(affine)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    picture.SetSpacing([float(n) for n in lengths])
    picture.SetDirection([float(n) for n in (matrix[:3, :3] / lengths).ravel()])
    picture.SetOrigin([float(n) for n in matrix[:3, 3]])


@contextlib.contextmanager
def quiet_itk(sitk: Any) -> Iterator[None]:
    """ITK's warnings off: what matters of them is found and said by this library itself."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _reason_of(error: Exception) -> str:
    """What ITK says went wrong, in our words: its own text spans lines and names its source files."""
    text = str(error)
    if "Unable to determine ImageIO reader" in text:
        return "it is not of the format that its ending says"
    if re.search(r"got only|expected \d+ bytes|not read completely|data read error|File cannot be read", text):
        return "it is truncated or damaged"
    if "spacing" in text:
        return "its voxel spacing is zero or not a number"
    return "its header or its data is damaged"


def _check_header(path: Path) -> None:
    """Refuse what SimpleITK would silently turn into something else: negative spacings, damaged MetaImages."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if ending_of(path) in (".mha", ".mhd"):
        if not re.match(rb"\s*\w+\s*=", start):
            raise not_an_image(path, "it is not of the format that its ending says")
        _check_meta_data(path, start)
        lengths = re.search(rb"^[ \t]*(?:ElementSpacing|ElementSize)[ \t]*=([^\r\n]*)", start, re.MULTILINE)
        unknown = 0
    else:
        if not start.startswith(b"NRRD"):
            raise not_an_image(path, "it is not of the format that its ending says")
        lengths = re.search(rb"^spacings:([^\r\n]*)", re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0], re.MULTILINE)
        unknown = 1  # NaN is how an axis that is not spatial (time, color) says so
    if lengths is not None:
        check_spacing(path, lengths.group(1).decode("ascii", "replace").split(), unknown)


def check_spacing(path: Path, words: Sequence[Any], unknown: int = 0) -> None:
    """InputError where a spacing in a header is no number greater than zero; ``unknown`` of them may be NaN."""
    try:
        lengths = [float(word) for word in words]
    except ValueError:
        raise not_an_image(path, f"its voxel spacing is {' '.join(words)!r}") from None
    if any(n <= 0 or np.isinf(n) for n in lengths) or sum(np.isnan(lengths)) > unknown:
        raise InputError(
            f"{path} gives a voxel spacing of {_numbers(lengths)} mm; each must be greater than zero: repair its "
            "header."
        )


# Bytes of a voxel component in a MetaImage.
_META_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}


def _check_meta_data(path: Path, start: bytes) -> None:
    """InputError where the voxels of a MetaImage are cut off or damaged.

    Of compressed ones ITK takes what it has got so far; of others it prints lines of its own before it gives up.
    """

    def field(name: str, default: str) -> str:
        found = re.search(rb"^[ \t]*%s[ \t]*=([^\r\n]*)\r?\n" % name.encode(), start, re.MULTILINE)
        return found.group(1).decode("utf-8", "replace").strip() if found else default

    here = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[^\r\n]*\r?\n", start, re.MULTILINE)
    if here is None:
        return
    name = field("ElementDataFile", "")
    data, offset = (path, here.end()) if name.upper() == "LOCAL" else (path.parent / name, 0)
    try:
        if field("CompressedData", "False").casefold() in ("true", "1"):
            with data.open("rb") as file:
                file.seek(offset)
                stream = zlib.decompressobj()
                while not stream.eof and (part := file.read(1 << 22)):
                    stream.decompress(part)
            whole = stream.eof
        elif data == path:
            size = _META_BYTES.get(field("ElementType", "").replace("MET_", "").removeprefix("U"), 0)
            count = int(np.prod([int(word) for word in field("DimSize", "0").split()]))
            whole = path.stat().st_size - offset >= count * size * int(field("ElementNumberOfChannels", "1"))
        else:
            whole = True  # lists and patterns of files: ITK's own business
    except ValueError as error:
        raise not_an_image(path, "its header is damaged") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: its voxels should be in {data} ({error.strerror}).") from error
    except zlib.error as error:
        raise not_an_image(path, "it is truncated or damaged") from error
    if not whole:
        raise not_an_image(path, "it is truncated or damaged")


# --------------------------------------------------------------------------------------------------------------------
# Writing


def write_image(image: Any, path: str | Path) -> None:
    """Write an image (C, I, J, K) to .nrrd, .nii, .nii.gz or .mha; more than one channel become a vector image.

    The file appears whole or not at all: it is written beside its place and moved there. InputError where the ending
    or the folder is wrong, RunError where the disk is full or fails.
    """
    path = Path(path)
    affine = check_affine(affine_of(image), "The image")
    voxels = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if voxels.ndim != 4:
        raise InputError(f"An image must be an array (channel, i, j, k), not one of shape {voxels.shape}.")
    write_array(voxels if voxels.shape[0] > 1 else voxels[0], affine, path)


def write_array(
    voxels: np.ndarray, affine: np.ndarray, path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    """Write voxels (I, J, K) or (C, I, J, K) in their own number type; otherwise as :func:`write_image`.

    ``metadata`` are further header fields; only NRRD keeps them.
    """
    path = Path(path)
    ending = ending_of(path)
    if ending not in (".seg.nrrd", *WRITABLE):
        raise InputError(f"{path} cannot be written: its name must end in one of {', '.join(WRITABLE)}.")
    with atomic_file(path, ending) as temporary:
        if ending in (".nii", ".nii.gz"):
            _write_nifti(voxels, affine, temporary)
        else:
            _write_itk(voxels, affine, temporary, metadata or {})


def _write_nifti(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    nibabel = _import_nibabel()
    if voxels.dtype == bool:
        voxels = voxels.astype(np.uint8)
    data = voxels if voxels.ndim == 3 else np.moveaxis(voxels, 0, -1)[:, :, :, None, :]
    kind = nibabel.Nifti1Image if max(data.shape) < 2**15 else nibabel.Nifti2Image
    file = kind(data, affine)
    file.header.set_xyzt_units("mm")
    if voxels.ndim == 4:
        file.header.set_intent("vector")
    # Scanner coordinates, in both forms, so that every reader takes the same.
    file.set_sform(affine, code=1)
    file.set_qform(affine, code=1, strip_shears=True)
    nibabel.save(file, path)


def _write_itk(voxels: np.ndarray, affine: np.ndarray, path: Path, metadata: dict[str, str]) -> None:
    import SimpleITK as sitk

    if voxels.dtype == bool:
        voxels = voxels.astype(np.uint8)
    if voxels.ndim == 4:
        picture = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T), isVector=True)
    else:
        picture = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    set_itk_geometry(picture, affine)
    for key, value in metadata.items():
        picture.SetMetaData(key, value)
    try:
        with quiet_itk(sitk):
            sitk.WriteImage(picture, str(path), useCompression=True)
            # ITK does not notice when the last bytes find no room on the disk, so the file is read again.
            back = sitk.ReadImage(str(path))
        # Both images must outlive the views into their memory.
        whole = np.array_equal(
            sitk.GetArrayViewFromImage(back), sitk.GetArrayViewFromImage(picture), equal_nan=voxels.dtype.kind == "f"
        )
        if not whole:
            raise RuntimeError
    except RuntimeError as error:
        # ITK has lost the reason by now; a full disk is by far the most frequent one.
        raise OSError(errno.ENOSPC, "No space left on device") from error
