"""The panel MedMapAI, clicked through in the host: run, cancel, score, and what can be wrong with the input."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import panel_data
import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401
from MedMapAILib.errors import Cancelled, InputError

#: Seconds: long enough for a worker that imports torch on a busy machine.
PATIENCE = 240
REPOSITORY = Path(__file__).resolve().parent.parent
HIPPOCAMPUS = REPOSITORY / "MedMapAI" / "Resources" / "Models" / "hippocampus"
PATHS = [str(REPOSITORY / part) for part in ("MedMapAI", "MedMapAITraining", "Testing")]
REAL_DATA = REPOSITORY.parent / "shared" / "data" / "hippocampus"


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    return panel_data.train_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def models(small_model, tmp_path, monkeypatch):
    """Only the small model is listed, and the user's own folder is an empty one."""
    from MedMapAILib import bundle

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(bundle.MODELS_VARIABLE, str(small_model.parent))
    monkeypatch.setattr(bundle, "SHIPPED_MODELS", tmp_path / "none")
    return small_model.parent


@pytest.fixture
def panel(slicer_host, models):  # noqa: F811
    return slicer_host.openModule("MedMapAI")


def enter_again(host):
    host.selectModule("MedMapAI")


def wait(host, panel):
    """Let Qt work until the run has ended."""
    host.process_events(lambda: not panel.logic.running, timeout_s=PATIENCE, message=panel.ui.statusLabel.text)
    host.check()


def apply(host, panel):
    """Press Apply and wait for the end."""
    panel.ui.applyButton.click()
    wait(host, panel)


# -- opening -----------------------------------------------------------------------------------------------------------


def test_open_panel_says_what_is_missing(panel):
    assert panel.ui.modelSelector.currentText == "Ball and box"
    assert not panel.ui.applyButton.enabled and not panel.ui.cancelButton.enabled
    assert panel.ui.statusLabel.text == "Choose an input volume."
    assert "Research use only" in panel.ui.researchLabel.text


def test_everything_says_what_it_is_for(panel):
    assert panel_data.widgets_without_tool_tip(panel) == []


def test_card_of_the_chosen_model_is_shown(panel):
    assert "ball" in panel.ui.modelCard.plainText and "Research use only" in panel.ui.modelCard.plainText


def test_without_any_model_it_says_so(slicer_host, models, monkeypatch):  # noqa: F811
    monkeypatch.delenv("MEDMAPAI_MODELS")
    panel = slicer_host.openModule("MedMapAI")
    panel_data.volume_node()
    enter_again(slicer_host)
    assert "There is no model yet" in panel.ui.statusLabel.text and not panel.ui.applyButton.enabled


# -- running -----------------------------------------------------------------------------------------------------------


def test_click_through(slicer_host, panel):  # noqa: F811
    volume, truth = panel_data.volume_node(spacing=1.25)
    enter_again(slicer_host)
    assert panel.ui.inputSelector.currentNode() == volume and panel.ui.applyButton.enabled
    assert panel.ui.statusLabel.text == "" and not panel.ui.statusLabel.visible
    panel.ui.deviceSelector.currentText = "cpu"
    apply(slicer_host, panel)

    node = panel.ui.outputSelector.currentNode()
    assert node is not None and node.GetName() == "Scan ball-and-box"
    table = panel.ui.resultsTable
    assert [table.item(row, 0).text() for row in (0, 1)] == ["ball", "box"]
    labels = panel_data.labels_of(node, volume)
    for row in (0, 1):
        # Voxels of 1.25³ mm³ each.
        milliliters = float((labels == row + 1).sum()) * 1.25**3 / 1000
        assert float(table.item(row, 1).text()) == pytest.approx(milliliters, abs=5e-4)
    assert table.isColumnHidden(2), "no reference, no Dice"
    assert panel.ui.show3DButton.enabled and panel.ui.show3DButton.segmentationNode() == node
    assert "2 of 2 segments found" in panel.ui.statusLabel.text
    assert panel.ui.applyButton.enabled and not panel.ui.cancelButton.enabled and not panel.ui.progressBar.isVisible()
    # It has learned something in its moment of training, and that lies where it belongs.
    assert 2 * ((labels > 0) & (truth.labels > 0)).sum() / ((labels > 0).sum() + (truth.labels > 0).sum()) > 0.5
    panel_data.show(volume)
    # Where and how it was computed is said.
    assert f"on {panel.logic.report.device}" in panel.ui.statusLabel.text and panel.logic.report.device
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run.png")

    before, worker = panel_data.scene_content(), panel.logic.worker.pid
    panel.ui.mirroringSelector.currentText = "off"
    panel.ui.precisionSelector.currentText = "fp32"
    apply(slicer_host, panel)
    assert panel.logic.worker.pid == worker, "the worker stays for the next run"
    assert "fp32" in panel.ui.statusLabel.text
    assert panel.ui.outputSelector.currentNode() == node, "a second run fills the same segmentation"
    assert panel_data.scene_content() == before
    panel.ui.tableButton.click()
    assert ("vtkMRMLTableNode", "ball-and-box volumes") in panel_data.scene_content()


def test_reference_gives_dice(slicer_host, panel):  # noqa: F811
    from MedMapAILib import mrml

    volume, truth = panel_data.volume_node()
    reference = mrml.node_from_segmentation(truth, name="Drawn", referenceVolumeNode=volume)
    enter_again(slicer_host)
    panel.ui.optionsSection.collapsed = False
    panel.ui.referenceSelector.setCurrentNode(reference)
    apply(slicer_host, panel)
    assert not panel.ui.resultsTable.isColumnHidden(2)
    labels = panel_data.labels_of(panel.ui.outputSelector.currentNode(), volume)
    for row in (0, 1):
        found, true = labels == row + 1, truth.labels == row + 1
        dice = 2 * (found & true).sum() / (found.sum() + true.sum())
        assert float(panel.ui.resultsTable.item(row, 2).text()) == pytest.approx(dice, abs=5e-4)
    panel_data.show(volume)
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_reference.png")
    # The reference itself as output would be overwritten before it is read.
    panel.ui.outputSelector.setCurrentNode(reference)
    assert "replace the reference" in panel.ui.statusLabel.text and not panel.ui.applyButton.enabled


def test_region_of_interest(slicer_host, panel):  # noqa: F811
    volume, truth = panel_data.volume_node()
    enter_again(slicer_host)
    panel.ui.fitRoiButton.click()
    roi = panel.ui.roiSelector.currentNode()
    bounds, wanted = [0.0] * 6, [0.0] * 6
    roi.GetRASBounds(bounds)
    volume.GetRASBounds(wanted)
    np.testing.assert_allclose(bounds, wanted, atol=1e-6)
    # Keep the half of lower I: the ball is there, the box is not.
    roi.SetSizeWorld([14.0, 60, 60])
    roi.SetCenterWorld([-10 + 6.5, 30, 10])
    apply(slicer_host, panel)
    labels = panel_data.labels_of(panel.ui.outputSelector.currentNode(), volume)
    assert labels[:13].any() and not labels[14:].any()


def test_logic_runs_from_a_script(slicer_host, models):  # noqa: F811
    import slicer

    slicer_host.openModule("MedMapAI")
    from MedMapAI import MedMapAILogic

    volume, _ = panel_data.volume_node()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turned = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    slicer.util.updateTransformMatrixFromArray(transform, turned)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    logic = MedMapAILogic()
    said = []
    node = logic.run(volume, "ball-and-box", device="cpu", progress=lambda fraction, message: said.append(fraction))
    assert node.GetParentTransformNode() == transform
    assert said[-1] == 1.0 and said == sorted(said)
    assert [row.name for row in logic.report.rows] == ["ball", "box"]
    before = panel_data.scene_content()
    with pytest.raises(Cancelled):
        logic.run(volume, "ball-and-box", device="cpu", cancelled=lambda: True)
    with pytest.raises(InputError, match="no model 'unknown'"):
        logic.run(volume, "unknown")
    assert panel_data.scene_content() == before


@pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="the hippocampus model does not ship yet")
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="shared/data/hippocampus is not on this machine")
def test_hippocampus_on_a_real_scan(slicer_host, models, monkeypatch):  # noqa: F811
    import json

    from MedMapAILib import mrml
    from MedMapAILib.image import read_image
    from MedMapAILib.results import read_segmentation

    monkeypatch.setenv("MEDMAPAI_MODELS", str(HIPPOCAMPUS.parent))
    panel = slicer_host.openModule("MedMapAI")
    held_out = json.loads((HIPPOCAMPUS / "configs" / "train.json").read_text())["split"]["validation"][0]
    image = next(p for p in (REAL_DATA / "images").iterdir() if p.name.startswith(held_out))
    volume = mrml.volume_node_from_image(read_image(image), name="MR crop")
    segments = panel._models["hippocampus"].segments
    truth = read_segmentation(REAL_DATA / "labels" / image.name, segments)
    reference = mrml.node_from_segmentation(truth, name="Drawn by an expert", referenceVolumeNode=volume)
    reference.SetDisplayVisibility(False)
    enter_again(slicer_host)
    panel.ui.optionsSection.collapsed = False
    panel.ui.referenceSelector.setCurrentNode(reference)
    apply(slicer_host, panel)
    for row in (0, 1):
        assert float(panel.ui.resultsTable.item(row, 2).text()) > 0.7
    panel_data.show(volume)
    panel.ui.show3DButton.click()
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_hippocampus.png")


# -- cancelling, closing, reloading ------------------------------------------------------------------------------------


def start(host, panel, until=None):
    """Press Apply and come back in the middle of the run: at once, or when the worker says a certain word.

    At once is what is safe for a small volume: a worker that is warm has a result in a blink, and it waits for Qt.
    """
    seen = []
    panel.ui.applyButton.click()
    assert panel.logic.running
    if until is None:
        return
    host.process_events(
        lambda: seen.append(panel.ui.statusLabel.text) or until in seen[-1] or not panel.logic.running,
        timeout_s=PATIENCE,
    )
    assert panel.logic.running, seen[-3:]


def alive(pid):
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_apply_returns_at_once_and_cancel_leaves_the_scene_as_it_was(slicer_host, panel):  # noqa: F811
    panel_data.volume_node(shape=(160, 150, 140))
    enter_again(slicer_host)
    before = panel_data.scene_content()
    start(slicer_host, panel, "window")
    ui = panel.ui
    assert ui.cancelButton.enabled and not ui.applyButton.enabled
    assert not ui.inputsSection.enabled and not ui.advancedSection.enabled
    assert ui.progressBar.isVisibleTo(panel.parent)
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_running.png")
    ui.applyButton.click()  # not twice at once
    worker = panel.logic.worker.pid
    ui.cancelButton.click()
    assert not panel.logic.running, "ready again at once"
    assert ui.statusLabel.text == "Cancelled; the scene is as it was."
    assert panel_data.scene_content() == before
    assert ui.applyButton.enabled and ui.inputsSection.enabled and not ui.cancelButton.enabled
    slicer_host.process_events(lambda: not alive(worker), timeout_s=10)
    slicer_host.check()


def test_closing_the_scene_cancels(slicer_host, panel):  # noqa: F811
    import slicer

    panel_data.volume_node(shape=(160, 150, 140))
    enter_again(slicer_host)
    panel.ui.applyButton.click()
    slicer.mrmlScene.Clear(0)  # before the worker has said a word
    assert not panel.logic.running
    panel_data.volume_node(shape=(160, 150, 140))
    enter_again(slicer_host)
    start(slicer_host, panel, "window")
    slicer_host.closeScene()
    slicer_host.check()
    assert not panel.logic.running and slicer_host.dialogs == []
    assert not [name for kind, name in panel_data.scene_content() if kind == "vtkMRMLSegmentationNode"]
    assert panel.ui.inputSelector.currentNode() is None and not panel.ui.applyButton.enabled
    # The next run works, and its results go with its scene.
    panel_data.volume_node()
    enter_again(slicer_host)
    apply(slicer_host, panel)
    assert panel.ui.outputSelector.currentNode() is not None and panel.ui.resultsTable.rowCount == 2
    slicer_host.closeScene()
    slicer_host.check()
    assert panel.ui.resultsTable.rowCount == 0
    assert not panel.ui.show3DButton.enabled and not panel.ui.tableButton.enabled
    assert panel.ui.modelSelector.currentText == "Ball and box"


def test_nodes_that_go_while_it_runs(slicer_host, panel, monkeypatch):  # noqa: F811
    import slicer

    volume, _ = panel_data.volume_node()
    output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    enter_again(slicer_host)
    panel.ui.outputSelector.setCurrentNode(output)
    start(slicer_host, panel)
    slicer.mrmlScene.RemoveNode(output)
    wait(slicer_host, panel)
    made = panel.ui.outputSelector.currentNode()
    assert made is not None and made != output and made.GetName() == "Scan ball-and-box"
    before = panel_data.scene_content()
    # Without its volume, a result belongs nowhere.
    start(slicer_host, panel)
    said = []
    monkeypatch.setattr(panel, "say", lambda text, keep=False: said.append(text) if keep else None)
    slicer.mrmlScene.RemoveNode(volume)
    wait(slicer_host, panel)
    assert "volume Scan was removed" in said[-1], said
    before.remove(("vtkMRMLScalarVolumeNode", "Scan"))
    assert panel_data.scene_content() == before and slicer_host.dialogs == []


def test_the_result_follows_a_volume_that_was_moved_or_changed(slicer_host, panel):  # noqa: F811
    import slicer
    from MedMapAILib import mrml

    volume, _ = panel_data.volume_node()
    enter_again(slicer_host)
    apply(slicer_host, panel)
    still = mrml.segmentation_from_node(panel.ui.outputSelector.currentNode(), volume)
    assert still.labels.any() and not panel.ui.notesLabel.text.count("changed")
    # A person looks at the volume, registers it, and paints in it, all while the model runs.
    start(slicer_host, panel)
    panel_data.show(volume)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turned = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    slicer.util.updateTransformMatrixFromArray(transform, turned)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    slicer_host.selectModule("")  # and leaves the panel
    wait(slicer_host, panel)
    enter_again(slicer_host)
    node = panel.ui.outputSelector.currentNode()
    assert node.GetParentTransformNode() == transform
    np.testing.assert_array_equal(mrml.segmentation_from_node(node, volume).labels, still.labels)
    assert "2 of 2 segments" in panel.ui.statusLabel.text and "changed" not in panel.ui.notesLabel.text
    volume.SetAndObserveTransformNodeID(None)
    start(slicer_host, panel)
    slicer.util.arrayFromVolume(volume)[:] = 0
    slicer.util.arrayFromVolumeModified(volume)
    wait(slicer_host, panel)
    assert "changed while the model ran" in panel.ui.notesLabel.text
    np.testing.assert_array_equal(mrml.segmentation_from_node(node, volume).labels, still.labels)


def test_a_worker_that_is_killed_is_told_and_the_next_run_works(slicer_host, panel):  # noqa: F811
    import psutil

    panel_data.volume_node(shape=(160, 150, 140))
    enter_again(slicer_host)
    before = panel_data.scene_content()
    start(slicer_host, panel, "window")
    slicer_host.answer("Ok")
    psutil.Process(panel.logic.worker.pid).kill()
    wait(slicer_host, panel)
    assert "killed" in slicer_host.dialogs[-1].text and panel_data.scene_content() == before
    assert panel.ui.applyButton.enabled and not panel.ui.cancelButton.enabled
    slicer_host.closeScene()
    panel_data.volume_node()
    enter_again(slicer_host)
    apply(slicer_host, panel)
    assert panel.ui.outputSelector.currentNode() is not None


def test_python_that_cannot_be_started_is_told(slicer_host, panel, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(panel.logic, "pythonExecutable", lambda: str(tmp_path / "no-python"))
    panel_data.volume_node()
    enter_again(slicer_host)
    before = panel_data.scene_content()
    slicer_host.answer("Ok")
    apply(slicer_host, panel)
    assert "could not be started" in slicer_host.dialogs[-1].text
    assert panel.ui.applyButton.enabled and panel_data.scene_content() == before


def test_closing_the_module_ends_the_worker(slicer_host, panel):  # noqa: F811
    panel_data.volume_node(shape=(160, 150, 140))
    enter_again(slicer_host)
    start(slicer_host, panel, "window")
    worker = panel.logic.worker.pid
    slicer_host.closeModule("MedMapAI")
    slicer_host.process_events(lambda: not alive(worker), timeout_s=10)
    slicer_host.check()
    assert slicer_host.dialogs == []


def test_choices_outlive_leaving_the_module(slicer_host, panel):  # noqa: F811
    panel_data.volume_node(name="First")
    second, _ = panel_data.volume_node(name="Second")
    enter_again(slicer_host)
    panel.ui.inputSelector.setCurrentNode(second)
    panel.ui.deviceSelector.currentText = "cpu"
    slicer_host.selectModule("")
    enter_again(slicer_host)
    assert panel.ui.inputSelector.currentNode() == second and panel.ui.deviceSelector.currentText == "cpu"


def test_reload_takes_the_changed_library(slicer_host, panel):  # noqa: F811
    import MedMapAILib.errors

    old = sys.modules["MedMapAILib.errors"]
    panel_data.volume_node(shape=(160, 150, 140))
    enter_again(slicer_host)
    start(slicer_host, panel, "window")
    worker = panel.logic.worker.pid
    try:
        again = slicer_host.reload("MedMapAI")
        slicer_host.check()
        slicer_host.process_events(lambda: not alive(worker), timeout_s=10)
        assert not panel.logic.running and not again.logic.running
        assert again is not panel
        assert sys.modules.get("MedMapAILib.errors") is not old
        assert again.ui.applyButton.enabled
    finally:
        # The other tests hold classes of the library as it was.
        for name in [name for name in sys.modules if name.partition(".")[0] in LIBRARIES]:
            del sys.modules[name]
        sys.modules.update(LIBRARY)
    assert MedMapAILib.errors is old


LIBRARY: dict = {}
LIBRARIES = ("MedMapAILib", "MedMapAIQt")


@pytest.fixture(autouse=True)
def _remember_library():
    LIBRARY.clear()
    LIBRARY.update({name: module for name, module in sys.modules.items() if name.partition(".")[0] in LIBRARIES})


def test_own_test_of_the_module_passes(slicer_host, panel):  # noqa: F811
    slicer_host.runSelfTest("MedMapAI")


# -- adding models -----------------------------------------------------------------------------------------------------


def add_model(panel, number):
    panel.addModelMenu.actions()[number].trigger()


def test_add_model_from_folder_and_zip(slicer_host, panel, small_model, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MEDMAPAI_MODELS", "")
    panel.refreshModels()
    assert panel.ui.modelSelector.count == 0
    slicer_host.answer("")  # the file dialog is cancelled
    add_model(panel, 0)
    assert panel.ui.modelSelector.count == 0
    slicer_host.answer(small_model)
    add_model(panel, 0)
    slicer_host.check()
    assert panel.ui.modelSelector.currentText == "Ball and box"
    assert (tmp_path / "home" / ".medmapai" / "models" / "ball-and-box" / "configs" / "metadata.json").is_file()
    archive = shutil.make_archive(str(tmp_path / "copy"), "zip", small_model.parent, small_model.name)
    slicer_host.answer(archive, "Ok")
    add_model(panel, 1)
    assert "There is a model named ball-and-box already" in slicer_host.dialogs[-1].text
    shutil.rmtree(tmp_path / "home")
    panel.refreshModels()
    slicer_host.answer(archive)
    add_model(panel, 1)
    slicer_host.check()
    assert [p.name for p in (tmp_path / "home" / ".medmapai" / "models").iterdir()] == ["ball-and-box.zip"]
    assert panel.ui.modelSelector.currentText == "Ball and box"


def test_what_is_no_model_is_refused(slicer_host, panel, small_model, tmp_path):  # noqa: F811
    (tmp_path / "no.zip").write_bytes(b"no zip")
    slicer_host.answer(tmp_path / "no.zip", "Ok")
    add_model(panel, 1)
    assert "not added" in slicer_host.dialogs[-1].text and "no.zip" in slicer_host.dialogs[-1].text
    changed = shutil.copytree(small_model, tmp_path / "changed")
    (changed / "models" / "model.pt").write_bytes(b"other weights")
    slicer_host.answer(changed, "Ok")
    add_model(panel, 0)
    assert "checksum" in slicer_host.dialogs[-1].text
    assert not (tmp_path / "home" / ".medmapai").exists()


# -- bad input ---------------------------------------------------------------------------------------------------------


def bad_volume(kind):
    import slicer

    volume, truth = panel_data.volume_node(name="Bad")
    array = slicer.util.arrayFromVolume(volume)
    if kind == "constant":
        array[:] = 7
    elif kind == "nan":
        array[3, 4, 5] = np.nan
    elif kind == "infinite":
        array[3, 4, 5] = np.inf
    elif kind == "empty":
        volume.SetAndObserveImageData(None)
    elif kind == "bent":
        bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Bend")
        import vtk

        spline = vtk.vtkThinPlateSplineTransform()
        source, target = vtk.vtkPoints(), vtk.vtkPoints()
        for n, point in enumerate([(0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)]):
            source.InsertNextPoint(point)
            target.InsertNextPoint(point[0] + n, point[1], point[2])
        spline.SetSourceLandmarks(source)
        spline.SetTargetLandmarks(target)
        bent.SetAndObserveTransformFromParent(spline)
        volume.SetAndObserveTransformNodeID(bent.GetID())
    if array is not None and kind in ("constant", "nan", "infinite"):
        slicer.util.arrayFromVolumeModified(volume)
    return volume


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("constant", "same value"),
        ("nan", "NaN"),
        ("infinite", "infinite"),
        ("empty", "empty"),
        ("bent", "harden"),
    ],
)
def test_bad_volume_is_told_and_the_scene_stays(slicer_host, panel, kind, said):  # noqa: F811
    bad_volume(kind)
    enter_again(slicer_host)
    before = panel_data.scene_content()
    slicer_host.answer("Ok")
    apply(slicer_host, panel)
    text = slicer_host.dialogs[-1].text
    assert said.lower() in text.lower() and "Bad" in text
    assert panel_data.scene_content() == before
    assert panel.ui.applyButton.enabled


def test_region_beside_the_volume_is_told(slicer_host, panel):  # noqa: F811
    panel_data.volume_node()
    enter_again(slicer_host)
    panel.ui.fitRoiButton.click()
    panel.ui.roiSelector.currentNode().SetCenterWorld([900.0, 0, 0])
    before = panel_data.scene_content()
    slicer_host.answer("Ok")
    apply(slicer_host, panel)
    assert "ROI" in slicer_host.dialogs[-1].text or "region" in slicer_host.dialogs[-1].text.lower()
    assert "mistake in MedMapAI" not in slicer_host.dialogs[-1].text
    assert panel_data.scene_content() == before


def test_reference_of_other_segments_is_told(slicer_host, panel):  # noqa: F811
    import slicer

    volume, truth = panel_data.volume_node()
    labels = slicer.util.addVolumeFromArray(
        np.full((22, 26, 24), 9, np.uint8), name="Labels of others", nodeClassName="vtkMRMLLabelMapVolumeNode"
    )
    enter_again(slicer_host)
    panel.ui.referenceSelector.setCurrentNode(labels)
    before = panel_data.scene_content()
    slicer_host.answer("Ok")
    apply(slicer_host, panel)
    assert "9" in slicer_host.dialogs[-1].text
    assert panel_data.scene_content() == before


def test_a_device_that_is_not_there_is_told(slicer_host, panel):  # noqa: F811
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    panel_data.volume_node()
    enter_again(slicer_host)
    panel.ui.deviceSelector.currentText = "cuda"
    slicer_host.answer("Ok")
    apply(slicer_host, panel)
    assert "no device cuda" in slicer_host.dialogs[-1].text


def test_torch_and_the_views_live_in_one_process(small_model, tmp_path):
    """Slicer has drawn its views before any module opens; Mesa's LLVM and triton's in one process were a crash."""
    code = textwrap.dedent(
        """
        import sys
        import host.layout_manager
        # The desktop does not load triton before its views.
        host.layout_manager.load_triton_first = lambda: None
        application = host.start(sys.argv[1])
        application.screenshot(sys.argv[1] + "/views.png")
        print("MESA" if "libLLVM" in open("/proc/self/maps").read() else "OTHER", "triton" in sys.modules)
        import panel_data
        panel = application.openModule("MedMapAI")
        volume, _ = panel_data.volume_node()
        panel.logic.run(volume, sys.argv[2], device="cpu")
        application.exit()
        print("DONE")
        """
    )
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has Mesa")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {PATHS!r}\n{code}", str(tmp_path), str(small_model)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "DONE" in done.stdout, (done.returncode, done.stdout + done.stderr)


# -- without torch -----------------------------------------------------------------------------------------------------


def test_without_torch_the_panels_open_ask_and_take_no_for_an_answer(tmp_path):
    """In a process where torch, monai and nibabel cannot be imported, as in a Slicer that was just installed."""
    code = textwrap.dedent(
        """
        import sys, os, importlib.metadata
        BLOCKED = ("torch", "monai", "nibabel", "skimage", "tensorboard", "torchvision")
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in BLOCKED:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Blocker())
        real = importlib.metadata.version
        def version(name):
            if name.lower().replace("-", "_") in (*BLOCKED, "scikit_image"):
                raise importlib.metadata.PackageNotFoundError(name)
            return real(name)
        importlib.metadata.version = version

        import host
        application = host.start(sys.argv[1])
        import slicer, numpy as np
        run = application.openModule("MedMapAI")
        volume = slicer.util.addVolumeFromArray(np.random.rand(9, 9, 9).astype("f4"), name="Scan")
        run = application.openModule("MedMapAI")
        training = application.openModule("MedMapAITraining")
        application.selectModule("MedMapAI")
        application.check()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        application.answer("Cancel")
        if run.ui.applyButton.enabled:
            run.ui.applyButton.click()
        else:
            print("APPLY IS OFF:", run.ui.statusLabel.text)
        application.check()
        question = application.dialogs[-1].text
        assert "torch" in question and "monai" in question and "numpy and scipy stay" in question, question
        assert application.installed == [], application.installed
        assert slicer.mrmlScene.GetNumberOfNodes() == nodes
        print("STATUS:", run.ui.statusLabel.text)
        # Yes, but the extension PyTorch is not there.
        application.answer("Ok", "Ok")
        run.ui.applyButton.click()
        application.check()
        assert "extension PyTorch" in application.dialogs[-1].text, application.dialogs[-1].text
        assert application.installed == []
        # Yes, and it is there: torch by PyTorchUtils, the rest by pip with numpy and scipy held.
        import types
        asked = []
        class Logic:
            def installTorch(self, askConfirmation, torchVersionRequirement):
                asked.append((askConfirmation, torchVersionRequirement))
                return types.ModuleType("torch")
        sys.modules["PyTorchUtils"] = types.SimpleNamespace(PyTorchUtilsLogic=Logic)
        constraints = []
        def installer(what, requirements, options):
            constraints.append(open(options["constraints"]).read())
        application._util.installer = installer
        application.answer("Ok", "Ok")
        run.ui.applyButton.click()
        application.check()
        assert asked == [(False, ">=2.4")], asked
        what, requirements, options = application.installed[-1]
        assert what == "pip_ensure" and not any(r.startswith("torch>") for r in requirements), requirements
        assert "numpy==" in constraints[0] and "scipy==" in constraints[0], constraints
        assert "still missing" in application.dialogs[-1].text  # nothing was really installed
        # Slicer 5.10 has no slicer.packaging.
        del sys.modules["slicer.packaging"], slicer.packaging
        sys.modules["slicer.packaging"] = None
        def installer(what, requirements, options):
            constraints.append(open(requirements[requirements.index("-c") + 1]).read())
        application._util.installer = installer
        application.answer("Ok", "Ok")
        run.ui.applyButton.click()
        application.check()
        assert application.installed[-1][0] == "pip_install" and "numpy==" in constraints[1]
        application.exit()
        print("DONE")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {PATHS!r}\n{code}", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "DONE" in done.stdout, done.stdout + done.stderr
    assert "Nothing was installed and nothing was run." in done.stdout
