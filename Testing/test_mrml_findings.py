"""Findings in Slicer's scene: ROI nodes, their folder and table, and what a reader makes of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from MedMapAILib import mrml
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image
from MedMapAILib.results import Detections, Finding, FindingMask, finding_of_sphere

#: A turned, shifted scan; voxels of 0.6 x 0.6 x 2.5 mm.
OBLIQUE = np.array([[0.48, -0.36, 0, -3], [0.36, 0.48, 0, 7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])


def volume(affine=OBLIQUE, shape=(20, 18, 10), name="Chest"):
    voxels = np.random.default_rng(3).normal(size=(1, *shape)).astype(np.float32)
    return mrml.volume_node_from_image(make_image(voxels, affine), name=name)


def under_transform(node, matrix):
    import slicer
    from MedMapAILib.mrml.geometry import matrix_of_array

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    transform.SetMatrixTransformToParent(matrix_of_array(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def turned(angle=0.5, shift=(10, -4, 30), scale=1.0):
    matrix = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    matrix[:3, :3] = scale * np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix[:3, 3] = shift
    return matrix


def mask_at(center, affine=OBLIQUE):
    values = np.zeros((4, 4, 3), dtype=bool)
    values[1:3, 1:3, 1] = True
    placed = affine.copy()
    placed[:3, 3] = np.subtract(center, affine[:3, :3] @ [1.5, 1.5, 1])
    return FindingMask(values, placed)


def three_findings(**more):
    return Detections(
        ("nodule", "Knochenläsion"),
        (
            Finding((1, 9, 20), (8, 8.4, 9), "nodule", 0.93, measured_diameter_mm=8.4, about={"kind": "solid; ä"}),
            Finding((3, 12, 25), (5, 5, 5), "Knochenläsion", score=0.41),
            Finding((0, 10, 15), (4, 4.5, 6), "nodule", score=0.07, synthetic=True),
        ),
        **{"threshold": 0.3, "notes": ("One note.",), **more},
    )  # fmt: skip


def put(result=None, node=None, **more):
    node = volume() if node is None else node
    result = three_findings() if result is None else result
    return mrml.nodes_from_detections(result, node, name="Chest lung-nodule", **more)


def rois(folder):
    return [node for node, _ in mrml.finding_nodes(folder)]


def content(scene):
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return sorted((node.GetClassName(), node.GetName()) for node in nodes if not node.GetHideFromEditors())


def items():
    from MedMapAILib.mrml.folders import hierarchy

    return hierarchy().GetNumberOfItems()


def assert_same(found, expected):
    assert found.classes == expected.classes and found.notes == expected.notes
    assert found.threshold == expected.threshold
    assert len(found.findings) == len(expected.findings)
    for one, other in zip(found.findings, expected.findings, strict=True):
        np.testing.assert_allclose(one.center, other.center, atol=1e-9)
        np.testing.assert_allclose(one.size, other.size, atol=1e-9)
        for field in ("label", "score", "state", "measured_diameter_mm", "synthetic", "about"):
            assert getattr(one, field) == getattr(other, field)


# -- color -------------------------------------------------------------------------------------------------------------


def test_colors_are_viridis_without_its_dark_third():
    colormap = pytest.importorskip("matplotlib").colormaps["viridis"]
    for score in np.linspace(0, 1, 8):
        np.testing.assert_allclose(mrml.score_color(score), colormap(0.3 + 0.7 * score)[:3], atol=0.01)
    # Rec. 709 luminance grows with the score: the order is seen without any color.
    shown = np.array([mrml.score_color(score) for score in np.linspace(0, 1, 101)])
    assert (np.diff(shown @ [0.2126, 0.7152, 0.0722]) > 0).all()
    assert mrml.score_color(1.2) == mrml.score_color(1.0) and mrml.score_color(None) == (1.0, 1.0, 1.0)


# -- there and back ----------------------------------------------------------------------------------------------------


def test_nodes_say_what_was_found_and_come_back(scene):
    result, node = three_findings(), volume()
    folder = put(result, node)
    found = rois(folder)
    assert [roi.GetName() for roi in found] == [
        "1 nodule 0.93 8.4 mm", "2 Knochenläsion 0.41 5.0 mm", "3 nodule 0.07 4.8 mm transplanted",
    ]  # fmt: skip
    for roi, finding in zip(found, result.findings, strict=True):
        assert mrml.roi_bounds(roi) == (pytest.approx(finding.center), pytest.approx(finding.size))
        assert roi.GetDisplayNode().GetSelectedColor() == pytest.approx(mrml.score_color(finding.score))
        assert roi.GetLocked(), "nobody moves it by accident"
    assert [bool(roi.GetDisplayNode().GetVisibility()) for roi in found] == [True, True, False]
    assert_same(mrml.findings_from_nodes(folder), result)
    table = mrml.findings_table(folder)
    assert mrml.findings_folder(table) == folder and mrml.findings_volume(folder) == node
    titles = [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())]
    cells = {title: [table.GetCellText(row, n) for row in range(3)] for n, title in enumerate(titles)}
    assert cells["Rank"] == ["1", "2", "3"] and cells["Class"] == ["nodule", "Knochenläsion", "nodule"]
    assert [float(score) for score in cells["Score"]] == [0.93, 0.41, 0.07]
    # A sphere of 5 mm has 4/3 pi 2.5^3 = 65.45 mm3.
    assert float(cells["Diameter (mm)"][1]) == 5 and float(cells["Volume (mL)"][1]) == pytest.approx(0.0654, abs=1e-4)
    assert [float(cells[f"{axis} (RAS mm)"][1]) for axis in "RAS"] == [3, 12, 25]
    assert cells["Called"] == ["yes", "yes", "no"] and cells["Transplanted"] == ["no", "no", "yes"]
    assert "Research use only" in table.GetDescription() and "One note." in table.GetDescription()


def test_folder_lies_beside_the_scan(scene):
    from MedMapAILib.mrml.folders import folder_beside, hierarchy, put_into

    node = volume()
    study = folder_beside(None, "Study")
    put_into(study, [node])
    folder = put(node=node)
    tree = hierarchy()
    assert tree.GetItemName(folder) == "Chest lung-nodule" and tree.GetItemParent(folder) == study
    inside = {*rois(folder), mrml.findings_table(folder)}
    assert {tree.GetItemParent(tree.GetItemByDataNode(one)) for one in inside} == {folder}
    assert mrml.findings_folder(None) == 0 and mrml.findings_table(study) is None


def test_threshold_shows_and_hides(scene):
    folder = put()
    found = rois(folder)

    def shown():
        return [bool(roi.GetDisplayNode().GetVisibility()) for roi in found]

    mrml.set_findings_threshold(folder, 0.05)
    assert shown() == [True] * 3 and mrml.findings_threshold(folder) == 0.05
    mrml.set_findings_threshold(folder, 0.5)
    assert shown() == [True, False, False]
    assert len(mrml.findings_from_nodes(folder).called) == 1 and len(mrml.findings_from_nodes(folder).findings) == 3
    # What a reader says does not depend on a score.
    mrml.mark_finding(found[2], state="accepted")
    mrml.mark_finding(found[0], state="rejected")
    mrml.update_findings(folder)
    assert shown() == [False, False, True]
    assert [one.label for one in mrml.reference_from_nodes(folder).findings] == ["nodule"]
    assert {one.state for one in mrml.reference_from_nodes(folder).findings} == {"reference"}


# -- what a reader does ------------------------------------------------------------------------------------------------


def test_moved_and_resized_boxes_are_corrected(scene):
    folder = put()
    first, second, third = rois(folder)
    assert not mrml.is_reviewed(folder)
    first.SetCenterWorld([2.0, 9, 20])
    second.SetSize(6, 6, 7)
    mrml.update_findings(folder)
    found = mrml.findings_from_nodes(folder).findings
    assert [one.state for one in found] == ["corrected", "corrected", "found"] and mrml.is_reviewed(folder)
    assert found[0].center == pytest.approx((2, 9, 20)) and found[0].measured_diameter_mm == 8.4, "only moved"
    assert found[1].size == pytest.approx((6, 6, 7)) and found[1].measured_diameter_mm is None
    # (6 x 6 x 7)^(1/3) = 6.32
    assert second.GetName() == "2 Knochenläsion 0.41 6.3 mm" and first.GetName() == "1 nodule 0.93 8.4 mm"
    mrml.mark_finding(first, state="accepted")
    assert mrml.findings_from_nodes(folder).findings[0].state == "corrected", "it is another box than the model's"
    mrml.mark_finding(first, state="rejected")
    assert mrml.findings_from_nodes(folder).findings[0].state == "rejected"
    mrml.mark_finding(third, label="Knochenläsion")
    assert mrml.findings_from_nodes(folder).findings[2].state == "corrected"
    for roi in (first, second, third):
        mrml.reset_finding(roi)
    mrml.update_findings(folder)
    assert_same(mrml.findings_from_nodes(folder), three_findings())
    assert second.GetName() == "2 Knochenläsion 0.41 5.0 mm"


def test_a_name_that_somebody_gave_stays(scene):
    folder = put()
    first = rois(folder)[0]
    first.SetName("ask Dr. X")
    first.SetSize(9, 9, 9)
    mrml.update_findings(folder)
    assert first.GetName() == "ask Dr. X"


def test_a_reader_adds(scene):
    import slicer
    from MedMapAILib.mrml.folders import put_into

    folder = put()
    node = mrml.add_finding(folder, (5, 6, 17), "Knochenläsion", (6, 6, 6))
    assert node.GetName() == "4 Knochenläsion 6.0 mm" and not node.GetLocked()
    # Or draws a box and drags it into the folder.
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    drawn.SetCenter(1, 2, 3)
    drawn.SetSize(4, 4, 4)
    put_into(folder, [drawn])
    mrml.update_findings(folder)
    assert drawn.GetName() == "5 nodule 4.0 mm"
    found = mrml.findings_from_nodes(folder)
    assert [(one.state, one.label, one.score) for one in found.findings if one.score is None] == [
        ("added", "Knochenläsion", None), ("added", "nodule", None),
    ]  # fmt: skip
    assert len(found.called) == 4
    mrml.set_findings_threshold(folder, 1.0)
    assert [bool(roi.GetDisplayNode().GetVisibility()) for roi in rois(folder)] == [False] * 3 + [True] * 2
    node.SetSize(5, 5, 5)
    mrml.update_findings(folder)
    assert mrml.finding_nodes(folder)[3][1].state == "added"
    mrml.remove_finding(folder, node)
    assert len(mrml.findings_from_nodes(folder).findings) == 4


def test_corrections_survive_a_saved_scene(scene, slicer_app, tmp_path):
    folder = put(node=volume())
    first, second, third = rois(folder)
    mrml.mark_finding(first, state="accepted")
    mrml.mark_finding(second, state="rejected")
    third.SetCenterWorld([0, 11, 15])  # and nothing is told of it
    mrml.add_finding(folder, (5, 6, 17))
    mrml.set_findings_threshold(folder, 0.05)
    before = [finding for _, finding in mrml.finding_nodes(folder)]
    path = tmp_path / "reviewed.mrb"
    assert slicer_app.io_manager.write_scene(str(path))
    slicer_app.scene.Clear(False)
    slicer_app.io_manager.load_scene(str(path))
    import slicer

    tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
    folder = mrml.findings_folder(tables[0])
    after = [finding for _, finding in mrml.finding_nodes(folder)]
    assert [one.state for one in after] == ["accepted", "rejected", "corrected", "added"]
    assert after[0].about == {"kind": "solid; ä"}
    for one, other in zip(after, before, strict=True):
        np.testing.assert_allclose(one.center, other.center, atol=1e-6)
        np.testing.assert_allclose(one.size, other.size, atol=1e-6)
        assert dataclasses.replace(one, center=other.center, size=other.size) == other
    assert mrml.findings_threshold(folder) == 0.05 and mrml.findings_volume(folder).GetName() == "Chest"


# -- transforms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", [turned(), turned(scale=1.7), np.diag([-1.0, 1, 1, 1])])
def test_findings_move_along_with_the_scan(scene, matrix):
    import slicer
    from MedMapAILib.mrml.geometry import matrix_of_array

    node = volume()
    transform = under_transform(node, matrix)
    result = three_findings()
    folder = put(result, node)
    assert_same(mrml.findings_from_nodes(folder), result)
    for roi in rois(folder):
        assert roi.GetParentTransformNode() == transform
    # Registered anew: every box moves, and none of it is a correction.
    transform.SetMatrixTransformToParent(matrix_of_array(turned(shift=(1, 2, 3)) @ matrix))
    moved = mrml.findings_from_nodes(folder)
    for one, other in zip(moved.findings, result.findings, strict=True):
        expected = turned(shift=(1, 2, 3)) @ [*other.center, 1]
        np.testing.assert_allclose(one.center, expected[:3], atol=1e-9)
        assert one.state == "found"
    # Hardened, they stay where they were.
    transform.SetMatrixTransformToParent(matrix_of_array(matrix))
    for roi in rois(folder):
        roi.HardenTransform()
    assert [one.state for one in mrml.findings_from_nodes(folder).findings] == ["found"] * 3
    added = mrml.add_finding(folder, (1, 2, 3))
    assert mrml.roi_bounds(added) == (pytest.approx((1, 2, 3)), pytest.approx((10, 10, 10)))
    bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "bent")
    bent.SetAndObserveTransformFromParent(_bspline())
    added.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(InputError, match="non-linear transform 'bent'"):
        mrml.findings_from_nodes(folder)


def _bspline():
    import slicer
    import vtk

    grid = vtk.vtkImageData()
    grid.SetDimensions(5, 5, 5)
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    grid.GetPointData().GetScalars().Fill(0.3)
    transform = slicer.vtkOrientedBSplineTransform()
    transform.SetCoefficientData(grid)
    return transform


def test_a_volume_moved_while_the_model_ran_takes_findings_along(scene):
    from MedMapAILib.mrml.geometry import matrix_of_array

    node = volume()
    transform = under_transform(node, np.eye(4))
    world = mrml.world_matrix(node)
    transform.SetMatrixTransformToParent(matrix_of_array(turned(0, (5, 0, 0))))
    folder = put(three_findings(), node, world=world)
    assert mrml.findings_from_nodes(folder).findings[0].center == pytest.approx((6, 9, 20))


# -- masks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", [None, turned()])
def test_masks_are_segments(scene, matrix):
    node = volume()
    if matrix is not None:
        under_transform(node, matrix)
    result = three_findings()
    findings = [dataclasses.replace(one, mask=mask_at(one.center)) for one in result.findings[:2]]
    # Overlapping ones keep all their voxels.
    findings.append(dataclasses.replace(result.findings[2], mask=mask_at(result.findings[0].center)))
    result = dataclasses.replace(result, findings=tuple(findings))
    folder = put(result, node)
    import slicer

    segmentation = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
    content = segmentation.GetSegmentation()
    assert [content.GetNthSegment(n).GetName() for n in range(3)] == [roi.GetName() for roi in rois(folder)]
    found = mrml.findings_from_nodes(folder)
    for one, other in zip(found.findings, result.findings, strict=True):
        np.testing.assert_array_equal(one.mask.values, other.mask.values)
        np.testing.assert_allclose(one.mask.affine, other.mask.affine, atol=1e-9)
        # Four voxels of 0.6 x 0.6 x 2.5 mm.
        assert one.volume_ml == pytest.approx(4 * 0.6 * 0.6 * 2.5 / 1000)
    display = segmentation.GetDisplayNode()
    shown = [display.GetSegmentVisibility(content.GetNthSegmentID(n)) for n in range(3)]
    assert shown == [True, True, False]
    rois(folder)[0].SetSize(20, 20, 20)
    mrml.update_findings(folder)
    assert mrml.findings_from_nodes(folder).findings[0].mask is None, "the reader's box is not that of the mask"
    mrml.remove_finding(folder, rois(folder)[1])
    assert content.GetNumberOfSegments() == 2


# -- filled anew, empty, failing ---------------------------------------------------------------------------------------


def test_a_folder_is_filled_anew(scene):
    node = volume()
    result = three_findings()
    masked = dataclasses.replace(result.findings[0], mask=mask_at((1, 9, 20)))
    folder = put(dataclasses.replace(result, findings=(masked,)), node)
    table = mrml.findings_table(folder)
    again = put(result, node, folder=folder)
    assert again == folder and mrml.findings_table(folder) == table and len(rois(folder)) == 3
    assert not [name for kind, name in content(scene) if kind == "vtkMRMLSegmentationNode"]
    empty = Detections(("nodule",), (), 0.5)
    put(empty, node, folder=folder)
    assert_same(mrml.findings_from_nodes(folder), empty)
    assert table.GetNumberOfRows() == 0 and mrml.update_findings(folder) == []


def test_without_a_volume(scene):
    folder = mrml.nodes_from_detections(three_findings(), None, name="findings")
    assert_same(mrml.findings_from_nodes(folder), three_findings())
    assert mrml.findings_volume(folder) is None


def test_failure_leaves_the_scene(scene, monkeypatch):
    from MedMapAILib.mrml import findings

    node = volume()
    folder = put(three_findings(), node)
    before, count = content(scene), items()

    def full(*_):
        raise MemoryError("no memory for columns")

    monkeypatch.setattr(findings, "fill", full)
    for where in (0, folder):
        with pytest.raises(MemoryError):
            mrml.nodes_from_detections(three_findings(), node, name="Chest lung-nodule", folder=where)
        assert content(scene) == before and items() == count


def test_a_folder_without_its_table_is_told(scene):
    folder = put()
    scene.RemoveNode(mrml.findings_table(folder))
    with pytest.raises(InputError, match="no table of findings"):
        mrml.findings_from_nodes(folder)


def test_hundreds_of_findings_take_no_time(scene):
    import time

    many = tuple(finding_of_sphere((n, 0, 0), 5.0, "nodule", score=1 - n / 300) for n in range(200))
    start = time.perf_counter()
    folder = put(Detections(("nodule",), many, 0.5))
    made = time.perf_counter()
    mrml.set_findings_threshold(folder, 0.3)
    assert made - start < 20 and time.perf_counter() - made < 3


# -- curves ------------------------------------------------------------------------------------------------------------


def test_froc_is_drawn_up_to_eight_false_positives(scene):
    points = {
        "false_positives_per_scan": [0.0, 0.0, 0.5, 0.5, 20.0], "sensitivity": [0.0, 0.4, 0.4, 0.8, 1.0],
        "threshold": [1.0, 0.9, 0.8, 0.7, 0.1], "operating_point": [0.5, 0.8],
    }  # fmt: skip
    recall = {"recall": [0.0, 0.4, 0.8], "precision": [1.0, 1.0, 0.6], "threshold": [1.0, 0.9, 0.7]}
    charts = mrml.curve_nodes("nodules", {"froc": {"nodule": points}, "precision_recall": {"nodule": recall}})
    assert list(charts) == ["froc", "precision_recall"]
    assert charts["froc"].GetXAxisRange() == (0.0, 8.0) and charts["froc"].GetYAxisRange() == (0.0, 1.0)
    series = [charts["froc"].GetNthPlotSeriesNode(n) for n in range(2)]
    assert [one.GetName() for one in series] == ["nodule", "operating point"]
    table = series[0].GetTableNode()
    xs, ys = ([float(table.GetCellText(row, column)) for row in range(5)] for column in (0, 1))
    # As high at 8 as the point before: what comes at 20 false positives is not there yet.
    assert xs == [0, 0, 0.5, 0.5, 8] and ys == [0, 0.4, 0.4, 0.8, 0.8]
