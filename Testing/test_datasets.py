"""Data sets: what is read, and that everything wrong with one is said in one sentence."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from MedMapAILib.datasets import DATASETS, open_dataset
from MedMapAILib.datasets.dataset import label_names, listed
from MedMapAILib.datasets.fingerprint import fingerprint
from MedMapAILib.datasets.loading import load_case
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image, write_image
from MedMapAILib.results import Segment, Segmentation, write_segmentation
from synthetic import SEGMENTS, ball_and_box, write_dataset

HIPPOCAMPUS = Path(__file__).parents[2] / "shared" / "data" / "hippocampus"
needs_hippocampus = pytest.mark.skipif(
    not HIPPOCAMPUS.is_dir(), reason="../shared/data/hippocampus is not on this machine"
)


def refused(*words, call=open_dataset, arguments=(), **options):
    """The call raises InputError, one line that holds the words; returns the sentence."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence
    return sentence


def volume(path, seed=0, **options):
    voxels, _, affine = ball_and_box(seed, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(make_image(voxels[None], affine), path)


def label_map(path, seed=0, values=None, **options):
    _, labels, affine = ball_and_box(seed, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    if values:
        labels = np.array([0, *values], dtype=np.uint8)[np.minimum(labels, len(values))]
    segments = tuple(Segment(int(value), f"label {value}", (0.5, 0.5, 0.5), None) for value in values or (1, 2))
    write_segmentation(Segmentation(labels, affine, segments), path)


def test_a_folder_is_read_and_its_labels_found(tmp_path):
    dataset = open_dataset(write_dataset(tmp_path / "balls", 3))
    assert dataset.name == "balls"
    assert [case.name for case in dataset.cases] == ["case_00", "case_01", "case_02"]
    assert [case.patient for case in dataset.cases] == ["case_00", "case_01", "case_02"]
    assert dataset.labels == {1: "label 1", 2: "label 2"}
    assert dataset.channels == ("image",)
    image, reference = load_case(dataset.cases[1], dataset)
    voxels, labels, affine = ball_and_box(1)
    np.testing.assert_array_equal(image.numpy()[0], voxels)
    np.testing.assert_array_equal(reference.labels, labels)
    np.testing.assert_allclose(np.asarray(image.affine), affine, atol=1e-6)
    assert [segment.name for segment in reference.segments] == ["label 1", "label 2"]


def test_image_and_label_may_be_of_different_formats_and_other_files_are_left_alone(tmp_path):
    for number, (a, b) in enumerate([(".nrrd", ".nii.gz"), (".mha", ".seg.nrrd"), (".nii", ".mha")]):
        volume(tmp_path / "images" / f"Fräulein Ångström {number}{a}", number)
        label_map(tmp_path / "labels" / f"Fräulein Ångström {number}{b}", number)
    for name in (".DS_Store", "._Fräulein Ångström 0.nrrd", "notes.txt", "Thumbs.db"):
        (tmp_path / "images" / name).write_bytes(b"\0\5\x16\7")
        (tmp_path / "labels" / name).write_bytes(b"\0\5\x16\7")
    dataset = open_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == [f"Fräulein Ångström {number}" for number in range(3)]
    for case in dataset.cases:
        assert load_case(case, dataset)[1].labels.any()


def test_a_folder_names_all_that_is_missing_on_both_sides(tmp_path):
    write_dataset(tmp_path, 15)
    for number in range(12):
        (tmp_path / "labels" / f"case_{number:02}.nii.gz").unlink()
    (tmp_path / "images" / "case_13.nii.gz").unlink()
    sentence = refused(
        "12 image(s) without", "case_00", "case_09 and 2 more", "without an image (case_13)", arguments=[tmp_path]
    )
    assert "case_10" not in sentence


def test_two_files_of_one_name_are_refused(tmp_path):
    write_dataset(tmp_path, 2)
    volume(tmp_path / "images" / "case_00.nrrd")
    refused("two files", "case_00", arguments=[tmp_path])


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_a_folder_without_one_of_its_halves(tmp_path, missing):
    write_dataset(tmp_path, 1)
    shutil.rmtree(tmp_path / missing)
    refused(missing, arguments=[tmp_path], kind="folder")


def test_empty_folders_and_wrong_paths(tmp_path):
    refused("no data set", arguments=[tmp_path / "nothing"])
    refused("images/ and labels/", arguments=[tmp_path])
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    refused("holds no image files", arguments=[tmp_path])
    refused("no kind of data set", *DATASETS, arguments=[tmp_path], kind="zarr")


def test_patients_by_pattern(tmp_path):
    for name in ("LIDC-IDRI-0004_R_1", "LIDC-IDRI-0004_R_2", "LIDC-IDRI-0005_R_1"):
        volume(tmp_path / "images" / f"{name}.nii.gz")
        label_map(tmp_path / "labels" / f"{name}.nii.gz")
    dataset = open_dataset(tmp_path, patient_pattern=r"(LIDC-IDRI-\d+)")
    assert [case.patient for case in dataset.cases] == ["LIDC-IDRI-0004", "LIDC-IDRI-0004", "LIDC-IDRI-0005"]
    refused("does not match", "LIDC-IDRI-0005_R_1", arguments=[tmp_path], patient_pattern=r"(LIDC-IDRI-0004)")
    refused("0 groups", "parentheses", arguments=[tmp_path], patient_pattern="LIDC")
    refused("regular expression", arguments=[tmp_path], patient_pattern="(LIDC")


def test_label_7_alone_is_label_7(tmp_path):
    for number in range(2):
        volume(tmp_path / "images" / f"{number}.nrrd", number)
        label_map(tmp_path / "labels" / f"{number}.nrrd", number, values=(7,))
    dataset = open_dataset(tmp_path)
    assert dataset.labels == {7: "label 7"}
    named = open_dataset(tmp_path, labels={7: "tumor"})
    reference = load_case(named.cases[0], named)[1]
    assert set(np.unique(reference.labels)) == {0, 7}
    assert reference.segments[0].name == "tumor"


def test_a_value_outside_the_declared_ones_is_named(tmp_path):
    dataset = open_dataset(write_dataset(tmp_path, 2), labels={1: "ball"})
    refused("case_00", "2", "ball", call=load_case, arguments=[dataset.cases[0], dataset])


def test_names_come_from_seg_nrrd(tmp_path):
    for number in range(2):
        _, labels, affine = ball_and_box(number)
        volume(tmp_path / "images" / f"{number}.nrrd", number)
        (tmp_path / "labels").mkdir(exist_ok=True)
        write_segmentation(Segmentation(labels, affine, SEGMENTS), tmp_path / "labels" / f"{number}.seg.nrrd")
    assert open_dataset(tmp_path).labels == {1: "ball", 2: "box"}
    other = (Segment(1, "cube", (0, 0, 1), None), Segment(2, "ball", (1, 0, 0), None))
    write_segmentation(Segmentation(labels, affine, other), tmp_path / "labels" / "1.seg.nrrd")
    refused("declare the labels", arguments=[tmp_path])


def test_empty_label_maps_are_nothing_to_learn_from(tmp_path):
    voxels, labels, affine = ball_and_box(0)
    volume(tmp_path / "images" / "a.nrrd")
    (tmp_path / "labels").mkdir()
    write_segmentation(Segmentation(np.zeros_like(labels), affine, SEGMENTS), tmp_path / "labels" / "a.nrrd")
    refused("all empty", arguments=[tmp_path])
    dataset = open_dataset(tmp_path, labels={1: "ball"})
    refused("labelled ball", call=fingerprint, arguments=[dataset, dataset.cases])


def test_all_cases_that_cannot_be_used_are_told_at_once(tmp_path):
    write_dataset(tmp_path, 5)
    label_map(tmp_path / "labels" / "case_01.nii.gz", 1, shape=(24, 26, 23))
    label_map(tmp_path / "labels" / "case_02.nii.gz", 2, values=(1, 9))
    path = tmp_path / "images" / "case_03.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    voxels, _, affine = ball_and_box(4)
    write_image(make_image(np.full_like(voxels, 5)[None], affine), tmp_path / "images" / "case_04.nii.gz")
    dataset = open_dataset(tmp_path, labels={1: "ball", 2: "box"})
    sentence = refused(
        "4 cases",
        "case_01, case_02, case_03, case_04",
        "24×26×22",
        call=fingerprint,
        arguments=[dataset, dataset.cases],
    )
    assert "case_00" not in sentence


def test_channels_of_a_folder_are_named_as_in_nnunet(tmp_path):
    for number in range(2):
        for channel in range(2):
            volume(tmp_path / "images" / f"scan_{number}_{channel:04d}.nii.gz", 10 * number + channel)
        label_map(tmp_path / "labels" / f"scan_{number}.nii.gz", number)
    dataset = open_dataset(tmp_path)
    assert dataset.channels == ("channel 0", "channel 1")
    image, _ = load_case(dataset.cases[1], dataset)
    assert image.shape == (2, 24, 26, 22)
    np.testing.assert_array_equal(image.numpy()[1], ball_and_box(11)[0])
    (tmp_path / "images" / "scan_0_0001.nii.gz").unlink()
    refused("channels 0000, 0001", "scan_0", arguments=[tmp_path])


def test_channels_must_lie_on_one_grid(tmp_path):
    volume(tmp_path / "images" / "a_0000.nii.gz")
    volume(tmp_path / "images" / "a_0001.nii.gz", spacing=2.0)
    label_map(tmp_path / "labels" / "a.nii.gz")
    dataset = open_dataset(tmp_path)
    refused("spacing", "a_0001", call=load_case, arguments=[dataset.cases[0], dataset])


# ----------------------------------------------------------------------------------------------------------- Decathlon


def write_decathlon(folder, count=3, channels=1, **content):
    for number in range(count):
        voxels, labels, affine = ball_and_box(number)
        (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
        data = voxels if channels == 1 else np.stack([voxels + 1000 * c for c in range(channels)], axis=-1)
        nibabel.save(nibabel.Nifti1Image(data, affine), folder / "imagesTr" / f"scan_{number}.nii.gz")
        label_map(folder / "labelsTr" / f"scan_{number}.nii.gz", number)
    names = [f"scan_{number}.nii.gz" for number in range(count)]
    default = {
        "name": "Balls",
        "modality": {str(c): name for c, name in enumerate(("FLAIR", "T1w", "T2w")[:channels])},
        "labels": {"0": "background", "1": "ball", "2": "box"},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": ["./imagesTs/scan_9.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps({**default, **content}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("given", ["folder", "file"])
def test_decathlon(tmp_path, given):
    write_decathlon(tmp_path)
    (tmp_path / "imagesTr" / "._scan_0.nii.gz").write_bytes(b"\0\5\x16\7")
    dataset = open_dataset(tmp_path if given == "folder" else tmp_path / "dataset.json")
    assert (dataset.name, dataset.labels, dataset.channels) == ("Balls", {1: "ball", 2: "box"}, ("FLAIR",))
    assert [case.name for case in dataset.cases] == ["scan_0", "scan_1", "scan_2"]
    np.testing.assert_array_equal(load_case(dataset.cases[2], dataset)[0].numpy()[0], ball_and_box(2)[0])


def test_decathlon_with_several_modalities_in_one_file(tmp_path):
    dataset = open_dataset(write_decathlon(tmp_path, channels=3))
    image, reference = load_case(dataset.cases[1], dataset)
    assert image.shape == (3, 24, 26, 22)
    np.testing.assert_allclose(image.numpy(), np.stack([ball_and_box(1)[0] + 1000 * c for c in range(3)]), rtol=1e-6)
    np.testing.assert_array_equal(reference.labels, ball_and_box(1)[1])


@pytest.mark.parametrize("held, declared", [(1, 2), (3, 2), (3, 1)])
def test_decathlon_files_of_another_channel_count(tmp_path, held, declared):
    modality = {str(c): f"m{c}" for c in range(declared)}
    dataset = open_dataset(write_decathlon(tmp_path, channels=held, modality=modality))
    refused(f"holds {held} image", f"{declared} channel", call=load_case, arguments=[dataset.cases[0], dataset])


def test_decathlon_resource_forks_in_the_list_are_left_out(tmp_path):
    listed = [{"image": "./imagesTr/scan_0.nii.gz", "label": "./labelsTr/scan_0.nii.gz"}]
    listed.append({"image": "./imagesTr/._scan_0.nii.gz", "label": "./labelsTr/._scan_0.nii.gz"})
    assert len(open_dataset(write_decathlon(tmp_path, 1, training=listed)).cases) == 1


def test_decathlon_missing_files_are_all_named(tmp_path):
    write_decathlon(tmp_path, 3)
    (tmp_path / "imagesTr" / "scan_0.nii.gz").unlink()
    (tmp_path / "labelsTr" / "scan_2.nii.gz").unlink()
    refused("2 missing file(s)", "imagesTr/scan_0.nii.gz, labelsTr/scan_2.nii.gz", arguments=[tmp_path])


@pytest.mark.parametrize(
    "content, words",
    [
        ({"training": []}, "no training cases"),
        ({"training": {"a": 1}}, "list of pairs"),
        ({"training": [{"image": "a.nii.gz"}]}, "without a label"),
        ({"training": [3]}, "number 1"),
        ({"labels": {"0": "background"}}, "no label besides background"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "region"),
        ({"labels": {"0": "background", "1": "a", "2": "a"}}, "only once"),
        ({"labels": {"x": "y"}}, "whole number"),
    ],
)
def test_decathlon_that_is_wrong(tmp_path, content, words):
    refused(words, arguments=[write_decathlon(tmp_path, 1, **content)])


def test_decathlon_that_is_no_json(tmp_path):
    (tmp_path / "dataset.json").write_text("{")
    refused("not valid JSON", arguments=[tmp_path])
    (tmp_path / "dataset.json").write_text("[]")
    refused("object", arguments=[tmp_path])


def test_nnunet_raw_data(tmp_path):
    for number in range(2):
        for channel in range(2):
            volume(tmp_path / "imagesTr" / f"scan_{number}_{channel:04d}.nii.gz", 10 * number + channel)
        label_map(tmp_path / "labelsTr" / f"scan_{number}.nii.gz", number)
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "ball": 1, "box": 2},
        "numTraining": 2,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path)
    assert (dataset.channels, dataset.labels) == (("T1", "T2"), {1: "ball", 2: "box"})
    assert load_case(dataset.cases[0], dataset)[0].shape[0] == 2


# ----------------------------------------------------------------------------------------------------------------- CSV


def write_files(folder, count=3):
    for number in range(count):
        volume(folder / "scans" / f"Jörg {number}" / "image.nii.gz", number)
        label_map(folder / "scans" / f"Jörg {number}" / "label.nii.gz", number)


def table(path, rows, delimiter=",", encoding="utf-8", header=("image", "label")):
    lines = [delimiter.join(header), *(delimiter.join(row) for row in rows)]
    path.write_bytes(("\r\n".join(lines) + "\r\n\r\n").encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_csv_of_every_dialect(tmp_path, monkeypatch, delimiter, encoding, separator):
    write_files(tmp_path, 2)
    rows = [[f"scans/Jörg {n}/{part}.nii.gz".replace("/", separator) for part in ("image", "label")] for n in range(2)]
    path = table(tmp_path / "my list.csv", rows, delimiter, encoding)
    monkeypatch.chdir("/")  # paths are relative to the table, not to where the program runs
    dataset = open_dataset(path)
    assert dataset.name == "my list"
    assert [case.name for case in dataset.cases] == ["scans_Jörg 0_image", "scans_Jörg 1_image"]
    np.testing.assert_array_equal(load_case(dataset.cases[1], dataset)[0].numpy()[0], ball_and_box(1)[0])


def test_csv_columns(tmp_path):
    write_files(tmp_path, 2)
    rows = [
        [
            "b",
            "P2",
            f"{tmp_path}/scans/Jörg 1/image.nii.gz",
            "scans/Jörg 0/image.nii.gz",
            "scans/Jörg 1/label.nii.gz",
            "Val",
            "x",
        ],
        [
            "a",
            "P1",
            "scans/Jörg 0/image.nii.gz",
            "scans/Jörg 1/image.nii.gz",
            "scans/Jörg 0/label.nii.gz",
            "training",
            "y",
        ],
    ]
    header = ("Name", "Patient", "image", "Image2", "Label", "split", "remark")
    dataset = open_dataset(table(tmp_path / "l.csv", rows, header=header), labels={1: "ball", 2: "box"})
    assert [(case.name, case.patient) for case in dataset.cases] == [("a", "P1"), ("b", "P2")]
    assert dataset.channels == ("image", "image2")
    assert dataset.source["split"] == {"a": "train", "b": "validation"}
    image, _ = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(image.numpy(), np.stack([ball_and_box(0)[0], ball_and_box(1)[0]]))


def test_csv_that_is_wrong_is_told_with_all_its_lines(tmp_path):
    write_files(tmp_path, 2)
    good = ["scans/Jörg 0/image.nii.gz", "scans/Jörg 0/label.nii.gz"]
    rows = [good, ["scans/gone.nii.gz", "scans/away.nii.gz"], ["", good[1]], [good[0]]]
    refused(
        "2 missing file(s) (scans/gone.nii.gz, scans/away.nii.gz)",
        "under image (line 4)",
        "under label (line 5)",
        arguments=[table(tmp_path / "l.csv", rows)],
    )
    refused("lists no cases", arguments=[table(tmp_path / "l.csv", [])])
    refused(
        "columns image and label",
        "scan, truth",
        arguments=[table(tmp_path / "l.csv", [good], header=("scan", "truth"))],
    )
    refused("two columns", arguments=[table(tmp_path / "l.csv", [good], header=("image", "image", "label"))])
    (tmp_path / "l.csv").write_bytes(b"")
    refused("header row", arguments=[tmp_path / "l.csv"])
    (tmp_path / "l.csv").write_bytes(b"PK\0\0\0\1")
    refused("not a text file", arguments=[tmp_path / "l.csv"])
    rows = [[*good, "dev", ""]]
    path = table(tmp_path / "l.csv", rows, header=("image", "label", "split", "patient"))
    refused("split", "under patient", "line 2", arguments=[path])


# --------------------------------------------------------------------------------------------------------------- parts


def test_label_names_are_read_both_ways_round():
    expected = {1: "ball", 2: "box"}
    assert label_names({"0": "background", "2": "box", "1": "ball"}, "here") == expected
    assert label_names({"background": 0, "box": 2, "ball": 1}, "here") == expected
    assert label_names({1: "ball", 2: "box"}, "here") == expected
    # A name that is a number is still a name where the key is one too.
    assert label_names({"1": "12"}, "here") == {1: "12"}


def test_listed_shows_ten():
    assert listed("abc") == "a, b, c"
    assert listed(range(10)).endswith("8, 9")
    assert listed(range(13)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more"


def test_fingerprint_measures_what_is_there(tmp_path):
    write_dataset(tmp_path, 2, shape=(24, 26, 22), spacing=2.0)
    # The same in other axis order: K of the file runs to the right.
    voxels, labels, _ = ball_and_box(0)
    affine = np.array([[0, 0, -2, 10], [2, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, 1.0]])
    write_image(make_image(voxels[None], affine), tmp_path / "images" / "turned.nii.gz")
    write_segmentation(Segmentation(labels, affine, SEGMENTS), tmp_path / "labels" / "turned.nii.gz")
    dataset = open_dataset(tmp_path, labels={1: "ball", 2: "box"})
    measured = fingerprint(dataset, dataset.cases)
    by_name = {case.name: case for case in measured.cases}
    assert by_name["case_00"].size == (24, 26, 22)
    assert by_name["turned"].size == (22, 24, 26)
    assert by_name["case_00"].spacing == pytest.approx((2, 2, 2))
    assert by_name["case_00"].labels == {"ball": int((labels == 1).sum()), "box": 125}
    assert by_name["case_00"].channels[0]["whole"]["mean"] == pytest.approx(voxels.mean(), rel=1e-5)
    assert by_name["case_00"].channels[0]["foreground"]["sd"] == pytest.approx(voxels[labels > 0].std(), rel=1e-5)
    assert not any(case.oblique for case in measured.cases)
    assert measured.ct == (False,)
    summary = json.loads(json.dumps(measured.summary()))
    assert summary["cases"] == 3
    assert summary["size in voxels"]["max"] == [24, 26, 26]
    assert summary["labels"]["box"]["cases that have it"] == 3
    assert json.dumps(measured.to_dict())


@needs_hippocampus
def test_hippocampus_as_its_readme_says():
    dataset = open_dataset(HIPPOCAMPUS, labels={1: "anterior", 2: "posterior"})
    assert len(dataset.cases) == 200
    summary = fingerprint(dataset, dataset.cases).summary()
    assert summary["spacing in mm"]["median"] == [1, 1, 1]
    np.testing.assert_allclose(summary["size in voxels"]["median"], [35, 50, 35], atol=1)
    assert all(label["cases that have it"] == 200 for label in summary["labels"].values())


def test_a_label_that_no_case_has_is_said(tmp_path):
    dataset = open_dataset(write_dataset(tmp_path, 2), labels={1: "ball", 2: "box", 3: "cone"})
    with pytest.warns(UserWarning, match="labelled cone"):
        assert fingerprint(dataset, dataset.cases).cases[0].labels["cone"] == 0
