"""Files of the fastMRI data set: k-space of all slices, a header, and the image that the scanner's samples make.

Zbontar and others, "fastMRI: an open dataset and benchmarks for accelerated MRI", arXiv:1811.08839 (2018): kspace
(slice, coil, row, column) or, single-coil, (slice, row, column), rows being the readout, reconstruction_rss or
reconstruction_esc (slice, row, column), in test sets mask (column), ismrmrd_header, attributes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..results.reconstruction import ImageReference
from .grid import centered_affine
from .hdf5 import complex_array, dataset, open_hdf5, text_of, times
from .k_space import check_samples, crop_of, sampled
from .measured import MrMeasurement
from .mr_header import MrHeader, read_header

if TYPE_CHECKING:
    import h5py

_KIND = "fastMRI"
_TARGETS = ("reconstruction_rss", "reconstruction_esc")


def is_fastmri(file: h5py.File) -> bool:
    """Whether an open HDF5 file has this layout, or lost only its k-space."""
    return "kspace" in file or "ismrmrd_header" in file


def read_fastmri(path: Path, *, slices: tuple[int, int] | None = None) -> MrMeasurement:
    """The k-space of a file. slices: first and end; by default all.

    The image is cropped as the file's own reconstruction is. Samples that a mask leaves out are zero. Raises
    InputError.
    """
    notes: list[str] = []
    with open_hdf5(path) as file:
        data = dataset(file, "kspace", path, kind=_KIND)
        if data.ndim not in (3, 4):
            raise InputError(
                f"{path}: kspace has the axes {times(data.shape)}; the layout has slice, coil, row, column, or without "
                "coil."
            )
        count = len(data)
        chosen = slice(*_slices(count, slices, path))
        values = complex_array(data[chosen], f"{path}, kspace,")
        mask = np.asarray(file["mask"][...]).astype(bool) if "mask" in file else None
        header = _header(file, path, notes)
        target = next((file[name].shape for name in _TARGETS if name in file), None)
        # Who was scanned is in the attributes, too, and stays there.
        about = {"source": _KIND, "acquisition": text_of(file.attrs.get("acquisition", ""))}
    values = values[:, None] if values.ndim == 3 else values
    if mask is not None:
        if mask.shape != values.shape[-1:]:
            raise InputError(
                f"{path}: the mask has {times(mask.shape)} columns and kspace {values.shape[-1]}; they do not fit."
            )
        values = values * mask
    check_samples(values, str(path))
    size = values.shape[-2:]
    wanted = target[-2:] if target else (header.recon[:2] if header else size)
    crop = crop_of([min(a, b) for a, b in zip(wanted, size, strict=True)], size)
    affine = _affine(header, crop or size, count, slices)
    return MrMeasurement(values, sampled(values), affine, None, crop, about=about, notes=tuple(notes))


def fastmri_reference(path: Path, *, slices: tuple[int, int] | None = None) -> ImageReference | None:
    """The file's own reconstruction, on the grid of ``read_fastmri``; None where it has none. Raises InputError."""
    with open_hdf5(path) as file:
        name = next((name for name in _TARGETS if name in file), None)
        if name is None:
            return None
        count = len(file[name])
        chosen = slice(*_slices(count, slices, path))
        values = np.asarray(file[name][chosen], dtype=np.float32)
        header = _header(file, path, [])
    return ImageReference(values.transpose(2, 1, 0), _affine(header, values.shape[-2:], count, slices))


def _slices(count: int, slices: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    if slices is None:
        return 0, count
    first, end = slices
    if not 0 <= first < end <= count:
        raise InputError(f"Slices {first} to {end} of {path} were asked for; it has slices 0 to {count}.")
    return first, end


def _header(file: h5py.File, path: Path, notes: list[str]) -> MrHeader | None:
    if "ismrmrd_header" not in file:
        notes.append(
            "The file has no header (ismrmrd_header): pixels of 1 mm were taken, and the image is not cropped."
        )
        return None
    return read_header(text_of(file["ismrmrd_header"][()]), str(path))


def _affine(header: MrHeader | None, size: tuple[int, int], count: int, slices: tuple[int, int] | None) -> np.ndarray:
    """Of some slices of an image (rows, columns) of so many; the file does not say where in the patient it is."""
    x, y, _ = header.pixel_mm if header else (1.0, 1.0, 1.0)
    # Of 2D scans the header knows the thickness, not the distance of slices.
    thickness = header.encoded_mm[2] / header.encoded[2] if header else 1.0
    affine = centered_affine((size[1], size[0], count), (y, x, thickness))
    affine[:3, 3] += affine[:3, 2] * (slices[0] if slices else 0)
    return affine
