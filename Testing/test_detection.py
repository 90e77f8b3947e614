"""Detection from a table of findings to a bundle that finds them, on any grid."""

import csv
import json

import numpy as np
import pytest
from chest_phantom import chest
from detection_data import detection_config, scan_with_balls, write_findings_dataset
from MedMapAILib.bundle import load_bundle
from MedMapAILib.cli import main
from MedMapAILib.datasets import open_dataset
from MedMapAILib.datasets.loading import load_case
from MedMapAILib.detection_plan import make_detection_plan
from MedMapAILib.errors import Cancelled, InputError
from MedMapAILib.image import make_image, write_array
from MedMapAILib.inference.detection_predictor import DetectionPredictor
from MedMapAILib.inference.opening import open_predictor
from MedMapAILib.plan import Plan
from MedMapAILib.preprocessing import Grid, crop_to_roi
from MedMapAILib.region import crop_to_region
from MedMapAILib.results import FindingClasses, FindingReference, finding_of_sphere
from MedMapAILib.tasks.detection import DetectionTask, boxes_on_grid, from_grid
from MedMapAILib.tasks.found_boxes import FoundBoxes
from MedMapAILib.training.run import train
from orders import every_axis_order, rotation


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detection")
    table = write_findings_dataset(folder / "data", 8)
    events = []
    bundle = train(detection_config(table, epochs=5, iterations=25), folder / "out", on_event=events.append)
    return bundle, table, events


def hits(result, truth):
    """How many balls are hit by a called finding."""
    return sum(any(np.linalg.norm(np.subtract(f.center, row[:3])) < row[3] / 2 for f in result.called) for row in truth)


def test_it_finds_balls_that_it_never_saw(trained):
    predictor = open_predictor(load_bundle(trained[0]))
    assert isinstance(predictor, DetectionPredictor)
    found = there = false = 0
    for number in range(100, 105):
        voxels, affine, truth = scan_with_balls(number)
        result = predictor.predict(make_image(voxels[None], affine))
        found, there, false = found + hits(result, truth), there + len(truth), false + len(result.called)
    assert found >= 0.7 * there
    assert false - found <= 5


def test_the_bundle_says_what_it_finds_and_how_good_it_is(trained):
    bundle = load_bundle(trained[0])
    assert bundle.info.task == "detection" and bundle.info.answer_names == ("ball",)
    assert len(bundle.plan.anchors) == 4
    assert 0 < bundle.inference["threshold"] < 1
    for metric in ("froc", "recall", "precision", "false_positives_per_scan", "average_precision_0.1"):
        assert metric in bundle.info.metrics
    assert "nearer to its own than its radius" in bundle.info.card


@pytest.mark.slow
def test_48_axis_orders_give_the_same_findings(trained):
    predictor = open_predictor(load_bundle(trained[0]))
    voxels, affine, _ = scan_with_balls(101)
    expected = predictor.predict(make_image(voxels[None], affine)).findings
    assert expected
    for array, turned, _ in every_axis_order(voxels[None], affine):
        found = predictor.predict(make_image(array, turned)).findings
        np.testing.assert_allclose([f.center for f in found], [f.center for f in expected], atol=1e-4)
        np.testing.assert_allclose([f.size for f in found], [f.size for f in expected], atol=1e-4)
        np.testing.assert_allclose([f.score for f in found], [f.score for f in expected], atol=1e-6)


def test_boxes_go_to_an_oblique_grid_and_back():
    """A ball keeps its box whichever way the grid is turned; an ellipsoid's may only grow."""
    affine = np.eye(4)
    affine[:3, :3] = rotation((1, 2, 3), 40)[:3, :3] * [0.8, 0.8, 2.5]
    affine[:3, 3] = 5, 6, 7
    dataset_truth = scan_with_balls(3)[2]
    findings = [finding_of_sphere(row[:3], row[3], "ball") for row in dataset_truth]
    grid = Grid((50, 50, 50), affine)
    centers, _ = from_grid(boxes_on_grid(findings, grid), grid)
    np.testing.assert_allclose(centers, dataset_truth[:, :3])
    upright = Grid((50, 50, 50), np.diag([0.8, 0.8, 2.5, 1.0]))
    centers, sizes = from_grid(boxes_on_grid(findings, upright), upright)
    np.testing.assert_allclose(sizes, dataset_truth[:, [3, 3, 3]])


def test_a_region_and_progress_and_cancel(trained):
    predictor = open_predictor(load_bundle(trained[0]))
    voxels, affine, truth = scan_with_balls(102)
    image = make_image(voxels[None], affine)
    said = []
    result = predictor.predict(
        image, roi=(tuple(truth[0, :3]), (20, 20, 20)), progress=lambda fraction, message: said.append(fraction)
    )
    away = np.abs(np.array([f.center for f in result.findings]) - truth[0, :3])
    assert (away <= 10 + 2).all()
    assert said == sorted(said) and said[-1] == 1
    with pytest.raises(Cancelled):
        predictor.predict(image, cancelled=lambda: True)
    with pytest.raises(InputError, match=r"1 channel\(s\) and this one has 2"):
        predictor.predict(make_image(np.stack([voxels, voxels]), affine))


def test_evaluation_on_the_command_line(trained, capsys, tmp_path):
    bundle, table, _ = trained
    assert main(["evaluate", str(bundle), str(table), "--json", "--curves", str(tmp_path / "curves")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["cases"]) == 2 and 0 <= report["summary"]["froc"]["mean"] <= 1
    assert {"hits", "missed", "false_positives"} <= set(report["cases"][0])
    assert any((tmp_path / "curves").glob("*.png"))


@pytest.mark.parametrize("ending", [".csv", ".json", ".mrk.json"])
def test_a_run_on_the_command_line(trained, capsys, tmp_path, ending):
    voxels, affine, truth = scan_with_balls(103)
    write_array(voxels, affine, tmp_path / "scan.nrrd")
    with open(tmp_path / "truth.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["x", "y", "z", "diameter_mm", "class", "frame"], *([*r, "ball", "RAS"] for r in truth)]
        )
    output = tmp_path / f"found{ending}"
    call = ["run", str(trained[0]), str(tmp_path / "scan.nrrd"), str(output), "--json"]
    assert main([*call, "--reference", str(tmp_path / "truth.csv")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["frame"] == "RAS mm" and report["metrics"]["hits"] + report["metrics"]["missed"] == 2
    assert output.stat().st_size > 0
    text = output.read_text()
    assert ("LPS" if ending == ".mrk.json" else "RAS") in text


def test_bad_calls_of_a_detector_write_nothing(trained, capsys, tmp_path):
    voxels, affine, truth = scan_with_balls(104)
    write_array(voxels, affine, tmp_path / "scan.nrrd")
    beside = tmp_path / "beside.csv"
    with open(beside, "w", newline="") as file:
        far = [*truth[0][:2], 9999, truth[0][3]]
        csv.writer(file).writerows(
            [["x", "y", "z", "diameter_mm", "class", "frame"], *([*r, "ball", "RAS"] for r in (truth[0], far))]
        )
    for output, extra, said in (
        ("found.nii.gz", [], ".csv"),
        ("found.csv", ["--saliency", str(tmp_path / "map.nrrd")], "--saliency"),
        ("found.csv", ["--mirror"], "mirrored"),
        ("found.csv", ["--reference", str(tmp_path / "none.csv")], "none.csv"),
        ("found.csv", ["--reference", str(beside)], "1 of 2 findings"),
        ("found.csv", ["--proposals", str(beside)], "--proposals is for"),
    ):
        assert main(["run", str(trained[0]), str(tmp_path / "scan.nrrd"), str(tmp_path / output), *extra]) == 2
        error = capsys.readouterr().err.strip()
        assert said in error and len(error.splitlines()) == 1
        assert not (tmp_path / output).exists()


def test_a_data_set_of_another_task_is_refused(tmp_path):
    table = write_findings_dataset(tmp_path / "data", 3)
    config = detection_config(table)
    config["task"]["name"] = "segmentation"
    config["network"] = {"name": "unet"}
    with pytest.raises(InputError, match="data set of findings"):
        train(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_scan_without_lungs_is_named_and_nothing_is_left(tmp_path):
    config = detection_config(write_findings_dataset(tmp_path / "data", 3))
    config["plan"] |= {"region": "lungs"}
    with pytest.raises(InputError, match=r"Case scan\d of findings: "):
        train(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_plan_is_measured(tmp_path):
    dataset = open_dataset(write_findings_dataset(tmp_path / "data", 4))
    plan = make_detection_plan(dataset, list(dataset.cases))
    np.testing.assert_allclose(plan.spacing, (1.0, 1.0, 2.0))
    assert plan.normalization == {"kind": "ct", "clip": [-1000.0, 400.0], "mean": -300.0, "sd": 700.0}
    sizes = [f.size for case in dataset.cases for f in case.findings]
    smallest, largest = np.min(sizes) / np.array([1, 1, 2]), np.max(sizes) / np.array([1, 1, 2])
    assert all((np.array(anchor) >= smallest - 0.01).all() for anchor in plan.anchors)
    assert all((np.array(anchor) <= largest + 0.01).all() for anchor in plan.anchors)
    assert plan.measured["findings"] == 8 and plan.patch == (32, 32, 16)
    with pytest.raises(InputError, match="windows"):
        make_detection_plan(dataset, list(dataset.cases), {"framing": "crop"})


def test_a_scan_is_loaded_with_its_findings_in_place(tmp_path):
    dataset = open_dataset(write_findings_dataset(tmp_path / "data", 2))
    image, reference = load_case(dataset.cases[0], dataset)
    truth = scan_with_balls(0)[2]
    np.testing.assert_allclose(
        sorted(f.center for f in reference.findings), sorted(map(tuple, truth[:, :3])), atol=1e-3
    )
    voxels = image.numpy()[0]
    for finding in reference.findings:
        index = np.linalg.inv(np.asarray(image.affine)) @ [*finding.center, 1]
        assert voxels[tuple(np.round(index[:3]).astype(int))] > -400


@pytest.mark.parametrize(
    "network",
    [
        {"name": "retinanet", "backbone": "light"},
        {"name": "faster-rcnn", "backbone": "light"},
        {"name": "fast-rcnn", "backbone": "light"},
    ],
    ids=lambda network: network["name"],
)
def test_slices_are_looked_at_by_torchvisions_networks(tmp_path, network):
    table = write_findings_dataset(tmp_path / "data", 4)
    config = detection_config(table, epochs=1, iterations=2, network=network)
    config["plan"] = {"spacing": [0, 0, 0], "patch": [48, 48, 1]}
    bundle = load_bundle(train(config, tmp_path / "out"))
    voxels, affine, _ = scan_with_balls(105)
    result = open_predictor(bundle).predict(make_image(voxels[None], affine))
    assert result.classes == ("ball",)
    assert all(0 <= finding.score <= 1 and min(finding.size) > 0 for finding in result.findings)


def test_a_fast_rcnn_chooses_among_the_boxes_of_a_table(tmp_path, capsys):
    """Proposals beside the balls lead to findings beside the balls; without any it says what is missing."""
    table = write_findings_dataset(tmp_path / "data", 3)
    rows = list(csv.reader(open(table)))
    with open(tmp_path / "data" / "boxes.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    network = {"name": "fast-rcnn", "backbone": "light", "width": 0.5, "proposals": "given", "score_floor": 0.0}
    config = detection_config(table, epochs=1, iterations=2, network=network)
    config["dataset"]["proposals"] = str(tmp_path / "data" / "boxes.csv")
    folder = train(config, tmp_path / "out")
    voxels, affine, truth = scan_with_balls(1)
    write_array(voxels, affine, tmp_path / "scan.nrrd")
    with open(tmp_path / "one.csv", "w", newline="") as file:
        csv.writer(file).writerows([["x", "y", "z", "diameter_mm", "class", "frame"], [*truth[0], "ball", "RAS"]])
    call = ["run", str(folder), str(tmp_path / "scan.nrrd"), str(tmp_path / "found.json")]
    assert main([*call, "--proposals", str(tmp_path / "one.csv")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["findings"]
    assert found and all(np.linalg.norm(np.subtract(f["center"], truth[0, :3])) < 25 for f in found)
    capsys.readouterr()
    assert main(call) == 2
    assert "proposals" in capsys.readouterr().err


def plan_of(spacing=(2.5, 2.5, 4.0), **more):
    about = {"patch": (32, 32, 16), "batch": 1, "normalization": {"kind": "none"}, "interpolation": "linear"}
    return Plan(**about | {"spacing": spacing, "axes": "patient", "framing": "windows"} | more)


def test_lungs_are_the_region_of_a_whole_scan_and_not_of_a_part_that_was_chosen():
    body = chest(lesion=(70, 20, 10, 6))
    image = make_image(body.voxels[None], body.affine)
    region = crop_to_region(image, "lungs")
    assert region.shape < image.shape
    pair = crop_to_region(make_image(np.stack([body.voxels, 0 * body.voxels]), body.affine), "lungs")
    np.testing.assert_array_equal(pair[:1], region)
    part = crop_to_roi(image, (70, 20, 10), (60, 60, 60))[0]
    with pytest.raises(InputError, match="No lungs"):
        crop_to_region(part, "lungs")
    part.meta["is_region"] = True
    assert crop_to_region(part, "lungs") is part


@pytest.mark.parametrize("spacing", [(2.5, 2.5, 4.0), (1.7, 1.7, 3.0), (4.0, 4.0, 4.0)])
def test_masks_lie_in_their_boxes_after_cropping_to_the_lungs(spacing):
    body = chest()
    places = np.indices(body.voxels.shape).T @ body.affine[:3, :3].T + body.affine[:3, 3]
    ball = (np.linalg.norm(places - (70, 20, 10), axis=-1) < 12).T.astype(np.uint8)
    reference = FindingReference(("ball",), (finding_of_sphere((70, 20, 10), 24, "ball"),), instances=ball)
    task = DetectionTask(plan_of(spacing, region="lungs"), FindingClasses(("ball",)), {"masks": True})
    prepared = task.prepare(make_image(body.voxels[None], body.affine), reference)
    middle = np.argwhere(prepared["instances"] == 1).mean(axis=0) + 0.5
    box = prepared["boxes"][0]
    np.testing.assert_allclose(middle, (box[:3] + box[3:]) / 2, atol=0.2)


def test_a_mask_has_the_voxels_whose_middle_is_in_the_box():
    task = DetectionTask(plan_of(), FindingClasses(("ball",)), {})
    boxes = np.array([[3.9, 3.9, 3.9, 6.1, 6.1, 6.1], [3.6, 3.6, 3.6, 4.4, 4.4, 4.4]])
    found = FoundBoxes(boxes, np.array([0.9, 0.8]), np.zeros(2, int), (np.ones((7, 7, 7)),) * 2)
    larger, smaller = task.findings(found, Grid((20, 20, 20), np.eye(4)))
    assert larger.mask.values.shape == (2, 2, 2) and larger.volume_ml == pytest.approx(0.008)
    assert smaller.mask.values.shape == (1, 1, 1)
    np.testing.assert_allclose(smaller.mask.affine[:3, 3], 4)


def test_validation_tells_classes_apart_and_reads_pictures_in_their_plane():
    """A box of 60 x 40 mm in a picture 1 mm thick is hit 20 mm off its middle, by a finding of its class alone."""
    task = DetectionTask(plan_of((1, 1, 0), patch=(64, 64, 1)), FindingClasses(("a", "b")), {})
    boxes = np.array([[20.0, 20, 0, 80, 60, 1]])
    case = {"image": np.zeros((1, 128, 128, 1)), "boxes": boxes, "labels": np.array([1]), "ignored": np.zeros((0, 6))}
    grid = Grid((128, 128, 1), np.eye(4))
    for label, expected in ((1, 1.0), (0, 0.0)):
        found = FoundBoxes(boxes + [20, 0, 0, 20, 0, 0], np.array([0.9]), np.array([label]))
        (finding,) = task.findings(found, grid)
        assert finding.diameter_mm == pytest.approx(np.sqrt(60 * 40))
        more = {"affine": np.eye(4), "radii": np.array([finding.diameter_mm / 2]), "ignored_radii": np.zeros(0)}
        assert task.validate(lambda image, found=found: found, None, [case | more], "cpu") == {"froc": expected}


@pytest.mark.slow
def test_false_positive_reduction_is_trained_and_shipped_inside(tmp_path):
    table = write_findings_dataset(tmp_path / "data", 8)
    (tmp_path / "second.toml").write_text(
        """
[task]
name = "classification"
[dataset]
path = "candidates.csv"
[plan]
framing = "crop"
spacing = [1.0, 1.0, 2.0]
patch = [16, 16, 8]
batch = 8
[network]
name = "resnet18"
width = 0.125
stem = "small"
[training]
epochs = 3
device = "cpu"
ema_decay = 0.8
[augmentation]
flip_axes = [0, 1, 2]
"""
    )
    config = detection_config(table, epochs=2, iterations=20)
    config["false_positives"] = {"recipe": str(tmp_path / "second.toml"), "per_scan": 6, "crop_mm": 32.0}
    folder = train(config, tmp_path / "out")
    bundle = load_bundle(folder)
    (stage,) = bundle.stages
    assert stage.info.classes.names == ("other", "finding")
    assert len(bundle.inference["second_look"]["weights"]) == 2
    with open(tmp_path / "out" / "candidates" / "candidates.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {"other", "finding"}
    # A patient's candidates are all in the part that the patient is in.
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    train_patients = {f"patient{name.removeprefix('scan')}" for name in split["train"]}
    assert {row["patient"] for row in rows if row["split"] == "train"} <= train_patients
    voxels, affine, truth = scan_with_balls(106)
    image = make_image(voxels[None], affine)
    looked = open_predictor(bundle).predict(image)
    plain = DetectionPredictor(bundle, second_look=False).predict(image)
    assert len(looked.findings) == len(plain.findings)
    assert [f.score for f in looked.findings] != [f.score for f in plain.findings]
    # A file of a stage that was changed is noticed as any other.
    weights = folder / "stages" / "1" / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="checksum differs"):
        load_bundle(folder)
