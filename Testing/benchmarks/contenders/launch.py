"""The parent side: a contender in a process of its own, and what comes back from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.cases import ROOT

#: Libraries ask one or the other of these how many threads to start.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


class Lost(Exception):
    """The contender cannot go on; the message says why in one sentence."""


class ContenderProcess:
    """One contender, from its start to its end. The cores it may use are those of this process.

    name: in the contenders' table. case: name of the case. work: folder of shared files. log: file for what it prints.
    Raises Lost from every method when the process fails or ends.
    """

    def __init__(self, name: str, case: str, work: Path, threads: int, log: Path):
        self.name = name
        began = time.perf_counter()
        environment = os.environ | {variable: str(threads) for variable in _THREAD_VARIABLES}
        environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / part) for part in ("Testing", "MedMapAI"))
        environment["PYTHONUNBUFFERED"] = "1"
        # Compiled models of a benchmark: empty at its start, and never the user's own.
        environment["MEDMAPAI_CACHE"] = str(work / "cache" / name)
        self._log_path = log
        self._log = log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contenders.serve", name, case, str(work), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            cwd=ROOT,
            text=True,
            encoding="utf-8",
        )
        ready = self._event()
        #: Seconds from nothing to a model that is loaded, and the versions of the libraries in it.
        self.start_seconds = time.perf_counter() - began
        self.versions: dict[str, str] = ready["versions"]

    def ask(self, command: str, scan: str, output: Path | None = None) -> dict[str, Any]:
        """command: "warm_up" or "run". Returns the measurements and facts of that run."""
        line = json.dumps({"command": command, "scan": scan, "output": str(output) if output else None})
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:
            raise Lost(self._reason()) from None
        event = self._event()
        del event["event"]
        return event

    def _event(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        event = json.loads(line) if line else {"event": "failed", "reason": self._reason()}
        if event["event"] == "failed":
            self.close()
            raise Lost(event["reason"])
        return event

    def _reason(self) -> str:
        code = self._process.wait(timeout=30)
        self._log.flush()
        lines = [line for line in self._log_path.read_text(encoding="utf-8", errors="replace").splitlines() if line]
        return f"its process ended with code {code}" + (f" after saying {lines[-1][:300]!r}" if lines else "")

    def close(self) -> None:
        """End the process; it gets ten seconds to do so by itself."""
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()
