"""A small scripted module that the tests of the host open: a node, a threshold, a name, a button that asks."""

import enum
import pathlib
from typing import Annotated, Optional

import ctk  # noqa: F401
import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *  # noqa: F403 - as Slicer's own template does
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class HostExample(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Host Example")
        self.parent.categories = ["Examples"]
        self.parent.contributors = ["MedMapAI contributors"]
        self.parent.helpText = _("Counts voxels above a threshold.")
        self.parent.acknowledgementText = _("None.")


class Speed(enum.Enum):
    SLOW = 1
    FAST = 2


@parameterNodeWrapper
class HostExampleParameterNode:
    inputVolume: slicer.vtkMRMLScalarVolumeNode
    threshold: Annotated[float, WithinRange(-100, 200)] = 50
    count: int = 3
    invert: bool = False
    label: str = "above"
    speed: Speed = Speed.FAST
    device: Annotated[str, Choice(["auto", "cpu"])] = "auto"
    folder: pathlib.Path
    weight: Optional[float]  # noqa: UP045 - Slicer knows no X | Y


class HostExampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._tag = None
        self.calls = []

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/HostExample.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = HostExampleLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.initializeParameterNode()

    def cleanup(self):
        self.calls.append("cleanup")
        # On a reload Slicer calls this alone, without exit() before it.
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.calls.append("enter")
        self.initializeParameterNode()

    def exit(self):
        self.calls.append("exit")
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._tag)
            self._tag = None

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(HostExampleParameterNode(self.logic.getParameterNode()))

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._tag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._tag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
            self.checkCanApply()

    def checkCanApply(self, caller=None, event=None):
        self.ui.applyButton.enabled = bool(self._parameterNode and self._parameterNode.inputVolume)

    def onApply(self, checked=False):
        if not slicer.util.confirmYesNoDisplay("Count the voxels?"):
            return
        with slicer.util.tryWithErrorDisplay("It failed.", waitCursor=True):
            count = self.logic.process(self._parameterNode.inputVolume, self._parameterNode.threshold)
            self.ui.resultTable.setRowCount(1)
            self.ui.resultTable.setItem(0, 0, qt.QTableWidgetItem(str(count)))


class HostExampleLogic(ScriptedLoadableModuleLogic):
    def process(self, volumeNode, threshold):
        return int((slicer.util.arrayFromVolume(volumeNode) > threshold).sum())


class HostExampleTest(ScriptedLoadableModuleTest):
    def runTest(self):
        slicer.mrmlScene.Clear()
        self.delayDisplay("Testing")
        self.assertEqual(slicer.util.getModuleLogic("HostExample").moduleName, "HostExample")
