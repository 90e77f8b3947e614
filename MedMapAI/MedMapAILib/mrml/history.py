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
_SCORES = {
    "dice": "Validation Dice",
    "auc": "Validation AUC",
    "froc": "Validation FROC",
    "psnr_db": "Validation PSNR (dB)",
    "coverage": "Validation coverage",
}
_SCORE_COLOR = (0.17, 0.63, 0.17)
#: Scores of some tens: beside a loss of some hundredths, neither could be read.
_APART = ("psnr_db",)
#: Numbers of a training in which a network learns against a critic.
_FURTHER = "loss_"
_OPPONENT = "opponent_loss"
_FURTHER_COLORS = ((0.84, 0.15, 0.16), (0.12, 0.47, 0.71), (0.58, 0.40, 0.74), (0.55, 0.34, 0.29), (0.89, 0.47, 0.76))


def further_columns(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The keys of a training's "epoch" events that say what its loss is made of: that of the critic, and the parts."""
    keys = dict.fromkeys(key for row in rows for key in row if key == _OPPONENT or key.startswith(_FURTHER))
    return tuple(sorted(keys, key=lambda key: key != _OPPONENT))


def history_nodes(name: str, score: str = "dice", further: Sequence[str] = ()) -> tuple[Any, Any]:
    """A table node and a plot chart node for the course of a training; those of this name are used again.

    The chart draws training loss, validation loss and a score of the validation part ("dice", "auc", "froc",
    "coverage") over the epoch; "psnr_db" has a chart of its own (:func:`further_charts`). further: columns besides, of
    :func:`further_columns`. See :func:`update_history`.
    """
    color = None if score in _APART else _SCORE_COLOR
    columns = (
        *_HISTORY[:3],
        (_SCORES[score], f"validation_{score}", color),
        _HISTORY[3],
        *((_title(key), key, None) for key in further),
    )
    with unchanged_on_failure() as scene:
        table = first_of_name(scene, "vtkMRMLTableNode", name)
        chart = first_of_name(scene, "vtkMRMLPlotChartNode", name)
        if table is not None and any(table.GetColumnIndex(title) < 0 for title, _, _ in columns):
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
    keys |= {_title(key): key for key in further_columns(rows)}

    def number(row: dict[str, Any], key: str) -> float:
        value = row.get(key)
        return math.nan if value is None else float(value)

    titles = [tableNode.GetColumnName(n) for n in range(tableNode.GetNumberOfColumns())]
    fill(tableNode, [column("number", title, [number(row, keys.get(title, "")) for row in rows]) for title in titles])
    tableNode.Modified()
    chartNode.Modified()


def further_charts(name: str, tableNode: Any, score: str, further: Sequence[str] = ()) -> dict[str, Any]:
    """Charts of a training beside that of :func:`history_nodes`, which shows the same table: "score" where the score
    has a scale of its own, and "losses" of a network and the critic that it learns against, with their parts.

    Those of this name are used again.
    """
    charts, epoch = {}, _HISTORY[0][0]
    if score in _APART:
        charts["score"] = ("score", _SCORES[score], [(_SCORES[score], _SCORE_COLOR)])
    if further:
        colors = [_FURTHER_COLORS[n % len(_FURTHER_COLORS)] for n in range(len(further) + 1)]
        titles = [_title(key) for key in further]
        charts["losses"] = ("losses", "", list(zip([titles[0], _HISTORY[1][0], *titles[1:]], colors, strict=True)))
    made = {}
    with unchanged_on_failure() as scene:
        for key, (what, y_title, lines) in charts.items():
            chart = first_of_name(scene, "vtkMRMLPlotChartNode", f"{name}: {what}")
            if chart is not None and chart.GetNumberOfPlotSeriesNodes() != len(lines):
                remove_chart(chart)
                chart = None
            if chart is None:
                chart = new_chart(f"{name}: {what}", epoch, y_title)
                chart.SetLegendVisibility(len(lines) > 1)
                for title, color in lines:
                    add_series(chart, title, tableNode, epoch, title, color)
            made[key] = chart
    return made


def _title(key: str) -> str:
    """The name of a column for what a loss is made of."""
    return "Critic's loss" if key == _OPPONENT else f"Part: {key.removeprefix(_FURTHER).replace('_', ' ')}"
