"""The table of segments in the panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt

#: Columns of the table.
NAME, VOLUME, DICE = range(3)


def fillResultsTable(table: Any, rows: Sequence[Any], scored: bool) -> None:
    """Show rows of a RunReport in a QTableWidget: color and name, volume in mL, and Dice where it was scored."""
    table.setRowCount(len(rows))
    for number, row in enumerate(rows):
        swatch = qt.QPixmap(12, 12)
        swatch.fill(qt.QColor(*(round(255 * part) for part in row.color)))
        name = qt.QTableWidgetItem(row.name)
        name.setIcon(qt.QIcon(swatch))
        name.setToolTip(row.name)
        table.setItem(number, NAME, name)
        texts = {VOLUME: f"{row.volume_ml:.3f}", DICE: "–" if row.dice is None else f"{row.dice:.3f}"}
        for column, text in texts.items():
            item = qt.QTableWidgetItem(text)
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            table.setItem(number, column, item)
    table.setColumnHidden(DICE, not scored)
