"""The names that live objects have in a running Slicer desktop: the list that the host lets through.

``api.json`` is cut from ``../shared/slicer_api.json`` by ``trim_api.py`` (facts seen in Slicer 5.13, nothing else),
so that the tests run in a clone that has no ``shared`` folder, and run the same there as here.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path

API_FILE = Path(__file__).with_name("api.json")
SHARED_FILE = Path(__file__).resolve().parents[3] / "shared" / "slicer_api.json"


@lru_cache(maxsize=1)
def read_api() -> dict:
    """Return the kept list: {"qobject": [...], "classes": {name: {...}}, "python": {module: {name: signature}}}."""
    return json.loads(API_FILE.read_text())


class Names:
    """The properties, methods and signals of one class of Slicer (``qt.QPushButton``, ``slicer.app`` ...)."""

    def __init__(self, key: str, properties, methods, signals, open_list: bool = False):
        self.key = key
        self.properties = frozenset(properties)
        self.methods = frozenset(methods)
        self.signals = frozenset(signals)
        # A class that the list does not name (qt.QHeaderView): what Qt itself has is let through.
        self.open_list = open_list

    def __contains__(self, name: str) -> bool:
        return name in self.properties or name in self.methods or name in self.signals

    def all(self) -> list[str]:
        return sorted(self.properties | self.methods | self.signals)


@cache
def names_of(key: str) -> Names | None:
    """Return the names of a class by its key in the list (``qt.QLabel``), or None when the list does not have the
    class."""
    api = read_api()
    entry = api["classes"].get(key)
    if entry is None:
        return None
    parts = {kind: set() for kind in ("property", "method", "signal")}
    # An entry may be written as another class's names and its own (trim_api.py).
    part = entry
    while part is not None:
        for kind, values in parts.items():
            values.update(part.get(kind, ()))
        part = api["classes"].get(part.get("base"))
    if entry.get("qobject"):
        parts["method"].update(api["qobject"])
    if entry.get("widget") and key != "qt.QWidget":
        base = names_of("qt.QWidget")
        # The class's own kind of a name goes before QWidget's (ctkComboBox.currentData is a property, ...).
        own = parts["property"] | parts["method"] | parts["signal"]
        parts["property"] |= base.properties - own
        parts["method"] |= base.methods - own
        parts["signal"] |= base.signals - own
    return Names(key, parts["property"], parts["method"], parts["signal"])


def known_classes(prefix: str) -> list[str]:
    """Class names (without prefix) that the list has under ``qt.``, ``ctk.`` or ``slicer.``."""
    start = prefix + "."
    return sorted(
        k[len(start) :] for k in read_api()["classes"] if k.startswith(start) and "(" not in k and k.count(".") == 1
    )
