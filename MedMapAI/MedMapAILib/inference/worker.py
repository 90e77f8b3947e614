"""The worker process: keeps torch imported and models loaded, runs them and trains them, on request.

``python -m MedMapAILib.inference.worker``, started by ``worker_client``. One JSON object a line: commands on standard
input, events on what was standard output when it started. That one is put out of everybody's reach first, so that what
libraries print (from Python or from C) goes to standard error.

Commands: {"command": "run", "id", "request", "input", "output"} · {"command": "reconstruct", the same} · {"command":
"train", "id", "config", "output", "resume"} · {"command": "stop", "id"} · {"command": "release", "id"} · {"command":
"ping"}.
Events: hello · accepted · progress · estimate · result · failed · those of a training · leaving · pong; all but hello,
leaving and pong with the "id" of their command. When standard input ends, because the host closed it or is no more,
the process ends at once, whatever it is doing, with everything it has started.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from .. import __version__, process_tree
from .failures import failure_of_exception
from .messages import (
    PROTOCOL,
    from_line,
    reconstruct_from_message,
    report_to_message,
    request_from_message,
    to_line,
)

#: Progress is told at most so often.
_PROGRESS_SECONDS = 0.1
#: Characters of a traceback that go with a failure.
_MOST_DETAILS = 4000
#: A host with a request sends it at once; so long is waited for it before libraries are loaded without one.
_PATIENCE_SECONDS = 0.5
#: Weaker than what people work with at the same time: the host's window stays quick on a machine with few cores.
_NICENESS = 5
#: From 0 (as others) to 1000: how gladly Linux ends this process when memory runs out.
_EXPENDABLE = 500


def main(arguments: list[str] | None = None) -> None:
    """Work until the input ends, the worker was idle for long, or a training is over. Does not return."""
    channel = Channel()
    options = _parser().parse_args(arguments)
    process_tree.lead_own_group()
    faulthandler.enable()
    _step_back()
    channel.tell({"event": "hello", "protocol": PROTOCOL, "version": __version__, "pid": os.getpid()})
    _leave(Worker(channel, options).work())


class Channel:
    """The way to the host: commands in, events out. Made before anything else can write to standard output."""

    def __init__(self) -> None:
        self._commands = os.dup(0)
        self._events = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(line_buffering=True)
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            # A data loader's process must not keep the channel open when this one is gone.
            os.register_at_fork(after_in_child=self._forget)

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event; by any thread."""
        data = memoryview(to_line(event))
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._events, data) :]
            except OSError:
                os._exit(0)  # nobody listens any more

    def commands(self) -> Any:
        """The commands, until there are no more."""
        with open(self._commands, "rb", buffering=0, closefd=False) as stream:
            rest = b""
            while data := stream.read(1 << 16):
                *lines, rest = (rest + data).split(b"\n")
                yield from filter(None, map(from_line, lines))

    def _forget(self) -> None:
        for handle in (self._commands, self._events):
            with contextlib.suppress(OSError):
                os.close(handle)


class Worker:
    """Does one command after the other. channel: to the host. options: of the command line."""

    def __init__(self, channel: Channel, options: argparse.Namespace):
        self._channel = channel
        self._prefix = options.prefix
        self._idle_seconds = 60 * options.idle_minutes
        self._budget = None if options.memory_gb is None else int(options.memory_gb * 2**30)
        self._waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._names: set[str] = set()
        self._stopped: set[int] = set()
        self._models: Any = None
        # The last result: on Windows shared memory goes with its last user, and the host may not have it yet.
        self._output: Any = None

    def work(self) -> int:
        """Returns the exit status."""
        threading.Thread(target=self._listen, daemon=True).start()
        timeout = min(_PATIENCE_SECONDS, self._idle_seconds)
        while True:
            try:
                command = self._waiting.get(timeout=timeout)
            except queue.Empty:
                if timeout < self._idle_seconds:
                    # Started ahead of time: what the first request would have to wait for is done now.
                    timeout = self._idle_seconds
                    _preload()
                    continue
                self._channel.tell({"event": "leaving"})
                return 0
            timeout = self._idle_seconds
            self._output = None
            if command["command"] == "run":
                self._guard(command, self._run)
            elif command["command"] == "reconstruct":
                self._guard(command, self._reconstruct)
            elif command["command"] == "train":
                self._guard(command, self._train)
                self._channel.tell({"event": "leaving"})
                return 0

    def _listen(self) -> None:
        for command in self._channel.commands():
            kind = command.get("command")
            if kind == "stop":
                self._stopped.add(command["id"])
            elif kind == "ping":
                self._channel.tell({"event": "pong"})
            else:
                if kind in ("run", "reconstruct"):
                    self._names |= {command["input"]["name"], command["output"]}
                self._waiting.put(command)
        self._end()

    def _end(self) -> None:
        """The host is gone, or wants us to be."""
        from .shared_memory import remove_block, remove_blocks

        with contextlib.suppress(Exception):
            remove_blocks(self._prefix)
            for name in self._names:
                remove_block(name)
        with contextlib.suppress(Exception):
            process_tree.kill_children()
        os._exit(0)

    def _guard(self, command: dict[str, Any], do: Callable[[dict[str, Any]], None]) -> None:
        """Do it and tell what became of it."""
        try:
            do(command)
        except Exception as error:
            traceback.print_exc()
            failure = failure_of_exception(error)
            # Frames of the traceback hold the image and whatever else ran out of memory.
            traceback.clear_frames(error.__traceback__)
            # With the event, because its own pipe may bring what was written to standard error later.
            details = "".join(traceback.format_exception(error))[-_MOST_DETAILS:]
            self._tell(command, {"event": "failed", "kind": failure.kind, "reason": failure.reason, "details": details})

    def _tell(self, command: dict[str, Any], event: dict[str, Any]) -> None:
        self._channel.tell({**event, "id": command["id"]})

    # -- running ----------------------------------------------------------------------------------------------------

    def _run(self, command: dict[str, Any]) -> None:
        key, report = self._report(command)
        self._give(command, report)
        del report
        self._models.settle(key)  # takes a moment, for which nobody has to wait

    def _give(self, command: dict[str, Any], report: Any) -> None:
        """Hand a RunReport over to the host."""
        from .shared_memory import SharedArrays

        message, arrays = report_to_message(report)
        # As VTK has it: on the other side nothing needs to be turned round.
        self._output = SharedArrays.create(command["output"], arrays, first_axis_fastest=True)
        self._tell(command, {"event": "result", "report": message, "output": self._output.description})

    def _reconstruct(self, command: dict[str, Any]) -> None:
        """An image of a measurement, by a method or by a model."""
        progress = Throttled(lambda event: self._tell(command, event))
        request = reconstruct_from_message(command["request"], _arrays(command))
        self._tell(command, {"event": "accepted"})
        progress(0.0, "reading the measurement")
        from .measured_run import reconstruct

        self._give(command, reconstruct(request, progress))

    def _report(self, command: dict[str, Any]) -> tuple[Hashable, Any]:
        """Run the model. Returns its key among the warm ones, and a RunReport."""
        progress = Throttled(lambda event: self._tell(command, event))
        request = _request(command)
        self._tell(command, {"event": "accepted"})  # the host can let go of the voxels
        progress(0.0, "loading the model")

        from ..bundle import find_bundle, load_bundle

        path = find_bundle(request.model)  # before torch is imported, in case it is not there
        from ..image import make_image
        from .opening import open_predictor
        from .report import RunReport
        from .scoring import score
        from .warm_models import WarmModels, bundle_state

        if self._models is None:
            self._models = WarmModels(self._budget, release=lambda predictor: predictor.close())
            # What libraries have made so far stays for good; looking through it takes half a second each time.
            gc.freeze()
        state = bundle_state(path)
        wishes = {name: getattr(request, name) for name in ("device", "precision", "backend", "overlap", "mirror")}
        key = (state, tuple(wishes.items()))
        predictor = self._models.get(key, lambda: open_predictor(load_bundle(path), **wishes), least=state[2])
        try:
            meta = {"notes": list(request.notes), "assume_hounsfield": request.assume_hounsfield}
            image = make_image(request.image, request.affine, meta=meta)
            reference = request.reference
            # The shared voxels are not needed any more.
            request = replace(request, image=None)
            result = predictor.predict(
                image,
                roi=request.roi,
                progress=progress,
                on_estimate=lambda estimate: self._tell(command, _estimate_event(estimate)),
                # Only a classifier is asked where it looked.
                **({} if request.saliency is None else {"saliency": request.saliency}),
            )
            if reference is not None:
                progress(1.0, "scoring against the reference")
            scores = score(predictor.task, result, reference, image, request.roi)
            del image
            report = RunReport(
                predictor.bundle.info.name, result, predictor.device_description, predictor.seconds, scores
            )
        except Exception as error:
            from ..errors import InputError

            if not isinstance(error, InputError):
                self._models.drop(key)
            raise
        return key, report

    # -- training ---------------------------------------------------------------------------------------------------

    def _train(self, command: dict[str, Any]) -> None:
        self._tell(command, {"event": "accepted"})
        from ..errors import RunError
        from ..training.config import read_config
        from ..training.run import train

        config, number = command["config"], command["id"]
        if command.get("stop"):
            self._stopped.add(number)
        last: list[str] = []

        def tell(event: dict[str, Any]) -> None:
            last[:] = [event["event"]]
            self._tell(command, event)

        train(
            config if isinstance(config, dict) else read_config(config),
            command["output"],
            resume=command["resume"],
            on_event=Throttled(tell).event,
            should_stop=lambda: number in self._stopped,
        )
        if last not in (["finished"], ["stopped"]):
            raise RunError("The training ended without saying how; resume it, and report this if it happens twice.")


class Throttled:
    """Passes progress on ten times a second at most, but always the first, the last and a new kind of message."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]):
        self._tell = tell
        self._last = -1.0

    def __call__(self, fraction: float, message: str) -> None:
        self.event({"event": "progress", "fraction": float(fraction), "message": str(message)})

    def event(self, event: dict[str, Any]) -> None:
        """Pass on any event; only those of kind "progress" can be left out."""
        now = time.monotonic()
        if event["event"] == "progress":
            if 0 < event["fraction"] < 1 and now - self._last < _PROGRESS_SECONDS:
                return
            self._last = now
        self._tell(event)


def _preload() -> None:
    """Import what a run and a training need; that it is missing is said when it is asked for."""
    with contextlib.suppress(Exception):
        from ..training import run  # noqa: F401 - imports the predictor, too


def _request(command: dict[str, Any]) -> Any:
    """The RunRequest of a command."""
    return request_from_message(command["request"], _arrays(command))


def _arrays(command: dict[str, Any]) -> list[Any]:
    """The arrays of a command; the name of its shared memory is gone afterwards, whatever happens next."""
    from .shared_memory import SharedArrays

    block = SharedArrays.open(command["input"])
    block.unlink()
    return block.arrays


def _estimate_event(estimate: Any) -> dict[str, Any]:
    memory = None if estimate.memory_bytes is None else int(estimate.memory_bytes)
    return {
        "event": "estimate",
        "windows": int(estimate.windows),
        "window": [int(n) for n in estimate.window],
        "seconds": None if estimate.seconds is None else float(estimate.seconds),
        "memory_bytes": memory,
        "memory_gb": None if memory is None else round(memory / 2**30, 3),
        "notes": list(estimate.notes),
        "sentence": estimate.sentence,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="MedMapAI worker", description="Started by MedMapAI; not for use by hand.")
    parser.add_argument("--prefix", default="", help="how the names of this worker's shared memory begin")
    parser.add_argument("--idle-minutes", type=float, default=15.0, help="without work, until the worker ends itself")
    parser.add_argument("--memory-gb", type=float, help="for models that stay loaded")
    return parser


def _step_back() -> None:
    """Let other programs go first where there is not enough for all, the host above all."""
    with contextlib.suppress(Exception):
        if hasattr(os, "nice"):
            os.nice(_NICENESS)
        else:
            import psutil

            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    if sys.platform.startswith("linux"):
        # A system without memory ends somebody: this process and not Slicer, which holds the user's work.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(_EXPENDABLE))


def _leave(status: int) -> None:
    """End now: taking torch down in an orderly way takes seconds, and nothing of it is kept."""
    with contextlib.suppress(Exception):
        process_tree.kill_children()
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
