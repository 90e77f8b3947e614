"""HDF5 files, opened so that what is wrong with one is said in a sentence."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import h5py

#: How an HDF5 file begins (HDF5 File Format Specification 3.0, section II.A).
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def import_h5py() -> Any:
    """The package h5py. Raises InputError where it is not installed."""
    try:
        import h5py
    except ImportError:
        raise InputError("HDF5 files need the package h5py, which is not installed; run pip install h5py.") from None
    return h5py


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading. Raises InputError where it is no whole HDF5 file, now or while it is read."""
    package = import_h5py()
    try:
        with package.File(path, "r") as file:
            yield file
    # h5py reports what it cannot read as OSError, and a damaged tree of links as KeyError or RuntimeError.
    except (OSError, KeyError, RuntimeError) as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"There is no file {path}.") from None
        raise InputError(
            f"{path} cannot be read as HDF5: it is truncated or damaged ({_first_words(error)}); copy it again from "
            "where it came."
        ) from None


def dataset(file: h5py.File, name: str, path: Path, *, kind: str) -> h5py.Dataset:
    """A data set of a file. kind: of file, for the sentence. Raises InputError where it is missing or empty."""
    found = file.get(name)
    if found is None or not hasattr(found, "shape"):
        there = ", ".join(list(file)[:8]) or "nothing"
        raise InputError(f"{path} lacks the data set {name}, which a {kind} file has; it holds {there}.")
    if found.shape and 0 in found.shape:
        size = " × ".join(map(str, found.shape))
        raise InputError(f"{path} has an empty data set {name} ({size}); there is nothing to reconstruct.")
    return found


def complex_array(values: np.ndarray, where: str) -> np.ndarray:
    """Values as complex64: complex ones, or pairs of numbers as other writers than h5py name them.

    Raises InputError where they are neither.
    """
    names = values.dtype.names
    if names and len(names) == 2:
        return (values[names[0]].astype(np.float32) + 1j * values[names[1]].astype(np.float32)).astype(np.complex64)
    if values.dtype.kind != "c":
        raise InputError(f"{where} holds {values.dtype} values; a k-space is complex.")
    return values.astype(np.complex64, copy=False)


def text_of(value: Any) -> str:
    """A string, whatever HDF5 made of it: bytes, an array with one element, a str."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def read_json(text: str, where: str) -> dict[str, Any]:
    """A JSON object. Raises InputError where it is none."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is no valid JSON ({error}).") from None
    if not isinstance(value, dict):
        raise InputError(f"{where} holds no JSON object but a {type(value).__name__}.")
    return value


def times(shape: Sequence[int]) -> str:
    """A shape for a sentence: "8 × 230 × 180"."""
    return " × ".join(str(int(n)) for n in shape)


def _first_words(error: Exception) -> str:
    return " ".join(str(error).strip("'\"").split())[:120]
