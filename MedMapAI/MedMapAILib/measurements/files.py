"""Measurements from and to files, whatever their form: which reader a file wants is told by what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import check_place
from .data_exchange import is_data_exchange, read_data_exchange
from .fastmri import is_fastmri, read_fastmri
from .hdf5 import SIGNATURE, open_hdf5
from .ismrmrd import is_ismrmrd, read_ismrmrd
from .k_space import read_k_space, write_k_space
from .measured import CtMeasurement, Measurement
from .raw_sinogram import beside, read_description, read_sinogram, write_sinogram
from .stored import is_stored, read_stored, write_stored

#: Endings of files that may hold a measurement. An .nrrd does where a JSON with its geometry lies beside it.
ENDINGS = (".h5", ".hdf5", ".nrrd", ".npy")
_FORMATS = (
    "DataExchange, fastMRI or ISMRMRD in HDF5 (.h5), a sinogram in NRRD with its geometry in a JSON file beside it, "
    "or a k-space in .npy"
)


def read_measurement(
    path: str | Path,
    geometry: Path | Mapping[str, Any] | None = None,
    *,
    pixel_mm: float | None = None,
    image_size: int | tuple[int, int] | None = None,
    rows: tuple[int, int] | None = None,
    hounsfield: bool | None = None,
) -> Measurement:
    """The measurement in a file: a sinogram corrected and repaired, or a k-space; what was done is in its notes.

    geometry: a JSON file or dictionary that says what the file does not, or says it better (for the keys see
    ``raw_sinogram.read_sinogram`` and ``k_space.read_k_space``). pixel_mm, image_size (rows and columns, or one
    number): of the image to be made of a sinogram. rows: first and end of the rows of the detector, or of the slices,
    that are read. hounsfield: whether images of a sinogram are given in HU. Raises InputError.
    """
    path = Path(path)
    kind = _kind_of(path)
    wishes = {"pixel_mm": pixel_mm, "image_size": image_size, "hounsfield": hounsfield}
    if kind == "nrrd":
        found = _with_image(read_sinogram(path, geometry, **wishes), pixel_mm, image_size)
        return _some_slices(found, rows)
    if kind == "npy":
        return _some_slices(read_k_space(path, geometry), rows)
    with open_hdf5(path) as file:
        tests = {"stored": is_stored, "exchange": is_data_exchange, "fastmri": is_fastmri, "ismrmrd": is_ismrmrd}
        layout = next((name for name, test in tests.items() if test(file)), None)
        holds = ", ".join(list(file)[:8]) or "nothing"
    if layout == "exchange":
        said = None if geometry is None else read_description(geometry, path)
        return read_data_exchange(path, said, rows=rows, **wishes)
    if layout and geometry is not None:
        raise InputError(f"{path} says itself how it was measured; leave the geometry out.")
    if layout == "fastmri":
        return read_fastmri(path, slices=rows)
    if layout == "ismrmrd":
        return _some_slices(read_ismrmrd(path), rows)
    if layout == "stored":
        return _some_slices(_with_image(read_stored(path), pixel_mm, image_size), rows)
    raise InputError(f"{path} holds {holds}, which is no measurement that is known; known are {_FORMATS}.")


def is_measurement_file(path: str | Path) -> bool:
    """Whether a file looks like a measurement, by its ending and what lies beside it; nothing is read."""
    path = Path(path)
    if path.name.endswith(".sensitivities.npy"):
        return False
    ending = path.suffix.lower()
    return ending in ENDINGS and path.is_file() and (ending != ".nrrd" or beside(path).is_file())


def write_measurement(measurement: Measurement, path: str | Path) -> None:
    """Write a measurement: .h5 for both kinds, .nrrd for a sinogram, .npy for a k-space, the last two with a JSON file
    beside them. Raises InputError for another ending, and as ``files.atomic_file``."""
    path = Path(path)
    check_writable_measurement(path, kind=measurement.kind)
    if path.suffix.lower() in (".h5", ".hdf5"):
        write_stored(measurement, path)
    elif isinstance(measurement, CtMeasurement):
        write_sinogram(measurement, path)
    else:
        write_k_space(measurement, path)


def check_writable_measurement(path: str | Path, *, kind: str | None = None) -> None:
    """InputError where a measurement could not be written there. kind: "ct" or "mr", where that is known."""
    path = Path(path)
    fits = {"ct": (".nrrd", ".h5", ".hdf5"), "mr": (".npy", ".h5", ".hdf5")}
    endings = fits[kind] if kind else ENDINGS
    if path.suffix.lower() not in endings:
        what = {"ct": "A sinogram", "mr": "A k-space", None: "A measurement"}[kind]
        raise InputError(f"{what} is written to a file that ends in {' or '.join(endings)}, not to {path.name}.")
    check_place(path)


def _kind_of(path: Path) -> str:
    """ "hdf5", "nrrd" or "npy", by how the file begins. Raises InputError."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError as error:
        if isinstance(error, IsADirectoryError):
            raise InputError(f"{path} is a folder; give the file of the measurement.") from None
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    if start.startswith(SIGNATURE):
        return "hdf5"
    if start.startswith(b"NRRD"):
        return "nrrd"
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start[128:132] == b"DICM":
        raise InputError(f"{path} is a DICOM file; projections in DICOM-CT-PD are not read. Known are {_FORMATS}.")
    if not start:
        raise InputError(f"{path} is empty.")
    raise InputError(f"{path} is no measurement that is known; known are {_FORMATS}.")


def _with_image(measurement: Measurement, pixel_mm: float | None, size: int | tuple[int, int] | None) -> Measurement:
    """A sinogram whose image is another one, round the same center of rotation."""
    if not isinstance(measurement, CtMeasurement) or (pixel_mm is None and size is None):
        return measurement
    old = measurement.geometry
    size = old.image_size if size is None else (size, size) if isinstance(size, int) else size
    new = replace(old, pixel_mm=old.pixel_mm if pixel_mm is None else pixel_mm, image_size=size)
    affine = np.array(measurement.affine, dtype=float)
    middle = affine[:3, :2] @ ((np.array(old.image_size[::-1]) - 1) / 2)
    affine[:3, :2] *= new.pixel_mm / old.pixel_mm
    affine[:3, 3] += middle - affine[:3, :2] @ ((np.array(new.image_size[::-1]) - 1) / 2)
    return replace(measurement, geometry=new, affine=affine)


def _some_slices(measurement: Measurement, rows: tuple[int, int] | None) -> Measurement:
    """The slices from the first to before the end."""
    if rows is None:
        return measurement
    ct = isinstance(measurement, CtMeasurement)
    values = measurement.line_integrals if ct else measurement.k_space
    first, end = rows
    if not 0 <= first < end <= len(values):
        raise InputError(f"Slices {first} to {end} were asked for; the measurement has slices 0 to {len(values)}.")
    affine = measurement.affine.copy()
    affine[:3, 3] += affine[:3, 2] * first
    if ct:
        return replace(measurement, line_integrals=values[first:end], affine=affine)
    changes: dict[str, Any] = {"k_space": values[first:end], "affine": affine}
    for name in ("mask", "sensitivities"):
        value = getattr(measurement, name)
        if value is not None and len(value) == len(values) and value.ndim == (3 if name == "mask" else 4):
            changes[name] = value[first:end]
    return replace(measurement, **changes)
