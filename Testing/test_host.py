"""The host (Testing/host) is only worth what it is true to: what it refuses, and that it behaves as a Slicer desktop
was seen to.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

pytest.importorskip("PySide6")
pytest.importorskip("trame_slicer")


EXAMPLE = Path(__file__).parent / "host" / "example" / "HostExample.py"
SHARED_LIST = Path(__file__).resolve().parents[2] / "shared" / "slicer_api.json"


@pytest.fixture
def qt(slicer_host):
    import qt

    return qt


@pytest.fixture
def slicer(slicer_host):
    import slicer

    return slicer


@pytest.fixture
def panel(slicer_host):
    return slicer_host.openModule("HostExample", EXAMPLE)


def ball(slicer, name="Ball"):
    """A volume of 20 x 20 x 20 voxels, 100 inside a cube of 8 x 8 x 8 and 0 outside: 512 voxels above any threshold
    under 100."""
    import numpy as np

    array = np.zeros((20, 20, 20), dtype=np.int16)
    array[6:14, 6:14, 6:14] = 100
    return slicer.util.addVolumeFromArray(array, name=name)


# -- the list of names -----------------------------------------------------------------------------------------------


def test_kept_list_is_cut_from_the_shared_one():
    if not SHARED_LIST.is_file():
        pytest.skip("no ../shared/slicer_api.json beside this clone")
    from host.api import names_of, read_api
    from host.trim_api import trim

    full = json.loads(SHARED_LIST.read_text())
    assert trim(full) == read_api(), "run Testing/host/trim_api.py"
    widget = full["classes"]["qt.QWidget"]
    for key in read_api()["classes"]:
        entry, names = full["classes"][key], names_of(key)
        own = {n for kind in ("property", "method", "signal") for n in entry.get(kind, ())}
        for kind, found in (("property", names.properties), ("method", names.methods), ("signal", names.signals)):
            expected = set(entry.get(kind, ()))
            if entry.get("widget") and key != "qt.QWidget":
                expected |= set(widget[kind]) - own
            assert found == expected, (key, kind)


def test_unknown_names_are_refused(qt, slicer):
    import ctk

    button = qt.QPushButton("Apply")
    with pytest.raises(AttributeError, match="qt.QPushButton has no 'setTextColor'"):
        button.setTextColor("red")
    with pytest.raises(AttributeError, match="new attributes are not allowed"):
        button.note = 1
    with pytest.raises(AttributeError, match="qt.QWizard"):
        qt.QWizard  # noqa: B018
    with pytest.raises(AttributeError, match="ctk.ctkFoo"):
        ctk.ctkFoo  # noqa: B018
    with pytest.raises(AttributeError, match="slicer.app has no 'mainWindow'"):
        slicer.app.mainWindow()
    with pytest.raises(AttributeError, match="slicer.qMRMLNodeComboBox has no 'addItem'"):
        slicer.qMRMLNodeComboBox().addItem("x")
    # Qt 6 has it, Slicer's Qt 5 has not.
    with pytest.raises(AttributeError, match="checkStateChanged"):
        qt.QCheckBox().checkStateChanged.connect(print)


def test_what_the_list_has_but_the_host_has_not_is_said_plainly(slicer):
    # hasattr() must not take it for missing.
    with pytest.raises(NotImplementedError, match="slicer.modules.sampledata exists in Slicer"):
        hasattr(slicer.modules, "sampledata")
    assert not hasattr(slicer.modules, "pytorchutils")


def test_properties_are_values_and_never_called(qt):
    button, table, combo = qt.QPushButton("Apply"), qt.QTableWidget(3, 2), qt.QComboBox()
    combo.addItem("a", "data of a")
    assert (button.text, table.rowCount, combo.currentData, combo.count) == ("Apply", 3, "data of a", 1)
    for call in (
        lambda: button.text(),
        lambda: table.rowCount(),
        lambda: combo.currentData(),
        lambda: button.sizeHint(),
    ):
        with pytest.raises(TypeError, match="not callable"):
            call()
    button.text, button.enabled = "Run", False
    assert button.text == "Run" and not button.isEnabled()
    with pytest.raises(AttributeError, match="can only be read"):
        button.sizeHint = qt.QSize(1, 1)
    with pytest.raises(AttributeError, match="not a property"):
        table.currentRow = 1


def test_what_the_desktop_has_as_methods(qt, slicer):
    table = qt.QTableWidget(1, 1)
    table.setItem(0, 0, qt.QTableWidgetItem("cell"))
    assert table.item(0, 0).text() == "cell"
    assert table.currentRow() == -1
    assert qt.QProcess().state() == qt.QProcess.NotRunning == 0
    combo = qt.QComboBox()
    combo.addItem("x", 7)
    assert combo.itemData(0) == 7
    assert slicer.qMRMLNodeComboBox().currentNode() is None
    table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)


def test_enumerations_are_integers(qt):
    # Both numbers were read off a Slicer desktop.
    assert qt.Qt.AlignLeft | qt.Qt.AlignTop == 33
    item = qt.QTableWidgetItem()
    item.setCheckState(qt.Qt.Checked)
    assert item.checkState() == 2 and type(item.checkState()) is int
    label = qt.QLabel("x")
    label.alignment = qt.Qt.AlignLeft | qt.Qt.AlignTop
    assert label.alignment == 33
    label.setAlignment(qt.Qt.AlignCenter)
    assert label.alignment == 0x84
    item.setFlags(item.flags() & ~qt.Qt.ItemIsEditable)
    assert not item.flags() & qt.Qt.ItemIsEditable
    assert qt.QMessageBox.Ok | qt.QMessageBox.Cancel == 0x00400400


def test_lists_come_back_as_tuples(qt, slicer):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLModelNode"]
    assert combo.nodeTypes == ("vtkMRMLModelNode",)
    parent = qt.QWidget()
    child = qt.QLabel(parent)
    assert parent.children() == (child,)
    assert child.parent() is parent


def test_signals_pass_what_they_pass_in_the_desktop(qt):
    button, got = qt.QPushButton(), []
    button.clicked.connect(lambda *a: got.append(("attribute", a)))
    button.connect("clicked()", lambda *a: got.append(("()", a)))
    button.connect("clicked(bool)", lambda checked: got.append(("(bool)", checked)))
    button.clicked.connect(lambda: got.append("no parameter"))
    button.click()
    assert got == [("attribute", (False,)), ("()", ()), ("(bool)", False), "no parameter"]
    with pytest.raises(AttributeError, match="no signal 'pushed'"):
        button.connect("pushed()", print)


def test_disconnect(qt):
    class Panel:
        calls = 0

        def on_click(self, checked=False):
            self.calls += 1

    button, panel = qt.QPushButton(), Panel()
    button.clicked.connect(panel.on_click)
    button.click()
    button.clicked.disconnect(panel.on_click)
    button.click()
    assert panel.calls == 1


def test_error_in_a_slot_is_found(slicer_host, qt):
    button = qt.QPushButton()
    button.clicked.connect(lambda: 1 / 0)
    button.click()
    with pytest.raises(ZeroDivisionError):
        slicer_host.check()


def test_process_output_is_bytes(slicer_host, qt):
    import sys

    process, out = qt.QProcess(), []
    process.readyReadStandardOutput.connect(lambda: out.append(process.readAllStandardOutput().data()))
    process.finished.connect(lambda code, status: out.append((code, status)))
    process.start(sys.executable, ["-c", "print('hi'); raise SystemExit(3)"])
    slicer_host.process_events(until=lambda: process.state() == qt.QProcess.NotRunning)
    assert b"".join(o for o in out if isinstance(o, bytes)).strip() == b"hi"
    assert out[-1] == (3, qt.QProcess.NormalExit)


def test_timer(slicer_host, qt):
    ticks, timer = [], qt.QTimer()
    timer.interval = 1
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start()
    qt.QTimer.singleShot(0, lambda: ticks.append("once"))
    slicer_host.process_events(until=lambda: len(ticks) > 2 and "once" in ticks)
    assert timer.isActive() and timer.active
    timer.stop()
    assert not timer.active


def test_settings_are_the_tests_own(slicer_host, slicer, qt):
    qt.QSettings().setValue("MedMapAI/Device", "cpu")
    assert slicer.util.settingsValue("MedMapAI/Device", "auto") == "cpu"
    assert slicer.util.settingsValue("MedMapAI/Nothing", "auto") == "auto"
    assert "slicer-host" in slicer.app.slicerUserSettingsFilePath


def test_no_subclasses_of_qt(qt):
    with pytest.raises(TypeError, match="hold a widget instead"):

        class Mine(qt.QWidget):
            pass


def test_python_signatures_are_slicers(slicer):
    """Functions that the host puts in place take the parameters that they take in Slicer."""
    from host.api import read_api

    python = read_api()["python"]
    for name in ("loadUI", "findChildren", "findChild", "childWidgetVariables"):
        assert str(inspect.signature(getattr(slicer.util, name))) == python["slicer.util"][name], name
    for class_name in ("ScriptedLoadableModule", "ScriptedLoadableModuleWidget", "ScriptedLoadableModuleLogic"):
        for name, signature in python["slicer.ScriptedLoadableModule"][class_name].items():
            if name.startswith("__"):
                continue
            mine = getattr(getattr(slicer.ScriptedLoadableModule, class_name), name)
            assert str(inspect.signature(mine)) == signature, (class_name, name)
    assert set(dir(slicer.parameterNodeWrapper)) & set(python["slicer.parameterNodeWrapper"])


# -- dialogs ---------------------------------------------------------------------------------------------------------


def test_dialogs_are_answered_from_the_queue(slicer_host, slicer, qt):
    from host.dialogs import UnansweredDialog

    slicer_host.answer("Yes", "Cancel", "/data/case.nii.gz", "Ok", "")
    assert slicer.util.confirmYesNoDisplay("Go on?") is True
    assert slicer.util.confirmOkCancelDisplay("Install?") is False
    # A string, where PySide6 gives path and filter.
    assert qt.QFileDialog.getOpenFileName(None, "Open", "/", "*.nii.gz") == "/data/case.nii.gz"
    slicer.util.errorDisplay("Wrong.")
    assert qt.QFileDialog.getExistingDirectory(None, "Folder") == ""
    assert [d.text for d in slicer_host.dialogs][:2] == ["Go on?", "Install?"]
    assert slicer_host.dialogs[3].details["icon"] == "Critical"
    with pytest.raises(UnansweredDialog, match="Again?"):
        slicer.util.confirmYesNoDisplay("Again?")


def test_answer_that_the_dialog_has_not(slicer_host, slicer):
    from host.dialogs import UnansweredDialog

    slicer_host.answer("Retry")
    with pytest.raises(UnansweredDialog, match="no button Retry"):
        slicer.util.confirmYesNoDisplay("Go on?")


def test_forgotten_answers_are_told(slicer_host):
    slicer_host.answer("Yes")
    with pytest.raises(AssertionError, match="no dialog asked for"):
        slicer_host.check()


def test_nothing_is_installed(slicer_host, slicer):
    slicer.util.pip_install("surely-no-such-package")
    slicer_host.answer("Ok")
    slicer.packaging.pip_ensure(["numpy", "surely-no-such-package>=2"], requester="Test")
    assert slicer_host.installed[0][:2] == ("pip_install", "surely-no-such-package")
    assert slicer_host.installed[1][:2] == ("pip_ensure", ["surely-no-such-package>=2"])
    with pytest.raises(TypeError, match="takes no quiet"):
        slicer.packaging.pip_ensure(["numpy"], quiet=True)


# -- node combo box --------------------------------------------------------------------------------------------------


def test_node_combo_box_follows_the_scene(slicer):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ("vtkMRMLScalarVolumeNode",)
    combo.noneEnabled = False
    combo.setMRMLScene(slicer.mrmlScene)
    changes = []
    combo.currentNodeChanged.connect(changes.append)
    first = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "first")
    assert combo.currentNode() is first, "one that may not be empty takes what there is"
    second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "second")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "not a volume")
    assert combo.nodeCount() == 2 and combo.currentNode() is first
    combo.setCurrentNode(second)
    assert combo.currentNodeID == second.GetID()
    slicer.mrmlScene.RemoveNode(second)
    assert combo.currentNode() is first
    assert [c.GetName() for c in changes] == ["first", "second", "first"]
    slicer.mrmlScene.Clear(0)
    assert combo.currentNode() is None and combo.nodeCount() == 0


def test_node_combo_box_with_none(slicer):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLVolumeNode"]
    combo.noneEnabled = True
    combo.setMRMLScene(slicer.mrmlScene)
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    assert combo.currentNode() is None and combo.nodeFromIndex(0) is labels
    combo.showChildNodeTypes = False
    assert combo.nodeCount() == 0
    combo.showChildNodeTypes = True
    labels.SetHideFromEditors(True)
    assert combo.nodeCount() == 0
    combo.setCurrentNode(labels)
    assert combo.currentNode() is None, "a node that is not offered cannot be chosen"


def test_node_combo_box_makes_and_renames_nodes(slicer):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLSegmentationNode"]
    combo.baseName = "Result"
    added = []
    combo.nodeAddedByUser.connect(added.append)
    combo.setMRMLScene(slicer.mrmlScene)
    node = combo.addNode()
    assert node.GetName() == "Result" and combo.currentNode() is node and added == [node]
    assert node.GetScene() is slicer.mrmlScene


def test_no_scene_no_nodes(slicer):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    ball(slicer)
    # A forgotten setMRMLScene leaves it empty in Slicer as well.
    assert combo.nodeCount() == 0


# -- a module --------------------------------------------------------------------------------------------------------


def test_module_opens_and_runs(slicer_host, slicer, panel):
    assert slicer.modules.hostexample.title == "Host Example"
    assert slicer.modules.hostexample.categories == ("Examples",)
    assert slicer.modules.HostExampleWidget is panel
    assert slicer.util.getModuleWidget("HostExample") is panel
    assert slicer.util.getModuleLogic("HostExample") is panel.logic
    assert not panel.ui.applyButton.enabled
    panel.ui.inputSelector.setCurrentNode(ball(slicer))
    assert panel.ui.applyButton.enabled
    slicer_host.answer("No", "Yes")
    panel.ui.applyButton.click()
    assert panel.ui.resultTable.rowCount == 0
    panel.ui.applyButton.click()
    assert panel.ui.resultTable.item(0, 0).text() == "512"


def test_parameter_node_and_widgets_follow_each_other(slicer, panel):
    node, ui = panel._parameterNode, panel.ui
    volume = ball(slicer)
    ui.inputSelector.setCurrentNode(volume)
    ui.thresholdSlider.value = 75.5
    ui.countBox.value = 9
    ui.invertBox.checked = True
    ui.labelEdit.text = "below"
    ui.speedBox.currentText = "SLOW"
    ui.deviceBox.setCurrentIndex(1)
    ui.folderEdit.currentPath = "/data/cases"
    assert (node.inputVolume, node.threshold, node.count, node.invert, node.label) == (volume, 75.5, 9, True, "below")
    assert (node.speed.name, node.device, node.folder) == ("SLOW", "cpu", Path("/data/cases"))
    # The keys and values that Slicer keeps in a scene file.
    stored = node.parameterNode
    assert [stored.GetParameter(k) for k in ("threshold", "count", "invert", "speed")] == ["75.5", "9", "True", "SLOW"]
    assert stored.GetNodeReferenceID("inputVolume") == volume.GetID()
    node.threshold, node.invert, node.inputVolume, node.device = -20.0, False, None, "auto"
    assert (ui.thresholdSlider.value, ui.invertBox.checked) == (-20.0, False)
    assert ui.inputSelector.currentNode() is None and ui.deviceBox.currentText == "auto"
    with pytest.raises(ValueError, match="not between -100 and 200"):
        node.threshold = 1000.0
    with pytest.raises(TypeError):
        node.inputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    assert (ui.thresholdSlider.minimum, ui.thresholdSlider.maximum) == (-100, 200)
    assert node.weight is None and node.isCached("weight")


def test_parameter_node_refuses_what_slicer_refuses(slicer):
    from typing import Optional, Union

    from slicer.parameterNodeWrapper import createGuiConnector, parameterNodeWrapper

    def wrapper(datatype):
        return parameterNodeWrapper(type("Parameters", (), {"__annotations__": {"value": datatype}}))

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    nodes = Union[slicer.vtkMRMLModelNode, slicer.vtkMRMLScalarVolumeNode]  # noqa: UP007
    with pytest.raises(TypeError, match="needs None"):
        wrapper(nodes)(node)
    assert wrapper(Optional[nodes])(node).value is None  # noqa: UP045
    with pytest.raises(TypeError, match="cannot keep"):
        wrapper(complex)
    import ctk
    import qt

    with pytest.raises(RuntimeError, match="Choice"):
        createGuiConnector(qt.QComboBox(), str)
    with pytest.raises(RuntimeError, match="bounds"):
        createGuiConnector(ctk.ctkSliderWidget(), float)


def test_scene_close(slicer_host, slicer, panel):
    panel.ui.inputSelector.setCurrentNode(ball(slicer))
    panel.ui.countBox.value = 8
    slicer_host.closeScene()
    assert panel._parameterNode is not None and panel._parameterNode.inputVolume is None
    assert panel._parameterNode.count == 3, "defaults again"
    assert panel.ui.countBox.value == 3 and not panel.ui.applyButton.enabled


def test_reload_takes_a_new_panel_into_the_same_widget(slicer_host, slicer, panel):
    before, parent = type(panel), panel.parent
    new = slicer_host.reload("HostExample")
    assert new is not panel and type(new) is not before and new.parent is parent
    assert panel.calls == ["enter", "cleanup"]
    # Slicer calls setup() of the new instance, and not enter().
    assert new.calls == [] and new.parent.isEntered
    assert new.ui.applyButton.visible and not panel.ui.applyButton.visible
    new.ui.inputSelector.setCurrentNode(ball(slicer))
    assert new.ui.applyButton.enabled


def test_leaving_and_closing(slicer_host, slicer, panel):
    slicer_host.selectModule("")
    slicer_host.selectModule("HostExample")
    slicer_host.closeModule("HostExample")
    assert panel.calls == ["enter", "exit", "enter", "exit", "cleanup"]
    assert not hasattr(slicer.modules, "hostexample")


def test_developer_mode_has_a_reload_button(slicer_host, slicer, qt):
    qt.QSettings().setValue("Developer/DeveloperMode", True)
    panel = slicer_host.openModule("HostExample", EXAMPLE)
    assert panel.developerMode
    panel.reloadButton.click()
    slicer_host.process_events()
    assert slicer.modules.HostExampleWidget is not panel


def test_self_test_runs(slicer_host, panel):
    slicer_host.runSelfTest("HostExample")


def test_collapsed_section_hides_its_children(panel):
    assert panel.ui.moreCollapsibleButton.collapsed and not panel.ui.countBox.visible
    panel.ui.moreCollapsibleButton.collapsed = False
    assert panel.ui.countBox.visible
    panel.ui.moreCollapsibleButton.click()
    assert panel.ui.moreCollapsibleButton.collapsed and not panel.ui.countBox.visible


def test_ui_file_may_only_ask_for_what_slicer_has(slicer, tmp_path):
    from host.ui_loader import UiError

    text = (EXAMPLE.parent / "Resources" / "UI" / "HostExample.ui").read_text()
    for old, new, message in (
        ('<property name="noneEnabled">', '<property name="emptyEnabled">', "has no property 'emptyEnabled'"),
        ('class="QPushButton"', 'class="QWizard"', "QWizard"),
        ("mrmlSceneChanged(vtkMRMLScene*)", "sceneChanged()", "no signal 'sceneChanged'"),
        ("ctkPathLineEdit::Dirs", "ctkPathLineEdit::Folders", "no Folders"),
    ):
        path = tmp_path / "Bad.ui"
        path.write_text(text.replace(old, new))
        with pytest.raises((UiError, AttributeError), match=message):
            slicer.util.loadUI(str(path))
    with pytest.raises(RuntimeError, match="file not found"):
        slicer.util.loadUI(str(tmp_path / "none.ui"))


# -- plots, tables, segments, views ----------------------------------------------------------------------------------


def history(slicer, rows=10):
    """A chart with one blue curve y = x * x."""
    import numpy as np

    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "history")
    x = np.arange(float(rows))
    slicer.util.updateTableFromArray(table, [x, x * x], ["x", "y"])
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "loss")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName("y")
    series.SetPlotType(series.PlotTypeScatter)
    series.SetColor(0, 0, 1)
    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", "chart")
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle("History")
    return table, chart


def blue_pixels(slicer_host, widget, path):
    from PySide6.QtGui import QImage

    image = QImage(str(slicer_host.screenshot(path, widget)))
    colors = [image.pixelColor(x, y) for x in range(image.width()) for y in range(image.height())]
    return sum(c.blue() > 200 and c.red() < 60 and c.green() < 60 for c in colors)


def test_plot_view_draws_the_chart(slicer_host, slicer, tmp_path):
    import numpy as np
    from host.plot_view import series_points

    table, chart = history(slicer)
    assert series_points(chart.GetNthPlotSeriesNode(0))[:4] == [(0, 0), (1, 1), (2, 4), (3, 9)]
    view = slicer.qMRMLPlotView()
    view.resize(400, 300)
    view.setMRMLScene(slicer.mrmlScene)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotViewNode")
    view.setMRMLPlotViewNode(node)
    view.show()
    assert blue_pixels(slicer_host, view, tmp_path / "empty.png") == 0
    node.SetPlotChartNodeID(chart.GetID())
    drawn = blue_pixels(slicer_host, view, tmp_path / "plot.png")
    assert drawn > 200
    # It follows the table: a steep last value pushes the curve down to the axis.
    slicer.util.updateTableFromArray(table, [np.arange(3.0), np.array([0.0, 0.0, 1.0])], ["x", "y"])
    table.Modified()
    assert blue_pixels(slicer_host, view, tmp_path / "other.png") != drawn


def test_ticks():
    from host.plot_view import nice_ticks

    assert nice_ticks(0, 10, 6) == [0, 2, 4, 6, 8, 10]
    assert nice_ticks(0.0, 0.5, 6) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_table_view_shows_the_table(slicer):
    table, _chart = history(slicer, rows=4)
    view = slicer.qMRMLTableView()
    view.setMRMLTableNode(table)
    model = view.model()
    assert (model.rowCount(), model.columnCount()) == (4, 2)
    assert model.data(model.index(3, 1)) == "9"


def test_segments(slicer):
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    volume = ball(slicer)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment_id = segmentation.GetSegmentation().AddEmptySegment("cube", "Cube", [1.0, 0.0, 0.0])
    view = slicer.qMRMLSegmentsTableView()
    view.setSegmentationNode(segmentation)
    assert view.segmentCount == 1 and view.displayedSegmentIDs() == ("cube",)
    segmentation.GetSegmentation().AddEmptySegment("other", "Other")
    assert view.segmentCount == 2
    array = slicer.util.arrayFromVolume(volume) > 50
    slicer.util.updateSegmentBinaryLabelmapFromArray(array.astype("uint8"), segmentation, segment_id, volume)
    button = slicer.qMRMLSegmentationShow3DButton()
    assert not button.enabled
    button.setSegmentationNode(segmentation)
    assert button.enabled and not button.checked
    button.click()
    assert button.checked and segmentation.GetClosedSurfaceInternalRepresentation(segment_id).GetNumberOfPoints() > 0


def test_layout_manager_has_slicers_views(slicer):
    manager = slicer.app.layoutManager()
    assert manager.sliceViewNames() == ("Red", "Green", "Yellow") and manager.threeDViewCount == 1
    volume = ball(slicer)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    assert manager.sliceWidget("Green").mrmlSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
    assert manager.sliceWidget("Red").mrmlSliceNode().GetOrientation() == "Axial"
    slicer.util.resetSliceViews()
    slicer.util.resetThreeDViews()
    assert manager.plotWidget(0) is None
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
    assert manager.plotViewCount == 1 and manager.plotWidget(0).mrmlPlotViewNode() is not None
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)


def test_screenshot_has_text_and_views(slicer_host, slicer, panel, tmp_path):
    from PySide6.QtGui import QImage

    slicer.util.setSliceViewerLayers(background=ball(slicer), fit=True)
    image = QImage(str(slicer_host.screenshot(tmp_path / "window.png")))
    assert (image.width(), image.height()) == (1500, 1000)
    # The cube in the red view (its upper middle) and the panel's own background.
    assert image.pixelColor(720, 300).lightness() > 200
    assert image.pixelColor(10, 900).lightness() > 200
    assert slicer.util.mainWindow().windowTitle == "3D Slicer"


def test_slicer_util_runs_on_the_host(slicer_host, slicer, qt, panel):
    """These are slicer-core's own functions, written for the desktop."""
    slicer.util.selectModule("HostExample")
    assert slicer.util.selectedModule() == "HostExample" and slicer.util.modulePath("HostExample") == str(EXAMPLE)
    assert slicer.util.getModule("HostExample").title == "Host Example"
    assert slicer.util.showStatusMessage("Ready") and slicer.util.mainWindow().statusBar().currentMessage() == "Ready"
    assert slicer.util.findChild(panel.parent, "applyButton") == panel.ui.applyButton
    with slicer.util.WaitCursor(), slicer.util.MessageDialog("Wait"):
        slicer.app.processEvents()
    progress = slicer.util.createProgressDialog(maximum=3, labelText="Step", autoClose=False)
    progress.value = 2
    assert progress.labelText == "Step" and not progress.wasCanceled
    progress.close()
    slicer_host.answer("Ok")
    with pytest.raises(KeyError), slicer.util.tryWithErrorDisplay("Not done."):
        raise KeyError("label")
    assert slicer_host.dialogs[-1].text == "Not done.\n\n'label'"
    slicer.util.exit(3)
    assert slicer_host.application.exit_codes[-1] == 3
