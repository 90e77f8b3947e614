"""Stand-in for ``slicer.ScriptedLoadableModule``: the four classes that a scripted module derives from."""

from __future__ import annotations

import importlib
import logging
import os
import types
import unittest
from pathlib import Path


class ScriptedLoadableModule:
    """What the module file's class of the module's own name derives from: title, help, icon."""

    def __init__(self, parent):
        super().__init__()
        import qt
        import slicer

        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = ""
        parent.categories = []
        parent.dependencies = []
        parent.contributors = []
        parent.helpText = ""
        parent.acknowledgementText = ""
        for ending in (".svg", ".png"):
            icon = self.resourcePath(f"Icons/{self.moduleName}{ending}")
            if os.path.isfile(icon):
                parent.icon = qt.QIcon(icon)
                break
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def getDefaultModuleDocumentationLink(self, docPage=None):
        import slicer

        url = (
            slicer.app.documentationBaseUrl + docPage if docPage else slicer.app.moduleDocumentationUrl(self.moduleName)
        )
        return f'<p>For more information see the <a href="{url}">online documentation</a>.</p>'

    def runTest(self, msec=100, **kwargs):
        tests = getattr(importlib.import_module(self.__module__), self.moduleName + "Test", None)
        if tests is None:
            raise AssertionError(f"{self.__module__} has no class {self.moduleName}Test")
        case = tests()
        case.messageDelay = msec
        case.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """The panel. ``parent`` is the widget that Slicer gives it; ``layout`` is that widget's layout."""

    def __init__(self, parent=None):
        super().__init__()
        import qt
        import slicer

        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        alone = not parent
        if alone:
            parent = slicer.qMRMLWidget()
            parent.setLayout(qt.QVBoxLayout())
            parent.setMRMLScene(slicer.mrmlScene)
        self.parent = parent
        self.layout = self.parent.layout()
        if alone:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename):
        import slicer

        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self):
        self.setupDeveloperSection()

    def cleanup(self):
        pass

    def setupDeveloperSection(self):
        if not self.developerMode:
            return
        import ctk
        import qt

        self.reloadCollapsibleButton = ctk.ctkCollapsibleButton()
        self.reloadCollapsibleButton.text = "Reload && Test"
        self.layout.addWidget(self.reloadCollapsibleButton)
        form = qt.QFormLayout(self.reloadCollapsibleButton)
        row = qt.QHBoxLayout()
        for name, text, slot in (
            ("reloadButton", "Reload", self.onReload),
            ("reloadAndTestButton", "Reload and Test", self.onReloadAndTest),
            ("editSourceButton", "Edit", self.onEditSource),
        ):
            button = qt.QPushButton(text)
            button.connect("clicked()", slot)
            setattr(self, name, button)
            row.addWidget(button)
        form.addRow(row)

    def onReload(self):
        import slicer

        slicer.util.reloadScriptedModule(self.moduleName)

    def onTest(self, **kwargs):
        import slicer

        with slicer.util.tryWithErrorDisplay("Test failed."):
            slicer.selfTests[self.moduleName](msec=10, **kwargs)

    def onReloadAndTest(self, **kwargs):
        import slicer

        with slicer.util.tryWithErrorDisplay("Reload and Test failed."):
            self.onReload()
            slicer.selfTests[self.moduleName](msec=10, **kwargs)

    def onEditSource(self):
        raise NotImplementedError("the host opens no editor")

    def _onModuleAboutToBeUnloaded(self, moduleName):
        import slicer

        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    """What a module can do without its panel; keeps one parameter node a scene."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        import slicer

        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node:
                # Closing the scene takes the attributes of a singleton away.
                node.SetAttribute("ModuleName", self.moduleName)
        else:
            node = next(iter(self.getAllParameterNodes()), None)
        return node or slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self):
        import slicer

        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [n for n in nodes if n.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self):
        import slicer

        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The module's self-test, run in Slicer by ``slicer_add_python_unittest`` and here by ``host.runSelfTest``."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.enableScreenshots = False
        self.screenshotScaleFactor = 1.0

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        import slicer

        # Less than 400 ms: only events are processed, no window opens.
        slicer.util.delayDisplay(message, min(399, getattr(self, "messageDelay", msec or requestedDelay or 100)))

    def takeScreenshot(self, name, description, type=-1):
        self.delayDisplay(description)

    def runTest(self):
        logging.warning("No test is defined in %s", type(self).__name__)


EXPORTED = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleWidget",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
]


def make_module() -> types.ModuleType:
    """The module object to be found as ``slicer.ScriptedLoadableModule``."""
    module = types.ModuleType("slicer.ScriptedLoadableModule", __doc__)
    for name in EXPORTED:
        setattr(module, name, globals()[name])
    module.__all__ = EXPORTED
    module.__file__ = str(Path(__file__))
    return module
