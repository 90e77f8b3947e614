"""The end of what a process wrote, to say why it died."""

from __future__ import annotations

from collections import deque


class Tail:
    """The last lines of a stream of bytes."""

    def __init__(self, lines: int = 20) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Keep, and return, the lines that are whole now; of a progress bar the last state."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = [text for line in lines if (text := _last_state(line))]
        self._lines.extend(found)
        return found

    @property
    def text(self) -> str:
        """The lines kept, and what has come of the next one."""
        return "\n".join([*self._lines, *filter(None, [_last_state(self._rest)])])


def _last_state(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rpartition("\r")[2].strip()
