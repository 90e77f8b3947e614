"""Checkpoints that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, RunError


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a state (tensors, numbers, text, lists, dictionaries) so that a reader sees the old file or the new one.

    The state goes to a file of its own in the same folder, is forced to the disk, and then takes the name. Raises
    RunError when it cannot be written; the old file is then still there.
    """
    path = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunError(
            f"The checkpoint {path} could not be written ({reason}); the one before it is untouched. Free some space, then resume."
        ) from error


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
