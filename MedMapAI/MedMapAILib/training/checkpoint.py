"""Checkpoints that are either whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, RunError
from ..files import TEMPORARY, atomic_file


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a state (tensors, numbers, text, lists, dictionaries) so that a reader sees the old file or the new one.

    The state goes to a file of its own in the same folder, is forced to the disk, and then takes the name. Raises
    RunError when it cannot be written; the old file is then still there.
    """
    try:
        with atomic_file(path) as temporary:
            torch.save(state, temporary)
    except RuntimeError as error:  # what torch makes of a full disk, and our own RunError
        raise RunError(
            f"The checkpoint {path} could not be written ({str(error).splitlines()[0]}); the one before it is "
            "untouched. "
            "Free some space, then resume."
        ) from error


def remove_unfinished(folder: Path) -> None:
    """Remove what a run that was killed in the middle of writing left in its folder."""
    for path in Path(folder).glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint as data (nothing in it is executed). Raises InputError when it is not one."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"There is no checkpoint {path} to resume from; train without --resume first.") from None
    except Exception as error:
        raise InputError(
            f"{path} is not a checkpoint that can be read ({str(error).splitlines()[0]}); delete it and train again."
        ) from None
