"""A table in which a person chooses training cases: nodes of the scene, and perhaps a text, in each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _


@dataclass(frozen=True)
class Column:
    """One column. kinds: node classes to choose from; none for a text. none: what is shown where nothing is chosen, or
    written."""

    tip: str
    none: str
    kinds: tuple[str, ...] = ()


class CaseTable:
    """Rows of cases in a QTableWidget. changed: called after a person has changed one."""

    def __init__(self, table: Any, columns: Sequence[Column], changed: Callable[[], None]):
        self._table, self._columns, self._changed = table, columns, changed
        table.horizontalHeader().setSectionResizeMode(1)  # QHeaderView.Stretch

    @property
    def cases(self) -> list[tuple]:
        """What the rows hold: nodes, None where none is chosen, and texts."""
        return [
            tuple(self._value(row, column) for column in range(len(self._columns)))
            for row in range(self._table.rowCount)
        ]

    def show(self, cases: Sequence[tuple]) -> None:
        """Show these cases instead of those that are there; ``changed`` is not called."""
        self._table.setRowCount(0)
        for case in cases:
            self.add(case)

    def add(self, case: Sequence[Any]) -> None:
        """Add a row; ``changed`` is not called."""
        row = self._table.rowCount
        self._table.setRowCount(row + 1)
        for number, (column, value) in enumerate(zip(self._columns, case, strict=True)):
            widget = self._selector(column, value) if column.kinds else self._edit(column, value)
            self._table.setCellWidget(row, number, widget)
        self._table.resizeRowsToContents()

    def removeCurrent(self) -> bool:
        """Remove the selected row, or the last one. Returns whether there was one; ``changed`` is not called."""
        row = self._table.currentRow()
        if row < 0:
            row = self._table.rowCount - 1
        if row >= 0:
            self._table.removeRow(row)
        return row >= 0

    def _selector(self, column: Column, node: Any) -> Any:
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = list(column.kinds)
        selector.showChildNodeTypes = False
        selector.addEnabled = False
        selector.removeEnabled = False
        selector.noneEnabled = True
        selector.noneDisplay = column.none
        selector.toolTip = column.tip
        selector.setMRMLScene(slicer.mrmlScene)
        selector.setCurrentNode(node)
        selector.currentNodeChanged.connect(self._onChanged)
        return selector

    def _edit(self, column: Column, text: str) -> Any:
        edit = qt.QLineEdit()
        edit.placeholderText = column.none
        edit.toolTip = column.tip
        edit.text = text
        edit.textChanged.connect(self._onChanged)
        return edit

    def _value(self, row: int, column: int) -> Any:
        widget = self._table.cellWidget(row, column)
        return widget.currentNode() if self._columns[column].kinds else widget.text

    def _onChanged(self, *_ignored: Any) -> None:
        self._changed()


VOLUMES = ("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")


def pair_columns() -> list[Column]:
    """Columns for cases of a segmentation."""
    return [
        Column(_("Scan of the case"), _("Select…"), ("vtkMRMLScalarVolumeNode",)),
        Column(
            _("What the model shall learn to find in it"), _("Select…"),
            ("vtkMRMLSegmentationNode", "vtkMRMLLabelMapVolumeNode"),
        ),
    ]  # fmt: skip


def sample_columns() -> list[Column]:
    """Columns for cases of a classification or a detection."""
    return [
        Column(_("Scan or picture"), _("Select…"), VOLUMES),
        Column(
            _("Box round what is to be classified or found; for a detection also a segmentation of it"),
            _("Whole volume"),
            ("vtkMRMLMarkupsROINode", "vtkMRMLSegmentationNode"),
        ),
        Column(_("Name of the class that it belongs to"), _("class")),
    ]


def image_columns() -> list[Column]:
    """Columns for cases of a reconstruction."""
    return [
        Column(_("Image to learn from"), _("Select…"), ("vtkMRMLScalarVolumeNode",)),
        Column(_("Image of the same voxels that it should become"), _("None"), ("vtkMRMLScalarVolumeNode",)),
    ]


def class_of_name(name: str) -> str:
    """The class that an ROI's name stands for: the name without the number at its end, such as nodule for nodule_3."""
    return name.rstrip("0123456789").rstrip(" _-") or name
