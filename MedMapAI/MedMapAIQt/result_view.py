"""The part of the panel that shows what a run found: segments with volumes, or classes with probabilities.

Findings are shown by ``finding_review``, images by ``image_comparison``.
"""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from .results_table import fillClassesTable, fillResultsTable


class ResultView:
    """Shows RunReports in the section Results. ui: the panel's widgets."""

    def __init__(self, ui: Any):
        self._ui = ui
        for table in (ui.resultsTable, ui.classesTable):
            table.horizontalHeader().setSectionResizeMode(0, 1)  # QHeaderView.Stretch

    def showTask(self, task: str) -> None:
        """Show the widgets that belong to a task: of the options, the output and the results."""
        segments, images = task in ("segmentation", ""), task == "reconstruction"
        for name, visible in {
            "saliencySelector": task == "classification",
            "tableSelector": task in ("classification", "detection"),
            "referenceSelector": segments,
            "outputSelector": segments,
            "referenceVolumeSelector": images,
            "volumeSelector": images,
        }.items():
            getattr(self._ui, name).visible = visible
            getattr(self._ui, f"{name}Label").visible = visible

    def show(self, report: Any) -> None:
        """Show a RunReport, or nothing for None."""
        ui = self._ui
        classification = report.classification if report is not None else None
        segmented = report is not None and report.segmentation is not None
        segments = report.rows if segmented else ()
        fillResultsTable(ui.resultsTable, segments, scored=bool(segments) and report.scores is not None)
        fillClassesTable(ui.classesTable, report.rows if classification is not None else ())
        scored = report is not None and report.reconstruction is not None and bool(report.rows)
        ui.show3DButton.enabled = bool(segments)
        ui.tableButton.enabled = bool(segments) or scored
        for widget in (ui.resultsTable, ui.show3DButton):
            widget.visible = report is None or segmented
        ui.tableButton.visible = report is None or segmented or scored
        ui.classesTable.visible = classification is not None
        self._say(ui.callLabel, self._call(classification) if classification is not None else "")
        self._say(ui.familiarityLabel, report.warning if report is not None else "")
        self._say(ui.notesLabel, "\n".join(report.notes) if report is not None else "")

    def showSaliency(self, saliency: Any, shown: bool) -> None:
        """Say which saliency map there is (Saliency or None); shown: it lies over the image, and can be faded."""
        ui = self._ui
        for widget in (ui.opacityLabel, ui.opacitySlider):
            widget.visible = shown
        if shown and saliency is not None:
            ui.opacityLabel.text = _("Saliency map ({method}, for {name}):").format(
                method=saliency.method, name=saliency.of_class
            )

    @staticmethod
    def _call(classification: Any) -> str:
        if not classification.called:
            return classification.sentence
        return _("Called: {what}").format(what=classification.sentence)

    @staticmethod
    def _say(label: Any, text: str) -> None:
        label.text = text
        label.visible = bool(text)
