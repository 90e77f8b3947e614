"""The buttons that a reader scores with: for each criterion a line an image, 1 to 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt
from slicer.i18n import tr as _


class ScoreButtons:
    """Radio buttons in a widget of the panel. area: a widget with a layout. onScore: called with the number of the
    image on the screen (from 0), the criterion and the score."""

    def __init__(self, area: Any, onScore: Callable[[int, str, int], None]):
        self._area, self._onScore = area, onScore
        self._widget: Any = None
        self._groups: dict[tuple[int, str], Any] = {}

    def build(self, criteria: Mapping[str, tuple[str, str]], scale: tuple[int, ...], images: int) -> None:
        """Make the buttons for so many images on a screen. criteria: name → what the ends of the scale mean."""
        self.clear()
        self._widget = qt.QWidget()
        grid = qt.QGridLayout(self._widget)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(2)
        row = 0
        for criterion, (low, high) in criteria.items():
            ends = _("{lowest}: {low}; {highest}: {high}").format(
                lowest=scale[0], low=low, highest=scale[-1], high=high
            )
            title = qt.QLabel(f"<b>{criterion.capitalize()}</b>&nbsp; {ends}")
            title.setWordWrap(True)
            title.setToolTip(ends)
            grid.addWidget(title, row, 0, 1, len(scale) + 1)
            row += 1
            for image in range(images):
                name = _("Image {number}").format(number=image + 1)
                grid.addWidget(qt.QLabel(name if images > 1 else ""), row, 0)
                group = qt.QButtonGroup(self._widget)
                for column, value in enumerate(scale, 1):
                    button = qt.QRadioButton(str(value))
                    button.objectName = f"score_{image + 1}_{criterion}_{value}"
                    meaning = {scale[0]: low, scale[-1]: high}.get(value, ends)
                    button.setToolTip(f"{name}, {criterion} {value}: {meaning}" if meaning != ends else ends)
                    button.clicked.connect(lambda checked=False, i=image, c=criterion, v=value: self._onScore(i, c, v))
                    group.addButton(button, value)
                    grid.addWidget(button, row, column)
                self._groups[image, criterion] = group
                row += 1
        self._area.layout().addWidget(self._widget)

    def show(self, image: int, scores: Mapping[str, int]) -> None:
        """Check the buttons of an image as it was scored."""
        for (number, criterion), group in self._groups.items():
            if number != image:
                continue
            # One of an exclusive group cannot be unchecked.
            group.setExclusive(False)
            for button in group.buttons():
                button.checked = group.id(button) == scores.get(criterion)
            group.setExclusive(True)

    def button(self, image: int, criterion: str, value: int) -> Any:
        """The button of a score."""
        return self._groups[image, criterion].button(value)

    def clear(self) -> None:
        """Take the buttons away."""
        if self._widget is not None:
            self._area.layout().removeWidget(self._widget)
            self._widget.setParent(None)
            self._widget.deleteLater()
        self._widget, self._groups = None, {}
