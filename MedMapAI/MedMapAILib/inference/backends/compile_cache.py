"""Compiled networks on disk, so that the second start need not compile.

One folder an entry: ``model.blob`` and ``entry.json``, which holds what the entry was made for and the blob's checksum.
Entries are written whole or not at all; one that is broken or was made for something else is thrown away. Where nothing
can be written, everything works without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError, RunError
from ...files import atomic_folder

#: Where entries are kept, if not in ~/.medmapai/cache.
CACHE_VARIABLE = "MEDMAPAI_CACHE"
MOST_BYTES = 2 * 2**30

_BLOB, _ENTRY = "model.blob", "entry.json"


@dataclass(frozen=True)
class Entry:
    """A compiled network, and what was noted with it."""

    blob: bytes
    notes: dict[str, Any]


def cache_folder() -> Path:
    """MEDMAPAI_CACHE, or ~/.medmapai/cache."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".medmapai" / "cache"


class CompileCache:
    """The entries of a folder, by default ``compiled`` in the cache folder. most_bytes: the least recently used go
    first when there are more."""

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES):
        self.folder = cache_folder() / "compiled" if folder is None else Path(folder)
        self._most_bytes = most_bytes

    def load(self, identity: dict[str, Any]) -> Entry | None:
        """The entry made for exactly that, or None. identity: JSON values; all that decides about the result."""
        place = self._place(identity)
        try:
            said = json.loads((place / _ENTRY).read_text(encoding="utf-8"))
            blob = (place / _BLOB).read_bytes()
            right = said["identity"] == identity and said["sha256"] == hashlib.sha256(blob).hexdigest()
            notes = dict(said["notes"])
        except FileNotFoundError:
            right = not place.exists()
            if right:
                return None
        except (OSError, ValueError, TypeError, KeyError):
            right = False
        if not right:
            self.discard(identity)
            return None
        with contextlib.suppress(OSError):
            os.utime(place / _ENTRY)
        return Entry(blob, notes)

    def holds(self, identity: dict[str, Any]) -> bool:
        """Whether there is an entry; it may still turn out to be broken."""
        return (self._place(identity) / _ENTRY).is_file()

    def store(self, identity: dict[str, Any], blob: bytes, notes: dict[str, Any]) -> bool:
        """Add an entry, and remove old ones above the limit. Whether it could be written."""
        if len(blob) > self._most_bytes:
            return False
        said = {"identity": identity, "notes": notes, "sha256": hashlib.sha256(blob).hexdigest()}
        try:
            with atomic_folder(self._place(identity)) as folder:
                (folder / _BLOB).write_bytes(blob)
                (folder / _ENTRY).write_text(json.dumps(said), encoding="utf-8")
        except (OSError, InputError, RunError):
            # Another process may have been faster, the disk full or read-only: all of that is fine.
            return False
        self._trim()
        return True

    def discard(self, identity: dict[str, Any]) -> None:
        """Remove an entry that turned out to be of no use."""
        shutil.rmtree(self._place(identity), ignore_errors=True)

    def _place(self, identity: dict[str, Any]) -> Path:
        return self.folder / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def _trim(self) -> None:
        entries = []
        for place in self.folder.iterdir():
            with contextlib.suppress(OSError):
                entries.append(((place / _ENTRY).stat().st_mtime, (place / _BLOB).stat().st_size, place))
        total = sum(size for _, size, _ in entries)
        for _, size, place in sorted(entries):
            if total <= self._most_bytes:
                break
            shutil.rmtree(place, ignore_errors=True)
            total -= size
