"""A progress bar for people, and nothing for pipes."""

from __future__ import annotations

import shutil
import sys
import time


class ProgressBar:
    """Shows a fraction and a message on standard error, if that is a terminal; callable as ``bar(fraction, message)``.

    Elsewhere (a file, a pipe) the same is printed as plain lines, at most one in ten seconds.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = False
        self._last = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._clear()

    def __call__(self, fraction: float, message: str) -> None:
        """Show how far it is, 0 to 1, and what is being done."""
        now = time.monotonic()
        if self._terminal:
            if now - self._last < 0.05 and fraction < 1:
                return
            columns = shutil.get_terminal_size().columns
            filled = round(20 * fraction)
            text = f"[{'#' * filled}{'.' * (20 - filled)}] {fraction:4.0%} {message}"[: columns - 1]
            sys.stderr.write("\r\x1b[K" + text)
            sys.stderr.flush()
            self._shown = True
        else:
            if now - self._last < 10:
                return
            print(f"{fraction:4.0%} {message}", file=sys.stderr, flush=True)
        self._last = now

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        print(text, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
