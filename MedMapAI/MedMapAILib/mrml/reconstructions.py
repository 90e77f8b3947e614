"""Reconstructions to volume nodes, volume nodes to score them against, and both images over each other in the views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..image import Volume, check_affine, check_same_geometry
from ..results import ImageReference, Reconstruction
from .changes import first_of_name, unchanged_on_failure
from .charts import add_series, new_chart
from .folders import folder_of, put_into
from .geometry import matrix_of_array, name_of, world_matrix
from .tables import column, fill
from .volumes import voxels_from_node

#: Color of the residual curve.
_BLUE = (0.12, 0.47, 0.71)


def node_from_reconstruction(
    result: Reconstruction,
    *,
    name: str,
    referenceVolumeNode: Any = None,
    node: Any = None,
    world: np.ndarray | None = None,
) -> Any:
    """A scalar volume node (float) with an image that was made, or made better; ``node`` is filled anew if given.

    It is shown in the window of ``referenceVolumeNode``, the image that it was made of, so that the two can be
    compared, without one in ``result.window`` where there is one; how a given node is shown stays. A new node lies
    where the referenced one does in the tree of the Data module. Referenced volume (its transform) and ``world`` as
    for :func:`node_from_segmentation`. Where it fails the scene is as before.
    """
    import slicer

    parent = referenceVolumeNode.GetParentTransformNode() if referenceVolumeNode is not None else None
    if world is None:
        world = world_matrix(referenceVolumeNode) if referenceVolumeNode is not None else np.eye(4)
    matrix = matrix_of_array(np.linalg.inv(world) @ check_affine(result.affine, "The image that was made"))
    values = np.asarray(result.values, dtype=np.float32)
    new = node is None
    with unchanged_on_failure() as scene:
        if new:
            node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(node, values.T)  # first, because memory may not do
        node.SetName(name)
        node.SetDescription(" ".join(["Research use only.", result.sentence, *result.notes]))
        node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
        node.SetIJKToRASMatrix(matrix)
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
            _show_alike(node, referenceVolumeNode, result.window)
        folder = folder_of(referenceVolumeNode) if new else 0
        if folder:
            put_into(folder, [node])
    return node


def _show_alike(node: Any, other: Any, window: tuple[float, float] | None) -> None:
    """Show a volume in the window and color of another one; without one, in a window, or as Slicer chooses."""
    display = node.GetDisplayNode()
    known = other.GetDisplayNode() if other is not None else None
    if known is not None:
        if known.GetColorNodeID():
            display.SetAndObserveColorNodeID(known.GetColorNodeID())
        window = (known.GetWindowLevelMin(), known.GetWindowLevelMax())
    if window is not None:
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(*map(float, window))


def image_reference_from_node(referenceNode: Any, volumeNode: Any = None) -> ImageReference:
    """A volume node to score an image against, that of ``volumeNode`` where one is given: both must then have the same
    voxels at the same places.

    A view into the node's memory where its values are float32, else a copy of that type. Raises InputError as
    :func:`voxels_from_node`, and where the two lie on different grids: resampling would blur one of them.
    """
    voxels, affine, _ = voxels_from_node(referenceNode)
    if volumeNode is not None:
        other, place, _ = voxels_from_node(volumeNode)
        check_same_geometry(
            Volume(other, place, (), {}),
            Volume(voxels, affine, (), {}),
            f"The volume {name_of(volumeNode)}",
            f"the reference {name_of(referenceNode)}",
        )
    return ImageReference(np.asarray(voxels[0], dtype=np.float32), affine)


def show_compared(before: Any, after: Any, opacity: float = 0.5) -> None:
    """Lay an image over the one that it was made of in every slice view, and link the views.

    opacity: 0 shows ``before`` alone, 1 ``after`` alone. ``before`` may be None: only ``after`` is shown.
    """
    for view in composite_nodes():
        view.SetBackgroundVolumeID((before or after).GetID())
        view.SetForegroundVolumeID(after.GetID() if before is not None else None)
        view.SetForegroundOpacity(opacity if before is not None else 0.0)
        view.SetLinkedControl(True)


def fade_compared(after: Any, opacity: float) -> None:
    """Change the opacity of an image where it lies over another one; views that show other things stay."""
    for view in composite_nodes():
        if view.GetForegroundVolumeID() == after.GetID() and view.GetForegroundOpacity() != opacity:
            view.SetForegroundOpacity(opacity)


def composite_nodes() -> list[Any]:
    """What each slice view shows: its composite node."""
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def residual_nodes(name: str, residuals: Sequence[float]) -> tuple[Any, Any]:
    """A table node and a plot chart node of the residual |A x - y| / |y| after each iteration; those of this name are
    used again. Where it fails the scene is as before."""
    with unchanged_on_failure() as scene:
        table = first_of_name(scene, "vtkMRMLTableNode", name)
        chart = first_of_name(scene, "vtkMRMLPlotChartNode", name)
        if table is None:
            table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
        iterations = range(1, len(residuals) + 1)
        fill(table, [column("whole", "Iteration", iterations), column("number", "Residual", map(float, residuals))])
        if chart is None:
            chart = new_chart(name, "Iteration", "Residual |Ax - y| / |y|")
            add_series(chart, "Residual", table, "Iteration", "Residual", _BLUE)
            chart.SetLegendVisibility(False)
    chart.Modified()
    return table, chart


def node_from_scores(rows: Sequence[Any], *, name: str) -> Any:
    """A table node with the scores of an image (``inference.report.ScoreRow``): Score, Unit, and a column for each part
    that there is."""
    titles = {
        "before": "Before",
        "value": "After",
        "region_before": "Before, region of interest",
        "region": "After, region of interest",
    }
    columns = [column("text", "Score", [row.name for row in rows]), column("text", "Unit", [row.unit for row in rows])]
    for part, title in titles.items():
        values = [getattr(row, part) for row in rows]
        if any(value is not None for value in values):
            columns.append(column("number", title, [np.nan if value is None else value for value in values]))
    with unchanged_on_failure() as scene:
        node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
        fill(node, columns)
    return node
