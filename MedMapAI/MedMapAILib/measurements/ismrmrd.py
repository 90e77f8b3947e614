"""ISMRMRD files: one readout after the other, each with a header that says where in k-space it lies.

Inati and others, MRM 77 (2017). /dataset/xml holds the header, /dataset/data one record for each readout: head, traj,
data (real and imaginary parts by turns, coil after coil). Cartesian scans only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..image import ras_from_lps
from .grid import centered_affine
from .hdf5 import dataset, open_hdf5, text_of
from .k_space import check_samples, crop_of, sampled
from .measured import MrMeasurement
from .mr_header import MrHeader, read_header

if TYPE_CHECKING:
    import h5py

_KIND = "ISMRMRD"
#: Bits of a readout's flags, counted from 1 (ismrmrd.h): what is no part of the image, and other meanings.
_NOISE, _CALIBRATION, _CALIBRATION_AND_IMAGE, _REVERSE = 19, 20, 21, 22
_NO_IMAGE = (_NOISE, 23, 24, 26, 27, 28, 29, 30, 31)
#: Counters of which an image has one value; the first is taken.
_REPEATED = ("contrast", "phase", "repetition", "set")


def is_ismrmrd(file: h5py.File) -> bool:
    """Whether an open HDF5 file has this layout, whatever its group is called."""
    return _group(file) is not None


def read_ismrmrd(path: Path) -> MrMeasurement:
    """The k-space of a Cartesian scan; averages are averaged, and of contrasts, phases and repetitions the first taken.

    2D: a slice's rows are the readout, its columns the phase encoding. 3D: transformed along the readout, whose places
    are the slices then, with rows and columns the two phase encodings. Oversampling is cropped. The place in the
    patient is that of the readouts' headers. Raises InputError.
    """
    notes: list[str] = []
    with open_hdf5(path) as file:
        group = _group(file) or "dataset"
        header = read_header(text_of(dataset(file, f"{group}/xml", path, kind=_KIND)[...]), str(path))
        records = dataset(file, f"{group}/data", path, kind=_KIND)[...]
    if header.trajectory.lower() != "cartesian":
        raise InputError(f"{path} is a scan along a {header.trajectory} trajectory; only Cartesian ones are read.")
    if not {"head", "data"} <= set(records.dtype.names or ()):
        raise InputError(f"{path}: the records of {group}/data have no head and data, as ISMRMRD's have.")
    records, about = _of_the_image(records, header, path, notes)
    volume = _gridded(records, header, path, notes)
    three = header.encoded[2] > 1
    if three:
        values, affine, crop = _slices_of_a_block(volume, header, records[0]["head"])
    else:
        # (slice, coil, z = 1, y, x) → (slice, coil, x, y)
        values = np.ascontiguousarray(volume[:, :, 0].transpose(0, 1, 3, 2))
        crop = _cropped(header, (0, 1), values.shape[-2:])
        affine = _slice_affine(records, header, crop or values.shape[-2:], len(values), notes)
    check_samples(values, str(path))
    about |= {"source": _KIND, "encoding": "3D" if three else "2D"}
    return MrMeasurement(values, sampled(values), affine, None, crop, about=about, notes=tuple(notes))


def _group(file: h5py.File) -> str | None:
    names = ["dataset", *file]
    return next((n for n in names if n in file and hasattr(file[n], "keys") and {"xml", "data"} & set(file[n])), None)


def _flag(flags: np.ndarray, bit: int) -> np.ndarray:
    return (flags >> np.uint64(bit - 1)) & np.uint64(1) != 0


def _of_the_image(records: np.ndarray, header: MrHeader, path: Path, notes: list[str]) -> tuple[np.ndarray, dict]:
    """The records that make the image, and how many make what else."""
    flags = records["head"]["flags"].astype(np.uint64)
    other = np.any([_flag(flags, bit) for bit in _NO_IMAGE], axis=0)
    # Lines for calibration alone belong to the image where they were taken within it.
    if header.calibration.lower() not in ("embedded", "interleaved"):
        apart = _flag(flags, _CALIBRATION) & ~_flag(flags, _CALIBRATION_AND_IMAGE) & ~other
        if apart.any() and not (~other & ~apart).any():
            apart[:] = False
        if apart.any():
            notes.append(f"{int(apart.sum())} readouts for calibration, taken apart from the image, were left out.")
        other = other | apart
    kept = records[~other]
    if not len(kept):
        raise InputError(f"{path} has {len(records)} readouts, and none of them is of an image.")
    for name in _REPEATED:
        values = kept["head"]["idx"][name]
        if (values != values[0]).any():
            notes.append(f"The scan has several values of {name}; only the first, {int(values.min())}, was taken.")
            kept = kept[values == values.min()]
    return kept, {"readouts": len(kept), "noise_readouts": int(_flag(flags, _NOISE).sum())}


def _gridded(records: np.ndarray, header: MrHeader, path: Path, notes: list[str]) -> np.ndarray:
    """K-space (slice, coil, z, y, x), complex64, the center of each axis in its middle."""
    nx, ny, nz = header.encoded
    head = records["head"]
    coils = int(head["active_channels"][0])
    if not coils:
        raise InputError(f"{path} has zero coils in its readouts (active_channels); nothing was measured.")
    numbers, place = np.unique(head["idx"]["slice"], return_inverse=True)
    volume = np.zeros((len(numbers), coils, nz, ny, nx), np.complex64)
    times = np.zeros((len(numbers), nz, ny), np.int32)
    shifts = [n // 2 - (n // 2 if c is None else c) for n, c in zip((ny, nz), header.centers, strict=True)]
    for number, record in enumerate(records):
        one = record["head"]
        samples = int(one["number_of_samples"])
        where = f"{path}, readout {number} of those of the image,"
        line = np.asarray(record["data"], dtype=np.float32)
        if int(one["active_channels"]) != coils or line.size != 2 * coils * samples:
            raise InputError(
                f"{where} holds {line.size} numbers; {coils} coils of {samples} complex samples are "
                f"{2 * coils * samples}: its header and its data do not fit."
            )
        line = line.view(np.complex64).reshape(coils, samples)
        first, end = int(one["discard_pre"]), samples - int(one["discard_post"])
        line, center = line[:, first:end], int(one["center_sample"]) - first
        if _flag(np.asarray(one["flags"], dtype=np.uint64), _REVERSE):
            line, center = line[:, ::-1], line.shape[1] - 1 - center
        y, z = int(one["idx"]["kspace_encode_step_1"]) + shifts[0], int(one["idx"]["kspace_encode_step_2"]) + shifts[1]
        start = nx // 2 - center
        if not (0 <= y < ny and 0 <= z < nz and 0 <= start and start + line.shape[1] <= nx):
            raise InputError(
                f"{where} lies outside of the encoded space of {nx} × {ny} × {nz} samples: line {y}, partition {z}, "
                f"samples {start} to {start + line.shape[1]}."
            )
        volume[place.ravel()[number], :, z, y, start : start + line.shape[1]] += line
        times[place.ravel()[number], z, y] += 1
    if times.max() > 1:
        notes.append(f"Lines that were measured several times, up to {int(times.max())} times, were averaged.")
        volume /= np.maximum(times, 1)[:, None, :, :, None]
    return volume


def _cropped(header: MrHeader, axes: tuple[int, int], size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of the field of view that the scanner shows; the axes of the header that they are."""
    parts = [min(1.0, header.recon_mm[axis] / header.encoded_mm[axis]) for axis in axes]
    wanted = [max(1, round(count * part)) for count, part in zip(size, parts, strict=True)]
    # An odd part of an even number of pixels would have its middle elsewhere.
    return crop_of([part + (count % 2 == 0 and part % 2) for count, part in zip(size, wanted, strict=True)], size)


def _slices_of_a_block(
    volume: np.ndarray, header: MrHeader, head: np.void
) -> tuple[np.ndarray, np.ndarray, tuple[int, int] | None]:
    """A 3D scan as slices across its readout, which is sampled whole: (x, coil, y, z)."""
    along = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(volume[0], axes=-1), norm="ortho"), axes=-1)
    values = along.transpose(3, 0, 2, 1)
    wanted = max(1, round(len(values) * min(1.0, header.recon_mm[0] / header.encoded_mm[0])))
    first = len(values) // 2 - wanted // 2
    values = np.ascontiguousarray(values[first : first + wanted], dtype=np.complex64)
    # What was zero before the transform is zero after it, but for rounding.
    taken = (volume[0] != 0).any(axis=(0, 3)).T
    values *= taken
    crop = _cropped(header, (1, 2), values.shape[-2:])
    rows, columns = crop or values.shape[-2:]
    x, y, z = header.pixel_mm
    axes = (head["slice_dir"], head["phase_dir"], head["read_dir"])
    return values, _affine(head["position"], axes, (z, y, x), (columns, rows, wanted)), crop


def _slice_affine(
    records: np.ndarray, header: MrHeader, size: tuple[int, int], count: int, notes: list[str]
) -> np.ndarray:
    """Of slices (rows = readout, columns = phase encoding), which follow each other as their numbers do."""
    heads = records["head"]
    numbers = heads["idx"]["slice"]
    _, first, last = (heads[numbers == n][0] for n in (numbers.min(), numbers.min(), numbers.max()))
    x, y, thickness = header.pixel_mm
    step = (last["position"].astype(float) - first["position"]) / max(1, count - 1)
    distance = float(np.linalg.norm(step))
    normal = first["slice_dir"]
    if count > 1 and distance > 1e-3:
        normal, thickness = step / distance, distance
    elif count > 1:
        notes.append("The slices are said to be in one place; they were put beside each other.")
    affine = _affine(
        first["position"], (first["phase_dir"], first["read_dir"], normal), (y, x, thickness), (*size[::-1], 1)
    )
    return affine


def _affine(position: np.ndarray, axes: tuple, spacing: tuple, shape: tuple[int, int, int]) -> np.ndarray:
    """4×4, index → RAS mm, of axes and a middle in LPS mm. The middle of n pixels is the pixel n // 2."""
    directions = np.array([np.asarray(axis, dtype=float) for axis in axes]).T
    lengths = np.linalg.norm(directions, axis=0)
    if (lengths < 0.5).any() or abs(np.linalg.det(directions / np.maximum(lengths, 1e-9))) < 0.5:
        # The header says nothing on directions.
        return centered_affine(shape, spacing)
    matrix = np.eye(4)
    matrix[:3, :3] = directions / lengths * np.asarray(spacing)
    matrix[:3, 3] = np.asarray(position, dtype=float) - matrix[:3, :3] @ [n // 2 for n in shape]
    return ras_from_lps(matrix)
