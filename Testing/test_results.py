"""Segmentations: sizes and places against closed forms, label maps that are refused, Slicer as the second reader."""

from __future__ import annotations

import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.image import WRITABLE, make_image, write_array, write_image
from MedMapAILib.results import (
    Segment,
    Segmentation,
    check_writable_segmentation,
    color_of,
    on_grid,
    read_segmentation,
    terminology_entry,
    write_segmentation,
)
from orders import every_axis_order, rotation

LIVER = terminology_entry(category=("SCT", "123037004", "Anatomical Structure"), type=("SCT", "10200004", "Liver"))
LEFT_KIDNEY = terminology_entry(
    category=("SCT", "123037004", "Anatomical Structure"),
    type=("SCT", "64033007", "Kidney"),
    modifier=("SCT", "7771000", "Left"),
)
SEGMENTS = (Segment(1, "Leber", (1.0, 0.25, 0.0), LIVER), Segment(7, "Niere (λ, links)", (0.0, 0.5, 1.0), LEFT_KIDNEY))

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = rotation((2, 1, 3), 31) @ np.diag([0.8, 1.1, 2.0])
OBLIQUE[:3, 3] = (-20, 35.5, 7)


def two_boxes(shape=(12, 10, 8)) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.uint8)
    labels[2:6, 3:7, 1:5] = 1
    labels[6:9, 3:7, 2:6] = 7
    return labels


def segmentation(affine=OBLIQUE) -> Segmentation:
    return Segmentation(two_boxes(), affine, SEGMENTS)


# -- sizes and places


def test_volume_is_that_of_the_voxels():
    """64 voxels of 0.8 × 1.1 × 2.0 mm are 112.64 mm³, however the grid is turned."""
    volumes = segmentation().volumes_ml()
    assert volumes == {"Leber": pytest.approx(0.11264), "Niere (λ, links)": pytest.approx(48 * 1.76 / 1000)}


def test_volume_of_a_ball_and_of_a_sheared_grid():
    """4169 points of a unit grid lie in a ball of radius 10 (OEIS A000605); shear leaves their volume alone."""
    ball = ((np.indices((25, 25, 25)) - 12) ** 2).sum(axis=0) <= 10**2
    affine = np.array([[0.4, 0.3, 0, 0], [0, 0.5, 0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1]])
    volume = Segmentation(ball.astype(np.uint8), affine, (Segment(1, "ball"),)).volumes_ml()["ball"]
    assert volume == pytest.approx(4169 * 0.4 / 1000)
    assert 4169 == pytest.approx(4 / 3 * math.pi * 10**3, rel=0.005)


def test_centroid_is_the_middle_of_a_box():
    x, y, z = segmentation().centroids_ras()["Leber"]
    np.testing.assert_allclose((x, y, z), (OBLIQUE @ [3.5, 4.5, 2.5, 1])[:3])


def test_axis_orders_do_not_move_the_centroid():
    expected = segmentation().centroids_ras()
    for turned, matrix, _ in every_axis_order(two_boxes()[None], OBLIQUE):
        found = Segmentation(turned[0], matrix, SEGMENTS)
        for name, place in found.centroids_ras().items():
            np.testing.assert_allclose(place, expected[name], atol=1e-9)
        assert found.volumes_ml() == pytest.approx(segmentation().volumes_ml())


def test_empty_segments_have_no_centroid_and_no_volume():
    empty = Segmentation(np.zeros((3, 4, 5), np.uint8), OBLIQUE, SEGMENTS)
    assert empty.centroids_ras() == {} and set(empty.volumes_ml().values()) == {0.0}


def test_segments_and_segmentations_are_checked():
    for bad in (
        lambda: Segment(0, "background"),
        lambda: Segment(70000, "much"),
        lambda: Segment(1, "  "),
        lambda: Segment(1, "red", (255, 0, 0)),
        lambda: Segmentation(np.zeros((2, 2, 2)), np.eye(4), ()),
        lambda: Segmentation(np.zeros((2, 2), np.uint8), np.eye(4), ()),
        lambda: Segmentation(np.zeros((2, 2, 2), np.uint8), np.zeros((4, 4)), ()),
        lambda: Segmentation(np.zeros((2, 2, 2), np.uint8), np.eye(4), (Segment(1, "a"), Segment(1, "b"))),
        lambda: Segmentation(np.zeros((2, 2, 2), np.uint8), np.eye(4), (Segment(1, "a"), Segment(2, "a"))),
    ):
        with pytest.raises(InputError):
            bad()


def test_colors_are_colors_and_differ():
    colors = {color_of(value) for value in range(1, 60)}
    assert len(colors) == 59 and all(0 <= part <= 1 for color in colors for part in color)


# -- terminology


def test_terminology_is_what_slicer_writes(scene):
    import slicer

    logic = slicer.modules.terminologies.logic()
    for text in (LIVER, LEFT_KIDNEY):
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(text, entry)
        assert logic.SerializeTerminologyEntry(entry) == text
    assert entry.GetTypeObject().GetCodeValue() == "64033007"
    assert entry.GetTypeModifierObject().GetCodeMeaning() == "Left"
    assert entry.GetCategoryObject().GetCodingSchemeDesignator() == "SCT"


def test_terminology_refuses_half_codes():
    category = ("SCT", "123037004", "Anatomical Structure")
    for bad in (("SCT", "", "Liver"), ("SCT", "10200004", "Li~ver"), ("SCT", "10200004"), ("SCT", "1^2", "x")):
        with pytest.raises(InputError, match="coded term"):
            terminology_entry(category=category, type=bad)


# -- round trips


@pytest.mark.parametrize("ending", (".seg.nrrd", *WRITABLE))
def test_round_trip(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write_segmentation(segmentation(), path)
    for segments in (None, SEGMENTS):
        back = read_segmentation(path, segments)
        np.testing.assert_array_equal(back.labels, two_boxes())
        assert back.labels.dtype == np.uint8
        np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-5)
        if segments is not None or ending == ".seg.nrrd":
            assert back.segments == SEGMENTS
        else:
            assert [(s.value, s.name) for s in back.segments] == [(1, "label 1"), (7, "label 7")]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_segments_without_voxels_survive(tmp_path):
    write_segmentation(Segmentation(np.zeros((3, 4, 5), np.uint8), OBLIQUE, SEGMENTS), tmp_path / "a.seg.nrrd")
    assert read_segmentation(tmp_path / "a.seg.nrrd").segments == SEGMENTS


def test_values_beyond_a_byte(tmp_path):
    labels = np.zeros((3, 4, 5), np.uint16)
    labels[1, 2, 3] = 1003
    write_segmentation(Segmentation(labels, OBLIQUE, (Segment(1003, "left cortex"),)), tmp_path / "a.seg.nrrd")
    back = read_segmentation(tmp_path / "a.seg.nrrd")
    assert back.labels[1, 2, 3] == 1003 and back.segments[0].value == 1003


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="must end in one of .seg.nrrd"):
        check_writable_segmentation(tmp_path / "a.csv")
    with pytest.raises(InputError, match="no folder"):
        check_writable_segmentation(tmp_path / "b" / "a.seg.nrrd")
    with pytest.raises(InputError, match="no folder"):
        write_segmentation(segmentation(), tmp_path / "b" / "a.seg.nrrd")
    check_writable_segmentation(tmp_path / "a.seg.nrrd")
    assert list(tmp_path.iterdir()) == []


# -- label maps


def test_a_single_label_of_seven(tmp_path):
    labels = (two_boxes() == 7).astype(np.uint8) * 7
    write_array(labels, OBLIQUE, tmp_path / "a.nii.gz")
    for segments in (None, SEGMENTS):
        np.testing.assert_array_equal(read_segmentation(tmp_path / "a.nii.gz", segments).labels, labels)
    with pytest.raises(InputError, match="the label value 7, and only 0 .* 1 .liver. may occur"):
        read_segmentation(tmp_path / "a.nii.gz", (Segment(1, "liver"),))


@pytest.mark.parametrize("kind", (np.float32, np.float64, np.int16, np.int32, np.uint16))
def test_whole_numbers_of_any_type_are_labels(tmp_path, kind):
    write_array(two_boxes().astype(kind), OBLIQUE, tmp_path / "a.nrrd")
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a.nrrd", SEGMENTS).labels, two_boxes())


def test_scaled_nifti_labels(tmp_path):
    file = nibabel.Nifti1Image(two_boxes().astype(np.int16), OBLIQUE)
    file.header.set_slope_inter(1.0, 0.0)
    file.to_filename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a.nii.gz", SEGMENTS).labels, two_boxes())


@pytest.mark.parametrize(
    ("value", "said"),
    (
        (0.5, "fractions such as 0.5"),
        (-1, "from -1 to 7"),
        (70000, "from 0 to 70000"),
        (np.nan, "NaN"),
        (np.inf, "infinite"),
    ),
)
def test_values_that_are_no_labels(tmp_path, value, said):
    labels = two_boxes().astype(np.float32)
    labels[0, 0, 0] = value
    write_array(labels, OBLIQUE, tmp_path / "a.nrrd")
    with pytest.raises(InputError, match=said) as error:
        read_segmentation(tmp_path / "a.nrrd")
    assert "a.nrrd" in str(error.value) and "\n" not in str(error.value)


def test_undeclared_values_are_listed(tmp_path):
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    write_array(labels, OBLIQUE, tmp_path / "a.nrrd")
    with pytest.raises(InputError) as error:
        read_segmentation(tmp_path / "a.nrrd", SEGMENTS)
    assert "label values 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, …" in str(error.value)


def test_truncated_and_missing_label_maps(tmp_path):
    write_segmentation(segmentation(), tmp_path / "a.seg.nrrd")
    (tmp_path / "a.seg.nrrd").write_bytes((tmp_path / "a.seg.nrrd").read_bytes()[:-30])
    (tmp_path / "b.seg.nrrd").write_text("hello")
    for name in ("a", "b", "c"):
        with pytest.raises(InputError, match=f"{name}.seg.nrrd"):
            read_segmentation(tmp_path / f"{name}.seg.nrrd")


# -- .seg.nrrd by name


def test_declared_segments_are_matched_by_name(tmp_path):
    write_segmentation(segmentation(), tmp_path / "a.seg.nrrd")
    declared = (Segment(1, "niere (λ, links)"), Segment(2, "Leber"), Segment(3, "Milz"))
    back = read_segmentation(tmp_path / "a.seg.nrrd", declared)
    np.testing.assert_array_equal(back.labels, np.choose(two_boxes(), [0, 2, 0, 0, 0, 0, 0, 1]))
    assert back.segments == declared


def test_a_name_that_is_not_declared_is_said(tmp_path):
    write_segmentation(segmentation(), tmp_path / "a.seg.nrrd")
    with pytest.raises(InputError, match="the segments Niere .λ, links., and only Leber, Milz may occur"):
        read_segmentation(tmp_path / "a.seg.nrrd", (Segment(1, "Leber"), Segment(7, "Milz")))


def test_segments_without_real_names_go_by_value(tmp_path):
    numbered = (Segment(1, "Segment_1"), Segment(7, "Segment_2"))
    write_segmentation(Segmentation(two_boxes(), OBLIQUE, numbered), tmp_path / "a.seg.nrrd")
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a.seg.nrrd", SEGMENTS).labels, two_boxes())
    with pytest.raises(InputError, match="the label value 7, and only"):
        read_segmentation(tmp_path / "a.seg.nrrd", SEGMENTS[:1])


# -- Slicer as the other reader and writer


def label_map_of(node, reference) -> dict[str, np.ndarray]:
    """The voxels (I, J, K) of each segment by Slicer's own export, on the grid of a volume node."""
    import slicer

    content = node.GetSegmentation()
    return {
        content.GetNthSegment(n).GetName(): slicer.util.arrayFromSegmentBinaryLabelmap(
            node, content.GetNthSegmentID(n), reference
        ).T
        for n in range(content.GetNumberOfSegments())
    }


def test_slicer_loads_what_is_written(scene, tmp_path):
    from MedMapAILib import mrml, standalone_scene

    write_segmentation(segmentation(), tmp_path / "a.seg.nrrd")
    node = standalone_scene.load_segmentation(tmp_path / "a.seg.nrrd")
    content = node.GetSegmentation()
    assert content.GetNumberOfSegments() == 2
    for number, expected in enumerate(SEGMENTS):
        segment = content.GetNthSegment(number)
        assert segment.GetName() == expected.name
        assert segment.GetColor() == pytest.approx(expected.color)
        assert segment.GetTerminology() == expected.terminology
        assert segment.GetLabelValue() == expected.value
    reference = mrml.volume_node_from_image(make_image(np.ones((1, 12, 10, 8)), OBLIQUE), name="reference")
    voxels = label_map_of(node, reference)
    for expected in SEGMENTS:
        np.testing.assert_array_equal(voxels[expected.name], two_boxes() == expected.value)


def slicer_writes(path: Path, layers: list[tuple[str, np.ndarray]], affine=OBLIQUE, collapse=False) -> None:
    """A .seg.nrrd by Slicer's storage node, with one segment of a name and voxels (I, J, K) after the other."""
    import slicer
    from MedMapAILib import mrml

    shape = layers[0][1].shape
    reference = mrml.volume_node_from_image(make_image(np.ones((1, *shape)), affine), name="reference")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    for name, voxels in layers:
        identifier = node.GetSegmentation().AddEmptySegment("", name, (0.2, 0.4, 0.6))
        slicer.util.updateSegmentBinaryLabelmapFromArray(voxels.T.astype(np.uint8), node, identifier, reference)
    if collapse:
        node.GetSegmentation().CollapseBinaryLabelmaps(False)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)


def test_what_slicer_saves_is_read(scene, tmp_path):
    slicer_writes(tmp_path / "a.seg.nrrd", [("one", two_boxes() == 1), ("seven", two_boxes() == 7)])
    back = read_segmentation(tmp_path / "a.seg.nrrd")
    assert [s.name for s in back.segments] == ["one", "seven"]
    assert back.segments[0].color == pytest.approx((0.2, 0.4, 0.6))
    whole = on_grid(back, (12, 10, 8), OBLIQUE)
    for segment, value in zip(back.segments, (1, 7), strict=True):
        np.testing.assert_array_equal(whole.labels == segment.value, two_boxes() == value)


def test_segments_that_overlap_are_refused_and_named(scene, tmp_path):
    first, second = two_boxes() == 1, two_boxes() > 0
    slicer_writes(tmp_path / "a.seg.nrrd", [("small", first), ("large", second)])
    if b"dimension: 4" not in (tmp_path / "a.seg.nrrd").read_bytes():
        pytest.fail("Slicer did not write two layers")
    with pytest.raises(InputError, match="overlap .'large' and 'small'."):
        read_segmentation(tmp_path / "a.seg.nrrd")


def test_layers_that_do_not_overlap_are_one_label_map(tmp_path):
    """As old Slicers wrote every file: a layer and the value 1 for each segment, and no word of either."""
    import SimpleITK as sitk

    layers = np.stack([two_boxes() == 1, two_boxes() == 7], axis=-1).astype(np.uint8)
    picture = sitk.GetImageFromArray(np.ascontiguousarray(layers.transpose(2, 1, 0, 3)), isVector=True)
    for number, name in enumerate(("one", "one")):
        picture.SetMetaData(f"Segment{number}_ID", f"Segment_{number}")
        picture.SetMetaData(f"Segment{number}_Name", name)
        picture.SetMetaData(f"Segment{number}_Color", "1 0 0")
    sitk.WriteImage(picture, str(tmp_path / "a.seg.nrrd"), True)
    back = read_segmentation(tmp_path / "a.seg.nrrd")
    assert [(s.value, s.name) for s in back.segments] == [(1, "one"), (2, "one (2)")]
    np.testing.assert_array_equal(back.labels, np.choose(two_boxes(), [0, 1, 0, 0, 0, 0, 0, 2]))


def test_damaged_description_is_refused(tmp_path):
    write_segmentation(segmentation(), tmp_path / "a.seg.nrrd")
    content = (tmp_path / "a.seg.nrrd").read_bytes().replace(b"Segment1_LabelValue:=7", b"Segment1_LabelValue:=x")
    (tmp_path / "a.seg.nrrd").write_bytes(content)
    with pytest.raises(InputError, match="description of segment 1"):
        read_segmentation(tmp_path / "a.seg.nrrd")


# -- another grid


def test_part_of_a_grid_and_back():
    part = Segmentation(two_boxes()[2:9, 3:7, 1:6], OBLIQUE @ _moved(2, 3, 1), SEGMENTS)
    whole = on_grid(part, (12, 10, 8), OBLIQUE)
    np.testing.assert_array_equal(whole.labels, two_boxes())
    np.testing.assert_array_equal(on_grid(whole, part.labels.shape, part.affine).labels, part.labels)


def test_every_axis_order_is_brought_to_the_same_grid():
    for turned, matrix, _ in every_axis_order(two_boxes()[None], OBLIQUE):
        found = on_grid(Segmentation(turned[0], matrix, SEGMENTS), (12, 10, 8), OBLIQUE)
        np.testing.assert_array_equal(found.labels, two_boxes())


def test_finer_and_far_away_grids():
    fine = on_grid(segmentation(), (24, 20, 16), OBLIQUE @ _moved(-0.25, -0.25, -0.25) @ np.diag([0.5, 0.5, 0.5, 1]))
    np.testing.assert_array_equal(fine.labels, np.kron(two_boxes(), np.ones((2, 2, 2), np.uint8)))
    assert not on_grid(segmentation(), (12, 10, 8), OBLIQUE @ _moved(100, 0, 0)).labels.any()


def _moved(i, j, k) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = (i, j, k)
    return matrix


def test_dicom_and_image_readers_agree_on_places(tmp_path):
    """A label map and an image of the same grid, through files of every format, are in the same place."""
    from MedMapAILib.image import check_same_geometry, read_image

    write_image(make_image(np.random.default_rng(0).normal(size=(1, 12, 10, 8)), OBLIQUE), tmp_path / "image.nii.gz")
    for ending in (".seg.nrrd", *WRITABLE):
        write_segmentation(segmentation(), tmp_path / f"label{ending}")
        check_same_geometry(
            read_image(tmp_path / "image.nii.gz"), read_segmentation(tmp_path / f"label{ending}"), "image", "label"
        )


def test_codes_of_this_file_are_in_slicers_own_lists(slicer_app):
    path = (
        Path(slicer_app.share_directory)
        / "terminologies"
        / "SegmentationCategoryTypeModifier-SlicerGeneralAnatomy.term.json"
    )
    if not path.exists():
        pytest.skip(f"{path} is not in this version of trame-slicer")
    content = json.loads(path.read_text())
    categories = content["SegmentationCodes"]["Category"]
    types = {t["CodeValue"] for c in categories if c["CodeValue"] == "123037004" for t in c["Type"]}
    assert {"10200004", "64033007"} <= types
    assert LIVER.split("~")[0] == content["SegmentationCategoryTypeContextName"]
