"""From the name of a kind of detector to the file that has it in two or in three dimensions."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


def file_of(family: str, spatial_dims: int) -> ModuleType:
    """The file ``<family>_2d.py`` or ``<family>_3d.py``, which has ``build`` and ``definition``."""
    return importlib.import_module(f".{family}_{spatial_dims}d", __package__)


def build(family: str, spatial_dims: int, in_channels: int, out_channels: int, options: dict[str, Any]) -> Any:
    """A new detector. options: those that are None are left to the file. Raises InputError."""
    return file_of(family, spatial_dims).build(in_channels=in_channels, classes=out_channels, **_given(options))


def definition(
    family: str, spatial_dims: int, in_channels: int, out_channels: int, options: dict[str, Any]
) -> dict[str, Any]:
    """The same detector as a bundle writes it down. Raises InputError."""
    return file_of(family, spatial_dims).definition(in_channels=in_channels, classes=out_channels, **_given(options))


def size_divisor(*, spatial_dims: int, **_: Any) -> tuple[int, ...]:
    """Ones: a detector pads an image of any size to what it needs."""
    return (1,) * spatial_dims


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
