"""Where networks run: torch (CUDA, MPS, CPU) and OpenVINO (CPU, if installed). One back end a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import InputError
from .backend import Backend, Choice, OutOfMemory, is_memory_error

if TYPE_CHECKING:
    import torch

BACKENDS = ("torch", "openvino")


def choose(backend: str = "auto", device: str = "auto", precision: str = "auto") -> Choice:
    """What to compute with, from what this machine has and what was asked for.

    backend: "auto", "torch", "openvino"; auto is torch on GPUs, and on CPUs OpenVINO where it is installed. device:
    "auto", "cpu", "cuda:0", "mps". precision: "auto", "fp32", "bf16", "fp16"; auto is bfloat16 on CPUs where it is in
    the hardware and faster, and on GPUs what training takes.
    Raises InputError for what this machine cannot do.
    """
    from ...devices import PRECISIONS, choose_device

    if backend not in ("auto", *BACKENDS):
        raise InputError(f"There is no back end {backend!r}; choose auto, torch or openvino.")
    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"There is no precision {precision!r}; choose auto, {', '.join(PRECISIONS)}.")
    if backend == "openvino" and device == "auto":
        device = "cpu"
    place = choose_device(device)
    if backend == "openvino" and place.type != "cpu":
        raise InputError(f"OpenVINO is used on CPUs here, not on {device}; choose device cpu or back end torch.")
    if place.type == "cpu":
        return _on_cpu(backend, precision)
    return _on_gpu(place, precision)


def open_backend(
    choice: Choice,
    network: torch.nn.Module | Callable[[], torch.nn.Module],
    *,
    key: str,
    threads: int | None = None,
) -> Backend:
    """Make a network ready.

    network: float32, on the CPU, in evaluation mode, left as it is; or a function that builds it, which is called only
    where nothing compiled is on the disk. key: hex digest of weights and definition, for the cache of compiled
    networks, "" for no cache. threads: of a CPU, by default all its cores. Raises OutOfMemory.
    """
    if choice.backend == "openvino":
        from .openvino_backend import OpenVINOBackend

        return OpenVINOBackend(choice, network, key=key, threads=threads)
    from torch import nn

    from .torch_backend import TorchBackend

    return TorchBackend(choice, network if isinstance(network, nn.Module) else network(), threads)


def has_openvino() -> bool:
    """Whether OpenVINO is installed and can be loaded."""
    try:
        from .openvino_quietly import openvino
    except (ImportError, OSError):
        return False
    return hasattr(openvino, "convert_model")


def _on_cpu(backend: str, precision: str) -> Choice:
    from ...devices import has_bfloat16
    from . import bfloat16

    if precision == "fp16":
        raise InputError("Precision fp16 needs a GPU; choose fp32 or bf16 on a CPU.")
    installed = backend != "torch" and has_openvino()
    if backend == "openvino" and not installed:
        raise InputError("OpenVINO is not installed; run 'pip install openvino', or choose back end torch.")
    said = {"openvino": "as asked for", "torch": "as asked for", "auto": "the fastest on CPUs"}[backend]
    if backend == "auto":
        backend = "openvino" if installed else "torch"
        said = said if installed else "OpenVINO, which is faster on CPUs, is not installed"
    if precision == "bf16" and backend == "openvino" and not has_bfloat16():
        raise InputError("This processor does not compute in bf16; choose fp32.")
    if precision == "auto":
        precision = "bf16" if bfloat16.is_faster(backend) else "fp32"
        why = "bf16 is faster on this processor" if precision == "bf16" else "bf16 is not faster on this processor"
        said = f"{said}; {why}"
    return Choice(backend, "cpu", precision, said)


def _on_gpu(place: torch.device, precision: str) -> Choice:
    import torch

    from ...devices import PRECISIONS, choose_precision

    if precision == "bf16" and place.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("This GPU does not compute in bf16; choose fp16 or fp32.")
    dtype = choose_precision(precision, place)
    precision = next(name for name, value in PRECISIONS.items() if value == dtype)
    # "cuda" alone is the first one.
    index = 0 if place.index is None else place.index
    name = f"cuda:{index}" if place.type == "cuda" else place.type
    return Choice("torch", name, precision, "there is a GPU")


__all__ = [
    "BACKENDS",
    "Backend",
    "Choice",
    "OutOfMemory",
    "choose",
    "has_openvino",
    "is_memory_error",
    "open_backend",
]
