"""Which device and which number format to compute in."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from pathlib import Path

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


@functools.lru_cache(maxsize=1)
def processor_name() -> str:
    """The CPU's name as its maker writes it, such as "Intel(R) Xeon(R) Processor"; its architecture where unknown."""
    return " ".join((_name_from_system() or platform.processor() or platform.machine() or "CPU").split())


def has_amx() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 in hardware (Intel AMX), 8 times as fast as float32."""
    return _can("amx_bf16", "_is_amx_tile_supported")


def has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16: AMX or AVX512-BF16 on x86, BF16 on Arm."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return _can("bf16", None) or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return has_amx() or _can("avx512_bf16", "_is_avx512_bf16_supported")


def _can(capability: str, older: str | None) -> bool:
    """What torch knows of the CPU; ``older`` is the function of versions that have no table of capabilities."""
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get(capability, False))
    return bool(getattr(torch.cpu, older or "", bool)())


def _name_from_system() -> str:
    try:
        if sys.platform == "win32":
            import winreg

            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
                return str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2]
    except (OSError, subprocess.SubprocessError):
        pass
    return ""
