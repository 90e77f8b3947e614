"""LIDC-IDRI: its XML, what the readers drew, which of it is one nodule, and where that lies."""

import csv

import numpy as np
import pytest
from lidc_files import ORIGIN, PATIENT, PIXEL, box_nodule, nodule, other, rectangle, roi, write_reading, write_scan
from MedMapAILib.datasets import open_dataset
from MedMapAILib.datasets.dicom_grid import read_header, series_grid
from MedMapAILib.datasets.instances import bounds_of_mask, equivalent_diameter, instances_of
from MedMapAILib.datasets.lidc import open_lidc
from MedMapAILib.datasets.lidc_nodules import interior, nodules_of
from MedMapAILib.datasets.lidc_xml import Contour, read_reading
from MedMapAILib.errors import InputError
from MedMapAILib.image import affine_of, read_image

HEIGHTS = [-100.0, -97.5, -95.0, -92.5, -90.0]
MIDDLE = HEIGHTS[1:4]
BOX = (10, 20, 19, 27)  # 10 columns, 8 rows


def ras(x, y, z):
    """The place in the patient of a pixel in the slice at z."""
    return (-(ORIGIN[0] + PIXEL * x), -(ORIGIN[1] + PIXEL * y), z)


def one_scan(folder, readers, heights=HEIGHTS, name="LIDC-IDRI-0001", **options):
    """A data set of one scan. readers: a function of height → SOPInstanceUID that gives the marks of each reader."""
    series, instances = write_scan(folder / name, heights)
    write_reading(folder / name / "069.xml", series, readers(instances))
    return open_lidc(folder, options=options)


def refused(*words, call):
    with pytest.raises(InputError) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence and PATIENT not in sentence
    for word in words:
        assert word in sentence, sentence
    return sentence


# --------------------------------------------------------------------------------------------------- one nodule


def test_the_line_lies_just_outside_of_the_nodule():
    contour = Contour(0.0, "", np.array(rectangle(*BOX)))
    inside = interior(contour, (48, 40))
    expected = np.zeros((48, 40), dtype=bool)
    expected[10:20, 20:28] = True
    np.testing.assert_array_equal(inside, expected)
    # Corners alone are enough, and it plays no part in which direction they come.
    corners = np.array([(9, 19), (9, 28), (20, 28), (20, 19)])
    for points in (corners, corners[::-1]):
        np.testing.assert_array_equal(interior(Contour(0.0, "", points), (48, 40)), expected)


def test_a_nodule_is_where_it_was_drawn(tmp_path):
    dataset = one_scan(tmp_path, lambda uid: [[box_nodule("1", BOX, MIDDLE, uid, ratings=4)]] * 4)
    (case,) = dataset.cases
    (finding,) = case.findings
    assert (dataset.findings, dataset.task, case.name, case.patient) == (
        ("nodule",), "detection", "LIDC-IDRI-0001", "LIDC-IDRI-0001",
    )  # fmt: skip
    assert case.ignored == () and finding.state == "reference" and finding.label == "nodule"
    # Pixels 10 to 19 and 20 to 27, whole, in slices of 2.5 mm: between their outer edges.
    np.testing.assert_allclose(finding.center, ras(14.5, 23.5, -95.0), atol=1e-9)
    np.testing.assert_allclose(finding.size, (10 * PIXEL, 8 * PIXEL, 3 * 2.5), atol=1e-9)
    volume = 10 * 8 * 3 * PIXEL**2 * 2.5
    assert finding.diameter_mm == pytest.approx((6 * volume / np.pi) ** (1 / 3))
    assert finding.volume_ml == pytest.approx(volume / 1000)
    about = finding.about
    assert (about["readers"], about["of_readers"]) == (4, 4)
    assert about["ratings"]["malignancy"] == about["ratings"]["internalStructure"] == [4] * 4
    assert about["largest_axial_mm"] == pytest.approx(PIXEL * np.hypot(10, 8), abs=1e-4)
    np.testing.assert_allclose(about["centroid"], ras(14.5, 23.5, -95.0), atol=1e-4)
    # On the grid of the image as it is read.
    image = read_image(case.images[0])
    expected = np.zeros(image.shape[1:], dtype=np.int16)
    expected[10:20, 20:28, 1:4] = 1
    np.testing.assert_array_equal(instances_of(case.findings, image), expected)


def test_a_hole_is_cut_out_up_to_its_line(tmp_path):
    hole = (13, 22, 15, 24)

    def marks(uid):
        rois = [roi(-95.0, rectangle(*hole), uid[-95.0], included=False), roi(-95.0, rectangle(*BOX), uid[-95.0])]
        return [[nodule("1", *rois, ratings=1)]] * 2

    (finding,) = one_scan(tmp_path, marks).cases[0].findings
    assert finding.mask.values.sum() == 80 - 9
    assert not finding.mask.values[3:6, 2:5].any()


def test_slices_from_feet_to_head_and_back_and_lying_obliquely(tmp_path):
    def marks(uid):
        return [[box_nodule("1", BOX, MIDDLE, uid)]]

    forth = one_scan(tmp_path / "a", marks).cases[0].findings[0]
    back = one_scan(tmp_path / "b", marks, heights=HEIGHTS[::-1]).cases[0].findings[0]
    assert forth.bounds == back.bounds
    # Rows turned by 30 degrees about the long axis of the body.
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    series, instances = write_scan(tmp_path / "c", HEIGHTS, orientation=(c, s, 0, -s, c, 0))
    write_reading(tmp_path / "c" / "1.xml", series, marks(instances))
    (case,) = open_lidc(tmp_path / "c").cases
    (turned,) = case.findings
    image = read_image(tmp_path / "c")
    low, high = bounds_of_mask(instances_of(case.findings, image) == 1, affine_of(image))
    np.testing.assert_allclose(turned.bounds, (*low, *high), atol=1e-9)
    # The corners of the drawn rectangle decide, not those of its pixels' centers.
    np.testing.assert_allclose(turned.size[:2], (10 * PIXEL * c + 8 * PIXEL * s, 10 * PIXEL * s + 8 * PIXEL * c))
    assert turned.volume_ml == pytest.approx(forth.volume_ml)


def test_an_outline_round_no_voxel_is_taken_as_its_line(tmp_path):
    points = [(10, 10), (11, 10), (11, 11), (10, 11)]
    dataset = one_scan(tmp_path, lambda uid: [[nodule("1", roi(-95.0, points, uid[-95.0]), ratings=2)]])
    (finding,) = dataset.cases[0].findings
    assert finding.mask.values.shape == (2, 2, 1) and finding.mask.values.all()
    assert any("go round no voxel" in note for note in dataset.source["notes"])


# ---------------------------------------------------------------------------------------------------- several readers


def shifted(box, x):
    return (box[0] + x, box[1], box[2] + x, box[3])


def test_the_consensus_is_what_half_of_those_who_outlined_it_drew(tmp_path):
    def marks(uid):
        return [[box_nodule("1", shifted(BOX, x), [-95.0], uid, ratings=x + 1)] for x in (0, 1, 2, 3)]

    def columns(part, readers=marks):
        (finding,) = one_scan(tmp_path / f"{part}", readers, consensus=part).cases[0].findings
        return [round((-x - ORIGIN[0]) / PIXEL) for x in (finding.bounds[3] - 0.25, finding.bounds[0] + 0.25)]

    # Columns 10-19, 11-20, 12-21, 13-22: two at least have 11 to 21 in common, three 12 to 20, all 13 to 19.
    assert columns(0.5) == [11, 21]
    assert columns(0.75) == [12, 20]
    assert columns(1.0) == [13, 19]


def test_who_saw_it_decides_whether_it_counts(tmp_path):
    far = (30, 5, 36, 9)

    def marks(uid):
        both = [box_nodule("1", BOX, MIDDLE, uid), box_nodule("2", far, [-95.0], uid)]
        return [both, both, [box_nodule("3", BOX, MIDDLE, uid)], []]

    def counted(part):
        case = one_scan(tmp_path / f"{part}", marks, consensus=part).cases[0]
        return [f.about["readers"] for f in case.findings], [f.about["readers"] for f in case.ignored]

    assert counted(0.5) == ([3, 2], [])
    assert counted(0.75) == ([3], [2])
    assert counted(1.0) == ([], [3, 2])


def test_neighbors_of_one_reader_stay_apart_where_another_drew_both(tmp_path):
    left, right = (10, 20, 14, 27), (18, 20, 22, 27)  # their lines are 1.0 mm apart, slices 2.5 mm

    def marks(uid):
        return [[box_nodule("1", left, [-95.0], uid), box_nodule("2", right, [-95.0], uid)]] * 3

    case = one_scan(tmp_path, marks).cases[0]
    assert [finding.about["readers"] for finding in case.findings] == [3, 3]
    np.testing.assert_allclose(case.findings[0].center, ras(12, 23.5, -95.0))
    np.testing.assert_allclose(case.findings[1].center, ras(20, 23.5, -95.0))


def test_an_outline_inside_of_another_is_of_the_same_nodule(tmp_path):
    def marks(uid):
        return [[box_nodule("1", (5, 5, 40, 35), MIDDLE, uid)], [box_nodule("1", (20, 15, 24, 19), [-95.0], uid)]]

    (finding,) = one_scan(tmp_path, marks).cases[0].findings
    assert finding.about["readers"] == 2 and finding.mask.values.sum() == 36 * 31 * 3


def test_marks_are_ignored_once(tmp_path):
    def marks(uid):
        small = nodule("4", roi(-95.0, [(30, 10)], uid[-95.0]))
        return [
            [small, other("5", -90.0, (5, 5), uid[-90.0])],
            [nodule("4", roi(-95.0, [(32, 10)], uid[-95.0]))],
            [other("7", -95.0, (31, 10), uid[-95.0])],
            [box_nodule("1", BOX, MIDDLE, uid)],
        ]

    case = one_scan(tmp_path, marks).cases[0]
    assert case.findings == ()
    drawn, small, apart = case.ignored
    assert drawn.about["readers"] == 1 and drawn.mask is not None
    assert small.about["kind"] == "nodule < 3 mm, non-nodule" and small.about["readers"] == 3
    np.testing.assert_allclose(small.center, ras(31, 10, -95.0))
    assert small.size == (10, 10, 10) and small.mask is None
    assert apart.about["kind"] == "non-nodule" and apart.about["readers"] == 1
    np.testing.assert_allclose(apart.center, ras(5, 5, -90.0))


# ------------------------------------------------------------------------------------------------------------ files


def test_the_folder_as_it_is_distributed(tmp_path):
    root = tmp_path / "LIDC-IDRI"
    expected = {}
    for patient, scan in (("0001", "a"), ("0002", "b"), ("0002", "c")):
        folder = root / f"LIDC-IDRI-{patient}" / f"01-01-2000-{scan}" / f"{scan}-3000566"
        series, uid = write_scan(folder, HEIGHTS, names="1-{:03}.dcm")
        write_reading(folder / "069.xml", series, [[box_nodule("1", BOX, MIDDLE, uid)]] * 4)
        expected[series] = f"LIDC-IDRI-{patient}"
    # Patients have chest X-rays too, with a reading of another kind; and a CT that nobody has read.
    series, _ = write_scan(root / "LIDC-IDRI-0001" / "x" / "y", HEIGHTS[:1], modality="DX")
    write_reading(root / "LIDC-IDRI-0001" / "x" / "y" / "070.xml", series, [[]], root="IdriReadMessage")
    write_scan(root / "LIDC-IDRI-0003" / "s" / "unread", HEIGHTS)
    write_reading(root / "LIDC-IDRI-0004" / "s" / "t" / "071.xml", "1.2.3.4", [[]])
    dataset = open_dataset(root)
    assert dataset.source["kind"] == "lidc"
    assert {dataset.source["series"][case.name]: case.patient for case in dataset.cases} == expected
    names = [case.name for case in dataset.cases]
    assert names[0] == "LIDC-IDRI-0001" and len(set(names)) == 3 and all("LIDC-IDRI-0002_" in n for n in names[1:])
    notes = " ".join(dataset.source["notes"])
    assert "1 CT series have no reading and are left out (unread)" in notes
    assert "1 readings are of scans that are not there (071.xml)" in notes


def test_readings_in_a_folder_of_their_own(tmp_path):
    series, uid = write_scan(tmp_path / "images" / "LIDC-IDRI-0009", HEIGHTS)
    write_reading(tmp_path / "tcia-lidc-xml" / "157" / "158.xml", series, [[box_nodule("1", BOX, MIDDLE, uid)]])
    refused("holds no reading", "dataset.annotations", call=lambda: open_lidc(tmp_path / "images"))
    dataset = open_lidc(tmp_path / "images", options={"annotations": "../tcia-lidc-xml"})
    assert [case.patient for case in dataset.cases] == ["LIDC-IDRI-0009"]
    missing = {"annotations": "../nowhere"}
    refused("no folder", "dataset.annotations", call=lambda: open_lidc(tmp_path / "images", options=missing))


def test_a_list_of_series_chooses_scans(tmp_path):
    uids = []
    for number in (1, 2, 3):
        folder = tmp_path / f"LIDC-IDRI-000{number}"
        series, uid = write_scan(folder, HEIGHTS if number < 3 else [HEIGHTS[0], HEIGHTS[-1]])
        write_reading(folder / "069.xml", series, [[box_nodule("1", BOX, MIDDLE, uid)]])
        uids.append(series)
    refused("slices are missing", "LIDC-IDRI-0003", call=lambda: open_lidc(tmp_path))
    (tmp_path / "seriesuids.csv").write_text(f"{uids[1]}\n{uids[0]}\n1.2.3\n")
    dataset = open_dataset(tmp_path, "lidc", options={"seriesuids": "seriesuids.csv"})
    assert [case.name for case in dataset.cases] == ["LIDC-IDRI-0001", "LIDC-IDRI-0002"]
    gone = {"seriesuids": "other.csv"}
    refused("dataset.seriesuids", call=lambda: open_lidc(tmp_path, options=gone))


def test_copies_with_new_identifiers_are_found_by_their_height(tmp_path):
    def marks(uid):
        return [[box_nodule("1", BOX, MIDDLE, {})]]

    (finding,) = one_scan(tmp_path, marks).cases[0].findings
    assert finding.center[2] == pytest.approx(-95.0) and finding.mask.values.shape[2] == 3


def test_the_grid_is_that_of_the_image(tmp_path):
    for number, heights in enumerate((HEIGHTS, HEIGHTS[::-1], [-100.0, -97.5, -95.0, -90.0])):
        folder = tmp_path / str(number)
        write_scan(folder, heights, orientation=(0, 1, 0, -1, 0, 0))
        grid = series_grid([read_header(file) for file in folder.iterdir()], "the scan")
        with pytest.warns(UserWarning) if number == 2 else no_warning():
            image = read_image(folder)
        np.testing.assert_allclose(grid.affine, affine_of(image), atol=1e-9)
        assert grid.shape == tuple(image.shape[1:])
    assert grid.gaps == (2,)


def no_warning():
    import contextlib

    return contextlib.nullcontext()


# -------------------------------------------------------------------------------------------------------- what is wrong


def test_slices_that_are_missing_under_a_nodule(tmp_path):
    def marks(uid):
        return [[box_nodule("Nodule 7", BOX, MIDDLE, uid)]]

    gap = [z for z in HEIGHTS if z != -95.0]
    refused(
        "1 nodule(s) under which slices are missing",
        "LIDC-IDRI-0001: Nodule 7 of reader 1 at z = -95 mm",
        "whole",
        call=lambda: one_scan(tmp_path / "a", marks, heights=gap),
    )

    # Also where the reader drew nothing in the slice that is missing.
    def skipping(uid):
        return [[box_nodule("Nodule 7", BOX, [-97.5, -92.5], uid)]]

    refused("slices are missing", "z = -95 mm", call=lambda: one_scan(tmp_path / "b", skipping, heights=gap))
    # A gap elsewhere harms no nodule.
    longer = [*HEIGHTS, -80.0]
    assert len(one_scan(tmp_path / "c", marks, heights=longer).cases[0].findings) == 1


def test_what_lies_beyond_the_ends_of_a_part_of_a_scan(tmp_path):
    def marks(uid):
        return [
            [
                box_nodule("cut", BOX, [-92.5, -90.0, -87.5], uid),
                box_nodule("gone", BOX, [-50.0, -47.5], uid),
                other("far", -40.0, (3, 3)),
            ]
        ]

    dataset = one_scan(tmp_path, marks)
    (finding,) = dataset.cases[0].findings
    assert finding.mask.values.shape[2] == 2 and finding.bounds[5] == pytest.approx(-90.0 + 1.25)
    assert dataset.cases[0].ignored == ()
    notes = " ".join(dataset.source["notes"])
    assert (
        "left out (2 of LIDC-IDRI-0001)" in notes and "1 outlines reach beyond" in notes and "cut of reader 1" in notes
    )


def test_files_that_cannot_be_used(tmp_path):
    def marks(uid):
        return [[box_nodule("1", BOX, MIDDLE, uid)]]

    broken = tmp_path / "broken"
    one_scan(broken, marks)
    file = broken / "LIDC-IDRI-0001" / "069.xml"
    text = file.read_text()
    file.write_text(text[:-200])
    refused("069.xml is not a whole XML file", call=lambda: open_lidc(broken))
    file.write_text(text.replace("<xCoord>9</xCoord>", "<xCoord></xCoord>", 1))
    refused("069.xml", "mark of reader 1 without whole coordinates", call=lambda: open_lidc(broken))
    file.write_text(text.replace("SeriesInstanceUid", "SeriesUid"))
    refused("069.xml", "names no series", call=lambda: open_lidc(broken))
    file.write_text(text)
    (file.parent / "copy.xml").write_text(text)
    assert len(open_lidc(broken).cases) == 1
    (file.parent / "copy.xml").write_text(text.replace("<malignancy>3", "<malignancy>4"))
    refused("copy.xml", "another file reads differently", call=lambda: open_lidc(broken))
    (file.parent / "copy.xml").unlink()
    write_scan(file.parent, HEIGHTS, names="other{:03}.dcm")
    refused("holds 2 DICOM series", "folder of its own", call=lambda: open_lidc(broken))
    write_reading(tmp_path / "empty" / "1.xml", "1.2.3", [[]])
    refused("readings of 1 scans and the DICOM series of none", call=lambda: open_lidc(tmp_path / "empty"))
    for options in ({"consensus": 1.5}, {"consensus": "most"}):
        refused("dataset.consensus", call=lambda o=options: open_lidc(broken, options=o))
    refused("dataset.classes", call=lambda: open_lidc(broken, options={"classes": ["a", "b"]}))


# ------------------------------------------------------------------------------------------------- the real collection


def test_readers_of_a_real_nodule_as_luna16_has_them(shared_data):
    """LUNA16 took the readers' nodules together two by two, and kept each step in its tables.

    Of LIDC-IDRI-0001 it has the nodule of the fourth reader, its mean with that of the third, the mean of this with
    that of the second, and of this with that of the first, which is the one that counts.
    """
    folder = shared_data("lidc/LIDC-IDRI-0001")
    luna = shared_data("luna16/annotations.csv").parent
    reading = read_reading(folder / "annotations.xml")
    grid = series_grid([read_header(file) for file in sorted(folder.glob("*.dcm"))], "the scan")
    rows = []
    for outline in reading.outlines:
        alone = type(reading)(reading.file, reading.series, 1, (outline,), ())
        (finding,) = nodules_of(alone, grid, 0.5, "nodule").findings
        right, anterior, superior = finding.about["centroid"]
        rows.append(np.array([-right, -anterior, superior, finding.diameter_mm]))
    first, second, third, fourth = rows
    steps = [fourth]
    for row in (third, second, first):
        steps.append((steps[-1] + row) / 2)

    def luna16(name):
        with (luna / name).open() as stream:
            return [
                np.array([float(n) for n in row[1:]])
                for row in csv.reader(stream)
                if row[0] == reading.series and float(row[4]) > 0
            ]

    (counted,) = luna16("annotations.csv")
    for step in luna16("annotations_excluded.csv"):
        nearest = min(steps[:3], key=lambda row: np.abs(row - step).max())
        np.testing.assert_allclose(nearest[3], step[3], atol=1e-6)  # diameter, mm
        np.testing.assert_allclose(nearest[:3], step[:3], atol=1e-3)  # LPS mm
    np.testing.assert_allclose(steps[3], counted, atol=2e-3)


def test_marks_of_a_real_scan_as_luna16_has_them(shared_data):
    """Points of nodules below 3 mm and of other lesions: LUNA16's table of what does not count has the same."""
    folder = shared_data("lidc/LIDC-IDRI-0001")
    luna = shared_data("luna16/annotations_excluded.csv")
    reading = read_reading(folder / "annotations.xml")
    grid = series_grid([read_header(file) for file in sorted(folder.glob("*.dcm"))], "the scan")
    ours = {
        tuple(np.round([*(-(grid.affine[:2, :2] @ mark.point + grid.affine[:2, 3])), mark.z], 2))
        for mark in reading.marks
    }
    with luna.open() as stream:
        rows = [row[1:] for row in csv.reader(stream) if row[0] == reading.series and float(row[4]) < 0]
    theirs = {tuple(np.round([float(n) for n in row[:3]], 2)) for row in rows}
    assert len(theirs) > 10
    for place in theirs:
        assert min(np.abs(np.subtract(place, own)).max() for own in ours) < 0.01


def test_the_real_nodule(shared_data):
    folder = shared_data("lidc/LIDC-IDRI-0001")
    dataset = open_dataset(folder)
    (case,) = dataset.cases
    (finding,) = case.findings
    assert dataset.source["kind"] == "lidc" and case.patient == "LIDC-IDRI-0001"
    assert finding.about["ratings"]["malignancy"] == [5, 5, 5, 4]  # as the data's README says
    # LUNA16: -56.21, -86.34, -115.87 (RAS) and 23.35 mm; half a voxel is 0.35 mm in the slice and 1.25 mm across.
    off = np.abs(np.subtract(finding.about["centroid"], (-56.20840547, -86.34341278, -115.8675792)))
    assert (off < (0.35, 0.35, 1.25)).all()
    assert finding.diameter_mm == pytest.approx(23.35064438, abs=0.1)
    # The nodule is in the voxels of its mask: moved by two voxels along any axis, air comes in.
    image = read_image(case.images[0])
    values, mask = image.numpy()[0], instances_of(case.findings, image) == 1
    assert mask.sum() == finding.mask.values.sum()
    here = values[mask].mean()
    for axis in range(3):
        for step in (-2, 2):
            assert values[np.roll(mask, step, axis)].mean() < here - 10
    assert equivalent_diameter(mask, affine_of(image)) == pytest.approx(finding.diameter_mm)
    assert "22 of LIDC-IDRI-0001" in " ".join(dataset.source["notes"])
