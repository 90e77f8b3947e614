"""Curves of a finished classifier on the cases held out, for showing them; torch need not be there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_EVALUATION = "evaluation.json"


def read_curves(output: str | Path) -> dict[str, Any]:
    """The curves in the evaluation.json of a training's folder; empty where there are none."""
    return _read(Path(output)).get("curves") or {}


def _read(output: Path) -> dict[str, Any]:
    try:
        return json.loads((output / _EVALUATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
