"""Adding models to the user's own folder, from where every part of MedMapAI lists them."""

from __future__ import annotations

import shutil
from pathlib import Path

from .bundle import BundleInfo, read_info, user_models
from .errors import InputError
from .files import atomic_file, atomic_folder


def add_model(path: str | Path, *, replace: bool = False) -> BundleInfo:
    """Copy a bundle, a folder or a zip, to the user's models. Returns what it is; it is listed from now on.

    The bundle is checked first: whole by its checksums, and no code. That its weights are only weights is seen when
    they are loaded, which this does not do: Slicer's own process gets along without torch. Raises InputError when it is
    not a bundle, or when the user has a model of that name already and ``replace`` is not set.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is nothing at {path}; choose the folder or the zip of a model.")
    info = read_info(path)
    folder = user_models() / _file_name(info.name)
    archive = folder.with_name(folder.name + ".zip")
    there = next((old for old in (folder, archive) if old.exists()), None)
    if there is not None and there.resolve() == path.resolve():
        return info
    if there is not None and not replace:
        raise InputError(f"There is a model named {info.name} already, in {there}; rename one of them or replace it.")
    if path.is_dir():
        with atomic_folder(folder) as temporary:
            shutil.copytree(path, temporary, dirs_exist_ok=True)
        archive.unlink(missing_ok=True)
        return read_info(folder)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(archive, suffix=".zip") as temporary:
        shutil.copyfile(path, temporary)
    shutil.rmtree(folder, ignore_errors=True)
    return read_info(archive)


def _file_name(name: str) -> str:
    """A name that is one folder and not a way out of it."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".")
    if not plain:
        raise InputError(f"The model's name {name!r} cannot be the name of a folder; rename it in its metadata.")
    return plain
