"""What the description of a measurement, a JSON file, says beside its geometry; a mistake in it gets one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..image import check_affine
from .settings import Check


def said_of(description: Mapping[str, Any], name: str, default: Any, check: Check, where: str) -> Any:
    """The value of a key, or else the default, as the check takes it (see ``settings``). Raises InputError."""
    return check(description.get(name, default), f"{name} in the description of {where}")


def notes_of(description: Mapping[str, Any], where: str) -> list[str]:
    """The sentences under "notes". Raises InputError."""
    value = description.get("notes", [])
    if not isinstance(value, list):
        raise InputError(f"The description of {where} says notes: {value!r}; it must be a list of sentences.")
    return [str(note) for note in value]


def about_of(description: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The object under "about". Raises InputError."""
    value = description.get("about", {})
    if not isinstance(value, Mapping):
        raise InputError(f"The description of {where} says about: {value!r}; it must be a JSON object.")
    return dict(value)


def affine_in(description: Mapping[str, Any], where: str) -> np.ndarray:
    """The 4×4 matrix under "affine". Raises InputError."""
    try:
        matrix = np.asarray(description["affine"], dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"The affine in the description of {where} is not four rows of four numbers.") from None
    return check_affine(matrix, f"The description of {where}")
