"""What every back end is: a network made ready to run on one device in one number format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ...errors import RunError

if TYPE_CHECKING:
    import torch

#: How memory that was not given is put into words: by torch's CPU allocator, CUDA, oneDNN, C++ and OpenVINO.
_NO_MEMORY = (
    "defaultcpuallocator",
    "can't allocate memory",
    "cannot allocate memory",
    "could not allocate",
    "failed to allocate",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
)


class OutOfMemory(RunError):
    """The device or the machine has too little memory for the windows; smaller ones or another device may do."""


@dataclass(frozen=True)
class Choice:
    """Where and how to compute, and why there."""

    #: "torch" or "openvino"
    backend: str
    #: "cpu", "cuda:0", "mps"
    device: str
    #: "fp32", "bf16" or "fp16"
    precision: str
    #: one phrase
    reason: str


class Backend(Protocol):
    """A network, ready to run. Not safe to be called by two threads at once."""

    choice: Choice
    #: Where logits come back.
    device: torch.device

    @property
    def description(self) -> str:
        """Where it computes and in which number format, such as "OpenVINO on Intel(R) Xeon(R) Processor, bf16"."""

    def prepare(self, shape: Sequence[int]) -> None:
        """Get ready for windows of the shape (B, C, *S), two or three spatial axes; those before stay prepared.

        Does nothing for a shape that is prepared. Raises OutOfMemory.
        """

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits (B, K, *S), float32, on ``device``, of windows (B, C, *S), float32, on the CPU or ``device``.

        The next call with the same shape may write into the tensor that came back, so use or copy it before. It may be
        a tensor of torch's inference mode. Of a network with several outputs it is the first. Raises OutOfMemory.
        """

    def memory_bytes(self, shape: Sequence[int]) -> int:
        """About how many bytes are in use at most while a batch (B, C, *S) goes through, weights included."""

    def close(self) -> None:
        """Give back what it holds. It may not be called after."""


@contextlib.contextmanager
def memory_errors(place: str, shape: Sequence[int]) -> Iterator[None]:
    """Turn every way in which memory that was not given is said into OutOfMemory. place: "the GPU", "this computer"."""
    try:
        yield
    except OutOfMemory:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        size = "×".join(str(n) for n in shape[2:])
        raise OutOfMemory(
            f"The memory of {place} is too small for {shape[0]} window(s) of {size} voxels; close other programs or "
            "choose smaller windows."
        ) from error


def is_memory_error(error: BaseException) -> bool:
    """Whether an exception says that memory was not given."""
    said = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY)
