"""What the real ``slicer.util`` of slicer-core cannot do without the desktop, or does in a way that would go over the
network.

Everything else in ``slicer.util`` is Slicer's own code and runs on the host's ``qt``, ``ctk`` and ``slicer.app``.
"""

from __future__ import annotations

import fnmatch

from .proxy import wrap
from .ui_loader import load_ui

# Packages asked for by pip_install and pip_ensure; nothing is downloaded. A test may set `installer` to act on a
# request.
installed: list = []
installer = None


def loadUI(path):
    """Load UI file ``path`` and return the corresponding widget."""
    return wrap(load_ui(path))


def findChildren(widget=None, name="", text="", title="", className=""):
    """Child objects of a widget (all generations) that fit all patterns given."""
    import slicer

    widget = widget or slicer.util.mainWindow()
    found, todo = [], [widget] if widget else []
    while todo:
        item = todo.pop()
        todo += item.children()
        values = (
            (name, item.objectName),
            (text, getattr(item, "text", None) if text else None),
            (title, getattr(item, "title", None) if title else None),
            (className, item.className()),
        )
        if all(not want or (isinstance(have, str) and fnmatch.fnmatchcase(have, want)) for want, have in values):
            found.append(item)
    return found


def findChild(widget, name, properties=None):
    """The first child object of that name. RuntimeError when there is none."""
    for child in findChildren(widget, name=name):
        if all(getattr(child, k, None) == v for k, v in (properties or {}).items()):
            return child
    raise RuntimeError(f"Widget named {name} does not exist.")


def childWidgetVariables(widget):
    """An object that has each named child as an attribute of that name."""
    found = type("", (), {})()
    for child in findChildren(widget):
        if child.objectName:
            setattr(found, child.objectName, child)
    return found


def pip_install(requirements, **kwargs):
    """Recorded in ``installed``; nothing is downloaded."""
    if not isinstance(requirements, (str, list)):
        raise ValueError("pip_install requirement input must be string or list")
    _check_arguments("slicer.packaging", "pip_install", kwargs)
    return _record("pip_install", requirements, kwargs)


def pip_uninstall(requirements, **kwargs):
    """Recorded in ``installed``; nothing is removed."""
    _check_arguments("slicer.packaging", "pip_uninstall", kwargs)
    return _record("pip_uninstall", requirements, kwargs)


def _record(what: str, requirements, kwargs):
    installed.append((what, requirements, kwargs))
    if installer is not None:
        return installer(what, requirements, kwargs)
    return None


def _check_arguments(module: str, name: str, kwargs) -> None:
    from .api import read_api

    signature = read_api()["python"][module][name]
    unknown = [k for k in kwargs if f"{k}:" not in signature and f"{k}=" not in signature]
    if unknown:
        raise TypeError(f"{module}.{name} takes no {', '.join(unknown)} in Slicer: {signature}")


def patch() -> None:
    """Put these functions into the real slicer.util."""
    import slicer.util

    for function in (loadUI, findChildren, findChild, childWidgetVariables, pip_install, pip_uninstall):
        setattr(slicer.util, function.__name__, function)
