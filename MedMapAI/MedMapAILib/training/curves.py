"""Curves of a finished classifier on the cases held out: computed where torch is, read where it need not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import write_atomically

_EVALUATION = "evaluation.json"


def add_curves(output: str | Path) -> None:
    """Add "curves", as ``metrics.classification_curves`` gives them, to the evaluation.json in a training's folder.

    Nothing happens where no classifier was trained, nothing was held out, or they are there already.
    """
    from ..bundle import read_info

    output = Path(output)
    evaluation = _read(output)
    if not evaluation.get("cases") or "curves" in evaluation:
        return
    info = read_info(output / "bundle")
    if info.classes is None:
        return
    import numpy as np

    from ..metrics import classification_curves

    names, rows = info.classes.names, evaluation["cases"]
    true = [row["target"] if isinstance(row["target"], list) else [row["target"]] for row in rows]
    evaluation["curves"] = classification_curves(
        np.array([[row["probabilities"][name] for name in names] for row in rows]),
        np.array([[float(name in some) for name in names] for some in true]),
        kind=info.classes.kind,
        classes=names,
        thresholds=info.metadata["medmapai"]["inference"].get("thresholds"),
    )
    write_atomically(output / _EVALUATION, json.dumps(evaluation, indent=2, ensure_ascii=False).encode())


def read_curves(output: str | Path) -> dict[str, Any]:
    """The curves in the evaluation.json of a training's folder; empty where there are none."""
    return _read(Path(output)).get("curves") or {}


def _read(output: Path) -> dict[str, Any]:
    try:
        return json.loads((output / _EVALUATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
