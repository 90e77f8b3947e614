"""What the options of several networks have in common: numbers per level and axis, norms, and inputs of one voxel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import InputError

#: Names of normalizations → MONAI's (name, arguments).
NORMS: dict[str, list[Any]] = {
    "instance": ["INSTANCE", {"affine": True}],
    "batch": ["BATCH", {}],
    "group": ["GROUP", {"num_groups": 8}],
}


def check_counts(counts: Any, option: str, *, least: int) -> list[int]:
    """Whole numbers above zero, one for each of at least ``least`` levels. Raises InputError that names the option."""
    if not isinstance(counts, (list, tuple)) or len(counts) < least or not all(_is_count(c) for c in counts):
        raise InputError(
            f"Network option {option} is {_shown(counts)}; give a list of whole numbers above zero, "
            f"one for each of {least} or more levels."
        )
    return list(counts)


def check_count(count: Any, option: str) -> int:
    """A whole number above zero. Raises InputError that names the option."""
    if not _is_count(count):
        raise InputError(f"Network option {option} is {_shown(count)}; give one whole number above zero.")
    return count


def per_level(values: Any, name: str, levels: int, spatial_dims: int) -> list[int | list[int]]:
    """One whole number, or one for each axis, for each level. A single number holds for all levels.

    Raises InputError that names the option.
    """
    if _is_count(values):
        return [int(values)] * levels
    if not isinstance(values, (list, tuple)) or len(values) != levels:
        raise InputError(
            f"Network option {name} is {_shown(values)}; give one entry for each of the {levels} levels: a number, or "
            f"{spatial_dims} numbers."
        )
    checked: list[int | list[int]] = []
    for value in values:
        if _is_count(value):
            checked.append(int(value))
        elif isinstance(value, (list, tuple)) and len(value) == spatial_dims and all(_is_count(v) for v in value):
            checked.append([int(v) for v in value])
        else:
            raise InputError(
                f"Network option {name} has the entry {value!r}; give a whole number above zero, "
                f"or {spatial_dims} of them, one for each axis."
            )
    return checked


def per_axis(value: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    """The numbers for each axis of an entry from ``per_level``."""
    return (value,) * spatial_dims if isinstance(value, int) else tuple(value)


def check_dropout(dropout: Any) -> float:
    """A probability below 1. Raises InputError."""
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise InputError(f"Network option dropout is {dropout!r}; give a probability from 0 to below 1.")
    return float(dropout)


def check_norm(norm: Any, filters: Sequence[int], *, more: Sequence[str] = ()) -> list[Any]:
    """MONAI's (name, arguments) of a normalization for levels of these channels. Raises InputError.

    more: names that the caller takes besides.
    """
    if not isinstance(norm, str) or norm not in NORMS:
        raise InputError(f"Network option norm is {norm!r}; choose one of {', '.join([*NORMS, *more])}.")
    if norm == "group" and any(f % 8 for f in filters):
        raise InputError(
            f"Network option norm 'group' makes groups of 8 channels, which filters {list(filters)} do not allow; "
            "give multiples of 8."
        )
    name, arguments = NORMS[norm]
    return [name, dict(arguments)]


def forward_at_least_two_voxels(
    network: Callable[[torch.Tensor], torch.Tensor | list[torch.Tensor]], x: torch.Tensor, divisor: Sequence[int]
) -> torch.Tensor | list[torch.Tensor]:
    """``network(x)`` where an input of (B, C, *divisor), one voxel at the deepest level, works as well.

    Normalization over a single voxel is not defined, and torch refuses it. Such an input is extended beyond its end
    along the last axis by its border, and the output cut back.
    """
    if tuple(x.shape[2:]) != tuple(divisor):
        return network(x)
    outputs = network(torch.cat([x, x[..., -1:].expand(*x.shape[:-1], divisor[-1])], dim=-1))
    if isinstance(outputs, list):
        return [output[..., : output.shape[-1] // 2] for output in outputs]
    return outputs[..., : outputs.shape[-1] // 2]


def level_strides(strides: Any, levels: int, spatial_dims: int) -> list[int | list[int]]:
    """How much coarser each level is than the one before; by default 1, then 2 for each further level.

    Raises InputError.
    """
    if strides is None:
        return [1] + [2] * (levels - 1)
    checked = per_level(strides, "strides", levels, spatial_dims)
    if any(s != 1 for s in per_axis(checked[0], spatial_dims)):
        raise InputError(
            f"Network option strides begins with {checked[0]}; the first level has the input's size, so begin with 1."
        )
    return checked


def divisor_of(strides: Sequence[int | Sequence[int]], spatial_dims: int) -> tuple[int, ...]:
    """The product of all strides, for each axis."""
    return tuple(math.prod(axis) for axis in zip(*(per_axis(s, spatial_dims) for s in strides), strict=True))


def head_count(deep_supervision: Any, most: int) -> int:
    """How many coarser outputs deep supervision has: 0 for false; for true all but the coarsest, as in nnU-Net.

    most: decoder levels below full resolution, 1 or more. Raises InputError.
    """
    if deep_supervision is True:
        return max(1, most - 1)
    if deep_supervision is False:
        return 0
    if not _is_count(deep_supervision) or deep_supervision > most:
        raise InputError(
            f"Network option deep_supervision is {deep_supervision!r}; give true, false, or how many coarser outputs "
            f"there are, 1 to {most}."
        )
    return int(deep_supervision)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _shown(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)
