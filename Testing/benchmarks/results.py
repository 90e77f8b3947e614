"""The JSON of a benchmark: written anew after each measurement, so that a run killed in the middle keeps what it has.

::

    {"settings": {…}, "machine": {…}, "versions": {…},
     "cases": {case: {"title", "caution",
                      "starts": {contender: {"start_seconds", "warm_up": {wall, cpu, peak_bytes, …},
                                           "whole": whether that was on one of the case's scans}},
                      "rows": [{"contender", "round", "scan", "wall", "cpu", "before_bytes", "peak_bytes", …}],
                      "left_out": {contender: reason},
                      "dice": {contender: {scan: mean Dice with the truth}},
                      "agreement": {"a | b": {scan: {"equal", "dice"}}},
                      "summary": …}},
     "convolution_peak": …}
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import psutil


class Results:
    """The content, as plain dictionaries in ``data``, and its file."""

    def __init__(self, path: Path, settings: dict[str, Any], *, keep: bool = False):
        self.path = path
        self.data: dict[str, Any] = {"settings": settings, "machine": machine(), "versions": {}, "cases": {}}
        if keep and path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            different = [key for key in ("cores", "threads", "quick") if before["settings"].get(key) != settings[key]]
            if different or before["machine"] != self.data["machine"]:
                what = f"--{different[0]}" if different else "the machine"
                raise SystemExit(
                    f"{path} was measured with another setting ({what}); go on with the same one, or begin anew "
                    "without --resume."
                )
            self.data = before | {"settings": settings}

    def case(self, name: str, title: str, caution: str) -> dict[str, Any]:
        """The part of a case, made where it is not there."""
        empty = {"starts": {}, "rows": [], "left_out": {}, "dice": {}, "agreement": {}, "summary": {}}
        return self.data["cases"].setdefault(name, {"title": title, "caution": caution} | empty)

    def save(self) -> None:
        """Write the file whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=self.path.parent, suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(self.data, file, indent=1)
            file.write("\n")
        os.replace(part, self.path)


def machine() -> dict[str, Any]:
    """What computes here."""
    return {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "medmapai": importlib.metadata.version("medmapai"),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
