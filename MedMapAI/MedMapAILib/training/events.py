"""What a training process says, one JSON object a line, read as it comes."""

from __future__ import annotations

import csv
import json
from collections import deque
from pathlib import Path
from typing import Any

#: Events after which nothing more comes.
LAST_EVENTS = ("finished", "stopped", "failed")


class EventReader:
    """Turns the bytes of a process's output into events, whichever way the bytes are cut.

    A line that is not a JSON object with an "event" becomes ``{"event": "log", "message": line}``: libraries print.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events that are whole now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [event for line in lines if (event := _event(line)) is not None]

    def close(self) -> list[dict[str, Any]]:
        """The event of a last line without an end, if there is one."""
        return self.feed(b"\n")


class Tail:
    """The last lines of a stream of bytes, to say why a process died."""

    def __init__(self, lines: int = 20) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Keep, and return, the lines that are whole now; of a progress bar the last state."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = [text for line in lines if (text := _text(line).rpartition("\r")[2].strip())]
        self._lines.extend(found)
        return found

    @property
    def text(self) -> str:
        """The lines kept, and what has come of the next one."""
        return "\n".join([*self._lines, *filter(None, [_text(self._rest).rpartition("\r")[2].strip()])])


def read_history(output: str | Path) -> list[dict[str, Any]]:
    """The epochs in the history.csv of a training's folder, as its "epoch" events had them; empty without one."""
    try:
        text = (Path(output) / "history.csv").read_text(encoding="utf-8")
    except OSError:
        return []
    rows = []
    for cells in csv.DictReader(text.splitlines()):
        row: dict[str, Any] = {key: float(value) if value else None for key, value in cells.items() if key}
        if row.get("epoch"):
            rows.append({**row, "epoch": int(row["epoch"])})
    return rows


def why_it_died(exit_code: int, crashed: bool, tail: str) -> str:
    """One sentence on a process that ended without saying so.

    exit_code: of the process; on Unix the signal's number where it crashed. tail: the end of its standard error.
    """
    if "No module named" in tail:
        missing = tail.rpartition("No module named")[2].strip().strip("'\"").partition("'")[0]
        reason = f"the Python package {missing} is missing; press Start again to install it"
    elif "out of memory" in tail.lower() or "MemoryError" in tail or (crashed and exit_code == 9):
        reason = "it ran out of memory or was killed; use a smaller patch (plan.json) or close other programs"
    elif crashed:
        reason = f"it crashed or was killed (signal {exit_code})"
    else:
        reason = f"it ended with exit status {exit_code}"
    return f"The training process stopped unexpectedly: {reason}. The last checkpoint, if there is one, can be resumed."


def _event(line: bytes) -> dict[str, Any] | None:
    text = _text(line).strip()
    if not text:
        return None
    try:
        event = json.loads(text)
    except ValueError:
        event = None
    if isinstance(event, dict) and isinstance(event.get("event"), str):
        return event
    return {"event": "log", "message": text}


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
