"""What Slicer keeps of a module: the object ``slicer.modules.<name>``, its widget, and the managers that know them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QVBoxLayout

from .api import read_api
from .node_combo_box import qMRMLWidget
from .proxy import register, wrap

TEXTS = ("title", "helpText", "acknowledgementText", "name", "path", "defaultDocumentationLink", "slicerWikiUrl")
LISTS = ("categories", "dependencies", "contributors", "associatedNodeTypes")
# Panels that were closed or reloaded. One that forgot to remove an observer would crash VTK once Python had collected
# it; kept, it gives an error that says what it did.
_left_panels: list = []
FLAGS = ("hidden", "isBuiltIn", "isInstalled", "widgetRepresentationCreationEnabled")


class Modules:
    """``slicer.modules``: an attribute a module, in lower case; and what scripted modules leave there."""

    def __getattr__(self, name):
        if name in read_api()["modules"]:
            raise NotImplementedError(f"slicer.modules.{name} exists in Slicer; the host does not stand in for it")
        raise AttributeError(f"slicer.modules has no {name!r}")


class _ModuleBase(QObject):
    def __init__(self, name: str, path: str = ""):
        super().__init__()
        self.setObjectName(name)
        self._values = {**{k: "" for k in TEXTS}, **{k: [] for k in LISTS}, **{k: False for k in FLAGS}}
        self._values.update(name=name, path=path, title=name, icon=QIcon(), widgetRepresentationCreationEnabled=True)

    def mrmlScene(self):
        import slicer

        return slicer.mrmlScene

    @staticmethod
    def _checked(name: str, value):
        if name in TEXTS and not isinstance(value, str):
            raise TypeError(f"a module's {name} is a text, not {value!r}")
        if name in LISTS:
            if isinstance(value, str) or not all(isinstance(v, str) for v in value):
                raise TypeError(f"a module's {name} is a list of texts, not {value!r}")
            return list(value)
        return value


def _module_property(name: str):
    def write(self, value):
        self._values[name] = self._checked(name, value)

    return property(lambda self: self._values[name], write)


for _name in (*TEXTS, *LISTS, *FLAGS, "icon"):
    setattr(_ModuleBase, _name, _module_property(_name))


@register("slicer.modules.segmentations")
class LogicModule(_ModuleBase):
    """A module of Slicer's own, of which only the (real) logic is here."""

    def __init__(self, name: str, logic):
        super().__init__(name)
        self._logic = logic

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        raise NotImplementedError(f"the host has no panel for Slicer's module {self._values['name']}")


@register("slicer.qSlicerScriptedLoadableModule")
class ScriptedModule(_ModuleBase):
    """A scripted module, loaded from its file as Slicer does."""

    def __init__(self, name: str, path: Path):
        super().__init__(name, str(path))
        self._widget: ScriptedModuleWidget | None = None
        self.load()

    def load(self) -> None:
        """Run the file anew, under the module's name, and make its module class."""
        import slicer

        name, path = self._values["name"], Path(self._values["path"])
        folder = str(path.parent)
        if folder not in sys.path:
            # Slicer puts the folder of each scripted module there.
            sys.path.insert(0, folder)
        spec = importlib.util.spec_from_file_location(name, path)
        python = importlib.util.module_from_spec(spec)
        sys.modules[name] = python
        try:
            spec.loader.exec_module(python)
        except BaseException:
            del sys.modules[name]
            raise
        setattr(slicer.modules, name.lower(), wrap(self))
        instance = getattr(python, name)(wrap(self))
        setattr(slicer.modules, name + "Instance", instance)

    def logic(self):
        # What a scripted module's logic() gives in Slicer is not the Python class: slicer.util.getModuleLogic is to be
        # used.
        return None

    def widgetRepresentation(self):
        if self._widget is None:
            self._widget = ScriptedModuleWidget(self)
            self._widget.create()
        return self._widget

    def widget_made(self):
        return self._widget

    def forget_widget(self) -> None:
        self._widget = None


@register("slicer.qSlicerScriptedLoadableModuleWidget")
class ScriptedModuleWidget(qMRMLWidget):
    """The widget that a scripted module's panel is put into."""

    def __init__(self, module: ScriptedModule):
        super().__init__()
        self._module = module
        self._python = None
        self._entered = False
        self.setObjectName(module._values["name"] + "ModuleWidget")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)

    def create(self) -> None:
        """Make the Python class of the panel and set it up."""
        import slicer

        name = self._module._values["name"]
        self.setMRMLScene(slicer.mrmlScene)
        cls = getattr(sys.modules[name], name + "Widget")
        if self._python is not None:
            _left_panels.append(self._python)
        self._python = cls(wrap(self))
        setattr(slicer.modules, name + "Widget", self._python)
        self._python.setup()
        self.layout().addStretch(1)

    def self(self):
        return self._python

    @Slot()
    def reload(self) -> None:
        # As Slicer: setup() of a new instance is called, enter() is not, although the panel stays entered (isEntered).
        self.create()

    def enter(self) -> None:
        self._entered = True
        if hasattr(self._python, "enter"):
            self._python.enter()

    def exit(self) -> None:
        self._entered = False
        if hasattr(self._python, "exit"):
            self._python.exit()

    def module(self):
        return self._module

    isEntered = property(lambda self: self._entered)
    moduleName = property(lambda self: self._module._values["name"])


@register("slicer.app.moduleManager()")
class ModuleManager(QObject):
    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)

    def __init__(self):
        super().__init__()
        self._modules: dict[str, _ModuleBase] = {}

    def add(self, module: _ModuleBase) -> None:
        import slicer

        name = module._values["name"]
        self._modules[name.lower()] = module
        setattr(slicer.modules, name.lower(), wrap(module))
        self.moduleLoaded.emit(name)

    def module(self, name: str):
        return self._modules.get(name.lower())

    def modulesNames(self) -> list[str]:
        return [m._values["name"] for m in self._modules.values()]

    def unload(self, name: str) -> None:
        """What Slicer does with a module when it ends: its panel's cleanup() is called, and the panel deleted."""
        import slicer

        module = self._modules[name.lower()]
        widget = module.widget_made()
        if widget is not None and widget._entered:
            widget.exit()
        self.moduleAboutToBeUnloaded.emit(module._values["name"])
        if widget is not None:
            _left_panels.append(widget.self())
            module.forget_widget()
            widget.deleteLater()
        self._modules.pop(name.lower())
        for left in (name.lower(), name + "Widget", name + "Instance"):
            if left in slicer.modules.__dict__:
                delattr(slicer.modules, left)
