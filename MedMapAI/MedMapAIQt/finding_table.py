"""The table of findings in the panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

#: Columns.
RANK, CLASS, SCORE, DIAMETER, VOLUME, STATE = range(6)
#: Pixels, as the .ui file says; and how many rows are shown without scrolling.
_ROW_HEIGHT, _LEAST_ROWS, _MOST_ROWS = 24, 3, 12


def state_names() -> dict[str, str]:
    """What a state of ``results.STATES`` is called in the panel."""
    return {
        "found": "",
        "accepted": _("✓ accepted"),
        "rejected": _("✗ rejected"),
        "corrected": _("✎ corrected"),
        "added": _("+ added"),
        "reference": _("reference"),
    }


def fillFindingsTable(table: Any, rows: Sequence[tuple[int, Any, bool]], color_of: Any) -> None:
    """Show findings in a QTableWidget. rows: (rank, Finding, whether it is shown). color_of: of a score, 0 to 1."""
    table.setRowCount(len(rows))
    names, count = state_names(), 0
    for number, (rank, finding, shown) in enumerate(rows):
        swatch = qt.QPixmap(12, 12)
        swatch.fill(qt.QColor(*(round(255 * part) for part in color_of(finding.score))))
        label = finding.label + (" " + _("(transplanted)") if finding.synthetic else "")
        texts = {
            RANK: str(rank),
            CLASS: label,
            SCORE: "" if finding.score is None else f"{finding.score:.2f}",
            DIAMETER: f"{finding.diameter_mm:.1f}",
            VOLUME: f"{finding.volume_ml:.3f}",
            STATE: names[finding.state],
        }
        for column, text in texts.items():
            item = table.item(number, column) or qt.QTableWidgetItem()
            item.setText(text)
            item.setToolTip(_("Put into the scan; not the patient's.") if finding.synthetic else text)
            if column in (SCORE, DIAMETER, VOLUME):
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            if column == RANK:
                item.setIcon(qt.QIcon(swatch))
            font = item.font()
            font.setStrikeOut(finding.state == "rejected")
            font.setBold(finding.state in ("accepted", "corrected", "added"))
            item.setFont(font)
            if table.item(number, column) is None:
                table.setItem(number, column, item)
        table.setRowHidden(number, not shown)
        count += shown
    # As high as its rows, up to a height at which it scrolls.
    height = _ROW_HEIGHT * (min(max(count, _LEAST_ROWS), _MOST_ROWS) + 1) + 8
    table.minimumHeight = table.maximumHeight = height
