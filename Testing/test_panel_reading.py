"""The section "Blinded reading" of the panel MedMapAI: making a study, reading it blind, going on, the report."""

from __future__ import annotations

import json

import numpy as np
import panel_data
import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401
from MedMapAILib import mrml
from MedMapAILib.image import write_array
from MedMapAILib.reading.images import make_study
from MedMapAILib.reading.study import CRITERIA, load_key

CASES = ("scanatom7", "scanbely3")
#: No words of the panel.
METHODS = ("xfbp", "xtvar", "xnet")
#: How noisy each method's images are, HU.
NOISE = {"xfbp": 120, "xtvar": 40, "xnet": 15}
WINDOW = (-160.0, 240.0)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """No model is listed."""
    from MedMapAILib import bundle

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv(bundle.MODELS_VARIABLE, str(tmp_path / "models"))
    monkeypatch.setattr(bundle, "SHIPPED_MODELS", tmp_path / "none")


@pytest.fixture
def opened(slicer_host, models):  # noqa: F811
    """(host, panel, reading panel), its section open."""
    panel = slicer_host.openModule("MedMapAI")
    for section in (panel.ui.inputsSection, panel.ui.outputSection, panel.ui.resultsSection):
        section.collapsed = True
    panel.ui.readingSection.collapsed = False
    return slicer_host, panel, panel.readingPanel


def voxels(case: str, method: str) -> np.ndarray:
    """(I, J, K): a body of water with a liver and a lesion, and noise."""
    i, j, k = np.meshgrid(np.arange(64), np.arange(60), np.arange(20), indexing="ij")
    body = ((i - 32) / 28) ** 2 + ((j - 30) / 24) ** 2 < 1
    values = np.where(body, 0.0, -1000.0)
    values[((i - 24) / 12) ** 2 + ((j - 28) / 14) ** 2 < 1] = 60 if case == "scanbely3" else -850
    values[(i - 26) ** 2 + (j - 30) ** 2 + (2 * (k - 10)) ** 2 < 20] = 120
    seed = CASES.index(case) * 10 + METHODS.index(method)
    return (values + np.random.default_rng(seed).normal(0, NOISE[method], values.shape)).astype(np.int16)


def affine() -> np.ndarray:
    matrix = np.diag([-2.0, -2, 4, 1])
    matrix[:3, 3] = (50, 40, -30)
    return matrix


def write_images(folder):
    """case → method → path, in folders of the methods."""
    images = {}
    for method in METHODS:
        (folder / method).mkdir(parents=True)
        for case in CASES:
            path = folder / method / f"{case}.nrrd"
            write_array(voxels(case, method), affine(), path)
            images.setdefault(case, {})[method] = str(path)
    return images


def study_of(tmp_path, **options):
    folder = tmp_path / "study"
    make_study(folder, write_images(tmp_path / "images"), **{"seed": 3, "window": WINDOW, **options})
    return folder


def begin(reading, folder, reader="R1"):
    reading.ui.studyEdit.text = str(folder)
    reading.ui.readerEdit.text = reader
    reading.ui.beginButton.click()


def score_screen(reading, value=3):
    for image in range(len(reading.session.codes)):
        for criterion in CRITERIA:
            reading.scores.button(image, criterion, value).click()


def shown_values(reading):
    """The voxels of the images that are shown, by their nodes."""
    return [mrml.voxels_from_node(node)[0][0] for node in reading.views.nodes]


def everything_seen(host, panel):
    """All texts that a reader can see or point at: of the panel, the window and the scene."""
    import slicer
    import vtk
    from host.proxy import unwrap
    from PySide6.QtWidgets import QWidget

    window = unwrap(slicer.util.mainWindow())
    texts = [window.windowTitle()]
    for widget in [unwrap(panel.parent), *unwrap(panel.parent).findChildren(QWidget), *window.findChildren(QWidget)]:
        if widget.isVisibleTo(window) or widget.isVisibleTo(unwrap(panel.parent)):
            for name in (
                "text",
                "title",
                "windowTitle",
                "toolTip",
                "statusTip",
                "whatsThis",
                "toPlainText",
                "currentText",
            ):
                value = getattr(widget, name, None)
                texts.append(value() if callable(value) else "")
    for n in range(slicer.mrmlScene.GetNumberOfNodes()):
        node = slicer.mrmlScene.GetNthNode(n)
        texts += [node.GetName() or "", node.GetDescription() or ""]
        texts += [node.GetAttribute(name) or "" for name in node.GetAttributeNames()]
        if node.IsA("vtkMRMLStorageNode"):
            texts.append(node.GetFileName() or "")
    tree = slicer.mrmlScene.GetSubjectHierarchyNode()
    items = vtk.vtkIdList()
    tree.GetItemChildren(tree.GetSceneItemID(), items, True)
    texts += [tree.GetItemName(items.GetId(n)) for n in range(items.GetNumberOfIds())]
    return " ".join(text for text in texts if isinstance(text, str)).lower()


# -- reading -----------------------------------------------------------------------------------------------------------


def test_nobody_sees_what_is_what(opened, tmp_path, capfd):
    host, panel, reading = opened
    folder = study_of(tmp_path)
    begin(reading, folder)
    host.check()
    key = load_key(folder)
    for position in range(6):
        seen = everything_seen(host, panel)
        entry = key.entries[reading.session.codes[0]]
        assert not [word for word in (*METHODS, *CASES, str(tmp_path).lower(), "study.json") if word in seen]
        np.testing.assert_array_equal(shown_values(reading)[0], voxels(entry.case, entry.method))
        if position < 5:
            reading.ui.nextButton.click()
    assert [node.GetName() for node in reading.views.nodes] == ["Image 1"]
    assert reading.views.nodes[0].GetStorageNode() is None and not reading.views.nodes[0].GetSaveWithScene()
    output = "".join(capfd.readouterr()).lower()
    assert not any(word in output for word in METHODS), "nothing is logged, either"


def test_one_at_a_time(opened, tmp_path):
    import slicer

    host, panel, reading = opened
    folder = study_of(tmp_path)
    begin(reading, folder)
    ui = reading.ui
    assert ui.readingPage.isVisibleTo(panel.parent) and not ui.studyPage.isVisibleTo(panel.parent)
    assert ui.positionLabel.text == "Reader R1, screen 1 of 6."
    assert (ui.readingProgress.value, ui.readingProgress.maximum) == (0, 6)
    assert not ui.previousButton.enabled and ui.nextButton.enabled and not ui.finishButton.enabled
    display = reading.views.nodes[0].GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == WINDOW
    assert slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetOrientation() == "Axial"
    for criterion, value in zip(CRITERIA, (2, 4, 3, 1), strict=True):
        reading.scores.button(0, criterion, value).click()
    stored = json.loads((folder / "reader-R1.json").read_text())
    assert list(stored["scores"].values()) == [dict(zip(CRITERIA, (2, 4, 3, 1), strict=True))]
    assert ui.readingProgress.value == 1
    host.screenshot(panel_data.ARTIFACTS / "panel_reading_single.png")
    ui.nextButton.click()
    assert all(not reading.scores.button(0, c, v).checked for c in CRITERIA for v in range(1, 6))
    ui.previousButton.click()
    assert reading.scores.button(0, "sharpness", 4).checked
    # A score is changed.
    reading.scores.button(0, "sharpness", 5).click()
    assert reading.session.scores(reading.session.codes[0])["sharpness"] == 5
    ui.orientationSelector.setCurrentIndex(3)
    orientations = [view.GetOrientation() for view in slicer.util.getNodesByClass("vtkMRMLSliceNode")]
    assert sorted(orientations) == ["Axial", "Coronal", "Sagittal"]
    host.screenshot(panel_data.ARTIFACTS / "panel_reading_all_three.png")
    host.check()
    assert panel_data.widgets_without_tool_tip(reading) == []


def test_side_by_side_is_linked(opened, tmp_path):
    import slicer

    host, panel, reading = opened
    folder = study_of(tmp_path, layout="side-by-side")
    begin(reading, folder)
    assert [node.GetName() for node in reading.views.nodes] == ["Image 1", "Image 2", "Image 3"]
    manager = slicer.app.layoutManager()
    widgets = [manager.sliceWidget(name) for name in ("Red", "Yellow", "Green")]
    entries = [load_key(folder).entries[code] for code in reading.session.codes]
    for widget, node, entry in zip(widgets, reading.views.nodes, entries, strict=True):
        composite = widget.mrmlSliceCompositeNode()
        assert composite.GetBackgroundVolumeID() == node.GetID()
        assert composite.GetLinkedControl() and composite.GetHotLinkedControl()
        assert widget.mrmlSliceNode().GetOrientation() == "Axial"
        np.testing.assert_array_equal(mrml.voxels_from_node(node)[0][0], voxels(entry.case, entry.method))
    score_screen(reading, 4)
    host.screenshot(panel_data.ARTIFACTS / "panel_reading_side_by_side.png")
    # As a mouse wheel in one view does.
    logic = widgets[1].sliceLogic()
    before = logic.GetSliceOffset()
    logic.StartSliceOffsetInteraction()
    logic.SetSliceOffset(before + 8)
    logic.EndSliceOffsetInteraction()
    assert [widget.sliceLogic().GetSliceOffset() for widget in widgets] == pytest.approx([before + 8] * 3)
    # One image is windowed, all are.
    reading.views.nodes[2].GetDisplayNode().SetWindowLevelMinMax(-50, 150)
    displays = [node.GetDisplayNode() for node in reading.views.nodes]
    assert [(d.GetWindowLevelMin(), d.GetWindowLevelMax()) for d in displays] == [(-50, 150)] * 3
    reading.ui.resetWindowButton.click()
    assert [(d.GetWindowLevelMin(), d.GetWindowLevelMax()) for d in displays] == [WINDOW] * 3
    reading.ui.orientationSelector.setCurrentIndex(2)
    assert {widget.mrmlSliceNode().GetOrientation() for widget in widgets} == {"Coronal"}
    assert reading.ui.orientationSelector.findText("All three") < 0
    host.check()


def test_more_methods_than_slicer_has_views(opened, tmp_path):
    import slicer

    host, panel, reading = opened
    images = write_images(tmp_path / "images")
    for case in CASES:
        images[case] |= {"again": images[case]["xfbp"], "twice": images[case]["xnet"]}
    make_study(tmp_path / "study", images, layout="side-by-side", window=WINDOW, seed=0)
    begin(reading, tmp_path / "study")
    assert len(reading.views.nodes) == 5
    composite = slicer.app.layoutManager().sliceWidget("Slice5").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == reading.views.nodes[4].GetID()
    host.process_events(lambda: not reading.views._timer.isActive())
    views = [slicer.app.layoutManager().sliceWidget(n).mrmlSliceNode() for n in ("Red", "Yellow", "Green", "Slice5")]
    scales = [view.GetFieldOfView()[0] / view.GetDimensions()[0] for view in views]
    assert scales == pytest.approx([scales[0]] * 4), "all at one scale"
    host.screenshot(panel_data.ARTIFACTS / "panel_reading_five.png")
    host.check()


def test_the_scene_is_left_as_it_was(opened, tmp_path):
    import slicer

    host, panel, reading = opened
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Kept")
    node = slicer.app.layoutManager().sliceWidget("Green").mrmlSliceNode()
    node.SetSliceOffset(17)
    node.SetFieldOfView(111, 99, 1)

    def state():
        views = slicer.util.getNodesByClass("vtkMRMLSliceNode")
        matrices = [[v.GetSliceToRAS().GetElement(r, c) for r in range(3) for c in range(4)] for v in views]
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        layers = [(c.GetBackgroundVolumeID(), c.GetLinkedControl(), c.GetHotLinkedControl()) for c in composites]
        look = [(v.GetFieldOfView(), v.GetLayoutLabel(), v.GetOrientation()) for v in views]
        return panel_data.scene_content(), matrices, layers, look, slicer.app.layoutManager().layout

    before = state()
    begin(reading, study_of(tmp_path))
    reading.ui.nextButton.click()
    assert state() != before
    reading.ui.pauseButton.click()
    assert state() == before
    # No display node or anything else stays behind either, and nothing observes.
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeDisplayNode")
    assert reading.views.nodes == []
    host.check()


def test_pause_and_resume(opened, tmp_path):
    host, panel, reading = opened
    folder = study_of(tmp_path)
    begin(reading, folder)
    score_screen(reading, 5)
    reading.ui.nextButton.click()
    reading.scores.button(0, "noise", 2).click()
    second = reading.session.codes
    reading.ui.pauseButton.click()
    assert "R1" in panel.ui.statusLabel.text and reading.ui.studyPage.isVisibleTo(panel.parent)
    assert reading.ui.aboutLabel.text == "6 images, one at a time. R1 goes on."
    reading.ui.beginButton.click()
    assert reading.session.codes == second and reading.scores.button(0, "noise", 2).checked
    # The scene is closed in the middle, then the module.
    host.closeScene()
    assert reading.session is None and reading.ui.studyPage.isVisibleTo(panel.parent)
    reading.ui.beginButton.click()
    assert reading.session.codes == second
    host.closeModule("MedMapAI")
    again = host.openModule("MedMapAI").readingPanel
    begin(again, folder, "r1")
    assert again.session.codes == second and again.session.progress == (1, 6)
    again.ui.pauseButton.click()
    # Another reader has an order of their own.
    begin(again, folder, "R2")
    assert again.session.progress == (0, 6)
    host.check()


def test_to_the_end_and_the_report(opened, tmp_path):
    import slicer

    host, panel, reading = opened
    folder = study_of(tmp_path)
    key = load_key(folder)
    good = {"xfbp": 2, "xtvar": 3, "xnet": 5}
    for reader, stricter in (("R1", 0), ("R2", 1)):
        begin(reading, folder, reader)
        while True:
            for code in reading.session.codes:
                score_screen(reading, max(1, good[key.entries[code].method] - stricter))
            if not reading.ui.nextOpenButton.enabled:
                break
            reading.ui.nextOpenButton.click()
        assert reading.ui.readingProgress.value == 6 and reading.ui.finishButton.enabled
        if reader == "R1":
            host.answer("No")
            reading.ui.finishButton.click()
            assert reading.session is not None
        host.answer("Yes")
        reading.ui.finishButton.click()
        assert reading.session is None and "finished" in panel.ui.statusLabel.text
        assert f"{reader} finished." in reading.ui.aboutLabel.text
    host.answer("Ok")
    reading.ui.beginButton.click()
    assert "R2 has finished" in host.dialogs[-1].text and reading.session is None
    reading.ui.reportBox.collapsed = False
    reading.ui.reportButton.click()
    table = reading.ui.reportTable
    assert table.isVisibleTo(panel.parent) and table.rowCount == 12
    rows = [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(12)]
    assert ["noise", "xnet", "4.5"] == [row for row in rows if row[:2] == ["noise", "xnet"]][0][:3]
    names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLTableNode")]
    assert names == [f"Reading: {name}" for name in ("means", "agreement", "comparisons", "scores")]
    scores = slicer.util.getNode("Reading: scores").GetTable()
    assert scores.GetNumberOfRows() == 12 and scores.GetColumnByName("noise").GetValue(0) in (2, 3, 5)
    host.screenshot(panel_data.ARTIFACTS / "panel_reading_report.png")
    reading.ui.reportSelector.setCurrentIndex(1)
    assert table.item(0, 1).text() == "ICC(2,1)"
    # Shown again, the tables are filled anew.
    reading.ui.reportButton.click()
    assert len(slicer.util.getNodesByClass("vtkMRMLTableNode")) == 4
    for name in ("out.csv", "out.json"):
        host.answer(str(tmp_path / name))
        reading.ui.saveReportButton.click()
        assert (tmp_path / name).exists() and name in panel.ui.statusLabel.text
    assert json.loads((tmp_path / "out.json").read_text())["scored"] == {"R1": 6, "R2": 6}
    host.check()


def test_a_report_is_not_shown_by_mistake(opened, tmp_path):
    import slicer

    host, panel, reading = opened
    folder = study_of(tmp_path)
    begin(reading, folder)
    score_screen(reading)
    reading.ui.pauseButton.click()
    host.answer("No")
    reading.ui.reportButton.click()
    assert "R1 did not finish" in host.dialogs[-1].text
    assert not slicer.util.getNodesByClass("vtkMRMLTableNode") and not reading.ui.reportTable.isVisibleTo(panel.parent)
    host.check()


# -- making a study ----------------------------------------------------------------------------------------------------


def scene_volumes():
    import slicer

    for case in CASES:
        for method in METHODS[:2]:
            matrix = mrml.geometry.matrix_of_array(affine())
            slicer.util.addVolumeFromArray(voxels(case, method).T, matrix, f"{case} {method}")


def test_a_study_of_the_scene(opened, tmp_path):
    import slicer

    host, panel, reading = opened
    scene_volumes()
    ui = reading.ui
    ui.makeBox.collapsed = False
    table = ui.volumesTable
    assert [table.item(0, column).text() for column in range(3)] == ["scanatom7 xfbp", "scanatom7", "xfbp"]
    ui.layoutSelector.setCurrentIndex(1)
    ui.windowBox.checked = True
    host.screenshot(panel_data.ARTIFACTS / "panel_reading_study.png")
    host.answer(str(tmp_path))
    ui.makeSceneButton.click()
    host.check()
    folder = tmp_path / "reading_001"
    assert ui.studyEdit.text == str(folder) and ui.aboutLabel.text == "4 images, side by side."
    assert not any(word in path.name for path in folder.rglob("*") for word in (*CASES, *METHODS))
    key = load_key(folder)
    assert set(key.windows.values()) == {(-160.0, 240.0)}
    # The scene tells what is what: it has to be closed.
    ui.readerEdit.text = "R1"
    host.answer("No")
    ui.beginButton.click()
    assert reading.session is None and "close the scene" in panel.ui.statusLabel.text
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 4
    host.answer("Yes")
    ui.beginButton.click()
    seen = everything_seen(host, panel)
    assert not [word for word in (*METHODS, *CASES) if word in seen]
    for node, code in zip(reading.views.nodes, reading.session.codes, strict=True):
        entry = key.entries[code]
        found, place, _notes = mrml.voxels_from_node(node)
        np.testing.assert_allclose(found[0], voxels(entry.case, entry.method), atol=1e-3)
        np.testing.assert_allclose(place, affine(), atol=1e-6)
    # The study is whole in its folder: it may be moved.
    reading.ui.pauseButton.click()
    folder.rename(tmp_path / "elsewhere")
    begin(reading, tmp_path / "elsewhere")
    assert reading.session is not None
    host.check()


def test_mistakes_in_making(opened, tmp_path):
    import slicer

    host, panel, reading = opened
    scene_volumes()
    ui = reading.ui
    ui.makeBox.collapsed = False
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")

    def refused(sentence):
        host.answer(str(tmp_path), "Ok")
        ui.makeSceneButton.click()
        assert sentence in host.dialogs[-1].text and "not made" in host.dialogs[-1].text
        assert not list(tmp_path.glob("reading_*")), "nothing is left"

    ui.volumesTable.item(1, 2).setText("")
    refused("no method")
    ui.volumesTable.item(1, 2).setText("xfbp")
    refused("Two volumes are called method xfbp of case scanatom7")
    ui.volumesTable.item(1, 2).setText("xtvar")
    ui.volumesTable.item(3, 0).setCheckState(0)
    refused("Case scanbely3 has no image of xtvar")
    ui.volumesTable.item(3, 0).setCheckState(2)
    nodes[1].SetSpacing(1, 1, 4)
    refused("Case scanatom7: the image of xfbp and that of xtvar are not in the same place")
    host.check()


def test_a_study_of_files(opened, tmp_path):
    host, panel, reading = opened
    images = write_images(tmp_path / "images")
    reading.ui.makeBox.collapsed = False
    host.answer(str(tmp_path / "images"), str(tmp_path))
    reading.ui.makeFolderButton.click()
    assert reading.ui.aboutLabel.text == "6 images, one at a time."
    lines = ["case,method,file", *(f"{c},{m},{p}" for c, of in images.items() for m, p in of.items())]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    host.answer(str(tmp_path / "list.csv"), str(tmp_path))
    reading.ui.makeTableButton.click()
    assert reading.ui.studyEdit.text == str(tmp_path / "reading_002")
    (tmp_path / "images" / "xnet" / "scanatom7.nrrd").unlink()
    host.answer(str(tmp_path / "list.csv"), str(tmp_path), "Ok")
    reading.ui.makeTableButton.click()
    assert "line 4: there is no file" in host.dialogs[-1].text
    host.check()


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_names_and_broken_studies(opened, tmp_path):
    host, panel, reading = opened
    folder = study_of(tmp_path)

    def refused(sentence, reader="R1", place=folder):
        host.answer("Ok")
        begin(reading, place, reader)
        text = host.dialogs[-1].text
        assert sentence in text and "did not begin" in text and reading.session is None
        assert not any(word in text for word in METHODS), "a mistake does not tell either"

    refused("looks like a name", "Anna Berg")
    assert not list(folder.glob("reader-*")) and "Anna" not in host.dialogs[-1].text
    refused("There is no file", place=tmp_path)
    entry = load_key(folder)
    code, lost = next((code, one) for code, one in entry.entries.items() if one.method == "xnet")
    image = tmp_path / "images" / "xnet" / f"{lost.case}.nrrd"
    content = image.read_bytes()
    image.unlink()
    refused(f"The image {code} of this study is not there")
    image.write_bytes(b"NRRD0005\n")
    # It is there, and broken: said when its turn comes.
    begin(reading, folder)
    if reading.session is not None:
        host.answer(*["Ok"])
        for _ in range(5):
            reading.ui.nextButton.click()
            if host.dialogs[-1].text.startswith("The next images"):
                break
    assert "cannot be read" in host.dialogs[-1].text and not any(w in host.dialogs[-1].text for w in METHODS)
    image.write_bytes(content)
    if reading.session is not None:
        reading.ui.pauseButton.click()
    key = (folder / "key.json").read_text()
    (folder / "key.json").unlink()
    refused("key.json")
    (tmp_path / "secret.json").write_text(key)
    reading.ui.keyEdit.text = str(tmp_path / "secret.json")
    begin(reading, folder)
    assert reading.session is not None
    reading.ui.pauseButton.click()
    (folder / "reader-R1.json").write_text("{}")
    refused("no reader of a reading")
    host.check()


def test_a_full_disk_says_so_and_shows_what_is_kept(opened, tmp_path, monkeypatch):
    host, panel, reading = opened
    folder = study_of(tmp_path)
    begin(reading, folder)
    reading.scores.button(0, "noise", 2).click()

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        host.answer("Ok")
        reading.scores.button(0, "noise", 5).click()
    assert "disk is full" in host.dialogs[-1].text
    assert reading.scores.button(0, "noise", 2).checked and not reading.scores.button(0, "noise", 5).checked
    host.check()
