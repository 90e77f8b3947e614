"""What both panels' tests need: a model trained for a moment, volumes in the scene, and a look at every widget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from MedMapAILib import mrml
from MedMapAILib.image import make_image
from MedMapAILib.results import Segmentation
from synthetic import SEGMENTS, ball_and_box, small_config, write_dataset

ARTIFACTS = Path(__file__).resolve().parent / "artifacts"


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
        name for name, widget in vars(panel.ui).items()
        if not name.startswith("_") and hasattr(widget, "toolTip") and not widget.toolTip
        and any(word in widget.className() for word in used)
        and not name.startswith("qt_") and "ctkCollapsibleButton" not in widget.className()
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
