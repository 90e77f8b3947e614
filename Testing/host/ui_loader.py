"""``slicer.util.loadUI``: a .ui file with Slicer's widgets, loaded by Qt's own loader and checked against Slicer's
names.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from PySide6.QtCore import QBuffer, QByteArray, QDir, QIODevice, QObject
from PySide6.QtUiTools import QUiLoader
from PySide6.QtWidgets import QWidget

from .api import names_of
from .proxy import _open_names_of, connect_signal, host_classes, implementation, names_for, parse_signal, slot_of, wrap

# QUiLoader crashes when a registered class is garbage-collected.
_registered: list[type] = []


class UiError(ValueError):
    """The .ui file asks for something that Slicer's widgets have not."""


def _loader() -> QUiLoader:
    loader = QUiLoader()
    for cls in host_classes:
        if issubclass(cls, QWidget):
            loader.registerCustomWidget(cls)
            if cls not in _registered:
                _registered.append(cls)
    return loader


def _names_of_widget(class_name: str):
    for prefix in ("qt", "ctk", "slicer"):
        found = names_of(f"{prefix}.{class_name}")
        if found is not None:
            return found
    cls = implementation(class_name)
    return _open_names_of(cls) if cls is not None else None


def check(tree: ElementTree.Element, path: Path) -> None:
    """Raise UiError for a widget class or property that Slicer has not."""
    made_here = {cls.__name__ for cls in host_classes}
    for widget in tree.iter("widget"):
        class_name, name = widget.get("class"), widget.get("name")
        if class_name == "Line":  # Designer's word for a QFrame
            continue
        names = _names_of_widget(class_name)
        if names is None:
            raise UiError(f"{path.name}: {name} is a {class_name}, which is not in the list of what Slicer has")
        if not names.open_list and class_name not in made_here and implementation(class_name) is None:
            raise NotImplementedError(f"{path.name}: {name} is a {class_name}; the host does not stand in for it")
        for entry in widget.findall("property"):
            # stdset="0": a dynamic property, as SlicerParameterName.
            if entry.get("stdset") != "0" and entry.get("name") not in names.properties:
                raise UiError(f"{path.name}: {name} ({class_name}) has no property {entry.get('name')!r} in Slicer")


def _numbers_for_sets(tree: ElementTree.Element, path: Path) -> None:
    """Write ``ctkPathLineEdit::Dirs|...`` as a number: PySide6 cannot declare a flag of a class's own to the loader."""
    classes = {cls.__name__: cls for cls in host_classes}
    for widget in tree.iter("widget"):
        for entry in widget.findall("property"):
            value = entry.find("set") if entry.find("set") is not None else entry.find("enum")
            cls = classes.get((value.text or "").split("::")[0]) if value is not None else None
            if cls is None:
                continue
            total = 0
            for word in value.text.split("|"):
                name = word.split("::")[-1]
                if name not in getattr(cls, "ENUMERATION", {}):
                    raise UiError(
                        f"{path.name}: {cls.__name__} has no {name} in Slicer, or the host does not know its value"
                    )
                total |= cls.ENUMERATION[name]
            value.tag, value.text = "number", str(total)


def load_ui(path) -> QWidget:
    """Return the widget that a .ui file describes. RuntimeError when there is no file, UiError when it asks for too
    much."""
    path = Path(path)
    if not path.is_file():
        raise RuntimeError(f"Could not load UI file: file not found {path}")
    tree = ElementTree.fromstring(path.read_bytes())
    check(tree, path)
    _numbers_for_sets(tree, path)
    connections = tree.find("connections")
    if connections is not None:
        # Signals with MRML classes in their signature are not in PySide6's classes: they are connected by name below.
        tree.remove(connections)
    buffer = QBuffer()
    buffer.setData(QByteArray(ElementTree.tostring(tree, encoding="utf-8")))
    buffer.open(QIODevice.OpenModeFlag.ReadOnly)
    loader = _loader()
    loader.setWorkingDirectory(QDir(str(path.parent)))
    widget = loader.load(buffer)
    if widget is None:
        raise RuntimeError(f"Could not load UI file: {path} ({loader.errorString()})")
    widget.__dict__["_host_loader"] = loader
    for entry in connections if connections is not None else ():
        _connect(widget, *[entry.findtext(k) for k in ("sender", "signal", "receiver", "slot")], path)
    return widget


def _connect(root, sender: str, signal: str, receiver: str, slot: str, path: Path) -> None:
    def find(name):
        found = root if root.objectName() == name else root.findChild(QObject, name)
        if found is None:
            raise UiError(f"{path.name}: there is no {name} to connect")
        return found

    source, target = find(sender), find(receiver)
    names = names_for(type(source))
    name, types = parse_signal(names, signal)
    if names_of_slot := slot.split("(")[0]:
        connect_signal(source, names, name, slot_of(wrap(target), names_of_slot), types)
