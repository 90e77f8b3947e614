"""Sinograms in NRRD files with their geometry in a JSON file beside them, and what every sinogram's geometry needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..files import atomic_file, write_atomically
from ..image import quiet_itk
from ..physics.attenuation import WATER_PER_MM
from ..physics.counts import check_counts, line_integrals_of_counts
from ..physics.ct_geometry import Geometry, angle_problem, geometry_from_dict
from ..physics.dead_detectors import repaired
from .described import about_of, affine_in, notes_of, said_of
from .grid import centered_affine
from .hdf5 import read_json, times
from .measured import CtMeasurement
from .options import yes_no
from .settings import number

#: What a JSON file may hold beside the numbers of the geometry.
_OTHERS = ("kind", "geometry", "affine", "hounsfield", "water_per_mm", "about", "notes", "values", "photons")
_OTHERS += ("slice_spacing_mm",)
#: What the numbers of a sinogram may be.
VALUES = ("line integrals", "counts", "transmission")
#: Transmission may be a little more than 1 by noise. A line integral of 20 lets 2e-9 of the photons through.
_MOST_TRANSMITTED, _MOST_ATTENUATED, _NEGLIGIBLE = 1.5, 20.0, 1e-3
_EXAMPLE = (
    '{"beam": "parallel", "angles_deg": [0, 1, …], "detector_spacing_mm": 1.0}, for a fan also "source_to_center_mm" '
    'and "source_to_detector_mm"'
)


def beside(path: Path) -> Path:
    """Where the JSON file of a measurement file lies: scan.nrrd has scan.json."""
    return path.with_suffix(".json")


def read_description(geometry: Path | Mapping[str, Any] | None, path: Path) -> dict[str, Any]:
    """What is said about a measurement: given as a dictionary or a JSON file, or in the file beside ``path``.

    Empty where nothing is. Raises InputError for a file that is none.
    """
    if isinstance(geometry, Mapping):
        return dict(geometry)
    source = beside(path) if geometry is None else Path(geometry)
    if geometry is None and not source.is_file():
        return {}
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The geometry {source} cannot be read ({getattr(error, 'strerror', None) or error})."
        ) from None
    return read_json(text, str(source))


def geometry_numbers(description: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of the geometry in a description: under "geometry", or at its top."""
    if "geometry" in description:
        inner = description["geometry"]
        if not isinstance(inner, Mapping):
            raise InputError("The part geometry of a description holds no JSON object.")
        unknown = sorted(set(description) - set(_OTHERS))
        if unknown:
            raise InputError(f"A description of a sinogram has no {', '.join(unknown)}; it has {', '.join(_OTHERS)}.")
        return dict(inner)
    return {key: value for key, value in description.items() if key not in _OTHERS}


def complete_geometry(
    numbers: Mapping[str, Any],
    detectors: int,
    *,
    where: str,
    notes: list[str],
    pixel_mm: float | None = None,
    image_size: int | tuple[int, int] | None = None,
    check_angles: bool = True,
) -> Geometry:
    """The geometry of a sinogram with so many detectors; what is not said is as fits.

    The image has pixels as wide as a detector at the center of rotation, as many on a side as there are detectors,
    unless pixel_mm and image_size (rows and columns, or one number) are given. Angles in the other unit are noted,
    with ``check_angles``.
    Raises InputError for what is missing or wrong.
    """
    values = {"detectors": detectors, **numbers}
    if pixel_mm is not None:
        values["pixel_mm"] = pixel_mm
    if image_size is not None:
        values["image_size"] = image_size
    missing = [name for name in ("detector_spacing_mm",) if name not in values]
    missing += [] if {"angles_deg", "angles_rad"} & set(values) else ["angles_deg or angles_rad"]
    if missing:
        raise InputError(f"The geometry of {where} lacks {', '.join(missing)}; it is JSON such as {_EXAMPLE}.")
    for unit in ("rad", "deg"):
        if check_angles and f"angles_{unit}" in values:
            note_angles(values[f"angles_{unit}"], unit, notes)
    try:
        far, near = values.get("source_to_detector_mm"), values.get("source_to_center_mm")
        magnification = far / near if values.get("beam") == "fan" and far and near else 1.0
        if isinstance(values.get("image_size"), list):
            values["image_size"] = tuple(values["image_size"])
        values.setdefault("image_size", detectors)
        values.setdefault("pixel_mm", values["detector_spacing_mm"] / magnification)
        return geometry_from_dict(values)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise InputError(f"The geometry of {where}: {error}") from None
        raise InputError(f"The geometry of {where} holds something that is no number ({error}).") from None


def note_angles(angles: Any, unit: str, notes: list[str]) -> None:
    """Add a sentence to the notes where angles, taken for "rad" or "deg", seem to be in the other unit."""
    try:
        problem = angle_problem(angles, unit=unit)
    except (TypeError, ValueError):
        return
    if problem:
        other = "angles_deg" if unit == "rad" else "angles_rad"
        notes.append(f"{problem} They were taken as they are said to be; give them as {other} if that is wrong.")


def finished_sinogram(lines: np.ndarray, notes: list[str]) -> np.ndarray:
    """Line integrals (S, A, D) as float32, holes and dead detector pixels filled in, which the notes then say.

    Raises InputError where too much is missing.
    """
    filled, sentence = repaired(torch.from_numpy(np.ascontiguousarray(lines, dtype=np.float32)))
    if sentence:
        notes.append(sentence)
    return filled.numpy()


def ct_affine(geometry: Geometry, slices: int, slice_spacing_mm: float) -> np.ndarray:
    """Where the image of a sinogram of so many slices lies, its center of rotation in the origin."""
    rows, columns = geometry.image_size
    return centered_affine((columns, rows, slices), (geometry.pixel_mm, geometry.pixel_mm, slice_spacing_mm))


def read_sinogram(
    path: Path,
    geometry: Path | Mapping[str, Any] | None = None,
    *,
    pixel_mm: float | None = None,
    image_size: int | tuple[int, int] | None = None,
    hounsfield: bool | None = None,
) -> CtMeasurement:
    """A NRRD file of (detector, view, slice), the detector fastest, or of (detector, view).

    Its JSON file holds the numbers of ``physics.ct_geometry`` (angles_deg or angles_rad, detector_spacing_mm, beam,
    source_to_center_mm, …) and may say "values" (one of VALUES), "photons" (for counts: those that leave for each
    detector), "hounsfield", "water_per_mm", "slice_spacing_mm" and "affine". Raises InputError.
    """
    values = _read_nrrd(path)
    description = read_description(geometry, path)
    if not description:
        raise InputError(
            f"{path} is a sinogram without a geometry: there is no {beside(path).name} beside it; write one, or give "
            f"--geometry. It is JSON such as {_EXAMPLE}."
        )
    where = str(path)
    notes = notes_of(description, where)
    place = affine_in(description, where) if description.get("affine") is not None else None
    if place is not None:
        # Of the image that the description means; another one is put round the same center later.
        pixel_mm = image_size = None
    scanned = complete_geometry(
        geometry_numbers(description),
        values.shape[-1],
        where=where,
        notes=notes,
        pixel_mm=pixel_mm,
        image_size=image_size,
    )
    # Before any work on the values, which may be many.
    scanned.check_sinogram(values.shape)
    lines = finished_sinogram(_line_integrals(values, description, path, notes), notes)
    if place is None:
        place = ct_affine(scanned, len(lines), said_of(description, "slice_spacing_mm", 1.0, number(above=0), where))
    return CtMeasurement(
        lines,
        scanned,
        place,
        hounsfield=said_of(description, "hounsfield", True, yes_no, where) if hounsfield is None else hounsfield,
        water_per_mm=said_of(description, "water_per_mm", WATER_PER_MM, number(above=0), where),
        about=about_of(description, where),
        notes=tuple(notes),
    )


def write_sinogram(measurement: CtMeasurement, path: Path) -> None:
    """Write a NRRD file and its JSON beside it, both whole or not at all. Raises as ``files.atomic_file``."""
    import SimpleITK as sitk

    text = json.dumps(describe_ct(measurement), indent=1, ensure_ascii=False).encode()
    picture = sitk.GetImageFromArray(np.ascontiguousarray(measurement.line_integrals, dtype=np.float32))
    with atomic_file(path, ".nrrd") as temporary:
        try:
            with quiet_itk(sitk):
                sitk.WriteImage(picture, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OSError(28, "No space left on device") from error
        write_atomically(beside(path), text)


def describe_ct(measurement: CtMeasurement) -> dict[str, Any]:
    """What is to be known of a measurement beside its line integrals, as JSON takes it."""
    return {
        "kind": "ct",
        "values": VALUES[0],
        "geometry": measurement.geometry.as_dict(),
        "affine": np.asarray(measurement.affine, dtype=float).tolist(),
        "hounsfield": measurement.hounsfield,
        "water_per_mm": measurement.water_per_mm,
        "about": measurement.about,
        "notes": list(measurement.notes),
    }


def _read_nrrd(path: Path) -> np.ndarray:
    """The values (S, A, D) of a NRRD file."""
    import SimpleITK as sitk

    try:
        with quiet_itk(sitk):
            values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        raise InputError(f"{path} cannot be read: it is truncated, or damaged.") from None
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.dtype.kind not in "fiu":
        raise InputError(
            f"{path} holds {times(values.shape)} values of {values.dtype}; a sinogram has the axes slice, view, "
            "detector and real numbers."
        )
    return values


def _line_integrals(values: np.ndarray, description: Mapping[str, Any], path: Path, notes: list[str]) -> np.ndarray:
    kind = description.get("values", VALUES[0])
    if kind not in VALUES:
        raise InputError(f'The values of {path} are said to be "{kind}"; known are {", ".join(VALUES)}.')
    if kind == VALUES[0]:
        _note_lines(values, notes)
        return values
    raw = torch.from_numpy(values.astype(np.float32))
    # What is no number is a hole, and filled in later.
    check_counts(raw[torch.isfinite(raw)], name=f"The {kind} in {path}")
    if kind == "transmission":
        largest = float(raw[torch.isfinite(raw)].max()) if torch.isfinite(raw).any() else 1.0
        if largest > _MOST_TRANSMITTED:
            notes.append(f"The transmission goes up to {largest:g}, and 1 is all of it; is it in percent?")
        return line_integrals_of_counts(raw, 1.0, least=1e-4).numpy()
    photons = description.get("photons")
    if not isinstance(photons, (int, float)) or not photons > 0:
        raise InputError(f'{path} holds counts, and its description no number "photons" of those that left for each.')
    below = int((raw <= 0).sum())
    if below:
        notes.append(f"{below} of {raw.numel()} counts are zero or less, and were taken for half a photon.")
    largest = float(raw[torch.isfinite(raw)].max()) if torch.isfinite(raw).any() else 0.0
    if largest > _MOST_TRANSMITTED * photons:
        notes.append(f"Counts go up to {largest:g}, and {photons:g} photons are said to leave for each; is that right?")
    return line_integrals_of_counts(raw, float(photons)).numpy()


def _note_lines(lines: np.ndarray, notes: list[str]) -> None:
    """Add a sentence where line integrals are none."""
    there = lines[np.isfinite(lines)]
    if not there.size:
        return
    middle, largest = float(np.median(there)), float(there.max())
    if not there.any():
        notes.append("The sinogram is zero everywhere; there is nothing to reconstruct.")
    elif middle < -_NEGLIGIBLE * max(largest, float(-there.min())):
        notes.append(f"Most line integrals are below zero (the median is {middle:.3g}); is their sign right?")
    elif middle > _MOST_ATTENUATED:
        notes.append(
            f"Line integrals of {middle:.3g} (the median) would let no photon through; are these counts? Say so with "
            '"values" in the description.'
        )
