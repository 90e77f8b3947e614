"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import InputError, RunError

#: How the names of unfinished files begin; a process that is killed leaves one behind.
TEMPORARY = ".medmapai-"


@contextlib.contextmanager
def atomic_file(path: str | Path, suffix: str | None = None) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well, and vanishes when it does not.

    suffix: of the temporary name, for writers that choose the format by it; by default all endings of ``path``.
    Raises InputError when the folder is missing or cannot be written to, RunError when the disk fails on the way.
    """
    path = Path(path)
    temporary = _new_file(path, "".join(path.suffixes[-2:]) if suffix is None else suffix)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; a result is as readable as any other file of the user's.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: str | Path) -> None:
    """Find out whether a file could be written at ``path``. Raises InputError when not."""
    _new_file(Path(path), "").unlink()


def check_apart(output: str | Path | None, inputs: Iterable[str | Path | None]) -> None:
    """InputError where ``output`` is one of the files that are read: it would be lost."""
    for path in inputs:
        if output is None or path is None:
            continue
        try:
            same = Path(output).samefile(path)
        except OSError:
            continue  # One of them is not there.
        if same:
            raise InputError(f"{output} is what is read, and would be lost; choose another name for the result.")


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write bytes to a file that is whole or not there. Raises as ``atomic_file``."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """As ``atomic_file`` for a folder; an older folder of that name is replaced only by a finished one."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    except OSError as error:
        raise InputError(f"The folder {path.parent} cannot be written to ({error.strerror}); choose another.") from None
    # The folder takes the place of a path that did not exist, so it must not stay private to its maker.
    temporary.chmod(0o755)
    old = temporary.with_name(temporary.name + "-old")
    try:
        yield temporary
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    except OSError as error:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise RunError(f"{path} could not be written ({error.strerror or error}); nothing was left behind.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _new_file(path: Path, suffix: str) -> Path:
    """An empty file of a name of its own in the folder of ``path``."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file to write.")
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {path.parent}; create it or choose another.")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=suffix)
    except OSError as error:
        raise _not_written(path, error) from None
    os.close(handle)
    return Path(name)


def _not_written(path: Path, error: OSError) -> Exception:
    """The sentence for an operating system's refusal to write ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunError(f"{path} was not written: the disk is full; nothing was left behind.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
        return InputError(f"{path} cannot be written: the folder {path.parent} does not allow it; choose another one.")
    return RunError(f"{path} was not written: {error.strerror or error}; nothing was left behind.")
