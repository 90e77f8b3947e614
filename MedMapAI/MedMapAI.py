"""Slicer module "MedMapAI": apply a trained model to a volume."""

import dataclasses
import logging
from typing import Annotated, Union

import qt
import slicer
import vtk
from MedMapAIQt.error_dialog import show_error
from MedMapAIQt.finding_review import FindingReview
from MedMapAIQt.image_comparison import ImageComparison
from MedMapAIQt.measurement_run import MeasurementRun
from MedMapAIQt.measurement_section import MeasurementSection
from MedMapAIQt.module_logic import ModuleLogic
from MedMapAIQt.module_panel import ModulePanel
from MedMapAIQt.reading_panel import ReadingPanel
from MedMapAIQt.result_view import ResultView
from MedMapAIQt.saliency_view import fade_saliency, show_saliency
from MedMapAIQt.scene_run import SceneRun, saliency_node
from MedMapAIQt.self_test import ModuleTest
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
    vtkMRMLVectorVolumeNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, SingleStep, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

# MedMapAILib is imported where it is used: this file loads without torch, and a reload takes the changed library.

#: Test-time mirroring: as the model was made for, or none.
MIRRORING = ["as the model says", "off"]
#: How a classifier shows where it looked: the names in MedMapAILib.saliency, which needs torch to be read.
SALIENCY = ["grad-cam", "grad-cam++", "occlusion", "attention", "none"]


class MedMapAI(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedMapAI")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["MedMapAI developers"]
        parent.helpText = _(
            "Applies a trained model to an image: it gives segments and their volumes, classes, their probabilities "
            "and where the network looked, findings, each in a box that you can review, or a better image. Sinograms "
            "and k-space in files become volumes. Models are trained with the module MedMapAI Training, or added from "
            "a MONAI bundle that MedMapAI made.<br><b>Research use only; not a "
            "medical device.</b>"
        )
        parent.acknowledgementText = _("Built on 3D Slicer, PyTorch and MONAI.")


@parameterNodeWrapper
class MedMapAIParameterNode:
    inputVolume: Union[vtkMRMLScalarVolumeNode, vtkMRMLVectorVolumeNode, None]  # noqa: UP007
    modelName: str = ""
    roi: vtkMRMLMarkupsROINode
    reference: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode, None]  # noqa: UP007 - Slicer knows no X | Y
    referenceVolume: vtkMRMLScalarVolumeNode
    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    precision: Annotated[str, Choice(["auto", "fp32", "bf16"])] = "auto"
    mirroring: Annotated[str, Choice(MIRRORING)] = MIRRORING[0]
    saliency: Annotated[str, Choice(SALIENCY)] = SALIENCY[0]
    saliencyOpacity: Annotated[float, WithinRange(0.0, 1.0), SingleStep(0.05)] = 0.5
    outputSegmentation: vtkMRMLSegmentationNode
    outputTable: vtkMRMLTableNode
    outputVolume: vtkMRMLScalarVolumeNode
    measurementFile: str = ""
    geometryFile: str = ""
    measurementMethod: str = ""
    measurementOptions: str = ""
    measurementReference: vtkMRMLScalarVolumeNode
    measurementOutput: vtkMRMLScalarVolumeNode


class MedMapAIWidget(ModulePanel):
    def __init__(self, parent=None):
        self._models = {}
        self._modelsProblem = ""
        self._shownCard = None
        self._running = False
        self._estimate = ""
        ModulePanel.__init__(self, parent)

    def setup(self):
        self.logicClass = MedMapAILogic
        ModulePanel.setup(self)
        for selector in (
            self.ui.inputSelector,
            self.ui.roiSelector,
            self.ui.referenceSelector,
            self.ui.referenceVolumeSelector,
            self.ui.outputSelector,
            self.ui.volumeSelector,
            self.ui.tableSelector,
        ):
            selector.setMRMLScene(slicer.mrmlScene)
        self.resultView = ResultView(self.ui)
        self.findingReview = FindingReview(
            self.ui.findingsContainer, self.resourcePath("UI/FindingReview.ui"), lambda text: self.say(text, keep=True)
        )
        self.comparison = ImageComparison(self.ui.comparisonContainer, self.resourcePath("UI/ImageComparison.ui"))
        self.measurements = MeasurementSection(self)
        self.readingPanel = ReadingPanel(
            self.ui.readingSection, self.resourcePath("UI/ReadingPanel.ui"), lambda text: self.say(text, keep=True)
        )
        self.ui.modelSelector.currentIndexChanged.connect(self.onModelChanged)
        self.addModelMenu = qt.QMenu(self.ui.addModelButton)
        for text, slot in ((_("From a folder…"), self.onAddFolder), (_("From a zip…"), self.onAddZip)):
            action = qt.QAction(text, self.addModelMenu)
            action.triggered.connect(slot)
            self.addModelMenu.addAction(action)
        self.ui.addModelButton.setMenu(self.addModelMenu)
        self.ui.applyButton.clicked.connect(self.onApply)
        self.ui.cancelButton.clicked.connect(self.onCancel)
        self.ui.tableButton.clicked.connect(self.onTable)
        self.ui.fitRoiButton.clicked.connect(self.onFitRoi)

        self.refreshModels()
        self.initializeParameterNode()

    # -- life of the panel ------------------------------------------------------------------------------------------

    def enter(self):
        self.refreshModels()
        ModulePanel.enter(self)

    def cleanup(self):
        self.readingPanel.forget()
        self.findingReview.forget()
        self.comparison.forget()
        self.measurements.forget()
        ModulePanel.cleanup(self)

    def onSceneStartClose(self, caller, event):
        self.logic.cancelRun()
        self.readingPanel.forget()
        self.findingReview.forget()
        self.measurements.forget()
        ModulePanel.onSceneStartClose(self, caller, event)
        self.ui.show3DButton.setSegmentationNode(None)
        self._showReport(None)

    def initializeParameterNode(self):
        ModulePanel.initializeParameterNode(self)
        if not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")

    def setParameterNode(self, parameterNode):
        self.measurements.connect(parameterNode)
        ModulePanel.setParameterNode(self, parameterNode)

    # -- models -----------------------------------------------------------------------------------------------------

    def refreshModels(self):
        """List the models at hand again; the chosen one stays chosen."""
        models, self._modelsProblem = self.logic.models()
        self._models = {model.name: model for model in models}
        selector = self.ui.modelSelector
        wasBlocked = selector.blockSignals(True)
        selector.clear()
        for model in models:
            selector.addItem(model.title, model.name)
        selector.blockSignals(wasBlocked)
        self.onParametersModified()

    def imageModels(self):
        """The models (BundleInfo) that make images, of measurements or of images."""
        return [model for model in self._models.values() if model.images is not None]

    def onModelChanged(self, index=-1):
        if self._parameterNode:
            self._parameterNode.modelName = self.ui.modelSelector.currentData or ""

    def onAddFolder(self, checked=False):
        path = qt.QFileDialog.getExistingDirectory(self.parent, _("Choose the folder of a model"), "")
        if path:
            self.addModel(path)

    def onAddZip(self, checked=False):
        path = qt.QFileDialog.getOpenFileName(self.parent, _("Choose the zip of a model"), "", "Zip (*.zip)")
        path = path[0] if isinstance(path, (tuple, list)) else path
        if path:
            self.addModel(path)

    def addModel(self, path):
        """Add a model from a folder or zip and choose it; a mistake is shown in a dialog."""
        with self.showErrors(_("The model was not added.")):
            if self.ensureDependencies():
                name = self.logic.addModel(path).name
                self.refreshModels()
                if self._parameterNode:
                    self._parameterNode.modelName = name

    def onFitRoi(self, checked=False):
        if self._parameterNode and self._parameterNode.inputVolume:
            self._parameterNode.roi = self.logic.fitRoi(self._parameterNode.inputVolume, self._parameterNode.roi)

    # -- running ----------------------------------------------------------------------------------------------------

    def _task(self):
        """The task of the chosen model; "" where none is chosen."""
        model = self._models.get(self._parameterNode.modelName) if self._parameterNode else None
        return model.task if model is not None else ""

    def whyNot(self):
        """Why Apply cannot be pressed now, or an empty text."""
        parameters = self._parameterNode
        if not parameters or not parameters.inputVolume:
            return _("Choose an input volume.")
        if self._modelsProblem:
            return ""  # Apply installs what is missing
        if not self._models:
            return _("There is no model yet: add one, or train one in the module MedMapAI Training.")
        if parameters.modelName not in self._models:
            return _("Choose a model.")
        model = self._models[parameters.modelName]
        if model.task == "generation":
            return _("This model makes new images for trainings: use it with the command medmapai generate.")
        if model.task == "reconstruction":
            if model.images is not None and model.images.domain == "measurement":
                return _("This model makes images of measurements: use it in the section Reconstruct a measurement.")
            if parameters.outputVolume and parameters.outputVolume in (
                parameters.inputVolume,
                parameters.referenceVolume,
            ):
                return _("The output would replace the input or the reference: choose another output volume.")
        elif model.task == "classification":
            if parameters.saliency == "attention" and not self.logic.hasAttentionMap(model):
                return _("This model has no attention map: choose another saliency map.")
        elif (
            model.task == "segmentation"
            and parameters.reference
            and parameters.reference == parameters.outputSegmentation
        ):
            return _("The output would replace the reference: choose another output segmentation.")
        return ""

    def onParametersModified(self, caller=None, event=None):
        parameters = self._parameterNode
        if parameters and self._models and parameters.modelName not in self._models:
            # The first in the list, or the model that a scene was saved with is gone.
            parameters.modelName = next(iter(self._models))
            return
        model = self._models.get(parameters.modelName) if parameters else None
        if model is not None:
            index = self.ui.modelSelector.findData(model.name)
            if index != self.ui.modelSelector.currentIndex:
                self.ui.modelSelector.setCurrentIndex(index)
        card = model.card if model is not None else self._modelsProblem
        if card != self._shownCard:
            self._shownCard = card
            self.ui.modelCard.markdown = card
        self.resultView.showTask(model.task if model is not None else "segmentation")
        self._showSaliency()
        self._showFindings()
        self.comparison.refresh()
        self.measurements.update()
        if not self._running:
            reason = self.whyNot()
            self.ui.applyButton.enabled = not reason and not self.logic.running
            self.ui.applyButton.toolTip = reason or _("Run the model on the input volume.")
            self.sayWhyNot(reason)

    def onApply(self, checked=False, assumeHounsfield=False):
        if self._running or self._parameterNode is None or self.whyNot():
            return
        self._setRunning(True)
        with self.showErrors(_("The model was not run.")):
            refusal = self._start(assumeHounsfield)
            if not refusal:
                self.measurements.update()
                return
            self.say(refusal, keep=True)
        self._setRunning(False)

    def _start(self, assumeHounsfield=False):
        """Start the run. Returns why it did not come to that, or an empty text."""
        if not self.ensureDependencies():
            return _("Nothing was installed and nothing was run.")
        if self._modelsProblem:
            self.refreshModels()
        parameters = self._parameterNode
        if parameters is None or self.whyNot() or self._modelsProblem:
            return self.whyNot() or self._modelsProblem
        reference, output = {
            "segmentation": (parameters.reference, parameters.outputSegmentation),
            "reconstruction": (parameters.referenceVolume, parameters.outputVolume),
        }.get(self._task(), (None, parameters.outputTable))
        self.logic.startRun(
            parameters.inputVolume,
            parameters.modelName,
            roiNode=parameters.roi,
            referenceNode=reference,
            outputNode=output,
            device=parameters.device,
            precision=parameters.precision,
            mirror=None if parameters.mirroring == MIRRORING[0] else False,
            saliency=None if parameters.saliency == "none" else parameters.saliency,
            assumeHounsfield=assumeHounsfield,
            onEvent=self.onEvent,
            onFinished=self.onFinished,
            onFailure=self.onFailure,
        )
        return ""

    def onCancel(self, checked=False):
        self.ui.cancelButton.enabled = False
        self.say(_("Cancelling…"))
        self.logic.cancelRun()

    def onEvent(self, event):
        """What the worker says while it runs."""
        if event["event"] == "estimate":
            self._estimate = " ".join([event["sentence"], *event["notes"]])
            self.say(self._estimate)
        elif event["event"] == "progress":
            self.ui.progressBar.value = round(100 * event["fraction"])
            self.say("\n".join(filter(None, [self._estimate, event["message"]])))

    def onFinished(self, node):
        # The panel may have been left meanwhile; then it is connected to no parameter node.
        parameters = self._parameterNode or self.logic.getParameterNode()
        if self.logic.report.detections is not None:
            parameters.outputTable = node
        elif self.logic.report.classification is not None:
            parameters.outputTable = node
            if saliency_node(node) is not None:
                show_saliency(parameters.inputVolume, saliency_node(node), parameters.saliencyOpacity)
        elif self.logic.report.reconstruction is not None:
            parameters.outputVolume = node
            self.comparison.show(parameters.inputVolume, node, self.logic.report)
        else:
            parameters.outputSegmentation = node
            self.ui.show3DButton.setSegmentationNode(node)
        self._showReport(self.logic.report)
        self._setRunning(False)
        self.say(self.logic.report.sentence, keep=True)

    def onFailure(self, failure):
        self._setRunning(False)
        if failure.kind == "cancelled":
            self.say(failure.reason, keep=True)
        elif failure.kind == "hounsfield":
            if slicer.util.confirmYesNoDisplay(failure.reason + "\n\n" + _("Go on all the same?"), _("MedMapAI")):
                self.onApply(assumeHounsfield=True)
            else:
                self.say(_("The model was not run."), keep=True)
        else:
            show_error(_("The model was not run."), failure.reason, details=failure.tail)

    def _setRunning(self, running):
        self._running = running
        ui = self.ui
        for section in (ui.inputsSection, ui.optionsSection, ui.advancedSection, ui.outputSection, ui.applyButton):
            section.enabled = not running
        ui.cancelButton.enabled = running
        ui.progressBar.visible = running
        ui.progressBar.value = 0
        self._estimate = ""
        if running:
            self.say(_("Preparing…"))
        else:
            self.onParametersModified()

    # -- results ----------------------------------------------------------------------------------------------------

    def _showReport(self, report):
        self.resultView.show(report)
        if report is None or report.reconstruction is None:
            self.comparison.forget()
        self._showSaliency()
        self._showFindings()

    def _showFindings(self):
        """Show the findings of the chosen table, also those of a scene that was saved and loaded."""
        table = self._parameterNode.outputTable if self._parameterNode else None
        if table is None and not self.findingReview.folder:
            return
        from MedMapAILib import mrml

        self.findingReview.show(mrml.findings_folder(table) if self._task() in ("", "detection") else 0)

    def _showSaliency(self):
        """Let the saliency map of the result that is shown be faded; there is none any more when its node is gone."""
        report = self.logic.report if self.logic is not None else None
        shown = self.ui.classesTable.rowCount > 0 and report is not None and report.classification is not None
        node = saliency_node(self._parameterNode.outputTable) if shown and self._parameterNode else None
        if node is not None:
            fade_saliency(node, self._parameterNode.saliencyOpacity)
        self.resultView.showSaliency(report.classification.saliency if shown else None, node is not None)

    def onTable(self, checked=False):
        with self.showErrors(_("The table was not made.")):
            tableNode = self.logic.tableNode()
            self.say(_("The table {name} is in the scene.").format(name=tableNode.GetName()), keep=True)


class MedMapAILogic(ModuleLogic):
    """Runs models; needs neither panel nor main window.

    ``MedMapAILogic().run(volumeNode, "hippocampus")`` gives a segmentation node; a model that classifies or detects
    gives a table node, one that makes images a volume node. ``startRun`` does it in another process and returns at
    once; ``startReconstruction`` makes volume nodes of measurements.
    """

    parameterNodeClass = MedMapAIParameterNode

    def __init__(self):
        ModuleLogic.__init__(self)
        #: RunReport of the last run: volumes or probabilities, and scores when there was a reference.
        self.report = None
        self._predictors = {}
        self._run = None

    def models(self):
        """The models at hand (list of BundleInfo), and what is in the way of listing them (a text, or empty)."""
        try:
            from MedMapAILib.bundle import list_bundles

            problems = []
            models = list_bundles(problems)
        except ImportError as error:
            return [], _(
                "Models are listed once the Python packages that MedMapAI needs are there ({name} is missing). "
                "Press Apply to install them; you are asked first."
            ).format(name=error.name)
        for problem in problems:
            logging.warning(problem)
        return models, ""

    def addModel(self, path, replace=False):
        """Copy a model, a bundle folder or zip, to the user's models. Returns its BundleInfo; raises InputError."""
        from MedMapAILib.model_store import add_model

        return add_model(path, replace=replace)

    @staticmethod
    def hasAttentionMap(model):
        """Whether a classifier (BundleInfo) can show its own attention."""
        options = model.metadata["medmapai"]["network"].get("options", {})
        return options.get("attention") in ("cbam", "transformer")

    # -- in another process -----------------------------------------------------------------------------------------

    def startRun(
        self,
        volumeNode,
        modelName,
        roiNode=None,
        referenceNode=None,
        outputNode=None,
        device="auto",
        precision="auto",
        mirror=None,
        saliency=None,
        assumeHounsfield=False,
        onEvent=None,
        onFinished=None,
        onFailure=None,
    ):
        """Apply a model to a volume node in the worker process; returns when it has begun.

        Arguments as for ``run``. onEvent: called with what the worker says, dicts: "estimate" (windows, seconds,
        memory_gb, notes) and "progress" (fraction, message). At the end either onFinished is called with the
        segmentation or table node, and ``self.report`` says what was found; or onFailure with a Failure (kind, reason,
        tail), and the scene is as it was.
        Raises InputError, or RunError when a run is on already.
        """
        from MedMapAILib.errors import RunError
        from MedMapAILib.inference.messages import RunRequest

        if self.running:
            raise RunError(_("A model is running already; wait for it or cancel it."))
        run = SceneRun(volumeNode, modelName, roiNode, referenceNode, outputNode, saliency)
        run.onEvent, run.onFinished, run.onFailure = onEvent, onFinished, onFailure
        request = RunRequest(
            model=str(run.model.path),
            image=run.voxels,
            affine=run.affine,
            notes=run.notes,
            roi=run.roi,
            reference=run.reference,
            device=device,
            precision=precision,
            mirror=mirror,
            saliency=run.saliency,
            assume_hounsfield=assumeHounsfield,
        )
        # The worker has its own copy from here on.
        run.voxels = run.reference = None
        self._run = run
        try:
            self.worker.run(
                request, on_event=self._onRunEvent, on_result=self._onRunResult, on_failure=self._onRunFailure
            )
        except BaseException:
            self._run = None
            raise

    def startReconstruction(
        self,
        measurement,
        method,
        geometry=None,
        options=None,
        referenceNode=None,
        outputNode=None,
        device="auto",
        onEvent=None,
        onFinished=None,
        onFailure=None,
    ):
        """Make a volume node of a measurement in the worker process; returns when it has begun.

        measurement, geometry: paths of files. method: of MedMapAILib.measurements.methods, or a model made for
        measurements. options: of the method. referenceNode: volume node of the same voxels to score it against. The
        rest as for ``startRun``. Raises InputError, or RunError when a run is on already.
        """
        from MedMapAILib.errors import RunError

        if self.running:
            raise RunError(_("A model is running already; wait for it or cancel it."))
        run = MeasurementRun(measurement, method, geometry, options, referenceNode, outputNode)
        run.onEvent, run.onFinished, run.onFailure = onEvent, onFinished, onFailure
        request = dataclasses.replace(run.request, device=device)
        self._run = run
        try:
            self.worker.reconstruct(
                request, on_event=self._onRunEvent, on_result=self._onRunResult, on_failure=self._onRunFailure
            )
        except BaseException:
            self._run = None
            raise

    def cancelRun(self):
        """Stop the run, if there is one; the scene stays as it was."""
        if self._run is not None:
            self.worker.cancel()

    def shutDown(self):
        self._run = None
        ModuleLogic.shutDown(self)

    def _onRunEvent(self, event):
        run = self._run
        if run is None:
            return
        if run.volumeIsGone():
            self.worker.cancel()
        elif run.onEvent is not None:
            run.onEvent(event)

    def _onRunResult(self, report):
        from MedMapAILib.inference.failures import Failure, failure_of_exception

        run = self._run
        if run is None:
            return
        if run.volumeIsGone():
            self._onRunFailure(Failure("cancelled", ""))
            return
        try:
            node, result = run.place(report.result)
        except Exception as error:
            logging.exception("The result could not be put into the scene")
            self._onRunFailure(failure_of_exception(error))
            return
        self._run = None
        # The same report where nothing was added to it: what it has counted, it need not count again.
        if result is not report.result:
            report = dataclasses.replace(report, result=result)
        self.report = report
        if run.onFinished is not None:
            run.onFinished(node)

    def _onRunFailure(self, failure):
        run, self._run = self._run, None
        if run is None:
            return
        if failure.kind == "cancelled":
            reason = _("Cancelled; the scene is as it was.")
            if run.volumeIsGone():
                reason = _("The volume {name} was removed while the model ran; there is no result.").format(
                    name=run.volumeName
                )
            failure = dataclasses.replace(failure, reason=reason)
        if run.onFailure is not None:
            run.onFailure(failure)

    # -- in this process --------------------------------------------------------------------------------------------

    def run(
        self,
        volumeNode,
        modelName,
        roiNode=None,
        referenceNode=None,
        outputNode=None,
        device="auto",
        precision="auto",
        mirror=None,
        saliency=None,
        assumeHounsfield=False,
        progress=None,
        cancelled=None,
    ):
        """Apply a model to a volume node. Returns the segmentation node, the table node of a classification or of
        findings (``mrml.findings_folder`` has their ROI nodes), or the volume node of an image that was made;
        ``self.report`` says what was found.

        modelName: a name from ``models()``, or the path of a bundle. roiNode: run in this box only. referenceNode:
        label map or segmentation to score the result against, of findings the table node of others, of an image a
        volume node of the same voxels. outputNode:
        filled anew; without one a node is made. device: auto, cpu or cuda. precision: auto, fp32 or bf16. mirror: False
        for no test-time mirroring, None as the model says. saliency: method by which a classifier shows where it
        looked, or None; the map's node is ``MedMapAIQt.scene_run.saliency_node`` of the table node. assumeHounsfield:
        go on where the values of a CT do not look like Hounsfield units. progress: called with a fraction (0 to 1) and
        a message. cancelled: asked between windows.
        Raises InputError, RunError or Cancelled, with the scene as it was.
        """
        from MedMapAILib.errors import Cancelled
        from MedMapAILib.image import make_image
        from MedMapAILib.inference.report import RunReport
        from MedMapAILib.inference.scoring import score

        run = SceneRun(volumeNode, modelName, roiNode, referenceNode, outputNode, saliency)
        predictor = self._predictor(run.model.path, device, precision, mirror)
        image = make_image(
            run.voxels, run.affine, meta={"notes": list(run.notes), "assume_hounsfield": assumeHounsfield}
        )
        run.voxels = None

        def stop():
            # The user may close the scene while events are processed.
            return run.volumeIsGone() or (cancelled is not None and cancelled())

        options = {} if run.saliency is None else {"saliency": run.saliency}
        result = predictor.predict(image, roi=run.roi, progress=progress, cancelled=stop, **options)
        if stop():
            raise Cancelled
        scores = score(predictor.task, result, run.reference, image, run.roi)
        node, result = run.place(result)
        self.report = RunReport(run.model.name, result, predictor.device_description, predictor.seconds, scores)
        return node

    def _predictor(self, path, *options):
        """A loaded model; loading is paid for once. options: device, precision, mirror."""
        from MedMapAILib.bundle import load_bundle
        from MedMapAILib.graphics import keep_triton_out
        from MedMapAILib.inference.opening import open_predictor

        keep_triton_out()
        key = (str(path), path.stat().st_mtime, *options)
        if key not in self._predictors:
            device, precision, mirror = options
            # One model at a time stays in memory.
            self._predictors = {key: open_predictor(load_bundle(path), device, precision, mirror=mirror)}
        return self._predictors[key]

    # -- the scene --------------------------------------------------------------------------------------------------

    def fitRoi(self, volumeNode, roiNode=None):
        """Lay an ROI node round a volume, along the axes of the world; without one it is made. Returns it."""
        if roiNode is None:
            roiNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
            roiNode.CreateDefaultDisplayNodes()
        bounds = [0.0] * 6
        volumeNode.GetRASBounds(bounds)
        roiNode.SetCenterWorld([(bounds[n] + bounds[n + 1]) / 2 for n in (0, 2, 4)])
        roiNode.SetSizeWorld([bounds[n + 1] - bounds[n] for n in (0, 2, 4)])
        return roiNode

    def tableNode(self):
        """A table node with the volumes, and the scores, of the last run."""
        from MedMapAILib import mrml

        if self.report.reconstruction is not None:
            return mrml.node_from_scores(self.report.rows, name=f"{self.report.model} scores")
        node = mrml.node_from_volumes_table(self.report.segmentation, name=f"{self.report.model} volumes")
        if self.report.scores is not None:
            column = vtk.vtkDoubleArray()
            column.SetName("Dice")
            for row in self.report.rows:
                column.InsertNextValue(float("nan") if row.dice is None else row.dice)
            node.AddColumn(column)
        return node


class MedMapAITest(ModuleTest):
    """Runs in Slicer: Reload and Test of the developer section, or slicer_add_python_unittest by Testing/Python."""

    def test_panelSaysWhatIsMissing(self):
        widget = slicer.util.getModuleWidget("MedMapAI")
        widget.enter()
        self.assertFalse(widget.ui.applyButton.enabled)
        self.assertIn("volume", widget.ui.statusLabel.text)

    def test_run(self):
        import numpy as np

        logic = MedMapAILogic()
        models, problem = logic.models()
        models = [model for model in models if model.task == "segmentation"]
        if problem or not models:
            self.delayDisplay(problem or "No model at hand: nothing to run.")
            return
        k, j, i = np.meshgrid(*[np.linspace(-1, 1, n) for n in (32, 40, 36)], indexing="ij")
        array = (100 * np.exp(-(i**2 + j**2 + k**2) / 0.3) + 5 * np.sin(20 * i)).astype(np.float32)
        volumeNode = slicer.util.addVolumeFromArray(array, name="Test volume")
        segmentationNode = logic.run(volumeNode, models[0].name, device="cpu")
        names = [segment.name for segment in models[0].segments]
        segmentation = segmentationNode.GetSegmentation()
        self.assertEqual([segmentation.GetNthSegment(n).GetName() for n in range(len(names))], names)
        self.assertEqual([row.name for row in logic.report.rows], names)
