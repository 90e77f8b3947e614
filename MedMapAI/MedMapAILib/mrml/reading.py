"""The report of a blinded reading as table nodes."""

from __future__ import annotations

import math
from typing import Any

from ..reading.tables import ReportTable
from .changes import first_of_name, unchanged_on_failure
from .tables import column, fill


def nodes_from_reading(tables: tuple[ReportTable, ...], *, name: str) -> tuple[Any, ...]:
    """A table node for each table of a report, called ``<name>: <table>``; nodes of that name are filled anew.

    tables: of ``reading.tables.report_tables``. Where a number or a count is missing the cell is NaN, so columns of
    counts with a gap hold numbers. Where it fails the scene is as before.
    """
    nodes = []
    with unchanged_on_failure() as scene:
        for table in tables:
            title = f"{name}: {table.name}"
            node = first_of_name(scene, "vtkMRMLTableNode", title)
            if node is None:
                node = scene.AddNewNodeByClass("vtkMRMLTableNode", title)
            fill(node, [_column(table, n) for n in range(len(table.columns))])
            nodes.append(node)
    return tuple(nodes)


def _column(table: ReportTable, number: int) -> Any:
    title, kind = table.columns[number]
    values = [row[number] for row in table.rows]
    if kind == "text":
        return column("text", title, ["" if value is None else str(value) for value in values])
    if kind == "whole" and None not in values:
        return column("whole", title, values)
    return column("number", title, [math.nan if value is None else value for value in values])
