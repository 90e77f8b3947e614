"""What a network in training can do at the moment: the newest picture that the training wrote."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

#: Pixels beside the picture in its section (a scroll bar may come); and those that a picture never is wider than.
_MARGIN, _WIDEST = 48, 640


class SampleView:
    """Shows a picture in a section that is hidden while there is none. label: for it; caption: for words (QLabels)."""

    def __init__(self, section: Any, label: Any, caption: Any):
        self._section, self._label, self._caption = section, label, caption
        section.visible = False

    def show(self, path: str, epoch: int, node: Any = None) -> None:
        """Show the picture of an epoch; one that cannot be read is left out. node: wrapped parameter node, which knows
        the task."""
        picture = qt.QPixmap(path)
        if picture.isNull():
            return
        self._section.visible = True
        width = max(100, min(self._section.width - _MARGIN, _WIDEST))
        self._label.setPixmap(picture.scaledToWidth(width, qt.Qt.SmoothTransformation))
        generates = node is not None and node.task == "generation"
        what = _("of each class real images, and below what it makes") if generates else _("input, result, truth")
        self._caption.text = _("After epoch {number}: {what}.").format(number=epoch, what=what)

    def forget(self) -> None:
        """Show nothing: another training begins."""
        self._label.clear()
        self._section.visible = False
