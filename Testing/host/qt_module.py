"""The module ``qt`` of the host: Qt's classes under the names and manners they have in Slicer."""

from __future__ import annotations

import enum
import sys
from types import ModuleType

from PySide6 import QtCore

from .api import known_classes, names_of
from .proxy import _open_names_of, host_classes, implementation, proxy_class

# Classes of Qt 5 that panels use and the list does not name (it names what live widgets were made of). What Qt has of
# them is let through.
ALSO_IN_QT = """
QAbstractButton QAbstractItemView QAbstractSlider QApplication QBoxLayout QCoreApplication QCursor QDate QDockWidget
QEvent QEventLoop
QFile QFontDatabase QFontMetrics QHeaderView QInputDialog QItemSelectionModel QKeyEvent QLayout QMainWindow
QModelIndex QMouseEvent
QObject QPointF QRectF QScrollBar QSizeF QSpacerItem QStandardPaths QStatusBar QStyle QTextCursor QTextDocument QTime
QToolBar
QUiLoader
""".split()


class _QtNamespace:
    """``qt.Qt``: every enumeration of the namespace, as integers."""

    def __getattr__(self, name):
        found = getattr(QtCore.Qt, name, None)
        if isinstance(found, enum.Enum):
            return int(found.value)
        raise AttributeError(f"qt.Qt has no {name!r}")


class QtModule(ModuleType):
    """``qt`` (or ``ctk``): classes are made when first asked for; a class that Slicer has not is refused."""

    def __init__(self, name: str, also=()):
        super().__init__(name)
        self.__path__ = []
        self._also = set(also)
        if name == "qt":
            self.Qt = _QtNamespace()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = class_of(f"{self.__name__}.{name}", open_list=name in self._also)
        setattr(self, name, value)
        return value

    def __dir__(self):
        return sorted({*known_classes(self.__name__), *self._also, *self.__dict__})


def class_of(key: str, open_list: bool = False):
    """The class object for ``qt.QLabel``, ``ctk.ctkSliderWidget``, ``slicer.qMRMLWidget``; AttributeError when Slicer
    has none."""
    prefix, name = key.split(".", 1)
    made_here = [cls for cls, k in host_classes.items() if k == key]
    cls = made_here[0] if made_here else (implementation(name) if prefix == "qt" else None)
    names = names_of(key)
    if names is None and open_list:
        names = _open_names_of(cls) if cls is not None else None
    if names is None:
        raise AttributeError(
            f"{key} is not in the list of what Slicer has (Testing/host/trim_api.py names the classes kept)"
        )
    if cls is None:
        raise NotImplementedError(f"{key} exists in Slicer; the host does not stand in for it")
    return proxy_class(names, cls)


def install() -> tuple[ModuleType, ModuleType]:
    """Put ``qt`` and ``ctk`` into sys.modules and return them."""
    qt = QtModule("qt", ALSO_IN_QT)
    ctk = QtModule("ctk")
    sys.modules["qt"] = qt
    sys.modules["ctk"] = ctk
    return qt, ctk
