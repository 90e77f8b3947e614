"""VTK observers of the host's own widgets."""

from __future__ import annotations

import weakref

import shiboken6
import vtk

# Python's garbage collector takes an observer for garbage when nothing in Python but the VTK object refers to it,
# although the object lives on in the scene (C++) and will call it: a crash. So each is held here until it is removed.
_held: dict[tuple[int, int], object] = {}


def hold_observer(subject, event, callback) -> int:
    """``subject.AddObserver`` with a callback that the garbage collector leaves alone. Returns the tag."""
    tag = subject.AddObserver(event, callback)
    _held[id(subject), tag] = (subject, callback)
    return tag


def drop_observer(subject, tag: int) -> None:
    """Undo hold_observer."""
    subject.RemoveObserver(tag)
    _held.pop((id(subject), tag), None)


class Observations:
    """The VTK observers that one widget holds, to be given up together."""

    def __init__(self, widget):
        self._widget = weakref.ref(widget)
        self._observed: list[tuple[object, int]] = []

    def add(self, subject, event, method: str) -> None:
        """Call ``widget.method()`` at an event of ``subject`` (None: nothing to observe) as long as the widget
        lives."""
        if subject is None:
            return
        reference = self._widget

        def callback(_caller, _event):
            target = reference()
            if target is not None and shiboken6.isValid(target):
                getattr(target, method)()

        self._observed.append((subject, hold_observer(subject, event, callback)))

    def clear(self) -> None:
        for subject, tag in self._observed:
            drop_observer(subject, tag)
        self._observed.clear()


MODIFIED = vtk.vtkCommand.ModifiedEvent
