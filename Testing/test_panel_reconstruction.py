"""The panel MedMapAI with models that make images: before and after, scores, and measurements in files."""

from __future__ import annotations

import shutil

import numpy as np
import panel_data
import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401
from MedMapAILib import mrml
from MedMapAILib.image import make_image
from MedMapAILib.measurements.acquisition import acquisition_of
from MedMapAILib.measurements.files import write_measurement
from MedMapAILib.metrics.image_quality import psnr
from reconstruction_data import body, reconstruction_config, write_bodies

PATIENCE = 300
CT = {"kind": "ct", "views": 30, "photons": 3e4}
SIZE, SLICES = 32, 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two models, trained for a moment: "better" of images, and "measured" of sinograms."""
    from MedMapAILib.training.run import train

    folder = tmp_path_factory.mktemp("models")
    data = write_bodies(folder / "data", 4)
    networks = {
        "better": {"name": "fbpconvnet", "width": 4, "levels": 2},
        "measured": {"name": "learned-primal-dual", "iterations": 1, "width": 4, "memory": 1},
    }
    (folder / "models").mkdir()
    for name, network in networks.items():
        config = reconstruction_config(data, network=network, acquisition=CT, epochs=1, iterations=4)
        config["model"] |= {"name": name, "title": f"{name.capitalize()} images"}
        shutil.copytree(train(config, folder / name), folder / "models" / name)
    return folder / "models"


@pytest.fixture
def panel(slicer_host, trained, tmp_path, monkeypatch):  # noqa: F811
    from MedMapAILib import bundle

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(bundle.MODELS_VARIABLE, str(trained))
    monkeypatch.setattr(bundle, "SHIPPED_MODELS", tmp_path / "none")
    return slicer_host.openModule("MedMapAI")


def scans():
    """(noisy volume node, true volume node) of a body that no model was trained on."""
    values, affine = body(50, SIZE, SLICES)
    truth = make_image(values[None], affine)
    nodes = []
    for image, name in ((acquisition_of(CT).degraded(truth, 7), "Quarter dose"), (truth, "Full dose")):
        node = mrml.volume_node_from_image(image, name=name)
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevelMinMax(-300, 400)
        nodes.append(node)
    return nodes


def choose(panel, name):
    panel.ui.modelSelector.setCurrentIndex(panel.ui.modelSelector.findData(name))


def wait(host, panel):
    host.process_events(lambda: not panel.logic.running, timeout_s=PATIENCE, message=panel.ui.statusLabel.text)
    host.check()


def voxels(node):
    return mrml.voxels_from_node(node)[0][0]


def slice_views():
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def texts(table, row):
    return [table.item(row, column).text() for column in range(table.columnCount) if not table.isColumnHidden(column)]


def test_before_and_after(slicer_host, panel, trained):  # noqa: F811
    from MedMapAILib.bundle import load_bundle
    from MedMapAILib.inference.opening import open_predictor

    noisy, truth = scans()
    ui = panel.ui
    slicer_host.selectModule("MedMapAI")
    ui.inputSelector.setCurrentNode(noisy)
    choose(panel, "better")
    ui.optionsSection.collapsed = False
    for selector, there in (
        (ui.referenceVolumeSelector, True), (ui.volumeSelector, True), (ui.referenceSelector, False),
        (ui.outputSelector, False), (ui.tableSelector, False), (ui.saliencySelector, False),
    ):  # fmt: skip
        assert selector.isVisibleTo(panel.parent) == there
    assert not ui.comparisonContainer.isVisibleTo(panel.parent)
    ui.referenceVolumeSelector.setCurrentNode(truth)
    ui.deviceSelector.currentText = "cpu"
    ui.applyButton.click()
    wait(slicer_host, panel)

    after = ui.volumeSelector.currentNode()
    assert after.GetName() == "Quarter dose better" and after != noisy
    image = mrml.image_from_node(noisy)
    expected = open_predictor(load_bundle(trained / "better"), "cpu").predict(image).values
    np.testing.assert_allclose(voxels(after), expected, atol=0.01)
    assert after.GetDisplayNode().GetWindowLevelMin() == -300
    # Both lie over each other in linked views, and the slider fades from the one to the other.
    slider = panel.comparison.ui.fadeSlider
    assert ui.comparisonContainer.isVisibleTo(panel.parent) and slider.value == 100
    views = slice_views()
    assert all(view.GetBackgroundVolumeID() == noisy.GetID() for view in views)
    assert all(view.GetForegroundVolumeID() == after.GetID() and view.GetLinkedControl() for view in views)
    slider.value = 30
    assert [view.GetForegroundOpacity() for view in views] == [0.3] * len(views)
    # The scores are those of the library, over the window of the model.
    table = panel.comparison.ui.scoresTable
    window = (-1000.0, 1000.0)
    said = [psnr(voxels(truth), each, window=window) for each in (voxels(noisy), expected)]
    name, *numbers = texts(table, 0)
    assert name == "PSNR (dB)" and [float(number) for number in numbers] == pytest.approx(said, abs=0.02)
    assert "-1000 to 1000 HU" in panel.comparison.ui.scoresLabel.text
    assert "PSNR" in ui.statusLabel.text and "Computed" not in ui.statusLabel.text
    assert "Research use only" in ui.researchLabel.text
    panel_data.show(noisy)
    for view in views:
        view.SetForegroundVolumeID(after.GetID())
    slider.value = 100
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_reconstruction.png")

    # Side by side, and back.
    import slicer

    manager = slicer.app.layoutManager()
    before = manager.layout, manager.sliceWidget("Yellow").mrmlSliceNode().GetOrientation()
    panel.comparison.ui.sideBySideButton.click()
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView and not slider.enabled
    shown = [manager.sliceWidget(view).mrmlSliceCompositeNode().GetBackgroundVolumeID() for view in ("Red", "Yellow")]
    assert shown == [noisy.GetID(), after.GetID()]
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_reconstruction_side_by_side.png")
    panel.comparison.ui.sideBySideButton.click()
    assert (manager.layout, manager.sliceWidget("Yellow").mrmlSliceNode().GetOrientation()) == before and slider.enabled

    # Again: into the same volume, in a region of interest, which is scored by itself. Outside the image is as it was.
    content = panel_data.scene_content()
    ui.fitRoiButton.click()
    center = [0.0] * 3
    panel._parameterNode.roi.GetCenterWorld(center)
    panel._parameterNode.roi.SetSizeWorld(30, 30, 100)
    ui.applyButton.click()
    wait(slicer_host, panel)
    assert ui.volumeSelector.currentNode() == after
    assert sorted(set(panel_data.scene_content()) - set(content)) == [("vtkMRMLMarkupsROINode", "Region")]
    assert (voxels(after)[0] == voxels(noisy)[0]).all() and (voxels(after) != voxels(noisy)).any()
    assert len(texts(table, 0)) == 5
    ui.tableButton.click()
    assert ("vtkMRMLTableNode", "better scores") in panel_data.scene_content()
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_reconstruction_region.png")
    slicer.mrmlScene.RemoveNode(after)
    assert not ui.comparisonContainer.isVisibleTo(panel.parent)
    slicer_host.check()


def test_what_does_not_end_well_leaves_the_scene_as_it_was(slicer_host, panel):  # noqa: F811
    from MedMapAILib.errors import InputError

    noisy, truth = scans()
    values, affine = body(51, SIZE, SLICES + 1)
    other = mrml.volume_node_from_image(make_image(values[None], affine), name="Other")
    ui = panel.ui
    slicer_host.selectModule("MedMapAI")
    ui.inputSelector.setCurrentNode(noisy)
    choose(panel, "measured")
    assert "Reconstruct a measurement" in ui.statusLabel.text and not ui.applyButton.enabled
    choose(panel, "better")
    ui.volumeSelector.setCurrentNode(noisy)
    assert "would replace" in ui.statusLabel.text and not ui.applyButton.enabled
    ui.volumeSelector.setCurrentNode(None)
    ui.referenceVolumeSelector.setCurrentNode(other)
    content = panel_data.scene_content()
    slicer_host.answer("Ok")
    ui.applyButton.click()
    assert "32×32×4" in slicer_host.dialogs[-1].text and ui.applyButton.enabled
    assert panel_data.scene_content() == content
    ui.referenceVolumeSelector.setCurrentNode(truth)
    ui.applyButton.click()
    ui.cancelButton.click()
    wait(slicer_host, panel)
    assert "Cancelled; the scene is as it was." in ui.statusLabel.text
    assert panel_data.scene_content() == content and not ui.comparisonContainer.isVisibleTo(panel.parent)
    with pytest.raises(InputError, match="would replace the input"):
        panel.logic.run(noisy, "better", outputNode=noisy)


@pytest.fixture
def sinogram(tmp_path):
    """(file, its measurement, the true volume) of a body."""
    values, affine = body(52, SIZE, SLICES)
    truth = make_image(values[None], affine)
    measurement = acquisition_of(CT).simulate_volume(truth, 3)
    write_measurement(measurement, tmp_path / "scan.nrrd")
    return tmp_path / "scan.nrrd", measurement, truth


def test_a_measurement_becomes_a_volume(slicer_host, panel, sinogram):  # noqa: F811
    from MedMapAILib.measurements.methods import METHODS, reconstruct_measurement
    from MedMapAIQt.measurement_run import residual_chart

    path, measurement, image = sinogram
    truth = mrml.volume_node_from_image(image, name="Truth")
    slicer_host.selectModule("MedMapAI")
    section = panel.measurements
    ui = section.ui
    panel.ui.inputsSection.collapsed = panel.ui.resultsSection.collapsed = True
    panel.ui.measurementSection.collapsed = False
    names = [ui.methodSelector.itemData(n) for n in range(ui.methodSelector.count)]
    assert {name.partition("/")[2] for name in names} == {*METHODS, "measured", "better"}
    assert not ui.reconstructButton.enabled and "Choose a measurement" in ui.outcomeLabel.text
    ui.measurementPath.currentPath = str(path)
    ui.methodSelector.setCurrentIndex(names.index("ct/sirt"))
    rows = {ui.optionsTable.item(row, 0).text(): row for row in range(ui.optionsTable.rowCount)}
    assert set(rows) == set(METHODS["sirt"].options["ct"])
    ui.optionsTable.item(rows["iterations"], 1).setText("6")
    ui.truthSelector.setCurrentNode(truth)
    assert section.options.values == {"iterations": 6} and ui.reconstructButton.enabled
    ui.reconstructButton.click()
    assert not panel.ui.applyButton.enabled
    wait(slicer_host, panel)

    node = ui.imageSelector.currentNode()
    expected = reconstruct_measurement("sirt", measurement, options={"iterations": 6}, device="cpu")
    assert node.GetName() == "scan sirt"
    np.testing.assert_allclose(voxels(node), expected.values, atol=0.05)
    np.testing.assert_allclose(mrml.voxels_from_node(node)[1], measurement.affine, atol=1e-9)
    curve = residual_chart(node).GetNthPlotSeriesNode(0).GetTableNode().GetTable()
    found = [curve.GetValueByName(row, "Residual").ToDouble() for row in range(curve.GetNumberOfRows())]
    assert found == pytest.approx(list(expected.residuals), rel=1e-3) and len(found) == 6
    assert "Stopped after 6" in ui.outcomeLabel.text and "Research use only" in ui.outcomeLabel.text
    assert "PSNR" in ui.outcomeLabel.text and texts(section.comparison.ui.scoresTable, 0)[0] == "PSNR (dB)"
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_measurement.png")

    # By a model, into a new volume; without iterations there is no curve.
    ui.imageSelector.setCurrentNode(None)
    ui.methodSelector.setCurrentIndex(names.index("model/measured"))
    assert not ui.optionsTable.isVisibleTo(panel.parent)
    ui.reconstructButton.click()
    wait(slicer_host, panel)
    assert ui.imageSelector.currentNode().GetName() == "scan measured"
    assert residual_chart(ui.imageSelector.currentNode()) is None
    assert not ui.residualContainer.isVisibleTo(panel.parent)

    # What is wrong is said in one sentence, and what is cancelled leaves nothing.
    content = panel_data.scene_content()
    ui.methodSelector.setCurrentIndex(names.index("ct/tv"))
    rows = {ui.optionsTable.item(row, 0).text(): row for row in range(ui.optionsTable.rowCount)}
    ui.optionsTable.item(rows["weight"], 1).setText("much")
    slicer_host.answer("Ok")
    ui.reconstructButton.click()
    wait(slicer_host, panel)
    assert "weight" in slicer_host.dialogs[-1].text and panel_data.scene_content() == content
    ui.optionsTable.item(rows["weight"], 1).setText("")
    ui.reconstructButton.click()
    ui.stopButton.click()
    wait(slicer_host, panel)
    assert "Cancelled" in ui.outcomeLabel.text and panel_data.scene_content() == content
    ui.geometryPath.currentPath = str(path.parent / "none.json")
    assert "There is no file" in ui.outcomeLabel.text and not ui.reconstructButton.enabled


def test_everything_says_what_it_is_for(panel):
    assert panel_data.widgets_without_tool_tip(panel) == []
    for part in (panel.comparison, panel.measurements):
        assert panel_data.widgets_without_tool_tip(part) == []


@pytest.mark.slow
def test_low_dose_ct_of_a_patient(slicer_host, tmp_path, monkeypatch, shared_data):  # noqa: F811
    """The model that ships, on four slices of a scanner that it was not trained on, at a simulated quarter dose."""
    from MedMapAILib import bundle
    from MedMapAILib.image import affine_of, read_image

    if not (bundle.SHIPPED_MODELS / "low-dose-ct").is_dir():
        pytest.skip("the model low-dose-ct is not there")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    scan = read_image(shared_data("lidc/LIDC-IDRI-0001"))
    truth = make_image(scan.numpy()[..., 6:10], affine_of(scan) @ _shift(6))
    about = bundle.read_info("low-dose-ct").images.acquisition
    noisy = acquisition_of({**about, "copies": 1}).degraded(truth, 1)
    panel = slicer_host.openModule("MedMapAI")
    nodes = []
    for image, name in ((noisy, "Low dose"), (truth, "Full dose")):
        node = mrml.volume_node_from_image(image, name=name)
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevelMinMax(-160, 240)
        nodes.append(node)
    slicer_host.selectModule("MedMapAI")
    panel.ui.inputSelector.setCurrentNode(nodes[0])
    choose(panel, "low-dose-ct")
    panel.ui.referenceVolumeSelector.setCurrentNode(nodes[1])
    panel.ui.applyButton.click()
    wait(slicer_host, panel)
    row = panel.logic.report.rows[0]
    assert row.name == "PSNR" and row.value > row.before + 3
    panel_data.show(nodes[0])
    panel.comparison.show(nodes[0], panel.ui.volumeSelector.currentNode(), panel.logic.report)
    panel.comparison.ui.sideBySideButton.click()
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_low_dose_ct.png")
    panel.comparison.ui.sideBySideButton.click()


def _shift(slices):
    """The matrix that moves an origin so many slices on."""
    matrix = np.eye(4)
    matrix[2, 3] = slices
    return matrix
