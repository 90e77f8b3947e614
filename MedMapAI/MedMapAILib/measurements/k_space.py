"""K-space in NumPy files, and what every k-space is checked for before an image is made of it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..files import write_atomically
from ..physics.mr_operator import axis_order_problem, check_k_space
from .described import about_of, affine_in, notes_of
from .grid import centered_affine
from .hdf5 import times
from .measured import MrMeasurement
from .raw_sinogram import beside, read_description

#: What a description of a k-space may say.
_KEYS = ("kind", "axes", "center", "spacing_mm", "affine", "crop", "about", "notes")
_AXES = ("slice", "coil", "row", "column")
_CENTERS = ("middle", "corner", "numpy")


def read_k_space(path: Path, description: Path | Mapping[str, Any] | None = None) -> MrMeasurement:
    """A .npy file of complex numbers: (slice, coil, row, column), (coil, row, column) or (row, column).

    Samples that are zero in all coils were not taken. A JSON file beside it, or ``description``, may say "axes" (their
    order, such as ["row", "column", "coil"]), "center": "corner" (the sample of frequency 0 is the first) or "numpy"
    (as numpy.fft.fft2 gives it: the image begins with its first pixel, too), "spacing_mm" (of columns, rows, slices),
    "affine" (4×4, column, row, slice → RAS mm) and "crop" (rows and columns of the middle
    that are wanted). Sensitivities that ``write_k_space`` wrote are read, too. Raises InputError.
    """
    values = _load(path)
    said = read_description(description, path)
    unknown = sorted(set(said) - set(_KEYS))
    if unknown:
        raise InputError(f"A description of a k-space has no {', '.join(unknown)}; it has {', '.join(_KEYS)}.")
    notes = notes_of(said, str(path))
    values = ordered(values, said.get("axes"), str(path))
    center = said.get("center", "middle")
    if center not in _CENTERS:
        raise InputError(f"The description of {path} says center: {center!r}; there are {', '.join(_CENTERS)}.")
    if center != "middle":
        values = np.fft.fftshift(values, axes=(-2, -1))
    if center == "numpy":
        values = values * _from_corner(values.shape[-2:])
    check_samples(values, str(path))
    crop = crop_of(said.get("crop"), values.shape[-2:])
    rows, columns = crop or values.shape[-2:]
    if "affine" in said:
        affine = affine_in(said, str(path))
    else:
        if "spacing_mm" not in said:
            notes.append("Nothing says how large a pixel is or where it lies; 1 mm around the origin was taken.")
        spacing = said.get("spacing_mm", (1.0, 1.0, 1.0))
        if not isinstance(spacing, (list, tuple)) or not all(isinstance(mm, (int, float)) for mm in spacing):
            raise InputError(f"The description of {path} says spacing_mm: {spacing!r}; it must be three lengths.")
        affine = centered_affine((columns, rows, len(values)), spacing)
    sensitivities = None
    if (stored := sensitivities_path(path)).is_file():
        sensitivities = _load(stored)
        if sensitivities.shape != values.shape:
            raise InputError(
                f"The sensitivities {stored} have the shape {times(sensitivities.shape)} and the k-space "
                f"{times(values.shape)}; remove the file to have them estimated."
            )
    return MrMeasurement(
        values.astype(np.complex64, copy=False),
        sampled(values),
        affine,
        sensitivities,
        crop,
        about=about_of(said, str(path)),
        notes=tuple(notes),
    )


def write_k_space(measurement: MrMeasurement, path: Path) -> None:
    """Write (slice, coil, row, column) as .npy and its JSON beside it, and sensitivities where they are known."""
    text = json.dumps(describe_mr(measurement), indent=1, ensure_ascii=False).encode()
    if measurement.sensitivities is None:
        # Those of what the path held before belong to nothing any more.
        sensitivities_path(path).unlink(missing_ok=True)
    else:
        write_atomically(sensitivities_path(path), _npy(measurement.sensitivities))
    write_atomically(beside(path), text)
    write_atomically(path, _npy(measurement.k_space))


def _from_corner(size: Sequence[int]) -> np.ndarray:
    """The phase (H, W) of centered samples that moves an image's first pixel from the middle to the corner."""
    phases = [np.exp(2j * np.pi * (np.arange(n) - n // 2) * (n // 2) / n) for n in size]
    return np.outer(*phases).astype(np.complex64)


def sensitivities_path(path: Path) -> Path:
    """Where the coils' sensitivities of a .npy file lie."""
    return path.with_name(f"{path.stem}.sensitivities.npy")


def describe_mr(measurement: MrMeasurement) -> dict[str, Any]:
    """What is to be known of a measurement beside its samples, as JSON takes it."""
    return {
        "kind": "mr",
        "axes": list(_AXES),
        "affine": np.asarray(measurement.affine, dtype=float).tolist(),
        "crop": None if measurement.crop is None else list(measurement.crop),
        "about": measurement.about,
        "notes": list(measurement.notes),
    }


def ordered(values: np.ndarray, axes: Sequence[str] | None, where: str) -> np.ndarray:
    """Values with the axes slice, coil, row, column. axes: their names as they are; by default in that order, the first
    missing. Raises InputError."""
    if axes is None:
        if not 2 <= values.ndim <= 4:
            raise InputError(
                f"{where} has {values.ndim} axes ({times(values.shape)}); a k-space has slice, coil, row and column."
            )
        return values[(None,) * (4 - values.ndim)]
    if not isinstance(axes, (list, tuple)):
        raise InputError(f'The axes of {where} are said to be {axes!r}; give a list such as ["coil", "row", "column"].')
    axes = [str(name) for name in axes]
    if len(axes) != values.ndim or len(set(axes)) != len(axes) or not {"row", "column"} <= set(axes) <= set(_AXES):
        raise InputError(
            f"{where} has {values.ndim} axes ({times(values.shape)}), and their names are said to be "
            f"{', '.join(axes)}; known are {', '.join(_AXES)}, each once."
        )
    present = [name for name in _AXES if name in axes]
    values = values.transpose([axes.index(name) for name in present])
    return np.expand_dims(values, [n for n, name in enumerate(_AXES) if name not in axes])


def check_samples(values: np.ndarray, where: str) -> None:
    """InputError where a k-space (slice, coil, row, column) cannot be one: no coil, no number, axes swapped."""
    if values.dtype.kind != "c":
        raise InputError(f"{where} holds {values.dtype} values; a k-space is complex.")
    if 0 in values.shape:
        name = _AXES[values.shape.index(0)]
        raise InputError(f"{where} is a k-space with zero {name}s ({times(values.shape)}); nothing was measured.")
    samples = torch.from_numpy(values)
    try:
        check_k_space(samples)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    problem = axis_order_problem(samples)
    if "fftshift" in problem:
        raise InputError(f'{where}: {problem} Say "center": "corner" in its JSON file if that is so.')
    if problem:
        raise InputError(f'{where}: {problem} Say "axes", such as ["row", "column", "coil"], in its JSON file.')


def sampled(values: np.ndarray) -> np.ndarray:
    """Which samples were taken: bool (H, W) where that is the same in all slices, else (S, H, W)."""
    taken = (values != 0).any(axis=1)
    return taken[0] if (taken == taken[:1]).all() else taken


def crop_of(crop: Any, size: Sequence[int]) -> tuple[int, int] | None:
    """Rows and columns of the middle that are wanted, None for all. Raises InputError."""
    if crop is None:
        return None
    try:
        rows, columns = (int(n) for n in crop)
    except (TypeError, ValueError):
        raise InputError(f"The crop of a k-space is two numbers, rows and columns, not {crop!r}.") from None
    if not (1 <= rows <= size[0] and 1 <= columns <= size[1]):
        raise InputError(f"The crop is {rows} × {columns}, and the k-space has {times(size)} samples.")
    return None if (rows, columns) == tuple(size) else (rows, columns)


def _load(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        reason = "it is truncated, damaged, or holds Python objects"
        if isinstance(error, FileNotFoundError):
            raise InputError(f"There is no file {path}.") from None
        raise InputError(f"{path} cannot be read as an array of NumPy: {reason}.") from None
    if not isinstance(values, np.ndarray):
        raise InputError(f"{path} is an archive of several arrays; save the k-space alone as .npy.")
    return values


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values, dtype=np.complex64))
    return buffer.getvalue()
