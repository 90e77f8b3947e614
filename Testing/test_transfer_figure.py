"""The benchmark of transfer learning: who is in which part, its intervals, its table and its figure, from numbers made
up so that the answer is known."""

import numpy as np
import pytest
from benchmarks import transfer_learning as benchmark
from benchmarks.transfer_learning import (
    draw,
    held_out,
    labelled_patients,
    patient_interval,
    summarize,
    t_interval,
    table_of,
)

_TRUE = np.array([False, False, True, True])


def made_up(arm, fraction, seed, auc, scores):
    return {
        "arm": arm,
        "fraction": fraction,
        "seed": seed,
        "patients": round(100 * fraction),
        "nodules": round(200 * fraction) + seed,
        "auc": auc,
        "scores": np.array(scores),
        "true": _TRUE,
        "groups": ["a", "b", "c", "d"],
    }


@pytest.fixture
def runs():
    """Fine-tuning ranks all right (AUC 1); training from scratch one pair of four wrong (0.75), or none at 100 %."""
    found = []
    for fraction in (0.05, 1.0):
        for seed in range(3):
            right, one_wrong = [0.1, 0.2, 0.8, 0.9], [0.1, 0.6, 0.5, 0.9]
            found.append(made_up("masks", fraction, seed, 1.0, right))
            found.append(made_up("sizes", fraction, seed, 1.0, right))
            before = (0.75, one_wrong) if fraction < 1 else (1.0, right)
            found.append(made_up("scratch", fraction, seed, *before))
    return found[::-1]


def test_t_interval_is_that_of_the_tables():
    # Mean 3, standard deviation 1.5811, t(0.975, 4) = 2.7764: half a width of 1.9632.
    found = t_interval([1, 2, 3, 4, 5])
    assert found == pytest.approx({"mean": 3.0, "low": 3 - 1.9632, "high": 3 + 1.9632}, abs=1e-4)


def test_summary_pairs_the_runs_of_a_seed(runs):
    few, all_of_them = summarize(runs)
    assert (few["fraction"], few["patients"], few["nodules"]) == (0.05, 5, [10, 11, 12])
    assert few["scratch"]["auc"] == [0.75] * 3
    for arm in ("masks", "sizes"):
        assert few[arm]["difference"] == pytest.approx({"mean": 0.25, "low": 0.25, "high": 0.25})
        assert all_of_them[arm]["difference"]["mean"] == 0
        # The same networks before and after: no draw of patients makes a difference.
        assert all_of_them[arm]["difference_over_patients"] == {"low": 0.0, "high": 0.0}


def test_interval_over_patients_holds_draws_with_and_without_the_pair_that_was_wrong():
    wrong = made_up("scratch", 0.05, 0, 0.75, [0.1, 0.6, 0.5, 0.9])
    right = made_up("masks", 0.05, 0, 1.0, [0.1, 0.2, 0.8, 0.9])
    # A draw of the two nodules of that pair alone (several times each) has a difference of 1, one without them of 0.
    assert patient_interval([(wrong, right)]) == {"low": 0.0, "high": 1.0}


def test_table_says_all_numbers_with_their_signs(runs):
    lines = table_of(summarize(runs)).splitlines()
    assert len(lines) == 4
    assert lines[1].count("---") == lines[0].count("|") - 1
    assert "0.750 (0.750 to 0.750)" in lines[2] and "+0.250 (+0.250 to +0.250)" in lines[2]


def test_figure_is_written(runs, tmp_path):
    path = tmp_path / "figure.png"
    draw(summarize(runs), path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_patients_are_in_one_part_and_smaller_fractions_lie_in_larger_ones():
    patients = [f"p{number % 40}" for number in range(100)]
    test = held_out(patients, 0.3, seed=0)
    assert len(test) == 12 and test == held_out(sorted(patients), 0.3, seed=0) and test <= set(patients)
    ratings = {f"p{number}": [1, 5] if number % 4 == 0 else [2] for number in range(40)}
    few, more, all_of_them = (labelled_patients(ratings, fraction, seed=3) for fraction in (0.1, 0.5, 1.0))
    assert few < more < all_of_them == set(ratings)
    assert sum(max(ratings[p]) > 3 for p in few) == 1 and len(few) == 4  # a quarter of all have a malignant nodule
    assert few != labelled_patients(ratings, 0.1, seed=4)


def test_rows_leave_out_what_is_not_to_be_learned():
    mask = np.ones((10, 10), dtype=bool)
    nodules = [
        {"name": f"n{k}", "patient": f"p{k}", "rating": k, "mask": mask, "spacing": 0.2 * k} for k in (1, 3, 4, 5)
    ]
    rows = benchmark.class_rows(nodules, test={"p4", "p3"}, training={"p1"})
    assert [(r["patient"], r["class"], r["split"]) for r in rows] == [
        ("p1", "benign", "train"),
        ("p4", "malignant", "test"),
    ]
    masks = benchmark.source_rows(nodules, test={"p4", "p5"}, most=1)
    assert [(r["patient"], r["split"]) for r in masks] == [("p1", "train"), ("p3", "train"), ("p4", "test")]
    # The circle of 100 pixels of 0.2 mm has a diameter of 2.26 mm, that of 0.6 mm one of 6.77.
    assert [benchmark.diameter(one) for one in nodules[:2]] == pytest.approx([2.257, 6.770], abs=1e-3)
    assert [r["class"] for r in masks] == ["size0", "size1", "size2"]
