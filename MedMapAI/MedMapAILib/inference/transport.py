"""How a child process is started and spoken to: one protocol, and its implementation for scripts and tests.

In Slicer the same protocol is kept by a QProcess (MedMapAIQt/process_transport.py), because a panel may have no
threads. Whoever uses a transport calls it from one thread and is called back in that thread alone.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import IO, Protocol

OnData = Callable[[bytes], None]
#: (exit code, None), (None, signal number), or (None, None) for a program that could not be started.
OnExit = Callable[["int | None", "int | None"], None]

#: How long after the end of a process the rest of its output is waited for: its own children may hold the pipe open.
_REST_SECONDS = 0.3


class Transport(Protocol):
    """One child process with pipes to its standard input, output and error. Started once."""

    @property
    def pid(self) -> int | None:
        """The child's number, also when it has ended; None before it was started."""

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        environment: dict[str, str],
        on_output: OnData,
        on_error: OnData,
        on_exit: OnExit,
    ) -> None:
        """Start ``program``. environment: all of the child's variables, not additions.

        on_output, on_error: called with bytes as they come, cut anywhere. on_exit: called once, after the last of
        them. A program that cannot be started raises OSError here, or calls ``on_exit(None, None)`` later.
        """

    def write(self, data: bytes) -> None:
        """Send to the child's standard input. A child that is gone is told by on_exit, not here."""

    def close_input(self) -> None:
        """Close the child's standard input, which asks our worker to end."""

    def kill(self) -> None:
        """End the child by force (SIGKILL, TerminateProcess); nothing happens when it is gone."""

    def poll(self) -> None:
        """Deliver what has come since the last call; may wait some milliseconds for it. Where an event loop delivers
        there is nothing to do."""


class SubprocessTransport:
    """A transport for scripts: threads read, and ``poll`` delivers in the caller's thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._arrived: queue.SimpleQueue[tuple[Callable, tuple]] = queue.SimpleQueue()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        environment: dict[str, str],
        on_output: OnData,
        on_error: OnData,
        on_exit: OnExit,
    ) -> None:
        self._process = process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            bufsize=0,
            # No console window comes up when a program without one starts this.
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        readers = [
            threading.Thread(target=self._read, args=(pipe, tell), daemon=True)
            for pipe, tell in ((process.stdout, on_output), (process.stderr, on_error))
        ]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._wait, args=(process, readers, on_exit), daemon=True).start()

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(data)

    def close_input(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def poll(self, timeout: float = 0.01) -> None:
        """timeout: seconds to wait for the first thing to come."""
        with contextlib.suppress(queue.Empty):
            tell, arguments = self._arrived.get(timeout=timeout)
            while True:
                tell(*arguments)
                tell, arguments = self._arrived.get_nowait()

    def _read(self, pipe: IO[bytes], tell: OnData) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(pipe.fileno(), 1 << 16):
                self._arrived.put((tell, (data,)))

    def _wait(self, process: subprocess.Popen, readers: list[threading.Thread], on_exit: OnExit) -> None:
        code = process.wait()
        for reader in readers:
            reader.join(_REST_SECONDS)
        self.close_input()
        self._arrived.put((on_exit, (None, -code) if code < 0 else (code, None)))
