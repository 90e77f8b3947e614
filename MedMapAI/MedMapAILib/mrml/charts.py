"""Plot chart nodes and their series."""

from __future__ import annotations

from typing import Any


def new_chart(name: str, x_title: str, y_title: str) -> Any:
    """A plot chart node with titles and nothing to draw yet."""
    import slicer

    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", name)
    chart.SetTitle(name)
    chart.SetXAxisTitle(x_title)
    chart.SetYAxisTitle(y_title)
    return chart


def add_series(
    chart: Any,
    name: str,
    table: Any,
    x: str,
    y: str,
    color: tuple,
    *,
    line: bool = True,
    dashed: bool = False,
    marks: bool = False,
) -> None:
    """Draw columns x and y of a table node, as a line, marks, or both."""
    import slicer

    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(x)
    series.SetYColumnName(y)
    series.SetPlotType(series.PlotTypeScatter)
    style = series.LineStyleDash if dashed else series.LineStyleSolid
    series.SetLineStyle(style if line else series.LineStyleNone)
    series.SetMarkerStyle(series.MarkerStyleCircle if marks else series.MarkerStyleNone)
    series.SetColor(*color)
    chart.AddAndObservePlotSeriesNodeID(series.GetID())


def remove_chart(chart: Any) -> None:
    """Remove a chart node with its series; nothing happens for None."""
    import slicer

    if chart is not None:
        for series in [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]:
            slicer.mrmlScene.RemoveNode(series)
        slicer.mrmlScene.RemoveNode(chart)
