"""Points of curves against scikit-learn's, and the figures of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.figures import draw_curves
from MedMapAILib.metrics import calls, choose_operating_point, classification_curves, classification_report
from MedMapAILib.metrics.curves import precision_recall_points, reliability_points, roc_curve_points
from PIL import Image
from scipy.stats import binomtest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve


def scores(n: int = 400, digits: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = random.random(n) < 0.3
    return np.round(1 / (1 + np.exp(-(random.normal(size=n) + 1.5 * positive))), digits), positive


@pytest.mark.parametrize("digits", [1, 2, 8])
def test_the_roc_curve_is_scikit_learns(digits):
    p, positive = scores(digits=digits)
    found = {name: np.array(values) for name, values in roc_curve_points(p, positive).items()}
    false, true, thresholds = sk.roc_curve(positive, p, drop_intermediate=False)
    corners = {(x, y): t for x, y, t in zip(false.round(12), true.round(12), thresholds, strict=True)}
    for x, y, t in zip(*(found[name] for name in found), strict=True):
        wanted = corners[round(x, 12), round(y, 12)]
        assert t == wanted or (wanted == np.inf and (p < t).all())
    # What was left out lies on the lines between the others.
    assert sk.auc(found["false_positive_rate"], found["true_positive_rate"]) == pytest.approx(
        sk.roc_auc_score(positive, p)
    )
    assert len(found["threshold"]) < len(thresholds) or digits == 1


@pytest.mark.parametrize("digits", [1, 8])
def test_the_precision_recall_curve_is_scikit_learns(digits):
    p, positive = scores(digits=digits)
    found = precision_recall_points(p, positive)
    precision, recall, _ = sk.precision_recall_curve(positive, p)
    wanted = {}
    for x, y in zip(recall.round(12), precision, strict=True):
        wanted[x] = max(y, wanted.get(x, 0)) if x else 1.0
    if digits == 8:  # without ties the first point of a recall is its best
        assert dict(zip(np.round(found["recall"], 12), found["precision"], strict=True)) == pytest.approx(wanted)
    steps = np.diff(found["recall"], prepend=0)
    assert (steps * found["precision"]).sum() == pytest.approx(sk.average_precision_score(positive, p))


def test_curves_of_a_perfect_classifier_have_a_corner():
    assert roc_curve_points([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0]) == {
        "false_positive_rate": [0, 0, 1],
        "true_positive_rate": [0, 1, 1],
        "threshold": [np.nextafter(0.9, 1), 0.8, 0.1],
    }
    assert precision_recall_points([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])["precision"] == [1, 1, 1]


def test_reliability_is_scikit_learns_with_wilsons_interval():
    p, positive = scores(n=500)
    found = reliability_points(p, positive, bins=10)
    frequency, confidence = sk_curve = calibration_curve(positive, p, n_bins=10)
    assert len(sk_curve[0]) == len(found["cases"]) and sum(found["cases"]) == 500
    assert found["frequency"] == pytest.approx(frequency) and found["confidence"] == pytest.approx(confidence)
    for n, share, low, high in zip(*(found[name] for name in ("cases", "frequency", "low", "high")), strict=True):
        wanted = binomtest(round(n * share), n).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_curves_that_are_not_defined():
    with pytest.raises(InputError, match="ROC"):
        roc_curve_points([0.1, 0.9], [1, 1])
    with pytest.raises(InputError, match="positive cases"):
        precision_recall_points([0.1, 0.9], [0, 0])
    with pytest.raises(InputError, match="alike"):
        roc_curve_points([0.1, 0.9], [1])


def predictions(kind: str, classes: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    if kind == "multi-label":
        target = (random.random((n, classes)) < 0.3).astype(int)
        return 1 / (1 + np.exp(-(2 * target - 1 + random.normal(size=target.shape)))), target
    target = np.eye(classes, dtype=int)[random.integers(classes, size=n)]
    logits = random.normal(size=target.shape) + 1.5 * target
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), target


def test_which_curves_a_kind_has():
    names = list("abcd")
    for kind, count, curves, reliability in (
        ("binary", 2, ["b"], ["b"]),
        ("multi-label", 3, ["a", "b", "c"], ["a", "b", "c"]),
        ("single-label", 4, names, ["highest probability"]),
        ("ordinal", 4, names, ["highest probability"]),
    ):
        found = classification_curves(*predictions(kind, count), kind=kind, classes=names[:count])
        assert list(found["roc"]) == list(found["precision_recall"]) == curves
        assert list(found["reliability"]) == reliability


def test_the_operating_point_is_on_the_curves():
    p, target = predictions("binary", 2)
    thresholds = choose_operating_point(p, target, kind="binary")
    found = classification_curves(p, target, kind="binary", classes=["no", "yes"], thresholds=thresholds)
    roc, called = found["roc"]["yes"], calls(p, "binary", thresholds)[:, 1]
    x, y = roc["operating_point"]
    assert (x, y) in zip(roc["false_positive_rate"], roc["true_positive_rate"], strict=True)
    assert y == sk.recall_score(target[:, 1], called)
    recall, precision = found["precision_recall"]["yes"]["operating_point"]
    assert (recall, precision) == (y, sk.precision_score(target[:, 1], called))


def test_long_curves_are_thinned_and_keep_their_ends():
    p, target = predictions("binary", 2, n=20_000)
    whole = classification_curves(p, target, kind="binary", classes=["no", "yes"], at_most=10**6)["roc"]["yes"]
    thin = classification_curves(p, target, kind="binary", classes=["no", "yes"])["roc"]["yes"]
    assert len(thin["threshold"]) == 1000 < len(whole["threshold"])
    x, y = thin["false_positive_rate"], thin["true_positive_rate"]
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert sk.auc(x, y) == pytest.approx(sk.auc(whole["false_positive_rate"], whole["true_positive_rate"]), abs=1e-3)


@pytest.mark.parametrize(("kind", "classes"), [("binary", 2), ("multi-label", 5), ("ordinal", 7)])
def test_figures_are_drawn(tmp_path, kind, classes):
    p, target = predictions(kind, classes)
    names = [f"class {k}" for k in range(classes)]
    report = classification_report(p, target, kind=kind, classes=names, resamples=20)
    # From JSON, as a report that was kept.
    report = json.loads(json.dumps(report, allow_nan=False))
    written = draw_curves(report, tmp_path / "new" / "figures", title="A model")
    assert [path.name for path in written] == [
        "roc.png",
        "precision-recall.png",
        "reliability.png",
        "confusion-matrix.png",
    ]
    assert sorted(written) == sorted((tmp_path / "new" / "figures").iterdir())
    for path in written:
        with Image.open(path) as image:
            assert min(image.size) > 300
            # Something is on it, in color.
            colors = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
            assert (np.ptp(colors, axis=1) > 60).sum() > 100


def test_a_curve_that_is_not_defined_is_no_figure(tmp_path):
    p, _ = predictions("binary", 2)
    target = np.tile([1, 0], (len(p), 1))
    report = classification_report(p, target, kind="binary", classes=["no", "yes"], resamples=20)
    assert [path.name for path in draw_curves(report, tmp_path)] == ["reliability.png", "confusion-matrix.png"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    report = classification_report(*predictions("binary", 2), kind="binary", classes=["no", "yes"], resamples=5)
    with pytest.raises(InputError, match="cannot be made"):
        draw_curves(report, tmp_path / "file" / "figures")
