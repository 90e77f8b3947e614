"""Why a run or a training in another process did not end well, in one sentence that says what to do.

Knows no torch: exceptions are told apart by their names and words, and processes by how they ended and what they said
last.
"""

from __future__ import annotations

import re
import signal as signals
from dataclasses import dataclass

from ..errors import InputError, NotHounsfield

#: What can be the matter: see :class:`Failure`.
KINDS = ("cancelled", "input", "hounsfield", "memory", "killed", "protocol", "version", "start", "error")

_NO_MEMORY = (
    "There was not enough memory{where}; choose a region of interest, close other programs, or use a model with a "
    "smaller window."
)
#: How torch, OpenVINO, numpy, C++ and Linux say that they got no memory. A thread needs memory for its stack, too.
_MEMORY_WORDS = re.compile(
    r"bad_alloc|out of memory|\bMemoryError\b|not enough memory|can't allocate memory|cannot allocate memory"
    r"|unable to allocate|failed to allocate|can't start new thread|thread creation failed|insufficient memory",
    re.IGNORECASE,
)
#: Names for the signals that crash a program, where the system has them.
_CRASHES = {
    "SIGSEGV": "a segmentation fault",
    "SIGBUS": "a bus error",
    "SIGILL": "an illegal instruction",
    "SIGFPE": "an arithmetic error",
    "SIGABRT": "an abort",
}


@dataclass(frozen=True)
class Failure:
    """Why there is no result.

    kind: "cancelled" by the user; "input": what was asked for is wrong; "hounsfield": the values of a CT look like no
    Hounsfield units, and the user may go on all the same; "memory": there was too little; "killed": by somebody else,
    often the system for lack of memory; "protocol": something else spoke on the worker's channel; "version": the worker
    is of another version; "start": it could not be started, or a package is missing; "error": everything else. reason:
    one sentence. tail: the last lines that the worker wrote to its standard error.
    """

    kind: str
    reason: str
    tail: str = ""


def failure_of_exception(error: BaseException) -> Failure:
    """What to tell of an exception that a run or a training raised."""
    said = " ".join(str(error).split())
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, NotHounsfield):
        return Failure("hounsfield", said)
    if isinstance(error, InputError):
        return Failure("input", said)
    if names & {"MemoryError", "OutOfMemoryError", "OutOfMemory"} or (
        isinstance(error, (RuntimeError, OSError)) and _MEMORY_WORDS.search(said)
    ):
        if "OutOfMemory" in names and said:  # our own back ends say it in a sentence
            return Failure("memory", said)
        return Failure("memory", _NO_MEMORY.format(where=" on the GPU" if "cuda" in said.lower() else ""))
    if isinstance(error, ImportError) and not (error.name or "").startswith("MedMapAILib"):
        return Failure("start", _missing(error.name or said))
    if "RunError" in names:
        return Failure("error", said)
    return Failure("error", f"The model could not be run: {type(error).__name__}: {said or 'no reason was given'}.")


def failure_of_exit(code: int | None, signal: int | None, tail: str, *, greeted: bool = True) -> Failure:
    """What to tell of a worker that ended in the middle of something.

    code, signal: as the transport gives them; both None where the program could not be started. tail: the end of its
    standard error. greeted: it had been up and running.
    """
    if code is None and signal is None:
        return Failure("start", "The worker process could not be started; reinstall Slicer or check permissions.", tail)
    if signal is None and code is not None and code > 128 and code - 128 in _numbers():
        code, signal = None, code - 128  # said so by a shell or a launcher in between
    missing = re.findall(r"(?:ModuleNotFoundError|ImportError): .*?No module named '?([\w.]+)", tail)
    if signal == getattr(signals, "SIGKILL", 9):
        reason = (
            "The worker process was killed, most often by the system for lack of memory; choose a region of interest "
            "or close other programs, then try again."
        )
        return Failure("killed", reason, tail)
    if _MEMORY_WORDS.search(tail):
        return Failure("memory", _NO_MEMORY.format(where=""), tail)
    if missing and not greeted:
        return Failure("start", _missing(missing[-1]), tail)
    if signal is not None:
        name = _numbers().get(signal, f"signal {signal}")
        kind = "killed" if name in ("SIGTERM", "SIGINT", "SIGHUP") else "error"
        how = f"was ended from outside ({name})" if kind == "killed" else f"crashed with {_CRASHES.get(name, name)}"
        return Failure(kind, f"The worker process {how}; try again, and report it if it happens twice.", tail)
    when = "ended unexpectedly" if greeted else "could not start"
    return Failure(
        "error" if greeted else "start", f"The worker process {when} (exit status {_said(code)}); try again.", tail
    )


def _missing(package: str) -> str:
    return f"The Python package {package.partition('.')[0]} is missing; press Apply again to install it."


def _numbers() -> dict[int, str]:
    return {int(one): one.name for one in signals.Signals}


def _said(code: int) -> str:
    # Windows reports crashes as large numbers that are only known in hexadecimal.
    return f"0x{code & 0xFFFFFFFF:08X}" if code > 0xFFFF or code < 0 else str(code)
