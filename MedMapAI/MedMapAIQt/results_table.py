"""The tables of results in the panel: segments, or classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt

#: Columns of the table of segments.
NAME, VOLUME, DICE = range(3)
#: Columns of the table of classes.
CLASS, PROBABILITY, THRESHOLD, CALLED = range(4)
#: Of the table of classes: pixels, as the .ui file says, and how many are shown without scrolling.
_ROW_HEIGHT, _MOST_ROWS = 24, 14


def fillResultsTable(table: Any, rows: Sequence[Any], scored: bool) -> None:
    """Show rows of a RunReport in a QTableWidget: color and name, volume in mL, and Dice where it was scored."""
    table.setRowCount(len(rows))
    for number, row in enumerate(rows):
        swatch = qt.QPixmap(12, 12)
        swatch.fill(qt.QColor(*(round(255 * part) for part in row.color)))
        name = _item(row.name)
        name.setIcon(qt.QIcon(swatch))
        table.setItem(number, NAME, name)
        table.setItem(number, VOLUME, _number(f"{row.volume_ml:.3f}"))
        table.setItem(number, DICE, _number("–" if row.dice is None else f"{row.dice:.3f}"))
    table.setColumnHidden(DICE, not scored)


def fillClassesTable(table: Any, rows: Sequence[Any]) -> None:
    """Show class rows of a RunReport in a QTableWidget; the classes that are called stand out."""
    table.setRowCount(len(rows))
    for number, row in enumerate(rows):
        items = [
            _item(row.name),
            _number(f"{row.probability:.3f}"),
            _number("" if row.threshold is None else f"{row.threshold:.3f}"),
            _item("✓" if row.called else "", qt.Qt.AlignCenter),
        ]
        for column, item in enumerate(items):
            font = item.font()
            font.setBold(row.called)
            item.setFont(font)
            table.setItem(number, column, item)
    # As high as its rows, up to a height at which it scrolls.
    table.minimumHeight = table.maximumHeight = _ROW_HEIGHT * (min(len(rows), _MOST_ROWS) + 1) + 8
    # Without an operating point there is nothing in the column.
    table.setColumnHidden(THRESHOLD, all(row.threshold is None for row in rows))


def _item(text: str, alignment: int | None = None) -> Any:
    item = qt.QTableWidgetItem(text)
    item.setToolTip(text)
    if alignment is not None:
        item.setTextAlignment(alignment)
    return item


def _number(text: str) -> Any:
    item = qt.QTableWidgetItem(text)
    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
    return item
