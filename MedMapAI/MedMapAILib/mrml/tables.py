"""Table nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..results import Segmentation
from .changes import unchanged_on_failure


def column(kind: str, name: str, values: Iterable[Any]) -> Any:
    """A column of a table node. kind: "text", "whole" or "number"."""
    import vtk

    column = {"text": vtk.vtkStringArray, "whole": vtk.vtkIntArray, "number": vtk.vtkDoubleArray}[kind]()
    column.SetName(name)
    for value in values:
        # Half a character, as in a damaged file, ends the whole program in VTK.
        column.InsertNextValue(value.encode("utf-8", "replace").decode() if kind == "text" else value)
    return column


def fill(tableNode: Any, columns: Sequence[Any]) -> None:
    """Replace the columns of a table node, with one event at the end."""
    modifying = tableNode.StartModify()
    try:
        tableNode.RemoveAllColumns()
        for column in columns:
            tableNode.AddColumn(column)
        # Renamed between Slicer 5.10 and 5.11, where the old name still works and warns.
        header = getattr(tableNode, "SetUseColumnTitleAsColumnHeader", None) or tableNode.SetUseColumnNameAsColumnHeader
        header(True)
    finally:
        tableNode.EndModify(modifying)


def node_from_volumes_table(segmentation: Segmentation, *, name: str, node: Any = None) -> Any:
    """A table node with a row for each segment: Segment, Voxels, Volume (mL); ``node`` is filled anew if given."""
    counts, volumes = segmentation.voxel_counts(), segmentation.volumes_ml()
    columns = [
        column("text", "Segment", list(counts)),
        column("whole", "Voxels", list(counts.values())),
        column("number", "Volume (mL)", list(volumes.values())),
    ]
    with unchanged_on_failure() as scene:
        if node is None:
            node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
        node.SetName(name)
        fill(node, columns)
    return node
