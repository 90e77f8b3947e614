"""The section of the panel in which a measurement in a file becomes a volume of the scene."""

from __future__ import annotations

import json
import os
from typing import Any

import ctk
import slicer
from slicer.i18n import tr as _

from .chart_view import ChartView
from .error_dialog import ShowErrors, show_error
from .image_comparison import ImageComparison
from .measurement_run import residual_chart
from .method_options import MethodOptions

#: Before the name of a model in the list of methods; before that of a method is the kind of measurement, "ct" or "mr".
_MODEL = "model"


class MeasurementSection:
    """Lives in the section ``measurementSection`` of the panel MedMapAI, and works with its logic.

    It has its own buttons and its own status line, since it needs nothing of what stands above it.
    """

    def __init__(self, panel: Any):
        self._panel, self._logic = panel, panel.logic
        container = panel.ui.measurementContainer
        widget = slicer.util.loadUI(panel.resourcePath("UI/MeasurementReconstruction.ui"))
        container.layout().addWidget(widget)
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        for selector in (ui.truthSelector, ui.imageSelector):
            selector.setMRMLScene(slicer.mrmlScene)
        ui.measurementPath.filters = ui.geometryPath.filters = ctk.ctkPathLineEdit.Files
        ui.measurementPath.nameFilters = [_("Measurements") + " (*.h5 *.hdf5 *.nrrd *.nhdr *.npy *.mrd)"]
        ui.geometryPath.nameFilters = [_("Geometries") + " (*.json)"]
        self.comparison = ImageComparison(ui.imageContainer, panel.resourcePath("UI/ImageComparison.ui"))
        self.options = MethodOptions(ui.optionsTable, self._onEdited)
        self.chart = ChartView(ui.residualContainer, ui.residualSelector, "MedMapAIResiduals")
        self._node = self._tag = None
        self._methods: dict[str, Any] = {}
        self._listed: list[str] = []
        self._images: set[str] = set()
        self._shown: tuple | None = None
        self._updating = self._running = self._kept = False
        for path in (ui.measurementPath, ui.geometryPath):
            path.currentPathChanged.connect(self._onEdited)
        ui.methodSelector.currentIndexChanged.connect(self._onMethod)
        ui.reconstructButton.clicked.connect(self.onReconstruct)
        ui.stopButton.clicked.connect(self.onStop)
        panel.ui.measurementSection.contentsCollapsed.connect(lambda collapsed: self.update())

    # -- life -------------------------------------------------------------------------------------------------------

    def connect(self, parameterNode: Any) -> None:
        """Work with a wrapped parameter node; None while there is none."""
        if self._node:
            self._node.disconnectGui(self._tag)
        self._node, self._shown = parameterNode, None
        if parameterNode:
            self._tag = parameterNode.connectGui(self.ui)

    def forget(self) -> None:
        """Show no result: the scene is closed, or the panel ends."""
        self._kept = False
        self.comparison.forget()
        self.chart.forget()
        self.ui.residualContainer.visible = False

    # -- what is chosen ---------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Bring all widgets up to date with the parameter node, the models at hand, and what is being done."""
        node, ui = self._node, self.ui
        if not node or self._updating or self._panel.ui.measurementSection.collapsed:
            return
        self._updating = True
        self.comparison.refresh()
        try:
            self._listMethods()
            for path, text in ((ui.measurementPath, node.measurementFile), (ui.geometryPath, node.geometryFile)):
                if path.currentPath != text:
                    path.currentPath = text
            if self._listed and node.measurementMethod not in self._listed:
                node.measurementMethod, node.measurementOptions = self._listed[0], ""
            index = ui.methodSelector.findData(node.measurementMethod)
            if index != ui.methodSelector.currentIndex:
                ui.methodSelector.setCurrentIndex(index)
            if self._shown != (node.measurementMethod, node.measurementOptions):
                self._shown = node.measurementMethod, node.measurementOptions
                self._showMethod()
        finally:
            self._updating = False
        self._updateButtons()

    def _listMethods(self) -> None:
        """Fill the list of methods and models, when it is first needed and when there are other models."""
        if not self._methods:
            from MedMapAILib.measurements.method_table import METHODS

            self._methods = dict(METHODS)
        kinds = {"ct": _("CT"), "mr": _("MR")}
        titles = {
            f"{kind}/{name}": f"{title}: {name}"
            for kind, title in kinds.items()
            for name, method in self._methods.items()
            if kind in method.kinds
        }
        models = {f"{_MODEL}/{info.name}": info for info in self._panel.imageModels()}
        titles |= {key: _("Model: {title}").format(title=info.title) for key, info in models.items()}
        self._images = {key for key, info in models.items() if info.images.domain == "image"}
        if list(titles) == self._listed:
            return
        self._listed = list(titles)
        selector = self.ui.methodSelector
        wasBlocked = selector.blockSignals(True)
        selector.clear()
        for name, title in titles.items():
            selector.addItem(title, name)
        selector.blockSignals(wasBlocked)

    def _showMethod(self) -> None:
        kind, _slash, name = self._node.measurementMethod.partition("/")
        method = self._methods.get(name) if kind != _MODEL else None
        values = json.loads(self._node.measurementOptions or "{}")
        self.options.show(method.options[kind] if method is not None else {}, values)
        hint = f"{method.sentence[:1].upper()}{method.sentence[1:]}." if method is not None else ""
        if self._node.measurementMethod in self._images:
            hint = _("The model takes images: it is given that of fbp, or of a k-space the zero-filled one.")
        self.ui.methodHint.text = hint
        self.ui.methodHint.visible = bool(self.ui.methodHint.text)

    def _onMethod(self, index: int = -1) -> None:
        name = self.ui.methodSelector.currentData or ""
        if self._node and not self._updating and name != self._node.measurementMethod:
            with slicer.util.NodeModify(self._node):
                self._node.measurementMethod, self._node.measurementOptions = name, ""

    def _onEdited(self, text: str = "") -> None:
        node, ui = self._node, self.ui
        if not node or self._updating:
            return
        values = self.options.values
        self._kept = False
        # What the table shows is what was written in it.
        self._shown = node.measurementMethod, json.dumps(values) if values else ""
        with slicer.util.NodeModify(node):
            node.measurementFile = ui.measurementPath.currentPath
            node.geometryFile = ui.geometryPath.currentPath
            node.measurementOptions = self._shown[1]

    def whyNot(self) -> str:
        """Why Reconstruct cannot be pressed now, or an empty text."""
        node = self._node
        if not node or not node.measurementFile:
            return _("Choose a measurement: a sinogram or k-space in a file.")
        for path in (node.measurementFile, node.geometryFile):
            if path and not os.path.isfile(path):
                return _("There is no file {path}; choose another.").format(path=path)
        if node.measurementReference and node.measurementReference == node.measurementOutput:
            return _("The output would replace the reference: choose another volume.")
        return ""

    def _updateButtons(self) -> None:
        ui, reason = self.ui, self.whyNot()
        ui.reconstructButton.enabled = not reason and not self._logic.running
        ui.reconstructButton.toolTip = reason or _("Make an image of the measurement.")
        if not self._running and (reason or not self._kept):
            self._say(reason)

    # -- running ----------------------------------------------------------------------------------------------------

    def onReconstruct(self, checked: bool = False) -> None:
        if self._logic.running or self.whyNot():
            return
        self._setRunning(True)
        with ShowErrors(_("The measurement was not reconstructed.")):
            refusal = self._start()
            if not refusal:
                self._panel.onParametersModified()  # what stands above has to wait
                return
            self._keep(refusal)
        self._setRunning(False)

    def _start(self) -> str:
        """Start it. Returns why it did not come to that, or an empty text."""
        if not self._panel.ensureDependencies():
            return _("Nothing was installed and nothing was reconstructed.")
        node = self._node
        self._logic.startReconstruction(
            node.measurementFile,
            node.measurementMethod.partition("/")[2],
            geometry=node.geometryFile or None,
            options=self.options.values,
            referenceNode=node.measurementReference,
            outputNode=node.measurementOutput,
            device=node.device,
            onEvent=self.onEvent,
            onFinished=self.onFinished,
            onFailure=self.onFailure,
        )
        return ""

    def onStop(self, checked: bool = False) -> None:
        self.ui.stopButton.enabled = False
        self._logic.cancelRun()

    def onEvent(self, event: dict[str, Any]) -> None:
        """What the worker says."""
        if event["event"] == "progress":
            self.ui.reconstructBar.value = round(100 * event["fraction"])
            self._say(event["message"])

    def onFinished(self, volumeNode: Any) -> None:
        """Show the volume, its residual curve and its scores."""
        parameters = self._node or self._logic.getParameterNode()
        parameters.measurementOutput = volumeNode
        report, truth = self._logic.report, parameters.measurementReference
        scored = truth if report.scores is not None else None
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
        name = truth.GetName() if scored is not None else ""
        self.comparison.show(scored, volumeNode, report, (name, volumeNode.GetName()))
        chart = residual_chart(volumeNode)
        self.ui.residualContainer.visible = chart is not None
        if chart is not None:
            self.chart.show([(_("Residual"), chart)], parameters.parameterNode)
        self._setRunning(False)
        self._keep("\n".join([report.sentence, *report.notes, _("Research use only; not a medical device.")]))

    def onFailure(self, failure: Any) -> None:
        self._setRunning(False)
        if failure.kind == "cancelled":
            self._keep(failure.reason)
        else:
            show_error(_("The measurement was not reconstructed."), failure.reason, details=failure.tail)

    def _setRunning(self, running: bool) -> None:
        ui = self.ui
        self._running = running
        if running:
            self._kept = False
        ui.measurementInputs.enabled = not running
        ui.stopButton.enabled = ui.reconstructBar.visible = running
        ui.reconstructBar.value = 0
        if running:
            self._say(_("Preparing…"))
            ui.reconstructButton.enabled = False
        # What stands above can be used again, or not.
        self._panel.onParametersModified()

    def _keep(self, text: str) -> None:
        """Say the outcome of something; it stays until something else is chosen."""
        self._kept = True
        self._say(text)

    def _say(self, text: str) -> None:
        self.ui.outcomeLabel.text = text
        self.ui.outcomeLabel.visible = bool(text)
