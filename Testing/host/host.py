"""The host as tests use it: start it once a process, open modules, answer dialogs, wait, take screenshots."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_host: Host | None = None


class Host:
    """One Slicer-like application. Made by :func:`start`."""

    def __init__(self, folder: Path | None = None):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        # A message box of the host is not to be drawn by the desktop's own tool kit.
        os.environ.setdefault("QT_QPA_PLATFORMTHEME", "")
        from PySide6.QtWidgets import QApplication, QStyleFactory

        from . import fonts

        fonts.quiet()
        self.qapplication = QApplication.instance() or QApplication(["Slicer"])
        self.qapplication.setStyle(QStyleFactory.create("Fusion"))
        fonts.install(self.qapplication)
        from MedMapAILib import standalone_scene

        self.slicer_app = standalone_scene.start()
        from . import quirks

        if folder is not None:
            quirks.use_settings_file(Path(folder) / "Slicer.ini")
        self._install()
        from .main_window import MainWindow, slicer_palette

        self.qapplication.setPalette(slicer_palette())
        self._record_uncaught()
        self.window = MainWindow(self)
        self.window.show()
        self.qapplication.processEvents()
        # Slicer's view nodes are in the scene from the start: setSliceViewerLayers works on them.
        layouts = self.application.layoutManager()
        layouts.layoutChanged.connect(lambda _layout: self.window.arrange(layouts))
        self.current: str | None = None
        self.process_events()

    # -- what the panels import

    def _install(self) -> None:
        import slicer
        import slicer.util

        from . import (  # noqa: F401  # noqa: F401
            application,
            ctk_widgets,
            dialogs,
            layout_manager,
            main_window,
            module_objects,
            node_combo_box,
            packaging,
            parameter_node,
            plot_view,
            scripted_module,
            subject_hierarchy,
            table_views,
            util,
        )
        from .proxy import host_classes, wrap
        from .qt_module import class_of, install

        self._dialogs, self._util = dialogs, util
        install()
        for key in host_classes.values():
            prefix, name = key.split(".", 1)
            if prefix == "slicer" and name.startswith("q") and "." not in name:
                setattr(slicer, name, class_of(key))
        old = slicer.modules.__dict__ if hasattr(slicer, "modules") else {}
        slicer.modules = module_objects.Modules()
        self.application = application.Application(
            self.slicer_app, lambda: layout_manager.LayoutManager(self.slicer_app, self.window.view_sizes())
        )
        slicer.app = wrap(self.application)
        manager = self.application.moduleManager()
        for name, module in old.items():
            manager.add(module_objects.LogicModule(name, module.logic()))
        for name, logic_class in (
            ("markups", "vtkSlicerMarkupsLogic"),
            ("tables", "vtkSlicerTablesLogic"),
            ("plots", "vtkSlicerPlotsLogic"),
            ("models", "vtkSlicerModelsLogic"),
            ("transforms", "vtkSlicerTransformLogic"),
        ):
            if manager.module(name) is None and hasattr(slicer, logic_class):
                known = self.slicer_app.app_logic.GetModuleLogic(name.capitalize())
                manager.add(module_objects.LogicModule(name, known or self._new_logic(getattr(slicer, logic_class))))
        for name, module in (
            ("ScriptedLoadableModule", scripted_module.make_module()),
            ("parameterNodeWrapper", parameter_node.make_module()),
            ("i18n", packaging.make_i18n()),
            ("packaging", packaging.make_packaging()),
        ):
            sys.modules[f"slicer.{name}"] = module
            setattr(slicer, name, module)
        util.patch()

    def _new_logic(self, cls):
        logic = cls()
        logic.SetMRMLScene(self.slicer_app.scene)
        return logic

    @staticmethod
    def _record_uncaught() -> None:
        """VTK and Qt print what a callback raises and go on: keep it for check()."""
        from .proxy import slot_errors

        before = sys.excepthook

        def record(kind, error, trace):
            slot_errors.append(error)
            before(kind, error, trace)

        sys.excepthook = record

    # -- modules

    def openModule(self, name: str, path: str | Path | None = None):
        """Load a scripted module's file anew (once), show its panel, enter it. Returns the panel's Python object."""
        from .module_objects import ScriptedModule

        manager = self.application.moduleManager()
        if manager.module(name) is None:
            file = Path(path) if path is not None else REPOSITORY / name / f"{name}.py"
            if file.is_dir():
                file = file / f"{name}.py"
            manager.add(ScriptedModule(name, file))
        self.selectModule(name)
        return manager.module(name).widgetRepresentation().self()

    def selectModule(self, name: str) -> None:
        """Leave the panel shown and enter another, as choosing a module in the toolbar does. "" leaves only."""
        manager = self.application.moduleManager()
        if name and manager.module(name) is None:
            raise RuntimeError(f"there is no module {name!r}: open it with host.openModule")
        if self.current is not None and manager.module(self.current) is not None:
            manager.module(self.current).widgetRepresentation().exit()
        self.current = None
        if not name:
            self.window.show_module(None, None)
            return
        module = manager.module(name)
        widget = module.widgetRepresentation()
        self.window.show_module(module, widget)
        self.current = name
        widget.enter()
        self.process_events()

    def closeModule(self, name: str) -> None:
        """Leave and unload a module, as Slicer does when it ends: exit(), then cleanup()."""
        if self.current == name:
            self.selectModule("")
        self.application.moduleManager().unload(name)
        sys.modules.pop(name, None)
        self.process_events()

    def runSelfTest(self, name: str) -> None:
        """Run the module's <name>Test, as "Reload and Test" does."""
        import slicer

        slicer.selfTests[name](msec=10)

    def reload(self, name: str):
        """Click "Reload": returns the new panel object."""
        import slicer

        getattr(slicer.modules, name + "Widget").onReload()
        self.process_events()
        return getattr(slicer.modules, name + "Widget")

    # -- dialogs

    def answer(self, *answers) -> None:
        """Queue answers for the dialogs to come: "Yes", "Cancel", True, False, a path, or a function of the dialog."""
        self._dialogs.queue(*answers)

    @property
    def dialogs(self) -> list:
        """Dialogs shown so far: objects with kind, title, text, answer, details."""
        return self._dialogs.shown

    @property
    def installed(self) -> list:
        """What was asked of pip: (function, requirements, options). Nothing is installed."""
        return self._util.installed

    # -- time

    def process_events(self, until=None, timeout_s: float = 10.0, message: str = "") -> None:
        """Let Qt work: once, or until ``until()`` is true. AssertionError when it does not become true in time."""
        from PySide6.QtCore import QEvent

        end = time.monotonic() + timeout_s
        while True:
            self.qapplication.processEvents()
            self.qapplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            if until is None or until():
                return
            if time.monotonic() > end:
                raise AssertionError(message or f"not so within {timeout_s} s: {getattr(until, '__name__', until)}")
            time.sleep(0.005)

    def closeScene(self) -> None:
        """File > Close scene."""
        import slicer

        slicer.mrmlScene.Clear(0)
        self.process_events()

    # -- pictures

    def screenshot(self, path: str | Path, widget=None, size: tuple[int, int] | None = None) -> Path:
        """Save a PNG of a widget, or of the whole window with Slicer's views drawn. Returns the path."""
        from .proxy import unwrap

        target = unwrap(widget) if widget is not None else self.window
        if size is not None:
            target.resize(*size)
        self.process_events()
        if target is self.window:
            self._draw_views()
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not target.grab().save(str(path)):
            raise OSError(f"the picture {path} could not be written")
        return path

    def _draw_views(self) -> None:
        from MedMapAILib.errors import RunError
        from MedMapAILib.standalone_scene import check_can_render, vtk_quiet

        try:
            check_can_render()
        except RunError as error:
            self.window.say_in_views(str(error))
            return
        with vtk_quiet():
            self.window.draw_views(self.application.layoutManager())
        self.process_events()

    # -- between tests

    def check(self) -> None:
        """Raise the first error that a slot raised (Slicer would only print it), or say which answers were not asked
        for."""
        from .proxy import slot_errors

        if slot_errors:
            first = slot_errors[0]
            slot_errors.clear()
            raise first
        left = self._dialogs.pending()
        if left:
            self._dialogs.reset()
            raise AssertionError(f"answers that no dialog asked for: {left}")

    def reset(self) -> None:
        """Close all scripted modules, empty the scene, forget dialogs, settings and errors."""
        from .module_objects import ScriptedModule
        from .proxy import slot_errors

        self.selectModule("")
        manager = self.application.moduleManager()
        for module in list(manager._modules.values()):
            if isinstance(module, ScriptedModule):
                self.closeModule(module._values["name"])
        self.closeScene()
        self.application.layoutManager().forget_layouts()
        self.application.settings().clear()
        self._dialogs.reset()
        self._util.installed.clear()
        self._util.installer = None
        slot_errors.clear()
        self.process_events()

    def exit(self) -> None:
        """What happens when Slicer ends: every module's cleanup(), then aboutToQuit."""
        self.reset()
        self.application.aboutToQuit.emit()


def start(folder: str | Path | None = None) -> Host:
    """The one host of this process, made at the first call. ``folder``: where settings are kept."""
    global _host
    if _host is None:
        importlib.invalidate_caches()
        _host = Host(Path(folder) if folder is not None else None)
    return _host
