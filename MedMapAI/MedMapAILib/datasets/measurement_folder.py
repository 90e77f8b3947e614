"""Files of measurements, with the images that they should become where those are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .dataset import Case, Dataset, Problems, is_hidden, patient_finder
from .pairs import TARGETS, images_by_name

MEASUREMENTS = "measurements"
#: Endings that only a measurement has here; that of a sinogram in NRRD is an image's, too.
_OF_MEASUREMENTS = (".h5", ".hdf5", ".npy")
_ENDINGS = (*_OF_MEASUREMENTS, ".nrrd")


def open_measurements(
    path: Path,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a folder with ``measurements/`` and, where the true images are known, ``targets/`` of the same names.

    Measurements are files that ``measurements.files.read_measurement`` reads: .h5 of DataExchange, fastMRI or ISMRMRD,
    .nrrd or .npy with a .json of the same name beside it. A folder of .h5 or .npy files itself, as fastMRI comes, or
    one such file is taken, too. labels and options play no part; patient_pattern as in ``open_dataset``.
    Raises InputError where there is none, a target has no measurement, or some measurements have a target and some not.
    """
    path = Path(path)
    problems = Problems()
    top = path / MEASUREMENTS if (path / MEASUREMENTS).is_dir() else path
    files = [top] if top.is_file() else sorted(top.iterdir())
    found: dict[str, Path] = {}
    for file in files:
        if is_hidden(file) or not file.is_file() or file.suffix.lower() not in _ENDINGS:
            continue
        if file.stem in found:
            problems.add(f"name(s) that stand for two files in {top.name}/", file.stem)
        found[file.stem] = file
    if not found:
        raise InputError(f"{top} holds no measurements ({', '.join(_ENDINGS)}).")
    folder = next((path / name for name in TARGETS if (path / name).is_dir()), None)
    targets = {} if folder is None else images_by_name(folder, problems)
    find_patient = patient_finder(patient_pattern)
    cases = []
    for name, file in sorted(found.items()):
        patient = find_patient(name, str(file.name))
        if patient is None:
            problems.add(f"case(s) whose name does not match patient_pattern {patient_pattern!r}", name)
        if folder is not None and name not in targets:
            problems.add("measurement(s) without a target", name)
        cases.append(Case(name, patient or name, (file,), target=targets.get(name)))
    for name in sorted(set(targets) - set(found)):
        problems.add("target(s) without a measurement", name)
    problems.raise_if_any(path, "give every measurement an image of the same name in targets/, or none of them")
    name = path.stem if path.is_file() else path.resolve().name
    return Dataset(name, tuple(cases), {}, source={"kind": "measurements"}, target="measurements")


def is_measurements(path: Path) -> bool:
    """Whether a file is a measurement, or a folder has some in it or a folder ``measurements/``."""
    if path.is_file():
        return path.suffix.lower() in _OF_MEASUREMENTS
    if (path / MEASUREMENTS).is_dir():
        return True
    return any(file.suffix.lower() in _OF_MEASUREMENTS and file.is_file() for file in path.iterdir())
