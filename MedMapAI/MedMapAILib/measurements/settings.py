"""Checks of the settings of an acquisition, each with a sentence that names the key; and ranges, from which one draws.

Every check takes the value and what it is called, "acquisition.photons", and gives the value in its own type.
"""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import InputError

#: A check: (value, what it is called) → the value as it is kept.
Check = Callable[[Any, str], Any]


def number(low: float = -math.inf, *, above: float = -math.inf, below: float = math.inf) -> Check:
    """A finite number of at least ``low``, greater than ``above`` and less than ``below``."""

    def check(value: Any, name: str) -> float:
        right = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        if not right or not (value >= low and above < value < below):
            limits = [f"of at least {low:g}"] * (low > -math.inf) + [f"above {above:g}"] * (above > -math.inf)
            limits += [f"below {below:g}"] * (below < math.inf)
            raise InputError(f"{name} is {value!r}, not a number{_listed(limits)}.")
        return float(value)

    return check


def whole(low: int = 1) -> Check:
    """A whole number of at least ``low``."""

    def check(value: Any, name: str) -> int:
        right = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        if not right or value != int(value) or value < low:
            raise InputError(f"{name} is {value!r}, not a whole number of at least {low}.")
        return int(value)

    return check


def choice(*names: str) -> Check:
    """One of these words."""

    def check(value: Any, name: str) -> str:
        if value not in names:
            raise InputError(f"{name} is {value!r}; there are {', '.join(names)}.")
        return value

    return check


def optional(check: Check) -> Check:
    """What the check takes, or None."""
    return lambda value, name: None if value is None else check(value, name)


def spread(check: Check) -> Check:
    """One value, or [low, high], from between which one is drawn; each as ``check`` wants it."""

    def checked(value: Any, name: str) -> Any:
        if not isinstance(value, (list, tuple)):
            return check(value, name)
        if len(value) != 2:
            raise InputError(f"{name} is {list(value)!r}; give one number, or the lowest and the highest to draw from.")
        low, high = (check(each, name) for each in value)
        if low > high:
            raise InputError(f"{name} goes from {low:g} to {high:g}; the lower one comes first.")
        return [low, high]

    return checked


def several(check: Check) -> Check:
    """One value, or a list from which one is drawn; each as ``check`` wants it."""

    def checked(value: Any, name: str) -> Any:
        if not isinstance(value, (list, tuple)):
            return check(value, name)
        if not value:
            raise InputError(f"{name} is an empty list; give one value, or some to draw from.")
        return [check(each, name) for each in value]

    return checked


def draw_between(value: Any, rng: np.random.Generator, *, logarithmic: bool = False) -> Any:
    """The value itself, or one from [low, high], evenly or evenly in its logarithm."""
    if not isinstance(value, list):
        return value
    low, high = value
    drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if logarithmic else float(rng.uniform(low, high))
    return min(max(drawn, low), high)


def draw_one(value: Any, rng: np.random.Generator) -> Any:
    """The value itself, or one of a list."""
    return value[int(rng.integers(len(value)))] if isinstance(value, list) else value


def name_seed(name: str) -> int:
    """A seed that a name always has."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def slice_seed(seed: int, number: int) -> int:
    """The seed of what is drawn for one slice of a volume, the same in whatever portions the slices come."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def called(name: str, where: str) -> str:
    """What messages call a setting of an acquisition. where: what holds it, or ""."""
    return f"acquisition.{name} in {where}" if where else f"acquisition.{name}"


def check_seed(seed: Any) -> int:
    """The seed, or InputError where it is no whole number from 0."""
    return whole(0)(seed, "The seed")


def _listed(limits: Sequence[str]) -> str:
    return f" {' and '.join(limits)}" if limits else ""
