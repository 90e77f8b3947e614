"""The fields of the training panel: which of them belong to a task and a source of cases, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from .case_list import IMAGES, PAIRS, SAMPLES, cases_of

SEGMENTATION, CLASSIFICATION, DETECTION, RECONSTRUCTION, GENERATION = TASKS = [
    "segmentation", "classification", "detection", "reconstruction", "generation",
]  # fmt: skip
FOLDER, FILE, SCENE = SOURCES = ["Dataset folder", "Dataset file", "Nodes in the scene"]

#: Fields that come with a label of their own: <name>Label.
_OF_TASK = {
    SEGMENTATION: ("networkSelector", "lossSelector"),
    CLASSIFICATION: (
        "classNetworkSelector", "classLossSelector", "attentionSelector", "membersSpinBox", "weightsEdit",
        "mixupSpinBox",
    ),
    DETECTION: ("detNetworkSelector", "backboneSelector", "regionSelector"),
    RECONSTRUCTION: ("imageNetworkSelector", "imageLossSelector", "dataKindSelector"),
    GENERATION: ("generatorSelector", "generatorLossSelector"),
}  # fmt: skip
#: What the images of a reconstruction are, as the panel says it, and as the library does.
TRUE_IMAGES, PAIRS_OF_IMAGES, NOISY_IMAGES = DATA_KINDS = [
    "True images, made worse", "Pairs of images", "Noisy images alone",
]  # fmt: skip
_KINDS = {TRUE_IMAGES: "clean", PAIRS_OF_IMAGES: "pairs", NOISY_IMAGES: "self"}
#: How true images are made worse, as the panel says it, and as section [acquisition] does.
CT, MR, NOISE = ACQUISITIONS = ["CT", "MR", "noise"]
#: Fields of an acquisition: widget, and key of the section.
_OF_ACQUISITION = {
    CT: {"viewsEdit": "views", "photonsEdit": "photons"},
    MR: {"accelerationEdit": "acceleration", "coilsSpinBox": "coils"},
    NOISE: {"noiseEdit": "sd"},
}
#: What coordinates of a table mean where it does not say so.
AS_THE_FILE_SAYS = "as the file says"
FRAMES = [AS_THE_FILE_SAYS, "LPS", "RAS", "voxel"]
_OF_SOURCE = {FOLDER: ("datasetPath",), FILE: ("datasetFile",), SCENE: ()}


def show_fields(ui: Any, task: str, source: str) -> None:
    """Show the fields of a task and a source of cases, and hide the others."""
    shown = {name: each == task for each, names in _OF_TASK.items() for name in names}
    shown |= {name: each == source for each, names in _OF_SOURCE.items() for name in names}
    classes, images = task in (CLASSIFICATION, GENERATION), task == RECONSTRUCTION
    shown["labelsEdit"] = task == SEGMENTATION and source != SCENE
    shown["classesEdit"] = classes or task == DETECTION
    shown["classColumnsEdit"] = classes and source == FILE
    made = images and ui.dataKindSelector.currentText == TRUE_IMAGES
    shown["acquisitionSelector"] = made
    for kind, fields in _OF_ACQUISITION.items():
        shown |= {name: made and ui.acquisitionSelector.currentText == kind for name in fields}
    shown["frameSelector"] = task == DETECTION and source == FILE
    for name, visible in shown.items():
        getattr(ui, name).visible = visible
        getattr(ui, f"{name}Label").visible = visible
    ui.weightsButton.visible = shown["weightsEdit"]
    ui.pairsWidget.visible = source == SCENE and task == SEGMENTATION
    ui.samplesWidget.visible = source == SCENE and (classes or task == DETECTION)
    ui.imagesWidget.visible = source == SCENE and images
    ui.imagesTable.setColumnHidden(1, ui.dataKindSelector.currentText != PAIRS_OF_IMAGES)
    detects = task == DETECTION
    ui.classesEdit.placeholderText = _("such as: nodule") if detects else _("such as: normal, pneumonia")
    ui.addSampleButton.text = _("Add row") if detects else _("Add sample")
    ui.removeSampleButton.text = _("Remove row") if detects else _("Remove sample")
    ui.datasetHint.text = _hint(task, source, ui.dataKindSelector.currentText)
    ui.datasetHint.visible = bool(ui.datasetHint.text)


def _hint(task: str, source: str, kind: str) -> str:
    if task == RECONSTRUCTION:
        return _image_hint(source, kind)
    if task == GENERATION and source != SCENE:
        return _hint(CLASSIFICATION, source, kind) + " " + _("Without classes: any folder of images.")
    if task == GENERATION:
        task = CLASSIFICATION
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


def _image_hint(source: str, kind: str) -> str:
    what = {
        TRUE_IMAGES: _("They count as the truth; worse ones are simulated from them."),
        PAIRS_OF_IMAGES: _("Each input has a target of the same voxels; the target may also be a second noisy image."),
        NOISY_IMAGES: _("There is no truth; the loss noise2void learns from the noisy images themselves."),
    }[kind]
    where = {
        (FOLDER, True): _("inputs/ and targets/ with the same file names."),
        (FOLDER, False): _("Any folder of volumes or DICOM series."),
        (FILE, True): _("A table (.csv) with the columns input and target, and patient where there is one."),
        (FILE, False): _("A volume, or a table (.csv) with a column image."),
        (SCENE, True): _("They are written without patients' names."),
        (SCENE, False): _("They are written without patients' names."),
    }[source, kind == PAIRS_OF_IMAGES]
    return f"{what} {where}" if source == SCENE else f"{where} {what}"


def parameters_of(node: Any) -> Any:
    """The library's TrainingParameters of a wrapped parameter node. Raises InputError for labels that say nothing."""
    from MedMapAILib.training.parameters import TrainingParameters, parse_labels, parse_names

    fromScene, classifies, detects = node.source == SCENE, node.task == CLASSIFICATION, node.task == DETECTION
    images, generates = node.task == RECONSTRUCTION, node.task == GENERATION
    boxes = classifies or detects or generates
    network, loss = {
        CLASSIFICATION: (node.classNetwork, node.classLoss),
        DETECTION: (node.detNetwork, "detector"),
        RECONSTRUCTION: (node.imageNetwork, node.imageLoss),
        GENERATION: (node.generator, node.generatorLoss),
    }.get(node.task, (node.network, node.loss))
    pairs, samples, made = (
        tuple(
            tuple(one if one is None or isinstance(one, str) else one.GetID() for one in case)
            for case in cases_of(node.parameterNode, kind)
        )
        for kind in (PAIRS, SAMPLES, IMAGES)
    )
    return TrainingParameters(
        output=node.outputFolder,
        dataset=None if fromScene else node.datasetFile if node.source == FILE else node.datasetFolder,
        scene_cases=pairs if fromScene and not boxes and not images else (),
        scene_samples=samples if fromScene and boxes else (),
        scene_images=made if fromScene and images else (),
        task=node.task,
        name=node.modelName,
        network=network,
        loss=loss,
        optimizer=node.optimizer,
        learning_rate=node.learningRate,
        epochs=node.epochs,
        validation=node.validation,
        device=node.device,
        recipe=node.recipe or None,
        labels={} if fromScene or boxes or images else parse_labels(node.labels),
        classes=parse_names(node.classes) if boxes else (),
        class_columns=parse_names(node.classColumns) if boxes and not detects and node.source == FILE else (),
        attention=node.attention,
        members=node.members,
        weights=node.weights.strip(),
        mixup=node.mixup,
        backbone=node.backbone,
        region=node.region,
        frame="" if node.frame == AS_THE_FILE_SAYS or node.source != FILE else node.frame,
        data_kind=_KINDS[node.dataKind],
        acquisition=_acquisition_of(node) if images and node.dataKind == TRUE_IMAGES else {},
    )


def _acquisition_of(node: Any) -> dict[str, Any]:
    """Section [acquisition] as far as the panel has it. Raises InputError for what is no number, and no range."""
    from MedMapAILib.training.parameters import parse_range

    if node.acquisition == CT:
        return {
            "kind": "ct",
            "views": parse_range(node.views, _("Views"), whole=True),
            "photons": parse_range(node.photons, _("Photons")),
        }
    if node.acquisition == MR:
        return {
            "kind": "mr", "acceleration": parse_range(node.acceleration, _("Acceleration")), "coils": node.coils,
        }  # fmt: skip
    return {"kind": "noise", "sd": parse_range(node.noise, _("Noise"))}


def _take_acquisition(node: Any, recipe: dict[str, dict[str, Any]]) -> None:
    from MedMapAILib.training.parameters import range_text

    about = recipe["acquisition"]
    kind = {"ct": CT, "mr": MR, "noise": NOISE}.get(about["kind"])
    if kind is None:
        node.dataKind = NOISY_IMAGES if recipe["dataset"]["target"] == "self" else PAIRS_OF_IMAGES
        return
    node.dataKind, node.acquisition = TRUE_IMAGES, kind
    for key, field in (("views", "views"), ("photons", "photons"), ("acceleration", "acceleration"), ("sd", "noise")):
        if key in about:
            setattr(node, field, range_text(about[key]))
    node.coils = int(about.get("coils", node.coils))


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
        elif node.task == RECONSTRUCTION:
            node.imageNetwork, node.imageLoss = network["name"], recipe["loss"]["name"]
            _take_acquisition(node, recipe)
        elif node.task == GENERATION:
            node.generator, node.generatorLoss = network["name"], recipe["loss"]["name"]
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
