"""The fields of the training panel: which of them belong to a task and a source of cases, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from .case_list import PAIRS, SAMPLES, cases_of

SEGMENTATION, CLASSIFICATION, DETECTION = TASKS = ["segmentation", "classification", "detection"]
FOLDER, FILE, SCENE = SOURCES = ["Dataset folder", "Dataset file", "Nodes in the scene"]

#: Fields that come with a label of their own: <name>Label.
_OF_TASK = {
    SEGMENTATION: ("networkSelector", "lossSelector"),
    CLASSIFICATION: (
        "classNetworkSelector", "classLossSelector", "attentionSelector", "membersSpinBox", "weightsEdit",
        "mixupSpinBox",
    ),
    DETECTION: ("detNetworkSelector", "backboneSelector", "regionSelector"),
}  # fmt: skip
#: What coordinates of a table mean where it does not say so.
AS_THE_FILE_SAYS = "as the file says"
FRAMES = [AS_THE_FILE_SAYS, "LPS", "RAS", "voxel"]
_OF_SOURCE = {FOLDER: ("datasetPath",), FILE: ("datasetFile",), SCENE: ()}


def show_fields(ui: Any, task: str, source: str) -> None:
    """Show the fields of a task and a source of cases, and hide the others."""
    shown = {name: each == task for each, names in _OF_TASK.items() for name in names}
    shown |= {name: each == source for each, names in _OF_SOURCE.items() for name in names}
    shown["labelsEdit"] = task == SEGMENTATION and source != SCENE
    shown["classesEdit"] = task != SEGMENTATION
    shown["classColumnsEdit"] = task == CLASSIFICATION and source == FILE
    shown["frameSelector"] = task == DETECTION and source == FILE
    for name, visible in shown.items():
        getattr(ui, name).visible = visible
        getattr(ui, f"{name}Label").visible = visible
    ui.weightsButton.visible = shown["weightsEdit"]
    ui.pairsWidget.visible = source == SCENE and task == SEGMENTATION
    ui.samplesWidget.visible = source == SCENE and task != SEGMENTATION
    detects = task == DETECTION
    ui.classesEdit.placeholderText = _("such as: nodule") if detects else _("such as: normal, pneumonia")
    ui.addSampleButton.text = _("Add row") if detects else _("Add sample")
    ui.removeSampleButton.text = _("Remove row") if detects else _("Remove sample")
    ui.datasetHint.text = _hint(task, source)
    ui.datasetHint.visible = bool(ui.datasetHint.text)


def _hint(task: str, source: str) -> str:
    return {
        (SEGMENTATION, FOLDER): _(
            "images/ and labels/ with the same file names, or a Medical Segmentation Decathlon data set (dataset.json)."
        ),
        (SEGMENTATION, FILE): _("A table (.csv) with the columns image and label: files, one row a case."),
        (CLASSIFICATION, FOLDER): _(
            "One folder a class with its images in it (pictures, volumes, DICOM files); perhaps under train, val, test."
        ),
        (CLASSIFICATION, FILE): _(
            "A table (.csv) with the columns image and class, and patient where there is one; or a MedMNIST archive "
            "(.npz)."
        ),
        (CLASSIFICATION, SCENE): _(
            "Draw an ROI round each sample, or take whole volumes. They are written without patients' names."
        ),
        (DETECTION, FOLDER): _(
            "LUNA16, LIDC-IDRI (DICOM with XML), nnDetection, or images/ with a table findings.csv, such as the module "
            "MedMapAI saves of findings that you reviewed."
        ),
        (DETECTION, FILE): _(
            "A table (.csv) with the columns image, x, y, z and diameter (or three sizes), one row a finding, and "
            "class where there are several; or COCO annotations (.json)."
        ),
        (DETECTION, SCENE): _(
            "Draw an ROI round each finding, or choose a segmentation: each part of it is a finding. A row with "
            "neither says that there is none in the volume. They are written without patients' names."
        ),
    }.get((task, source), "")


def parameters_of(node: Any) -> Any:
    """The library's TrainingParameters of a wrapped parameter node. Raises InputError for labels that say nothing."""
    from MedMapAILib.training.parameters import TrainingParameters, parse_labels, parse_names

    fromScene, classifies, detects = node.source == SCENE, node.task == CLASSIFICATION, node.task == DETECTION
    boxes = classifies or detects
    pairs, samples = (
        tuple(
            tuple(one if one is None or isinstance(one, str) else one.GetID() for one in case)
            for case in cases_of(node.parameterNode, kind)
        )
        for kind in (PAIRS, SAMPLES)
    )
    return TrainingParameters(
        output=node.outputFolder,
        dataset=None if fromScene else node.datasetFile if node.source == FILE else node.datasetFolder,
        scene_cases=pairs if fromScene and not boxes else (),
        scene_samples=samples if fromScene and boxes else (),
        task=node.task,
        name=node.modelName,
        network=node.detNetwork if detects else node.classNetwork if classifies else node.network,
        loss="detector" if detects else node.classLoss if classifies else node.loss,
        optimizer=node.optimizer,
        learning_rate=node.learningRate,
        epochs=node.epochs,
        validation=node.validation,
        device=node.device,
        recipe=node.recipe or None,
        labels={} if fromScene or boxes else parse_labels(node.labels),
        classes=parse_names(node.classes) if boxes else (),
        class_columns=parse_names(node.classColumns) if classifies and node.source == FILE else (),
        attention=node.attention,
        members=node.members,
        weights=node.weights.strip(),
        mixup=node.mixup,
        backbone=node.backbone,
        region=node.region,
        frame="" if node.frame == AS_THE_FILE_SAYS or node.source != FILE else node.frame,
    )


def take_recipe(node: Any, path: str) -> None:
    """Fill a wrapped parameter node with the settings of a recipe; an empty path leaves them and takes the recipe away.

    Raises InputError, with the node as it was.
    """
    from MedMapAILib.training.parameters import labels_text, read_recipe

    if not path:
        node.recipe = ""
        return
    recipe = read_recipe(path)
    data, network = recipe["dataset"], recipe["network"]
    with slicer.util.NodeModify(node):
        node.recipe = path
        node.task = node.recipeTask = recipe["task"]["name"]
        node.modelName = recipe["model"]["name"] or node.modelName
        if node.task == CLASSIFICATION:
            node.classNetwork, node.classLoss = network["name"], recipe["loss"]["name"]
            node.classes = ", ".join(data["classes"])
            node.classColumns = ", ".join(data["class_columns"] or filter(None, [data["class_column"]]))
            node.attention, node.members = network.get("attention", "none"), int(network.get("members", 1))
            node.weights = recipe["transfer"]["weights"] or ""
            node.mixup = float(recipe["augmentation"]["mixup"])
        elif node.task == DETECTION:
            node.detNetwork, node.backbone = network["name"], network.get("backbone", "light")
            node.region, node.frame = recipe["plan"].get("region", "all"), data["frame"] or AS_THE_FILE_SAYS
            node.classes = ", ".join(data["classes"])
        else:
            node.network, node.loss = network["name"], recipe["loss"]["name"]
            node.labels = labels_text(data["labels"])
        node.optimizer = recipe["optimizer"]["name"]
        node.learningRate = float(recipe["optimizer"]["learning_rate"])
        node.epochs = int(recipe["training"]["epochs"])
        node.validation = float(recipe["split"]["validation"])
        place = Path(data["path"])
        if place.is_dir() and not node.datasetFolder:
            node.source, node.datasetFolder = FOLDER, str(place.resolve())
        elif place.is_file() and not node.datasetFile:
            node.source, node.datasetFile = FILE, str(place.resolve())
