"""qMRMLPlotView and qMRMLPlotWidget: draw the curves of a real vtkMRMLPlotChartNode with QPainter."""

from __future__ import annotations

import math

import slicer
from PySide6.QtCore import Property, QPointF, QRectF, QSize, Qt, Signal, Slot
from PySide6.QtGui import QColor, QPainter, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from .proxy import register
from .signals import MODIFIED, Observations

LINES = {0: None, 1: Qt.PenStyle.SolidLine, 2: Qt.PenStyle.DashLine, 3: Qt.PenStyle.DotLine, 4: Qt.PenStyle.DashDotLine}


def nice_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About ``count`` round numbers from low to high (Heckbert, Graphics Gems, 1990)."""
    if not high > low:
        return [low]
    rough = (high - low) / max(count - 1, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = min((m for m in (1, 2, 5, 10)), key=lambda m: abs(m * power - rough)) * power
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def series_points(series) -> list[tuple[float, float]]:
    """The finite points of a plot series node: the x column (or the row number) and the y column of its table."""
    table = series.GetTableNode().GetTable() if series.GetTableNode() is not None else None
    y = table.GetColumnByName(series.GetYColumnName() or "") if table is not None else None
    if y is None:
        return []
    x = table.GetColumnByName(series.GetXColumnName() or "")
    points = []
    for row in range(table.GetNumberOfRows()):
        # Without an x column (line plots need none) the row's number is x.
        at = x.GetVariantValue(row).ToDouble() if x is not None else float(row)
        value = y.GetVariantValue(row).ToDouble()
        if math.isfinite(at) and math.isfinite(value):
            points.append((at, value))
    return points


@register("slicer.qMRMLPlotView")
class qMRMLPlotView(QWidget):
    mrmlSceneChanged = Signal(object)
    dataSelected = Signal(object, object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self._view_node = None
        self._observations = Observations(self)
        self._view_observations = Observations(self)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(100, 80)

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._scene

    @Slot(object)
    def setMRMLPlotViewNode(self, node) -> None:
        self._view_observations.clear()
        self._view_node = node
        self._view_observations.add(node, MODIFIED, "_follow")
        self._follow()

    def mrmlPlotViewNode(self):
        return self._view_node

    def _chart(self):
        return self._view_node.GetPlotChartNode() if self._view_node is not None else None

    def _series(self) -> list:
        chart = self._chart()
        if chart is None:
            return []
        count = chart.GetNumberOfNodeReferences(chart.GetPlotSeriesNodeReferenceRole())
        return [s for s in (chart.GetNthPlotSeriesNode(i) for i in range(count)) if s is not None]

    def _follow(self) -> None:
        """Redraw whenever the chart, one of its series or their tables change."""
        self._observations.clear()
        chart = self._chart()
        self._observations.add(chart, MODIFIED, "_follow")
        for series in self._series():
            self._observations.add(series, MODIFIED, "update")
            table = series.GetTableNode()
            if table is not None:
                self._observations.add(table, MODIFIED, "update")
                self._observations.add(table.GetTable(), MODIFIED, "update")
        self.update()

    def fitToContent(self) -> None:
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(300, 220)

    def paintEvent(self, _event) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), QColor("white"))
        chart = self._chart()
        if chart is None:
            return
        curves = [(s, series_points(s)) for s in self._series()]
        points = [p for _s, c in curves for p in c]
        metrics = painter.fontMetrics()
        line = metrics.height()
        title = chart.GetTitle() if chart.GetTitleVisibility() else ""
        area = QRectF(self.rect()).adjusted(58, 8 + (line + 4 if title else 0), -12, -(2 * line + 10))
        painter.setPen(QColor("black"))
        if title:
            painter.drawText(QRectF(0, 4, self.width(), line), Qt.AlignmentFlag.AlignCenter, title)
        if chart.GetXAxisTitleVisibility() and chart.GetXAxisTitle():
            place = QRectF(area.left(), self.height() - line - 2, area.width(), line)
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, chart.GetXAxisTitle())
        if chart.GetYAxisTitleVisibility() and chart.GetYAxisTitle():
            painter.save()
            painter.translate(line, area.center().y())
            painter.rotate(-90)
            painter.drawText(QRectF(-100, -line, 200, line), Qt.AlignmentFlag.AlignCenter, chart.GetYAxisTitle())
            painter.restore()
        ranges = []
        for axis, automatic, fixed in (
            (0, chart.GetXAxisRangeAuto(), chart.GetXAxisRange()),
            (1, chart.GetYAxisRangeAuto(), chart.GetYAxisRange()),
        ):
            values = [p[axis] for p in points] or [0.0, 1.0]
            low, high = (min(values), max(values)) if automatic else fixed
            margin = 0.04 * (high - low) if automatic and axis == 1 else 0.0
            ranges.append((low - margin, high + margin) if high > low else (low - 0.5, low + 0.5))
        (x0, x1), (y0, y1) = ranges

        def place_of(x, y):
            return QPointF(
                area.left() + (x - x0) / (x1 - x0) * area.width(), area.bottom() - (y - y0) / (y1 - y0) * area.height()
            )

        self._paint_axes(painter, chart, area, ranges, place_of)
        painter.setClipRect(area.adjusted(-3, -3, 3, 3))
        for series, curve in curves:
            self._paint_curve(painter, series, [place_of(*p) for p in curve])
        painter.setClipping(False)
        if chart.GetLegendVisibility() and curves:
            self._paint_legend(painter, area, [s for s, _c in curves])

    def _paint_axes(self, painter, chart, area, ranges, place_of) -> None:
        line = painter.fontMetrics().height()
        for axis in (0, 1):
            low, high = ranges[axis]
            ticks = nice_ticks(low, high, max(2, int((area.width() / 70, area.height() / 35)[axis])))
            for tick in ticks:
                at = place_of(tick, ranges[1][0]) if axis == 0 else place_of(ranges[0][0], tick)
                end = place_of(tick, ranges[1][1]) if axis == 0 else place_of(ranges[0][1], tick)
                if chart.GetGridVisibility():
                    painter.setPen(QPen(QColor(225, 225, 225), 1))
                    painter.drawLine(at, end)
                painter.setPen(QColor("black"))
                text = f"{tick:.6g}"
                if axis == 0:
                    painter.drawText(QRectF(at.x() - 40, at.y() + 3, 80, line), Qt.AlignmentFlag.AlignCenter, text)
                else:
                    right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    painter.drawText(QRectF(at.x() - 64, at.y() - line / 2, 60, line), right, text)
        painter.setPen(QPen(QColor("black"), 1))
        painter.drawRect(area)

    @staticmethod
    def _pen(series) -> QPen:
        pen = QPen(QColor.fromRgbF(*series.GetColor()), max(1.0, series.GetLineWidth()))
        style = LINES.get(series.GetLineStyle(), Qt.PenStyle.SolidLine)
        pen.setStyle(style if style is not None else Qt.PenStyle.NoPen)
        return pen

    def _paint_curve(self, painter, series, points) -> None:
        painter.setPen(self._pen(series))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline(QPolygonF(points))
        if series.GetMarkerStyle() != slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone or len(points) == 1:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor.fromRgbF(*series.GetColor()))
            radius = max(2.0, series.GetMarkerSize() / 2)
            for point in points:
                painter.drawEllipse(point, radius, radius)

    def _paint_legend(self, painter, area, series) -> None:
        metrics = painter.fontMetrics()
        names = [s.GetName() or "" for s in series]
        width = max(metrics.horizontalAdvance(n) for n in names) + 40
        height = metrics.height() + 2
        box = QRectF(area.right() - width - 6, area.top() + 6, width, height * len(names) + 6)
        painter.setPen(QPen(QColor(200, 200, 200), 1))
        painter.setBrush(QColor(255, 255, 255, 220))
        painter.drawRect(box)
        for i, (one, name) in enumerate(zip(series, names, strict=True)):
            y = box.top() + 3 + height * (i + 0.5)
            painter.setPen(self._pen(one))
            painter.drawLine(QPointF(box.left() + 6, y), QPointF(box.left() + 28, y))
            painter.setPen(QColor("black"))
            place = QRectF(box.left() + 34, y - height / 2, width - 34, height)
            painter.drawText(place, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, name)


@register("slicer.qMRMLPlotWidget")
class qMRMLPlotWidget(QWidget):
    """A plot view with its controller (which the host leaves out)."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._view = qMRMLPlotView(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._view)

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._view.setMRMLScene(scene)
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._view.mrmlScene()

    def setMRMLPlotViewNode(self, node) -> None:
        self._view.setMRMLPlotViewNode(node)

    setMRMLAbstractViewNode = setMRMLPlotViewNode

    def mrmlPlotViewNode(self):
        return self._view.mrmlPlotViewNode()

    mrmlAbstractViewNode = mrmlPlotViewNode

    def plotView(self):
        return self._view

    viewWidget = plotView

    viewLabel = Property(str, lambda self: getattr(self, "_label", ""), lambda self, v: setattr(self, "_label", v))
