"""The child side: one contender in a process of its own, told by JSON lines what to do.

python -m benchmarks.contenders.serve NAME CASE WORK THREADS

Standard input: {"command": "warm_up"|"run", "scan": name, "output": path of the label map, .npy}. Standard output:
{"event": "ready"|"done"|"failed", …}. Whatever libraries print goes to standard error. Loading the scan and saving the
label map are not measured.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Beyond this a process that waits gives memory back, so that the others have it. It costs the next run page faults.
_IDLE_BYTES = 2 * 2**30
_PACKAGES = ("torch", "monai", "openvino", "nnunetv2", "dynamic-network-architectures", "numpy", "scipy")


def main() -> None:
    """Serve until standard input ends."""
    name, case_name, work, threads = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    contender = None
    try:
        import numpy as np
        from benchmarks.cases import find_case
        from benchmarks.contenders import make
        from benchmarks.measure import measured

        case = find_case(case_name)
        contender = make(name, case, work, threads)
        say(event="ready", versions=_versions())
        commands = Commands()
        for command in commands:
            scan = case.load(work, command["scan"])
            act = contender.warm_up if command["command"] == "warm_up" else contender.run
            contender.get_ready(scan.image, scan.affine)
            with measured() as usage:
                labels = act(scan.image, scan.affine)
            if labels is not None and command.get("output"):
                np.save(command["output"], labels.astype(np.uint8))
            del labels
            say(
                event="done",
                wall=usage.wall,
                cpu=usage.cpu,
                before_bytes=usage.before_bytes,
                peak_bytes=usage.peak_bytes,
                **contender.facts,
            )
            _give_back_memory()
    except Exception as error:
        traceback.print_exc()
        say(event="failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        sys.exit(1)
    finally:
        if contender is not None:
            contender.close()


class Commands:
    """The commands of the parent, until it wants no more. When it dies in the middle of one, this process dies too."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._busy = False
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (command := self._waiting.get()) is not None:
            yield command
            self._busy = False

    def _read(self) -> None:
        for line in sys.stdin:
            self._busy = True
            self._waiting.put(json.loads(line))
        if self._busy:
            os._exit(1)
        self._waiting.put(None)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _give_back_memory() -> None:
    import psutil

    gc.collect()
    if sys.platform == "linux" and psutil.Process().memory_info().rss > _IDLE_BYTES:
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:  # another C library than glibc
            return


if __name__ == "__main__":
    main()
