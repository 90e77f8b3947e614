"""Our own HDF5 files of measurements: the numbers as data sets, everything else as JSON in an attribute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import atomic_file
from ..physics.ct_geometry import geometry_from_dict
from .hdf5 import complex_array, dataset, import_h5py, open_hdf5, read_json, text_of
from .k_space import check_samples, crop_of, describe_mr
from .measured import CtMeasurement, Measurement, MrMeasurement
from .raw_sinogram import describe_ct, finished_sinogram

if TYPE_CHECKING:
    import h5py

_ATTRIBUTE = "medmapai_measurement"
_KIND = "MedMapAI measurement"


def is_stored(file: h5py.File) -> bool:
    """Whether an open HDF5 file was written by ``write_stored``."""
    return _ATTRIBUTE in file.attrs


def write_stored(measurement: Measurement, path: Path) -> None:
    """Write a measurement of either kind as one file, whole or not at all. Raises as ``files.atomic_file``."""
    package = import_h5py()
    with atomic_file(path, ".h5") as temporary, package.File(temporary, "w") as file:
        if isinstance(measurement, CtMeasurement):
            arrays = {"line_integrals": measurement.line_integrals}
            about = describe_ct(measurement)
        else:
            arrays = {"k_space": measurement.k_space, "mask": measurement.mask}
            about = describe_mr(measurement)
            if measurement.sensitivities is not None:
                arrays["sensitivities"] = measurement.sensitivities
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="gzip", compression_opts=4, shuffle=True)
        file.attrs[_ATTRIBUTE] = json.dumps(about, ensure_ascii=False)


def read_stored(path: Path) -> Measurement:
    """The measurement that ``write_stored`` wrote. Raises InputError."""
    with open_hdf5(path) as file:
        about = read_json(text_of(file.attrs[_ATTRIBUTE]), f"The description in {path}")
        notes = list(about.get("notes", []))
        affine = np.asarray(about.get("affine", np.eye(4)), dtype=float)
        common = {"about": about.get("about", {})}
        if about.get("kind") != "mr":
            lines = dataset(file, "line_integrals", path, kind=_KIND)[...]
            geometry = geometry_from_dict(about.get("geometry", {}))
            geometry.check_sinogram(lines.shape)
            lines = finished_sinogram(lines, notes)
            for key in ("hounsfield", "water_per_mm"):
                if key in about:
                    common[key] = about[key]
            return CtMeasurement(lines, geometry, affine, notes=tuple(notes), **common)
        values = complex_array(dataset(file, "k_space", path, kind=_KIND)[...], f"{path}, k_space,")
        mask = dataset(file, "mask", path, kind=_KIND)[...].astype(bool)
        sensitivities = file["sensitivities"][...].astype(np.complex64) if "sensitivities" in file else None
    check_samples(values, str(path))
    crop = crop_of(about.get("crop"), values.shape[-2:])
    return MrMeasurement(values, mask, affine, sensitivities, crop, notes=tuple(notes), **common)
