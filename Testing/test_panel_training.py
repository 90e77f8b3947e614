"""The panel MedMapAI Training, clicked through in the host: check, start, live curve, stop, resume, bad input."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import panel_data
import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401
from MedMapAILib.training.config import read_config
from MedMapAILib.training.parameters import write_config
from synthetic import small_config, write_dataset

#: Long enough for a child process that imports torch on a busy machine.
PATIENCE = 240


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "balls", 6)


@pytest.fixture
def own_models(tmp_path, monkeypatch):
    """The user's models are in a folder of the test's own; the child process gets one thread."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "home" / ".medmapai" / "models"


@pytest.fixture
def panel(slicer_host, own_models):  # noqa: F811
    return slicer_host.openModule("MedMapAITraining")


@pytest.fixture
def small_recipe(data, tmp_path):
    """A recipe with a tiny network and few iterations."""
    config = small_config(data)
    config["model"] = {"name": "tiny"}
    write_config(config, tmp_path / "tiny.toml")
    return tmp_path / "tiny.toml"


def set_up(panel, recipe, data, output, epochs):
    """Fill in the panel as a person would."""
    panel.ui.recipeSelector.addItem("tiny", str(recipe))
    panel.ui.recipeSelector.setCurrentIndex(panel.ui.recipeSelector.count - 1)
    panel.ui.datasetPath.currentPath = str(data)
    panel.ui.outputPath.currentPath = str(output)
    panel.ui.epochsSpinBox.value = epochs
    panel.ui.deviceSelector.currentText = "cpu"


def wait(host, panel, until=None):
    """Let Qt work until the training process has ended, or something else is so."""
    host.process_events(
        until or (lambda: not panel.logic.running), timeout_s=PATIENCE, message=panel.ui.logText.plainText
    )
    host.check()


def curve(panel):
    """Finite values of each column of the history table, as the plot draws them."""
    import slicer

    table = panel.logic.tableNode
    columns = {}
    for name in ("Epoch", "Training loss", "Validation Dice"):
        values = slicer.util.arrayFromTableColumn(table, name)
        columns[name] = [float(v) for v in values if np.isfinite(v)]
    return columns


# -- opening -----------------------------------------------------------------------------------------------------------


def test_open_panel_says_what_is_missing_step_by_step(slicer_host, panel, data, tmp_path):  # noqa: F811
    ui = panel.ui
    assert not ui.startButton.enabled and not ui.stopButton.enabled and not ui.resumeButton.enabled
    assert ui.statusLabel.text == "Choose the folder or file with the training cases."
    ui.datasetPath.currentPath = str(data)
    assert ui.statusLabel.text == "Choose an output folder."
    ui.outputPath.currentPath = str(data)
    assert "The output folder is the data folder" in ui.statusLabel.text
    ui.outputPath.currentPath = str(tmp_path / "new")
    assert ui.startButton.enabled and not ui.statusLabel.text
    ui.nameEdit.text = "no spaces please"
    assert "name" in ui.statusLabel.text and not ui.startButton.enabled
    ui.nameEdit.text = "fine"
    ui.labelsEdit.text = "nonsense"
    assert "1 anterior, 2 posterior" in ui.statusLabel.text
    ui.labelsEdit.text = ""
    ui.sourceSelector.currentText = "Nodes in the scene"
    assert "at least 2 cases" in ui.statusLabel.text
    slicer_host.check()


def test_everything_says_what_it_is_for(panel):
    assert panel_data.widgets_without_tool_tip(panel) == []


def test_choices_are_those_of_the_library(panel):
    from MedMapAILib import losses, networks

    import MedMapAITraining as module

    assert sorted(module.NETWORKS) == sorted(networks.SEGMENTATION)
    assert sorted(module.LOSSES) == sorted(losses.SEGMENTATION)
    assert sorted(module.CLASS_NETWORKS) == sorted(networks.CLASSIFICATION)
    assert sorted(module.CLASS_LOSSES) == sorted(losses.CLASSIFICATION)
    items = [panel.ui.networkSelector.itemText(n) for n in range(panel.ui.networkSelector.count)]
    assert items == module.NETWORKS


def test_recipe_fills_in_the_fields(slicer_host, panel):  # noqa: F811
    index = panel.ui.recipeSelector.findText("hippocampus")
    assert index > 0, "the recipe that ships"
    panel.ui.recipeSelector.setCurrentIndex(index)
    slicer_host.check()
    assert panel.ui.nameEdit.text == "hippocampus"
    assert panel.ui.labelsEdit.text == "1 Anterior hippocampus, 2 Posterior hippocampus"
    recipe = read_config(panel.ui.recipeSelector.currentData)
    assert panel.ui.epochsSpinBox.value == recipe["training"]["epochs"] != 100
    assert panel.ui.networkSelector.currentText == recipe["network"]["name"]
    assert panel.ui.learningRateSpinBox.value == pytest.approx(recipe["optimizer"]["learning_rate"])


def test_settings_outlive_leaving_the_module(slicer_host, panel, data):  # noqa: F811
    panel.ui.datasetPath.currentPath = str(data)
    panel.ui.lossSelector.currentText = "tversky"
    panel.ui.epochsSpinBox.value = 7
    slicer_host.selectModule("")
    slicer_host.selectModule("MedMapAITraining")
    assert panel.ui.datasetPath.currentPath == str(data)
    assert panel.ui.lossSelector.currentText == "tversky" and panel.ui.epochsSpinBox.value == 7
    slicer_host.closeScene()
    slicer_host.check()
    assert panel.ui.epochsSpinBox.value == 100, "a new scene begins with the defaults"


def test_own_test_of_the_module_passes(slicer_host, panel):  # noqa: F811
    slicer_host.runSelfTest("MedMapAITraining")


# -- checking data -----------------------------------------------------------------------------------------------------


def test_check_shows_what_the_data_are_like(slicer_host, panel, data):  # noqa: F811
    panel.ui.datasetPath.currentPath = str(data)
    panel.ui.labelsEdit.text = "1 ball, 2 box"
    panel.ui.checkButton.click()
    slicer_host.check()
    text = panel.ui.dataReport.plainText
    assert panel.ui.dataReport.isVisibleTo(panel.parent)
    assert "6 of 6 cases can be trained on" in text and "24 × 26 × 22" in text and "ball" in text
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_check.png")


def test_check_tells_in_a_dialog_what_is_no_data_set(slicer_host, panel, tmp_path):  # noqa: F811
    (tmp_path / "empty").mkdir()
    panel.ui.datasetPath.currentPath = str(tmp_path / "empty")
    before = panel_data.scene_content()
    slicer_host.answer("Ok")
    panel.ui.checkButton.click()
    slicer_host.check()
    assert "no data set" in slicer_host.dialogs[-1].text
    assert panel_data.scene_content() == before


# -- training ----------------------------------------------------------------------------------------------------------


def test_click_through(slicer_host, panel, small_recipe, data, tmp_path, own_models):  # noqa: F811
    run = slicer_host.openModule("MedMapAI")
    slicer_host.selectModule("MedMapAITraining")
    output = tmp_path / "output"
    set_up(panel, small_recipe, data, output, epochs=2)
    assert panel.ui.startButton.enabled, panel.ui.statusLabel.text
    panel.ui.startButton.click()
    assert panel.logic.running and panel.ui.stopButton.enabled and not panel.ui.startButton.enabled
    assert not panel.ui.dataSection.enabled and panel.ui.progressBar.isVisibleTo(panel.parent)
    wait(slicer_host, panel)
    assert "Finished" in panel.ui.statusLabel.text and "tiny" in panel.ui.statusLabel.text
    assert curve(panel)["Epoch"] == [1, 2]
    assert len(curve(panel)["Training loss"]) == 2 and len(curve(panel)["Validation Dice"]) == 2
    assert panel.charts.viewNode.GetPlotChartNode() == panel.logic.chartNode
    assert (output / "config.toml").is_file() and (output / "plan.json").is_file()
    # The model is the user's now, and in the other module's list.
    assert [path.name for path in own_models.iterdir()] == ["tiny"]
    assert "tiny" in run._models
    assert "holds a training" in panel.ui.startButton.toolTip and not panel.ui.resumeButton.enabled


@pytest.mark.slow
def test_stop_resume_and_live_curve(slicer_host, panel, small_recipe, data, tmp_path):  # noqa: F811
    output = tmp_path / "balls-and-boxes"
    set_up(panel, small_recipe, data, output, epochs=400)
    panel.ui.startButton.click()
    wait(slicer_host, panel, lambda: len(panel.logic.rows) >= 40 or not panel.logic.running)
    assert panel.logic.running, panel.ui.logText.plainText
    live = curve(panel)
    assert len(live["Training loss"]) >= 40, "the curve grows while it trains"
    panel.ui.logSection.collapsed = False
    assert "Epoch" in panel.ui.statusLabel.text and "validation loss" in panel.ui.logText.plainText
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training.png")
    panel.ui.stopButton.click()
    assert not panel.ui.stopButton.enabled
    wait(slicer_host, panel)
    assert "press Resume" in panel.ui.statusLabel.text
    assert (output / "checkpoint.pt").is_file()
    assert panel.ui.resumeButton.enabled and not panel.ui.startButton.enabled
    stopped_at = len(panel.logic.rows)

    panel.ui.resumeButton.click()
    assert len(panel.logic.rows) == stopped_at, "the curve begins where it ended"
    wait(slicer_host, panel, lambda: len(panel.logic.rows) > stopped_at or not panel.logic.running)
    assert panel.logic.running, panel.ui.logText.plainText
    assert [row["epoch"] for row in panel.logic.rows] == list(range(1, len(panel.logic.rows) + 1))

    # Close the scene: the training goes on, and its curve is drawn anew.
    slicer_host.closeScene()
    count = len(panel.logic.rows)
    wait(slicer_host, panel, lambda: len(panel.logic.rows) > count or not panel.logic.running)
    assert panel.logic.running and len(curve(panel)["Epoch"]) == len(panel.logic.rows)

    # Kill it: the reason is told, what was computed stays.
    slicer_host.answer("Ok")
    os.kill(panel.logic.worker.pid, signal.SIGKILL)
    wait(slicer_host, panel)
    assert "was killed" in slicer_host.dialogs[-1].text and "can be resumed" in slicer_host.dialogs[-1].text
    assert (output / "checkpoint.pt").is_file()


def test_cases_from_the_scene(slicer_host, panel, small_recipe, tmp_path):  # noqa: F811
    nodes = [panel_data.case_nodes(number, f"Mr Secret {number}") for number in range(4)]
    output = tmp_path / "output"
    set_up(panel, small_recipe, "", output, epochs=1)
    panel.ui.sourceSelector.currentText = "Nodes in the scene"
    assert panel.ui.pairsTable.isVisibleTo(panel.parent) and not panel.ui.datasetPath.isVisibleTo(panel.parent)
    for row, (volume, segmentation) in enumerate(nodes):
        panel.ui.addPairButton.click()
        panel.ui.pairsTable.cellWidget(row, 0).setCurrentNode(volume)
        assert f"Case {row + 1} has no segmentation" in panel.ui.statusLabel.text
        panel.ui.pairsTable.cellWidget(row, 1).setCurrentNode(segmentation)
    panel.ui.addPairButton.click()
    panel.ui.removePairButton.click()
    assert panel.ui.startButton.enabled, panel.ui.statusLabel.text
    slicer_host.check()
    panel.ui.checkButton.click()
    slicer_host.check()
    assert "4 of 4 cases" in panel.ui.dataReport.plainText
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_scene.png")
    panel.ui.startButton.click()
    slicer_host.check()
    wait(slicer_host, panel)
    assert "Finished" in panel.ui.statusLabel.text, panel.ui.logText.plainText
    # Rows are kept in the scene and come back.
    slicer_host.selectModule("")
    slicer_host.selectModule("MedMapAITraining")
    assert panel.logic.pairs(panel._parameterNode.parameterNode) == [tuple(pair) for pair in nodes]
    assert panel.ui.pairsTable.rowCount == 4
    # No name in any file name or text file.
    files = [path for path in output.rglob("*") if path.is_file()]
    assert not [path for path in files if "Secret" in str(path.relative_to(output))]
    assert not [path for path in files if b"Secret" in path.read_bytes()]


def test_wrong_data_end_in_a_dialog(slicer_host, panel, small_recipe, tmp_path):  # noqa: F811
    folder = write_dataset(tmp_path / "balls", 4)
    (folder / "labels" / "case_02.nii.gz").unlink()
    set_up(panel, small_recipe, folder, tmp_path / "output", epochs=1)
    slicer_host.answer("Ok")
    panel.ui.startButton.click()
    wait(slicer_host, panel)
    assert "case_02" in slicer_host.dialogs[-1].text
    assert panel.ui.statusLabel.text == "The training failed."
    assert panel.ui.startButton.enabled, "correct the data and start again"


def test_output_that_cannot_be_written_is_told(slicer_host, panel, small_recipe, data, tmp_path):  # noqa: F811
    (tmp_path / "file").write_text("")
    set_up(panel, small_recipe, data, tmp_path / "file" / "output", epochs=1)
    before = panel_data.scene_content()
    slicer_host.answer("Ok")
    panel.ui.startButton.click()
    slicer_host.check()
    assert "was not started" in slicer_host.dialogs[-1].text and "choose another" in slicer_host.dialogs[-1].text
    assert not panel.logic.running and panel_data.scene_content() == before


def test_python_that_cannot_be_started_is_told(slicer_host, panel, small_recipe, data, tmp_path, monkeypatch):  # noqa: F811
    set_up(panel, small_recipe, data, tmp_path / "output", epochs=1)
    monkeypatch.setattr(panel.logic, "pythonExecutable", lambda: str(tmp_path / "no-python"))
    slicer_host.answer("Ok")
    panel.ui.startButton.click()
    wait(slicer_host, panel)
    assert "could not be started" in slicer_host.dialogs[-1].text
    assert panel.ui.startButton.enabled and not panel.ui.dataSection.collapsed


def test_reload_stops_the_training(slicer_host, panel, small_recipe, data, tmp_path):  # noqa: F811
    set_up(panel, small_recipe, data, tmp_path / "output", epochs=5000)
    panel.ui.startButton.click()
    wait(slicer_host, panel, lambda: panel.logic.rows or not panel.logic.running)
    process = panel.logic.worker.pid
    libraries = ("MedMapAILib", "MedMapAIQt")
    library = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in libraries}
    try:
        again = slicer_host.reload("MedMapAITraining")
        slicer_host.check()
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
        assert again is not panel and again.ui.resumeButton.enabled
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in libraries]:
            del sys.modules[name]
        sys.modules.update(library)


def test_logic_trains_in_this_process(slicer_host, panel, data, tmp_path):  # noqa: F811
    from MedMapAITraining import MedMapAITrainingLogic

    logic = MedMapAITrainingLogic()
    events = []
    config = small_config(data, epochs=2, iterations_per_epoch=2)
    bundle = logic.train(config, tmp_path / "output", onEvent=events.append)
    assert Path(bundle).is_dir()
    assert [e["event"] for e in events if e["event"] in ("started", "epoch", "finished")] == [
        "started",
        "epoch",
        "epoch",
        "finished",
    ]
    assert logic.tableNode.GetTable().GetNumberOfRows() == 2
    assert logic.chartNode.GetNumberOfPlotSeriesNodes() == 3
