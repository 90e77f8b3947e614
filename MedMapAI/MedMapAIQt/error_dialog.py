"""Errors in a dialog with one sentence."""

from __future__ import annotations

import logging

import slicer
from slicer.i18n import tr as _


class ShowErrors:
    """Context in which an error ends in a dialog: ``title`` and one sentence. The log has the rest."""

    def __init__(self, title: str, window: str = "MedMapAI"):
        self.title = title
        self.window = window

    def __enter__(self) -> ShowErrors:
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        if kind is None or not issubclass(kind, Exception):
            return False
        from MedMapAILib.errors import InputError, RunError

        if issubclass(kind, (InputError, RunError)):
            text = str(error)
        elif issubclass(kind, MemoryError) or "out of memory" in str(error):
            text = _("There is not enough memory; choose a region of interest or another device.")
        else:
            logging.error("MedMapAI", exc_info=(kind, error, traceback))
            text = _(
                "{kind}: {error}\n\nThis is a mistake in MedMapAI; please report it with the application log."
            ).format(kind=kind.__name__, error=error)
        show_error(self.title, text, self.window)
        return True


def show_error(title: str, sentence: str, window: str = "MedMapAI", details: str = "") -> None:
    """A dialog that says what did not work and why; ``details`` are folded away."""
    slicer.util.errorDisplay(f"{title}\n\n{sentence}", window, detailedText=details)
