"""Options of a method: their defaults, what they may be, and how ``--set`` text becomes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .settings import Check


@dataclass(frozen=True)
class Option:
    """One option: its default, how a value is checked (see ``settings``), and a few words for the help."""

    default: Any
    check: Check
    help: str


def complete_options(known: Mapping[str, Option], given: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Every option with its value. Raises InputError for an unknown one, or one that cannot be; the sentence lists."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        has = ", ".join(known) or "none"
        raise InputError(f"The method {method} has no option {', '.join(unknown)}; it has {has}.")
    return {
        name: option.check(given.get(name, option.default), f"The option {name} of {method}")
        for name, option in known.items()
    }


def parse_settings(texts: list[str]) -> dict[str, Any]:
    """Options from texts such as "iterations=200" or "nonnegative=false". Raises InputError for what has no "="."""
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {text!r} is not of the form KEY=VALUE, such as iterations=200.")
        options[name.strip()] = _value(value.strip())
    return options


def yes_no(value: Any, name: str) -> bool:
    """A check: true or false."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; it is true or false.")
    return value


def words(value: Any, name: str) -> str:
    """A check: any text but none."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} is {value!r}, not a name.")
    return value


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() in ("none", "null"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
