"""Curves of an evaluation as charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..results import color_of
from .changes import first_of_name, unchanged_on_failure
from .charts import add_series, new_chart, remove_chart
from .tables import column, fill

#: LUNA16 reads sensitivity up to so many false positives per scan. (Its axis is often logarithmic; how Slicer's plots
#: take the range of such an axis differs between versions.)
_MOST_RATE = 8.0
# Key of the curves, title, keys of a curve's points (x, y), titles of the axes, and what the diagonal means.
_CURVES = (
    (
        "roc", "ROC", ("false_positive_rate", "true_positive_rate"),
        ("False positive rate (1 - specificity)", "True positive rate (sensitivity)"), "chance",
    ),
    (
        "froc", "FROC", ("false_positives_per_scan", "sensitivity"),
        ("False positives per scan (mean)", "Sensitivity"), None,
    ),
    ("precision_recall", "precision-recall", ("recall", "precision"), ("Recall (sensitivity)", "Precision"), None),
    (
        "reliability", "reliability", ("confidence", "frequency"),
        ("Probability that the model gives", "Share that came true"), "perfectly calibrated",
    ),
)  # fmt: skip


def curve_nodes(name: str, curves: dict[str, dict[str, dict[str, Sequence[float]]]]) -> dict[str, Any]:
    """Plot chart nodes of an evaluation's curves: ``{"roc": chart, "precision_recall": chart, "reliability": chart}``.

    curves: of ``metrics.classification_curves``, {"roc": {class: points}, …}, or of ``metrics.detection_report``, with
    "froc", which is drawn up to 8 false positives per scan. Each chart, named "<name> ROC" and so on, has a curve a
    class, the diagonal, the operating points, and a table node with the numbers; those of this name are made anew.
    Curves without a point are left out. Where it fails the scene is as before.
    """
    charts, old = {}, []
    with unchanged_on_failure() as scene:
        for key, title, points, axes, diagonal in _CURVES:
            drawn = {each: tuple(list(some[p]) for p in points) for each, some in curves.get(key, {}).items()}
            if not drawn:
                continue
            marks = [tuple(some["operating_point"]) for some in curves[key].values() if some.get("operating_point")]
            if key == "froc":
                drawn = {each: _within_rates(*xy) for each, xy in drawn.items()}
                marks = [mark for mark in marks if mark[0] <= _MOST_RATE]
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
            charts[key] = _curve_chart(f"{name} {title}", axes, lines, rates=key == "froc")
    for node in old:
        if node is not None and node.IsA("vtkMRMLPlotChartNode"):
            remove_chart(node)
        elif node is not None:
            scene.RemoveNode(node)
    return charts


def _within_rates(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """The points of a FROC curve up to 8 false positives per scan, where it ends as high as it is there."""
    inside = sorted(point for point in zip(xs, ys, strict=True) if point[0] <= _MOST_RATE)
    return tuple(map(list, zip(*inside, (_MOST_RATE, inside[-1][1]), strict=True)))


def _curve_chart(name: str, axes: tuple[str, str], lines: Sequence[tuple], *, rates: bool = False) -> Any:
    """A chart from 0 to 1, in x to 8 for ``rates``. lines: (name, xs, ys, look) each."""
    import slicer

    chart = new_chart(name, *axes)
    for direction in ("X", "Y"):
        getattr(chart, f"Set{direction}AxisRangeAuto")(False)
        getattr(chart, f"Set{direction}AxisRange")(0.0, 1.0)
    if rates:
        chart.SetXAxisRange(0.0, _MOST_RATE)
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
