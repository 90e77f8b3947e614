"""Keep freed memory in the process, so that it need not be fetched from the system, page by page, for every layer.

glibc hands large blocks back to the system when they are freed. The next layer then gets fresh pages that the system
clears first, which costs 1.2 to 1.4 times the run's own time on some systems. See mallopt(3).
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1


@functools.lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Ask for it, once per process. Whether it was granted; only Linux with glibc can."""
    library = _glibc()
    return library is not None and all(
        library.mallopt(option, _MOST) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)
    )


def return_freed_memory() -> bool:
    """Give the system back what was kept, when a run is over. Whether there was any; only Linux with glibc can."""
    library = _glibc()
    return library is not None and library.malloc_trim(0) == 1


@functools.lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return None
    try:
        library = ctypes.CDLL(None)
        library.mallopt.argtypes, library.malloc_trim.argtypes = (ctypes.c_int, ctypes.c_int), (ctypes.c_size_t,)
    except (OSError, AttributeError):
        return None
    return library
