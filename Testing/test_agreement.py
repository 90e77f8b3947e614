"""Agreement of readers and tests between methods, against published worked examples, scikit-learn, scipy and theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.metrics.agreement import (
    holm,
    intraclass_correlation,
    mean_over_readers,
    signed_rank,
    weighted_kappa,
)
from MedMapAILib.metrics.bootstrap import bootstrap_interval
from scipy import stats
from sklearn.metrics import cohen_kappa_score

# Shrout and Fleiss 1979, table 2: four ratings on six targets.
SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]

# Agresti, Categorical Data Analysis, 1990, table 2.10: answers of husbands (rows) and wives, from 1 to 4.
HUSBANDS_WIVES = [[7, 7, 2, 3], [2, 8, 3, 7], [1, 5, 4, 9], [2, 8, 9, 14]]

# Fleiss, Cohen, Everitt, Psychological Bulletin 72, 1969: two diagnoses of 200 patients, in three classes.
DIAGNOSES = [[106, 10, 4], [22, 28, 10], [2, 12, 6]]

# Data set anxiety of R's irr: three raters (columns), 20 people, ratings from 1 to 6.
ANXIETY = np.array([
    [3, 3, 3, 4, 5, 5, 2, 3, 5, 2, 2, 6, 1, 5, 2, 2, 1, 2, 4, 3],
    [3, 6, 4, 6, 2, 4, 2, 4, 3, 3, 2, 3, 3, 3, 2, 2, 1, 3, 3, 4],
    [2, 1, 4, 4, 3, 2, 1, 6, 1, 1, 1, 2, 3, 3, 1, 1, 3, 3, 2, 2],
]).T  # fmt: skip

# Darwin's maize: differences in height between cross- and self-fertilized plants of 15 pairs, eighths of an inch
# (Fisher, The Design of Experiments, 1935, table 3).
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def pairs_of(table):
    cells = [(i, j) for i, row in enumerate(table, 1) for j, count in enumerate(row, 1) for _ in range(count)]
    return [cell[0] for cell in cells], [cell[1] for cell in cells]


def test_icc_of_shrout_and_fleiss():
    found = intraclass_correlation(SHROUT_FLEISS)
    # Their table 4 says 0.29. The interval is that of R's psych and irr for the same table.
    assert found.value == pytest.approx(0.29, abs=0.005)
    assert (found.low, found.high) == (pytest.approx(0.02, abs=0.005), pytest.approx(0.76, abs=0.005))


def test_icc_of_a_table_of_another_library():
    # What irr's icc(anxiety, model = "twoway", type = "agreement") prints: 0.198, from -0.039 to 0.494.
    found = intraclass_correlation(ANXIETY)
    assert (found.value, found.low, found.high) == pytest.approx((0.198, -0.039, 0.494), abs=5e-4)


def test_icc_of_known_variances():
    random = np.random.default_rng(0)
    # Items 4, readers 1, error 1: the share of the items is 4 / 6 when there are many of all.
    scores = random.normal(0, 2, (400, 1)) + random.normal(0, 1, (1, 60)) + random.normal(0, 1, (400, 60))
    found = intraclass_correlation(scores)
    assert found.value == pytest.approx(4 / 6, abs=0.06)
    assert found.low < found.value < found.high


def test_the_interval_of_the_icc_holds_what_it_promises():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        scores = random.normal(0, 1.5, (25, 1)) + random.normal(0, 0.5, (1, 4)) + random.normal(0, 1, (25, 4))
        found = intraclass_correlation(scores)
        inside += found.low <= 2.25 / 3.5 <= found.high
    assert inside / 300 == pytest.approx(0.95, abs=0.035)


def test_an_icc_that_is_not_defined_is_said_and_an_interval_holds_its_value():
    for scores in ([[5, 4], [5, 4], [5, 4]], [[3, 3], [3, 3]], [[5, 4], [5, 4]], [[1, 5], [5, 1]]):
        with pytest.raises(InputError, match="not defined"):
            intraclass_correlation(scores)
    for scores in ([[3, 5], [3, 5], [4, 4]], [[1, 5], [5, 2], [2, 4]]):
        found = intraclass_correlation(scores)
        assert found.low <= found.value <= found.high and np.isfinite([found.low, found.high]).all()


def test_icc_of_extremes():
    items = np.arange(5.0)[:, None]
    assert intraclass_correlation(np.repeat(items, 3, axis=1)).value == 1
    # A reader who always gives one more: between items 2 · 2.5 = 5, between readers 5 / 2: 5 / (5 + 2 · 2.5 / 5) = 5/6.
    stricter = intraclass_correlation(np.concatenate([items, items + 1], axis=1))
    assert stricter.value == pytest.approx(5 / 6) and math.isfinite(stricter.low) and math.isfinite(stricter.high)
    # Readers who contradict each other.
    assert intraclass_correlation(np.concatenate([items, 4 - items], axis=1)).value < 0


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_kappa_agrees_with_scikit_learn(weights):
    random = np.random.default_rng(2)
    first = random.integers(1, 6, 80)
    second = np.clip(first + random.integers(-1, 3, 80), 1, 5)
    theirs = cohen_kappa_score(first, second, weights=None if weights == "none" else weights)
    assert weighted_kappa(first, second, weights=weights).value == pytest.approx(theirs, abs=1e-12)
    # Scores that nobody gave change nothing.
    wide = weighted_kappa(first, second, weights=weights, scores=range(0, 11))
    assert (wide.value, wide.low) == (
        pytest.approx(theirs, abs=1e-12),
        pytest.approx(weighted_kappa(first, second, weights=weights).low, abs=1e-12),
    )


@pytest.mark.parametrize(("weights", "kappa", "error"), [("none", 0.1293, 0.06860), ("linear", 0.2374, 0.07832)])
def test_kappa_and_its_standard_error_of_a_published_table(weights, kappa, error):
    # The values that R's vcd prints for its data set SexualFun, which is this table.
    found = weighted_kappa(*pairs_of(HUSBANDS_WIVES), weights=weights)
    assert found.value == pytest.approx(kappa, abs=5e-5)
    assert found.high - found.value == pytest.approx(1.959964 * error, abs=2e-4)
    assert found.value - found.low == pytest.approx(1.959964 * error, abs=2e-4)


def test_kappa_of_fleiss_cohen_and_everitt():
    # They say 0.429.
    assert weighted_kappa(*pairs_of(DIAGNOSES), weights="none").value == pytest.approx(0.429, abs=5e-4)


def test_quadratic_kappa_of_a_table_of_another_library():
    # What irr's kappa2(anxiety[, 1:2], "squared") prints.
    assert weighted_kappa(ANXIETY[:, 0], ANXIETY[:, 1]).value == pytest.approx(0.297, abs=5e-4)


@pytest.mark.parametrize("weights", ["linear", "quadratic"])
def test_the_interval_of_kappa_holds_what_it_promises(weights):
    random = np.random.default_rng(8)

    def draw(count):
        first = random.integers(1, 6, count)
        return first, np.clip(first + random.choice([-2, -1, 0, 0, 0, 1], count), 1, 5)

    truth = weighted_kappa(*draw(400_000), weights=weights).value
    found = [weighted_kappa(*draw(100), weights=weights) for _ in range(400)]
    assert np.mean([one.low <= truth <= one.high for one in found]) == pytest.approx(0.95, abs=0.035)


def test_quadratic_kappa_is_nearly_the_icc():
    # They are equal for many items (Fleiss, Cohen, Educational and Psychological Measurement 33, 1973).
    random = np.random.default_rng(3)
    truth = random.integers(1, 6, 3000)
    both = [np.clip(truth + random.integers(-1, 2, 3000), 1, 5) for _ in range(2)]
    icc = intraclass_correlation(np.stack(both, axis=1)).value
    assert weighted_kappa(*both).value == pytest.approx(icc, abs=1e-3)


def test_kappa_of_extremes():
    assert weighted_kappa([1, 2, 3, 5], [1, 2, 3, 5]).value == pytest.approx(1)
    assert weighted_kappa([1, 5], [5, 1]).value == pytest.approx(-1)
    assert weighted_kappa([1, 1, 2, 2], [1, 2, 1, 2]).value == pytest.approx(0, abs=1e-12)


def test_wilcoxon_on_darwins_maize():
    # T = 24 and P = 0.041 exactly, as in the textbooks (and scipy's documentation).
    found = signed_rank(DARWIN, [0] * 15)
    assert (found.statistic, found.pairs, found.zeros) == (24, 15, 0)
    assert found.p == pytest.approx(0.041259765625, abs=1e-12)
    assert found.median_difference == 24 and found.note == ""


def test_wilcoxon_on_depression_scores():
    # Hollander, Wolfe, Nonparametric Statistical Methods, 1973, p. 29 f.: T+ = 40, P = 0.019 one-sided.
    first = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    second = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    found = signed_rank(first, second)
    assert found.statistic == 45 - 40
    assert found.p == pytest.approx(2 * 0.01953, abs=2e-5)


def test_wilcoxon_of_scores_with_ties_is_scipys():
    random = np.random.default_rng(4)
    first, second = random.integers(1, 6, 40), random.integers(1, 6, 40)
    found = signed_rank(first, second)
    theirs = stats.wilcoxon(first, second, zero_method="wilcox")
    assert (found.statistic, found.p) == (theirs.statistic, pytest.approx(theirs.pvalue, abs=1e-12))
    assert found.zeros == int((first == second).sum()) and found.pairs + found.zeros == 40


def test_wilcoxon_of_too_little():
    assert signed_rank([3, 4], [3, 4]).p == 1 and "nothing to test" in signed_rank([3, 4], [3, 4]).note
    few = signed_rank([1, 2, 3, 4, 5], [0, 0, 0, 0, 0])
    assert few.p == pytest.approx(1 / 16) and "With 5 cases" in few.note
    # 0.1 + 0.2 is 0.3.
    assert signed_rank([0.1 + 0.2, 4], [0.3, 1]).zeros == 1


def test_holm():
    # As R's p.adjust.
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.04, 0.01, 0.6, 0.7]) == pytest.approx([0.12, 0.04, 1, 1])
    assert holm([]) == []


def test_the_mean_of_one_reader_is_a_bootstrap_over_cases():
    values = np.random.default_rng(5).integers(1, 6, 30).astype(float)
    ours, theirs = mean_over_readers(values), bootstrap_interval(values)
    assert ours.value == theirs[0]
    assert (ours.low, ours.high) == (pytest.approx(theirs[1], abs=0.05), pytest.approx(theirs[2], abs=0.05))


def test_readers_who_differ_widen_the_interval():
    random = np.random.default_rng(6)
    cases, readers = random.normal(0, 1, (200, 1)), random.normal(0, 0.5, (1, 20))
    found = mean_over_readers(3 + cases + readers)
    # Var of the mean: that of the cases over 200 and of the readers over 20 (there is no other).
    half = 1.96 * math.sqrt(cases.var() / 200 + readers.var() / 20)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)
    # Readers alone: two of them, 1 apart, give one of three means.
    two = mean_over_readers(np.tile([2.0, 3.0], (50, 1)))
    assert (two.value, two.low, two.high) == (2.5, 2, 3)


def test_missing_scores_are_left_out():
    scores = np.array([[1, 2, np.nan], [3, np.nan, np.nan], [5, 4, np.nan]])
    found = mean_over_readers(scores)
    assert found.value == 3 and 1 <= found.low <= found.high <= 5
    assert mean_over_readers(scores, seed=3) == mean_over_readers(scores, seed=3)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: weighted_kappa([1, 2], [1]), "items that both scored"),
        (lambda: weighted_kappa([3, 3], [3, 3]), "throughout"),
        (lambda: weighted_kappa([3, 3], [3, 3], scores=range(1, 6)), "throughout"),
        (lambda: weighted_kappa([1, 7], [1, 2], scores=range(1, 6)), "score 7 is not on the scale"),
        (lambda: weighted_kappa([1, 2.5], [1, 2]), "no whole number"),
        (lambda: weighted_kappa([1, 2], [1, 2], weights="cubic"), "no weights 'cubic'"),
        (lambda: intraclass_correlation([[1, 2]]), "2 items or more"),
        (lambda: intraclass_correlation([[3, 3], [3, 3]]), "same score"),
        (lambda: intraclass_correlation([[1, 2], [np.nan, 3]]), "missing"),
        (lambda: signed_rank([1, 2], [1]), "one pair a case"),
        (lambda: signed_rank([1, np.nan], [1, 2]), "missing"),
        (lambda: mean_over_readers([[np.nan]]), "no scores"),
        (lambda: mean_over_readers([1, 2], confidence=1), "confidence"),
        (lambda: holm([1.2]), "between 0 and 1"),
    ],
)
def test_mistakes_are_one_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
