"""Operating points of scores whose best cut is known."""

from __future__ import annotations

import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.metrics import calls, choose_operating_point
from sklearn.metrics import roc_curve


def binary(scores, positive) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(scores, dtype=float)
    return np.stack([1 - scores, scores], axis=1), np.eye(2, dtype=int)[np.asarray(positive, dtype=int)]


def rates(p, target, thresholds) -> tuple[float, float]:
    """(sensitivity, specificity) of the second class."""
    called, true = calls(p, "binary", thresholds)[:, 1].astype(bool), target[:, 1].astype(bool)
    return called[true].mean(), (~called[~true]).mean()


def test_a_threshold_lies_midway_between_what_it_separates():
    p, target = binary([0.1, 0.2, 0.3, 0.7, 0.9], [0, 0, 0, 1, 1])
    assert choose_operating_point(p, target, kind="binary") == (None, pytest.approx(0.5))
    # 0.25 and 0.3 lie on the wrong sides: calling from 0.25 on misses no one and calls one of three in vain.
    p, target = binary([0.1, 0.2, 0.3, 0.25, 0.9], [0, 0, 0, 1, 1])
    assert choose_operating_point(p, target, kind="binary") == (None, pytest.approx(0.225))


@pytest.mark.parametrize("digits", [1, 6])
def test_youden_is_the_best_point_of_scikit_learns_curve(digits):
    random = np.random.default_rng(digits)
    positive = random.random(500) < 0.3
    scores = np.round(1 / (1 + np.exp(-(random.normal(size=500) + 1.5 * positive))), digits)
    p, target = binary(scores, positive)
    false, true, _ = roc_curve(positive, scores)
    sensitivity, specificity = rates(p, target, choose_operating_point(p, target, kind="binary"))
    assert sensitivity + specificity - 1 == pytest.approx((true - false).max())


def test_of_equal_points_the_most_sensitive_one():
    # From 0.8 on: half of the positive cases, no negative one. From 0.2 on: all positive cases, half of the others.
    p, target = binary([0.8, 0.5, 0.2, 0.1], [1, 0, 1, 0])
    assert choose_operating_point(p, target, kind="binary") == (None, pytest.approx(0.15))


@pytest.mark.parametrize("wished", [0.05, 0.5, 0.8, 0.95, 1.0])
def test_a_wished_sensitivity_is_reached_with_the_best_specificity(wished):
    random = np.random.default_rng(0)
    positive = np.arange(200) < 40
    scores = np.round(1 / (1 + np.exp(-(random.normal(size=200) + positive))), 2)
    p, target = binary(scores, positive)
    found = choose_operating_point(p, target, kind="binary", rule="sensitivity", sensitivity=wished)
    sensitivity, specificity = rates(p, target, found)
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert sensitivity >= wished
    assert specificity == pytest.approx(1 - false[true >= wished - 1e-12].min())


def test_sensitivities_are_counted_and_not_rounded():
    # 0.55 of 20 positive cases are 11, though the product comes out as 11.000000000000002.
    p, target = binary(np.concatenate([np.linspace(0.9, 0.5, 20), [0.1]]), [1] * 20 + [0])
    found = choose_operating_point(p, target, kind="binary", rule="sensitivity", sensitivity=0.55)
    assert rates(p, target, found)[0] == 0.55


def test_the_point_below_all_scores_is_zero():
    p, target = binary([0.2, 0.5, 0.7], [1, 0, 0])
    found = choose_operating_point(p, target, kind="binary", rule="sensitivity", sensitivity=1.0)
    assert found == (None, 0.0)
    assert rates(p, target, found) == (1, 0)


def test_none_where_the_cases_cannot_tell():
    constant = binary([0.4] * 4, [0, 1, 0, 1])
    backwards = binary([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1])
    one_class = binary([0.1, 0.2], [0, 0])
    for p, target in (constant, backwards, one_class):
        assert choose_operating_point(p, target, kind="binary") == (None, None)


def test_of_each_label_by_itself_and_none_for_classes_that_exclude_each_other():
    p = np.array([[0.1, 0.9, 0.3], [0.3, 0.5, 0.3], [0.8, 0.1, 0.3]])
    target = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]])
    found = choose_operating_point(p, target, kind="multi-label")
    assert found == (pytest.approx(0.55), pytest.approx(0.3), None)
    assert (calls(p, "multi-label", found) == target).all()
    for kind in ("single-label", "ordinal"):
        assert choose_operating_point(np.eye(3), np.eye(3), kind=kind) == (None, None, None)


@pytest.mark.parametrize(
    "settings", [{"rule": "best"}, {"rule": "sensitivity"}, {"rule": "sensitivity", "sensitivity": 95}]
)
def test_rules_that_make_no_sense(settings):
    with pytest.raises(InputError):
        choose_operating_point(*binary([0.1, 0.9], [0, 1]), kind="binary", **settings)


def test_the_middle_of_a_plateau():
    """Between 0.3 and 0.7 there is no case, and beside it only few: log odds 0 is the middle, so 0.5."""
    scores = np.r_[np.linspace(0.05, 0.3, 50), np.linspace(0.7, 0.95, 50)]
    target = np.r_[np.zeros(50), np.ones(50)]
    p, true = np.stack([1 - scores, scores], 1), np.stack([1 - target, target], 1)
    _, threshold = choose_operating_point(p, true, kind="binary", rule="youden-plateau")
    assert threshold == pytest.approx(0.5, abs=1e-9)
    # Two positive cases more or less below the gap move Youden's best threshold from one of its sides to the other.
    scores[48], target[48] = 0.299, 1
    p, true = np.stack([1 - scores, scores], 1), np.stack([1 - target, target], 1)
    _, moved = choose_operating_point(p, true, kind="binary", rule="youden-plateau")
    assert 0.3 < moved < 0.6


@pytest.mark.parametrize("seed", range(4))
def test_the_plateau_is_as_good_as_the_best_but_for_a_standard_error(seed):
    random = np.random.default_rng(seed)
    positive = random.random(400) < 0.4
    p, target = binary(1 / (1 + np.exp(-(random.normal(size=400) + 2 * positive))), positive)
    best = sum(rates(p, target, choose_operating_point(p, target, kind="binary")))
    middle = sum(rates(p, target, choose_operating_point(p, target, kind="binary", rule="youden-plateau")))
    widest = np.sqrt(0.25 / (positive.sum() + 4) + 0.25 / ((~positive).sum() + 4))
    assert best - widest <= middle <= best
