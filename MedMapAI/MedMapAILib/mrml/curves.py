"""Curves of an evaluation as charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..results import color_of
from .changes import first_of_name, unchanged_on_failure
from .charts import add_series, new_chart, remove_chart
from .tables import column, fill

# Key of the curves, title, keys of a curve's points (x, y), titles of the axes, and what the diagonal means.
_CURVES = (
    (
        "roc", "ROC", ("false_positive_rate", "true_positive_rate"),
        ("False positive rate (1 - specificity)", "True positive rate (sensitivity)"), "chance",
    ),
    ("precision_recall", "precision-recall", ("recall", "precision"), ("Recall (sensitivity)", "Precision"), None),
    (
        "reliability", "reliability", ("confidence", "frequency"),
        ("Probability that the model gives", "Share that came true"), "perfectly calibrated",
    ),
)  # fmt: skip


def curve_nodes(name: str, curves: dict[str, dict[str, dict[str, Sequence[float]]]]) -> dict[str, Any]:
    """Plot chart nodes of a classifier's curves: ``{"roc": chart, "precision_recall": chart, "reliability": chart}``.

    curves: of ``metrics.classification_curves``: {"roc": {class: points}, …}. Each chart, named "<name> ROC" and so on,
    has a curve a class, the diagonal, the operating points, and a table node with the numbers; those of this name are
    made anew. Curves without a point are left out. Where it fails the scene is as before.
    """
    charts, old = {}, []
    with unchanged_on_failure() as scene:
        for key, title, points, axes, diagonal in _CURVES:
            drawn = {each: tuple(list(some[p]) for p in points) for each, some in curves.get(key, {}).items()}
            if not drawn:
                continue
            marks = [tuple(some["operating_point"]) for some in curves[key].values() if some.get("operating_point")]
            # Reliability has few points, and a line between them is only to guide the eye.
            dots = {"marks": True} if key == "reliability" else {}
            lines = [(each, *xy, {"color": color_of(n), **dots}) for n, (each, xy) in enumerate(drawn.items(), start=1)]
            if diagonal:
                lines.append((diagonal, [0.0, 1.0], [0.0, 1.0], {"color": (0.6, 0.6, 0.6), "dashed": True}))
            if marks:
                xs, ys = ([float(mark[axis]) for mark in marks] for axis in (0, 1))
                lines.append(("operating point", xs, ys, {"color": (0.0, 0.0, 0.0), "marks": True, "line": False}))
            for each in ("vtkMRMLPlotChartNode", "vtkMRMLTableNode"):
                old.append(first_of_name(scene, each, f"{name} {title}"))
            charts[key] = _curve_chart(f"{name} {title}", axes, lines)
    for node in old:
        if node is not None and node.IsA("vtkMRMLPlotChartNode"):
            remove_chart(node)
        elif node is not None:
            scene.RemoveNode(node)
    return charts


def _curve_chart(name: str, axes: tuple[str, str], lines: Sequence[tuple]) -> Any:
    """A chart from 0 to 1. lines: (name, xs, ys, look) each."""
    import slicer

    chart = new_chart(name, *axes)
    for direction in ("X", "Y"):
        getattr(chart, f"Set{direction}AxisRangeAuto")(False)
        getattr(chart, f"Set{direction}AxisRange")(0.0, 1.0)
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    rows = max(len(xs) for _, xs, _, _ in lines)
    columns = []
    for title, xs, ys, _ in lines:
        for axis, values in (("x", xs), ("y", ys)):
            # A shorter curve stays where it ends.
            columns.append(column("number", f"{title}: {axis}", [*values, *[values[-1]] * (rows - len(values))]))
    fill(table, columns)
    for title, _, _, look in lines:
        add_series(chart, title, table, f"{title}: x", f"{title}: y", **look)
    return chart
