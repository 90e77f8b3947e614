"""qMRMLSubjectHierarchyComboBox and qMRMLCheckableNodeComboBox, as far as panels need: a choice among the scene's
nodes.
"""

from __future__ import annotations

import slicer
from PySide6.QtCore import Property, Signal, Slot
from PySide6.QtWidgets import QComboBox

from .proxy import register
from .signals import Observations


@register("slicer.qMRMLSubjectHierarchyComboBox")
class qMRMLSubjectHierarchyComboBox(QComboBox):
    """Chooses an item of the subject hierarchy by its data node's class."""

    currentItemChanged = Signal(int)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self._types: list[str] = []
        self._none = True
        self._none_text = "Select subject hierarchy item"
        self._observations = Observations(self)
        self.currentIndexChanged.connect(lambda _i: self.currentItemChanged.emit(self.currentItem()))

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._observations.clear()
        self._scene = scene
        if scene is not None:
            kind = slicer.vtkMRMLScene
            for event in (kind.NodeAddedEvent, kind.NodeRemovedEvent, kind.EndCloseEvent, kind.EndImportEvent):
                self._observations.add(scene, event, "_refresh")
        self._refresh()

    def mrmlScene(self):
        return self._scene

    def subjectHierarchyNode(self):
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)

    def _refresh(self) -> None:
        chosen = self.currentData()
        self.blockSignals(True)
        self.clear()
        if self._none:
            self.addItem(self._none_text, 0)
        hierarchy = self.subjectHierarchyNode() if self._scene is not None else None
        for i in range(self._scene.GetNumberOfNodes() if hierarchy is not None else 0):
            node = self._scene.GetNthNode(i)
            if any(node.IsA(t) for t in self._types) and not node.GetHideFromEditors():
                self.addItem(node.GetName(), hierarchy.GetItemByDataNode(node))
        self.setCurrentIndex(max(0, self.findData(chosen)))
        self.blockSignals(False)
        if self.currentData() != chosen:
            self.currentItemChanged.emit(self.currentItem())

    def currentItem(self) -> int:
        return int(self.currentData() or 0)

    def setCurrentItem(self, item: int) -> None:
        self.setCurrentIndex(self.findData(item))

    def currentNode(self):
        return self.subjectHierarchyNode().GetItemDataNode(self.currentItem()) if self.currentItem() else None

    def setCurrentNode(self, node) -> None:
        self.setCurrentItem(self.subjectHierarchyNode().GetItemByDataNode(node) if node is not None else 0)

    def clearSelection(self) -> None:
        self.setCurrentIndex(0 if self._none else -1)

    def setNodeTypes(self, types) -> None:
        self._types = list(types)
        self._refresh()

    def _set_none(self, on: bool) -> None:
        self._none = on
        self._refresh()

    def _set_none_text(self, text: str) -> None:
        self._none_text = text
        self._refresh()

    nodeTypes = Property("QStringList", lambda self: self._types, setNodeTypes)
    noneEnabled = Property(bool, lambda self: self._none, _set_none)
    noneDisplay = Property(str, lambda self: self._none_text, _set_none_text)
    defaultText = Property(str, lambda self: self.placeholderText(), lambda self, v: self.setPlaceholderText(v))


@register("slicer.qMRMLCheckableNodeComboBox")
class qMRMLCheckableNodeComboBox(QComboBox):
    """Chooses any number of nodes of given classes."""

    checkedNodesChanged = Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self._types: list[str] = []
        self._observations = Observations(self)
        self.model().itemChanged.connect(lambda _i: self.checkedNodesChanged.emit())

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._observations.clear()
        self._scene = scene
        if scene is not None:
            for event in (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent):
                self._observations.add(scene, event, "_refresh")
        self._refresh()

    def mrmlScene(self):
        return self._scene

    def _refresh(self) -> None:
        from PySide6.QtCore import Qt
        from PySide6.QtGui import QStandardItem

        checked = {n.GetID() for n in self.checkedNodes()}
        self.model().blockSignals(True)
        self.model().clear()
        for i in range(self._scene.GetNumberOfNodes() if self._scene is not None else 0):
            node = self._scene.GetNthNode(i)
            if any(node.IsA(t) for t in self._types) and not node.GetHideFromEditors():
                item = QStandardItem(node.GetName())
                item.setData(node.GetID(), Qt.ItemDataRole.UserRole)
                item.setCheckable(True)
                item.setCheckState(Qt.CheckState.Checked if node.GetID() in checked else Qt.CheckState.Unchecked)
                self.model().appendRow(item)
        self.model().blockSignals(False)
        self.model().layoutChanged.emit()

    def _items(self):
        return [self.model().item(i) for i in range(self.model().rowCount())]

    def checkedNodes(self) -> list:
        from PySide6.QtCore import Qt

        ids = [i.data(Qt.ItemDataRole.UserRole) for i in self._items() if i.checkState() == Qt.CheckState.Checked]
        found = [self._scene.GetNodeByID(i) for i in ids] if self._scene is not None else []
        return [n for n in found if n is not None]

    def setCheckState(self, node, state) -> None:
        from PySide6.QtCore import Qt

        for item in self._items():
            if item.data(Qt.ItemDataRole.UserRole) == node.GetID():
                item.setCheckState(Qt.CheckState(state))

    def _set_types(self, types) -> None:
        self._types = list(types)
        self._refresh()

    nodeTypes = Property("QStringList", lambda self: self._types, _set_types)
