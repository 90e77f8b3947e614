"""Average precision against pycocotools, and the report on detections against counts made by hand."""

from __future__ import annotations

import contextlib
import io
import json
import math

import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.figures import draw_curves
from MedMapAILib.metrics.average_precision import AveragePrecision, ScanBoxes, average_precision
from MedMapAILib.metrics.bootstrap import resampled_weights
from MedMapAILib.metrics.detection import detection_report, score_case
from MedMapAILib.metrics.froc import RATES
from MedMapAILib.results.detection import Detections, Finding, FindingReference, finding_of_sphere
from PIL import Image

LOW, HIGH = np.linspace(0.1, 0.5, 9), np.linspace(0.5, 0.95, 10)


def random_images(seed: int, *, count: int = 25, most: int = 12, digits: int = 9, crowds: int = 0) -> list[ScanBoxes]:
    """Findings, and boxes near them and elsewhere, in a plane of 100×100."""
    random = np.random.default_rng(seed)

    def boxes(n: int) -> np.ndarray:
        low = random.uniform(0, 80, (n, 2))
        return np.concatenate([low, low + random.uniform(3, 25, (n, 2))], axis=1)

    images = []
    for _ in range(count):
        truth, ignored = boxes(random.integers(0, 6)), boxes(random.integers(0, crowds + 1))
        near = [one + random.normal(0, 2.5, 4) for one in (*truth, *ignored) for _ in range(random.integers(0, 3))]
        near = [one for one in near if (one[2:] > one[:2] + 0.5).all()]
        found = np.concatenate([np.array(near).reshape(-1, 4), boxes(random.integers(0, most))])
        images.append(ScanBoxes(found, random.random(len(found)).round(digits), truth, ignored))
    return images


def coco(images: list[ScanBoxes], thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(average precision, recall) at each threshold, of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def listed(boxes: np.ndarray) -> list:
        return [[*box[:2], *(box[2:] - box[:2])] for box in boxes]

    annotations, results = [], []
    for number, image in enumerate(images):
        for crowd, boxes in enumerate((image.truth, image.ignored)):
            for box in listed(boxes):
                one = {"image_id": number, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
                annotations.append({"id": len(annotations) + 1, **one})
        for box, score in zip(listed(image.boxes), image.scores, strict=True):
            results.append({"image_id": number, "category_id": 1, "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(len(images))],
            "annotations": annotations,
            "categories": [{"id": 1}],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.iouThrs = thresholds
        evaluation.evaluate()
        evaluation.accumulate()
    # (thresholds, recalls, classes, areas, most boxes): all areas, 100 boxes.
    return evaluation.eval["precision"][:, :, 0, 0, -1].mean(axis=1), evaluation.eval["recall"][:, 0, 0, -1]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"digits": 1},  # many boxes of equal score
        {"crowds": 3},
        {"most": 300, "count": 4},  # more boxes than count
        {"crowds": 2, "digits": 2, "count": 60},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
@pytest.mark.parametrize("thresholds", [LOW, HIGH], ids=["0.1-0.5", "0.5-0.95"])
def test_average_precision_is_pycocotools(settings, thresholds):
    pytest.importorskip("pycocotools", reason="the comparison needs pycocotools")
    for seed in range(3):
        images = random_images(seed, **settings)
        wanted = coco(images, thresholds)
        found = average_precision(images, thresholds)
        assert found[0] == pytest.approx(wanted[0], abs=1e-9) and found[1] == pytest.approx(wanted[1], abs=1e-12)
        assert 0 < found[0].mean() < 1


def test_boxes_that_stand_through_a_volume_are_judged_as_in_the_plane():
    images = random_images(1, crowds=2)

    def stood(boxes: np.ndarray) -> np.ndarray:
        ends = np.ones((len(boxes), 1))
        return np.concatenate([boxes[:, :2], 3 * ends, boxes[:, 2:], 7 * ends], axis=1)

    through = [ScanBoxes(stood(i.boxes), i.scores, stood(i.truth), stood(i.ignored)) for i in images]
    for flat, deep in zip(average_precision(images, LOW), average_precision(through, LOW), strict=True):
        assert deep == pytest.approx(flat, abs=1e-12)


def test_the_overlap_of_cubes_by_hand():
    # Cubes of side 2, one moved by 1 along each axis: they share 1 of 15.
    cube = np.array([[0.0, 0, 0, 2, 2, 2]])
    image = ScanBoxes(cube + 1, np.array([0.5]), cube)
    precision, recall = average_precision([image], [1 / 15 - 1e-9, 1 / 15 + 1e-9])
    assert precision.tolist() == recall.tolist() == [1, 0]


def test_average_precision_is_not_defined_without_findings():
    nothing = ScanBoxes(np.zeros((0, 6)), np.zeros(0), np.zeros((0, 6)))
    assert np.isnan(average_precision([nothing], [0.5])).all()
    missed = ScanBoxes(np.zeros((0, 6)), np.zeros(0), np.array([[0.0, 0, 0, 1, 1, 1]]))
    assert np.array(average_precision([nothing, missed], [0.1, 0.5])).tolist() == [[0, 0], [0, 0]]


def test_weights_are_images_that_are_there_more_than_once():
    images = random_images(5, crowds=1)
    curve = AveragePrecision(images, LOW)
    for weights in resampled_weights(len(images), resamples=5, seed=2):
        precision, recall = curve(weights)
        for number, row in enumerate(weights.astype(int)):
            again = average_precision([image for image, n in zip(images, row, strict=True) for _ in range(n)], LOW)
            assert precision[:, number] == pytest.approx(again[0]) and recall[:, number] == pytest.approx(again[1])


def nodule(x: float, score: float | None = None, diameter: float = 10, label: str = "nodule", **about) -> Finding:
    return finding_of_sphere((x, 0, 0), diameter, label, score=score, **about)


def pair(found=(), there=(), ignored=(), *, threshold=0.5, classes=("nodule",)):
    return Detections(classes, tuple(found), threshold), FindingReference(classes, tuple(there), tuple(ignored))


SCANS = [
    # A hit, a double hit below the operating point, one on an ignored finding, a false positive.
    pair(
        [nodule(1, 0.9), nodule(2, 0.3), nodule(50, 0.8), nodule(100, 0.6)],
        [nodule(0), nodule(200)],
        [nodule(50.8)],
    ),
    # Found, but below the operating point.
    pair([nodule(0, 0.4)], [nodule(0)]),
    # Nothing there, nothing called.
    pair([nodule(0, 0.1)]),
]


def test_one_scan_by_hand():
    assert score_case(*SCANS[0]) == {
        "found": 3,
        "hits": 1,
        "missed": 1,
        "false_positives": 1,
        "ignored": 1,
        "double_hits": 0,
    }
    result, reference = SCANS[0]
    assert score_case(result.at(0.2), reference)["double_hits"] == 1


def test_what_a_reader_says_counts_whatever_the_score():
    result, reference = pair(
        [nodule(0, 0.1, state="accepted"), nodule(100, 0.9, state="rejected"), nodule(50, state="added")], [nodule(0)]
    )
    counts = score_case(result, reference)
    assert (counts["found"], counts["hits"], counts["false_positives"]) == (2, 1, 1)
    report = detection_report([result], [reference], resamples=5)
    # The one that was added is sure, and so comes before the one that was accepted; the rejected one is not there.
    assert report["curves"]["froc"]["nodule"]["threshold"][1:] == [1.0, 0.1]


def test_the_report_by_hand():
    results, references = zip(*SCANS, strict=True)
    report = detection_report(results, references, ["a", "a", "b"], resamples=50)
    summary = {name: value["mean"] for name, value in report["summary"].items()}
    assert summary["precision"] == 1 / 2 and summary["recall"] == 1 / 3 and summary["f1"] == pytest.approx(2 / 5)
    assert summary["false_positives_per_scan"] == pytest.approx(1 / 3)
    # Scores: 0.9 hit, 0.6 false, 0.4 hit, 0.1 false; three scans, three findings. Up to the first false positive 1/3.
    wanted = [1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3]
    assert [summary[f"sensitivity_at_{rate:g}"] for rate in RATES] == pytest.approx(wanted)
    assert summary["froc"] == pytest.approx(np.mean(wanted))
    # Boxes at IoU 0.1: of 10 mm cubes 1 mm apart 9 of 11 are shared. Hit, (ignored), false, hit, double, false:
    # precision 1 up to recall 1/3 (34 of 101 recalls), 2/3 up to 2/3 (33 more).
    assert summary["average_precision_0.1"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert summary["recall_0.1"] == pytest.approx(2 / 3)
    assert summary["map_0.1_0.5"] == pytest.approx(summary["average_precision_0.1"])
    # From 0.85 on only the box right on its finding hits, after two false positives; at 0.95 after three, since no more
    # than 92 % of the box on the ignored finding lie within that.
    precision = [summary["average_precision_0.1"]] * 7 + [34 / 101 / 3] * 2 + [34 / 101 / 4]
    assert summary["map_0.5_0.95"] == pytest.approx(np.mean(precision))
    assert report["counts"] == {
        "found": 3,
        "hits": 1,
        "missed": 2,
        "false_positives": 1,
        "ignored": 1,
        "double_hits": 0,
    }
    assert report["curves"]["froc"]["nodule"]["operating_point"] == [1 / 3, 1 / 3]
    assert report["curves"]["precision_recall"]["nodule"]["operating_point"] == [1 / 3, 1 / 2]
    for value in report["summary"].values():
        assert value["cases"] == 3 and value["low"] <= value["high"]
        assert all(map(math.isfinite, value.values()))
    json.dumps(report, allow_nan=False)


def test_patients_are_drawn_together():
    good, bad = pair([nodule(0, 0.9)], [nodule(0)]), pair([], [nodule(0)])
    results, references = zip(*([good] * 20 + [bad] * 20), strict=True)
    alone = detection_report(results, references, resamples=200)["summary"]
    together = detection_report(results, references, ["a"] * 20 + ["b"] * 20, resamples=200)["summary"]
    for name in ("froc", "recall", "average_precision_0.1"):
        assert (together[name]["low"], together[name]["high"]) == (0, 1)
        assert 0.25 < alone[name]["low"] < 0.5 < alone[name]["high"] < 0.75


def test_only_findings_of_a_class_meet():
    classes = ("nodule", "mass")
    crossed = pair([nodule(0, 0.9, label="mass")], [nodule(0)], classes=classes)
    right = pair([nodule(0, 0.9, label="mass")], [nodule(0, label="mass")], classes=classes)
    report = detection_report(*zip(crossed, right, strict=True), resamples=20)
    summary = {name: value["mean"] for name, value in report["summary"].items()}
    assert summary["nodule: froc"] == 0 and summary["nodule: average_precision_0.1"] == 0
    # A mass in one of two scans, both marked alike: found at half a false positive per scan.
    assert summary["mass: sensitivity_at_0.5"] == 1 and summary["mass: sensitivity_at_0.25"] == 0.5
    assert summary["froc"] == pytest.approx(summary["mass: froc"] / 2)
    assert summary["recall"] == summary["precision"] == 0.5
    # A class that is nowhere leaves the means as they are.
    more = (*classes, "cyst")
    pairs = [pair(result.findings, reference.findings, classes=more) for result, reference in (crossed, right)]
    again = detection_report(*zip(*pairs, strict=True), resamples=5)
    assert again["summary"]["froc"]["mean"] == summary["froc"] and "cyst: froc" not in again["summary"]


def test_nothing_is_claimed_where_nothing_is_there():
    result, reference = pair()
    report = detection_report([result], [reference], resamples=5)
    assert report["summary"] == {"false_positives_per_scan": {"mean": 0.0, "low": 0.0, "high": 0.0, "cases": 1}}
    assert report["curves"] == {"froc": {}, "precision_recall": {}}
    json.dumps(report, allow_nan=False)


def test_what_does_not_belong_together():
    result, reference = SCANS[0]
    with pytest.raises(InputError, match="1 results for 2 references"):
        detection_report([result], [reference] * 2)
    with pytest.raises(InputError, match="0 results"):
        detection_report([], [])
    with pytest.raises(InputError, match="finds nodule and the reference holds mass"):
        score_case(result, FindingReference(("mass",), ()))
    with pytest.raises(InputError, match="different classes"):
        detection_report([result, Detections(("mass",), (), 0.5)], [reference, FindingReference(("mass",), ())])
    with pytest.raises(InputError, match="confidence 1"):
        detection_report([result], [reference], confidence=1)


def test_curves_are_drawn(tmp_path):
    results, references = zip(*SCANS, strict=True)
    report = detection_report(results, references, resamples=5)
    written = draw_curves(report, tmp_path / "figures", title="lung-nodule")
    assert [path.name for path in written] == ["froc.png", "precision-recall.png"]
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 500 and len(picture.convert("RGB").getcolors(1 << 20)) > 20
    nothing = detection_report(*[[one] for one in pair()], resamples=5)
    assert draw_curves(nothing, tmp_path / "figures") == []
