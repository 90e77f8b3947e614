"""Classification metrics against scikit-learn and torchmetrics, closed forms, and what the bootstrap promises."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.metrics import calls, classification_metrics, classification_report, confusion_matrix
from MedMapAILib.metrics.bootstrap import resampled_weights
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

KINDS = ("binary", "single-label", "multi-label", "ordinal")
COUNT = {"binary": 2, "single-label": 4, "multi-label": 3, "ordinal": 5}


def names(kind: str) -> list[str]:
    return [f"class {k}" for k in range(COUNT[kind])]


def random_case(kind: str, n: int = 300, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities, target), better than chance; with ties all probabilities are multiples of 1/12."""
    random, k = np.random.default_rng(seed), COUNT[kind]
    if kind == "multi-label":
        target = random.random((n, k)) < [0.1, 0.5, 0.8]
        p = 1 / (1 + np.exp(-(1.5 * target - 0.7 + random.normal(size=target.shape))))
        return (np.round(p * 12) / 12 if ties else p), target.astype(int)
    true = random.choice(k, size=n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
    logits = random.normal(size=(n, k)) + 1.2 * np.eye(k)[true]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if ties:
        p = np.array([random.multinomial(12, row) for row in p]) / 12
    return p, np.eye(k, dtype=int)[true]


def values(p, target, kind, **settings) -> dict[str, float]:
    settings = {"classes": names(kind), "resamples": 5, **settings}
    return {name: value["mean"] for name, value in classification_metrics(p, target, kind=kind, **settings).items()}


def scikit(p: np.ndarray, target: np.ndarray, called: np.ndarray, kind: str, weight=None) -> dict[str, float]:
    """The same by scikit-learn."""
    wanted, common = {}, {"sample_weight": weight}
    for k, name in enumerate(names(kind)):
        t, c = target[:, k], called[:, k]
        wanted[f"{name}: precision"] = sk.precision_score(t, c, **common)
        wanted[f"{name}: recall"] = sk.recall_score(t, c, **common)
        wanted[f"{name}: specificity"] = sk.recall_score(t, c, pos_label=0, **common)
        wanted[f"{name}: f1"] = sk.f1_score(t, c, **common)
        wanted[f"{name}: auc"] = sk.roc_auc_score(t, p[:, k], **common)
        wanted[f"{name}: average_precision"] = sk.average_precision_score(t, p[:, k], **common)
    for average in ("macro", "micro"):
        for metric, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            wanted[f"{average}_{metric}"] = score(target, called, average=average, **common)
    wanted["macro_specificity"] = np.mean([wanted[f"{name}: specificity"] for name in names(kind)])
    wanted["micro_specificity"] = sk.recall_score(
        target.ravel(),
        called.ravel(),
        pos_label=0,
        sample_weight=None if weight is None else np.repeat(weight, target.shape[1]),
    )
    if kind == "multi-label":
        labels = range(target.shape[1])
        wanted["accuracy"] = np.mean([sk.accuracy_score(target[:, k], called[:, k], **common) for k in labels])
        wanted["exact_match"] = sk.accuracy_score(target, called, **common)
        wanted["balanced_accuracy"] = np.mean(
            [sk.balanced_accuracy_score(target[:, k], called[:, k], **common) for k in labels]
        )
        wanted["brier"] = np.mean([sk.brier_score_loss(target[:, k], p[:, k], **common) for k in labels])
        wanted["log_loss"] = np.mean([sk.log_loss(target[:, k], p[:, k], **common) for k in labels])
        wanted["auc"] = sk.roc_auc_score(target, p, **common)
        wanted["average_precision"] = sk.average_precision_score(target, p, **common)
        return wanted
    t, c = target.argmax(axis=1), called.argmax(axis=1)
    wanted["accuracy"] = sk.accuracy_score(t, c, **common)
    wanted["balanced_accuracy"] = sk.balanced_accuracy_score(t, c, **common)
    wanted["log_loss"] = sk.log_loss(t, p, **common)
    if kind == "binary":
        wanted["brier"] = sk.brier_score_loss(t, p[:, 1], **common)
        for metric in ("precision", "recall", "specificity", "f1", "auc", "average_precision"):
            wanted[metric] = wanted[f"class 1: {metric}"]
        return wanted
    wanted["brier"] = np.average(((p - target) ** 2).sum(axis=1), weights=weight)
    wanted["auc"] = sk.roc_auc_score(t, p, multi_class="ovr", **common)
    wanted["average_precision"] = sk.average_precision_score(target, p, **common)
    if kind == "ordinal":
        wanted["mean_absolute_error"] = sk.mean_absolute_error(t, c, **common)
        wanted["quadratic_kappa"] = sk.cohen_kappa_score(t, c, weights="quadratic", **common)
    return wanted


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_is_scikit_learns(kind, ties):
    p, target = random_case(kind, seed=3, ties=ties)
    thresholds = {"binary": (None, 0.4), "multi-label": (0.2, None, 0.75)}.get(kind)
    found = values(p, target, kind, thresholds=thresholds)
    assert 0 <= found.pop("ece") <= 1  # scikit-learn has none
    assert found == pytest.approx(scikit(p, target, calls(p, kind, thresholds), kind), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_and_torchmetrics(kind):
    p, target = random_case(kind, n=400, seed=5)
    found, scores = values(p, target, kind), torch.tensor(p)
    if kind == "binary":
        t = torch.tensor(target[:, 1])
        wanted = {
            "ece": tm.binary_calibration_error(scores[:, 1], t, n_bins=15),
            "auc": tm.binary_auroc(scores[:, 1], t),
            "average_precision": tm.binary_average_precision(scores[:, 1], t),
            "specificity": tm.binary_specificity(scores[:, 1], t),
            "f1": tm.binary_f1_score(scores[:, 1], t),
        }
    elif kind == "multi-label":
        t, settings = torch.tensor(target), {"num_labels": 3}
        wanted = {
            "accuracy": tm.multilabel_accuracy(scores, t, **settings),
            "exact_match": tm.multilabel_exact_match(scores, t, **settings),
            "ece": np.mean([tm.binary_calibration_error(scores[:, k], t[:, k], n_bins=15) for k in range(3)]),
            "auc": tm.multilabel_auroc(scores, t, **settings),
            "average_precision": tm.multilabel_average_precision(scores, t, **settings),
            "macro_f1": tm.multilabel_f1_score(scores, t, **settings),
            "micro_specificity": tm.multilabel_specificity(scores, t, average="micro", **settings),
        }
    else:
        t, settings = torch.tensor(target.argmax(axis=1)), {"num_classes": COUNT[kind]}
        wanted = {
            "accuracy": tm.multiclass_accuracy(scores, t, average="micro", **settings),
            "balanced_accuracy": tm.multiclass_accuracy(scores, t, average="macro", **settings),
            "ece": tm.multiclass_calibration_error(scores, t, n_bins=15, **settings),
            "auc": tm.multiclass_auroc(scores, t, **settings),
            "macro_f1": tm.multiclass_f1_score(scores, t, **settings),
            "macro_specificity": tm.multiclass_specificity(scores, t, **settings),
        }
        if kind == "ordinal":
            wanted["quadratic_kappa"] = tm.multiclass_cohen_kappa(scores, t, weights="quadratic", **settings)
    assert {name: found[name] for name in wanted} == pytest.approx({n: float(v) for n, v in wanted.items()}, abs=1e-6)


def test_a_perfect_a_constant_and_a_reversed_classifier():
    target = np.eye(2, dtype=int)[[0] * 30 + [1] * 10]
    perfect = values(target.astype(float), target, "binary")
    assert all(perfect[name] == 0 for name in ("brier", "ece", "log_loss"))
    assert all(value == 1 for name, value in perfect.items() if name not in ("brier", "ece", "log_loss"))

    constant = values(np.tile([0.75, 0.25], (40, 1)), target, "binary")
    assert (constant["auc"], constant["average_precision"]) == (0.5, 0.25)
    assert (constant["accuracy"], constant["balanced_accuracy"]) == (0.75, 0.5)
    assert constant["ece"] == pytest.approx(0)  # it says 25 %, and 25 % are
    assert constant["brier"] == pytest.approx(0.25 * 0.75)
    assert constant["log_loss"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    # It never calls the positive class, so what is right of its calls is not defined; nor is a mean with that.
    assert "precision" not in constant and "macro_precision" not in constant
    assert (constant["f1"], constant["macro_f1"]) == (0, pytest.approx(0.5 * 2 * 30 / 70))

    wrong = values(1.0 - target, target, "binary")
    assert wrong["auc"] == wrong["accuracy"] == wrong["recall"] == wrong["specificity"] == 0
    assert wrong["brier"] == wrong["ece"] == 1


def test_quadratic_kappa_and_error_of_calls_one_class_off():
    # True classes 0, 1, 2, 3 in equal number; called one higher, and the highest right.
    true = np.repeat(np.arange(4), 25)
    found = classification_metrics(
        np.eye(4)[np.minimum(true + 1, 3)], np.eye(4)[true], kind="ordinal", classes=list("abcd"), resamples=200
    )
    assert found["mean_absolute_error"]["mean"] == 0.75
    # Observed 0.75; expected: true and called classes are independent, E(t-c)² = 3.5 + 5.75 - 2 · 1.5 · 2.25 = 2.5.
    assert found["quadratic_kappa"]["mean"] == pytest.approx(0.7)
    assert found["quadratic_kappa"]["low"] < 0.7 < found["quadratic_kappa"]["high"]


def test_calls():
    p = [[0.5, 0.5], [0.2, 0.8], [0.7, 0.3]]
    assert calls(p, "binary").tolist() == [[1, 0], [0, 1], [1, 0]]
    assert calls(p, "binary", (None, 0.5)).tolist() == [[0, 1], [0, 1], [1, 0]]
    assert calls(p, "binary", (None, 0.3)).tolist() == [[0, 1]] * 3
    assert calls(p, "multi-label").tolist() == [[1, 1], [0, 1], [1, 0]]
    assert calls(p, "multi-label", (0.6, None)).tolist() == [[0, 1], [0, 1], [1, 0]]
    assert calls([[0.3, 0.4, 0.3]], "ordinal", (None, None, None)).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_confusion_matrix_is_scikit_learns_and_its_shares_are_rates(kind):
    p, target = random_case(kind, seed=8, ties=True)
    found = confusion_matrix(p, target, kind=kind, classes=names(kind), resamples=100)
    scores = classification_metrics(p, target, kind=kind, classes=names(kind), resamples=100)
    if kind == "multi-label":
        wanted, diagonal = sk.multilabel_confusion_matrix(target, calls(p, kind)), [(k, 1, 1) for k in range(3)]
    else:
        wanted = sk.confusion_matrix(target.argmax(axis=1), calls(p, kind).argmax(axis=1))
        diagonal = [(k, k) for k in range(COUNT[kind])]
    assert found["counts"] == wanted.tolist() and found["classes"] == names(kind)
    for name, place in zip(names(kind), diagonal, strict=True):
        # The share on the diagonal is the class's recall, and so are its resamples.
        recall = scores[f"{name}: recall"]
        shown = [np.array(found[part])[place] for part in ("share", "low", "high")]
        assert shown == pytest.approx([recall["mean"], recall["low"], recall["high"]])
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("kind", KINDS)
def test_an_absent_class_is_left_out_and_so_are_means_over_it(kind):
    p, target = random_case(kind, seed=1)
    absent = COUNT[kind] - 1
    if kind == "multi-label":
        target[:, absent] = 0
    else:
        kept = target[:, absent] == 0
        p, target = p[kept], target[kept]
    report = classification_report(p, target, kind=kind, classes=names(kind), resamples=50)
    json.dumps(report, allow_nan=False)
    found = report["summary"]
    for metric in ("auc", "average_precision", "recall"):
        assert f"class {absent}: {metric}" not in found
        assert f"class {absent}: specificity" in found
    assert not {"auc", "macro_recall", "balanced_accuracy"} & set(found)
    assert {"accuracy", "brier", "ece", "log_loss", "micro_f1"} <= set(found)
    assert f"class {absent}" not in report["curves"]["roc"]
    row = report["confusion"]["share"][absent]
    assert (row[1] if kind == "multi-label" else row) == [None] * (2 if kind == "multi-label" else COUNT[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_are_quantiles_of_scikit_learns_answers_on_the_resamples(kind):
    p, target = random_case(kind, n=150, seed=2, ties=True)
    found = classification_metrics(p, target, kind=kind, classes=names(kind), resamples=4, seed=11)
    weights = np.concatenate(list(resampled_weights(150, resamples=4, seed=11)))
    drawn = [scikit(p, target, calls(p, kind), kind, weight) for weight in weights]
    for name in drawn[0]:
        wanted = np.quantile([scores[name] for scores in drawn], [0.025, 0.975])
        assert [found[name]["low"], found[name]["high"]] == pytest.approx(wanted, abs=1e-9), name
    assert found["auc"]["cases"] == 150


def test_the_seed_decides():
    p, target = random_case("binary")
    settings = {"kind": "binary", "classes": names("binary"), "resamples": 200}
    first, again, other = (classification_metrics(p, target, **settings, seed=seed) for seed in (1, 1, 2))
    assert first == again and first["auc"]["low"] != other["auc"]["low"]


def test_resamples_of_one_size_draw_every_case_alike():
    weights = np.concatenate(list(resampled_weights(40, resamples=4000)))
    assert weights.shape == (4000, 40) and (weights.sum(axis=1) == 40).all()
    # The count of a case is binomial: mean 1, variance 1 - 1/40.
    assert weights.mean(axis=0) == pytest.approx(np.ones(40), abs=0.08)
    assert weights.var() == pytest.approx(1 - 1 / 40, rel=0.02)
    # In blocks or not, the draws are of the same kind: 3 blocks here.
    assert [len(block) for block in resampled_weights(500_000, resamples=5)] == [2, 2, 1]


def test_cases_of_a_patient_are_resampled_together():
    """Each case five times over, as images of one patient, tells as much as once, though it looks like more."""
    p, target = random_case("single-label", n=80, seed=4)
    settings = {"kind": "single-label", "classes": names("single-label"), "resamples": 400}
    once = classification_metrics(p, target, **settings)
    copies = {"probabilities": np.repeat(p, 5, axis=0), "target": np.repeat(target, 5, axis=0)}
    patients = [f"patient {case}" for case in range(80) for _ in range(5)]
    together = classification_metrics(**copies, **settings, groups=patients)
    apart = classification_metrics(**copies, **settings)
    for name, value in once.items():
        for part in ("mean", "low", "high"):
            assert together[name][part] == pytest.approx(value[part], abs=1e-9), name
    for name in ("accuracy", "auc", "brier"):
        width = together[name]["high"] - together[name]["low"]
        assert (apart[name]["high"] - apart[name]["low"]) / width == pytest.approx(1 / math.sqrt(5), rel=0.2)
    # In any order of the cases, and with patients by number.
    shuffle = np.random.default_rng(0).permutation(400)
    mixed = classification_metrics(
        copies["probabilities"][shuffle],
        copies["target"][shuffle],
        **settings,
        groups=np.repeat(np.arange(80), 5)[shuffle],
    )
    assert mixed["auc"]["high"] - mixed["auc"]["low"] == pytest.approx(
        once["auc"]["high"] - once["auc"]["low"], rel=0.2
    )


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Scores of two normal distributions a distance d apart have AUC Φ(d/√2); a threshold halfway accuracy Φ(d/2)."""
    distance, experiments = 1.5, 160
    truth = {
        "auc": torch.special.ndtr(torch.tensor(distance / math.sqrt(2), dtype=torch.float64)).item(),
        "accuracy": torch.special.ndtr(torch.tensor(distance / 2, dtype=torch.float64)).item(),
    }
    covered = dict.fromkeys(truth, 0)
    for seed in range(experiments):
        random = np.random.default_rng(seed)
        true = np.repeat([0, 1], 100)
        logit = distance * (random.normal(size=200) + distance * (true - 0.5))
        p = 1 / (1 + np.exp(-logit))
        found = classification_metrics(
            np.stack([1 - p, p], axis=1), np.eye(2)[true], kind="binary", classes=["no", "yes"], resamples=250
        )
        for name, value in truth.items():
            covered[name] += found[name]["low"] <= value <= found[name]["high"]
    for name, count in covered.items():
        # 95 % of 160 is 152, with a standard deviation of 2.8.
        assert 142 <= count <= 160, (name, count)


def test_the_interval_of_a_calibration_error_holds_the_truth():
    """Chance inflates the error, and each resample's again; a percentile interval lies above the truth."""
    covered, experiments = 0, 60
    edges = np.linspace(0.05, 0.95, 10)
    for seed in range(experiments):
        random = np.random.default_rng(seed)
        claimed = random.choice(edges, size=500)
        came_true = random.random(500) < 0.5 + 0.9 * (claimed - 0.5)  # off by 0.1 · |claimed - 0.5|: 0.025 on average
        found = classification_metrics(
            np.stack([1 - claimed, claimed], axis=1),
            np.eye(2)[came_true.astype(int)],
            kind="binary",
            classes=["no", "yes"],
            resamples=200,
        )["ece"]
        assert 0 <= found["low"] <= found["mean"] <= found["high"]
        covered += found["low"] <= 0.025 <= found["high"]
    assert covered >= 0.8 * experiments


def test_a_thousand_resamples_of_a_thousand_cases_take_about_two_seconds():
    p, target = random_case("binary", n=1000)
    start = time.process_time()
    classification_metrics(p, target, kind="binary", classes=names("binary"), resamples=1000)
    assert time.process_time() - start < 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "triple"}, "no kind of target"),
        ({"classes": ["a", "a"]}, "different names"),
        ({"classes": ["a"]}, "different names"),
        ({"target": np.eye(2)[[0, 1]]}, "targets"),
        ({"target": np.full((3, 2), 0.5)}, "neither 0 nor 1"),
        ({"target": np.ones((3, 2))}, "Case 0 has 2 true classes"),
        ({"probabilities": [[0.5, 0.5], [2.0, -1.0], [0.5, 0.5]]}, "Case 1"),
        ({"probabilities": [[0.5, 0.5], [0.5, 0.5], [math.nan, 0.5]]}, "Case 2"),
        ({"probabilities": [[0.5, 0.5], [0.5, 0.5], [0.5, 0.9]]}, "not probabilities"),
        ({"thresholds": (0.5,)}, "thresholds"),
        ({"thresholds": (0.5, 0.5)}, "no use for the thresholds"),
        ({"thresholds": (None, math.nan)}, "not all numbers"),
        ({"groups": ["p"]}, "1 groups"),
        ({"resamples": 0}, "resamples"),
        ({"confidence": 95}, "confidence"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(change, words):
    right = {
        "probabilities": [[0.5, 0.5], [0.2, 0.8], [0.7, 0.3]],
        "target": np.eye(2)[[0, 1, 0]],
        "kind": "binary",
        "classes": ["a", "b"],
    }
    with pytest.raises(InputError, match=words):
        classification_metrics(**{**right, **change})
