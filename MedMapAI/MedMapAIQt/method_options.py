"""The table in which a person sets the options of a method of reconstruction."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import qt

#: Height of a row, as the .ui file says; rows that are shown without scrolling.
_ROW_HEIGHT, _MOST_ROWS = 24, 8


class MethodOptions:
    """Names and values in a QTableWidget. changed: called after a person has changed a value."""

    def __init__(self, table: Any, changed: Callable[[], None]):
        self._table, self._changed = table, changed
        self._defaults: dict[str, Any] = {}
        self._updating = False
        table.horizontalHeader().setSectionResizeMode(1)  # QHeaderView.Stretch
        table.itemChanged.connect(self._onChanged)

    def show(self, options: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Show options (``measurements.options.Option``), with values in place of some defaults; ``changed`` is not
        called."""
        table = self._table
        self._updating = True
        self._defaults = {name: option.default for name, option in options.items()}
        table.setRowCount(len(options))
        for row, (name, option) in enumerate(options.items()):
            label = qt.QTableWidgetItem(name)
            label.setFlags(qt.Qt.ItemIsEnabled)
            value = qt.QTableWidgetItem(text_of(values.get(name, option.default)))
            for column, item in enumerate((label, value)):
                item.setToolTip(option.help)
                table.setItem(row, column, item)
        table.minimumHeight = table.maximumHeight = _ROW_HEIGHT * (min(len(options), _MOST_ROWS) + 1) + 8
        table.visible = bool(options)
        self._updating = False

    @property
    def values(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        found = {}
        for row, (name, default) in enumerate(self._defaults.items()):
            text = self._table.item(row, 1).text().strip()
            value = default if not text else value_of(text, default)
            if value != default:
                found[name] = value
        return found

    def _onChanged(self, item: Any = None) -> None:
        if not self._updating:
            self._changed()


def text_of(value: Any) -> str:
    """A value as a person writes it; nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def value_of(text: str, default: Any) -> Any:
    """What a person wrote: a number, a truth value, a list, or the text itself."""
    if isinstance(default, str):
        return text
    try:
        value = json.loads(text.replace("True", "true").replace("False", "false"))
    except ValueError:
        return text
    return float(value) if isinstance(default, float) and type(value) is int else value
