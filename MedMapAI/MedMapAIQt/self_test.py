"""The test class that lies in a module's file: it runs in Slicer, by Reload and Test of the developer section."""

from __future__ import annotations

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest


class ModuleTest(ScriptedLoadableModuleTest):
    """Runs every method test_… of the class derived from it, each in an empty scene."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self, **_options) -> None:
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            getattr(self, name)()
