"""Detection data as COCO and nnDetection keep it."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from MedMapAILib.datasets import open_dataset
from MedMapAILib.datasets.coco import open_coco
from MedMapAILib.datasets.instances import bounds_of_mask, instances_of
from MedMapAILib.datasets.nndetection import open_nndetection
from MedMapAILib.errors import InputError
from MedMapAILib.image import affine_of, read_image
from PIL import Image
from pycocotools import mask as coco_mask

CATEGORIES = [{"id": 7, "name": "nodule"}, {"id": 3, "name": "mass"}]
COLUMNS, ROWS = 40, 30


def refused(*words, call):
    with pytest.raises(InputError) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence
    return sentence


# ------------------------------------------------------------------------------------------------------------- COCO


def write_pictures(folder, names, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        values = np.random.default_rng(seed + number).integers(0, 255, (ROWS, COLUMNS), dtype=np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / name)


def coco(names, annotations, categories=CATEGORIES, **fields):
    """annotations: (image number, category, box, further fields) each."""
    return {
        "images": [
            {"id": number, "file_name": name, "width": COLUMNS, "height": ROWS, **fields}
            for number, name in enumerate(names)
        ],
        "annotations": [
            {"id": 100 + number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}
            for number, (image, category, box, more) in enumerate(annotations)
        ],
        "categories": categories,
    }


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def one_picture(tmp_path, *annotations, **options):
    write_pictures(tmp_path, ["a.png"])
    path = write_json(tmp_path / "list.json", coco(["a.png"], [(0, *a) for a in annotations]))
    return open_coco(path, options=options)


def test_a_box_is_counted_from_the_corner_of_the_first_pixel(tmp_path):
    dataset = one_picture(tmp_path, (7, [4, 10, 6, 3], {}))
    assert dataset.findings == ("mass", "nodule") and dataset.task == "detection" and dataset.channels == ("image",)
    (case,) = dataset.cases
    (finding,) = case.findings
    assert (finding.label, finding.state, case.name, case.patient) == ("nodule", "reference", "a", "a")
    image = read_image(case.images[0])
    affine = affine_of(image)
    # Columns 4 to 9 and rows 10 to 12, whole.
    low, high = bounds_of_mask(np.ones((6, 3, 1), dtype=bool), affine @ translation(4, 10, 0))
    np.testing.assert_allclose(finding.bounds, (*low, *high))
    assert instances_of(case.findings, image).sum() > 0


def translation(*by):
    matrix = np.eye(4)
    matrix[:3, 3] = by
    return matrix


def test_polygons_and_both_run_length_codes_are_the_same_mask(tmp_path):
    truth = np.zeros((ROWS, COLUMNS), dtype=np.uint8)
    truth[10:13, 4:10] = 1
    polygon = [[4, 10, 10, 10, 10, 13, 4, 13]]
    short = coco_mask.encode(np.asfortranarray(truth))
    short = {"size": [int(n) for n in short["size"]], "counts": short["counts"].decode()}
    runs, last, counts = truth.T.ravel(), 0, []
    while len(runs):
        length = int(np.argmax(runs != last)) if (runs != last).any() else len(runs)
        counts.append(length)
        runs, last = runs[length:], 1 - last
    long = {"size": [ROWS, COLUMNS], "counts": counts}
    box = [4, 10, 6, 3]
    dataset = one_picture(tmp_path, *((7, box, {"segmentation": how}) for how in (polygon, short, long)))
    case = dataset.cases[0]
    image = read_image(case.images[0])
    for finding in case.findings:
        np.testing.assert_array_equal(instances_of([finding], image)[..., 0], truth.T)
        low, high = bounds_of_mask(finding.mask.values, finding.mask.affine)
        np.testing.assert_allclose(finding.bounds, (*low, *high))


def test_crowds_are_ignored_and_pictures_without_findings_stay(tmp_path):
    write_pictures(tmp_path / "images", ["a.png", "b.png"])
    crowd = (0, 3, [1, 1, 20, 10], {"iscrowd": 1})
    path = write_json(tmp_path / "list.json", coco(["a.png", "b.png"], [crowd, (0, 7, [2, 3, 4, 5], {})]))
    for dataset in (open_coco(path), open_dataset(path), open_dataset(tmp_path)):
        assert dataset.source["kind"] == "coco"
        a, b = dataset.cases
        assert [f.label for f in a.findings] == ["nodule"] and [f.label for f in a.ignored] == ["mass"]
        assert b.findings == () and b.labelled
    only = open_coco(path, options={"classes": ["mass"]})
    assert only.findings == ("mass",) and only.cases[0].findings == () and len(only.cases[0].ignored) == 1
    refused("has no categories cyst", call=lambda: open_coco(path, options={"classes": ["cyst"]}))


def test_the_folders_of_coco_and_the_parts_in_its_names(tmp_path):
    for part, names in (("train2017", ["x/1.png", "2.png"]), ("val2017", ["3.png"])):
        write_pictures(tmp_path / part, names)
        write_json(
            tmp_path / "annotations" / f"instances_{part}.json", coco(names, [(0, 7, [1, 1, 4, 4], {})], patient="P1")
        )
    dataset = open_dataset(tmp_path)
    assert dataset.source["kind"] == "coco"
    assert dataset.source["split"] == {"x_1": "train", "2": "train", "3": "validation"}
    assert {case.patient for case in dataset.cases} == {"P1"}
    with_pattern = open_coco(tmp_path, patient_pattern=r"(\d)$")
    assert sorted(case.patient for case in with_pattern.cases) == ["1", "2", "3"]
    write_json(tmp_path / "annotations" / "more.json", coco([], []))
    refused("3 COCO files", "dataset.annotations", call=lambda: open_coco(tmp_path))
    one = open_coco(tmp_path, options={"annotations": "annotations/instances_val2017.json"})
    assert [case.name for case in one.cases] == ["3"]


def test_a_box_partly_outside_is_cut_and_listed_and_one_wholly_outside_refused(tmp_path):
    dataset = one_picture(tmp_path / "a", (7, [35, 25, 10, 10], {}), (7, [1, 1, 0.2, 0.4], {}))
    cut, thin = dataset.cases[0].findings
    assert sorted(cut.size) == [1, 5, 5] and sorted(thin.size) == [1, 1, 1]
    notes = " ".join(dataset.source["notes"])
    assert "cut off" in notes and "a finding 1" in notes and "thinner" in notes and "a finding 2" in notes
    refused("wholly outside", call=lambda: one_picture(tmp_path / "b", (7, [50, 5, 4, 4], {})))


def test_everything_that_is_wrong_is_listed(tmp_path):
    write_pictures(tmp_path, ["a.png"])
    content = coco(
        ["a.png", "gone.png"],
        [(0, 7, [1, 1, -3, 4], {}), (0, 9, [1, 1, 3, 4], {}), (5, 7, [1, 1, 3, 4], {}), (0, 7, "here", {})],
    )
    path = write_json(tmp_path / "list.json", content)
    refused(
        "1 annotation(s) of images that it does not list (annotation 102)",
        "1 missing image(s) (gone.png)",
        "3 annotation(s) without a category that it lists, or a box of positive size",
        "annotation 100 of a",
        "annotation 101 of a",
        "annotation 103 of a",
        call=lambda: open_coco(path),
    )
    damaged = {"size": [5, 5], "counts": [25]}
    write_json(path, coco(["a.png"], [(0, 7, [1, 1, 3, 4], {"segmentation": damaged})]))
    refused("1 segmentation(s)", "another size", call=lambda: open_coco(path))
    write_json(path, coco(["a.png"], []) | {"images": [{"id": 0, "file_name": "a.png", "width": 99, "height": 30}]})
    refused("of another size than it says (a: 40×30)", call=lambda: open_coco(path))
    write_json(path, coco(["a.png", "a.png"], []))
    refused("listed twice", call=lambda: open_coco(path))
    write_json(path, {"images": [], "annotations": {}})
    refused("no list of annotations", call=lambda: open_coco(path))
    path.write_text("{")
    refused("not valid JSON", call=lambda: open_coco(path))


# ------------------------------------------------------------------------------------------------------ nnDetection


def test_numbers_of_a_coco_file_that_are_none(tmp_path):
    write_pictures(tmp_path, ["a.png"])
    path = tmp_path / "a.json"
    box = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}
    picture = {"id": 1, "file_name": "a.png"}
    for images, annotation, said in (
        ([picture], {**box, "category_id": [7]}, "annotations whose category_id is [7]"),
        ([picture], {**box, "image_id": {}}, "annotations whose image_id is {}"),
        ([picture, picture], box, "several images with one id (1)"),
        ([{**picture, "width": "x", "height": 30}], box, "of another size than it says"),
    ):
        categories = [{"id": 7, "name": "nodule"}]
        path.write_text(json.dumps({"images": images, "annotations": [annotation], "categories": categories}))
        refused(said, call=lambda: open_coco(path))


def write_volume(path, array, affine=None, seed=None):
    """array: (i, j, k). affine: spacing, origin and direction as SimpleITK wants them (LPS)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    for name, value in (affine or {}).items():
        getattr(picture, f"Set{name}")(value)
    sitk.WriteImage(picture, str(path))


PLACE = {"Spacing": (0.5, 0.5, 2.0), "Origin": (-10.0, 20.0, 30.0)}


def write_task(folder, cases, classes=("nodule", "mass"), root="raw_splitted", modalities=1, place=PLACE, part="Tr"):
    """cases: name → (label map (i, j, k), {instance: class})."""
    info = {
        "task": "Task100_Test",
        "name": "Test",
        "dim": 3,
        "target_class": None,
        "labels": {str(n): name for n, name in enumerate(classes)},
        "modalities": {str(n): f"modality{n}" for n in range(modalities)},
    }
    write_json(folder / "dataset.json", info)
    for name, (labels, instances) in cases.items():
        for n in range(modalities):
            values = np.random.default_rng(n).normal(size=labels.shape).astype(np.float32)
            write_volume(folder / root / f"images{part}" / f"{name}_{n:04d}.nii.gz", values, place)
        write_volume(folder / root / f"labels{part}" / f"{name}.nii.gz", labels.astype(np.uint8), place)
        write_json(folder / root / f"labels{part}" / f"{name}.json", {"instances": instances})
    return folder


def two_instances():
    labels = np.zeros((16, 14, 8), dtype=int)
    labels[2:6, 3:5, 1:4] = 1
    labels[9:12, 8:13, 5] = 2
    return labels


def test_instances_are_findings_where_they_are(tmp_path):
    labels = two_instances()
    folder = write_task(tmp_path / "Task100_Test", {"case0": (labels, {"1": 1, "2": 0})}, modalities=2)
    for dataset in (open_nndetection(folder), open_nndetection(folder / "dataset.json"), open_dataset(folder)):
        assert dataset.source["kind"] == "nndetection" and dataset.findings == ("nodule", "mass")
        assert dataset.channels == ("modality0", "modality1") and dataset.name == "Test"
        (case,) = dataset.cases
        assert [path.name for path in case.images] == ["case0_0000.nii.gz", "case0_0001.nii.gz"]
        first, second = case.findings
        assert (first.label, second.label, first.state) == ("mass", "nodule", "reference")
        # LPS from -10 + 0.5 (2 … 5), half a voxel to each side; RAS is its negative in the first two.
        np.testing.assert_allclose(first.bounds, (7.25, -22.25, 31, 9.25, -21.25, 37), atol=1e-5)
        image = read_image(case.images[0])
        np.testing.assert_array_equal(instances_of(case.findings, image), labels)
        assert second.volume_ml == pytest.approx(15 * 0.5 / 1000, rel=1e-4)


def test_an_oblique_label_map(tmp_path):
    c, s = np.cos(0.4), np.sin(0.4)
    place = PLACE | {"Direction": (c, -s, 0, s, c, 0, 0, 0, 1)}
    labels = two_instances()
    folder = write_task(tmp_path, {"case0": (labels, {"1": 1, "2": 0})}, place=place)
    (case,) = open_nndetection(folder).cases
    image = read_image(case.images[0])
    np.testing.assert_array_equal(instances_of(case.findings, image), labels)
    for number, finding in enumerate(case.findings, start=1):
        low, high = bounds_of_mask(labels == number, affine_of(image))
        np.testing.assert_allclose(finding.bounds, (*low, *high), atol=1e-5)


def test_test_cases_with_labels_are_a_part_and_empty_scans_count(tmp_path):
    empty = (np.zeros((6, 6, 6), dtype=int), {})
    write_task(tmp_path, {"a": (two_instances(), {"1": 0, "2": 0}), "b": empty}, root=".")
    write_task(tmp_path, {"c": (two_instances(), {"1": 0, "2": 0})}, root=".", part="Ts")
    dataset = open_nndetection(tmp_path)
    assert dataset.source["split"] == {"a": "train", "b": "train", "c": "test"}
    assert [len(case.findings) for case in dataset.cases] == [2, 0, 2] and dataset.cases[1].labelled


def test_a_yaml_file_does_too(tmp_path):
    write_task(tmp_path, {"a": (two_instances(), {"1": 0, "2": 1})})
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "dataset.yaml").write_text(
        'task: Task1\nlabels:\n  "0": "Square"\n  "1": "Hole"\nmodalities:\n  "0": CT\n'
    )
    dataset = open_dataset(tmp_path)
    assert dataset.findings == ("Square", "Hole") and dataset.channels == ("CT",)
    assert open_nndetection(tmp_path, options={"classes": ["x", "y"]}).findings == ("x", "y")
    (tmp_path / "dataset.yaml").unlink()
    refused("no labels", "dataset.classes", call=lambda: open_nndetection(tmp_path))
    assert open_nndetection(tmp_path, labels={0: "x", 1: "y"}).findings == ("x", "y")


def test_what_is_wrong_with_a_task(tmp_path):
    wrong = {"1": 0, "5": 0}
    folder = write_task(tmp_path, {"a": (two_instances(), wrong), "b": (two_instances(), {"1": 0, "2": 4})})
    write_task(tmp_path, {"c": (two_instances(), {"1": 0, "2": 0})})
    labels = folder / "raw_splitted" / "labelsTr"
    (labels / "c.json").unlink()
    (labels.parent / "imagesTr" / "d_0000.nii.gz").write_bytes(
        (labels.parent / "imagesTr" / "a_0000.nii.gz").read_bytes()
    )
    refused(
        "1 instance(s) without a class (a: 2)",
        "1 instance(s) without a voxel (a: 5)",
        "1 instance(s) of a class that is not declared (b: 2)",
        '1 case(s) without a .json file of "instances" (c)',
        "1 image(s) without a label map",
        call=lambda: open_nndetection(folder),
    )
    refused("no task of nnDetection", call=lambda: open_nndetection(labels))
