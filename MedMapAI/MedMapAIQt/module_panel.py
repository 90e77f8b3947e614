"""What both panels do alike: their life in Slicer, their parameter node, their status line."""

from __future__ import annotations

import sys

import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from .error_dialog import ShowErrors
from .installation import ensure_dependencies

#: Packages of this extension that a reload reads anew.
PACKAGES = ("MedMapAILib", "MedMapAIQt")


class ModulePanel(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """A panel with a .ui file of the module's name, a parameter node, and a label ``statusLabel``.

    A module's widget derives from it, and has the method ``onParametersModified``, which is called whenever the
    parameters changed, or are others, or are gone (``self._parameterNode`` is None).
    """

    #: The module's logic class.
    logicClass = None

    def __init__(self, parent=None):
        # Before the first of the base classes: without a parent, that one calls setup().
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._kept = False
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.logicClass()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)

    # -- life of the panel ------------------------------------------------------------------------------------------

    def cleanup(self):
        self.logic.shutDown()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.setParameterNode(None)

    def onReload(self):
        # With the library that it was started with.
        self.logic.shutDown()
        for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller, event):
        self._kept = False
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    # -- parameters -------------------------------------------------------------------------------------------------

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.onParameterNodeConnected()
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self.onParametersModified()

    def onParameterNodeConnected(self):
        """Read from the parameter node what has no widget of its own."""

    def onParametersModified(self, caller=None, event=None):
        raise NotImplementedError

    # -- what is told -----------------------------------------------------------------------------------------------

    def say(self, message, keep=False):
        """Show a sentence. keep: it is the outcome of something, and stays until there is something to correct."""
        self._kept = keep
        self.ui.statusLabel.text = message
        self.ui.statusLabel.visible = bool(message)

    def sayWhyNot(self, reason):
        """Show why the button cannot be pressed. Where it can be, or nobody looks, what was kept stays."""
        if self._parameterNode is not None and (reason or not self._kept):
            self.say(reason)

    @staticmethod
    def showErrors(title):
        """Context in which an error ends in a dialog with one sentence; the log has the rest."""
        return ShowErrors(title)

    @staticmethod
    def ensureDependencies():
        """Install missing Python packages after a question. Returns False when the answer was no; raises RunError."""
        return ensure_dependencies()
