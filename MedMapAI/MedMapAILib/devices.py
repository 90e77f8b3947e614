"""Which device and which number format to compute in."""

from __future__ import annotations

import torch

from .errors import InputError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises InputError when there is no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"{name!r} is no device; choose auto, cpu, or cuda:0.") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        raise InputError(f"There is no device {name} on this machine; choose cpu, or auto to take what there is.")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of convolutions; "auto" is bfloat16 on GPUs that have it, float16 on others, float32 on
    CPUs.

    On CPUs float32 trains faster than bfloat16 with these networks (Testing/benchmarks/training_precision.py prints the
    ratio). Raises InputError for float16 on a CPU, which torch does not train in.
    """
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name == "fp16" and device.type == "cpu":
        raise InputError("Precision fp16 needs a GPU; choose fp32 or bf16 on a CPU.")
    return PRECISIONS[name]


def describe(device: torch.device, dtype: torch.dtype) -> str:
    """A few words on both for logs and results, such as "cpu, fp32"."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, {next(key for key, value in PRECISIONS.items() if value == dtype)}"
