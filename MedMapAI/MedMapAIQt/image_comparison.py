"""The part of a panel in which a person compares an image with the one that it was made of, and sees its scores."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .comparison_views import SideBySide

#: Columns of the table: name, and parts of a ScoreRow.
_PARTS = ("before", "value", "region_before", "region")
#: Height of a row, as the .ui file says.
_ROW_HEIGHT = 24


class ImageComparison:
    """A slider from before to after, both side by side, and scores against a reference.

    container: a widget with a layout, hidden while there is nothing to compare. uiFile: ImageComparison.ui.
    """

    def __init__(self, container: Any, uiFile: str):
        self._container = container
        widget = slicer.util.loadUI(uiFile)
        container.layout().addWidget(widget)
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        self.sideBySide = SideBySide()
        self._before = self._after = None
        ui.scoresTable.horizontalHeader().setSectionResizeMode(1)  # QHeaderView.Stretch
        ui.fadeSlider.valueChanged.connect(self.onFade)
        ui.sideBySideButton.toggled.connect(self.onSideBySide)
        container.visible = False

    def show(self, before: Any, after: Any, report: Any, names: tuple[str, str] | None = None) -> None:
        """Show a volume node and what was made of it (before: None where there is nothing to compare with) in the
        views, and the scores of a RunReport. names: of the ends of the slider, by default before and after."""
        from MedMapAILib import mrml

        self.forget()
        ui = self.ui
        self._before, self._after = before, after
        ui.beforeLabel.text, ui.afterLabel.text = names or (_("Before"), _("After"))
        for each in (ui.beforeLabel, ui.fadeSlider, ui.afterLabel, ui.sideBySideButton):
            each.visible = before is not None
        self._showScores(report)
        self._container.visible = before is not None or bool(report.rows)
        mrml.show_compared(before, after, ui.fadeSlider.value / 100)

    def forget(self) -> None:
        """Show nothing, with the views as they were: the scene is closed, the panel ends, or another result comes."""
        self.ui.sideBySideButton.checked = False
        self.sideBySide.end()
        self._before = self._after = None
        self._container.visible = False

    @property
    def there(self) -> bool:
        """Whether both images are still in the scene."""
        return all(node is not None and node.GetScene() is not None for node in (self._before, self._after))

    def refresh(self) -> None:
        """Show nothing any more where one of the images was removed."""
        if any(node is not None and node.GetScene() is None for node in (self._before, self._after)):
            self.forget()

    def onFade(self, value: int = 0) -> None:
        from MedMapAILib import mrml

        if self.there and not self.sideBySide.shown:
            mrml.fade_compared(self._after, value / 100)

    def onSideBySide(self, checked: bool = False) -> None:
        from MedMapAILib import mrml

        if checked and self.there:
            self.sideBySide.show(self._before, self._after)
        elif self.sideBySide.shown:
            self.sideBySide.end()
            if self.there:
                mrml.show_compared(self._before, self._after, self.ui.fadeSlider.value / 100)
        self.ui.fadeSlider.enabled = not self.sideBySide.shown

    def _showScores(self, report: Any) -> None:
        ui, rows = self.ui, report.rows
        table, window = ui.scoresTable, report.reconstruction.window
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            values = [_text(getattr(row, part), row) for part in _PARTS]
            for column, text in enumerate([f"{row.name} ({row.unit})" if row.unit else row.name, *values]):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(text)
                item.setTextAlignment((qt.Qt.AlignRight if column else qt.Qt.AlignLeft) | qt.Qt.AlignVCenter)
                table.setItem(number, column, item)
        alone = all(row.before is None for row in rows)
        table.horizontalHeaderItem(_PARTS.index("value") + 1).setText(_("Value") if alone else _("After"))
        for column, part in enumerate(_PARTS, start=1):
            table.setColumnHidden(column, all(getattr(row, part) is None for row in rows))
        table.minimumHeight = table.maximumHeight = _ROW_HEIGHT * (len(rows) + 1) + 8
        table.visible = ui.scoresLabel.visible = bool(rows)
        if window is not None:
            ui.scoresLabel.text = _("Against the reference, over the window {low:g} to {high:g} {unit}:").format(
                low=window[0], high=window[1], unit=report.reconstruction.unit
            )
        else:
            ui.scoresLabel.text = _("Against the reference, over its own range of values:")


def _text(value: float | None, row: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if row.unit else f"{value:.4f}"
