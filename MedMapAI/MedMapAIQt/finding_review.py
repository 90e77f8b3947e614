"""The part of the panel in which a reader goes through findings: looks, accepts, rejects, corrects, adds, exports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .error_dialog import ShowErrors
from .finding_export import export_formats, export_reviewed, save_findings
from .finding_table import fillFindingsTable
from .finding_views import jump_to, middle_of_axial_view, show_findings

#: Milliseconds in which changes of boxes are gathered, as when one is dragged.
_GATHER_MS = 60


class FindingReview(VTKObservationMixin):
    """Shows a folder of findings (``MedMapAILib.mrml.nodes_from_detections``) below a widget of the panel.

    container: a widget with a layout, hidden while there are no findings. uiFile: FindingReview.ui. say: called with
    the outcome of something, one sentence.
    """

    def __init__(self, container: Any, uiFile: str, say: Callable[[str], None]):
        VTKObservationMixin.__init__(self)
        self._container, self._say = container, say
        widget = slicer.util.loadUI(uiFile)
        container.layout().addWidget(widget)
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        self.folder = 0
        self._found: list[tuple[Any, Any]] = []
        self._chosen = None
        self._watched: list[str] | None = None
        self._updating = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_GATHER_MS)
        self._timer.timeout.connect(self.refresh)
        ui.findingsTable.horizontalHeader().setSectionResizeMode(3)  # QHeaderView.ResizeToContents
        ui.findingsTable.horizontalHeader().setSectionResizeMode(1, 1)  # the class: QHeaderView.Stretch
        ui.findingsTable.currentCellChanged.connect(self.onCell)
        ui.findingsTable.cellClicked.connect(self.onCell)
        ui.thresholdSlider.valueChanged.connect(self.onThreshold)
        ui.acceptButton.clicked.connect(self.onAccept)
        ui.rejectButton.clicked.connect(self.onReject)
        ui.correctButton.clicked.connect(self.onCorrect)
        ui.resetButton.clicked.connect(self.onReset)
        ui.addButton.clicked.connect(self.onAdd)
        ui.classSelector.activated.connect(self.onClass)
        self._menu = qt.QMenu(ui.exportButton)
        for kind, text in export_formats():
            action = qt.QAction(text, self._menu)
            action.triggered.connect(lambda checked=False, kind=kind: self.onExport(kind))
            self._menu.addAction(action)
        ui.exportButton.setMenu(self._menu)
        ui.trainingButton.clicked.connect(self.onTraining)
        container.visible = False

    # -- what is shown ----------------------------------------------------------------------------------------------

    def show(self, folder: int) -> None:
        """Show the findings of a folder, or nothing for 0."""
        if folder != self.folder:
            self.forget()
            self.folder = folder
        if folder:
            self.refresh()

    def forget(self) -> None:
        """Show nothing, and watch nothing: the scene is closed, or the panel ends."""
        self._timer.stop()
        self.removeObservers()
        self.folder, self._found, self._chosen, self._watched = 0, [], None, None
        self._updating = True
        self.ui.findingsTable.setRowCount(0)
        self._updating = False
        self._container.visible = False

    def refresh(self) -> None:
        """Read anew what was done to the boxes, and show it."""
        from MedMapAILib import mrml
        from MedMapAILib.errors import InputError

        if not self.folder or slicer.mrmlScene.IsBatchProcessing():
            return
        if mrml.findings_table(self.folder) is None:
            self.forget()
            return
        self._updating = True
        try:
            self._found = mrml.update_findings(self.folder)
        except InputError as error:
            self._say(str(error))
            return
        finally:
            self._updating = False
        self._watch()
        self._show()

    def _watch(self) -> None:
        """Observe the boxes that are there now, and what is drawn, dragged into the folder or deleted."""
        nodes = [node for node, _finding in self._found]
        if [node.GetID() for node in nodes] == self._watched:
            return
        self.removeObservers()
        self._watched = [node.GetID() for node in nodes]
        for node in nodes:
            for event in (slicer.vtkMRMLMarkupsNode.PointModifiedEvent, vtk.vtkCommand.ModifiedEvent):
                self.addObserver(node, event, self._onChanged)
        self.addObserver(slicer.mrmlScene, slicer.vtkMRMLScene.NodeRemovedEvent, self._onChanged)
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        self.addObserver(tree, tree.SubjectHierarchyItemReparentedEvent, self._onChanged)

    def _onChanged(self, caller: Any = None, event: Any = None) -> None:
        if not self._updating and not self._timer.isActive():
            self._timer.start()

    def _show(self) -> None:
        from MedMapAILib import mrml

        ui, threshold = self.ui, mrml.findings_threshold(self.folder)
        rows = [
            (mrml.rank_of(node), finding, finding.state != "found" or (finding.score or 0.0) >= threshold)
            for node, finding in self._found
        ]
        self._updating = True
        try:
            fillFindingsTable(ui.findingsTable, rows, mrml.score_color)
            ui.thresholdSlider.value = threshold
            ui.countLabel.text = self._count(rows)
            self._select(next((n for n, (node, _f) in enumerate(self._found) if node.GetID() == self._chosen), -1))
        finally:
            self._updating = False
        self._container.visible = True
        self._updateButtons()

    @staticmethod
    def _count(rows: list[tuple]) -> str:
        findings = [finding for _rank, finding, shown in rows if shown and finding.state != "rejected"]
        if not rows:
            return _("Nothing was found.")
        said = sum(finding.state != "found" for _rank, finding, _shown in rows)
        text = _("{shown} of {all} candidates shown; you looked at {said}.")
        return text.format(shown=len(findings), all=len(rows), said=said)

    # -- choosing ---------------------------------------------------------------------------------------------------

    @property
    def chosen(self) -> tuple[Any, Any] | None:
        """(ROI node, finding) of the chosen row, or None."""
        return next(((node, finding) for node, finding in self._found if node.GetID() == self._chosen), None)

    def onCell(self, row: int = -1, column: int = -1, *_before: int) -> None:
        if self._updating or not 0 <= row < len(self._found):
            return
        self.choose(self._found[row][0])

    def choose(self, node: Any) -> None:
        """Choose the finding of an ROI node, and move all views to it."""
        from MedMapAILib import mrml

        before = self.chosen
        if before is not None and before[0] != node:
            mrml.emphasize(before[0], False)
            mrml.let_edit(before[0], False)
        self._chosen = node.GetID()
        mrml.emphasize(node, True)
        show_findings(mrml.findings_volume(self.folder))
        jump_to(mrml.roi_bounds(node)[0])
        self._show()

    def _select(self, row: int) -> None:
        table = self.ui.findingsTable
        if row < 0:
            table.clearSelection()
        elif table.currentRow() != row or not table.selectedItems():
            table.setCurrentCell(row, max(table.currentColumn(), 0))

    def _updateButtons(self) -> None:
        from MedMapAILib import mrml

        ui, chosen = self.ui, self.chosen
        state = chosen[1].state if chosen is not None else ""
        ui.acceptButton.enabled = state in ("found", "accepted", "rejected")
        ui.rejectButton.enabled = ui.correctButton.enabled = bool(state)
        ui.resetButton.enabled = state in ("accepted", "rejected", "corrected")
        ui.acceptButton.checked = state == "accepted"
        ui.rejectButton.checked = state == "rejected"
        ui.correctButton.checked = chosen is not None and not chosen[0].GetLocked()
        classes = mrml.findings_from_nodes(self.folder).classes
        for widget in (ui.classLabel, ui.classSelector):
            widget.visible = len(classes) > 1
            widget.enabled = chosen is not None
        if [ui.classSelector.itemText(n) for n in range(ui.classSelector.count)] != list(classes):
            ui.classSelector.clear()
            ui.classSelector.addItems(list(classes))
        if chosen is not None:
            ui.classSelector.setCurrentIndex(ui.classSelector.findText(chosen[1].label))

    # -- what a reader does -----------------------------------------------------------------------------------------

    def onThreshold(self, value: float) -> None:
        from MedMapAILib import mrml

        if not self._updating and self.folder:
            mrml.set_findings_threshold(self.folder, value)
            self.refresh()

    def onAccept(self, checked: bool = False) -> None:
        self._say_of_chosen("found" if self.chosen[1].state == "accepted" else "accepted")

    def onReject(self, checked: bool = False) -> None:
        from MedMapAILib import mrml

        node, finding = self.chosen
        if finding.state == "added":
            self._chosen = None
            mrml.remove_finding(self.folder, node)
            self.refresh()
        else:
            self._say_of_chosen("found" if finding.state == "rejected" else "rejected")

    def _say_of_chosen(self, state: str) -> None:
        from MedMapAILib import mrml

        mrml.mark_finding(self.chosen[0], state=state)
        self.refresh()

    def onCorrect(self, checked: bool = False) -> None:
        from MedMapAILib import mrml

        node, finding = self.chosen
        edit = bool(node.GetLocked())
        if edit and finding.state == "rejected":
            mrml.mark_finding(node, state="found")  # what is corrected is there
        mrml.let_edit(node, edit)
        self.refresh()

    def onReset(self, checked: bool = False) -> None:
        from MedMapAILib import mrml

        mrml.reset_finding(self.chosen[0])
        mrml.let_edit(self.chosen[0], False)
        self.refresh()

    def onAdd(self, checked: bool = False) -> None:
        from MedMapAILib import mrml

        label = self.ui.classSelector.currentText if self.ui.classSelector.count > 1 else None
        node = mrml.add_finding(self.folder, middle_of_axial_view(), label)
        self.refresh()
        self.choose(node)

    def onClass(self, index: int = -1) -> None:
        from MedMapAILib import mrml

        if self.chosen is not None:
            mrml.mark_finding(self.chosen[0], label=self.ui.classSelector.currentText)
            self.refresh()

    # -- files ------------------------------------------------------------------------------------------------------

    def onExport(self, kind: str) -> None:
        path = qt.QFileDialog.getSaveFileName(self._container, _("Save findings"), f"findings{kind}", f"(*{kind})")
        path = path[0] if isinstance(path, (tuple, list)) else path
        if path:
            self.export(kind, path)

    def export(self, kind: str, path: str) -> None:
        """Write the findings to a file; kind: as in ``finding_export.export_formats``. A mistake is shown."""
        with ShowErrors(_("The findings were not saved.")):
            self._say(_("Findings are in {path}.").format(path=save_findings(self.folder, kind, path)))

    def onTraining(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getExistingDirectory(self._container, _("Choose where to make the data set"), "")
        if path:
            with ShowErrors(_("The data set was not made.")):
                self._say(export_reviewed(self.folder, path))
