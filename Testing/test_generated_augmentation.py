"""The benchmark of generated images: who is in which part, its intervals, table and figure, from numbers made up."""

import json

import numpy as np
import pytest
from benchmarks import generated_augmentation as benchmark
from PIL import Image


def made_up(arm, seed, auc, scores):
    return {
        "arm": arm,
        "seed": seed,
        "auc": auc,
        "balanced_accuracy": 0.8,
        "accuracy": 0.9 - 0.1 * seed * (arm == "generated"),
        "scores": np.array(scores),
        "true": np.array([False, False, True, True]),
    }


@pytest.fixture
def runs():
    """With generated images all pairs are ranked right (AUC 1), without one of four is wrong."""
    right, one_wrong = [0.1, 0.2, 0.8, 0.9], [0.1, 0.6, 0.5, 0.9]
    found = [made_up("generated", seed, 1.0, right) for seed in range(3)]
    return found + [made_up("real", seed, 0.75, one_wrong) for seed in (2, 0, 1)]


def test_five_percent_of_each_class_are_drawn_and_no_image_is_in_two_parts():
    # As many as PneumoniaMNIST has.
    labels = [0] * 388 + [1] * 3494
    parts = benchmark.draw_split(labels, seed=0)
    count = {part: np.bincount(np.array(labels)[numbers]).tolist() for part, numbers in parts.items()}
    assert count == {"train": [15, 140], "validation": [4, 35], "rest": [369, 3319]}
    assert sorted(sum(parts.values(), [])) == list(range(3882))
    assert benchmark.draw_split(labels, 0) == parts != benchmark.draw_split(labels, 1)


def test_the_generator_sees_only_what_the_classifier_trains_on(tmp_path):
    random = np.random.default_rng(0)
    stored = {
        "train_images": random.integers(256, size=(3882, 4, 4), dtype=np.uint8),
        "train_labels": np.array([[0]] * 388 + [[1]] * 3494),
        "val_images": random.integers(256, size=(524, 4, 4), dtype=np.uint8),
    }
    # One image is in both parts, as some of PneumoniaMNIST are.
    stored["val_images"][7] = stored["train_images"][70]
    for tune in (False, True):
        files = benchmark.write_splits(stored, 3, tune, tmp_path)
        generator, classifier = (json.loads(files[name].read_text()) for name in ("generator", "classifier"))
        assert generator["train"] == classifier["train"] and not generator["test"]
        scored = set(classifier["test"])
        assert len(scored) == (524 if tune else 523) and "val_007" not in scored
        assert not scored & {*classifier["train"], *classifier["validation"]}
        assert all(name.startswith("train_" if tune else "val_") for name in scored)


def test_intervals_and_table(runs):
    summary = benchmark.summarize(runs)
    assert summary["auc"]["difference"] | {"seeds": None} == {"seeds": None, "mean": 0.25, "low": 0.25, "high": 0.25}
    # Differences 0, -0.1 and -0.2: t(0.975, 2) = 4.3027, so half a width of 4.3027 · 0.1 / √3.
    found = summary["accuracy"]["difference"]
    assert (found["mean"], found["high"]) == pytest.approx((-0.1, -0.1 + 0.24841), abs=1e-4)
    over = summary["auc_difference_over_images"]
    assert 0 <= over["low"] < 0.25 < over["high"] <= 1
    table = benchmark.table_of(summary)
    assert "| AUC | 0.750 (0.750 to 0.750) | 1.000 (1.000 to 1.000) | +0.250 (+0.250 to +0.250)" in table
    assert "−0.100 (−0.348 to +0.148)" in table


def test_the_figure_is_drawn(runs, tmp_path):
    rows = ("real normal", "generated normal", "real pneumonia", "generated pneumonia")
    samples = {name: [np.full((28, 28), 40 * n, np.uint8) for n in range(4)] for name in rows}
    benchmark.draw(benchmark.summarize(runs), samples, tmp_path / "figure.png")
    picture = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB"))
    assert picture.shape[1] == 1050 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
