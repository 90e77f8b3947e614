"""Cross-validation: every case is answered once, by a model that saw neither it nor its patient."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from MedMapAILib.bundle import load_bundle
from MedMapAILib.errors import InputError
from MedMapAILib.figures import draw_curves
from MedMapAILib.training.crossvalidation import crossvalidate
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score
from synthetic import small_config, write_dataset

PARTS = {"train": 40, "val": 8, "test": 12}


def write_small_medmnist(path) -> None:
    """Noise with a bright square (class 1) or without; two training images are the same."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in PARTS.items():
        labels = np.arange(count) % 2
        images = random.integers(0, 100, (count, 28, 28), dtype=np.uint8)
        images[labels == 1, 8:20, 8:20] += 60
        arrays |= {f"{part}_images": images, f"{part}_labels": labels[:, None].astype(np.uint8)}
    arrays["train_images"][6] = arrays["train_images"][0]
    np.savez(path, **arrays)


@pytest.fixture(scope="module")
def classification(tmp_path_factory):
    """Stopped after the first of two folds, gone on with, and asked once more when all was done."""
    folder = tmp_path_factory.mktemp("crossvalidation")
    write_small_medmnist(folder / "pneumoniamnist.npz")
    config = {
        "task": {"name": "classification"},
        "dataset": {"path": str(folder / "pneumoniamnist.npz")},
        "network": {"name": "resnet18", "width": 0.125},
        "optimizer": {"learning_rate": 0.01},
        "training": {"epochs": 1, "iterations_per_epoch": 4, "batch": 8, "device": "cpu", "ema_decay": 0.5},
        "evaluation": {"operating_point": "sensitivity", "sensitivity": 0.9},
    }
    output, events = folder / "out", [[], [], []]

    def run(n, should_stop=lambda: False):
        return crossvalidate(config, output, folds=2, seed=3, on_event=events[n].append, should_stop=should_stop)

    first = run(0, lambda: any(event["event"] == "fold" for event in events[0]))
    kept = {name: (output / name).read_bytes() for name in ("fold-1.json", "fold-1/checkpoint.pt", "fold-1/split.json")}
    return {
        "config": config,
        "output": output,
        "events": events,
        "first": first,
        "kept": kept,
        "report": run(1),
        "again": run(2),
    }


def named(events: list[dict], name: str) -> list[dict]:
    return [event for event in events if event["event"] == name]


def test_every_case_is_answered_once_and_the_test_part_is_left_alone(classification):
    report = classification["report"]
    names = Counter(row["case"] for row in report["cases"])
    assert set(names.values()) == {1}
    assert len(names) == PARTS["train"] + PARTS["val"]
    assert {name.split("_")[0] for name in names} == {"train", "val"}
    assert any("12 case(s) of the test part take no part" in note for note in report["notes"])


def test_no_fold_learns_from_what_it_answers(classification):
    report, output = classification["report"], classification["output"]
    patient = {row["case"]: row["patient"] for row in report["cases"]}
    for fold in (1, 2):
        split = json.loads((output / f"fold-{fold}" / "split.json").read_text())
        assert split["test"] == sorted(row["case"] for row in report["cases"] if row["fold"] == fold)
        assert sorted(split["train"] + split["validation"] + split["test"]) == sorted(patient)
        assert not {patient[name] for name in split["test"]} & {
            patient[name] for name in split["train"] + split["validation"]
        }
        # A fifth of the other half, with the same share of both classes.
        assert 4 <= len(split["validation"]) <= 6
        # The bundle says the same of itself.
        stored = load_bundle(output / f"fold-{fold}" / "bundle").train["split"]
        assert stored["test"] == split["test"]


def test_the_same_image_under_two_names_is_one_patient(classification):
    rows = {row["case"]: row for row in classification["report"]["cases"]}
    twins = sorted(rows)[0], sorted(rows)[6]
    assert rows[twins[0]]["patient"] == rows[twins[1]]["patient"]
    assert rows[twins[0]]["fold"] == rows[twins[1]]["fold"]
    assert len({row["patient"] for row in rows.values()}) == len(rows) - 1


def test_classes_are_shared_out(classification):
    counts = Counter((row["fold"], row["target"]) for row in classification["report"]["cases"])
    assert all(11 <= count <= 13 for count in counts.values())


def test_a_stopped_one_goes_on_and_repeats_nothing(classification):
    first, second, third = classification["events"]
    assert classification["first"] is None
    assert first[-1]["event"] == "stopped"
    assert {event["fold"] for event in named(first, "epoch")} == {1}
    assert {event["fold"] for event in named(second, "epoch")} == {2}
    assert not named(third, "epoch")
    assert [event["fold"] for event in named(third, "fold")] == [1, 2]
    for name, content in classification["kept"].items():
        assert (classification["output"] / name).read_bytes() == content
    assert classification["again"] == classification["report"]
    assert json.loads((classification["output"] / "report.json").read_text()) == json.loads(
        json.dumps(classification["report"], allow_nan=False)
    )


def test_progress_runs_from_0_to_1(classification):
    fractions = [
        event["fraction"] for events in classification["events"][:2] for event in events if "fraction" in event
    ]
    assert all(0 <= fraction <= 1 for fraction in fractions)
    assert named(classification["events"][1], "epoch")[-1]["fraction"] == 1.0
    assert all(event["message"].startswith("fold 2 of 2, ") for event in named(classification["events"][1], "progress"))


def test_pooled_metrics_are_scikit_learns(classification):
    report = classification["report"]
    positive = report["classes"][1]
    true = [int(row["target"] == positive) for row in report["cases"]]
    called = [int(row["prediction"] == positive) for row in report["cases"]]
    scores = [row["probabilities"][positive] for row in report["cases"]]
    summary = {name: value["mean"] for name, value in report["summary"].items()}
    assert summary["auc"] == pytest.approx(roc_auc_score(true, scores))
    assert summary["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true, called))
    assert summary["brier"] == pytest.approx(np.mean((np.array(scores) - true) ** 2))
    assert summary["accuracy"] == pytest.approx(np.mean([row["correct"] for row in report["cases"]]))
    assert report["confusion"]["counts"] == confusion_matrix(true, called).tolist()
    # The point on the curve is that of the calls, made at each fold's own operating point.
    found = report["curves"]["roc"][positive]["operating_point"]
    assert found == pytest.approx([1 - summary["specificity"], summary["recall"]])


def test_folds_and_their_spread(classification):
    report = classification["report"]
    each = []
    for fold in (1, 2):
        rows = [row for row in report["cases"] if row["fold"] == fold]
        each.append(np.mean([row["correct"] for row in rows]))
        assert report["folds"][fold - 1]["summary"]["accuracy"]["mean"] == pytest.approx(each[-1])
        assert report["folds"][fold - 1]["cases"] == len(rows)
    spread = report["between_folds"]["accuracy"]
    assert spread["mean"] == pytest.approx(np.mean(each))
    assert spread["sd"] == pytest.approx(np.std(each, ddof=1))


def test_the_report_can_be_drawn(classification, tmp_path):
    pytest.importorskip("matplotlib")
    assert len(draw_curves(classification["report"], tmp_path)) == 4


def test_it_goes_on_with_the_same_settings_only(classification):
    config, output = classification["config"], classification["output"]
    changed = config | {"optimizer": {"learning_rate": 0.02}}
    with pytest.raises(InputError, match=r"begun with other settings \(seed, optimizer.learning_rate\)"):
        crossvalidate(changed, output, folds=2, seed=4)


def test_label_maps_are_pooled_over_cases_by_patient(tmp_path):
    write_dataset(tmp_path, 6)
    table = ["image,label,patient"]
    table += [f"images/case_0{n}.nii.gz,labels/case_0{n}.nii.gz,{'abc'[n // 2]}" for n in range(6)]
    (tmp_path / "cases.csv").write_text("\n".join(table) + "\n")
    config = small_config(tmp_path / "cases.csv", epochs=1, iterations_per_epoch=1)
    report = crossvalidate(config, tmp_path / "out", folds=2)
    assert {row["patient"] for row in report["cases"]} == {"a", "b", "c"}
    assert len({(row["patient"], row["fold"]) for row in report["cases"]}) == 3
    dice = [row["dice"] for row in report["cases"]]
    assert len(dice) == 6
    assert report["summary"]["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert report["summary"]["dice"]["cases"] == 6


def test_mistakes_are_said_before_anything_is_written(tmp_path):
    data = write_dataset(tmp_path / "data", 3)
    config = small_config(data)
    for folds, words in ((1, "in 1 folds makes no sense"), (4, "There are 3 patients for 4 folds")):
        with pytest.raises(InputError, match=words):
            crossvalidate(config, tmp_path / "out", folds=folds)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; choose a folder"):
        crossvalidate(config, tmp_path / "file")
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="already holds a training"):
        crossvalidate(config, tmp_path / "trained")
