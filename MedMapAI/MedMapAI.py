"""Slicer module "MedMapAI": apply a trained model to a volume."""

import logging
import sys
from typing import Annotated, Union

import qt
import slicer
import vtk
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# MedMapAILib is imported where it is used: this file loads without torch, and a reload takes the changed library.


class MedMapAI(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedMapAI")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["MedMapAI developers"]
        parent.helpText = _(
            "Applies a trained model to a volume. Models are trained with the module MedMapAI Training, or added "
            "from a MONAI bundle that MedMapAI made.<br><b>Research use only; not a medical device.</b>"
        )
        parent.acknowledgementText = _("Built on 3D Slicer, PyTorch and MONAI.")


@parameterNodeWrapper
class MedMapAIParameterNode:
    inputVolume: vtkMRMLScalarVolumeNode
    modelName: str = ""
    roi: vtkMRMLMarkupsROINode
    reference: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode, None]  # noqa: UP007 - Slicer knows no X | Y
    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    outputSegmentation: vtkMRMLSegmentationNode


class MedMapAIWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._models = {}
        self._modelsProblem = ""
        self._running = False
        self._cancelRequested = False

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedMapAI.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        self.selectors = [
            self.ui.inputSelector, self.ui.roiSelector, self.ui.referenceSelector, self.ui.outputSelector,
        ]
        uiWidget.setMRMLScene(slicer.mrmlScene)
        for selector in self.selectors:
            selector.setMRMLScene(slicer.mrmlScene)
        self.ui.resultsTable.horizontalHeader().setSectionResizeMode(0, 1)  # QHeaderView.Stretch
        self.logic = MedMapAILogic()

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
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

    def cleanup(self):
        self._cancelRequested = True
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.refreshModels()
        self.initializeParameterNode()

    def exit(self):
        self.setParameterNode(None)

    def onReload(self):
        for name in [name for name in sys.modules if name.partition(".")[0] == "MedMapAILib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller, event):
        self._cancelRequested = True
        self.setParameterNode(None)
        self.ui.show3DButton.setSegmentationNode(None)
        self._showReport(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self.onParametersModified()

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
        with self.logic.showErrors(_("The model was not added.")):
            if self.logic.ensureDependencies():
                name = self.logic.addModel(path).name
                self.refreshModels()
                if self._parameterNode:
                    self._parameterNode.modelName = name

    def onFitRoi(self, checked=False):
        if self._parameterNode and self._parameterNode.inputVolume:
            self._parameterNode.roi = self.logic.fitRoi(self._parameterNode.inputVolume, self._parameterNode.roi)

    # -- running ----------------------------------------------------------------------------------------------------

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
        if parameters.reference and parameters.reference == parameters.outputSegmentation:
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
        if not self._running:
            reason = self.whyNot()
            self.ui.applyButton.enabled = not reason
            self.ui.applyButton.toolTip = reason or _("Run the model on the input volume.")
            self._say(reason)

    _shownCard = None

    def onApply(self, checked=False):
        parameters = self._parameterNode
        if self._running or parameters is None or self.whyNot():
            return
        self._setRunning(True)
        message = ""
        try:
            with self.logic.showErrors(_("The model was not run.")):
                message = self._apply(parameters)
        finally:
            self._setRunning(False)
        if message:
            self._say(message)

    def _apply(self, parameters):
        """Returns the message to show at the end."""
        from MedMapAILib.errors import Cancelled

        if not self.logic.ensureDependencies():
            return _("Nothing was installed and nothing was run.")
        if self._modelsProblem:
            self.refreshModels()
            if self.whyNot() or self._modelsProblem:
                return self.whyNot() or self._modelsProblem
        try:
            if self._cancelRequested:
                raise Cancelled
            outputNode = self.logic.run(
                parameters.inputVolume,
                parameters.modelName,
                roiNode=parameters.roi,
                referenceNode=parameters.reference,
                outputNode=parameters.outputSegmentation,
                device=parameters.device,
                progress=self._onProgress,
                cancelled=lambda: self._cancelRequested,
            )
        except Cancelled:
            return _("Cancelled; the scene is as it was.")
        if self._parameterNode is not None:
            self._parameterNode.outputSegmentation = outputNode
        self.ui.show3DButton.setSegmentationNode(outputNode)
        self._showReport(self.logic.report)
        return self.logic.report.sentence

    def onCancel(self, checked=False):
        self._cancelRequested = True
        self.ui.cancelButton.enabled = False
        self._say(_("Cancelling…"))

    def _onProgress(self, fraction, message):
        self.ui.progressBar.value = round(100 * fraction)
        if not self._cancelRequested:
            self._say(message)
        slicer.app.processEvents()

    def _setRunning(self, running):
        self._running = running
        self._cancelRequested = False
        for section in (self.ui.inputsSection, self.ui.optionsSection, self.ui.outputSection, self.ui.applyButton):
            section.enabled = not running
        self.ui.cancelButton.enabled = running
        self.ui.progressBar.visible = running
        self.ui.progressBar.value = 0
        if running:
            self._say(_("Preparing…"))
        else:
            self.onParametersModified()
        slicer.app.processEvents()

    def _say(self, message):
        self.ui.statusLabel.text = message
        self.ui.statusLabel.visible = bool(message)

    # -- results ----------------------------------------------------------------------------------------------------

    def _showReport(self, report):
        table = self.ui.resultsTable
        rows = report.rows if report is not None else ()
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            swatch = qt.QPixmap(12, 12)
            swatch.fill(qt.QColor(*(round(255 * part) for part in row.color)))
            name = qt.QTableWidgetItem(row.name)
            name.setIcon(qt.QIcon(swatch))
            name.setToolTip(row.name)
            table.setItem(number, 0, name)
            texts = [f"{row.volume_ml:.3f}", "–" if row.dice is None else f"{row.dice:.3f}"]
            for column, text in enumerate(texts, start=1):
                item = qt.QTableWidgetItem(text)
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                table.setItem(number, column, item)
        table.setColumnHidden(2, report is None or report.scores is None)
        self.ui.show3DButton.enabled = bool(rows)
        self.ui.tableButton.enabled = bool(rows)
        notes = report.notes if report is not None else ()
        self.ui.notesLabel.text = "\n".join(notes)
        self.ui.notesLabel.visible = bool(notes)

    def onTable(self, checked=False):
        with self.logic.showErrors(_("The table was not made.")):
            tableNode = self.logic.tableNode()
            self._say(_("The table {name} is in the scene.").format(name=tableNode.GetName()))


class MedMapAILogic(ScriptedLoadableModuleLogic):
    """Runs models; needs neither panel nor main window.

    ``MedMapAILogic().run(volumeNode, "hippocampus")`` gives a segmentation node.
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        from MedMapAILib.graphics import keep_triton_out

        keep_triton_out()
        #: RunReport of the last run: volumes, and scores when there was a reference.
        self.report = None
        self._predictors = {}

    def getParameterNode(self):
        node = super().getParameterNode()
        # Held until the next one: VTK lets Python collect the callbacks of a node that no Python object refers to, and
        # calls them all the same. The wrapper's callbacks stay on the node when the panel is gone or reloaded.
        slicer.modules.MedMapAIParameterNode = node
        return MedMapAIParameterNode(node)

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

    def run(self, volumeNode, modelName, roiNode=None, referenceNode=None, outputNode=None, device="auto",
            progress=None, cancelled=None):
        """Apply a model to a volume node. Returns the segmentation node; ``self.report`` has volumes and scores.

        modelName: a name from ``models()``, or the path of a bundle. roiNode: run in this box only. referenceNode:
        label map or segmentation to score the result against. outputNode: filled anew; without one a node is made.
        device: auto, cpu or cuda. progress: called with a fraction (0 to 1) and a message. cancelled: asked between
        windows.
        Raises InputError, RunError or Cancelled, with the scene as it was.
        """
        from MedMapAILib import mrml
        from MedMapAILib.errors import Cancelled, InputError
        from MedMapAILib.image import check_not_constant
        from MedMapAILib.inference.report import RunReport

        if referenceNode is not None and referenceNode == outputNode:
            raise InputError("The output would replace the reference; choose another output segmentation.")
        image = mrml.image_from_node(volumeNode)
        check_not_constant(image, f"The volume {volumeNode.GetName()}")
        roi = mrml.roi_bounds(roiNode) if roiNode is not None else None
        predictor = self._predictor(modelName, device)
        info = predictor.bundle.info
        reference = None
        if referenceNode is not None:
            reference = mrml.segmentation_from_node(referenceNode, volumeNode, info.segments)

        def stop():
            # The user may close the scene while events are processed.
            return volumeNode.GetScene() is None or (cancelled is not None and cancelled())

        segmentation = predictor.predict(image, roi=roi, progress=progress, cancelled=stop)
        if stop():
            raise Cancelled
        scores = predictor.task.evaluate(segmentation, reference) if reference is not None else None
        name = outputNode.GetName() if outputNode is not None else f"{volumeNode.GetName()} {info.name}"
        node = mrml.node_from_segmentation(segmentation, name=name, referenceVolumeNode=volumeNode, node=outputNode)
        self.report = RunReport(info.name, segmentation, predictor.device_description, predictor.seconds, scores)
        return node

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

    def _predictor(self, modelName, device):
        """A loaded model; loading is paid for once."""
        from MedMapAILib.bundle import find_bundle, load_bundle
        from MedMapAILib.inference.predictor import Predictor

        path = find_bundle(modelName)
        key = (str(path), path.stat().st_mtime, device)
        if key not in self._predictors:
            # One model at a time stays in memory.
            self._predictors = {key: Predictor(load_bundle(path), device)}
        return self._predictors[key]

    def tableNode(self):
        """A table node with the volumes, and the scores, of the last run."""
        from MedMapAILib import mrml

        node = mrml.node_from_volumes_table(self.report.segmentation, name=f"{self.report.model} volumes")
        if self.report.scores is not None:
            column = vtk.vtkDoubleArray()
            column.SetName("Dice")
            for row in self.report.rows:
                column.InsertNextValue(float("nan") if row.dice is None else row.dice)
            node.AddColumn(column)
        return node

    # -- what both modules need -------------------------------------------------------------------------------------

    def ensureDependencies(self, ask=None):
        """Install missing Python packages after a question. Returns False when the answer was no; raises RunError."""
        from MedMapAILib.dependencies import ensure_requirements

        return ensure_requirements(
            ask=ask or (lambda question: slicer.util.confirmOkCancelDisplay(question, _("MedMapAI"))),
            install_torch=self._installTorch,
            install_packages=self._installPackages,
        )

    def _installTorch(self, specifier):
        from MedMapAILib.errors import RunError

        try:
            import PyTorchUtils
        except ImportError:
            raise RunError(
                _("PyTorch is installed by the extension PyTorch, which is not there; install it with the Extensions "
                  "Manager, restart Slicer and try again.")
            ) from None
        if PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False, torchVersionRequirement=specifier
        ) is None:
            raise RunError(_("PyTorch was not installed; see the Python console, and try again."))

    def _installPackages(self, requirements, constraints):
        try:
            from slicer.packaging import pip_ensure  # Slicer 5.12
        except ImportError:
            slicer.util.pip_install([*requirements, "-c", str(constraints)])
        else:
            pip_ensure(requirements, constraints=str(constraints), prompt_install=False, requester="MedMapAI")

    def showErrors(self, title):
        """Context in which an error ends in a dialog with one sentence; the log has the rest."""
        return _ShowErrors(title)


class _ShowErrors:
    def __init__(self, title):
        self.title = title

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None or not issubclass(kind, Exception):
            return False
        from MedMapAILib.errors import InputError, RunError

        if issubclass(kind, (InputError, RunError)):
            text = str(error)
        elif issubclass(kind, MemoryError) or "out of memory" in str(error):
            text = _("There is not enough memory; choose a region of interest or another device.")
        else:
            logging.error("MedMapAI", exc_info=(kind, error, traceback))
            text = _(
                "{kind}: {error}\n\nThis is a mistake in MedMapAI; please report it with the application log."
            ).format(kind=kind.__name__, error=error)
        slicer.util.errorDisplay(f"{self.title}\n\n{text}", _("MedMapAI"))
        return True


class MedMapAITest(ScriptedLoadableModuleTest):
    """Runs in Slicer: Reload and Test of the developer section, or slicer_add_python_unittest by Testing/Python."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_panelSaysWhatIsMissing()
        self.setUp()
        self.test_run()

    def test_panelSaysWhatIsMissing(self):
        widget = slicer.util.getModuleWidget("MedMapAI")
        widget.enter()
        self.assertFalse(widget.ui.applyButton.enabled)
        self.assertIn("volume", widget.ui.statusLabel.text)

    def test_run(self):
        import numpy as np

        logic = MedMapAILogic()
        models, problem = logic.models()
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
