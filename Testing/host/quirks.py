"""Where Qt 5.15 through PythonQt and Qt 6 through PySide6 differ in more than the look of a name."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PySide6 import QtCore

from .proxy import accepted, guarded, method_overrides, property_overrides, static_overrides

_settings_file: list[Path] = []


def use_settings_file(path: Path) -> None:
    """Keep QSettings() in a file of the test's own: the user's settings are neither read nor written."""
    _settings_file[:] = [path]


def settings_file() -> Path:
    if not _settings_file:
        _settings_file.append(Path(tempfile.mkdtemp(prefix="slicer-host-")) / "Slicer.ini")
    return _settings_file[0]


def _new_settings(*arguments):
    if arguments:
        return QtCore.QSettings(*arguments)
    return QtCore.QSettings(str(settings_file()), QtCore.QSettings.Format.IniFormat)


def _single_shot(milliseconds, function, *rest):
    if rest:
        raise NotImplementedError("QTimer.singleShot(msec, receiver, slot): pass a callable")
    slot = guarded(function)
    QtCore.QTimer.singleShot(int(milliseconds), lambda: slot(*()[: accepted(function, 0)]))


def _process_error(process):
    return process.error()


def _layout_margin(layout) -> int:
    # Qt 5 still has the one margin for all four sides.
    return layout.contentsMargins().left()


def _set_layout_margin(layout, value: int) -> None:
    layout.setContentsMargins(value, value, value, value)


def _byte_array_data(array) -> bytes:
    return bytes(array.data())


def _environment_keys(environment):
    return list(environment.keys())


def _alignment(flags: int) -> QtCore.Qt.AlignmentFlag:
    return QtCore.Qt.AlignmentFlag(flags)


static_overrides["QSettings"] = {"__new__": _new_settings}
static_overrides["QTimer"] = {"singleShot": _single_shot}
method_overrides["QTimer"] = {
    "singleShot": lambda _timer, *a: _single_shot(*a),
    "isSingleShot": lambda timer: timer.isSingleShot(),
}
method_overrides["QProcess"] = {"error": _process_error}
method_overrides["QByteArray"] = {"data": _byte_array_data}
method_overrides["QProcessEnvironment"] = {"keys": _environment_keys}
for _item in ("QTableWidgetItem", "QListWidgetItem", "QStandardItem"):
    # PySide6 takes the integer as well, and warns.
    method_overrides[_item] = {"setTextAlignment": lambda item, flags: item.setTextAlignment(_alignment(flags))}
property_overrides["QLayout"] = {"margin": (_layout_margin, _set_layout_margin)}
