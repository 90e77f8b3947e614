"""How much memory there is to work in."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

#: Share of the free memory that a run may plan with; the rest is for what the estimate does not see.
_USABLE = 0.85


def usable_memory(device: str = "cpu") -> int:
    """Bytes that a computation on that device may plan to use in addition to what this process has now.

    device: "cpu", "mps" or "cuda:n". On the CPU the least of what the system has free, what the process' own limit on
    address space leaves (``ulimit -v``), and what its control group leaves (containers).
    """
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(torch.device(device))
        return int(_USABLE * (free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()))
    free = [psutil.virtual_memory().available, *_address_space_left(), *_control_group_left()]
    return int(_USABLE * max(0, min(free)))


def _address_space_left() -> list[int]:
    if sys.platform == "win32":
        return []
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if limit == resource.RLIM_INFINITY else [limit - psutil.Process().memory_info().vms]


def _control_group_left() -> list[int]:
    folder = Path("/sys/fs/cgroup")
    try:
        return [int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())]
    except (OSError, ValueError):  # no such system, or "max": no limit
        return []
