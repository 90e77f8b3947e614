"""The bootstrap agrees with scipy's and with theory."""

from __future__ import annotations

import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.metrics import bootstrap_interval
from scipy import stats


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("cases", [7, 60])
def test_it_agrees_with_scipy(cases, confidence):
    values = np.random.default_rng(1).beta(18, 2, size=cases)
    mean, low, high = bootstrap_interval(values, confidence=confidence)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=10_000,
        method="percentile",
        batch=1000,
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert mean == pytest.approx(values.mean())
    # Both draw at random: the ends agree to a few percent of the width.
    assert low == pytest.approx(theirs.low, abs=0.04 * (high - low))
    assert high == pytest.approx(theirs.high, abs=0.04 * (high - low))


def test_it_agrees_with_the_normal_distribution_for_many_cases():
    values = np.random.default_rng(2).normal(5.0, 2.0, size=2000)
    mean, low, high = bootstrap_interval(values)
    half = 1.959964 * values.std() / np.sqrt(2000)
    assert (mean - low, high - mean) == (pytest.approx(half, rel=0.05), pytest.approx(half, rel=0.05))


def test_every_mean_of_two_values_can_be_counted():
    # Drawn twice from {0, 1}, the mean is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4: the central 40 % are all 1/2.
    assert bootstrap_interval([0.0, 1.0], confidence=0.4) == (0.5, 0.5, 0.5)
    assert bootstrap_interval([0.0, 1.0], confidence=0.9) == (0.5, 0.0, 1.0)


def test_the_same_seed_gives_the_same_interval_and_leaves_numpys_state_alone():
    values = [0.8, 0.9, 0.85, 0.7]
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first = bootstrap_interval(values, seed=5)
    assert np.array_equal(np.random.get_state()[1], state)
    assert bootstrap_interval(values, seed=5) == first
    assert bootstrap_interval(np.array(values), seed=6, resamples=1000) != first


def test_it_takes_many_values_without_much_memory():
    values = np.linspace(0, 1, 50_000)
    mean, low, high = bootstrap_interval(values, resamples=200)
    assert low < mean < high and high - low < 0.02


@pytest.mark.parametrize("value", [0.0, -3.5])
def test_one_value_or_equal_ones_have_no_spread(value):
    assert bootstrap_interval([value]) == (value, value, value)
    assert bootstrap_interval([value] * 5) == (value, value, value)


def test_numbers_are_plain():
    assert all(type(number) is float for number in bootstrap_interval(np.float32([1, 2])))


@pytest.mark.parametrize(
    ("values", "settings", "says"),
    [
        ([], {}, "no values"),
        ([0.5, float("nan")], {}, "Value 1 is not finite"),
        ([float("inf")], {}, "Value 0 is not finite"),
        ([0.5], {"confidence": 95}, "between 0 and 1"),
        ([0.5], {"resamples": 0}, "one resample or more"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(values, settings, says):
    with pytest.raises(InputError, match=says):
        bootstrap_interval(values, **settings)
