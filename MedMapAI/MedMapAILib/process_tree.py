"""Ending a process together with everything that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

#: A process may start another one while its children are being counted; so many times it is looked again.
_ROUNDS = 3


def lead_own_group() -> None:
    """Make this process the head of a new session, so that whatever it starts can be ended as one group. Does nothing
    on Windows, or where it heads one already."""
    if hasattr(os, "setsid"):
        with contextlib.suppress(OSError):
            os.setsid()


def descendants(pid: int) -> list[psutil.Process]:
    """The processes that ``pid`` has started and those that they have started, without itself; none where it is
    gone, or where psutil, which the panels install, is not there yet."""
    try:
        import psutil
    except ImportError:
        return []
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def is_descendant(pid: object, ancestor: int | None) -> bool:
    """Whether ``pid`` is a process number, of ``ancestor`` or of a process that it has started."""
    if not isinstance(pid, int) or isinstance(pid, bool) or ancestor is None:
        return False
    return pid == ancestor or any(process.pid == pid for process in descendants(ancestor))


def kill(pid: int | None, *, group: int | None = None) -> None:
    """End a process and everything it has started, by force. Does not wait; SIGKILL cannot be refused.

    group: number of a process that called ``lead_own_group``; its group is ended also where it is gone itself. Groups
    end as one, so that a process that is just being started does not escape. Nothing happens to what is gone already,
    and never anything to this process and its own group.
    """
    _kill_group(group)
    if pid is None or pid == os.getpid():
        return
    for _ in range(_ROUNDS):
        found = [pid, *(process.pid for process in descendants(pid))]
        for process in found:
            _kill_group(process)
            _kill_one(process)
        if len(found) <= 1:
            break


def kill_children() -> None:
    """End everything that this process has started, by force."""
    for _ in range(_ROUNDS):
        found = [process.pid for process in descendants(os.getpid())]
        for pid in found:
            _kill_one(pid)
        if not found:
            return
        time.sleep(0.005)


def _kill_group(pid: int | None) -> None:
    if pid is None or pid <= 1 or not hasattr(os, "killpg") or pid == os.getpgid(0):
        return
    with contextlib.suppress(OSError):
        # A group's number is its head's, and of a process that heads none there is no such group.
        os.killpg(pid, signal.SIGKILL)


def _kill_one(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
