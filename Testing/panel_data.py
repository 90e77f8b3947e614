"""What both panels' tests need: a model trained for a moment, volumes in the scene, and a look at every widget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from MedMapAILib import mrml
from MedMapAILib.image import make_image
from MedMapAILib.results import Segmentation
from synthetic import SEGMENTS, ball_and_box, small_config, write_dataset

ARTIFACTS = Path(__file__).resolve().parent / "artifacts"
#: Real ones, of PneumoniaMNIST.
RADIOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "pneumoniamnist" / "pneumoniamnist_trainval.npz"


def train_small_model(folder: Path) -> Path:
    """Train "ball-and-box" for a moment. Returns the bundle's folder, renamed to the model's name."""
    from MedMapAILib.training.run import train

    data = write_dataset(folder / "balls", 4)
    config = small_config(data, epochs=40, iterations_per_epoch=4, ema_decay=0.9)
    config["network"] = {"name": "unet", "filters": [8, 16, 16]}
    config["optimizer"] = {"learning_rate": 5e-3}
    bundle = train(config, folder / "output")
    models = folder / "models"
    models.mkdir()
    return bundle.rename(models / "ball-and-box")


def picture(seed: int, spot: bool) -> np.ndarray:
    """A gray picture (rows, columns) uint8 of noise, with a bright square in it or without."""
    random = np.random.default_rng(seed)
    pixels = random.normal(90, 12, (30, 32))
    if spot:
        row, column = random.integers(6, 18, 2)
        pixels[row : row + 6, column : column + 6] += 90
    return pixels.clip(0, 255).astype(np.uint8)


def write_pictures(folder: Path, each: int = 12) -> Path:
    """A folder with the folders "dark" and "bright spot" of PNG files."""
    import SimpleITK as sitk

    for number, name in enumerate(("dark", "bright spot")):
        (folder / name).mkdir(parents=True)
        for seed in range(each):
            pixels = picture(1000 * number + seed, spot=bool(number))
            sitk.WriteImage(sitk.GetImageFromArray(pixels), str(folder / name / f"{seed:03}.png"))
    return folder


def spot_config(data: Path, **training) -> dict:
    """A configuration that trains a tiny classifier for a moment."""
    return {
        "task": {"name": "classification"},
        "dataset": {"path": str(data), "classes": ["dark", "bright spot"]},
        "split": {"validation": 0.4},
        "network": {"name": "resnet18", "width": 0.125},
        "optimizer": {"learning_rate": 5e-3},
        "training": {
            "epochs": 6, "iterations_per_epoch": 5, "batch": 8, "device": "cpu", "ema_decay": 0.5, **training,
        },
        "model": {"name": "bright-spot", "title": "Bright spot", "modality": "synthetic", "half_precision": False},
    }  # fmt: skip


def train_small_classifier(folder: Path) -> Path:
    """Train "bright-spot" for a moment. Returns the bundle's folder, renamed to the model's name."""
    from MedMapAILib.training.run import train

    bundle = train(spot_config(write_pictures(folder / "pictures")), folder / "output")
    models = folder / "models"
    models.mkdir()
    return bundle.rename(models / "bright-spot")


def picture_node(seed: int, spot: bool, colors: bool = False, name: str = "Picture"):
    """A picture in the scene, as Slicer loads a PNG file: a scalar volume, or a vector volume of colors."""
    import slicer

    pixels = picture(seed, spot)[None]
    if colors:
        pixels = np.stack([pixels] * 3, axis=-1)
    kind = "vtkMRMLVectorVolumeNode" if colors else "vtkMRMLScalarVolumeNode"
    return slicer.util.addVolumeFromArray(pixels, np.diag([-1.0, -1, 1, 1]), name, kind)


def volume_node(seed=100, name="Scan", **options):
    """A ball and a box in the scene: (volume node, Segmentation that is true)."""
    voxels, labels, affine = ball_and_box(seed, **options)
    node = mrml.volume_node_from_image(make_image(voxels[None], affine), name=name)
    return node, Segmentation(labels, affine, SEGMENTS)


def case_nodes(seed, name="Scan"):
    """A volume node and a segmentation node drawn on it."""
    node, truth = volume_node(seed, name)
    return node, mrml.node_from_segmentation(truth, name=f"{name} drawn", referenceVolumeNode=node)


def scene_content():
    """What the scene holds, as far as a user sees: (class, name) of each node that is not hidden."""
    import slicer

    nodes = [slicer.mrmlScene.GetNthNode(n) for n in range(slicer.mrmlScene.GetNumberOfNodes())]
    return sorted((n.GetClassName(), n.GetName()) for n in nodes if not n.GetHideFromEditors())


def widgets_without_tool_tip(panel) -> list[str]:
    """Names of the widgets that a person uses and that say nothing when pointed at."""
    used = ("Button", "Box", "Edit", "Label", "Browser", "Table", "Bar", "ComboBox", "Selector")
    return sorted(
        name
        for name, widget in vars(panel.ui).items()
        if not name.startswith("_")
        and hasattr(widget, "toolTip")
        and not widget.toolTip
        and any(word in widget.className() for word in used)
        and not name.startswith("qt_")
        and "ctkCollapsibleButton" not in widget.className()
    )


def labels_of(segmentation_node, volume) -> np.ndarray:
    """Labels (I, J, K) of a segmentation node on a volume's grid."""
    return mrml.segmentation_from_node(segmentation_node, volume).labels


def show(volume) -> None:
    """Show a volume in the slice views, whole, through the middle of it."""
    import slicer

    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    center = [(bounds[n] + bounds[n + 1]) / 2 for n in (0, 2, 4)]
    for slice_node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        slice_node.JumpSliceByCentering(*center)


def write_scans_of_balls(folder: Path, count: int = 6) -> Path:
    """A data set of scans (CT-like, voxels of 1 mm) with a ball of 8 mm in each, as a list of boxes: images/ and
    findings.csv."""
    from MedMapAILib.datasets.scene import write_detection_cases
    from MedMapAILib.results import FindingReference

    def cases():
        for seed in range(count):
            image, finding = scan_of_a_ball(seed)
            yield image, FindingReference(("ball",), (finding,))

    write_detection_cases(cases(), folder)
    return folder


def scan_of_a_ball(seed: int):
    """(image (1, 32, 32, 24), the Finding that is true): a bright ball of 8 mm somewhere in noise."""
    from MedMapAILib.results import finding_of_sphere

    random = np.random.default_rng(seed)
    voxels = random.normal(-800, 30, (32, 32, 24))
    center = random.uniform(8, np.array(voxels.shape) - 8)
    distance = np.linalg.norm(np.moveaxis(np.indices(voxels.shape), 0, -1) - center, axis=-1)
    voxels[distance <= 4] += 800
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = (-20, 10, 50)
    finding = finding_of_sphere(tuple(affine[:3, :3] @ center + affine[:3, 3]), 8.0, "ball", state="reference")
    return make_image(voxels[None].astype(np.float32), affine), finding


def ball_config(data: Path, **training) -> dict:
    """A configuration that trains a tiny detector for a moment."""
    return {
        "task": {"name": "detection"},
        "dataset": {"path": str(data), "classes": ["ball"]},
        "split": {"validation": 0.34, "seed": 1},
        "plan": {"spacing": [1.0, 1.0, 1.0], "patch": [32, 32, 16], "batch": 2},
        "network": {"name": "retinanet", "width": 0.5},
        "optimizer": {"learning_rate": 5e-3},
        "training": {"epochs": 3, "iterations_per_epoch": 5, "device": "cpu", "ema_decay": 0.5, **training},
        "augmentation": {"affine": 0.0, "noise": 0.0, "blur": 0.0, "gamma": 0.0, "bias_field": 0.0},
        "model": {"name": "balls", "title": "Balls", "modality": "synthetic", "half_precision": False},
    }


def train_small_detector(folder: Path, **training) -> Path:
    """Train "balls" for a moment. Returns the bundle's folder, renamed to the model's name."""
    from MedMapAILib.training.run import train

    bundle = train(ball_config(write_scans_of_balls(folder / "balls"), **training), folder / "output")
    models = folder / "models"
    models.mkdir()
    return bundle.rename(models / "balls")
