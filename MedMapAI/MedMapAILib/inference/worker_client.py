"""The host's side of the worker: start it, give it work, hear how it goes, end it. Knows neither Qt nor torch.

    client = WorkerClient(SubprocessTransport)
    report = client.run_and_wait(RunRequest(model, image, affine))

In a panel ``run`` and ``train`` return at once and functions are called later, from Qt's event loop, which delivers
what the transport hears. There is one worker process, started with the first request and again whenever it is gone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, process_tree
from ..errors import Cancelled, InputError, RunError
from .failures import Failure, failure_of_exit
from .messages import (
    PROTOCOL,
    ReconstructRequest,
    RunRequest,
    from_line,
    reconstruct_to_message,
    report_from_message,
    request_to_message,
    to_line,
)
from .output_tail import Tail
from .report import RunReport
from .shared_memory import SharedArrays, remove_block
from .transport import Transport

Event = dict[str, Any]

#: ``python`` + these starts the worker.
WORKER = ("-m", "MedMapAILib.inference.worker")

#: What a Python may print before our code is reached; more than this is somebody else's program.
_MOST_NOISE = 1 << 16
#: No event is longer: a result of a thousand segments has 0.2 MB.
_LONGEST_LINE = 1 << 26
#: Lines of standard error that are kept to say why a worker died.
_TAIL_LINES = 40

_children = itertools.count()


def _nothing(*_: Any) -> None:
    pass


@dataclass
class _Child:
    """One worker process, from its start to its end."""

    transport: Transport
    #: How the names of all its shared memory begin.
    prefix: str
    tail: Tail = field(default_factory=lambda: Tail(_TAIL_LINES))
    rest: bytes = b""
    noise: str = ""
    greeted: bool = False
    #: The worker's own number: the transport's may be that of a launcher in front of it.
    pid: int | None = None
    #: It said that it ends now.
    leaving: bool = False


@dataclass
class _Job:
    """What the worker was asked to do."""

    number: int
    command: dict[str, Any]
    on_event: Callable[[Event], None]
    on_done: Callable[[Any], None]
    on_failure: Callable[[Failure], None]
    request: RunRequest | None = None
    arrays: SharedArrays | None = None
    names: list[str] = field(default_factory=list)
    #: The worker said that it is on it.
    accepted: bool = False
    sent_again: bool = False


class WorkerClient:
    """One worker process and what it is doing.

    make_transport: gives a new ``Transport`` for every start. program: a Python that has torch and MONAI; in Slicer
    PythonSlicer. environment: variables for the worker beside those of this process. idle_minutes: without work, after
    which the worker ends itself. arguments: what ``program`` is started with; the worker's own options follow.

    One request at a time: RunError for a second one. Every request ends in exactly one call, of ``on_result`` or
    ``on_finished``, or of ``on_failure``; the client is ready again when that call comes. It may come before ``run``
    or ``train`` return, for example where the program is not there. Use from one thread.
    """

    def __init__(
        self,
        make_transport: Callable[[], Transport],
        program: str = sys.executable,
        *,
        environment: dict[str, str] | None = None,
        idle_minutes: float = 15,
        arguments: Sequence[str] = WORKER,
    ):
        self._make_transport = make_transport
        self._program = str(program)
        self._arguments = [str(argument) for argument in arguments]
        self._environment = dict(environment or {})
        self._idle_minutes = float(idle_minutes)
        self._numbers = itertools.count(1)
        self._child: _Child | None = None
        self._job: _Job | None = None
        # Processes that were told to go; a transport must be kept until its process is gone.
        self._leaving: list[_Child] = []

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """A request is under way."""
        return self._job is not None

    @property
    def alive(self) -> bool:
        """There is a worker process (perhaps still starting)."""
        return self._child is not None

    @property
    def pid(self) -> int | None:
        """The worker's process number, once it has said hello."""
        return self._child.pid if self._child is not None else None

    @property
    def tail(self) -> str:
        """The last lines that the worker wrote to its standard error."""
        return self._child.tail.text if self._child is not None else ""

    # -- requests ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the worker already, so that the first request does not wait for it. Raises RunError, with the reason,
        when the program is not there."""
        if self._child is None:
            failure = self._start()
            if failure is not None:
                raise RunError(failure.reason)

    def run(
        self,
        request: RunRequest,
        *,
        on_event: Callable[[Event], None] = _nothing,
        on_result: Callable[[RunReport], None],
        on_failure: Callable[[Failure], None],
    ) -> None:
        """Run a model on an image; returns at once.

        The image is copied to shared memory before this returns. on_event: {"event": "progress", "fraction",
        "message"}, {"event": "estimate", "windows", "window", "seconds", "memory_bytes", "memory_gb", "notes",
        "sentence"}, {"event": "log", "message"}.
        Raises RunError while another request is under way.
        """
        message, arrays = request_to_message(request)
        self._begin({"command": "run", "request": message}, on_event, on_result, on_failure, arrays)

    def reconstruct(
        self,
        request: ReconstructRequest,
        *,
        on_event: Callable[[Event], None] = _nothing,
        on_result: Callable[[RunReport], None],
        on_failure: Callable[[Failure], None],
    ) -> None:
        """Make an image of a measurement; returns at once. Events and errors as of ``run``."""
        message, arrays = reconstruct_to_message(request)
        self._begin({"command": "reconstruct", "request": message}, on_event, on_result, on_failure, arrays)

    def train(
        self,
        config: dict | str | Path,
        output: str | Path,
        *,
        resume: bool = False,
        on_event: Callable[[Event], None] = _nothing,
        on_finished: Callable[[Event], None],
        on_failure: Callable[[Failure], None],
    ) -> None:
        """Train a model; returns at once.

        config: a dictionary of sections, or the path of a .toml or .json. output: the training's folder. on_event: the
        events of ``training.run.train`` but the last, and {"event": "log", "message"}. on_finished: called with the
        last event, "finished" (with "bundle" and "metrics") or "stopped" (as asked by ``stop_training``; it can be
        resumed). The worker ends after a training, which frees its memory. Raises RunError while another request is
        under way.
        """
        command = {
            "command": "train",
            "config": config if isinstance(config, dict) else os.path.abspath(config),
            "output": os.path.abspath(output),
            "resume": bool(resume),
        }
        self._begin(command, on_event, on_finished, on_failure)

    def stop_training(self) -> None:
        """Ask the training to save a checkpoint and stop: ``on_finished`` then gets a "stopped" event. Does nothing
        without a training. One that has not begun yet is called off."""
        job = self._job
        if job is None or job.command["command"] != "train":
            return
        job.command["stop"] = True  # for a worker that is still starting
        self._send({"command": "stop", "id": job.number})

    def cancel(self) -> None:
        """End what is under way at once, by force, with every process that the worker has started. ``on_failure``
        gets a Failure of kind "cancelled" before this returns. Does nothing without a request."""
        if self._job is not None:
            self._fail(Failure("cancelled", "Cancelled; nothing was changed."), kill=True)

    def shut_down(self) -> None:
        """End the worker, at once and whatever it is doing; no function of a request is called any more. The client
        can be used again afterwards."""
        job, self._job = self._job, None
        if job is not None:
            _clean_up(job)
        if self._child is not None:
            self._dismiss(kill=True)

    def poll(self) -> None:
        """Deliver what has come; not needed where an event loop delivers."""
        for child in [*self._leaving, *([self._child] if self._child is not None else [])]:
            child.transport.poll()

    def run_and_wait(self, request: RunRequest, *, on_event: Callable[[Event], None] = _nothing) -> RunReport:
        """Run a model and return the report, for scripts. Raises InputError, RunError (its ``failure`` attribute is
        the Failure), or Cancelled where somebody else cancelled it."""
        results: list[RunReport] = []
        failures: list[Failure] = []
        self.run(request, on_event=on_event, on_result=results.append, on_failure=failures.append)
        return self._wait(results, failures)

    def train_and_wait(
        self,
        config: dict | str | Path,
        output: str | Path,
        *,
        resume: bool = False,
        on_event: Callable[[Event], None] = _nothing,
    ) -> Event:
        """Train and return the last event, for scripts. Raises as ``run_and_wait``."""
        results: list[Event] = []
        failures: list[Failure] = []
        self.train(
            config, output, resume=resume, on_event=on_event, on_finished=results.append, on_failure=failures.append
        )
        return self._wait(results, failures)

    def _wait(self, results: list, failures: list[Failure]) -> Any:
        try:
            while not results and not failures:
                self.poll()
                # A transport whose poll does not wait itself must not turn this into a busy loop.
                time.sleep(0.001)
        except BaseException:
            self.cancel()
            raise
        if results:
            return results[0]
        failure = failures[0]
        if failure.kind == "cancelled":
            raise Cancelled
        error = (InputError if failure.kind == "input" else RunError)(failure.reason)
        error.failure = failure
        raise error

    # -- life of a request ------------------------------------------------------------------------------------------

    def _begin(
        self,
        command: dict[str, Any],
        on_event: Callable[[Event], None],
        on_done: Callable[[Any], None],
        on_failure: Callable[[Failure], None],
        arrays: Sequence[np.ndarray] | None = None,
    ) -> None:
        if self._job is not None:
            raise RunError("The worker is busy; wait for what it is doing, or cancel it.")
        job = self._job = _Job(next(self._numbers), {**command}, on_event, on_done, on_failure)
        job.command["id"] = job.number
        # The process first: whatever happens to this one later, that one clears the shared memory of its prefix.
        failure = None if self._child is not None else self._start()
        if failure is None and arrays is not None:
            failure = self._share(job, arrays)
        if failure is not None:
            self._fail(failure)
        elif self._child.greeted:
            self._send(job.command)

    def _share(self, job: _Job, arrays: Sequence[np.ndarray]) -> Failure | None:
        name = f"{self._child.prefix}{job.number}"
        job.names = [f"{name}i", f"{name}o"]
        try:
            job.arrays = SharedArrays.create(job.names[0], arrays)
        except (OSError, RunError, MemoryError) as error:
            return Failure("memory", " ".join(str(error).split()))
        job.command |= {"input": job.arrays.description, "output": job.names[1]}
        return None

    def _fail(self, failure: Failure, *, kill: bool = False) -> None:
        """End the request with a failure; kill: and the worker, which is in a state that nobody knows."""
        if kill and self._child is not None:
            self._dismiss(kill=True)
        job, self._job = self._job, None
        if job is not None:
            _clean_up(job)
            job.on_failure(failure)

    def _finish(self, value: Any) -> None:
        job, self._job = self._job, None
        _clean_up(job)
        job.on_done(value)

    # -- the process ------------------------------------------------------------------------------------------------

    def _start(self) -> Failure | None:
        transport = self._make_transport()
        child = self._child = _Child(transport, f"medmapai-{os.getpid()}-{next(_children)}-")
        try:
            transport.start(
                self._program,
                [*self._arguments, "--prefix", child.prefix, "--idle-minutes", f"{self._idle_minutes:g}"],
                self._child_environment(),
                lambda data: self._on_output(child, data),
                lambda data: self._on_error(child, data),
                lambda code, signal: self._on_exit(child, code, signal),
            )
        except OSError as error:
            self._child = None
            why = error.strerror or str(error)
            return Failure("start", f"The worker could not be started with {self._program}: {why}; reinstall Slicer.")
        return None

    def _child_environment(self) -> dict[str, str]:
        environment = {**os.environ, **self._environment}
        library = str(Path(__file__).resolve().parents[2])
        paths = [library, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        # What it writes to its standard error is shown to people, in one encoding on every system.
        environment["PYTHONIOENCODING"] = "utf-8:backslashreplace"
        return environment

    def _send(self, message: dict[str, Any]) -> None:
        if self._child is not None and self._child.greeted:
            self._child.transport.write(to_line(message))

    def _dismiss(self, *, kill: bool) -> None:
        """Have no more to do with the worker process: end it by force, or let it end by itself."""
        child, self._child = self._child, None
        self._leaving.append(child)
        if kill:
            process_tree.kill(child.transport.pid, group=child.pid)
            child.transport.kill()
        child.transport.close_input()

    def _on_exit(self, child: _Child, code: int | None, signal: int | None) -> None:
        if child in self._leaving:
            self._leaving.remove(child)
        # Its own children are gone with it only where they noticed.
        process_tree.kill(None, group=child.pid)
        if child is not self._child:
            return
        self._child = None
        job = self._job
        if job is None:
            return
        if child.greeted and child.leaving and not job.accepted and not job.sent_again:
            # It went to sleep in the moment in which it was asked: ask another one.
            job.sent_again = True
            failure = self._start()
        elif not child.greeted and child.noise and code is not None:
            failure = Failure("protocol", _strange(child.noise), child.tail.text)
            if child.tail.text:
                failure = failure_of_exit(code, signal, child.tail.text, greeted=False)
        else:
            failure = failure_of_exit(code, signal, child.tail.text, greeted=child.greeted)
        if failure is not None:
            self._fail(failure)

    # -- what the worker says ---------------------------------------------------------------------------------------

    def _on_error(self, child: _Child, data: bytes) -> None:
        for line in child.tail.feed(data):
            if child is self._child and self._job is not None:
                self._job.on_event({"event": "log", "message": line})

    def _on_output(self, child: _Child, data: bytes) -> None:
        child.rest += data
        while child is self._child and b"\n" in child.rest:
            line, _, child.rest = child.rest.partition(b"\n")
            if line.strip():
                self._on_line(child, line)
        if child is self._child and len(child.rest) > (_LONGEST_LINE if child.greeted else _MOST_NOISE):
            self._misspoken(child, child.rest[:200])

    def _on_line(self, child: _Child, line: bytes) -> None:
        event = from_line(line)
        if not child.greeted:
            if event is not None and event.get("event") == "hello":
                self._on_hello(child, event)
                return
            # What is printed while a Python starts is not ours to forbid.
            child.noise += line.decode("utf-8", "replace").strip() + "\n"
            if len(child.noise) > _MOST_NOISE:
                self._misspoken(child, line)
            return
        if event is None or not isinstance(event.get("event"), str):
            self._misspoken(child, line)
            return
        kind, job = event.pop("event"), self._job
        if kind == "leaving":
            child.leaving = True
        elif job is not None and event.pop("id", None) == job.number:
            try:
                tell = self._handlers.get(kind, WorkerClient._on_other)(self, job, kind, event)
            except (KeyError, TypeError, ValueError, IndexError, OSError):
                self._misspoken(child, line)
            else:
                # Apart from what may fail above: what the caller's own functions raise is the caller's.
                tell()

    def _on_hello(self, child: _Child, event: Event) -> None:
        if (event.get("protocol"), event.get("version")) != (PROTOCOL, __version__):
            reason = (
                f"The worker process is MedMapAI {event.get('version')} (protocol {event.get('protocol')}) and this is "
                f"{__version__} (protocol {PROTOCOL}); restart Slicer, and reinstall MedMapAI if that does not help."
            )
            self._fail_or_forget(Failure("version", reason, child.tail.text))
            return
        child.greeted = True
        if process_tree.is_descendant(event.get("pid"), child.transport.pid):
            child.pid = event["pid"]
        if self._job is not None:
            self._send(self._job.command)

    # Each of these reads an event and returns what is to be done about it.

    def _on_other(self, job: _Job, kind: str, event: Event) -> Callable[[], None]:
        return lambda: job.on_event({"event": kind, **event})

    def _on_accepted(self, job: _Job, kind: str, event: Event) -> Callable[[], None]:
        job.accepted = True
        job.arrays = None  # the worker has them
        return _nothing

    def _on_result(self, job: _Job, kind: str, event: Event) -> Callable[[], None]:
        output = SharedArrays.open(event["output"])
        output.unlink()
        report = report_from_message(event["report"], output.arrays)
        self._send({"command": "release", "id": job.number})
        return lambda: self._finish(report)

    def _on_trained(self, job: _Job, kind: str, event: Event) -> Callable[[], None]:
        # It ends by itself after a training; what is asked next is for a new one.
        self._dismiss(kill=False)
        return lambda: self._finish({"event": kind, **event})

    def _on_failed(self, job: _Job, kind: str, event: Event) -> Callable[[], None]:
        failure = Failure(event["kind"], event["reason"], event.get("details") or self.tail)
        # Memory that ran out once is in pieces, or held by somebody nobody knows. A training leaves the rest.
        kill = failure.kind not in ("input", "error") or job.command["command"] == "train"
        return lambda: self._fail(failure, kill=kill)

    _handlers: dict[str, Callable] = {
        "accepted": _on_accepted,
        "result": _on_result,
        "finished": _on_trained,
        "stopped": _on_trained,
        "failed": _on_failed,
    }

    def _misspoken(self, child: _Child, line: bytes) -> None:
        self._fail_or_forget(Failure("protocol", _strange(line.decode("utf-8", "replace")), child.tail.text))

    def _fail_or_forget(self, failure: Failure) -> None:
        """Nobody has to hear of a worker that goes wrong while nothing is asked of it."""
        self._dismiss(kill=True)
        if self._job is not None:
            self._fail(failure)


def _strange(text: str) -> str:
    first = " ".join(text.split())[:60]
    return (
        f"Something that is no event came from the worker process ({first!r}), so it was ended; try again, and report "
        "it if it happens twice."
    )


def _clean_up(job: _Job) -> None:
    """Leave no shared memory of a request behind, whoever made it."""
    job.arrays = None
    for name in job.names:
        with contextlib.suppress(OSError):
            remove_block(name)
