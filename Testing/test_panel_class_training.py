"""The panel MedMapAI Training with the task classification: its fields, folders, files and ROIs, and its curves."""

from __future__ import annotations

import panel_data
import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401
from MedMapAILib.training.config import complete_config
from MedMapAILib.training.parameters import TrainingParameters, write_config

PATIENCE = 240


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return panel_data.write_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture
def panel(slicer_host, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return slicer_host.openModule("MedMapAITraining")


@pytest.fixture
def recipe(pictures, tmp_path):
    """A recipe with a tiny network and few iterations."""
    config = panel_data.spot_config(pictures, epochs=3)
    config["network"] |= {"attention": "cbam", "members": 2}
    config["augmentation"] = {"mixup": 0.2}
    write_config(config, tmp_path / "spot.toml")
    return tmp_path / "spot.toml"


def choose_recipe(panel, recipe):
    panel.ui.recipeSelector.addItem("spot", str(recipe))
    panel.ui.recipeSelector.setCurrentIndex(panel.ui.recipeSelector.count - 1)


def visible(panel, *names):
    return [getattr(panel.ui, name).isVisibleTo(panel.parent) for name in names]


def wait(host, panel):
    host.process_events(lambda: not panel.logic.running, timeout_s=PATIENCE, message=panel.ui.logText.plainText)
    host.check()


# -- fields ------------------------------------------------------------------------------------------------------------


def test_fields_follow_task_and_source(slicer_host, panel):  # noqa: F811
    ui = panel.ui
    ui.advancedSection.collapsed = False
    of_segmentation = ("networkSelector", "lossSelector", "labelsEdit")
    of_classes = (
        "classNetworkSelector", "classLossSelector", "classesEdit", "attentionSelector", "membersSpinBox",
        "weightsEdit", "weightsButton", "mixupSpinBox",
    )  # fmt: skip
    assert visible(panel, *of_segmentation, *of_classes) == [True] * 3 + [False] * 8
    assert "images/ and labels/" in ui.datasetHint.text
    ui.taskSelector.currentText = "classification"
    assert visible(panel, *of_segmentation, *of_classes) == [False] * 3 + [True] * 8
    assert "One folder a class" in ui.datasetHint.text
    assert visible(panel, "datasetPath", "datasetFile", "classColumnsEdit") == [True, False, False]
    ui.sourceSelector.currentText = "Dataset file"
    assert visible(panel, "datasetPath", "datasetFile", "classColumnsEdit") == [False, True, True]
    assert ".npz" in ui.datasetHint.text
    ui.sourceSelector.currentText = "Nodes in the scene"
    assert visible(panel, "samplesWidget", "pairsWidget", "datasetFile") == [True, False, False]
    assert ui.statusLabel.text == "Add samples of at least 2 classes."
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_classification.png")
    slicer_host.check()
    assert panel_data.widgets_without_tool_tip(panel) == []


def test_choices_are_those_of_the_library(panel):
    from MedMapAILib.networks.classifier import ATTENTION

    import MedMapAITraining as module

    assert sorted(module.ATTENTION) == sorted(ATTENTION)
    items = [panel.ui.classNetworkSelector.itemText(n) for n in range(panel.ui.classNetworkSelector.count)]
    assert items == module.CLASS_NETWORKS


def test_recipe_of_a_classification(slicer_host, panel, recipe, pictures):  # noqa: F811
    ui = panel.ui
    choose_recipe(panel, recipe)
    slicer_host.check()
    assert ui.taskSelector.currentText == "classification" and ui.classNetworkSelector.currentText == "resnet18"
    assert ui.classesEdit.text == "dark, bright spot" and ui.membersSpinBox.value == 2
    assert ui.attentionSelector.currentText == "cbam" and ui.mixupSpinBox.value == pytest.approx(0.2)
    assert ui.datasetPath.currentPath == str(pictures.resolve())
    # What the recipe says of its network beyond the panel is kept; its task is not forced on another.
    ui.membersSpinBox.value = 3
    ui.outputPath.currentPath = str(pictures.parent / "new")
    config = panel.parameters().config()
    assert config["network"] == {"name": "resnet18", "width": 0.125, "attention": "cbam", "members": 3}
    ui.taskSelector.currentText = "segmentation"
    assert panel._parameterNode.recipe == "" and panel.parameters().config()["task"] == {"name": "segmentation"}


def test_settings_become_a_configuration(panel, tmp_path):
    ui = panel.ui
    (tmp_path / "table.csv").write_text("image,finding\n")
    ui.taskSelector.currentText = "classification"
    ui.sourceSelector.currentText = "Dataset file"
    assert "folder or file" in ui.statusLabel.text
    ui.datasetFile.currentPath = str(tmp_path / "table.csv")
    ui.outputPath.currentPath = str(tmp_path / "output")
    ui.classColumnsEdit.text = "effusion, nodule"
    ui.classNetworkSelector.currentText = "densenet121"
    ui.classLossSelector.currentText = "focal"
    ui.attentionSelector.currentText = "se"
    ui.membersSpinBox.value = 2
    ui.mixupSpinBox.value = 0.4
    panel.weightsMenu.actions()[1].trigger()
    assert ui.weightsEdit.text == "imagenet" and ui.startButton.enabled, ui.statusLabel.text
    config = complete_config(panel.parameters().config())
    assert config["dataset"]["class_columns"] == ["effusion", "nodule"]
    assert config["network"] == {"name": "densenet121", "attention": "se", "members": 2}
    assert (config["loss"]["name"], config["transfer"]["weights"]) == ("focal", "imagenet")
    assert config["augmentation"]["mixup"] == pytest.approx(0.4)
    ui.classColumnsEdit.text = "finding"
    data = panel.parameters().config()["dataset"]
    assert (data["class_column"], data["class_columns"]) == ("finding", [])
    ui.classesEdit.text = "normal"
    assert "at least 2 classes" in ui.statusLabel.text


def test_weights_from_a_file_and_a_folder(slicer_host, panel, tmp_path):  # noqa: F811
    panel.ui.taskSelector.currentText = "classification"
    slicer_host.answer(str(tmp_path / "resnet.pth"))
    panel.weightsMenu.actions()[2].trigger()
    assert panel.ui.weightsEdit.text == str(tmp_path / "resnet.pth")
    slicer_host.answer(str(tmp_path))
    panel.weightsMenu.actions()[3].trigger()
    assert panel.parameters().weights == str(tmp_path)
    panel.weightsMenu.actions()[0].trigger()
    assert panel.parameters().weights == ""
    slicer_host.check()


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], "Add samples of at least 2 classes"),
        ([(None, None, "a")], "Sample 1 has no volume"),
        ([("v", "r", " ")], "Sample 1 has no class"),
        ([("v", "r", "a"), ("v", "s", "a"), ("v", "t", "b"), ("w", "u", "b")], "Only one volume has samples of a"),
        ([("v", "r", "a"), ("v", "r", "a"), ("w", None, "a"), ("v", "t", "b"), ("w", "u", "b")], "same sample"),
    ],
)
def test_samples_are_checked(tmp_path, samples, said):
    set_up = TrainingParameters(str(tmp_path / "o"), task="classification", scene_samples=tuple(samples))
    assert said in set_up.is_valid()[1]


# -- data and training -------------------------------------------------------------------------------------------------


def test_check_counts_the_classes(slicer_host, panel, pictures):  # noqa: F811
    panel.ui.taskSelector.currentText = "classification"
    panel.ui.datasetPath.currentPath = str(pictures)
    panel.ui.outputPath.currentPath = str(pictures.parent / "new")
    panel.ui.checkButton.click()
    slicer_host.check()
    text = panel.ui.dataReport.plainText
    assert "24 of 24 cases can be trained on" in text and "bright spot" in text and "50.0 %" in text
    assert "binary" in text and "No problems found" in text


def test_click_through(slicer_host, panel, recipe, tmp_path):  # noqa: F811
    run = slicer_host.openModule("MedMapAI")
    slicer_host.selectModule("MedMapAITraining")
    choose_recipe(panel, recipe)
    panel.ui.deviceSelector.currentText = "cpu"
    panel.ui.outputPath.currentPath = str(tmp_path / "output")
    assert panel.ui.startButton.enabled, panel.ui.statusLabel.text
    panel.ui.startButton.click()
    wait(slicer_host, panel)
    assert "Finished" in panel.ui.statusLabel.text, panel.ui.logText.plainText
    assert "AUC" in panel.ui.logText.plainText
    table = panel.logic.tableNode
    assert table.GetColumnIndex("Validation AUC") > 0 and table.GetNumberOfRows() == 3
    assert run._models["bright-spot"].task == "classification"
    # The curves of the cases held out can be looked at.
    selector = panel.ui.chartSelector
    titles = [selector.itemText(n) for n in range(selector.count)]
    assert titles == ["Learning curve", "ROC", "Precision and recall", "Reliability"] and selector.visible
    assert panel.charts.viewNode.GetPlotChartNode() == panel.logic.chartNode
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_classification_curve.png")
    selector.setCurrentIndex(1)
    assert panel.charts.viewNode.GetPlotChartNode() == panel.logic.curveNodes["roc"]
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_roc.png")
    selector.setCurrentIndex(3)
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_reliability.png")
    slicer_host.check()


def roi_node(name, center, size):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    node.CreateDefaultDisplayNodes()
    node.SetCenterWorld(center)
    node.SetSizeWorld(size)
    return node


def test_regions_of_the_scene_are_samples(slicer_host, panel, recipe, tmp_path):  # noqa: F811
    """Bright balls and plain noise, each in a box of its own, in two scans."""
    for number in range(2):
        volume, truth = panel_data.volume_node(number, name=f"Mr Secret {number}")
        where = truth.centroids_ras()["ball"]
        panel_data.show(volume)
        for name, center in (("ball", where), ("noise", (where[0], where[1], where[2] + 9))):
            for turn in range(2):
                shifted = [center[0] + 2 * turn, center[1], center[2]]
                roi_node(f"{name}_{2 * number + turn + 1}", shifted, [10, 10, 8])
        panel.ui.taskSelector.currentText = "classification"
        panel.ui.sourceSelector.currentText = "Nodes in the scene"
        if number:
            # A row for the whole volume, and away with it.
            panel.ui.addSampleButton.click()
            row = panel.ui.samplesTable.rowCount - 1
            panel.ui.samplesTable.cellWidget(row, 0).setCurrentNode(volume)
            panel.ui.samplesTable.cellWidget(row, 1).setCurrentNode(None)
            panel.ui.removeSampleButton.click()
        panel.ui.addRoisButton.click()
    slicer_host.check()
    samples = panel.parameters().scene_samples
    assert len({volume for volume, _, _ in samples}) == 2, "each ROI goes with the volume that is shown"
    assert len(samples) == 8 and [name for _, _, name in samples[:4]] == ["ball", "ball", "noise", "noise"]
    panel.ui.samplesTable.cellWidget(0, 2).text = ""
    assert "Sample 1 has no class" in panel.ui.statusLabel.text
    panel.ui.samplesTable.cellWidget(0, 2).text = "ball"
    panel.ui.outputPath.currentPath = str(tmp_path / "output")
    assert panel.ui.startButton.enabled, panel.ui.statusLabel.text
    panel.ui.checkButton.click()
    slicer_host.check()
    assert "8 of 8 cases" in panel.ui.dataReport.plainText
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_samples.png")
    # Kept with the scene.
    slicer_host.selectModule("")
    slicer_host.selectModule("MedMapAITraining")
    assert panel.parameters().scene_samples == samples and panel.ui.samplesTable.rowCount == 8
    panel.ui.epochsSpinBox.value = 1
    panel.ui.deviceSelector.currentText = "cpu"
    panel.ui.startButton.click()
    slicer_host.check()
    wait(slicer_host, panel)
    assert "Finished" in panel.ui.statusLabel.text, panel.ui.logText.plainText
    files = [path for path in (tmp_path / "output").rglob("*") if path.is_file()]
    assert not [path for path in files if "Secret" in str(path.relative_to(tmp_path))]
    assert not [path for path in files if b"Secret" in path.read_bytes()]
