"""The panel MedMapAI with a model that detects: the table of findings, and what a reader does with them."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import panel_data
import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401
from host.proxy import unwrap
from MedMapAILib import mrml
from MedMapAILib.image import make_image
from MedMapAILib.inference.report import RunReport
from MedMapAILib.results import Detections, Finding, FindingMask

#: Of the volume, 60 x 60 x 60 mm around this place (RAS mm).
CENTER = np.array([20.0, -40.0, 100.0])


@pytest.fixture
def models(tmp_path, monkeypatch):
    """No model is listed."""
    from MedMapAILib import bundle

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv(bundle.MODELS_VARIABLE, str(tmp_path / "models"))
    monkeypatch.setattr(bundle, "SHIPPED_MODELS", tmp_path / "none")


@pytest.fixture
def panel(slicer_host, models):  # noqa: F811
    return slicer_host.openModule("MedMapAI")


def spots():
    """Where the balls lie (RAS mm), and how large they are (mm)."""
    return CENTER + [(-12, 8, 6), (10, -6, 0), (4, 12, -10)], (9.0, 6.0, 5.0)


def scan(name="Chest"):
    """Balls in noise, in the scene; voxels of 1 x 1 x 2 mm."""
    affine = np.diag([1.0, 1, 2, 1])
    affine[:3, 3] = CENTER - [30, 30, 30]
    index = np.stack(np.meshgrid(*[np.arange(n) for n in (61, 61, 31)], indexing="ij"), axis=-1)
    place = index @ affine[:3, :3].T + affine[:3, 3]
    voxels = np.random.default_rng(0).normal(-850, 40, place.shape[:3])
    for center, diameter in zip(*spots(), strict=True):
        voxels[np.linalg.norm(place - center, axis=-1) <= diameter / 2] = 20
    return mrml.volume_node_from_image(make_image(voxels[None].astype(np.float32), affine), name=name)


def result(**more):
    centers, diameters = spots()
    found = [
        Finding(tuple(center), (size, size, size), "nodule", score, measured_diameter_mm=size, synthetic=size == 5)
        for center, size, score in zip(centers, diameters, (0.93, 0.55, 0.12), strict=True)
    ]
    return Detections(("nodule",), tuple(found), **{"threshold": 0.5, "notes": ("One note.",), **more})


def show(panel, volume, detections, name="Chest lung-nodule"):
    """Show findings in the panel, as at the end of a run."""
    panel._parameterNode.inputVolume = volume
    folder = mrml.nodes_from_detections(detections, volume, name=name)
    panel.logic.report = RunReport("lung-nodule", detections, "cpu, fp32", 21.4)
    panel.onFinished(mrml.findings_table(folder))
    panel_data.show(volume)
    return folder


@pytest.fixture
def shown(slicer_host, panel):  # noqa: F811
    """(host, panel, review, folder) with three findings."""
    volume = scan()
    slicer_host.selectModule("MedMapAI")
    folder = show(panel, volume, result())
    return slicer_host, panel, panel.findingReview, folder


def cells(review, row):
    table = review.ui.findingsTable
    return [table.item(row, column).text() for column in range(6)]


def visible_rows(review):
    table = review.ui.findingsTable
    return [row for row in range(table.rowCount) if not table.isRowHidden(row)]


def click_row(review, row):
    """As a person does: on the middle of the row's second cell."""
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    inner = unwrap(review.ui.findingsTable)
    rectangle = inner.visualItemRect(inner.item(row, 1))
    QTest.mouseClick(inner.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, rectangle.center())


def views_at():
    """Where the slice views are: the middle of each, RAS mm."""
    import slicer

    matrices = [view.GetSliceToRAS() for view in slicer.util.getNodesByClass("vtkMRMLSliceNode")]
    return [[matrix.GetElement(row, 3) for row in range(3)] for matrix in matrices]


def states(folder):
    return [finding.state for _, finding in mrml.finding_nodes(folder)]


def shown_boxes(folder):
    return [bool(node.GetDisplayNode().GetVisibility()) for node, _ in mrml.finding_nodes(folder)]


def test_findings_are_listed_and_a_click_goes_there(shown):
    host, panel, review, folder = shown
    assert review._container.isVisibleTo(panel.parent) and panel.ui.findingsContainer.visible
    assert cells(review, 0) == ["1", "nodule", "0.93", "9.0", "0.382", ""]
    assert visible_rows(review) == [0, 1] and shown_boxes(folder) == [True, True, False]
    assert review.ui.countLabel.text == "2 of 3 candidates shown; you looked at 0."
    assert "2 findings; the first is a nodule of 9.0 mm, score 0.93; 21.4 s" in panel.ui.statusLabel.text
    assert "Research use only" in panel.ui.researchLabel.text and panel.ui.researchLabel.isVisibleTo(panel.parent)
    assert panel.ui.notesLabel.text == "One note."
    for widget in (panel.ui.resultsTable, panel.ui.classesTable, panel.ui.show3DButton, panel.ui.tableButton):
        assert not widget.isVisibleTo(panel.parent)
    centers, _ = spots()
    for row in (1, 0):
        click_row(review, row)
        np.testing.assert_allclose(views_at(), [centers[row]] * 3, atol=1e-6)
    widths = [node.GetDisplayNode().GetLineThickness() for node, _ in mrml.finding_nodes(folder)]
    assert widths[0] > widths[1] == widths[2], "the chosen one stands out"
    host.screenshot(panel_data.ARTIFACTS / "panel_run_findings.png")
    host.check()


def test_threshold_acts_at_once(shown):
    host, panel, review, folder = shown
    review.ui.thresholdSlider.value = 0.1
    assert visible_rows(review) == [0, 1, 2] and shown_boxes(folder) == [True] * 3
    assert cells(review, 2)[1] == "nodule (transplanted)"
    review.ui.thresholdSlider.value = 0.7
    assert visible_rows(review) == [0] and shown_boxes(folder) == [True, False, False]
    assert mrml.findings_threshold(folder) == pytest.approx(0.7)
    host.check()


def test_accept_and_reject(shown):
    host, panel, review, folder = shown
    ui = review.ui
    assert not ui.acceptButton.enabled and not ui.rejectButton.enabled
    click_row(review, 0)
    ui.acceptButton.click()
    assert states(folder) == ["accepted", "found", "found"] and ui.acceptButton.checked
    click_row(review, 1)
    assert not ui.acceptButton.checked
    ui.rejectButton.click()
    assert states(folder)[1] == "rejected" and shown_boxes(folder) == [True, False, False]
    assert visible_rows(review) == [0, 1] and cells(review, 1)[5] == "✗ rejected"
    assert ui.findingsTable.item(1, 1).font().strikeOut()
    # Accepted, it stays at any threshold.
    ui.thresholdSlider.value = 0.99
    assert shown_boxes(folder) == [True, False, False] and ui.countLabel.text.endswith("you looked at 2.")
    ui.rejectButton.click()
    assert states(folder)[1] == "found"
    host.check()


def test_correct_and_reset(shown):
    host, panel, review, folder = shown
    ui = review.ui
    click_row(review, 1)
    node = review.chosen[0]
    assert node.GetLocked()
    ui.correctButton.click()
    assert not node.GetLocked() and node.GetDisplayNode().GetHandlesInteractive() and ui.correctButton.checked
    node.SetSize(8, 8, 8)  # as by a handle in a view
    host.process_events(lambda: states(folder)[1] == "corrected" and cells(review, 1)[5] == "✎ corrected")
    assert cells(review, 1)[3] == "8.0" and node.GetName() == "2 nodule 0.55 8.0 mm"
    panel_data.show(mrml.findings_volume(folder))
    click_row(review, 1)
    host.screenshot(panel_data.ARTIFACTS / "panel_run_findings_corrected.png")
    click_row(review, 0)
    assert node.GetLocked(), "only the chosen one can be moved"
    click_row(review, 1)
    ui.resetButton.click()
    assert states(folder) == ["found"] * 3 and cells(review, 1)[3] == "6.0" and not ui.resetButton.enabled
    host.check()


def test_add_and_remove(shown):
    import slicer

    host, panel, review, folder = shown
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.JumpSliceByCentering(*(CENTER + [15, 15, 4]))
    review.ui.addButton.click()
    node, finding = review.chosen
    assert finding.state == "added" and not node.GetLocked()
    np.testing.assert_allclose(finding.center, CENTER + [15, 15, 4], atol=1e-6)
    assert cells(review, 3) == ["4", "nodule", "", "10.0", "0.524", "+ added"]
    assert not review.ui.acceptButton.enabled and review.ui.rejectButton.enabled
    review.ui.rejectButton.click()
    assert len(states(folder)) == 3 and review.chosen is None
    # Deleted or drawn elsewhere in Slicer, it follows.
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    drawn.SetCenter(*CENTER)
    drawn.SetSize(4, 4, 4)
    from MedMapAILib.mrml.folders import put_into

    put_into(folder, [drawn])
    host.process_events(lambda: review.ui.findingsTable.rowCount == 4)
    assert cells(review, 3)[5] == "+ added" and drawn.GetName() == "4 nodule 4.0 mm"
    slicer.mrmlScene.RemoveNode(drawn)
    host.process_events(lambda: review.ui.findingsTable.rowCount == 3)
    host.check()


def test_several_classes(slicer_host, panel):  # noqa: F811
    volume = scan()
    slicer_host.selectModule("MedMapAI")
    base = result()
    findings = (base.findings[0], dataclasses.replace(base.findings[1], label="mass"), base.findings[2])
    folder = show(panel, volume, dataclasses.replace(base, classes=("nodule", "mass"), findings=findings))
    review = panel.findingReview
    assert review.ui.classSelector.isVisibleTo(panel.parent)
    click_row(review, 1)
    assert review.ui.classSelector.currentText == "mass"
    review.ui.classSelector.setCurrentIndex(0)
    review.ui.classSelector.activated.emit(0)
    assert states(folder) == ["found", "corrected", "found"] and cells(review, 1)[1] == "nodule"
    slicer_host.check()


def test_keyboard_goes_through_the_findings(shown):
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    host, panel, review, folder = shown
    click_row(review, 0)
    QTest.keyClick(unwrap(review.ui.findingsTable), Qt.Key.Key_Down)
    centers, _ = spots()
    np.testing.assert_allclose(views_at(), [centers[1]] * 3, atol=1e-6)


# -- files -------------------------------------------------------------------------------------------------------------


def test_exports(shown, tmp_path):
    host, panel, review, folder = shown
    click_row(review, 1)
    review.ui.rejectButton.click()
    centers, diameters = spots()
    actions = {action.text: action for action in review._menu.actions()}
    for text, name in (
        ("Table (CSV, RAS mm)…", "a.csv"), ("Everything (JSON, RAS mm)…", "b.json"),
        ("Markups of Slicer (JSON)…", "c"), ("Submission to LUNA16 (CSV, LPS mm)…", "d.csv"),
    ):  # fmt: skip
        host.answer(str(tmp_path / name))
        actions[text].trigger()
        assert str(tmp_path / name) in panel.ui.statusLabel.text
    rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8")))
    assert [row["state"] for row in rows] == ["found", "rejected", "found"] and {row["frame"] for row in rows} == {
        "RAS"
    }
    assert [float(rows[0][axis]) for axis in "xyz"] == pytest.approx(list(centers[0]))
    everything = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert everything["frame"] == "RAS mm" and everything["findings"][2]["synthetic"]
    rows = list(csv.DictReader((tmp_path / "d.csv").open()))
    # LUNA16 is in LPS; what was rejected is no candidate.
    assert [float(rows[0][f"coord{axis}"]) for axis in "XYZ"] == pytest.approx(list(centers[0] * [-1, -1, 1]))
    assert [row["seriesuid"] for row in rows] == ["Chest"] * 2 and float(rows[1]["probability"]) == 0.12
    # Slicer reads its own file, at the right place.
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
    storage.SetFileName(str(tmp_path / "c.mrk.json"))
    assert storage.ReadData(node)
    assert mrml.roi_bounds(node) == (pytest.approx(tuple(centers[0])), pytest.approx((diameters[0],) * 3))
    host.answer("Ok")
    review.export(".csv", str(tmp_path / "none" / "a.csv"))
    assert "not saved" in host.dialogs[-1].text
    host.check()


def test_corrected_findings_are_training_data(shown, tmp_path):
    from MedMapAILib.datasets import open_dataset
    from MedMapAILib.datasets.loading import load_case

    host, panel, review, folder = shown
    click_row(review, 0)
    review.ui.acceptButton.click()
    click_row(review, 1)
    review.ui.correctButton.click()
    review.chosen[0].SetCenterWorld(list(CENTER + [10, -5, 0]))
    # Another scan that was reviewed goes with it; one that was not does not.
    other = mrml.nodes_from_detections(result(threshold=0.9), scan("Other"), name="other")
    mrml.mark_finding(mrml.finding_nodes(other)[0][0], state="rejected")
    mrml.nodes_from_detections(result(), scan("Third"), name="third")
    host.answer(str(tmp_path))
    review.ui.trainingButton.click()
    assert "2 scans with 2 findings" in panel.ui.statusLabel.text
    dataset = open_dataset(tmp_path / "findings_001")
    assert dataset.task == "detection" and dataset.findings == ("nodule",) and len(dataset.cases) == 2
    image, reference = load_case(dataset.cases[0], dataset)
    assert [one.center for one in reference.findings] == [
        pytest.approx(tuple(spots()[0][0]), abs=1e-3), pytest.approx(tuple(CENTER + [10, -5, 0]), abs=1e-3),
    ]  # fmt: skip
    index = np.round(np.linalg.inv(image.affine.numpy()) @ [*reference.findings[0].center, 1]).astype(int)
    assert image[(0, *index[:3])] == 20, "it lies where the ball is"
    assert load_case(dataset.cases[1], dataset)[1].findings == ()
    assert not any("Chest" in path.name for path in tmp_path.rglob("*"))
    host.answer(str(tmp_path))
    review.ui.trainingButton.click()
    assert (tmp_path / "findings_002").is_dir(), "nothing is replaced"
    host.check()


def test_masks_are_exported_as_label_maps(slicer_host, panel, tmp_path):  # noqa: F811
    from MedMapAILib.datasets import open_dataset
    from MedMapAILib.datasets.loading import load_case
    from MedMapAIQt.finding_export import export_reviewed

    volume = scan()
    slicer_host.selectModule("MedMapAI")
    image = mrml.image_from_node(volume)
    base = result()
    found = []
    for finding in base.findings:
        place = np.linalg.inv(image.affine.numpy()) @ [*finding.center, 1]
        low = np.floor(place[:3]).astype(int) - 5
        placed = image.affine.numpy().copy()
        placed[:3, 3] = (image.affine.numpy() @ [*low, 1])[:3]
        part = image.numpy()[0, low[0] : low[0] + 11, low[1] : low[1] + 11, low[2] : low[2] + 11] == 20
        found.append(dataclasses.replace(finding, mask=FindingMask(part, placed)))
    folder = show(panel, volume, dataclasses.replace(base, findings=tuple(found), threshold=0.1))
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_findings_masks.png")
    export_reviewed(folder, tmp_path)
    dataset = open_dataset(tmp_path / "findings_001")
    _, reference = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(reference.instances > 0, image.numpy()[0] == 20)
    assert set(np.unique(reference.instances)) == {0, 1, 2, 3}


# -- a model -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    return panel_data.train_small_detector(tmp_path_factory.mktemp("model"), epochs=4, iterations_per_epoch=12)


@pytest.fixture
def trained(slicer_host, models, small_model, monkeypatch):  # noqa: F811
    from MedMapAILib import bundle

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(bundle.MODELS_VARIABLE, str(small_model.parent))
    return slicer_host.openModule("MedMapAI")


def apply(host, panel):
    panel.ui.applyButton.click()
    host.process_events(lambda: not panel.logic.running, timeout_s=240, message=panel.ui.statusLabel.text)
    host.check()


def test_click_through_with_a_model(slicer_host, trained):  # noqa: F811
    from MedMapAIQt.scene_run import SceneRun

    image, truth = panel_data.scan_of_a_ball(100)
    volume = mrml.volume_node_from_image(image, name="Scan")
    panel, ui = trained, trained.ui
    slicer_host.selectModule("MedMapAI")
    assert ui.tableSelector.isVisibleTo(panel.parent) and not ui.outputSelector.isVisibleTo(panel.parent)
    assert not ui.referenceSelector.isVisibleTo(panel.parent) and not ui.saliencySelector.isVisibleTo(panel.parent)
    assert ui.applyButton.enabled, ui.statusLabel.text
    apply(slicer_host, panel)
    table = ui.tableSelector.currentNode()
    folder = mrml.findings_folder(table)
    assert panel.findingReview.folder == folder and table.GetName() == "Scan balls"
    found = mrml.findings_from_nodes(folder)
    assert found.classes == ("ball",) and len(found.called) >= 1
    assert np.linalg.norm(np.subtract(found.findings[0].center, truth.center)) < 4, (
        "within the radius: it has learned it"
    )
    assert panel.logic.report.detections.findings[0].center == found.findings[0].center
    panel_data.show(volume)
    click_row(panel.findingReview, 0)
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_detection.png")
    # Run again, the same nodes are filled; once a reader said something, they are kept beside the new ones.
    before = panel_data.scene_content()
    apply(slicer_host, panel)
    assert panel_data.scene_content() == before and ui.tableSelector.currentNode() == table
    click_row(panel.findingReview, 0)
    panel.findingReview.ui.acceptButton.click()
    apply(slicer_host, panel)
    second = ui.tableSelector.currentNode()
    assert second != table and states(mrml.findings_folder(table))[0] == "accepted"
    assert "kept in the folder Scan balls" in ui.notesLabel.text
    # What was reviewed is what the next run can be scored against.
    from MedMapAI import MedMapAILogic

    logic = MedMapAILogic()
    logic.run(volume, "balls", referenceNode=table, device="cpu")
    assert logic.report.scores["hits"] == 1 and logic.report.scores["missed"] == 0
    from MedMapAILib.errors import InputError

    with pytest.raises(InputError, match="no table of findings"):
        SceneRun(volume, "balls", None, volume, None)
    with pytest.raises(InputError, match="needs a table as output"):
        SceneRun(volume, "balls", None, None, volume)


def test_values_that_are_no_hounsfield_units(slicer_host, trained, small_model, tmp_path, monkeypatch):  # noqa: F811
    """A model that looks in the lungs, and a CT whose intercept was lost: the user is asked."""
    import shutil

    from MedMapAILib import bundle

    models = tmp_path / "models"
    shutil.copytree(small_model, models / "balls")
    monkeypatch.setenv(bundle.MODELS_VARIABLE, str(models))
    _look_in_lungs(models / "balls")
    image, _ = panel_data.scan_of_a_ball(101)
    volume = mrml.volume_node_from_image(make_image(image.numpy() + 1024, image.affine), name="No HU")
    panel = trained
    slicer_host.selectModule("MedMapAI")
    assert panel.ui.inputSelector.currentNode() == volume
    before = panel_data.scene_content()
    slicer_host.answer("No")
    apply(slicer_host, panel)
    asked = slicer_host.dialogs[-1].text
    assert "Hounsfield units" in asked and "Go on all the same?" in asked
    assert panel_data.scene_content() == before and panel.ui.statusLabel.text == "The model was not run."
    # Gone on with, it is told what comes next: there are no lungs.
    slicer_host.answer("Yes", "Ok")
    apply(slicer_host, panel)
    slicer_host.process_events(lambda: not panel.logic.running, timeout_s=60)
    assert "No lungs were found" in slicer_host.dialogs[-1].text
    assert panel_data.scene_content() == before


def _look_in_lungs(folder):
    """Let a model look in the lungs only."""
    import hashlib

    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata["medmapai"]["plan"]["region"] = "lungs"
    path.write_text(json.dumps(metadata), encoding="utf-8")
    names = [line.partition("  ")[2] for line in (folder / "checksums.sha256").read_text().splitlines()]
    sums = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / "checksums.sha256").write_text(sums)


# -- life of the scene -------------------------------------------------------------------------------------------------


def test_review_goes_on_after_a_scene_was_saved_and_loaded(shown, tmp_path):
    import slicer

    host, panel, review, folder = shown
    click_row(review, 0)
    review.ui.acceptButton.click()
    assert slicer.app.ioManager().saveScene(str(tmp_path / "review.mrb"))
    host.closeScene()
    assert review.folder == 0 and not review._container.isVisibleTo(panel.parent)
    slicer.app.ioManager().loadScene(str(tmp_path / "review.mrb"))
    panel.enter()
    assert cells(panel.findingReview, 0)[5] == "✓ accepted"
    click_row(panel.findingReview, 1)
    centers, _ = spots()
    np.testing.assert_allclose(views_at(), [centers[1]] * 3, atol=1e-4)
    host.check()


def test_nothing_found(slicer_host, panel):  # noqa: F811
    volume = scan()
    slicer_host.selectModule("MedMapAI")
    show(panel, volume, Detections(("nodule",), (), 0.5))
    assert panel.findingReview.ui.countLabel.text == "Nothing was found."
    assert "No finding reaches" in panel.ui.statusLabel.text
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_findings_none.png")


def test_every_widget_says_what_it_does(shown):
    _host, panel, review, _folder = shown

    class Widgets:
        ui = review.ui

    assert panel_data.widgets_without_tool_tip(Widgets) == []
    assert panel_data.widgets_without_tool_tip(panel) == []


@pytest.mark.slow
def test_lung_nodule_in_a_real_scan(slicer_host, models, monkeypatch, shared_data):  # noqa: F811
    """The slab of LIDC-IDRI-0001, which the model that ships has never seen: the nodule of 23 mm comes first."""
    from MedMapAILib import bundle
    from MedMapAILib.datasets import open_dataset
    from MedMapAILib.datasets.loading import load_case

    dataset = open_dataset(shared_data("lidc"))
    image, reference = load_case(dataset.cases[0], dataset)
    shipped = panel_data.ARTIFACTS.parents[1] / "MedMapAI" / "Resources" / "Models"
    monkeypatch.setenv(bundle.MODELS_VARIABLE, str(shipped))
    panel = slicer_host.openModule("MedMapAI")
    volume = mrml.volume_node_from_image(image, name="Chest CT")
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(1500, -500)
    slicer_host.selectModule("MedMapAI")
    panel.ui.modelSelector.currentIndex = panel.ui.modelSelector.findText("Lung nodules (chest CT)")
    apply(slicer_host, panel)
    found = mrml.findings_from_nodes(mrml.findings_folder(panel.ui.tableSelector.currentNode()))
    (truth,) = reference.findings
    assert np.linalg.norm(np.subtract(found.findings[0].center, truth.center)) < truth.diameter_mm / 2
    assert found.called[0] == found.findings[0]
    panel_data.show(volume)
    click_row(panel.findingReview, 0)
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_lung_nodule.png")
