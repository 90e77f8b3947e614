"""Arrays that two processes see at once, and that are gone from the system whatever happens to either.

``multiprocessing.shared_memory`` is not used for two reasons: before Python 3.13 it starts a tracker process of its
own, in Slicer too; and its mapping cannot live as long as the arrays that look into it, so that a result would have to
be copied. What it is made of is used instead: ``_posixshmem`` and ``mmap``.

A name can go (``unlink``) as soon as both sides have the memory; the memory itself goes with the last array. Names say
the process, never the patient. On Windows a block has no life beyond its users, and there is nothing to unlink.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError

try:
    import _posixshmem
except ImportError:  # Windows
    _posixshmem = None

#: Arrays begin at multiples of this, so that vector instructions and zero-copy tensors like them.
_ALIGNMENT = 64
#: macOS takes 31 characters with the slash in front.
_LONGEST_NAME = 30
#: Where Linux shows the blocks as files.
_FOLDER = Path("/dev/shm")


class SharedArrays:
    """Some arrays in one block of shared memory.

    ``arrays`` may be kept when this object is gone; they keep the memory. ``description`` is what the other process
    needs for ``open``, JSON-able.
    """

    def __init__(self, description: dict[str, Any], memory: mmap.mmap):
        self.description = description
        self.arrays = [_view(memory, about) for about in description["arrays"]]

    @classmethod
    def create(cls, name: str, arrays: Sequence[np.ndarray], *, first_axis_fastest: bool = False) -> SharedArrays:
        """Copy arrays into a new block. name: at most 30 characters, without slashes.

        Arrays keep the order in which their axes lie in memory: a transposed view costs no more than a plain copy, and
        is a transposed view on the other side. first_axis_fastest: they get the order of VTK and Fortran instead.
        Raises RunError when there is not enough shared memory.
        """
        described, size = [], 0
        for array in arrays:
            axes = list(range(array.ndim))[::-1] if first_axis_fastest else _axes_by_stride(array)
            described.append(
                {
                    "shape": [array.shape[axis] for axis in axes],
                    "axes": np.argsort(axes).tolist(),
                    "dtype": array.dtype.str,
                    "offset": size,
                }
            )
            size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        size = max(size, 1)
        made = cls({"name": name, "size": size, "arrays": described}, _create(name, size))
        for target, source in zip(made.arrays, arrays, strict=True):
            np.copyto(target, source)
        return made

    @classmethod
    def open(cls, description: dict[str, Any]) -> SharedArrays:
        """The block that another process made. Raises FileNotFoundError when it is gone."""
        return cls(description, _open(description["name"], description["size"]))

    def unlink(self) -> None:
        """Take the name away: nobody can open the block any more, who has it keeps it."""
        remove_block(self.description["name"])


def remove_block(name: str) -> None:
    """Take a block's name away; nothing happens where there is none."""
    if _posixshmem is not None:
        with contextlib.suppress(FileNotFoundError):
            _posixshmem.shm_unlink(f"/{name}")


def remove_blocks(prefix: str) -> None:
    """Take away all names that begin so. Only Linux lists them; elsewhere nothing happens."""
    if sys.platform.startswith("linux") and prefix:
        for path in _FOLDER.glob(f"{prefix}*"):
            remove_block(path.name)


def _create(name: str, size: int) -> mmap.mmap:
    if len(name) > _LONGEST_NAME or "/" in name:
        raise ValueError(f"{name!r} is no name for shared memory on every system")
    if _posixshmem is None:
        return mmap.mmap(-1, size, tagname=name)
    handle = _posixshmem.shm_open(f"/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o600)
    try:
        os.ftruncate(handle, size)
        if hasattr(os, "posix_fallocate"):
            # Without it Linux finds out only when a voxel is written that there is no room, and ends the process.
            os.posix_fallocate(handle, 0, size)
        return mmap.mmap(handle, size)
    except OSError as error:
        remove_block(name)
        if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise RunError(
                f"There is no room in shared memory for {size / 1e6:.0f} MB; close other programs, or choose a region "
                "of interest."
            ) from None
        raise
    finally:
        os.close(handle)


def _open(name: str, size: int) -> mmap.mmap:
    if _posixshmem is None:
        return mmap.mmap(-1, size, tagname=name)
    handle = _posixshmem.shm_open(f"/{name}", os.O_RDWR, mode=0o600)
    try:
        if os.fstat(handle).st_size < size:
            raise OSError(errno.EINVAL, f"the shared memory {name} is smaller than it should be")
        return mmap.mmap(handle, size)
    finally:
        os.close(handle)


def _view(memory: mmap.mmap, about: dict[str, Any]) -> np.ndarray:
    dtype, shape = np.dtype(about["dtype"]), tuple(about["shape"])
    count = int(np.prod(shape, dtype=np.int64))
    flat = np.frombuffer(memory, dtype=dtype, count=count, offset=about["offset"])
    return flat.reshape(shape).transpose(about["axes"])


def _axes_by_stride(array: np.ndarray) -> list[int]:
    """The axes from the one with the longest step in memory to the shortest; equal ones stay in order."""
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
