"""The worker's child process by QProcess: Qt's event loop delivers what it says, so that no thread is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import qt

#: Transports whose process has not ended yet. Nobody else may hold one that was killed a moment ago, and a QProcess
#: that Python collects while its process runs blocks the whole application until it has ended.
_running: set[ProcessTransport] = set()

_START_MILLISECONDS = 10000


class ProcessTransport:
    """A child process whose output comes as bytes, while Qt's event loop turns or in ``poll``.

    One process each; see ``MedMapAILib.inference.transport.Transport``.
    """

    def __init__(self) -> None:
        self._process = None
        self._pid: int | None = None

    @property
    def pid(self) -> int | None:
        """The process's number while it lives; None before and after."""
        return self._pid if self._process is not None else None

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        environment: dict[str, str],
        on_output: Callable[[bytes], None],
        on_error: Callable[[bytes], None],
        on_exit: Callable[[int | None, int | None], None],
    ) -> None:
        """Start the program; returns when it runs.

        environment: the whole environment of the process. on_output, on_error: take what it wrote. on_exit: called
        once, after all output, with the exit status, or (None, number of the signal) where a signal ended it.
        Raises OSError when it cannot be started.
        """
        self._on_output, self._on_error, self._on_exit = on_output, on_error, on_exit
        process = qt.QProcess()
        process.setProcessEnvironment(_variables(environment))
        process.readyReadStandardOutput.connect(self._read)
        process.readyReadStandardError.connect(self._read)
        process.finished.connect(self._finished)
        self._process = process
        process.start(str(program), [str(argument) for argument in arguments])
        # Starting takes milliseconds, and who asked learns at once whether it worked.
        if not process.waitForStarted(_START_MILLISECONDS):
            self._process = None
            reason = process.errorString()
            process.deleteLater()
            raise OSError(f"{program} could not be started: {reason}")
        self._pid = int(process.processId())
        _running.add(self)

    def write(self, data: bytes) -> None:
        """Send bytes to the process's standard input as Qt's event loop turns; dropped when it has ended."""
        if self._process is not None and self._process.state() != qt.QProcess.NotRunning:
            self._process.write(data)

    def close_input(self) -> None:
        """End the process's standard input, after what was written."""
        if self._process is not None:
            self._process.closeWriteChannel()

    def kill(self) -> None:
        """End the process by force; ``on_exit`` follows."""
        if self._process is not None:
            self._process.kill()

    def poll(self) -> None:
        """Deliver what has come, for a caller who waits without turning Qt's event loop."""
        if self._process is not None:
            # Sends what was written and reads what is there, both channels; its signals call the functions above.
            self._process.waitForFinished(1)

    def wait(self, seconds: float) -> None:
        """Return when the process has ended, or after so long: one that Qt destroys while it runs makes Qt complain."""
        if self._process is not None:
            self._process.waitForFinished(round(1000 * seconds))

    def _read(self) -> None:
        process = self._process
        if process is not None:
            for read, deliver in (
                (process.readAllStandardOutput, self._on_output), (process.readAllStandardError, self._on_error),
            ):  # fmt: skip
                data = read().data()
                if data:
                    deliver(data)

    def _finished(self, *_ignored) -> None:
        if self._process is None:
            return
        self._read()
        process, self._process = self._process, None
        _running.discard(self)
        code, crashed = int(process.exitCode()), process.exitStatus() == qt.QProcess.CrashExit
        process.deleteLater()
        # Qt gives the signal's number as exit code on Unix. Windows has no signals.
        if crashed and os.name != "nt":
            self._on_exit(None, code)
        else:
            self._on_exit(code, None)


def _variables(environment: dict[str, str]):
    """A QProcessEnvironment with exactly these variables."""
    # What this process has is taken over as it is: bytes that are no text in Unicode would not go through Python.
    variables = qt.QProcessEnvironment.systemEnvironment()
    for name in variables.keys():
        if name not in environment:
            variables.remove(name)
    for name, value in environment.items():
        if os.environ.get(name) != value or not variables.contains(name):
            variables.insert(name, value)
    return variables
