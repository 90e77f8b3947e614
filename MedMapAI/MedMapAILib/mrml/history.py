"""The course of a training as a table and a chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .changes import first_of_name, unchanged_on_failure
from .charts import add_series, new_chart, remove_chart
from .tables import column, fill

# Column name, key in a row of the history, and color of the curve (None: not drawn).
_HISTORY = (
    ("Epoch", "epoch", None),
    ("Training loss", "train_loss", (0.12, 0.47, 0.71)),
    ("Validation loss", "validation_loss", (1.0, 0.5, 0.05)),
    ("Learning rate", "learning_rate", None),
)
#: The score that a training follows: name, and title of its curve.
_SCORES = {"dice": "Validation Dice", "auc": "Validation AUC", "froc": "Validation FROC"}
_SCORE_COLOR = (0.17, 0.63, 0.17)


def history_nodes(name: str, score: str = "dice") -> tuple[Any, Any]:
    """A table node and a plot chart node for the course of a training; those of this name are used again.

    The chart draws training loss, validation loss and a score of the validation part ("dice", "auc" or "froc") over the
    epoch. See :func:`update_history`.
    """
    columns = (*_HISTORY[:3], (_SCORES[score], f"validation_{score}", _SCORE_COLOR), _HISTORY[3])
    with unchanged_on_failure() as scene:
        table = first_of_name(scene, "vtkMRMLTableNode", name)
        chart = first_of_name(scene, "vtkMRMLPlotChartNode", name)
        if table is not None and table.GetColumnIndex(_SCORES[score]) < 0:
            # That of a training of another task.
            remove_chart(chart)
            scene.RemoveNode(table)
            table = chart = None
        if table is None:
            table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
            fill(table, [column("number", title, []) for title, _, _ in columns])
        if chart is None:
            chart = new_chart(name, "Epoch", "")
            for title, _, color in columns:
                if color is not None:
                    add_series(chart, title, table, "Epoch", title, color)
    return table, chart


def update_history(tableNode: Any, chartNode: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Fill the nodes of :func:`history_nodes` with all epochs so far, in place, so that an open plot follows.

    ``rows`` are the training's "epoch" events: dicts with ``epoch``, ``train_loss``, ``validation_loss``,
    ``learning_rate``, and ``validation_dice``, ``validation_auc`` or ``validation_froc``; what is missing or None is
    left out of the curve (NaN in the table).
    """
    keys = {title: key for title, key, _ in _HISTORY} | {title: f"validation_{s}" for s, title in _SCORES.items()}

    def number(row: dict[str, Any], key: str) -> float:
        value = row.get(key)
        return math.nan if value is None else float(value)

    titles = [tableNode.GetColumnName(n) for n in range(tableNode.GetNumberOfColumns())]
    fill(tableNode, [column("number", title, [number(row, keys[title]) for row in rows]) for title in titles])
    tableNode.Modified()
    chartNode.Modified()
