"""A guard against a fault of PySide6 6.12 on Python before 3.12.

``signal.connect``, and slots that return None, give back a reference to True or None that they never took (seen: 200
connects, 200 references less), until Python stops with ``bool_dealloc: deallocating True or False``. From Python 3.12
these objects are immortal and nothing happens; before, the guard makes them so in effect.
"""

from __future__ import annotations

import ctypes
import sys


def guard() -> None:
    """Add references to True, False and None that no run can use up. Does nothing from Python 3.12."""
    if sys.version_info >= (3, 12) or sys.implementation.name != "cpython":
        return
    for value in (True, False, None):
        if sys.getrefcount(value) < 1 << 29:
            # An object of CPython begins with its reference count.
            ctypes.c_ssize_t.from_address(id(value)).value += 1 << 30
