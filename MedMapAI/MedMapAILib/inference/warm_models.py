"""Models that stay loaded between runs, within a memory budget."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Of what the machine has, and at most so many bytes.
_SHARE, _MOST_BYTES = 0.25, 8 * 2**30


def default_budget() -> int:
    """Bytes: a quarter of the machine's memory, at most 8 GiB."""
    import psutil

    return min(int(psutil.virtual_memory().total * _SHARE), _MOST_BYTES)


def memory_in_use() -> int:
    """Bytes of memory that this process has to itself now (resident, without files and shared memory)."""
    import psutil

    used = psutil.Process().memory_info()
    return used.rss - getattr(used, "shared", 0)


@dataclass
class _Kept:
    model: Any
    #: What the process used before it was loaded; None once that has been made use of.
    used_before: int | None
    cost: int


class WarmModels:
    """The last models that were used, as many as fit into ``budget`` bytes; the one not used for longest goes first.

    What a model costs is measured: by how much the process has grown since just before it was loaded, and at least
    what ``get`` was told. A model that alone exceeds the budget is not kept. release: called with a model that goes.
    """

    def __init__(
        self,
        budget: int | None = None,
        used: Callable[[], int] = memory_in_use,
        release: Callable[[Any], None] = lambda model: None,
    ):
        self._release = release
        self._budget = default_budget() if budget is None else int(budget)
        self._used = used
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable, load: Callable[[], Any], least: int = 0) -> Any:
        """The model of that key, loaded now if it is not there. least: bytes that it takes at any rate."""
        if key not in self._kept:
            self._shrink(self._budget - least)
            before = self._used()
            self._kept[key] = _Kept(load(), before, least)
        self._kept.move_to_end(key)
        return self._kept[key].model

    def settle(self, key: Hashable) -> None:
        """To be called after a model was used, with all that it worked on gone: measure it where this was the first
        time, and drop what is too much."""
        kept = self._kept[key]
        if kept.used_before is not None:
            gc.collect()
            kept.cost = max(kept.cost, self._used() - kept.used_before)
            # Later, what others take and give back would be in the difference.
            kept.used_before = None
        self._shrink(self._budget)

    def drop(self, key: Hashable) -> None:
        """Forget a model: after a failure nobody knows its state."""
        if (kept := self._kept.pop(key, None)) is not None:
            self._release(kept.model)
        gc.collect()

    def _shrink(self, limit: int) -> None:
        while self._kept and sum(kept.cost for kept in self._kept.values()) > limit:
            self._release(self._kept.popitem(last=False)[1].model)
            gc.collect()


def bundle_state(path: Path) -> tuple[str, int, int]:
    """(path, time of the latest change, bytes) of a bundle's folder or zip: a bundle that was replaced has another."""
    path = Path(path).resolve()
    files = [file.stat() for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path.stat()]
    return str(path), max((file.st_mtime_ns for file in files), default=0), sum(file.st_size for file in files)
