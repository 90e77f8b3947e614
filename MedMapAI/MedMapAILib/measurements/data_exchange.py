"""X-ray scans in the DataExchange layout of synchrotrons: raw counts, flat and dark fields, angles.

De Carlo and others, "Scientific data exchange: a schema for HDF5-based storage of raw and analyzed data", Journal of
Synchrotron Radiation 21 (2014): /exchange/data (angle, row, column), data_white, data_dark, theta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError
from ..physics.center_of_rotation import center_of_rotation
from ..physics.counts import check_counts
from ..physics.ct_geometry import Geometry, ParallelBeam
from ..physics.flat_field import flat_field_corrected
from .described import said_of
from .hdf5 import dataset, open_hdf5, text_of, times
from .measured import CtMeasurement
from .options import yes_no
from .raw_sinogram import complete_geometry, ct_affine, finished_sinogram, geometry_numbers, note_angles
from .settings import number

if TYPE_CHECKING:
    import h5py

_KIND = "DataExchange"
#: What units of angles and lengths are called, with their size in radians and mm.
_ANGLES = {"degrees": math.pi / 180, "degree": math.pi / 180, "deg": math.pi / 180, "radians": 1.0, "rad": 1.0}
_LENGTHS = {"m": 1e3, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "nm": 1e-6}
#: Where beamlines write how large a pixel is in the object, and how large on the detector.
_OBJECT_PIXEL = ("measurement/instrument/detection_system/objective/resolution",)
_DETECTOR_PIXEL = ("measurement/instrument/detector/pixel_size_x", "measurement/instrument/detector/pixel_size")
_MAGNIFICATION = "measurement/instrument/detection_system/objective/magnification"
#: So many rows, spread over the detector, are enough to find the center of rotation.
_ROWS_FOR_CENTER = 8


def is_data_exchange(file: h5py.File) -> bool:
    """Whether an open HDF5 file has this layout."""
    return "exchange" in file


def read_data_exchange(
    path: Path,
    description: Mapping[str, Any] | None = None,
    *,
    pixel_mm: float | None = None,
    image_size: int | tuple[int, int] | None = None,
    rows: tuple[int, int] | None = None,
    hounsfield: bool | None = None,
) -> CtMeasurement:
    """Line integrals, corrected for flat and dark field, with the center of rotation found.

    description: numbers of the geometry that replace those of the file (detector_spacing_mm, detector_offset_mm,
    angles_deg, …); with a detector_offset_mm the center is not looked for. rows: of the detector, first and end; by
    default all. Images are in 1/mm unless hounsfield. Raises InputError for what does not fit.
    """
    notes: list[str] = []
    numbers = geometry_numbers(description or {})
    with open_hdf5(path) as file:
        data = dataset(file, "exchange/data", path, kind=_KIND)
        if data.ndim != 3:
            raise InputError(
                f"{path}: exchange/data has the axes {times(data.shape)}; the layout has angle, row, column."
            )
        count = data.shape[1]
        chosen = _rows(count, rows)
        white = dataset(file, "exchange/data_white", path, kind=_KIND)
        fields = {"flat": white[:, chosen] if white.ndim == 3 else white[...]}
        if "exchange/data_dark" in file:
            dark = file["exchange/data_dark"]
            fields["dark"] = dark[:, chosen] if dark.ndim == 3 else dark[...]
        else:
            notes.append("The file has no dark field (exchange/data_dark); zero was taken for it.")
            fields["dark"] = np.zeros((1, chosen.stop - chosen.start, data.shape[2]), np.float32)
        raw = data[:, chosen]
        given = bool({"angles_rad", "angles_deg"} & set(numbers))
        if not given:
            numbers["angles_rad"] = _angles(file, path, notes)
        if "detector_spacing_mm" not in numbers:
            numbers["detector_spacing_mm"] = _spacing(file, notes)
    views = len(numbers.get("angles_rad", numbers.get("angles_deg", ())))
    if views != raw.shape[0]:
        raise InputError(
            f"{path}: exchange/data has {raw.shape[0]} views, and there are {views} angles; which angles belong to it?"
        )
    lines = _corrected(raw, fields, path, notes)
    searching = "detector_offset_mm" not in numbers and numbers.get("beam", "parallel") == "parallel"
    geometry = complete_geometry(
        numbers,
        lines.shape[-1],
        where=str(path),
        notes=notes,
        pixel_mm=pixel_mm,
        image_size=image_size,
        check_angles=given,
    )
    if searching:
        geometry = _centered(lines, geometry, notes)
    said = description or {}
    spacing = said_of(said, "slice_spacing_mm", geometry.detector_spacing_mm, number(above=0), str(path))
    about = {"source": _KIND, "center_of_rotation_detector": _center(geometry), "detector_rows": _span(chosen)}
    hounsfield = said_of(said, "hounsfield", False, yes_no, str(path)) if hounsfield is None else hounsfield
    affine = ct_affine(geometry, count, spacing)
    affine[:3, 3] += affine[:3, 2] * chosen.start
    return CtMeasurement(lines, geometry, affine, hounsfield=hounsfield, about=about, notes=tuple(notes))


def _rows(count: int, rows: tuple[int, int] | None) -> slice:
    if rows is None:
        return slice(0, count)
    first, end = rows
    if not 0 <= first < end <= count:
        raise InputError(f"Rows {first} to {end} of the detector were asked for; it has rows 0 to {count}.")
    return slice(first, end)


def _corrected(raw: np.ndarray, fields: dict[str, np.ndarray], path: Path, notes: list[str]) -> np.ndarray:
    """Line integrals (rows, A, D) of counts (A, rows, D)."""
    counts = torch.from_numpy(raw.astype(np.float32))
    flat, dark = (torch.from_numpy(np.asarray(fields[name], dtype=np.float32)) for name in ("flat", "dark"))
    # Values that are no numbers are holes, and filled in later; many counts below zero are refused.
    check_counts(counts[torch.isfinite(counts)], name=f"The counts in {path}, exchange/data,")
    check_counts(flat[torch.isfinite(flat)], name=f"The counts in {path}, exchange/data_white,")
    below = int((counts < 0).sum())
    if below:
        notes.append(f"{below} of {counts.numel()} counts are below zero, and were taken for zero.")
        counts = counts.clamp(min=0)
    try:
        lines = flat_field_corrected(counts, flat, dark)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return finished_sinogram(lines.permute(1, 0, 2).numpy(), notes)


def _angles(file: h5py.File, path: Path, notes: list[str]) -> list[float]:
    """Radians. Raises InputError where there are none."""
    if "exchange/theta" not in file:
        raise InputError(f'{path} has no angles (exchange/theta); give them with --geometry, as "angles_deg".')
    theta = file["exchange/theta"]
    unit = text_of(theta.attrs.get("units", "degrees")).strip().lower()
    if unit not in _ANGLES:
        notes.append(f'The angles are in "{unit}", which is not known; they were taken for degrees.')
    values = np.asarray(theta[...], dtype=float).ravel()
    note_angles(values, "rad" if _ANGLES.get(unit) == 1.0 else "deg", notes)
    return (values * _ANGLES.get(unit, _ANGLES["degrees"])).tolist()


def _spacing(file: h5py.File, notes: list[str]) -> float:
    """The distance of detector pixels, in the object, mm."""
    for name in _OBJECT_PIXEL:
        if (length := _length(file, name)) is not None:
            return length
    for name in _DETECTOR_PIXEL:
        if (length := _length(file, name)) is not None:
            factor = float(np.ravel(file[_MAGNIFICATION][...])[0]) if _MAGNIFICATION in file else 1.0
            return length / factor if factor > 0 else length
    notes.append(
        "The file does not say how large a detector pixel is; 1 mm was taken, so that attenuation is per pixel. Give "
        "detector_spacing_mm with --geometry."
    )
    return 1.0


def _length(file: h5py.File, name: str) -> float | None:
    if name not in file:
        return None
    unit = text_of(file[name].attrs.get("units", "")).strip().lower()
    try:
        value = float(np.ravel(file[name][...])[0]) * _LENGTHS[unit]
    except (KeyError, ValueError, IndexError):
        return None
    return value if value > 0 and math.isfinite(value) else None


def _centered(lines: np.ndarray, geometry: Geometry, notes: list[str]) -> Geometry:
    """The geometry with the center of rotation that the views agree on."""
    some = lines[np.unique(np.linspace(0, len(lines) - 1, _ROWS_FOR_CENTER).astype(int))]
    try:
        offset = center_of_rotation(torch.from_numpy(some), geometry)
    except InputError as error:
        notes.append(f"The center of rotation is taken to be in the middle of the detector: {error}")
        return geometry
    values = {**geometry.as_dict(), "detector_offset_mm": offset}
    values.pop("beam")
    found = ParallelBeam(**values)
    notes.append(f"The center of rotation was found at detector pixel {_center(found):.2f} of {geometry.detectors}.")
    return found


def _center(geometry: Geometry) -> float:
    return (geometry.detectors - 1) / 2 - geometry.detector_offset_mm / geometry.detector_spacing_mm


def _span(chosen: slice) -> list[int]:
    return [chosen.start, chosen.stop]
