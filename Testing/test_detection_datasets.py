"""Data sets of findings: tables of boxes and LUNA16; where findings are, what is wrong with them, and their splits."""

import csv
import time
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import write_series
from MedMapAILib.datasets import open_dataset
from MedMapAILib.datasets.duplicates import content_hash
from MedMapAILib.datasets.finding_geometry import box_after, fit_findings, voxel_edges
from MedMapAILib.datasets.finding_statistics import finding_statistics
from MedMapAILib.datasets.findings_table import write_finding_table
from MedMapAILib.datasets.fingerprint import fingerprint
from MedMapAILib.datasets.folds import given_folds
from MedMapAILib.datasets.loading import load_case
from MedMapAILib.datasets.report import measure_dataset
from MedMapAILib.datasets.split import make_split
from MedMapAILib.errors import InputError
from MedMapAILib.image import GeometryWarning, affine_of, make_image, read_image, write_array, write_image
from MedMapAILib.results import Detections, Finding, FindingReference, finding_of_sphere
from scipy.ndimage import center_of_mass

PREFIX = "1.3.6.1.4.1.14519.5.2.1.6279.6001."
UIDS = [f"{PREFIX}{100225287222365663678666836860 + 17 * n}" for n in range(12)]
NOISE = np.random.default_rng(0)


def refused(*words, call=open_dataset, arguments=(), **options):
    """The call raises InputError, one line that holds the words; returns the sentence."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence
    return sentence


def write_scan(path, shape=(20, 16, 12), spacing=(1.0, 1.0, 2.0), origin=(-10.0, -8.0, -12.0), direction=None):
    """A scan of noise. origin: of the first voxel's center, LPS mm, as in the header of a .mhd file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = sitk.GetImageFromArray(NOISE.integers(-1000, 400, shape[::-1]).astype(np.int16))
    picture.SetSpacing(spacing)
    picture.SetOrigin(origin)
    if direction is not None:
        picture.SetDirection(direction)
    sitk.WriteImage(picture, str(path))
    return path


def write_table(path, header, *rows, comma=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(comma.join(map(str, row)) + "\n" for row in (header, *rows)), encoding="utf-8")
    return path


SPHERES = ("image", "x", "y", "z", "diameter_mm")


def one_box(folder, *row, header=SPHERES, options=None, **scan):
    """The only finding of a data set of one scan, as its case and as it is loaded."""
    write_scan(folder / "a.nrrd", **scan)
    write_table(folder / "boxes.csv", header, ("a.nrrd", *row))
    dataset = open_dataset(folder / "boxes.csv", options=options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, reference = load_case(dataset.cases[0], dataset)
    assert dataset.task == "detection" and reference.findings == dataset.cases[0].findings
    return dataset, image, reference.findings[0]


# ------------------------------------------------------------------------------------------------------------- frames


def test_a_bright_block_is_where_the_table_says_in_each_frame(tmp_path):
    """Voxels 4 to 6, 9 to 10 and 5 of a scan are bright; four ways to say so."""
    array = np.zeros((20, 16, 12), dtype=np.int16)
    array[4:7, 9:11, 5:6] = 1000
    affine = np.diag([-0.5, -0.75, 2.0, 1.0])
    affine[:3, 3] = [30, -40, 50]
    write_array(array, affine, tmp_path / "a.nrrd", {})
    # The centers of the block's voxels are at x = 28 to 27, y = -46.75 to -47.5, z = 60 (RAS).
    expected = Finding((27.5, -47.125, 60), (1.5, 1.5, 2), "finding", state="reference")
    low_high = ("image", "x_min", "y_min", "z_min", "x_max", "y_max", "z_max")
    center_size = ("image", "x", "y", "z", "size_x", "size_y", "size_z")
    for frame, header, row in (
        ("RAS", center_size, (27.5, -47.125, 60, 1.5, 1.5, 2)),
        ("LPS", center_size, (-27.5, 47.125, 60, 1.5, 1.5, 2)),
        ("RAS", low_high, (26.75, -47.875, 59, 28.25, -46.375, 61)),
        ("LPS", low_high, (-28.25, 46.375, 59, -26.75, 47.875, 61)),
        ("voxel", low_high, (4, 9, 5, 7, 11, 6)),
        ("voxel", center_size, (5, 9.5, 5, 3, 2, 1)),
    ):
        table = write_table(tmp_path / "boxes.csv", header, ("a.nrrd", *row))
        dataset = open_dataset(table, options={"frame": frame})
        (finding,) = dataset.cases[0].findings
        np.testing.assert_allclose((finding.center, finding.size), (expected.center, expected.size), atol=1e-9)
        image, reference = load_case(dataset.cases[0], dataset)
        low, high = (np.round(edge).astype(int) for edge in voxel_edges(reference.findings[0], affine_of(image)))
        assert (low.tolist(), high.tolist()) == ([4, 9, 5], [7, 11, 6])
        inside = image.numpy()[0][tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        assert (inside == 1000).all() and inside.size == (array == 1000).sum()


def test_the_frame_is_said_by_column_comment_option_or_columns_of_luna16(tmp_path):
    _, _, finding = one_box(tmp_path / "1", 1, 2, 3, 4, "LPS", header=(*SPHERES, "frame"))
    assert finding.center == (-1, -2, 3)
    _, _, finding = one_box(tmp_path / "2", 1, 2, 3, 4, header=("# frame: RAS\n\nimage", *SPHERES[1:]))
    assert finding.center == (1, 2, 3)
    _, _, finding = one_box(tmp_path / "3", 1, 2, 3, 4, options={"frame": "lps"})
    assert finding.center == (-1, -2, 3)
    header = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
    _, _, finding = one_box(tmp_path / "4", 1, 2, 3, 4, header=header)
    assert finding.center == (-1, -2, 3) and finding.label == "nodule" and finding.diameter_mm == 4
    refused("frame", "LPS", "voxel", call=one_box, arguments=[tmp_path / "5", 1, 2, 3, 4])
    refused("'ITK'", "LPS, RAS", call=one_box, arguments=[tmp_path / "5", 1, 2, 3, 4], options={"frame": "ITK"})
    refused("line 2", "LPS, RAS", call=one_box, arguments=[tmp_path / "6", 1, 2, 3, 4, "a"], header=(*SPHERES, "frame"))


def test_real_nodules_lie_in_their_masks(shared_data, tmp_path):
    """Centers of LIDC nodules, LPS in their table, against the masks, RAS in their files."""
    root = shared_data("lidc_nodules")
    # The one that is left out lies beside its own crop.
    rows = [row for row in csv.DictReader((root / "nodules.csv").open()) if row["file"] != "LIDC-IDRI-0332_R_1.nii.gz"]
    columns = ("file", "coordX", "coordY", "coordZ", "diameter_mm")
    write_table(tmp_path / "boxes.csv", columns, *([row[key] for key in columns] for row in rows[::10]))
    dataset = open_dataset(tmp_path / "boxes.csv", options={"image_folder": str(root / "image")})
    apart = {}
    for case in dataset.cases:
        mask = read_image(root / "mask" / case.images[0].name)
        middle = np.array(center_of_mass(mask.numpy()[0] > 0))
        affine = affine_of(mask)
        apart[case.name] = np.abs(np.linalg.inv(affine[:3, :3]) @ (case.findings[0].center - affine[:3, 3]) - middle)
    assert len(apart) == 81
    assert (apart["LIDC-IDRI-0004_R_1"] < 0.5).all()  # a known nodule
    assert np.median(list(apart.values())) < 0.2 and np.mean([(d < 0.5).all() for d in apart.values()]) > 0.8
    refused("outside", "frame", arguments=[tmp_path / "boxes.csv"],
            options={"image_folder": str(root / "image"), "frame": "RAS"})  # fmt: skip


def test_spheres_of_an_oblique_scan_keep_their_diameter(tmp_path):
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.5, 2, 1])
    center, size = box_after((0, 0, 0), (6, 6, 6), affine)
    inner, outer = box_after((0, 0, 0), (6, 6, 6), np.linalg.inv(affine))
    np.testing.assert_allclose(outer, (12, 3, 6))
    # An ellipse with the half axes 1.5 and 6, turned by 30°: half width √(1.5² cos² + 6² sin²).
    np.testing.assert_allclose(size[:2] / 2, np.sqrt([1.5**2 * 0.75 + 9, 1.5**2 * 0.25 + 27]))
    _, image, finding = one_box(
        tmp_path, 2, 1, 0, 6, options={"frame": "LPS"}, spacing=(0.5, 2, 1), origin=(-5, -20, -8),
        direction=turn.ravel().tolist(), shape=(40, 30, 20),
    )  # fmt: skip
    np.testing.assert_allclose((finding.center, finding.size), ((-2, -1, 0), (6, 6, 6)))


# ------------------------------------------------------------------------------------------- partly outside, too small


def test_what_reaches_out_of_a_scan_is_cut_off_and_listed(tmp_path):
    # The scan's last voxel along x is at 9 (LPS); its edge at 9.5.
    dataset, image, finding = one_box(tmp_path, 8.5, 0, 0, 6, options={"frame": "LPS"})
    np.testing.assert_allclose((finding.center, finding.size), ((-7.5, 0, 0), (4, 6, 6)))
    assert finding.diameter_mm == 6
    assert dataset.source["notes"] == (
        "1 finding(s) reach out of their scan and are cut off at its edge (a finding 1).",
    )
    low, high = voxel_edges(finding, affine_of(image))
    assert low[0] == pytest.approx(16) and high[0] == pytest.approx(20)


def test_what_is_smaller_than_a_voxel_gets_one(tmp_path):
    # Slices of 2 mm, voxels of 1 mm.
    dataset, image, finding = one_box(tmp_path, 0, 0, 0, 0.8, options={"frame": "LPS"})
    np.testing.assert_allclose((finding.center, finding.size), ((0, 0, 0), (1, 1, 2)))
    assert finding.diameter_mm == 0.8
    assert "a finding 1" in dataset.source["notes"][0] and "one voxel" in dataset.source["notes"][0]
    # At the edge it stays inside, and a box without thickness is one of a voxel.
    header = ("image", "x_min", "y_min", "z_min", "x_max", "y_max", "z_max")
    _, image, finding = one_box(tmp_path, -3, -3, 10.5, 3, 3, 10.5, header=header, options={"frame": "LPS"})
    low, high = voxel_edges(finding, affine_of(image))
    np.testing.assert_allclose((low, high), ((7.5, 5.5, 11), (13.5, 11.5, 12)))


def test_fitting_twice_changes_nothing():
    affine = np.diag([-0.7, -0.7, 1.25, 1.0])
    findings = [finding_of_sphere(center, 3, "a") for center in NOISE.uniform((-17, -17, -3), (3, 3, 28), (200, 3))]
    once = fit_findings(findings, (20, 20, 20), affine)
    assert once.clipped and once.outside
    again = fit_findings(once.findings, (20, 20, 20), affine)
    assert again.findings == once.findings and not (again.clipped or again.widened or again.outside)


def test_what_lies_wholly_outside_is_refused_with_a_list(tmp_path):
    write_scan(tmp_path / "a.nrrd")
    table = write_table(tmp_path / "b.csv", SPHERES, ("a", 0, 0, 0, 4), ("a", 60, 0, 0, 4), ("a", 0, 99, 0, 4))
    refused("2 finding(s)", "a finding 2, a finding 3", "dataset.frame", arguments=[table], options={"frame": "LPS"})


def test_dicom_scans_are_looked_at_when_they_are_loaded(tmp_path):
    write_series(tmp_path / "images" / "ct", [(-10, -20, 2.0 * k) for k in range(4)])
    image = read_image(tmp_path / "images" / "ct")
    affine = affine_of(image)
    corner = affine[:3, 3]
    write_table(tmp_path / "findings.csv", (*SPHERES, "frame"), ("ct", *corner, 4, "RAS"))
    dataset = open_dataset(tmp_path)
    assert dataset.source["kind"] == "box-list" and dataset.source["notes"] == ()
    with pytest.warns(GeometryWarning, match="cut off"):
        image, reference = load_case(dataset.cases[0], dataset)
    assert any("cut off" in note for note in image.meta["notes"])
    low, _ = voxel_edges(reference.findings[0], affine)
    np.testing.assert_allclose(low, 0, atol=1e-6)
    write_table(tmp_path / "findings.csv", (*SPHERES, "frame"), ("ct", *(corner + 500), 4, "RAS"))
    dataset = open_dataset(tmp_path)
    refused("ct finding 1", call=load_case, arguments=[dataset.cases[0], dataset])


# ------------------------------------------------------------------------------------------------ tables as they come


@pytest.mark.parametrize("comma", [";", "\t"])
def test_decimal_commas_are_read_where_cells_are_separated_otherwise(tmp_path, comma):
    write_scan(tmp_path / "a.nrrd")
    table = write_table(tmp_path / "b.csv", SPHERES, ("a", "1,5", "-2,25", "0", "4,5"), comma=comma)
    (finding,) = open_dataset(table, options={"frame": "RAS"}).cases[0].findings
    assert finding.center == (1.5, -2.25, 0) and finding.diameter_mm == 4.5


def test_decimal_commas_between_commas_are_refused(tmp_path):
    write_scan(tmp_path / "a.nrrd")
    table = write_table(tmp_path / "b.csv", SPHERES, ("a", 1, 2, 3, 4), ("a", "1,5", "-2,25", "0", "4,5"))
    refused("commas for decimals", "semicolons", "line 3", arguments=[table], options={"frame": "RAS"})


def test_names_of_columns(tmp_path):
    for number, (header, row) in enumerate(
        (
            (("Filename", "Center_X_mm", "Center_Y_mm", "Center_Z_mm", "Radius [mm]"), (1, 2, 0, 2)),
            (("scan", "cx", "cy", "cz", "w", "h", "d"), (1, 2, 0, 4, 4, 4)),
            (("path", "x1", "y1", "z1", "x2", "y2", "z2"), (-1, 0, -2, 3, 4, 2)),
            (("image", "x0", "y0", "z0", "x1", "y1", "z1"), (-1, 0, -2, 3, 4, 2)),
            (
                ("image", "bboxLowX", "bboxLowY", "bboxLowZ", "bboxHighX", "bboxHighY", "bboxHighZ"),
                (-1, 0, -2, 3, 4, 2),
            ),
        )
    ):
        _, _, finding = one_box(tmp_path / str(number), *row, header=header, options={"frame": "RAS"})
        assert (finding.center, finding.size) == ((1, 2, 0), (4, 4, 4))
    write_scan(tmp_path / "a.nrrd")
    table = write_table(tmp_path / "b.csv", ("image", "x", "y", "z"), ("a", 1, 2, 3))
    refused("diameter_mm", "x, y, z", arguments=[table], kind="box-list", options={"frame": "RAS"})
    table = write_table(tmp_path / "b.csv", ("where", "x", "y", "z", "diameter_mm"), ("a", 1, 2, 3, 4))
    refused("where", "dataset.image_column", arguments=[table], kind="box-list", options={"frame": "RAS"})
    assert open_dataset(table, kind="box-list", options={"frame": "RAS", "image_column": "where"}).findings


def test_all_rows_that_are_wrong_are_listed(tmp_path):
    write_scan(tmp_path / "a.nrrd")
    table = write_table(
        tmp_path / "b.csv", (*SPHERES, "score"), ("a", 1, 2, 3, 4, ""), ("a", 1, 2, 3, -4, ""), ("a", 1, 2, 3, 0, ""),
        ("a", "?", 2, 3, 4, ""), ("a", 1, "", 3, 4, ""), ("", 1, 2, 3, 4, ""), ("a", 1, 2, 3, 4, 1.5),
        ("a", "nan", 2, 3, 4, 0.5),
    )  # fmt: skip
    refused(
        "2 row(s) with a size or diameter that is zero or negative (line 3, 4)",
        "than a number for a place or a size (line 5, 9)", "without a whole place and size (line 6)",
        "nothing under image (line 7)", "not between 0 and 1 (line 8)", arguments=[table], options={"frame": "RAS"},
    )  # fmt: skip
    header = ("image", "x_min", "y_min", "z_min", "x_max", "y_max", "z_max")
    write_table(table, header, ("a", 1, 2, 3, 4, 5, 6), ("a", 1, 2, 3, 4, 1, 6))
    refused("zero or negative (line 3)", arguments=[table], options={"frame": "RAS"})
    write_table(table, SPHERES, ("a", '"1,5"', 2, 3, 4))
    refused("decimal comma, not a point", "(line 2)", arguments=[table], options={"frame": "RAS"})
    write_table(table, ("image", "x", "y", "diameter_mm"), ("a", 1, 2, 4))
    refused("along z", "(a)", arguments=[table])


def test_all_images_that_are_missing_are_listed(tmp_path):
    write_scan(tmp_path / "a.nrrd")
    rows = [(f"scan_{number:02}", 1, 2, 3, 4) for number in range(14)]
    table = write_table(tmp_path / "b.csv", SPHERES, ("a", 1, 2, 3, 4), *rows, *rows)
    sentence = refused("14 missing image(s)", arguments=[table], options={"frame": "RAS"})
    assert all(f"scan_{number:02}" in sentence for number in range(14))


def test_two_images_of_one_name(tmp_path):
    for folder in ("x", "y"):
        write_scan(tmp_path / folder / "a.nrrd")
    table = write_table(tmp_path / "b.csv", SPHERES, ("a", 1, 2, 3, 4))
    refused("x/a.nrrd, y/a.nrrd", arguments=[table], options={"frame": "RAS"})
    write_table(table, SPHERES, ("x/a.nrrd", 1, 2, 3, 4), ("y/a.nrrd", 1, 2, 3, 4))
    assert [case.name for case in open_dataset(table, options={"frame": "RAS"}).cases] == ["x_a", "y_a"]


def test_scans_without_findings(tmp_path):
    for name in "abcd":
        write_scan(tmp_path / "images" / f"{name}.nrrd")
    table = write_table(
        tmp_path / "findings.csv", (*SPHERES, "frame", "patient"), ("a", 1, 2, 3, 4, "RAS", "p"), ("b", *[""] * 5, "p")
    )
    dataset = open_dataset(tmp_path)  # the folder: all images that it holds
    assert {case.name: len(case.findings) for case in dataset.cases} == {"a": 1, "b": 0, "c": 0, "d": 0}
    assert {case.patient for case in dataset.cases} == {"p", "c", "d"}
    assert "c.nrrd, d.nrrd" in dataset.source["notes"][0]
    assert [case.name for case in open_dataset(table).cases] == ["a", "b"]  # the table: the images that it names
    (tmp_path / "scans.csv").write_text("seriesuid\na\nc\n")
    refused("seriesuids", "line 3", arguments=[tmp_path], options={"seriesuids": "scans.csv"})
    (tmp_path / "scans.csv").write_text("a\nb\nc\n")
    dataset = open_dataset(tmp_path, options={"seriesuids": "scans.csv"})
    assert [case.name for case in dataset.cases] == ["a", "b", "c"]
    image, reference = load_case(dataset.cases[1], dataset)
    assert reference == FindingReference(("finding",), ())


def test_classes_splits_ignored_synthetic_and_what_else_is_known(tmp_path):
    for name in "ab":
        write_scan(tmp_path / f"{name}.nrrd")
    header = (*SPHERES, "class", "split", "ignored", "synthetic", "state", "texture", "source")
    table = write_table(
        tmp_path / "b.csv", header,
        ("a", 1, 2, 3, 4, "nodule", "train", 0, 1, "", "5", "007"),
        ("a", 0, 2, 3, 4, "mass", "train", 1, 0, "", "", ""),
        ("a", 0, 0, 3, 4, "mass", "train", "", "", "rejected", "", ""),
        ("b", 1, 0, 3, 4, "mass", "test", "", "", "corrected", "", ""),
    )  # fmt: skip
    dataset = open_dataset(table, options={"frame": "RAS"})
    a, b = dataset.cases
    assert dataset.findings == ("mass", "nodule")
    assert [(f.label, f.synthetic, f.state, f.about) for f in a.findings] == [
        ("nodule", True, "reference", {"texture": 5.0, "source": "007"})
    ]
    assert [f.label for f in a.ignored] == ["mass"] and not a.ignored[0].synthetic
    assert [f.state for f in b.findings] == ["reference"]
    assert dataset.source["split"] == {"a": "train", "b": "test"}
    options = {"frame": "RAS", "classes": ["nodule", "mass"]}
    assert open_dataset(table, options=options).findings == ("nodule", "mass")
    refused("mass", "dataset.classes", arguments=[table], options=options | {"classes": ["nodule"]})
    refused("training part", "mass", call=make_split, arguments=[dataset], validation=0.0)
    statistics = finding_statistics(dataset)
    assert (statistics.count, statistics.ignored, statistics.synthetic) == (2, 1, 1)
    assert statistics.classes == {"mass": 1, "nodule": 1}


def test_proposals_and_ignored_findings_from_tables_of_their_own(tmp_path):
    write_scan(tmp_path / "a.nrrd")
    table = write_table(tmp_path / "b.csv", SPHERES, ("a", 1, 2, 3, 4))
    write_table(tmp_path / "more.csv", SPHERES, ("a", 0, 0, 0, -1), ("z", 0, 0, 0, 4))
    write_table(tmp_path / "boxes.csv", (*SPHERES[:4],), ("a", 0, 0, 0), ("a", 99, 0, 0))
    options = {"frame": "RAS", "excluded": "more.csv", "proposals": "boxes.csv"}
    dataset = open_dataset(table, options=options)
    _, reference = load_case(dataset.cases[0], dataset)
    assert [f.diameter_mm for f in reference.ignored] == [10]  # as LUNA16's evaluation takes -1
    assert len(dataset.cases[0].proposals) == 2 and len(reference.proposals) == 1  # one lies outside
    assert reference.proposals[0].size == (10, 10, 10)
    assert open_dataset(table, options={"frame": "RAS"}).cases[0].proposals is None
    refused("no.csv", "dataset.proposals", arguments=[table], options=options | {"proposals": "no.csv"})


def test_boxes_of_pictures_are_pixels(tmp_path):
    from PIL import Image

    pixels = np.zeros((30, 40), dtype=np.uint8)
    pixels[5:9, 12:20] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    table = write_table(
        tmp_path / "b.csv", ("path", "x1", "y1", "x2", "y2", "class_name"), ("a.png", 12, 5, 20, 9, "b")
    )
    dataset = open_dataset(table)
    image, reference = load_case(dataset.cases[0], dataset)
    low, high = (np.round(edge).astype(int) for edge in voxel_edges(reference.findings[0], affine_of(image)))
    assert (low.tolist(), high.tolist()) == ([12, 5, 0], [20, 9, 1])
    assert (image.numpy()[0, 12:20, 5:9] == 255).all() and reference.findings[0].label == "b"


# --------------------------------------------------------------------------------------------------------- label maps


def with_label_map(folder, values=(1, 2), shape=(20, 16, 12), shift=0.0):
    image = read_image(write_scan(folder / "images" / "a.nrrd", shape=shape))
    labels = np.zeros(shape, dtype=np.uint8)
    labels[3:6, 3:6, 3:5], labels[10:14, 8:12, 6:9] = values
    affine = affine_of(image).copy()
    affine[0, 3] += shift
    (folder / "labels").mkdir(exist_ok=True)
    write_array(labels, affine, folder / "labels" / "a.nii.gz", {})
    header = ("image", "x_min", "y_min", "z_min", "x_max", "y_max", "z_max", "frame")
    write_table(folder / "findings.csv", header, ("a", 3, 3, 3, 6, 6, 5, "voxel"), ("a", 10, 8, 6, 14, 12, 9, "voxel"))
    return labels


def test_a_label_map_numbers_the_findings(tmp_path):
    labels = with_label_map(tmp_path)
    dataset = open_dataset(tmp_path)
    image, reference = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(reference.instances, labels)
    # A fingerprint is measured on its voxels.
    assert fingerprint(dataset, dataset.cases).cases[0].labels == {"finding": int((labels > 0).sum())}
    with_label_map(tmp_path, values=(2, 1))
    refused("Label 1", "beside", call=load_case, arguments=[dataset.cases[0], dataset])
    with_label_map(tmp_path, values=(1, 3))
    refused("up to 3", call=load_case, arguments=[dataset.cases[0], dataset])
    with_label_map(tmp_path, shift=5.0)
    refused("not in the same place", call=load_case, arguments=[dataset.cases[0], dataset])


def test_what_is_written_is_a_data_set(tmp_path):
    """What the panels export: images and one table."""
    (tmp_path / "images").mkdir()
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    for name in "ab":
        write_image(make_image(NOISE.normal(size=(1, 20, 20, 10)), affine), tmp_path / "images" / f"{name}.nrrd")
    findings = (
        Finding((-5, -6, 7), (4, 5, 6), "nodule", 0.9, state="accepted", synthetic=True),
        Finding((-9, -9, 9), (4, 5, 6), "mass", 0.8, state="rejected"),
        Finding((-12, -9, 9), (4, 5, 6), "nodule", 0.1),
    )
    results = {"a.nrrd": Detections(("nodule", "mass"), findings, 0.5), "b.nrrd": Detections(("nodule",), (), 0.5)}
    write_finding_table(results, tmp_path / "findings.csv")
    dataset = open_dataset(tmp_path)
    assert dataset.source["kind"] == "box-list" and dataset.findings == ("nodule",)
    (finding,) = dataset.cases[0].findings
    assert finding.center == (-5, -6, 7) and finding.synthetic and dataset.cases[1].findings == ()


# ------------------------------------------------------------------------------------------------------------- LUNA16


LUNA = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")


def write_luna(folder, subsets=10, scans=10, tables="."):
    """LUNA16 in small: a scan a subset, nodules in all but the last; returns the scans."""
    for number in range(min(scans, subsets)):
        write_scan(folder / f"subset{number}" / f"{UIDS[number]}.mhd")
    place = folder / tables
    place.mkdir(parents=True, exist_ok=True)
    write_table(place / "annotations.csv", LUNA, *((uid, -5.5, 2, 4, 6) for uid in UIDS[: scans - 1]))
    write_table(
        place / "annotations_excluded.csv",
        LUNA,
        (UIDS[0], 3, 3, 0, -1),
        (UIDS[0], 3, 2, 0, 7.5),
        (UIDS[1], 0, 0, 0, -1),
    )
    (place / "seriesuids.csv").write_text("\n".join(UIDS[:scans]) + "\n")
    candidates = [(uid, 1, 1, 1, 0) for uid in UIDS[:scans]] + [(UIDS[0], -5.5, 2, 4, 1)]
    write_table(place / "candidates.csv", (*LUNA[:4], "class"), *candidates)
    return UIDS[:scans]


def test_luna16_as_it_is_distributed(tmp_path):
    uids = write_luna(tmp_path)
    dataset = open_dataset(tmp_path)
    assert (dataset.source["kind"], dataset.findings, dataset.channels) == ("luna16", ("nodule",), ("CT",))
    assert [case.name for case in dataset.cases] == uids == [case.patient for case in dataset.cases]
    assert dataset.source["folds"] == {uid: number for number, uid in enumerate(uids)}
    first = dataset.cases[0]
    assert [finding.center for finding in first.findings] == [(5.5, -2, 4)]
    assert [finding.diameter_mm for finding in first.ignored] == [10, 7.5]
    assert dataset.cases[-1].findings == () and first.proposals is None
    image, reference = load_case(first, dataset)
    # The header's origin (-10, -8, -12), spacing (1, 1, 2), LPS: voxel (4.5, 10, 8), with edges 3 mm to each side.
    low, high = voxel_edges(reference.findings[0], affine_of(image))
    np.testing.assert_allclose((low, high), ((2, 7.5, 7), (8, 13.5, 10)))
    assert all("LUNA16's has 88 or 89" in note for note in dataset.source["notes"])


@pytest.mark.parametrize("place", ["CSVFILES", "evaluationScript/annotations"])
def test_tables_of_luna16_where_they_are_unpacked(tmp_path, place):
    write_luna(tmp_path, subsets=2, scans=2, tables=place)
    assert len(open_dataset(tmp_path).cases) == 2


def test_candidates_are_proposals(tmp_path):
    write_luna(tmp_path, subsets=3)
    dataset = open_dataset(tmp_path, options={"candidates": True})
    assert [len(case.proposals) for case in dataset.cases] == [2, 1, 1]
    assert [box.about["class"] for box in dataset.cases[0].proposals] == [0, 1]
    assert dataset.cases[0].proposals[1].center == (5.5, -2, 4)
    assert dataset.findings == ("nodule",)
    refused("no.csv", arguments=[tmp_path], options={"candidates": "no.csv"})


def test_some_subsets_of_luna16(tmp_path):
    uids = write_luna(tmp_path, subsets=4)
    dataset = open_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == uids[:4]
    note = dataset.source["notes"][0]
    assert "6 scan(s)" in note and "5 nodule(s)" in note and all(uid in note for uid in uids[4:])
    dataset = open_dataset(tmp_path, options={"subsets": [1, "subset3"]})
    assert [case.name for case in dataset.cases] == [uids[1], uids[3]]
    refused("subset7", "subset0, subset1", arguments=[tmp_path], options={"subsets": [1, 7]})
    refused("'one'", arguments=[tmp_path], options={"subsets": ["one"]})


def test_scans_of_luna16_that_are_missing_are_listed_at_once(tmp_path):
    uids = write_luna(tmp_path)
    for number in (2, 5):
        for ending in ("mhd", "raw"):
            (tmp_path / f"subset{number}" / f"{uids[number]}.{ending}").unlink()
    refused("2 scan(s)", uids[2], uids[5], "seriesuids.csv", arguments=[tmp_path])
    (tmp_path / "seriesuids.csv").unlink()
    refused("2 scan(s)", uids[2], uids[5], "annotations.csv", arguments=[tmp_path])


def test_voxels_of_luna16_that_are_missing(tmp_path):
    uids = write_luna(tmp_path, subsets=3, scans=3)
    (tmp_path / "subset1" / f"{uids[1]}.raw").unlink()
    refused("voxels (.raw) are missing", f"subset1/{uids[1]}.raw", arguments=[tmp_path])


def test_tables_of_luna16_that_do_not_belong_together(tmp_path):
    uids = write_luna(tmp_path, subsets=3, scans=3)
    (tmp_path / "seriesuids.csv").write_text(f"{uids[0]}\n")
    refused("1 scan(s)", uids[1], "seriesuids.csv", arguments=[tmp_path])
    (tmp_path / "seriesuids.csv").write_text(f"{uids[0]}\n{uids[1]}\n")
    dataset = open_dataset(tmp_path)  # the third has no nodule: it is only not in the list
    assert len(dataset.cases) == 2 and uids[2] in dataset.source["notes"][0]
    write_scan(tmp_path / "subset0" / f"{uids[1]}.mhd")
    refused("lie in two places", uids[1], arguments=[tmp_path])
    (tmp_path / "annotations.csv").unlink()
    refused("annotations.csv", arguments=[tmp_path])


def test_folds_of_luna16(tmp_path):
    uids = write_luna(tmp_path)
    dataset = open_dataset(tmp_path, options={"fold": 3})
    split = make_split(dataset, validation=0.2, seed=1)
    assert split.test == (uids[3],) and len(split.validation) == 2 and len(split.train) == 7
    refused("dataset.fold", arguments=[tmp_path], options={"fold": 11})
    patients = {case.name: case.patient for case in dataset.cases}
    assert given_folds(dataset.source["folds"], patients, 10) == tuple((uid,) for uid in uids)
    assert given_folds(dataset.source["folds"], patients, 5) is None
    assert given_folds({}, patients, 10) is None
    # A patient in two subsets stays together.
    patients[uids[7]] = patients[uids[2]]
    assert given_folds(dataset.source["folds"], patients, 9)[2] == (uids[2], uids[7])


def test_luna16_whole_opens_in_seconds(shared_data, tmp_path):
    """The real tables over 888 headers in ten subsets."""
    source = shared_data("luna16")
    uids = (source / "seriesuids.csv").read_text().split()
    for name in ("annotations.csv", "annotations_excluded.csv", "seriesuids.csv"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    rows = list(csv.DictReader((source / "annotations.csv").open()))
    centers = {}
    for row in rows:
        centers.setdefault(row["seriesuid"], []).append([float(row[f"coord{axis}"]) for axis in "XYZ"])
    for number, uid in enumerate(uids):
        folder = tmp_path / f"subset{number % 10}"
        folder.mkdir(exist_ok=True)
        low, high = np.min(centers.get(uid, [[0] * 3]), axis=0) - 50, np.max(centers.get(uid, [[0] * 3]), axis=0) + 50
        (folder / f"{uid}.mhd").write_text(
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
            f"Offset = {low[0]} {low[1]} {low[2]}\nElementSpacing = 0.7 0.7 1.25\n"
            f"DimSize = {' '.join(str(int(n)) for n in np.ceil((high - low) / [0.7, 0.7, 1.25]))}\n"
            f"ElementType = MET_SHORT\nElementDataFile = {uid}.raw\n"
        )
        (folder / f"{uid}.raw").touch()
    start = time.perf_counter()
    dataset = open_dataset(tmp_path)
    assert time.perf_counter() - start < 20
    assert len(dataset.cases) == 888 and dataset.source["notes"] == ()
    statistics = finding_statistics(dataset)
    # As LUNA16 says: 1,186 nodules in 601 scans, of 3.25 to 32.27 mm.
    assert statistics.count == 1186 and sum(n > 0 for n in statistics.per_scan) == 601
    assert statistics.diameters.min() == pytest.approx(3.2533, abs=1e-3)
    assert statistics.diameters.max() == pytest.approx(32.2700, abs=1e-3)
    assert statistics.ignored == 35192
    told = statistics.to_dict()
    assert told["scans"] == 888 and told["diameter in mm"]["median"] == pytest.approx(6.434, abs=1e-3)


# ------------------------------------------------------------------------------------------ splits, duplicates, reports


def many(folder, with_finding=12, without=8):
    for number in range(with_finding + without):
        write_scan(folder / "images" / f"{number:02}.nrrd", shape=(8, 8, 8), origin=(0, 0, 0))
    header = (*SPHERES, "frame", "patient")
    rows = [(f"{n:02}", 3, 3, 3 + 0.1 * n, 3 + 0.1 * n, "LPS", f"p{n // 2}") for n in range(with_finding)]
    rows += [(f"{n:02}", *[""] * 5, f"p{n // 2}") for n in range(with_finding, with_finding + without)]
    write_table(folder / "findings.csv", header, *rows)
    return folder


def test_parts_hold_their_share_of_scans_with_findings(tmp_path):
    dataset = open_dataset(many(tmp_path))
    split = make_split(dataset, validation=0.2, test=0.2, seed=42)
    having = {case.name for case in dataset.cases if case.findings}
    assert [len(part) for part in (split.train, split.validation, split.test)] == [12, 4, 4]
    for part in (split.validation, split.test):
        assert 0 < len(having & set(part)) < len(part)
    patient = {case.name: case.patient for case in dataset.cases}
    parts = [{patient[name] for name in part} for part in (split.train, split.validation, split.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert split == make_split(dataset, validation=0.2, test=0.2, seed=42)


def test_the_same_scan_twice_stays_together_and_must_agree(tmp_path):
    many(tmp_path)
    copied = read_image(tmp_path / "images" / "00.nrrd")
    write_image(copied, tmp_path / "images" / "19.nii.gz")
    (tmp_path / "images" / "19.nrrd").unlink()
    dataset = open_dataset(tmp_path)
    same = [case for case in dataset.cases if case.name in ("00", "19")]
    assert content_hash(same[0]) == content_hash(same[1])
    refused("00 (1 finding) = 19 (no finding)", call=make_split, arguments=[dataset], validation=0.0)
    text = (tmp_path / "findings.csv").read_text().splitlines()
    text[20] = "19,3,3,3,3,LPS,p9"
    (tmp_path / "findings.csv").write_text("\n".join(text))
    split = make_split(open_dataset(tmp_path), validation=0.3, seed=3)
    assert any({"00", "19"} <= set(part) for part in (split.train, split.validation))


def test_a_set_without_any_finding(tmp_path):
    write_scan(tmp_path / "a.nrrd")
    table = write_table(tmp_path / "b.csv", SPHERES, ("a", "", "", "", ""))
    refused("no finding", "dataset.classes", arguments=[table])
    dataset = open_dataset(table, options={"classes": ["nodule"]})
    refused("no case of nodule", call=make_split, arguments=[dataset], validation=0.0)
    assert finding_statistics(dataset).to_dict()["findings"] == 0


def test_report_and_fingerprint(tmp_path):
    many(tmp_path, with_finding=5, without=3)
    report = measure_dataset(tmp_path)
    assert (report.cases, report.patients, report.classes) == (8, 4, {"finding": 5})
    assert report.per_scan == [1] * 5 + [0] * 3 and report.findings == pytest.approx([3, 3.1, 3.2, 3.3, 3.4])
    for text in (
        "5 in 8 scans, 3 of which have none",
        "Diameter, mm",
        "No problems found",
        "median 3.2 (from 3 to 3.4)",
    ):
        assert text in report.html
    dataset = open_dataset(tmp_path)
    measured = fingerprint(dataset, dataset.cases)
    # Spheres of 3 to 3.4 mm in voxels of 1×1×2 mm hold about their volume.
    voxels = sum(case.labels["finding"] for case in measured.cases) * 2
    assert voxels == pytest.approx(sum(np.pi / 6 * d**3 for d in report.findings), rel=0.35)
    assert [case.labels["finding"] for case in measured.cases][5:] == [0, 0, 0]
