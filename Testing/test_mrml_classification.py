"""Classifications in Slicer's scene: pictures in, tables, saliency maps and curves out."""

from __future__ import annotations

import numpy as np
import pytest
from MedMapAILib import mrml
from MedMapAILib.errors import InputError
from MedMapAILib.image import affine_of
from MedMapAILib.results import Classification, Familiarity, Saliency

OBLIQUE = np.array([[0.6, -0.8, 0, -3], [0.8, 0.6, 0, 7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])
#: ITK's default place, 1 mm pixels, in RAS: where Slicer puts a picture.
PICTURE = np.diag([-1.0, -1, 1, 1])


def colors(channels, shape=(1, 5, 4), seed=0):
    return np.random.default_rng(seed).integers(0, 255, (*shape, channels), dtype=np.uint8)


def vector_node(array, kind=None):
    import slicer

    node = slicer.util.addVolumeFromArray(array, PICTURE, "photograph", "vtkMRMLVectorVolumeNode")
    if kind is not None:
        node.SetVoxelVectorType(kind)
    return node


def saliency(shape=(3, 4, 5), affine=OBLIQUE, **more):
    values = np.random.default_rng(1).uniform(0, 1, shape).astype(np.float32)
    return Saliency(values, affine, "grad-cam", "benign", **more)


def classification(**more):
    return Classification(
        **{
            "classes": ("benign", "Größer"), "kind": "binary", "probabilities": (0.25, 0.75),
            "thresholds": (None, 0.4), "called": ("Größer",), **more,
        }
    )  # fmt: skip


def content(scene):
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return sorted((node.GetClassName(), node.GetName()) for node in nodes if not node.GetHideFromEditors())


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_a_color_picture_has_three_channels(scene):
    array = colors(3)  # K, J, I, C
    image = mrml.image_from_node(vector_node(array))
    assert tuple(image.shape) == (3, 4, 5, 1)
    np.testing.assert_array_equal(image.numpy()[1, 2, 3, 0], array[0, 3, 2, 1])
    np.testing.assert_array_equal(image.numpy(), array.transpose(3, 2, 1, 0))
    np.testing.assert_allclose(affine_of(image), PICTURE)


def test_a_picture_in_the_scene_is_the_picture_in_the_file(scene, tmp_path):
    import SimpleITK as sitk
    from MedMapAILib.pictures import read_picture

    array = colors(3)
    sitk.WriteImage(sitk.GetImageFromArray(array[0], isVector=True), str(tmp_path / "photograph.png"))
    from_file = read_picture(tmp_path / "photograph.png", color=True)
    voxels, affine, _ = mrml.voxels_from_node(vector_node(array))
    np.testing.assert_array_equal(voxels, from_file.array)
    np.testing.assert_allclose(affine, from_file.affine)


def test_full_opacity_is_left_out_and_transparency_refused(scene):
    array = np.concatenate([colors(3), np.full((1, 5, 4, 1), 255, np.uint8)], axis=-1)
    assert mrml.image_from_node(vector_node(array)).shape[0] == 3
    array[0, 2, 2, 3] = 254
    with pytest.raises(InputError, match="'photograph' is transparent in places"):
        mrml.image_from_node(vector_node(array))


def test_colors_of_many_slices_are_told_from_vectors(scene):
    import slicer

    node = vector_node(colors(3, shape=(6, 5, 4)))
    with pytest.raises(InputError, match="3 values in each voxel"):
        mrml.image_from_node(node)
    node.SetVoxelVectorType(slicer.vtkMRMLVolumeNode.VoxelVectorTypeColorRGB)
    assert mrml.image_from_node(node).shape[0] == 3
    vectors = vector_node(colors(3), slicer.vtkMRMLVolumeNode.VoxelVectorTypeSpatial)
    with pytest.raises(InputError, match="3 values in each voxel"):
        mrml.image_from_node(vectors)
    assert mrml.image_from_node(vectors, frame=1).shape[0] == 1


# -- tables ------------------------------------------------------------------------------------------------------------


def test_a_classification_becomes_a_table(scene):
    far = Familiarity(False, {"size": 3.0}, "This is not the kind of image that this model was trained on: size.")
    node = mrml.node_from_classification(classification(familiarity=far, notes=("One note.",)), name="call")
    table = node.GetTable()
    assert [table.GetColumnName(n) for n in range(4)] == ["Class", "Probability", "Threshold", "Called"]
    rows = [[node.GetCellText(row, column) for column in range(4)] for row in range(2)]
    assert rows == [["benign", "0.25", "", "no"], ["Größer", "0.75", "0.4", "yes"]]
    for said in ("Research use only", "not the kind of image", "One note."):
        assert said in node.GetDescription()
    before = content(scene)
    several = classification(
        classes=("a", "b", "c"), probabilities=(0.1, 0.9, 0.8), thresholds=(0.5,) * 3, called=("b", "c"),
        kind="multi-label",
    )  # fmt: skip
    assert mrml.node_from_classification(several, name="call", node=node) is node
    assert node.GetNumberOfRows() == 3 and node.GetNumberOfColumns() == 4 and content(scene) == before
    assert "not the kind" not in node.GetDescription()
    # Half a character would end the program.
    mrml.node_from_classification(classification(classes=("a", "\ud800")), name="call", node=node)
    assert node.GetCellText(1, 0) == "?"


# -- saliency maps -----------------------------------------------------------------------------------------------------


def test_a_saliency_map_lies_where_the_image_is(scene):
    import slicer

    shown = saliency()
    node = mrml.node_from_saliency(shown, name="looked")
    assert "benign" in node.GetDescription() and "grad-cam" in node.GetDescription()
    back = mrml.image_from_node(node)
    np.testing.assert_array_equal(back.numpy()[0], shown.values)
    np.testing.assert_allclose(affine_of(back), OBLIQUE, atol=1e-12)
    display = node.GetDisplayNode()
    assert display.GetColorNode().GetName() == "Iron"
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 1) and not display.GetAutoWindowLevel()
    # Where the network saw nothing, the image is seen.
    assert display.GetApplyThreshold() and 0 < display.GetLowerThreshold() < 0.2
    # A second map fills the same node, and how the user looks at it stays.
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeOcean")
    before = content(scene)
    other = saliency(shape=(2, 2, 2), affine=np.eye(4))
    assert mrml.node_from_saliency(other, name="looked", node=node) is node
    np.testing.assert_array_equal(mrml.image_from_node(node).numpy()[0], other.values)
    assert content(scene) == before and display.GetColorNode().GetName() == "Ocean"
    slicer.mrmlScene.RemoveNode(node)


def test_a_saliency_map_follows_its_volume(scene):
    import slicer

    volume = mrml.volume_node_from_image(mrml.image_from_node(mrml.node_from_saliency(saliency(), name="v")), name="v")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turned = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    slicer.util.updateTransformMatrixFromArray(transform, turned)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    in_world = saliency(affine=turned @ OBLIQUE)
    node = mrml.node_from_saliency(in_world, name="looked", referenceVolumeNode=volume)
    assert node.GetParentTransformNode() is transform
    np.testing.assert_allclose(affine_of(mrml.image_from_node(node)), turned @ OBLIQUE, atol=1e-9)


# -- curves ------------------------------------------------------------------------------------------------------------


def curves():
    from MedMapAILib.metrics import classification_curves

    scores = np.array([0.1, 0.4, 0.35, 0.8, 0.7, 0.2])
    true = np.array([0, 0, 1, 1, 1, 0])
    p, t = np.stack([1 - scores, scores], axis=1), np.stack([1 - true, true], axis=1)
    return classification_curves(p, t, kind="binary", classes=("benign", "malignant"), thresholds=(None, 0.5))


def series_of(chart):
    """{name: (x values, y values)} as the chart draws them."""
    import slicer

    found = {}
    for n in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(n)
        table = series.GetTableNode()
        found[series.GetName()] = tuple(
            slicer.util.arrayFromTableColumn(table, column).tolist()
            for column in (series.GetXColumnName(), series.GetYColumnName())
        )
    return found


def test_curves_become_charts(scene):
    made = curves()
    charts = mrml.curve_nodes("lesion", made)
    assert list(charts) == ["roc", "precision_recall", "reliability"]
    assert charts["roc"].GetName() == "lesion ROC" and "specificity" in charts["roc"].GetXAxisTitle()
    drawn = series_of(charts["roc"])
    assert list(drawn) == ["malignant", "chance", "operating point"]
    # Known by hand: the one positive below 0.4 costs a third of the false positives.
    x, y = drawn["malignant"]
    points = made["roc"]["malignant"]
    wanted = list(zip(points["false_positive_rate"], points["true_positive_rate"], strict=True))
    assert list(zip(x, y, strict=True))[: len(wanted)] == wanted and (1 / 3, 1.0) in wanted
    assert set(zip(x, y, strict=True)) == set(wanted), "a shorter curve stays where it ends"
    assert set(zip(*drawn["operating point"], strict=True)) == {(0.0, 2 / 3)}
    assert series_of(charts["reliability"])["perfectly calibrated"][0][:2] == [0.0, 1.0]
    assert not np.isnan([value for xy in drawn.values() for axis in xy for value in axis]).any()
    before = content(scene)
    again = mrml.curve_nodes("lesion", made)
    assert content(scene) == before and again["roc"] is not charts["roc"]


def test_what_has_no_curve_is_left_out(scene):
    assert mrml.curve_nodes("empty", {"roc": {}, "precision_recall": {}, "reliability": {}}) == {}
    assert mrml.curve_nodes("older", {}) == {}


def test_curves_that_fail_leave_the_scene(scene):
    before, broken = content(scene), curves()
    broken["reliability"]["malignant"]["confidence"] = ["no number"]
    with pytest.raises(TypeError):
        mrml.curve_nodes("lesion", broken)
    assert content(scene) == before


def test_history_of_a_classifier_follows_its_auc(scene):
    before = content(scene)
    mrml.history_nodes("spot")
    table, chart = mrml.history_nodes("spot", "auc")
    rows = [{"epoch": 1, "train_loss": 0.7, "validation_loss": 0.6, "validation_auc": 0.9, "learning_rate": 1e-3}]
    mrml.update_history(table, chart, rows)
    assert table.GetColumnName(3) == "Validation AUC" and table.GetCellText(0, 3) == "0.9"
    assert chart.GetNthPlotSeriesNode(2).GetYColumnName() == "Validation AUC"
    # That of the training before, which was of another task, is gone.
    assert content(scene) == sorted(
        [*before, ("vtkMRMLPlotChartNode", "spot"), ("vtkMRMLTableNode", "spot")]
        + [("vtkMRMLPlotSeriesNode", t) for t in ("Training loss", "Validation loss", "Validation AUC")]
    )
    assert mrml.history_nodes("spot", "auc") == (table, chart)
