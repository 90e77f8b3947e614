"""qMRMLNodeComboBox and the small widgets that hold a scene: they follow the real MRML scene."""

from __future__ import annotations

import shiboken6
import slicer
from PySide6.QtCore import Property, Signal, Slot
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QWidget

from .ctk_widgets import ctkCollapsibleButton, ctkSliderWidget
from .proxy import register, static_overrides
from .signals import MODIFIED, Observations


@register("slicer.qMRMLWidget")
class qMRMLWidget(QWidget):
    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._scene


@register("slicer.qSlicerWidget")
class qSlicerWidget(qMRMLWidget):
    pass


@register("slicer.qMRMLCollapsibleButton")
class qMRMLCollapsibleButton(ctkCollapsibleButton):
    mrmlSceneChanged = Signal(object)

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        self.mrmlSceneChanged.emit(scene)


@register("slicer.qMRMLSliderWidget")
class qMRMLSliderWidget(ctkSliderWidget):
    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        self._scene = scene

    def mrmlScene(self):
        return getattr(self, "_scene", None)


@register("slicer.qMRMLNodeComboBox")
class qMRMLNodeComboBox(QWidget):
    """Chooses a node of the scene by class; creates, renames and removes nodes as far as it is enabled to."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    currentNodeRenamed = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAddedByUserAction = Signal(object)
    nodeAboutToBeEdited = Signal(object)
    nodeAboutToBeRemoved = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self._types: list[str] = []
        self._hidden_types: list[str] = []
        self._flags = {
            "noneEnabled": False,
            "addEnabled": True,
            "removeEnabled": True,
            "editEnabled": False,
            "renameEnabled": False,
            "showHidden": False,
            "showChildNodeTypes": True,
            "selectNodeUponCreation": True,
        }
        self._none_text = "None"
        self._base_name = ""
        self._labels: dict[str, str] = {}
        self._attributes: list[tuple[str, str, object]] = []
        self._current: str | None = None  # the current node's ID
        self._scene_observations = Observations(self)
        self._node_observations = Observations(self)
        self._box = QComboBox(self)
        # A long node name must not make the panel wider.
        self._box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._box.setEnabled(False)
        self._box.activated.connect(self._on_activated)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self.setSizePolicy(self._box.sizePolicy())

    # -- scene

    @Slot(object)
    def setMRMLScene(self, scene) -> None:
        if scene is self._scene:
            return
        self._scene_observations.clear()
        self._scene = scene
        self._box.setEnabled(scene is not None)
        if scene is not None:
            kind = slicer.vtkMRMLScene
            for event in (
                kind.NodeAddedEvent,
                kind.NodeRemovedEvent,
                kind.EndBatchProcessEvent,
                kind.EndCloseEvent,
                kind.EndImportEvent,
            ):
                self._scene_observations.add(scene, event, "_refresh")
        self._refresh()

    def mrmlScene(self):
        return self._scene

    def _matches(self, node) -> bool:
        if node.GetHideFromEditors() and not self._flags["showHidden"]:
            return False
        for kind in self._types:
            exact = node.GetClassName() == kind
            if not (exact or (self._flags["showChildNodeTypes"] and node.IsA(kind))):
                continue
            if any(node.IsA(hidden) for hidden in self._hidden_types):
                continue
            if all(
                node.GetAttribute(name) is not None and (value is None or node.GetAttribute(name) == str(value))
                for t, name, value in self._attributes
                if node.IsA(t)
            ):
                return True
        return False

    def _nodes(self) -> list:
        if self._scene is None:
            return []
        nodes = [self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes())]
        return [n for n in nodes if n.GetID() and self._matches(n)]

    def _refresh(self) -> None:
        """Take over what the scene has now; choose anew when the chosen node is gone."""
        if not shiboken6.isValid(self) or (self._scene is not None and self._scene.IsBatchProcessing()):
            return
        nodes = self._nodes()
        self._node_observations.clear()
        if self._scene is not None:
            # Nodes of these types that are hidden now may be shown later.
            for i in range(self._scene.GetNumberOfNodes()):
                node = self._scene.GetNthNode(i)
                if any(node.IsA(t) for t in self._types):
                    self._node_observations.add(node, MODIFIED, "_on_node_modified")
        ids = [n.GetID() for n in nodes]
        self._fill(nodes)
        wanted = self._current if self._current in ids else None
        if wanted is None and not self._flags["noneEnabled"] and ids:
            # One that may not be empty takes what there is.
            wanted = ids[0]
        self._choose(wanted)

    def _on_node_modified(self) -> None:
        shown = [(self._box.itemData(i), self._box.itemText(i)) for i in range(self._box.count())]
        actual = [(n.GetID(), n.GetName() or n.GetID()) for n in self._nodes()]
        if [s for s in shown if s[0] and not str(s[0]).startswith("action:")] != actual:
            self._refresh()

    def _fill(self, nodes) -> None:
        box = self._box
        box.blockSignals(True)
        box.clear()
        if self._flags["noneEnabled"]:
            box.addItem(self._none_text, "")
        for node in nodes:
            box.addItem(node.GetName() or node.GetID(), node.GetID())
        actions = [
            ("action:delete", "Delete current node", "removeEnabled"),
            ("action:rename", "Rename current node", "renameEnabled"),
        ]
        texts = [(a, t) for a, t, flag in actions if self._flags[flag]]
        if self._flags["addEnabled"]:
            texts += [(f"action:create:{t}", f"Create new {self.nodeTypeLabel(t)}") for t in self._types]
        if texts:
            box.insertSeparator(box.count())
            for action, text in texts:
                box.addItem(text, action)
        box.blockSignals(False)
        self._show_current()

    def _show_current(self) -> None:
        self._box.blockSignals(True)
        self._box.setCurrentIndex(self._box.findData(self._current or ""))
        self._box.blockSignals(False)

    def _choose(self, node_id: str | None) -> None:
        changed = node_id != self._current
        self._current = node_id
        self._show_current()
        if changed:
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(node_id or "")

    def _on_activated(self, index: int) -> None:
        data = self._box.itemData(index) or ""
        if data.startswith("action:create:"):
            node = self._add(data.split(":")[2])
            if node is not None:
                self.nodeAddedByUserAction.emit(node)
        elif data == "action:delete":
            self.removeCurrentNode()
        elif data == "action:rename":
            self.renameCurrentNode()
        else:
            self._choose(data or None)
            self.nodeActivated.emit(self.currentNode())
        self._show_current()

    # -- nodes

    def currentNode(self):
        return self._scene.GetNodeByID(self._current) if self._scene is not None and self._current else None

    @Slot(object)
    def setCurrentNode(self, node) -> None:
        self.setCurrentNodeID(node if isinstance(node, str) else (node.GetID() if node is not None else ""))

    @Slot(str)
    def setCurrentNodeID(self, node_id) -> None:
        ids = [n.GetID() for n in self._nodes()]
        # A node that is not offered cannot be chosen: none is, as in Slicer.
        self._choose(node_id if node_id in ids else None)

    def setCurrentNodeIndex(self, index: int) -> None:
        nodes = self._nodes()
        self._choose(nodes[index].GetID() if 0 <= index < len(nodes) else None)

    def nodeCount(self) -> int:
        return len(self._nodes())

    def nodeFromIndex(self, index: int):
        nodes = self._nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def addNode(self, kind: str = ""):
        return self._add(kind or (self._types[0] if self._types else ""))

    def _add(self, kind: str):
        if self._scene is None or not kind:
            return None
        node = self._scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        base = self._base_name or node.GetNodeTagName()
        node.SetName(self._scene.GenerateUniqueName(base))
        for t, name, value in self._attributes:
            if node.IsA(t):
                node.SetAttribute(name, str(value) if value is not None else "")
        node = self._scene.AddNode(node)
        if hasattr(node, "CreateDefaultDisplayNodes"):
            node.CreateDefaultDisplayNodes()
        self.nodeAdded.emit(node)
        if self._flags["selectNodeUponCreation"]:
            self._choose(node.GetID())
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        node = self.currentNode()
        if node is not None:
            self.nodeAboutToBeRemoved.emit(node)
            self._scene.RemoveNode(node)

    def renameCurrentNode(self) -> None:
        node = self.currentNode()
        if node is not None:
            name = static_overrides["QInputDialog"]["getText"](self, "Rename node", f"New name of {node.GetName()}")
            if name:
                node.SetName(name)
                self.currentNodeRenamed.emit(name)

    def editCurrentNode(self) -> None:
        self.nodeAboutToBeEdited.emit(self.currentNode())

    # -- how it is set up

    def nodeTypeLabel(self, kind: str = "") -> str:
        if kind in self._labels:
            return self._labels[kind]
        node = slicer.mrmlScene.CreateNodeByClass(kind) if hasattr(slicer, "mrmlScene") else None
        if node is None:
            return kind.removeprefix("vtkMRML").removesuffix("Node")
        node.UnRegister(None)
        return node.GetTypeDisplayName() or node.GetNodeTagName()

    def setNodeTypeLabel(self, label: str, kind: str) -> None:
        self._labels[kind] = label
        self._refresh()

    def addAttribute(self, kind: str, name: str, value=None) -> None:
        self._attributes.append((kind, name, value))
        self._refresh()

    def removeAttribute(self, kind: str, name: str) -> None:
        self._attributes = [a for a in self._attributes if a[:2] != (kind, name)]
        self._refresh()

    def _set_types(self, types) -> None:
        self._types = list(types)
        self._refresh()

    def _set_hidden_types(self, types) -> None:
        self._hidden_types = list(types)
        self._refresh()

    def _set_flag(self, name: str, value: bool) -> None:
        if self._flags[name] != bool(value):
            self._flags[name] = bool(value)
            self._refresh()

    def _set_none_text(self, text: str) -> None:
        self._none_text = text
        self._refresh()

    nodeTypes = Property("QStringList", lambda self: self._types, _set_types)
    hideChildNodeTypes = Property("QStringList", lambda self: self._hidden_types, _set_hidden_types)
    noneEnabled = Property(
        bool, lambda self: self._flags["noneEnabled"], lambda self, v: self._set_flag("noneEnabled", v)
    )
    addEnabled = Property(bool, lambda self: self._flags["addEnabled"], lambda self, v: self._set_flag("addEnabled", v))
    removeEnabled = Property(
        bool, lambda self: self._flags["removeEnabled"], lambda self, v: self._set_flag("removeEnabled", v)
    )
    editEnabled = Property(
        bool, lambda self: self._flags["editEnabled"], lambda self, v: self._set_flag("editEnabled", v)
    )
    renameEnabled = Property(
        bool, lambda self: self._flags["renameEnabled"], lambda self, v: self._set_flag("renameEnabled", v)
    )
    showHidden = Property(bool, lambda self: self._flags["showHidden"], lambda self, v: self._set_flag("showHidden", v))
    showChildNodeTypes = Property(
        bool, lambda self: self._flags["showChildNodeTypes"], lambda self, v: self._set_flag("showChildNodeTypes", v)
    )
    selectNodeUponCreation = Property(
        bool,
        lambda self: self._flags["selectNodeUponCreation"],
        lambda self, v: self._set_flag("selectNodeUponCreation", v),
    )
    noneDisplay = Property(str, lambda self: self._none_text, _set_none_text)
    baseName = Property(str, lambda self: self._base_name, lambda self, v: setattr(self, "_base_name", v))
    currentNodeID = Property(str, lambda self: self._current or "", setCurrentNodeID)
    currentNodeId = Property(str, lambda self: self._current or "", setCurrentNodeID)
    interactionNodeSingletonTag = Property(
        str, lambda self: getattr(self, "_tag", ""), lambda self, v: setattr(self, "_tag", v)
    )
