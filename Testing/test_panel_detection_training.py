"""The panel MedMapAI Training with the task detection: its fields, data sets and boxes of the scene, and its curves."""

from __future__ import annotations

import numpy as np
import panel_data
import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401
from MedMapAILib import mrml
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image
from MedMapAILib.training.config import complete_config
from MedMapAILib.training.parameters import TrainingParameters, write_config

PATIENCE = 240


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return panel_data.write_scans_of_balls(tmp_path_factory.mktemp("data") / "balls")


@pytest.fixture
def panel(slicer_host, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return slicer_host.openModule("MedMapAITraining")


@pytest.fixture
def recipe(scans, tmp_path):
    """A recipe with a tiny network and few iterations."""
    write_config(panel_data.ball_config(scans, epochs=2), tmp_path / "ball.toml")
    return tmp_path / "ball.toml"


def choose_recipe(panel, recipe):
    panel.ui.recipeSelector.addItem("ball", str(recipe))
    panel.ui.recipeSelector.setCurrentIndex(panel.ui.recipeSelector.count - 1)


def visible(panel, *names):
    return [getattr(panel.ui, name).isVisibleTo(panel.parent) for name in names]


def wait(host, panel):
    host.process_events(lambda: not panel.logic.running, timeout_s=PATIENCE, message=panel.ui.logText.plainText)
    host.check()


# -- fields ------------------------------------------------------------------------------------------------------------


def test_fields_of_a_detection(slicer_host, panel):  # noqa: F811
    ui = panel.ui
    ui.advancedSection.collapsed = False
    own = ("detNetworkSelector", "backboneSelector", "regionSelector", "classesEdit")
    others = (
        "networkSelector", "classNetworkSelector", "lossSelector", "classLossSelector", "labelsEdit", "mixupSpinBox",
        "attentionSelector", "weightsEdit", "weightsButton", "classColumnsEdit",
    )  # fmt: skip
    assert visible(panel, *own, "frameSelector") == [False] * 5
    ui.taskSelector.currentText = "detection"
    assert visible(panel, *own) == [True] * 4 and visible(panel, *others) == [False] * 10
    assert "LUNA16" in ui.datasetHint.text and "nnDetection" in ui.datasetHint.text
    assert visible(panel, "frameSelector") == [False]
    ui.sourceSelector.currentText = "Dataset file"
    assert visible(panel, "frameSelector", "datasetFile") == [True, True] and "COCO" in ui.datasetHint.text
    ui.sourceSelector.currentText = "Nodes in the scene"
    assert visible(panel, "samplesWidget", "pairsWidget", "frameSelector") == [True, False, False]
    assert ui.statusLabel.text == "Add boxes in at least 2 volumes: one to train on and one to check the model."
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_detection.png")
    slicer_host.check()
    assert panel_data.widgets_without_tool_tip(panel) == []


def test_choices_are_those_of_the_library(panel):
    from MedMapAILib.networks import DETECTION
    from MedMapAILib.networks.detection.backbones import BACKBONES
    from MedMapAILib.plan import REGIONS

    import MedMapAITraining as module

    assert sorted(module.DET_NETWORKS) == sorted(DETECTION)
    assert set(module.BACKBONES) <= set(BACKBONES) | {"light"}
    assert sorted(module.REGIONS) == sorted(REGIONS)
    items = [panel.ui.detNetworkSelector.itemText(n) for n in range(panel.ui.detNetworkSelector.count)]
    assert items == module.DET_NETWORKS


def test_settings_become_a_configuration(panel, tmp_path):
    ui = panel.ui
    (tmp_path / "boxes.csv").write_text("image,x,y,z,diameter\n")
    ui.taskSelector.currentText = "detection"
    ui.sourceSelector.currentText = "Dataset file"
    ui.datasetFile.currentPath = str(tmp_path / "boxes.csv")
    ui.outputPath.currentPath = str(tmp_path / "output")
    ui.detNetworkSelector.currentText = "mask-rcnn"
    ui.backboneSelector.currentText = "resnet18-fpn"
    ui.regionSelector.currentText = "lungs"
    ui.frameSelector.currentText = "LPS"
    ui.classesEdit.text = "nodule"
    assert ui.startButton.enabled, ui.statusLabel.text
    config = complete_config(panel.parameters().config())
    assert config["task"] == {"name": "detection"} and config["loss"] == {"name": "detector"}
    assert config["network"] == {"name": "mask-rcnn", "backbone": "resnet18-fpn"}
    assert config["plan"]["region"] == "lungs"
    assert (config["dataset"]["classes"], config["dataset"]["frame"]) == (["nodule"], "LPS")
    ui.frameSelector.currentText = "as the file says"
    assert panel.parameters().config()["dataset"]["frame"] is None
    ui.classesEdit.text = "nodule, nodule"
    assert "each once" in ui.statusLabel.text


def test_recipe_of_a_detection(slicer_host, panel, recipe, scans):  # noqa: F811
    ui = panel.ui
    choose_recipe(panel, recipe)
    slicer_host.check()
    assert ui.taskSelector.currentText == "detection" and ui.detNetworkSelector.currentText == "retinanet"
    assert ui.classesEdit.text == "ball" and ui.datasetPath.currentPath == str(scans.resolve())
    ui.outputPath.currentPath = str(scans.parent / "new")
    config = panel.parameters().config()
    assert config["network"] == {"name": "retinanet", "width": 0.5, "backbone": "light"}
    assert config["plan"]["patch"] == [32, 32, 16] and config["plan"]["region"] == "all"


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([("a", "r1", "ball"), (None, "r2", "ball")], "Row 2 has no volume"),
        ([("a", "r1", " "), ("b", "r2", "ball")], "Row 1 has no class"),
        ([("a", "r1", "ball"), ("b", None, "")], "boxes in at least 2 volumes"),
        ([("a", "r1", "ball"), ("b", "r2", "ball"), ("a", "r1", "ball")], "Two rows hold the same box"),
        ([("a", "r1", "ball"), ("b", "r2", "ball"), ("c", None, "")], ""),
    ],
)
def test_boxes_of_the_scene_are_checked(tmp_path, samples, said):
    parameters = TrainingParameters(
        str(tmp_path / "output"), scene_samples=tuple(samples), task="detection", network="retinanet", loss="detector"
    )
    valid, reason = parameters.is_valid()
    assert valid == (not said) and said in reason


# -- training ----------------------------------------------------------------------------------------------------------


def test_check_and_train(slicer_host, panel, recipe, tmp_path):  # noqa: F811
    ui = panel.ui
    choose_recipe(panel, recipe)
    ui.outputPath.currentPath = str(tmp_path / "output")
    ui.checkButton.click()
    slicer_host.check()
    assert "6 of 6 cases can be trained on" in ui.dataReport.html and "ball" in ui.dataReport.html
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_detection_check.png")
    assert ui.startButton.enabled, ui.statusLabel.text
    ui.startButton.click()
    wait(slicer_host, panel)
    assert "Finished" in ui.statusLabel.text, ui.logText.plainText
    assert "FROC" in ui.logText.plainText
    assert panel.logic.tableNode.GetColumnName(3) == "Validation FROC"
    titles = [ui.chartSelector.itemText(n) for n in range(ui.chartSelector.count)]
    assert titles == ["Learning curve", "FROC", "Precision and recall"]
    ui.chartSelector.setCurrentIndex(1)
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_froc.png")
    chart = panel.logic.curveNodes["froc"]
    assert chart.GetXAxisRange() == (0.0, 8.0) and chart.GetYAxisRange() == (0.0, 1.0)


def test_boxes_of_the_scene_become_cases(slicer_host, panel, tmp_path):  # noqa: F811
    import slicer
    from MedMapAILib.datasets import open_dataset
    from MedMapAILib.datasets.loading import load_case
    from MedMapAIQt.scene_cases import export_findings

    truths = []
    for seed in range(3):
        image, truth = panel_data.scan_of_a_ball(seed)
        image.affine[0, 3] += 100.0 * seed  # each in its own place, so that a box lies in one volume only
        center = (truth.center[0] + 100.0 * seed, *truth.center[1:])
        volume = mrml.volume_node_from_image(image, name=f"Mr Secret {seed}")
        truths.append((volume, center))
        if seed < 2:
            roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", f"ball_{seed}")
            roi.SetCenter(*center)
            roi.SetSize(8, 8, 8)
    ui = panel.ui
    ui.taskSelector.currentText = "detection"
    ui.sourceSelector.currentText = "Nodes in the scene"
    ui.outputPath.currentPath = str(tmp_path / "output")
    ui.addRoisButton.click()
    samples = panel.tables[panel_samples()].cases
    assert [(volume.GetName(), roi.GetName(), name) for volume, roi, name in samples] == [
        ("Mr Secret 0", "ball_0", "ball"), ("Mr Secret 1", "ball_1", "ball"),
    ]  # fmt: skip
    assert ui.startButton.enabled, ui.statusLabel.text
    export_findings([*samples, (truths[2][0], None, "")], tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    assert dataset.task == "detection" and [len(case.findings) for case in dataset.cases] == [1, 1, 0]
    _, reference = load_case(dataset.cases[1], dataset)
    assert reference.findings[0].center == pytest.approx(truths[1][1], abs=1e-3)
    assert not any("Secret" in path.name for path in tmp_path.rglob("*"))
    slicer_host.check()


def panel_samples():
    from MedMapAIQt.case_list import SAMPLES

    return SAMPLES


def test_parts_of_a_segmentation_become_findings(slicer_host, tmp_path):  # noqa: F811
    """Two cubes of one segment and one of another: three findings with their voxels, in the boxes that they fill."""
    from MedMapAILib.datasets import open_dataset
    from MedMapAILib.datasets.loading import load_case
    from MedMapAILib.results import Segment, Segmentation
    from MedMapAIQt.scene_cases import export_findings, export_samples

    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = -20, 30, 5
    labels = np.zeros((30, 30, 20), dtype=np.uint8)
    labels[3:8, 4:8, 2:6] = 1
    labels[15:20, 4:8, 10:12] = 1
    labels[3:5, 20:22, 15:16] = 2
    voxels = np.random.default_rng(0).normal(-800, 20, labels.shape) + 600 * (labels > 0)
    volume = mrml.volume_node_from_image(make_image(voxels[None], affine), name="Scan")
    segments = (Segment(1, "large", (1, 0, 0)), Segment(2, "small", (0, 1, 0)))
    drawn = mrml.node_from_segmentation(
        Segmentation(labels, affine, segments), name="Drawn", referenceVolumeNode=volume
    )
    export_findings([(volume, drawn, "nodule")], tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    image, reference = load_case(dataset.cases[0], dataset)
    assert dataset.findings == ("nodule",) and len(reference.findings) == 3
    np.testing.assert_array_equal(reference.instances > 0, labels > 0)
    sizes = sorted(finding.size for finding in reference.findings)
    np.testing.assert_allclose(sizes, [(2, 2, 2), (5, 4, 4), (5, 4, 8)], atol=1e-3)
    with pytest.raises(InputError, match="choose an ROI"):
        export_samples([(volume, drawn, "nodule")], tmp_path / "classes")
    assert not (tmp_path / "classes").exists()
