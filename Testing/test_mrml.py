"""Volumes and segmentations in Slicer's real scene: there and back by memory, under transforms, and refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from MedMapAILib import mrml
from MedMapAILib.errors import InputError
from MedMapAILib.image import affine_of, make_image
from MedMapAILib.results import Segment, Segmentation, terminology_entry
from orders import every_axis_order, rotation

LIVER = terminology_entry(category=("SCT", "123037004", "Anatomical Structure"), type=("SCT", "10200004", "Liver"))
SEGMENTS = (Segment(1, "Leber", (1.0, 0.25, 0.0), LIVER), Segment(7, "Milz", (0.0, 0.5, 1.0)), Segment(9, "absent"))

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = rotation((2, 1, 3), 31) @ np.diag([0.8, 1.1, 2.0])
OBLIQUE[:3, 3] = (-20, 35.5, 7)
SHAPE = (12, 10, 8)


def two_boxes() -> np.ndarray:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2:6, 3:7, 1:5] = 1
    labels[6:9, 3:7, 2:6] = 7
    return labels


def image(affine=OBLIQUE, seed=0):
    return make_image(np.random.default_rng(seed).normal(0, 300, (1, *SHAPE)).astype(np.float32), affine)


def transform(matrix, parent=None):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.asarray(matrix, dtype=float)))
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def bending():
    """A B-spline transform that moves something."""
    import slicer
    import vtk

    grid = vtk.vtkImageData()
    grid.SetDimensions(4, 4, 4)
    grid.SetSpacing(30, 30, 30)
    grid.SetOrigin(-45, -45, -45)
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    from vtk.util.numpy_support import vtk_to_numpy

    vtk_to_numpy(grid.GetPointData().GetScalars())[:] = np.random.default_rng(0).normal(0, 3, (64, 3))
    displacements = slicer.vtkOrientedGridTransform()
    displacements.SetDisplacementGridData(grid)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "bending")
    node.SetAndObserveTransformFromParent(displacements)
    return node


AFFINE_TRANSFORM = np.eye(4)
AFFINE_TRANSFORM[:3, :3] = rotation((0, 1, 1), 50) @ np.diag([1, 1.2, 0.9])
AFFINE_TRANSFORM[:3, 3] = (5, -6, 70)


def node_ids(scene) -> list[str]:
    return [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]


def exported(node, reference) -> dict[str, np.ndarray]:
    """The voxels (I, J, K) of each segment by Slicer's own export, on the grid of a volume node."""
    import slicer

    content = node.GetSegmentation()
    return {
        content.GetNthSegment(n).GetName(): slicer.util.arrayFromSegmentBinaryLabelmap(
            node, content.GetNthSegmentID(n), reference
        ).T
        for n in range(content.GetNumberOfSegments())
    }


# -- volumes


def test_image_to_node_and_back(scene):
    import slicer

    node = mrml.volume_node_from_image(image(), name="CT")
    assert node.GetName() == "CT" and node.GetDisplayNode() is not None
    array = slicer.util.arrayFromVolume(node)
    assert array.shape == SHAPE[::-1]
    assert array[5, 4, 3] == image()[0, 3, 4, 5]
    back = mrml.image_from_node(node)
    np.testing.assert_array_equal(back.numpy(), image().numpy())
    np.testing.assert_allclose(affine_of(back), OBLIQUE, atol=1e-12)


def test_the_image_is_a_copy(scene):
    import slicer

    node = mrml.volume_node_from_image(image(), name="CT")
    taken = mrml.image_from_node(node)
    slicer.util.arrayFromVolume(node)[:] = 0
    assert float(taken.abs().min()) > 0


@pytest.mark.parametrize("kind", (np.uint8, np.int16, np.float64))
def test_number_types_of_nodes(scene, kind):
    import slicer

    values = np.arange(60).reshape(3, 4, 5).astype(kind)
    node = slicer.util.addVolumeFromArray(values, OBLIQUE)
    np.testing.assert_array_equal(mrml.image_from_node(node).numpy()[0], values.T.astype(np.float32))


def test_slicer_says_the_same_place(scene):
    """The position of a voxel by the bounds that Slicer computes for a volume of one voxel."""
    single = np.zeros((1, 3, 3, 3), np.float32)
    index = (2, 0, 1)
    node = mrml.volume_node_from_image(make_image(single, OBLIQUE), name="v")
    part = OBLIQUE.copy()
    part[:3, 3] = (OBLIQUE @ [*index, 1])[:3]
    voxel = mrml.volume_node_from_image(make_image(np.zeros((1, 1, 1, 1)), part), name="voxel")
    voxel.SetAndObserveTransformNodeID(transform(AFFINE_TRANSFORM).GetID())
    node.SetAndObserveTransformNodeID(voxel.GetTransformNodeID())
    bounds = [0.0] * 6
    voxel.GetRASBounds(bounds)
    middle = [(bounds[2 * a] + bounds[2 * a + 1]) / 2 for a in range(3)]
    np.testing.assert_allclose((affine_of(mrml.image_from_node(node)) @ [*index, 1])[:3], middle, atol=1e-9)


def test_axis_orders_of_nodes(scene):
    voxels = image().numpy()
    node = None
    for turned, matrix, back in every_axis_order(voxels, OBLIQUE):
        node = mrml.volume_node_from_image(make_image(turned, matrix), name="v", node=node)
        found = mrml.image_from_node(node)
        np.testing.assert_array_equal(back(found.numpy()[0]), voxels[0])
        np.testing.assert_allclose(affine_of(found), matrix, atol=1e-9)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1


def test_nested_linear_transforms_are_part_of_the_place(scene):
    node = mrml.volume_node_from_image(image(), name="CT")
    outer = transform(AFFINE_TRANSFORM)
    inner = transform(np.array([[0, -1, 0, 3], [1, 0, 0, 4], [0, 0, 1, 5], [0, 0, 0, 1]]), outer)
    node.SetAndObserveTransformNodeID(inner.GetID())
    expected = AFFINE_TRANSFORM @ [[0, -1, 0, 3], [1, 0, 0, 4], [0, 0, 1, 5], [0, 0, 0, 1]] @ OBLIQUE
    np.testing.assert_allclose(affine_of(mrml.image_from_node(node)), expected, atol=1e-9)
    # What Slicer itself makes of it when the transform is hardened.
    node.HardenTransform()
    assert node.GetTransformNodeID() is None
    np.testing.assert_allclose(affine_of(mrml.image_from_node(node)), expected, atol=1e-9)


def test_a_given_volume_node_keeps_its_transform(scene):
    node = mrml.volume_node_from_image(image(), name="CT")
    node.SetAndObserveTransformNodeID(transform(AFFINE_TRANSFORM).GetID())
    assert mrml.volume_node_from_image(image(OBLIQUE, seed=3), name="CT 2", node=node) is node
    assert node.GetTransformNodeID() is not None and node.GetName() == "CT 2"
    np.testing.assert_allclose(affine_of(mrml.image_from_node(node)), OBLIQUE, atol=1e-9)


def test_non_linear_transforms_are_refused_with_advice(scene):
    volume = mrml.volume_node_from_image(image(), name="CT")
    made = Segmentation(two_boxes(), OBLIQUE, SEGMENTS)
    segmentation = mrml.node_from_segmentation(made, name="seg")
    bent = bending()
    outer = transform(AFFINE_TRANSFORM, bent)
    for parent in (bent, outer):
        for node in (volume, segmentation):
            node.SetAndObserveTransformNodeID(parent.GetID())
        before = node_ids(scene)
        for call in (
            lambda: mrml.image_from_node(volume),
            lambda: mrml.segmentation_from_node(segmentation),
            lambda: mrml.node_from_segmentation(made, name="new", referenceVolumeNode=volume),
            lambda: mrml.volume_node_from_image(image(), name="new", node=volume),
        ):
            with pytest.raises(InputError, match="non-linear transform .* [Hh]arden") as error:
                call()
            assert "\n" not in str(error.value)
        assert node_ids(scene) == before
    volume.SetAndObserveTransformNodeID(bent.GetID())
    volume.HardenTransform()
    assert mrml.image_from_node(volume).shape[0] == 1


def test_volumes_that_are_none(scene):
    import slicer

    with pytest.raises(InputError, match="No volume is chosen"):
        mrml.image_from_node(None)
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    with pytest.raises(InputError, match="Volume 'hollow' is empty"):
        mrml.image_from_node(empty)
    with pytest.raises(InputError, match="is not a volume"):
        mrml.image_from_node(scene.AddNewNodeByClass("vtkMRMLTableNode"))
    values = np.zeros((3, 4, 5), np.float32)
    values[2, 1, 0] = np.nan
    node = slicer.util.addVolumeFromArray(values, name="holes")
    with pytest.raises(
        InputError, match=r"'holes' has 1 voxel that is NaN or infinite, the first at index \(0, 1, 2\)"
    ):
        mrml.image_from_node(node)


def test_volumes_of_several_values_are_asked_about(scene):
    import slicer

    colors = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3), dtype=np.uint8)
    node = slicer.util.addVolumeFromArray(colors, OBLIQUE, "color", "vtkMRMLVectorVolumeNode")
    with pytest.raises(InputError, match="3 values in each voxel"):
        mrml.image_from_node(node)
    found = mrml.image_from_node(node, frame=2)
    np.testing.assert_array_equal(found.numpy()[0], colors[..., 2].T)
    np.testing.assert_allclose(affine_of(found), OBLIQUE)
    with pytest.raises(InputError, match="N from 0 to 2"):
        mrml.image_from_node(node, frame=3)


def test_sequences_are_asked_about(scene):
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    for n in range(3):
        volume = mrml.volume_node_from_image(image(seed=n), name="v")
        sequence.SetDataNodeAtValue(volume, str(n))
        scene.RemoveNode(volume)
    with pytest.raises(InputError, match="'cine' is a sequence of 3 items"):
        mrml.image_from_node(sequence)
    found = mrml.image_from_node(sequence, frame=1)
    np.testing.assert_array_equal(found.numpy(), image(seed=1).numpy())
    np.testing.assert_allclose(affine_of(found), OBLIQUE, atol=1e-12)
    with pytest.raises(InputError, match="no frame 3"):
        mrml.image_from_node(sequence, frame=3)


def test_images_that_are_no_volume_leave_the_scene_alone(scene):
    before = node_ids(scene)
    with pytest.raises(InputError, match="needs an image"):
        mrml.volume_node_from_image(make_image(np.zeros((2, 3, 4, 5)), np.eye(4)), name="v")
    assert node_ids(scene) == before


# -- segmentations


@pytest.mark.parametrize("referred", (False, True), ids=("alone", "referred"))
@pytest.mark.parametrize("moved", (False, True), ids=("still", "moved"))
def test_segmentation_to_node_and_back(scene, referred, moved):
    volume = mrml.volume_node_from_image(image(), name="CT")
    if moved:
        volume.SetAndObserveTransformNodeID(transform(AFFINE_TRANSFORM).GetID())
    place = affine_of(mrml.image_from_node(volume))
    made = Segmentation(two_boxes(), place, SEGMENTS)
    node = mrml.node_from_segmentation(made, name="result", referenceVolumeNode=volume if referred else None)
    assert node.GetName() == "result" and node.GetDisplayNode().GetVisibility()
    assert node.GetTransformNodeID() == (volume.GetTransformNodeID() if referred else None)
    # Slicer's own names, colors, terminology and voxels.
    content = node.GetSegmentation()
    for number, expected in enumerate(SEGMENTS):
        segment = content.GetNthSegment(number)
        assert (segment.GetName(), segment.GetLabelValue()) == (expected.name, expected.value)
        assert segment.GetColor() == pytest.approx(expected.color)
        if expected.terminology:
            assert segment.GetTerminology() == expected.terminology
    for name, voxels in exported(node, volume).items():
        value = next(s.value for s in SEGMENTS if s.name == name)
        np.testing.assert_array_equal(voxels > 0, two_boxes() == value)
    for back in (
        mrml.segmentation_from_node(node),
        mrml.segmentation_from_node(node, volume),
        mrml.segmentation_from_node(node, volume, SEGMENTS),
    ):
        np.testing.assert_array_equal(back.labels, two_boxes())
        np.testing.assert_allclose(back.affine, place, atol=1e-9)
        assert [(s.value, s.name) for s in back.segments] == [(s.value, s.name) for s in SEGMENTS]
        assert back.segments[0].terminology == LIVER
    if referred:
        reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        assert reference is volume


def test_axis_orders_of_segmentations(scene):
    volume = mrml.volume_node_from_image(image(), name="CT")
    node = None
    for turned, matrix, _ in every_axis_order(two_boxes()[None], OBLIQUE):
        node = mrml.node_from_segmentation(Segmentation(turned[0], matrix, SEGMENTS), name="s", node=node)
        np.testing.assert_array_equal(mrml.segmentation_from_node(node, volume).labels, two_boxes())
        assert mrml.segmentation_from_node(node).volumes_ml() == pytest.approx(
            Segmentation(two_boxes(), OBLIQUE, SEGMENTS).volumes_ml()
        )


def test_a_given_segmentation_node_is_filled_anew(scene):
    first = Segmentation(np.ones((3, 3, 3), np.uint8), np.eye(4), (Segment(1, "old"),))
    node = mrml.node_from_segmentation(first, name="first")
    node.CreateClosedSurfaceRepresentation()
    before = node_ids(scene)
    again = mrml.node_from_segmentation(Segmentation(two_boxes(), OBLIQUE, SEGMENTS), name="second", node=node)
    assert again is node and node_ids(scene) == before
    assert node.GetName() == "second"
    np.testing.assert_array_equal(mrml.segmentation_from_node(node).labels, two_boxes())


def test_a_moved_segmentation_comes_back_on_the_grid_of_a_moved_volume(scene):
    """Both are moved by 3 voxels against each other along i, in opposite directions of one oblique grid."""
    volume = mrml.volume_node_from_image(image(), name="CT")
    node = mrml.node_from_segmentation(Segmentation(two_boxes(), OBLIQUE, SEGMENTS), name="s")
    step = np.eye(4)
    step[:3, 3] = 3 * OBLIQUE[:3, 0]
    node.SetAndObserveTransformNodeID(transform(step).GetID())
    expected = np.zeros_like(two_boxes())
    expected[3:] = two_boxes()[:-3]
    np.testing.assert_array_equal(mrml.segmentation_from_node(node, volume).labels, expected)
    volume.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    np.testing.assert_array_equal(mrml.segmentation_from_node(node, volume).labels, two_boxes())


def test_slicers_cropped_and_layered_segments_are_read(scene):
    """Segments as the Segment Editor leaves them: drawn one after the other, each with an extent of its own."""
    import slicer

    volume = mrml.volume_node_from_image(image(), name="CT")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, value in (("Milz", 7), ("Leber", 1)):
        identifier = node.GetSegmentation().AddEmptySegment("", name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            (two_boxes().T == value).astype(np.uint8), node, identifier, volume
        )
    found = mrml.segmentation_from_node(node, volume, SEGMENTS)
    np.testing.assert_array_equal(found.labels, two_boxes())
    by_name = {s.name: s.value for s in mrml.segmentation_from_node(node).segments}
    assert set(by_name) == {"Milz", "Leber"}


def test_overlapping_segments_are_refused(scene):
    import slicer

    volume = mrml.volume_node_from_image(image(), name="CT")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "both")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, voxels in (("small", two_boxes() == 1), ("large", two_boxes() > 0)):
        identifier = node.GetSegmentation().AddEmptySegment("", name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(voxels.T.astype(np.uint8), node, identifier, volume)
    assert node.GetSegmentation().GetNumberOfLayers() == 2
    before = node_ids(scene)
    with pytest.raises(InputError, match="'both' has segments that overlap .'large' and 'small'."):
        mrml.segmentation_from_node(node, volume)
    assert node_ids(scene) == before


def test_closed_surfaces_are_made_voxels(scene):
    """A sphere of radius 12 mm, as a surface only: 4/3 π r³ is 7.238 mL."""
    import slicer
    import vtk

    sphere = vtk.vtkSphereSource()
    sphere.SetRadius(12)
    sphere.SetCenter(5, -4, 3)
    sphere.SetThetaResolution(60)
    sphere.SetPhiResolution(60)
    sphere.Update()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "sphere")
    node.SetSourceRepresentationToClosedSurface()
    node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "ball", (1, 0, 0))
    grid = np.eye(4)
    grid[:3, 3] = -20
    volume = mrml.volume_node_from_image(make_image(np.zeros((1, 45, 45, 45)), grid), name="v")
    found = mrml.segmentation_from_node(node, volume)
    assert found.volumes_ml()["ball"] == pytest.approx(4 / 3 * math.pi * 12**3 / 1000, rel=0.02)
    np.testing.assert_allclose(found.centroids_ras()["ball"], (5, -4, 3), atol=0.1)
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    assert not node.GetSegmentation().ContainsRepresentation(binary)


def test_undeclared_and_missing_segments(scene):
    node = mrml.node_from_segmentation(Segmentation(two_boxes(), OBLIQUE, SEGMENTS), name="s")
    with pytest.raises(InputError, match="'s' holds the segments Milz, and only Leber may occur"):
        mrml.segmentation_from_node(node, segments=SEGMENTS[:1])
    with pytest.raises(InputError, match="No segmentation is chosen"):
        mrml.segmentation_from_node(None)
    with pytest.raises(InputError, match="'bare' has no segments"):
        mrml.segmentation_from_node(scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "bare"))


def test_label_map_nodes(scene):
    import slicer

    volume = mrml.volume_node_from_image(image(), name="CT")
    node = slicer.util.addVolumeFromArray(two_boxes().T, OBLIQUE, "labels", "vtkMRMLLabelMapVolumeNode")
    found = mrml.segmentation_from_node(node)
    np.testing.assert_array_equal(found.labels, two_boxes())
    assert [s.value for s in found.segments] == [1, 7]
    np.testing.assert_array_equal(mrml.segmentation_from_node(node, volume, SEGMENTS).labels, two_boxes())
    with pytest.raises(InputError, match="the label value 7"):
        mrml.segmentation_from_node(node, segments=SEGMENTS[:1])
    fractions = slicer.util.addVolumeFromArray(np.full((3, 3, 3), 0.5, np.float32), name="fractions")
    with pytest.raises(InputError, match="fractions such as 0.5"):
        mrml.segmentation_from_node(fractions)


def test_failure_half_way_leaves_the_scene_as_it_was(scene):
    before = node_ids(scene)
    with pytest.raises(ZeroDivisionError), mrml.unchanged_on_failure() as inside:
        inside.AddNewNodeByClass("vtkMRMLSegmentationNode").CreateDefaultDisplayNodes()
        inside.AddNewNodeByClass("vtkMRMLTableNode")
        raise ZeroDivisionError
    assert node_ids(scene) == before


# -- regions of interest


def roi(center, size, matrix=None):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    node.SetCenter(*center)
    node.SetSize(*size)
    if matrix is not None:
        node.SetAndObserveTransformNodeID(transform(matrix).GetID())
    return node


def test_roi_along_the_axes(scene):
    center, size = mrml.roi_bounds(roi((1, 2, 3), (10, 20, 30)))
    assert center == pytest.approx((1, 2, 3)) and size == pytest.approx((10, 20, 30))


def test_turned_roi_is_held_by_its_box(scene):
    """A cube of 10 mm turned by 45° around z is held by a box of 10 √2."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((0, 0, 1), 45)
    matrix[:3, 3] = (100, 0, 0)
    center, size = mrml.roi_bounds(roi((0, 0, 5), (10, 10, 10), matrix))
    assert center == pytest.approx((100, 0, 5))
    assert size == pytest.approx((10 * math.sqrt(2), 10 * math.sqrt(2), 10))


def test_rois_that_are_none(scene):
    with pytest.raises(InputError, match="No ROI is chosen"):
        mrml.roi_bounds(None)
    with pytest.raises(InputError, match="has no size"):
        mrml.roi_bounds(scene.AddNewNodeByClass("vtkMRMLMarkupsROINode"))
    with pytest.raises(InputError, match="is not an ROI"):
        mrml.roi_bounds(scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode"))
    bent = roi((0, 0, 0), (10, 10, 10))
    bent.SetAndObserveTransformNodeID(bending().GetID())
    with pytest.raises(InputError, match="non-linear"):
        mrml.roi_bounds(bent)


# -- tables and curves


def test_table_of_volumes(scene):
    node = mrml.node_from_volumes_table(Segmentation(two_boxes(), OBLIQUE, SEGMENTS), name="volumes")
    table = node.GetTable()
    assert [table.GetColumnName(n) for n in range(3)] == ["Segment", "Voxels", "Volume (mL)"]
    rows = [[node.GetCellText(row, column) for column in range(3)] for row in range(3)]
    assert [row[:2] for row in rows] == [["Leber", "64"], ["Milz", "48"], ["absent", "0"]]
    assert float(rows[0][2]) == pytest.approx(64 * 1.76 / 1000, rel=1e-4)
    empty = Segmentation(np.zeros((2, 2, 2), np.uint8), np.eye(4), SEGMENTS[:1])
    assert mrml.node_from_volumes_table(empty, name="new", node=node) is node
    assert node.GetNumberOfRows() == 1 and node.GetNumberOfColumns() == 3


def test_history_follows_the_training_in_place(scene):
    table, chart = mrml.history_nodes("hippocampus")
    assert table.GetNumberOfRows() == 0 and chart.GetNumberOfPlotSeriesNodes() == 3
    rows = []
    for epoch in range(1, 4):
        rows.append(
            {
                "epoch": epoch,
                "train_loss": 1 / epoch,
                "validation_loss": None,
                "validation_dice": 0.1 * epoch,
                "learning_rate": 1e-3,
            }
        )
        mrml.update_history(table, chart, rows)
        assert table.GetNumberOfRows() == epoch
    assert [table.GetCellText(2, column) for column in range(5)] == ["3", "0.333333", "nan", "0.3", "0.001"]
    before = node_ids(scene)
    assert mrml.history_nodes("hippocampus") == (table, chart)
    assert node_ids(scene) == before
    for number, column in enumerate(("Training loss", "Validation loss", "Validation Dice")):
        series = chart.GetNthPlotSeriesNode(number)
        assert series.GetTableNode() is table
        assert (series.GetXColumnName(), series.GetYColumnName()) == ("Epoch", column)
