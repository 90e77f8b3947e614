"""The report of a reading in a table of the panel."""

from __future__ import annotations

from typing import Any

import qt


def fillReportTable(table: Any, report: Any) -> None:
    """Show a ReportTable in a QTableWidget, numbers to three digits; nothing for None."""
    columns = [] if report is None else report.columns
    rows = () if report is None else report.rows
    # Columns without any value are left out.
    kept = [n for n in range(len(columns)) if any(row[n] not in (None, "") for row in rows)]
    table.setRowCount(len(rows))
    table.setColumnCount(len(kept))
    table.setHorizontalHeaderLabels([columns[n][0] for n in kept])
    for number, row in enumerate(rows):
        for column, n in enumerate(kept):
            text = "" if row[n] is None else f"{row[n]:.3g}" if isinstance(row[n], float) else str(row[n])
            item = qt.QTableWidgetItem(text)
            item.setToolTip(text)
            if columns[n][1] != "text":
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            table.setItem(number, column, item)
