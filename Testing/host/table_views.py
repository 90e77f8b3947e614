"""qMRMLTableView, qMRMLTableWidget, qMRMLSegmentsTableView, qMRMLSegmentSelectorWidget,
qMRMLSegmentationShow3DButton.
"""

from __future__ import annotations

import slicer
from PySide6.QtCore import Property, QAbstractTableModel, Qt, QTimer, Signal, Slot
from PySide6.QtGui import QColor, QPixmap
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QMenu,
    QPushButton,
    QTableView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from .node_combo_box import qMRMLNodeComboBox
from .proxy import register
from .signals import MODIFIED, Observations


class TableModel(QAbstractTableModel):
    """Shows the vtkTable of a vtkMRMLTableNode."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node = None

    def setNode(self, node) -> None:
        self.beginResetModel()
        self._node = node
        self.endResetModel()

    def rowCount(self, _parent=None) -> int:
        return self._node.GetNumberOfRows() if self._node is not None else 0

    def columnCount(self, _parent=None) -> int:
        return self._node.GetNumberOfColumns() if self._node is not None else 0

    def data(self, index, role=Qt.ItemDataRole.DisplayRole):
        if role != Qt.ItemDataRole.DisplayRole or self._node is None:
            return None
        value = self._node.GetTable().GetValue(index.row(), index.column())
        if value.IsFloat() or value.IsDouble():
            return f"{value.ToDouble():.6g}"
        return value.ToString()

    def headerData(self, section, orientation, role=Qt.ItemDataRole.DisplayRole):
        if role != Qt.ItemDataRole.DisplayRole or self._node is None:
            return None
        if orientation == Qt.Orientation.Horizontal:
            return self._node.GetColumnName(section)
        return str(section + 1)


@register("slicer.qMRMLTableView")
class qMRMLTableView(QTableView):
    mrmlSceneChanged = Signal(object)
    selectionChangedSignal = Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = self._node = self._view_node = None
        self._observations = Observations(self)
        self._view_observations = Observations(self)
        self._model = TableModel(self)
        self.setModel(self._model)

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._scene

    @Slot(object)
    def setMRMLTableNode(self, node) -> None:
        self._observations.clear()
        self._node = node
        self._observations.add(node, MODIFIED, "_refresh")
        self._refresh()

    def mrmlTableNode(self):
        return self._node

    def setMRMLTableViewNode(self, node) -> None:
        self._view_observations.clear()
        self._view_node = node
        self._view_observations.add(node, MODIFIED, "_follow_view")
        self._follow_view()

    def mrmlTableViewNode(self):
        return self._view_node

    def _follow_view(self) -> None:
        self.setMRMLTableNode(self._view_node.GetTableNode() if self._view_node is not None else None)

    def _refresh(self) -> None:
        self._model.setNode(self._node)

    def tableModel(self):
        return self._model


@register("slicer.qMRMLTableWidget")
class qMRMLTableWidget(QWidget):
    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._view = qMRMLTableView(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._view)

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._view.setMRMLScene(scene)
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._view.mrmlScene()

    def tableView(self):
        return self._view

    def setMRMLTableViewNode(self, node) -> None:
        self._view.setMRMLTableViewNode(node)

    def mrmlTableViewNode(self):
        return self._view.mrmlTableViewNode()


def segment_ids(node) -> list[str]:
    """IDs of the segments of a segmentation node, in order."""
    if node is None:
        return []
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegmentID(i) for i in range(segmentation.GetNumberOfSegments())]


@register("slicer.qMRMLSegmentsTableView")
class qMRMLSegmentsTableView(QWidget):
    """One row a segment: visible or not, color, opacity, name."""

    mrmlSceneChanged = Signal(object)
    selectionChanged = Signal(object, object)
    segmentAboutToBeModified = Signal(str)
    COLUMNS = ("", "", "Opacity", "Name")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = self._node = None
        self._filling = False
        self._observations = Observations(self)
        self._table = QTableWidget(0, len(self.COLUMNS), self)
        self._table.setHorizontalHeaderLabels(self.COLUMNS)
        self._table.verticalHeader().hide()
        header = self._table.horizontalHeader()
        for column in range(3):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(3, QHeaderView.ResizeMode.Stretch)
        self._table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self._table.itemChanged.connect(self._on_edit)
        self._table.itemSelectionChanged.connect(lambda: self.selectionChanged.emit(None, None))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._scene

    @Slot(object)
    def setSegmentationNode(self, node) -> None:
        self._observations.clear()
        self._node = node
        if node is not None:
            for event in (
                slicer.vtkSegmentation.SegmentAdded,
                slicer.vtkSegmentation.SegmentRemoved,
                slicer.vtkSegmentation.SegmentModified,
            ):
                self._observations.add(node.GetSegmentation(), event, "_refresh_soon")
            self._observations.add(node.GetDisplayNode(), MODIFIED, "_refresh_soon")
        self._refresh()

    def segmentationNode(self):
        return self._node

    def _refresh_soon(self) -> None:
        # Not at once: right after a segment was added, the display node does not know it yet and would complain.
        QTimer.singleShot(0, self, self._refresh)

    def _refresh(self) -> None:
        if self._filling:
            return
        self._filling = True
        ids = segment_ids(self._node)
        display = self._node.GetDisplayNode() if self._node is not None else None
        self._table.setRowCount(len(ids))
        for row, segment_id in enumerate(ids):
            segment = self._node.GetSegmentation().GetSegment(segment_id)
            visible = QTableWidgetItem()
            visible.setData(Qt.ItemDataRole.UserRole, segment_id)
            shown = display is None or display.GetSegmentVisibility(segment_id)
            visible.setCheckState(Qt.CheckState.Checked if shown else Qt.CheckState.Unchecked)
            swatch = QPixmap(14, 14)
            swatch.fill(QColor.fromRgbF(*segment.GetColor()))
            color = QTableWidgetItem()
            color.setData(Qt.ItemDataRole.DecorationRole, swatch)
            opacity = QTableWidgetItem(f"{display.GetSegmentOpacity3D(segment_id) if display is not None else 1:.2f}")
            for column, item in enumerate((visible, color, opacity, QTableWidgetItem(segment.GetName()))):
                self._table.setItem(row, column, item)
        self._filling = False

    def _on_edit(self, item) -> None:
        if self._filling or self._node is None:
            return
        segment_id = self.segmentIDForRow(item.row())
        self.segmentAboutToBeModified.emit(segment_id)
        if item.column() == 0 and self._node.GetDisplayNode() is not None:
            self._node.GetDisplayNode().SetSegmentVisibility(segment_id, item.checkState() == Qt.CheckState.Checked)
        elif item.column() == 3:
            self._node.GetSegmentation().GetSegment(segment_id).SetName(item.text())

    def segmentIDForRow(self, row: int) -> str:
        return self._table.item(row, 0).data(Qt.ItemDataRole.UserRole)

    def rowForSegmentID(self, segment_id: str) -> int:
        ids = segment_ids(self._node)
        return ids.index(segment_id) if segment_id in ids else -1

    def selectedSegmentIDs(self) -> list[str]:
        return [self.segmentIDForRow(i.row()) for i in self._table.selectionModel().selectedRows()]

    def setSelectedSegmentIDs(self, ids) -> None:
        self._table.clearSelection()
        mode = self._table.selectionMode()
        self._table.setSelectionMode(QAbstractItemView.SelectionMode.MultiSelection)
        for segment_id in ids:
            if self.rowForSegmentID(segment_id) >= 0:
                self._table.selectRow(self.rowForSegmentID(segment_id))
        self._table.setSelectionMode(mode)

    def displayedSegmentIDs(self) -> list[str]:
        return segment_ids(self._node)

    def clearSelection(self) -> None:
        self._table.clearSelection()

    def tableWidget(self):
        return self._table

    def setSelectionMode(self, mode) -> None:
        self._table.setSelectionMode(QAbstractItemView.SelectionMode(mode))

    def _column(self, column: int, visible: bool) -> None:
        self._table.setColumnHidden(column, not visible)

    def setReadOnly(self, on: bool) -> None:
        triggers = QAbstractItemView.EditTrigger
        self._table.setEditTriggers(triggers.NoEditTriggers if on else triggers.DoubleClicked)

    def setHeaderVisible(self, on: bool) -> None:
        self._table.horizontalHeader().setVisible(on)

    def setVisibilityColumnVisible(self, on: bool) -> None:
        self._column(0, on)

    def setColorColumnVisible(self, on: bool) -> None:
        self._column(1, on)

    def setOpacityColumnVisible(self, on: bool) -> None:
        self._column(2, on)

    def setStatusColumnVisible(self, on: bool) -> None:
        pass

    def setLayerColumnVisible(self, on: bool) -> None:
        pass

    def setFilterBarVisible(self, on: bool) -> None:
        pass

    segmentCount = Property(int, lambda self: len(segment_ids(self._node)))
    readOnly = Property(
        bool, lambda self: self._table.editTriggers() == QAbstractItemView.EditTrigger.NoEditTriggers, setReadOnly
    )
    headerVisible = Property(bool, lambda self: not self._table.horizontalHeader().isHidden(), setHeaderVisible)
    visibilityColumnVisible = Property(bool, lambda self: not self._table.isColumnHidden(0), setVisibilityColumnVisible)
    colorColumnVisible = Property(bool, lambda self: not self._table.isColumnHidden(1), setColorColumnVisible)
    opacityColumnVisible = Property(bool, lambda self: not self._table.isColumnHidden(2), setOpacityColumnVisible)
    statusColumnVisible = Property(bool, lambda self: False, setStatusColumnVisible)
    layerColumnVisible = Property(bool, lambda self: False, setLayerColumnVisible)
    filterBarVisible = Property(bool, lambda self: False, setFilterBarVisible)


@register("slicer.qMRMLSegmentSelectorWidget")
class qMRMLSegmentSelectorWidget(QWidget):
    """A segmentation node and one of its segments."""

    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)
    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._nodes = qMRMLNodeComboBox(self)
        self._nodes.setProperty("nodeTypes", ["vtkMRMLSegmentationNode"])
        self._nodes.setProperty("addEnabled", False)
        self._nodes.setProperty("removeEnabled", False)
        self._segments = QComboBox(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._nodes)
        layout.addWidget(self._segments)
        self._nodes.currentNodeChanged.connect(self._on_node)
        self._segments.currentIndexChanged.connect(lambda _i: self.currentSegmentChanged.emit(self.currentSegmentID()))

    def _on_node(self, node) -> None:
        self._segments.clear()
        for segment_id in segment_ids(node):
            self._segments.addItem(node.GetSegmentation().GetSegment(segment_id).GetName(), segment_id)
        self.currentNodeChanged.emit(node)

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._nodes.setMRMLScene(scene)
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._nodes.mrmlScene()

    def currentNode(self):
        return self._nodes.currentNode()

    def setCurrentNode(self, node) -> None:
        self._nodes.setCurrentNode(node)

    def currentNodeID(self) -> str:
        return self._nodes.property("currentNodeID")

    def setCurrentNodeID(self, node_id: str) -> None:
        self._nodes.setCurrentNodeID(node_id)

    def currentSegmentID(self) -> str:
        return self._segments.currentData() or ""

    def setCurrentSegmentID(self, segment_id: str) -> None:
        self._segments.setCurrentIndex(self._segments.findData(segment_id))

    noneEnabled = Property(
        bool,
        lambda self: self._nodes.property("noneEnabled"),
        lambda self, v: self._nodes.setProperty("noneEnabled", v),
    )


@register("slicer.qMRMLSegmentationShow3DButton")
class qMRMLSegmentationShow3DButton(QPushButton):
    """Makes the closed surfaces of a segmentation and shows or hides them."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        if not self.text():
            self.setText("Show 3D")
        self.setCheckable(True)
        self.setMenu(QMenu(self))
        self.setEnabled(False)
        self._node = None
        self._observations = Observations(self)
        self.toggled.connect(self._on_toggled)

    def setSegmentationNode(self, node) -> None:
        self._observations.clear()
        self._node = node
        self.setEnabled(node is not None)
        if node is not None:
            for event in (
                slicer.vtkSegmentation.ContainedRepresentationNamesModified,
                slicer.vtkSegmentation.RepresentationModified,
            ):
                self._observations.add(node.GetSegmentation(), event, "_refresh")
            self._observations.add(node.GetDisplayNode(), MODIFIED, "_refresh")
        self._refresh()

    def segmentationNode(self):
        return self._node

    def _has_surface(self) -> bool:
        name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        return self._node is not None and self._node.GetSegmentation().ContainsRepresentation(name)

    def _refresh(self) -> None:
        display = self._node.GetDisplayNode() if self._node is not None else None
        self.blockSignals(True)
        self.setChecked(bool(self._has_surface() and display is not None and display.GetVisibility3D()))
        self.blockSignals(False)

    def _on_toggled(self, on: bool) -> None:
        if self._node is None:
            return
        if on:
            self._node.CreateClosedSurfaceRepresentation()
        self._node.CreateDefaultDisplayNodes()
        self._node.GetDisplayNode().SetVisibility3D(on)

    locked = Property(bool, lambda self: getattr(self, "_locked", False), lambda self, v: setattr(self, "_locked", v))
