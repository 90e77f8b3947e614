"""Slicer module "MedMapAI Training": train a model on a data set or on cases that are open in Slicer."""

import logging
import sys
import time
from pathlib import Path
from typing import Annotated

import ctk
import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, Decimals, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

# Installed, both modules lie in one folder. In the source tree, Slicer may come to this one first.
_beside = Path(__file__).resolve().parent.parent / "MedMapAI"
if (_beside / "MedMapAIQt").is_dir() and str(_beside) not in sys.path:
    sys.path.append(str(_beside))

from MedMapAIQt.case_list import IMAGES, PAIRS, SAMPLES, cases_of, set_cases  # noqa: E402
from MedMapAIQt.case_table import CaseTable, image_columns, pair_columns, sample_columns  # noqa: E402
from MedMapAIQt.chart_view import ChartView  # noqa: E402
from MedMapAIQt.error_dialog import show_error  # noqa: E402
from MedMapAIQt.module_logic import ModuleLogic  # noqa: E402
from MedMapAIQt.module_panel import ModulePanel  # noqa: E402
from MedMapAIQt.sample_view import SampleView  # noqa: E402
from MedMapAIQt.scene_cases import (  # noqa: E402
    export_findings,
    export_images,
    export_pairs,
    export_samples,
    new_samples,
)
from MedMapAIQt.self_test import ModuleTest  # noqa: E402
from MedMapAIQt.training_fields import (  # noqa: E402
    ACQUISITIONS,
    CLASSIFICATION,
    DATA_KINDS,
    DETECTION,
    FRAMES,
    GENERATION,
    RECONSTRUCTION,
    SOURCES,
    TASKS,
    parameters_of,
    show_fields,
    take_recipe,
)

# MedMapAILib is imported where it is used: this file loads without torch, and a reload takes the changed library.

# The names in the tables of MedMapAILib, which need torch to be read; a test holds them equal.
NETWORKS = ["unet", "residual-unet", "segresnet", "attention-unet", "fcn"]
LOSSES = ["dice-ce", "dice", "cross-entropy", "focal", "tversky", "generalized-dice"]
CLASS_NETWORKS = [
    "resnet18", "resnet34", "resnet50", "densenet121", "densenet169", "vgg11", "vgg13", "vgg16", "vgg19",
    "unet-encoder",
]  # fmt: skip
CLASS_LOSSES = ["cross-entropy", "focal"]
DET_NETWORKS = ["retinanet", "faster-rcnn", "mask-rcnn", "fast-rcnn"]
BACKBONES = ["light", "resnet18-fpn", "resnet50-fpn"]
REGIONS = ["all", "lungs"]
IMAGE_NETWORKS = ["fbpconvnet", "red-cnn", "learned-primal-dual", "varnet"]
IMAGE_LOSSES = ["mse", "l1", "charbonnier", "ssim", "noise2void", "conditional-gan", "wasserstein-gan"]
GENERATORS = ["image-generator"]
GENERATOR_LOSSES = ["hinge", "logistic"]
ATTENTION = ["none", "se", "cbam", "transformer"]
OPTIMIZERS = ["adamw", "sgd"]
DEVICES = ["auto", "cpu", "cuda"]


class MedMapAITraining(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedMapAI Training")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["MedMapAI"]
        parent.contributors = ["MedMapAI developers"]
        parent.helpText = _(
            "Trains a model that segments, classifies, detects, makes images better or makes new ones, on a data set "
            "or on cases that are open in Slicer. The finished model is listed in the module MedMapAI."
            "<br><b>Research use only; not a medical device.</b>"
        )
        parent.acknowledgementText = _("Built on 3D Slicer, PyTorch and MONAI.")


@parameterNodeWrapper
class MedMapAITrainingParameterNode:
    task: Annotated[str, Choice(TASKS)] = TASKS[0]
    source: Annotated[str, Choice(SOURCES)] = SOURCES[0]
    datasetFolder: str = ""
    datasetFile: str = ""
    recipe: str = ""
    recipeTask: str = ""
    modelName: str = "my-model"
    labels: str = ""
    classes: str = ""
    classColumns: str = ""
    classNetwork: Annotated[str, Choice(CLASS_NETWORKS)] = "resnet18"
    classLoss: Annotated[str, Choice(CLASS_LOSSES)] = "cross-entropy"
    attention: Annotated[str, Choice(ATTENTION)] = "none"
    members: Annotated[int, WithinRange(1, 20)] = 1
    weights: str = ""
    mixup: Annotated[float, WithinRange(0.0, 10.0), Decimals(2)] = 0.0
    detNetwork: Annotated[str, Choice(DET_NETWORKS)] = "retinanet"
    backbone: Annotated[str, Choice(BACKBONES)] = "light"
    region: Annotated[str, Choice(REGIONS)] = "all"
    frame: Annotated[str, Choice(FRAMES)] = FRAMES[0]
    dataKind: Annotated[str, Choice(DATA_KINDS)] = DATA_KINDS[0]
    acquisition: Annotated[str, Choice(ACQUISITIONS)] = ACQUISITIONS[0]
    views: str = "360"
    photons: str = "100000"
    acceleration: str = "4"
    coils: Annotated[int, WithinRange(1, 64)] = 1
    noise: str = "20"
    imageNetwork: Annotated[str, Choice(IMAGE_NETWORKS)] = IMAGE_NETWORKS[0]
    imageLoss: Annotated[str, Choice(IMAGE_LOSSES)] = IMAGE_LOSSES[0]
    generator: Annotated[str, Choice(GENERATORS)] = GENERATORS[0]
    generatorLoss: Annotated[str, Choice(GENERATOR_LOSSES)] = GENERATOR_LOSSES[0]
    network: Annotated[str, Choice(NETWORKS)] = "unet"
    loss: Annotated[str, Choice(LOSSES)] = "dice-ce"
    optimizer: Annotated[str, Choice(OPTIMIZERS)] = "adamw"
    learningRate: Annotated[float, WithinRange(0.000001, 1.0), Decimals(6)] = 0.001
    epochs: Annotated[int, WithinRange(1, 100000)] = 100
    validation: Annotated[float, WithinRange(0.05, 0.9), Decimals(2)] = 0.2
    device: Annotated[str, Choice(DEVICES)] = "auto"
    outputFolder: str = ""


class MedMapAITrainingWidget(ModulePanel):
    def __init__(self, parent=None):
        self._busy = False
        self._updating = False
        ModulePanel.__init__(self, parent)

    def setup(self):
        self.logicClass = MedMapAITrainingLogic
        ModulePanel.setup(self)
        for pathEdit in (self.ui.datasetPath, self.ui.outputPath):
            pathEdit.filters = ctk.ctkPathLineEdit.Dirs | ctk.ctkPathLineEdit.NoDot | ctk.ctkPathLineEdit.NoDotDot
        self.ui.datasetFile.filters = ctk.ctkPathLineEdit.Files
        self.ui.datasetFile.nameFilters = [
            _("Tables and archives") + " (*.csv *.tsv *.npz *.json)",
            _("All files") + " (*)",
        ]
        self.tables = {
            PAIRS: CaseTable(self.ui.pairsTable, pair_columns(), self._writeCases),
            SAMPLES: CaseTable(self.ui.samplesTable, sample_columns(), self._writeCases),
            IMAGES: CaseTable(self.ui.imagesTable, image_columns(), self._writeCases),
        }
        self.samples = SampleView(self.ui.sampleSection, self.ui.sampleLabel, self.ui.sampleCaption)
        self.charts = ChartView(self.ui.plotContainer, self.ui.chartSelector, self.moduleName)
        self.logic.onEvent = self.onEvent

        for pathEdit in (self.ui.datasetPath, self.ui.datasetFile, self.ui.outputPath):
            pathEdit.currentPathChanged.connect(self.onPathChanged)
        self.ui.recipeSelector.currentIndexChanged.connect(self.onRecipeChanged)
        self.ui.addPairButton.clicked.connect(lambda checked=False: self._addCase(PAIRS))
        self.ui.removePairButton.clicked.connect(lambda checked=False: self._removeCase(PAIRS))
        self.ui.addSampleButton.clicked.connect(lambda checked=False: self._addCase(SAMPLES))
        self.ui.removeSampleButton.clicked.connect(lambda checked=False: self._removeCase(SAMPLES))
        self.ui.addImageButton.clicked.connect(lambda checked=False: self._addCase(IMAGES))
        self.ui.removeImageButton.clicked.connect(lambda checked=False: self._removeCase(IMAGES))
        self.ui.addRoisButton.clicked.connect(self.onAddRois)
        self._fillWeightsMenu()
        self.ui.checkButton.clicked.connect(self.onCheck)
        self.ui.startButton.clicked.connect(self.onStart)
        self.ui.stopButton.clicked.connect(self.onStop)
        self.ui.resumeButton.clicked.connect(self.onResume)

        self._fillRecipes()
        self.initializeParameterNode()

    # -- life of the panel ------------------------------------------------------------------------------------------

    def cleanup(self):
        ModulePanel.cleanup(self)
        self.charts.forget()

    def onSceneStartClose(self, caller, event):
        # A training goes on in its own process; its curve is drawn anew in the next scene.
        ModulePanel.onSceneStartClose(self, caller, event)
        self.charts.forget()

    def initializeParameterNode(self):
        ModulePanel.initializeParameterNode(self)
        self._showChart()

    def onParameterNodeConnected(self):
        for kind, table in self.tables.items():
            table.show(cases_of(self._parameterNode.parameterNode, kind))

    # -- parameters -------------------------------------------------------------------------------------------------

    def parameters(self):
        """What is set in the panel, as the library's TrainingParameters."""
        return parameters_of(self._parameterNode)

    def onParametersModified(self, caller=None, event=None):
        if self._updating:
            return
        node = self._parameterNode
        self._updating = True
        try:
            if node:
                if node.recipe and node.recipeTask not in ("", node.task):
                    node.recipe = ""  # the settings of a recipe are for its own task
                self._write(self.ui.datasetPath, node.datasetFolder)
                self._write(self.ui.datasetFile, node.datasetFile)
                self._write(self.ui.outputPath, node.outputFolder)
                show_fields(self.ui, node.task, node.source)
                index = self.ui.recipeSelector.findData(node.recipe)
                if index < 0:  # one from elsewhere, set by a script or a scene
                    self.ui.recipeSelector.addItem(Path(node.recipe).stem, node.recipe)
                    index = self.ui.recipeSelector.count - 1
                if index != self.ui.recipeSelector.currentIndex:
                    self.ui.recipeSelector.setCurrentIndex(index)
            self._updateButtons()
        finally:
            self._updating = False

    @staticmethod
    def _write(pathEdit, path):
        if pathEdit.currentPath != path:
            pathEdit.currentPath = path

    def _updateButtons(self):
        from MedMapAILib.errors import InputError
        from MedMapAILib.training.parameters import can_resume

        valid, reason, resumable = False, "", False
        if self._parameterNode:
            try:
                valid, reason = self.parameters().is_valid()
            except InputError as error:
                reason = str(error)
            resumable, noResume = can_resume(self._parameterNode.outputFolder)
            self.ui.resumeButton.toolTip = noResume or _("Go on from the checkpoint in the output folder.")
        running = self.logic.running or self._busy
        self.ui.startButton.enabled = valid and not running
        self.ui.startButton.toolTip = reason or _("Start training from the beginning.")
        self.ui.resumeButton.enabled = resumable and not running
        self.ui.stopButton.enabled = self.logic.running
        for section in (self.ui.dataSection, self.ui.modelSection, self.ui.advancedSection, self.ui.outputPath):
            section.enabled = not running
        self.ui.progressBar.visible = running
        if not running:
            self.sayWhyNot(reason)

    def onPathChanged(self, path=""):
        if self._parameterNode and not self._updating:
            self._parameterNode.datasetFolder = self.ui.datasetPath.currentPath
            self._parameterNode.datasetFile = self.ui.datasetFile.currentPath
            self._parameterNode.outputFolder = self.ui.outputPath.currentPath

    # -- recipes ----------------------------------------------------------------------------------------------------

    def _fillRecipes(self):
        selector = self.ui.recipeSelector
        wasBlocked = selector.blockSignals(True)
        selector.clear()
        selector.addItem(_("None: defaults"), "")
        for path in sorted(Path(self.resourcePath("Recipes")).glob("*.toml")):
            selector.addItem(path.stem, str(path))
        selector.blockSignals(wasBlocked)

    def onRecipeChanged(self, index=-1):
        node = self._parameterNode
        path = self.ui.recipeSelector.currentData or ""
        if not node or self._updating or path == node.recipe:
            return
        with self.showErrors(_("The recipe was not taken.")):
            take_recipe(node, path)

    # -- weights to start from --------------------------------------------------------------------------------------

    def _fillWeightsMenu(self):
        self.weightsMenu = qt.QMenu(self.ui.weightsButton)
        for text, slot in (
            (_("None"), lambda checked=False: self._setWeights("")),
            (_("ImageNet"), lambda checked=False: self._setWeights("imagenet")),
            (_("From a file…"), self.onWeightsFile),
            (_("From the folder of a model…"), self.onWeightsFolder),
        ):
            action = qt.QAction(text, self.weightsMenu)
            action.triggered.connect(slot)
            self.weightsMenu.addAction(action)
        self.ui.weightsButton.setMenu(self.weightsMenu)

    def _setWeights(self, weights):
        if self._parameterNode:
            self._parameterNode.weights = weights

    def onWeightsFile(self, checked=False):
        path = qt.QFileDialog.getOpenFileName(
            self.parent, _("Choose weights"), "", "Weights (*.pt *.pth *.ckpt *.safetensors *.zip)"
        )
        path = path[0] if isinstance(path, (tuple, list)) else path
        if path:
            self._setWeights(path)

    def onWeightsFolder(self, checked=False):
        path = qt.QFileDialog.getExistingDirectory(self.parent, _("Choose the folder of a model"), "")
        if path:
            self._setWeights(path)

    # -- cases from the scene ---------------------------------------------------------------------------------------

    def _addCase(self, kind):
        self.tables[kind].add(kind.empty)
        self._writeCases()

    def _removeCase(self, kind):
        if self.tables[kind].removeCurrent():
            self._writeCases()

    def onAddRois(self, checked=False):
        if self._parameterNode:
            for sample in new_samples(self.tables[SAMPLES].cases):
                self.tables[SAMPLES].add(sample)
            self._writeCases()

    def _writeCases(self):
        if self._parameterNode:
            for kind, table in self.tables.items():
                set_cases(self._parameterNode.parameterNode, kind, table.cases)
            self.onParametersModified()

    # -- checking, starting, stopping -------------------------------------------------------------------------------

    def onCheck(self, checked=False):
        if self._busy or not self._parameterNode:
            return
        self._setBusy(True)
        try:
            with self.showErrors(_("The data could not be checked.")):
                if self.ensureDependencies():
                    html = self.logic.checkData(self.parameters(), self._parameterNode.parameterNode, self._onProgress)
                    self.ui.dataReport.html = html
                    self.ui.dataReport.visible = True
        finally:
            self._setBusy(False)

    def onStart(self, checked=False):
        self._begin(resume=False)

    def onResume(self, checked=False):
        self._begin(resume=True)

    def onStop(self, checked=False):
        self.ui.stopButton.enabled = False
        self.say(_("Stopping: saving a checkpoint…"))
        self.logic.stop()

    def _begin(self, resume):
        if self.logic.running or self._busy or not self._parameterNode:
            return
        self._setBusy(True)
        self.samples.forget()
        self.ui.logText.clear()
        try:
            with self.showErrors(_("The training was not started.")):
                if not self.ensureDependencies():
                    self.say(_("Nothing was installed and nothing was started."), keep=True)
                    return
                parameters = self.parameters()
                if resume:
                    self.logic.resume(parameters.output)
                else:
                    self.logic.startWith(parameters, self._parameterNode.parameterNode, self._onProgress)
                self._showChart()
                # Room for the curve.
                for section in (self.ui.dataSection, self.ui.modelSection, self.ui.advancedSection):
                    section.collapsed = self.logic.running
        finally:
            self._setBusy(False)

    def _setBusy(self, busy):
        self._busy = busy
        if busy:
            self._kept = False
            self.ui.progressBar.setRange(0, 100)
            self.ui.progressBar.value = 0
        self.onParametersModified()
        slicer.app.processEvents()

    def _onProgress(self, fraction, message):
        self.ui.progressBar.value = round(100 * fraction)
        self.say(message)
        slicer.app.processEvents()

    # -- while it trains --------------------------------------------------------------------------------------------

    def onEvent(self, event):
        """What the training process said; the nodes are up to date already."""
        kind = event["event"]
        if kind == "started":
            text = _("{n} cases to train on, {m} to check with, on {device}.").format(
                n=event["train_cases"], m=event["validation_cases"], device=event.get("device", "cpu")
            )
            self._log(text)
            self.say(text)
            for group in event.get("duplicates", ()):
                self._log(
                    _("The same voxels under several names, kept together: {names}").format(
                        names=", ".join(map(str, group))
                    )
                )
        elif kind == "progress":
            self.ui.progressBar.value = round(100 * event["fraction"])
            self.say(event["message"])
        elif kind == "epoch":
            self.ui.progressBar.value = round(100 * event.get("fraction", 0))
            parts = [_("Epoch {number}").format(number=event["epoch"])]
            for key, name in (
                ("train_loss", _("loss")),
                ("validation_loss", _("validation loss")),
                ("validation_dice", _("Dice")),
                ("validation_auc", _("AUC")),
                ("validation_froc", _("FROC")),
                ("validation_psnr_db", _("PSNR (dB)")),
                ("validation_coverage", _("coverage")),
                ("opponent_loss", _("critic's loss")),
            ):
                if event.get(key) is not None:
                    parts.append(f"{name} {event[key]:.3f}")
            self._log(", ".join(parts))
            self.say(" · ".join(parts))
            self._showChart()
            if event.get("picture"):
                self.samples.show(event["picture"], event["epoch"], self._parameterNode)
        elif kind == "log":
            self._log(event["message"])
        elif kind == "stopped":
            self._finish(_("Stopped. The checkpoint is saved: press Resume to go on."))
        elif kind == "failed":
            self._finish(_("The training failed."))
            show_error(_("The training failed."), event["reason"], _("MedMapAI Training"), event.get("details", ""))
        elif kind == "finished":
            self._finish(_("Finished. The model {name} is listed in the module MedMapAI.").format(name=event["model"]))
            self._showChart()
            if hasattr(slicer.modules, "MedMapAIWidget"):
                slicer.modules.MedMapAIWidget.refreshModels()

    def _finish(self, message):
        self._log(message)
        self.say(message, keep=True)
        self.onParametersModified()
        # What had to be corrected before (the folder holds a training now) is no news at this moment.
        self.say(message, keep=True)

    def _log(self, text):
        self.ui.logText.appendPlainText(text)

    def _showChart(self):
        if self.logic.chartNode is None or not self._parameterNode:
            return
        charts = [(_("Learning curve"), self.logic.chartNode)]
        names = {"score": _("PSNR"), "losses": _("Network and critic")}
        charts += [(names[key], chart) for key, chart in self.logic.furtherCharts.items()]
        names = {
            "roc": _("ROC"),
            "froc": _("FROC"),
            "precision_recall": _("Precision and recall"),
            "reliability": _("Reliability"),
        }
        charts += [(names[key], chart) for key, chart in self.logic.curveNodes.items() if chart.GetScene() is not None]
        self.charts.show(charts, self._parameterNode.parameterNode)


class MedMapAITrainingLogic(ModuleLogic):
    """Trains models; needs neither panel nor main window.

    ``train`` works in this process and returns when it is done; ``start`` works in another one and tells ``onEvent``.
    """

    parameterNodeClass = MedMapAITrainingParameterNode

    def __init__(self):
        ModuleLogic.__init__(self)
        #: Called with each event, a dict; see MedMapAILib.training.run.train.
        self.onEvent = None
        self.tableNode = None
        self.chartNode = None
        #: Charts of a finished classifier or detector, by what they show: "roc", "froc", "precision_recall",
        #: "reliability".
        self.curveNodes = {}
        #: Charts of the course of a training beside the learning curve: "score", and "losses" of network and critic.
        self.furtherCharts = {}
        #: The epochs so far.
        self.rows = []
        # A training that does not stop in this time when asked is ended by force.
        self._killTimer = qt.QTimer()
        self._killTimer.setSingleShot(True)
        self._killTimer.timeout.connect(self._kill)

    # -- cases from the scene ---------------------------------------------------------------------------------------

    @staticmethod
    def pairs(parameterNode):
        """The cases of a (MRML) parameter node: list of (volume node, segmentation node), None where none is chosen."""
        return cases_of(parameterNode, PAIRS)

    @staticmethod
    def setPairs(parameterNode, pairs):
        """Keep cases in a (MRML) parameter node, so that they are saved with the scene."""
        set_cases(parameterNode, PAIRS, pairs)

    def exportCases(self, parameters, parameterNode, folder, progress=None):
        """Write the cases of the scene, as the task of TrainingParameters has them. Returns the labels of segments."""
        if parameters.task in (CLASSIFICATION, GENERATION):
            self.exportSamples(cases_of(parameterNode, SAMPLES), folder, progress)
            return {}
        if parameters.task == DETECTION:
            export_findings(cases_of(parameterNode, SAMPLES), folder, progress)
            return {}
        if parameters.task == RECONSTRUCTION:
            export_images(cases_of(parameterNode, IMAGES), folder, parameters.data_kind == "pairs", progress)
            return {}
        return self.exportPairs(cases_of(parameterNode, PAIRS), folder, progress)

    def exportPairs(self, pairs, folder, progress=None):
        """Write (volume node, segmentation or label map node) pairs as an anonymous data set. Returns its labels.

        The folder gets images/case_001.nrrd …, labels/case_001.nrrd …; whole or not at all. Raises InputError.
        """
        return export_pairs(pairs, folder, progress)

    def exportSamples(self, samples, folder, progress=None):
        """Write (volume node, ROI node or None, class) samples as an anonymous data set with one folder a class."""
        export_samples(samples, folder, progress)

    # -- training ---------------------------------------------------------------------------------------------------

    def checkData(self, parameters, parameterNode=None, progress=None):
        """Read the cases and say what they are like, as HTML. Raises InputError for what cannot be trained on."""
        from MedMapAILib.datasets.report import describe_dataset
        from MedMapAILib.training.parameters import label_names

        options = parameters.dataset_options
        if parameters.dataset is not None:
            return describe_dataset(parameters.dataset, label_names(parameters.labels), progress, options=options)
        folder = Path(slicer.util.tempDirectory()) / "dataset"
        labels = self.exportCases(parameters, parameterNode, folder, progress)
        try:
            return describe_dataset(
                folder, label_names(labels), progress, name=_("Nodes in the scene"), options=options
            )
        finally:
            import shutil

            shutil.rmtree(folder.parent, ignore_errors=True)

    def train(self, config, output, onEvent=None, resume=False):
        """Train in this process. Returns the bundle's path.

        config: a dictionary of sections, or the path of a .toml or .json. onEvent: called with each event, a dict.
        Raises InputError, RunError.
        """
        from MedMapAILib.graphics import keep_triton_out
        from MedMapAILib.training.config import read_config

        keep_triton_out()
        from MedMapAILib.training.run import train

        if not isinstance(config, dict):
            config = read_config(config)
        self._newHistory(output, resume)

        def tell(event):
            self._keep(event)
            if onEvent is not None:
                onEvent(event)

        bundle = train(config, output, resume=resume, on_event=tell)
        self._drawCurves()
        return bundle

    def startWith(self, parameters, parameterNode=None, progress=None):
        """Start a training with the library's TrainingParameters; cases from the scene are written first."""
        import dataclasses

        from MedMapAILib.errors import InputError
        from MedMapAILib.training.parameters import dataset_folder

        valid, reason = parameters.is_valid()
        if not valid:
            raise InputError(reason)
        parameters.config()  # raises before anything is written
        if parameters.dataset is None:
            folder = dataset_folder(parameters.output)
            labels = self.exportCases(parameters, parameterNode, folder, progress)
            parameters = dataclasses.replace(parameters, dataset=str(folder), labels=labels)
        self.start(parameters.config(), parameters.output)

    def resume(self, output):
        """Go on with the training that was begun in a folder, as it was set then. Raises InputError."""
        from MedMapAILib.errors import InputError
        from MedMapAILib.training.parameters import can_resume, stored_config

        possible, reason = can_resume(output)
        if not possible:
            raise InputError(reason)
        self.start(stored_config(output), output, resume=True)

    def start(self, config, output, resume=False):
        """Start training in the worker process; returns at once. ``onEvent`` is told how it goes.

        config: a dictionary of sections, written to config.toml in the output folder, or the path of a configuration.
        Raises InputError when the output folder cannot be written to.
        """
        from MedMapAILib.errors import InputError
        from MedMapAILib.training.parameters import write_config

        if self.running:
            raise InputError(_("A training is running already; stop it first."))
        output = Path(output)
        if isinstance(config, dict):
            try:
                output.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"The output folder {output} cannot be made ({error.strerror}); choose another."
                ) from None
            write_config(config, output / "config.toml")
            config = output / "config.toml"
        self._newHistory(output, resume)
        self.worker.train(
            config,
            output,
            resume=resume,
            on_event=self._onTrainingEvent,
            on_finished=self._onTrainingEnd,
            on_failure=self._onTrainingFailure,
        )

    def stop(self):
        """Ask the training to stop; it saves a checkpoint first. One that does not answer in a minute is killed."""
        if self.running:
            self.worker.stop_training()
            self._killTimer.start(60000)

    def _kill(self):
        if self.running:
            self.worker.cancel()

    def shutDown(self):
        """Stop the training and wait for its checkpoint, 10 s at most: before a reload, or when Slicer closes."""
        onEvent, self.onEvent = self.onEvent, None
        if self.running:
            self.worker.stop_training()
            end = time.monotonic() + 10
            while self.running and time.monotonic() < end:
                self.worker.poll()
        self._killTimer.stop()
        ModuleLogic.shutDown(self)
        self.onEvent = onEvent

    def _onTrainingEvent(self, event):
        self._keep(event)
        self._tell(event)

    def _onTrainingEnd(self, event):
        self._killTimer.stop()
        if event["event"] == "finished":
            self._drawCurves()
        self._tell(self._listed(event) if event["event"] == "finished" else event)

    def _onTrainingFailure(self, failure):
        self._killTimer.stop()
        if failure.kind == "cancelled":
            self._tell({"event": "stopped", "reason": failure.reason})
            return
        reason = failure.reason
        if failure.kind in ("memory", "killed"):
            reason = _(
                "The training ran out of memory or was killed; use a smaller patch (plan.json) or close other programs."
            )
        if failure.kind not in ("input", "start"):
            reason += " " + _("The last checkpoint, if there is one, can be resumed.")
        self._tell({"event": "failed", "reason": reason, "details": failure.tail})

    def _listed(self, event):
        """Add the finished model to the user's models, from where the module MedMapAI lists it."""
        from MedMapAILib.model_store import add_model

        try:
            return {**event, "model": add_model(event["bundle"], replace=True).name}
        except Exception as error:
            logging.exception("The trained model could not be listed")
            return {
                "event": "failed",
                "details": "",
                "reason": _("The training is finished, but its model in {path} could not be listed: {error}").format(
                    path=event["bundle"], error=error
                ),
            }

    def _tell(self, event):
        if self.onEvent is not None:
            self.onEvent(event)

    # -- history ----------------------------------------------------------------------------------------------------

    def _newHistory(self, output, resume):
        from MedMapAILib.training.history import read_history

        self.rows = read_history(output) if resume else []
        self._output, self.curveNodes, self.furtherCharts, self._drawn = Path(output), {}, {}, None
        self._historyName = _("Training of {name}").format(name=Path(output).name)
        self.tableNode = self.chartNode = None
        self._updateNodes()

    def _keep(self, event):
        if event["event"] == "epoch":
            self.rows = [row for row in self.rows if row["epoch"] < event["epoch"]] + [event]
            self._updateNodes()

    @property
    def _score(self):
        """By what the training is followed: "auc" of a classification, "froc" of a detection, "psnr_db" of images,
        "coverage" of a generator, else "dice"."""
        known = ("auc", "froc", "psnr_db", "coverage")
        followed = [name for name in known if any(f"validation_{name}" in row for row in self.rows)]
        return followed[0] if followed else "dice"

    def _drawCurves(self):
        """Charts of the cases held out, where a classifier or a detector was trained."""
        from MedMapAILib import mrml
        from MedMapAILib.training.curves import read_curves

        curves = read_curves(self._output)
        if curves and not slicer.mrmlScene.IsBatchProcessing():
            self.curveNodes = mrml.curve_nodes(self._output.name, curves)

    def _updateNodes(self):
        from MedMapAILib import mrml

        if slicer.mrmlScene.IsBatchProcessing():
            return  # the scene is being closed or loaded; the next epoch draws all
        nodes = (self.tableNode, self.chartNode, *self.furtherCharts.values())
        gone = [node is None or node.GetScene() is None for node in nodes]
        wanted = self._score, mrml.further_columns(self.rows)
        if any(gone) or self._drawn != wanted:
            self._drawn = wanted
            self.tableNode, self.chartNode = mrml.history_nodes(self._historyName, *wanted)
            self.furtherCharts = mrml.further_charts(self._historyName, self.tableNode, *wanted)
        mrml.update_history(self.tableNode, self.chartNode, self.rows)
        for chart in self.furtherCharts.values():
            chart.Modified()


class MedMapAITrainingTest(ModuleTest):
    """Runs in Slicer: Reload and Test of the developer section, or slicer_add_python_unittest by Testing/Python."""

    def test_panelSaysWhatIsMissing(self):
        widget = slicer.util.getModuleWidget("MedMapAITraining")
        widget.enter()
        self.assertFalse(widget.ui.startButton.enabled)
        self.assertIn("folder", widget.ui.statusLabel.text)

    def test_pairsAreKeptInTheScene(self):
        logic = MedMapAITrainingLogic()
        parameterNode = logic.getParameterNode().parameterNode
        volumeNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        logic.setPairs(parameterNode, [(volumeNode, segmentationNode), (volumeNode, None)])
        self.assertEqual(logic.pairs(parameterNode), [(volumeNode, segmentationNode), (volumeNode, None)])
        slicer.mrmlScene.RemoveNode(segmentationNode)
        self.assertEqual(logic.pairs(parameterNode), [(volumeNode, None), (volumeNode, None)])
