"""Images that were made, in Slicer's scene: volumes, references, views, residual curves and scores."""

from __future__ import annotations

import numpy as np
import pytest
from MedMapAILib import mrml
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image
from MedMapAILib.inference.report import RunReport
from MedMapAILib.results import Reconstruction

OBLIQUE = np.array([[0.6, -0.8, 0, -3], [0.8, 0.6, 0, 7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])


def values(shape=(5, 4, 3), seed=0):
    return np.random.default_rng(seed).normal(0, 300, shape).astype(np.float32)


def result(**more):
    about = {"unit": "HU", "window": (-1000.0, 1000.0), "method": "tv, weight 0.001", "notes": ("One note.",)}
    return Reconstruction(values(), OBLIQUE, **{**about, **more})


def volume(array=None, name="Scan", window=(-160.0, 240.0), affine=OBLIQUE):
    node = mrml.volume_node_from_image(
        make_image((values(seed=1) if array is None else array)[None], affine), name=name
    )
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevelMinMax(*window)
    return node


def window_of(node):
    display = node.GetDisplayNode()
    return display.GetWindowLevelMin(), display.GetWindowLevelMax()


def test_the_volume_has_the_values_where_the_result_has_them(scene):
    node = mrml.node_from_reconstruction(result(), name="FBP")
    voxels, affine, _ = mrml.voxels_from_node(node)
    np.testing.assert_array_equal(voxels[0], result().values)
    np.testing.assert_allclose(affine, OBLIQUE, atol=1e-12)
    assert node.GetName() == "FBP" and window_of(node) == (-1000, 1000)
    assert "Research use only" in node.GetDescription() and "One note." in node.GetDescription()


def test_it_is_shown_as_the_image_that_it_was_made_of(scene):
    before = volume()
    before.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeInvertedGrey")
    folder = mrml.folders.folder_beside(None, "Patient")
    mrml.folders.put_into(folder, [before])
    node = mrml.node_from_reconstruction(result(), name="Better", referenceVolumeNode=before)
    assert window_of(node) == (-160, 240) and not node.GetDisplayNode().GetAutoWindowLevel()
    assert node.GetDisplayNode().GetColorNodeID() == before.GetDisplayNode().GetColorNodeID()
    assert mrml.folders.folder_of(node) == folder
    # How a given one is shown, and where it lies in the tree, stays.
    node.GetDisplayNode().SetWindowLevelMinMax(0, 80)
    again = mrml.node_from_reconstruction(result(), name="Better", node=node)
    assert again is node and window_of(node) == (0, 80)


def test_under_a_transform_it_lies_in_the_world_where_the_result_is(scene):
    import slicer
    import vtk

    before = volume()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    moved = vtk.vtkTransform()
    moved.Translate(5, -6, 7)
    moved.RotateZ(20)
    transform.SetMatrixTransformToParent(moved.GetMatrix())
    before.SetAndObserveTransformNodeID(transform.GetID())
    node = mrml.node_from_reconstruction(result(), name="Better", referenceVolumeNode=before)
    assert node.GetParentTransformNode() == transform
    np.testing.assert_allclose(mrml.voxels_from_node(node)[1], OBLIQUE, atol=1e-9)


def test_what_fails_leaves_the_scene_as_it_was(scene):
    before = scene.GetNumberOfNodes()
    with pytest.raises(InputError, match="not finite"):
        mrml.node_from_reconstruction(Reconstruction(values(), OBLIQUE * np.nan), name="Bad")
    with pytest.raises((TypeError, ValueError, AttributeError)):
        mrml.node_from_reconstruction(Reconstruction("no voxels", OBLIQUE), name="Bad")
    assert scene.GetNumberOfNodes() == before


def test_a_reference_must_have_the_same_voxels(scene):
    scan, truth = volume(), volume(values(seed=2), "Truth")
    reference = mrml.image_reference_from_node(truth, scan)
    np.testing.assert_array_equal(reference.values, values(seed=2))
    assert reference.values.dtype == np.float32
    # A view: nothing was copied.
    assert np.shares_memory(reference.values, mrml.voxels_from_node(truth)[0])
    with pytest.raises(InputError, match="5×4×3 voxels and the reference 'Half' has 5×4×2"):
        mrml.image_reference_from_node(volume(values((5, 4, 2)), "Half"), scan)
    shifted = OBLIQUE.copy()
    shifted[0, 3] += 0.5
    with pytest.raises(InputError, match="not in the same place: the origin"):
        mrml.image_reference_from_node(volume(name="Moved", affine=shifted), scan)


def test_both_images_lie_over_each_other_in_linked_views(scene):
    import slicer

    before, after, other = volume(), volume(values(seed=2), "Better"), volume(name="Other")
    views = [scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode") for _ in range(3)]
    mrml.show_compared(before, after, 0.25)
    assert {view.GetBackgroundVolumeID() for view in views} == {before.GetID()}
    assert {view.GetForegroundVolumeID() for view in views} == {after.GetID()}
    assert all(view.GetLinkedControl() and view.GetForegroundOpacity() == 0.25 for view in views)
    views[2].SetForegroundVolumeID(other.GetID())
    mrml.fade_compared(after, 0.75)
    assert [view.GetForegroundOpacity() for view in views] == [0.75, 0.75, 0.25]
    mrml.show_compared(None, after)
    assert {view.GetBackgroundVolumeID() for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")} == {
        after.GetID()
    }
    assert not any(view.GetForegroundVolumeID() for view in views)


def test_residual_curve_and_scores_are_tables(scene):
    table, chart = mrml.residual_nodes("SIRT residual", (0.5, 0.25, 0.125))
    assert [table.GetTable().GetValueByName(row, "Residual").ToDouble() for row in range(3)] == [0.5, 0.25, 0.125]
    assert [table.GetTable().GetValueByName(row, "Iteration").ToInt() for row in range(3)] == [1, 2, 3]
    assert chart.GetNumberOfPlotSeriesNodes() == 1
    again = mrml.residual_nodes("SIRT residual", (0.4, 0.1))
    assert again == (table, chart) and table.GetNumberOfRows() == 2
    scores = {"psnr_db": 31.5, "ssim": 0.9, "before": {"psnr_db": 20.0, "ssim": 0.5}}
    rows = RunReport("low-dose-ct", result(), "cpu", 1.0, scores).rows
    node = mrml.node_from_scores(rows, name="Scores")
    columns = [node.GetColumnName(n) for n in range(node.GetNumberOfColumns())]
    assert columns == ["Score", "Unit", "Before", "After"]
    assert node.GetTable().GetValueByName(0, "After").ToDouble() == 31.5
