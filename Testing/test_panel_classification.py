"""The panel MedMapAI with a model that classifies: the call, its probabilities, the map over the image, warnings."""

from __future__ import annotations

import dataclasses

import numpy as np
import panel_data
import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401
from MedMapAILib import mrml
from MedMapAILib.errors import InputError
from MedMapAILib.inference.report import RunReport
from MedMapAILib.results import Classification, Familiarity, Saliency

PATIENCE = 240


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    return panel_data.train_small_classifier(tmp_path_factory.mktemp("model"))


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


def apply(host, panel):
    panel.ui.applyButton.click()
    host.process_events(lambda: not panel.logic.running, timeout_s=PATIENCE, message=panel.ui.statusLabel.text)
    host.check()


def views():
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def saliency_of(panel):
    from MedMapAIQt.scene_run import saliency_node

    return saliency_node(panel.ui.tableSelector.currentNode())


def visible(panel, *names):
    return [getattr(panel.ui, name).isVisibleTo(panel.parent) for name in names]


def test_panel_shows_what_a_classifier_needs(panel):
    panel.ui.optionsSection.collapsed = False
    assert visible(panel, "saliencySelector", "tableSelector") == [True, True]
    assert visible(panel, "referenceSelector", "referenceSelectorLabel", "outputSelector") == [False] * 3
    assert panel_data.widgets_without_tool_tip(panel) == []


def test_methods_are_those_of_the_library(panel):
    from MedMapAILib.saliency import METHODS

    from MedMapAI import SALIENCY

    assert sorted(SALIENCY) == sorted([*METHODS, "none"])
    panel_data.picture_node(1, True)
    panel.enter()
    panel.ui.saliencySelector.currentText = "attention"
    assert "no attention map" in panel.ui.statusLabel.text and not panel.ui.applyButton.enabled


def test_click_through(slicer_host, panel):  # noqa: F811
    volume = panel_data.picture_node(2001, spot=True)
    slicer_host.selectModule("MedMapAI")
    assert panel.ui.inputSelector.currentNode() == volume and panel.ui.applyButton.enabled
    before = panel_data.scene_content()
    apply(slicer_host, panel)
    # The table node, and the same in the panel.
    node = panel.ui.tableSelector.currentNode()
    assert node.GetName() == "Picture bright-spot"
    table, ui = panel.ui.classesTable, panel.ui
    assert [table.item(row, 0).text() for row in (0, 1)] == ["dark", "bright spot"]
    shown = [float(table.item(row, 1).text()) for row in (0, 1)]
    kept = [float(node.GetCellText(row, 1)) for row in (0, 1)]
    assert shown == pytest.approx(kept, abs=5e-4) and sum(shown) == pytest.approx(1, abs=1e-3)
    assert [table.item(row, 3).text() for row in (0, 1)] == ["", "✓"], "it has learned what a bright spot is"
    assert "Called: bright spot" in ui.callLabel.text and "bright spot" in ui.statusLabel.text
    assert visible(panel, "classesTable", "callLabel", "resultsTable", "show3DButton", "tableButton") == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert "Research use only" in ui.researchLabel.text and "Research use only" in node.GetDescription()
    # The map lies over the picture, on its grid, brightest within reach of the spot.
    looked = saliency_of(panel)
    assert looked.GetImageData().GetDimensions() == volume.GetImageData().GetDimensions()
    values = mrml.image_from_node(looked).numpy()[0, :, :, 0]
    assert values.min() >= 0 and values.max() <= 1 and values.max() > 0.5
    assert {(v.GetBackgroundVolumeID(), v.GetForegroundVolumeID()) for v in views()} == {
        (volume.GetID(), looked.GetID())
    }
    ui.opacitySlider.value = 0.3
    assert {v.GetForegroundOpacity() for v in views()} == {0.3}
    panel_data.show(volume)
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_classification.png")
    assert len(panel_data.scene_content()) == len(before) + 2

    # Another method fills the same nodes; without a map, the old one goes: it is of another run.
    content = panel_data.scene_content()
    ui.saliencySelector.currentText = "occlusion"
    apply(slicer_host, panel)
    assert ui.tableSelector.currentNode() == node and saliency_of(panel) == looked
    assert panel_data.scene_content() == content and "occlusion" in ui.opacityLabel.text
    ui.saliencySelector.currentText = "none"
    apply(slicer_host, panel)
    assert ui.tableSelector.currentNode() == node and saliency_of(panel) is None
    assert ("vtkMRMLScalarVolumeNode", "Picture bright-spot saliency") not in panel_data.scene_content()
    assert not ui.opacitySlider.isVisibleTo(panel.parent)
    slicer_host.closeScene()
    slicer_host.check()
    assert ui.classesTable.rowCount == 0 and not ui.callLabel.text


def test_a_color_picture_of_grays_is_classified_as_gray(slicer_host, panel):  # noqa: F811
    gray = panel_data.picture_node(2002, spot=True)
    slicer_host.selectModule("MedMapAI")
    panel.ui.saliencySelector.currentText = "none"
    apply(slicer_host, panel)
    expected = panel.logic.report.classification.probabilities
    volume = panel_data.picture_node(2002, spot=True, colors=True, name="Photograph")
    panel.ui.inputSelector.setCurrentNode(volume)
    assert panel.ui.inputSelector.currentNode() == volume, "color pictures can be chosen"
    panel.ui.tableSelector.setCurrentNode(None)
    apply(slicer_host, panel)
    assert panel.logic.report.classification.probabilities == pytest.approx(expected, abs=1e-6)
    assert panel.ui.tableSelector.currentNode().GetName() == "Photograph bright-spot"
    # In real color it is no input of this model: told, and nothing is changed.
    import slicer

    slicer.util.arrayFromVolume(volume)[..., 0] //= 2
    slicer.util.arrayFromVolumeModified(volume)
    before = panel_data.scene_content()
    slicer_host.answer("Ok")
    apply(slicer_host, panel)
    assert "1 channel" in slicer_host.dialogs[-1].text and panel_data.scene_content() == before
    assert gray.GetScene() is not None


def test_region_of_interest(slicer_host, panel):  # noqa: F811
    volume = panel_data.picture_node(2003, spot=False)
    slicer_host.selectModule("MedMapAI")
    panel.ui.fitRoiButton.click()
    apply(slicer_host, panel)
    whole = panel.logic.report.classification.probabilities
    looked = saliency_of(panel)
    assert looked.GetImageData().GetDimensions() == volume.GetImageData().GetDimensions()
    assert sum(whole) == pytest.approx(1)


def test_logic_runs_from_a_script(slicer_host, models):  # noqa: F811
    from MedMapAIQt.scene_run import saliency_node

    slicer_host.openModule("MedMapAI")
    from MedMapAI import MedMapAILogic

    volume = panel_data.picture_node(2004, spot=True)
    logic = MedMapAILogic()
    node = logic.run(volume, "bright-spot", device="cpu", saliency="grad-cam")
    assert node.IsA("vtkMRMLTableNode") and saliency_node(node) is not None
    assert [row.name for row in logic.report.rows] == ["dark", "bright spot"]
    before = panel_data.scene_content()
    with pytest.raises(InputError, match="needs a table as output"):
        logic.run(volume, "bright-spot", outputNode=volume)
    with pytest.raises(InputError, match="no saliency map 'x-ray'"):
        logic.run(volume, "bright-spot", saliency="x-ray")
    assert panel_data.scene_content() == before


# -- what a result may be, whatever the model --------------------------------------------------------------------------


def shown_result(panel, volume, **more):
    """Show a classification in the panel, as at the end of a run."""
    from MedMapAIQt.scene_run import SceneRun

    run = SceneRun(volume, "bright-spot", None, None, panel.ui.tableSelector.currentNode())
    values = np.zeros(run.voxels.shape[1:], np.float32)
    values[10:16, 12:20] = 1
    result = Classification(
        **{
            "classes": ("dark", "bright spot"), "kind": "binary", "probabilities": (0.2, 0.8),
            "thresholds": (None, 0.37), "called": ("bright spot",),
            "saliency": Saliency(values, run.affine, "grad-cam", "bright spot"), **more,
        }
    )  # fmt: skip
    node, result = run.place(result)
    panel.logic.report = RunReport("bright-spot", result, "cpu, fp32", 0.4)
    panel.onFinished(node)
    return node


def test_an_image_of_another_kind_is_warned_of(slicer_host, panel):  # noqa: F811
    volume = panel_data.picture_node(2005, spot=True)
    slicer_host.selectModule("MedMapAI")
    said = "This is not the kind of image this model was trained on: its size is 3.1 times as far off as any."
    far = Familiarity(False, {"size": 3.1}, said)
    warned = Saliency(np.ones((32, 30, 1)), np.eye(4), "grad-cam", "dark", "The map hardly depends on the weights.")
    node = shown_result(panel, volume, familiarity=far, saliency=warned, notes=("One note.",))
    assert panel.ui.familiarityLabel.text == said and panel.ui.familiarityLabel.isVisibleTo(panel.parent)
    assert said in node.GetDescription()
    assert panel.ui.notesLabel.text == "One note.\nThe map hardly depends on the weights."
    panel_data.show(volume)
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_unfamiliar.png")
    shown_result(panel, volume, familiarity=Familiarity(True, {"size": 0.2}))
    assert not panel.ui.familiarityLabel.isVisibleTo(panel.parent) and not panel.ui.notesLabel.text


def test_many_findings_and_none(slicer_host, panel):  # noqa: F811
    volume = panel_data.picture_node(2006, spot=True)
    slicer_host.selectModule("MedMapAI")
    names = tuple(f"finding {n}" for n in range(14))
    chances = tuple(n / 14 for n in range(14))
    several = {"classes": names, "kind": "multi-label", "probabilities": chances, "thresholds": (0.6,) * 14}
    shown_result(panel, volume, **several, called=names[9:])
    table = panel.ui.classesTable
    assert table.rowCount == 14 and not table.isColumnHidden(2)
    assert [table.item(row, 3).text() for row in range(14)] == [""] * 9 + ["✓"] * 5
    assert table.item(9, 0).font().bold() and not table.item(8, 0).font().bold()
    shown_result(panel, volume, **several, called=())
    assert panel.ui.callLabel.text == "None of the classes reaches its operating point."
    shown_result(panel, volume, thresholds=(None, None))
    assert table.isColumnHidden(2), "the highest probability decides: there is no threshold"


def test_a_result_that_cannot_be_shown_leaves_the_scene(slicer_host, panel):  # noqa: F811
    from MedMapAIQt.scene_run import SceneRun

    volume = panel_data.picture_node(2007, spot=True)
    slicer_host.selectModule("MedMapAI")
    run = SceneRun(volume, "bright-spot", None, None, None)
    good = Classification(
        ("dark", "bright spot"), "binary", (0.2, 0.8), (None, None), ("dark",),
        saliency=Saliency(np.ones((32, 30, 1)), run.affine, "grad-cam", "dark"),
    )  # fmt: skip
    before = panel_data.scene_content()
    with pytest.raises(AttributeError):
        run.place(dataclasses.replace(good, classes=("dark", None)))
    assert panel_data.scene_content() == before
    run.place(good)
    assert len(panel_data.scene_content()) == len(before) + 2


@pytest.mark.skipif(not panel_data.RADIOGRAPHS.exists(), reason="the radiographs (../shared/data) are not here")
def test_the_model_that_ships_on_a_radiograph(slicer_host):  # noqa: F811
    from MedMapAILib.image import make_image

    archive = np.load(panel_data.RADIOGRAPHS)
    number = int(np.flatnonzero(archive["val_labels"].ravel() == 1)[0])
    pixels = archive["val_images"][number].astype(np.float32)
    image = make_image(pixels.T[None, :, :, None], np.diag([-1.0, -1, 1, 1]))
    volume = mrml.volume_node_from_image(image, name="Radiograph")
    panel = slicer_host.openModule("MedMapAI")
    panel.ui.inputSelector.setCurrentNode(volume)
    panel.ui.modelSelector.currentText = "Pneumonia (chest radiograph, 28×28)"
    panel.ui.saliencySelector.currentText = "occlusion"
    apply(slicer_host, panel)
    table = panel.ui.classesTable
    assert [table.item(row, 0).text() for row in (0, 1)] == ["normal", "pneumonia"]
    assert sum(float(table.item(row, 1).text()) for row in (0, 1)) == pytest.approx(1, abs=1e-3)
    assert "Called: " in panel.ui.callLabel.text and saliency_of(panel) is not None
    panel_data.show(volume)
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_run_pneumonia.png")
