"""The ways in which a command can end early, so that every caller can tell a mistake, a failure and a wish apart."""

from __future__ import annotations


class InputError(ValueError):
    """The input or the call is wrong.

    ``str(error)`` is one sentence that says what was wrong, where, and what to do. The command line ends with exit
    status 2; the panels show the sentence in a dialog. Raised before anything was written or changed.
    """


class RunError(RuntimeError):
    """The input was right and the run failed all the same (out of memory, disk full, training diverged).

    ``str(error)`` is one sentence that says what failed and what was kept. The command line ends with exit status 1.
    """


class Cancelled(Exception):
    """The user asked to stop. Whoever raises it has changed nothing and left nothing half-written."""


class NotHounsfield(InputError):
    """The values of a CT are no Hounsfield units; the user may correct them, or know better and go on."""
