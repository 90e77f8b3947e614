"""Living in one process with a graphics driver."""

from __future__ import annotations

import sys
from pathlib import Path

_MAPS = Path("/proc/self/maps")


def keep_triton_out() -> bool:
    """Let torch do without triton where importing it would end the process. Returns whether it had to.

    Mesa's drivers (llvmpipe, radeonsi) bring LLVM as a library; triton, which torch imports with its compiler, brings
    another one, and loading that after Mesa's has drawn is a segmentation fault (seen with torch 2.14, triton 3.8 and
    Mesa's software renderer, after 3D Slicer's views were drawn). Nothing here compiles networks, so
    nothing is lost. Call before the first import of torch. Does nothing where triton is loaded already, without Mesa,
    and on other systems than Linux.
    """
    if "triton" in sys.modules or not sys.platform.startswith("linux"):
        return "triton" in sys.modules and sys.modules["triton"] is None
    try:
        loaded = _MAPS.read_text(errors="replace")
    except OSError:
        return False
    if "libLLVM" not in loaded:
        return False
    # What import statements find here is that there is no such package.
    sys.modules["triton"] = None  # type: ignore[assignment]
    return True
