"""Learning-rate schedules against their formulas."""

import math

import pytest
from MedMapAILib.training.schedule import learning_rate_factor


def factor(iteration, name="cosine", **changes):
    settings = {"warmup": 0, "final_fraction": 0.0, "power": 0.9, **changes}
    return learning_rate_factor(iteration, 1000, name=name, **settings)


def test_cosine_is_one_half_zero():
    assert [factor(0), factor(500), factor(1000)] == pytest.approx([1, 0.5, 0], abs=1e-12)
    assert factor(250) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_polynomial_of_power_09():
    assert factor(500, "polynomial") == pytest.approx(0.5**0.9)


def test_warmup_rises_linearly_to_the_full_rate():
    rates = [factor(n, warmup=9) for n in range(10)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


def test_final_fraction_remains():
    assert factor(1000, final_fraction=0.1) == pytest.approx(0.1)
    assert factor(700, "constant") == 1
