"""``slicer.app``: the application object, its settings and its managers."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from PySide6.QtCore import QObject, QProcessEnvironment, QSettings, Signal, Slot
from PySide6.QtWidgets import QApplication

from . import quirks
from .module_objects import ModuleManager
from .proxy import register

VERSION = (5, 13, 0)  # of the desktop that the list of names was taken from


@register("slicer.app.settings()")
class Settings(QSettings):
    """Application settings, in a file of the test's own."""

    modified = Signal()

    def __init__(self, path: Path):
        super().__init__(str(path), QSettings.Format.IniFormat)


@register("slicer.app.ioManager()")
class IoManager(QObject):
    """Loads and saves through trame-slicer's readers and writers, which are Slicer's storage nodes."""

    newFileLoaded = Signal(object)
    fileSaved = Signal(object)

    def __init__(self, slicer_app):
        super().__init__()
        self._app = slicer_app

    def loadScene(self, path: str, *_properties) -> bool:
        self._app.io_manager.load_scene(path)
        return True

    def saveScene(self, path: str, *_properties) -> bool:
        return bool(self._app.io_manager.write_scene(path))


class _CommandOptions:
    """What slicer.util.exit asks of ``slicer.app.commandOptions()``."""

    runPythonAndExit = False
    noMainWindow = False


@register("slicer.app")
class Application(QObject):
    aboutToQuit = Signal()
    startupCompleted = Signal()
    mrmlSceneChanged = Signal(object)

    def __init__(self, slicer_app, layout_manager_factory):
        super().__init__()
        self._app = slicer_app
        self._modules = ModuleManager()
        self._io = IoManager(slicer_app)
        self._make_layout_manager = layout_manager_factory
        self._layout_manager = None
        self._settings = Settings(quirks.settings_file())
        self._temporary = tempfile.mkdtemp(prefix="slicer-host-")
        self._testing = False
        self.exit_codes: list[int] = []

    def __getattr__(self, name):
        # What QApplication has, slicer.app has.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(QApplication.instance(), name)

    # -- scene, managers

    def mrmlScene(self):
        return self._app.scene

    def applicationLogic(self):
        return self._app.app_logic

    def moduleLogic(self, name: str):
        module = self._modules.module(name)
        return module.logic() if module is not None else None

    def moduleManager(self):
        return self._modules

    def layoutManager(self):
        if self._layout_manager is None:
            self._layout_manager = self._make_layout_manager()
        return self._layout_manager

    def ioManager(self):
        return self._io

    coreIOManager = ioManager

    def settings(self):
        return self._settings

    userSettings = revisionUserSettings = settings

    # -- events, life

    def processEvents(self, *_flags) -> None:
        QApplication.processEvents()

    @Slot(int)
    def exit(self, code: int = 0) -> None:
        """Recorded in exit_codes; the process that runs the tests goes on."""
        self.exit_codes.append(code)

    def quit(self) -> None:
        self.exit(0)

    def restart(self) -> None:
        self.exit_codes.append(-1)

    def testingEnabled(self) -> bool:
        return self._testing

    def commandOptions(self):
        return _CommandOptions

    def setRenderPaused(self, _paused: bool) -> None:
        pass

    def pauseRender(self) -> None:
        pass

    resumeRender = pauseRender

    # -- environment

    def startupEnvironment(self):
        return QProcessEnvironment.systemEnvironment()

    environment = startupEnvironment

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"https://slicer.readthedocs.io/en/latest/user_guide/modules/{name.lower()}.html"

    def showConsoleMessage(self, text: str, *_rest) -> None:
        print(text)

    def arguments(self) -> list[str]:
        return list(sys.argv)

    applicationName = property(lambda self: "Slicer")
    mainApplicationName = property(lambda self: "Slicer")
    mainApplicationDisplayName = property(lambda self: "3D Slicer")
    applicationVersion = property(lambda self: ".".join(map(str, VERSION)))
    majorVersion = property(lambda self: VERSION[0])
    minorVersion = property(lambda self: VERSION[1])
    mainApplicationMajorVersion = property(lambda self: VERSION[0])
    mainApplicationMinorVersion = property(lambda self: VERSION[1])
    mainApplicationPatchVersion = property(lambda self: VERSION[2])
    revision = property(lambda self: "0")
    repositoryRevision = property(lambda self: "0")
    documentationBaseUrl = property(lambda self: "https://slicer.readthedocs.io/en/latest/")
    temporaryPath = property(lambda self: self._temporary)
    cachePath = property(lambda self: self._temporary)
    defaultScenePath = property(lambda self: self._temporary)
    extensionsInstallPath = property(lambda self: str(Path(self._temporary) / "Extensions"))
    slicerHome = property(lambda self: sys.prefix)
    os = property(lambda self: {"win32": "win", "darwin": "macosx"}.get(sys.platform, "linux"))
    arch = property(lambda self: os.uname().machine if hasattr(os, "uname") else "amd64")
    platform = property(lambda self: f"{self.os}-{self.arch}")
    isInstalled = property(lambda self: True)
    slicerUserSettingsFilePath = property(lambda self: self._settings.fileName())
