"""Bias in Hounsfield units, in regions as a reader would draw them."""

import numpy as np
import pytest
from MedMapAILib.metrics.tissue_bias import tissue_bias, tissue_regions


def chest() -> np.ndarray:
    """Air, in it water, in that bone; (64, 64, 2), HU."""
    truth = np.full((64, 64, 2), -1000.0, dtype=np.float32)
    truth[8:56, 8:56] = 0
    truth[24:40, 24:40] = 800
    return truth


def test_each_tissue_has_its_own_mean():
    truth = chest()
    values = truth + np.select([truth < -900, truth < 100], [2.0, -3.0], 11.0).astype(np.float32)
    assert tissue_bias(truth, values, slices=2) == pytest.approx({"air": 2.0, "water": -3.0, "bone": 11.0})


def test_errors_that_cancel_are_no_bias():
    truth = chest()
    error = np.where(np.indices(truth.shape)[0] % 2, 30.0, -30.0)
    found = tissue_bias(truth, (truth + error).astype(np.float32), slices=2)
    assert all(abs(value) < 1.0 for value in found.values())


def test_noise_of_the_truth_does_not_choose_the_voxels():
    """Against a noisy truth the perfect image has no bias: of single voxels above 300 HU it would."""
    perfect = chest()
    perfect[24:40, 24:40] = 330
    noisy = perfect + np.random.default_rng(0).normal(0, 60, perfect.shape).astype(np.float32)
    single = noisy > 300
    assert float((perfect - noisy)[single].mean()) < -20
    assert abs(tissue_bias(noisy, perfect, slices=2)["bone"]) < 6


def test_edges_padding_and_what_is_not_there_are_left_out():
    truth = chest()
    truth[24:40, 24:40] = 0
    truth[:4] = -2000
    values = truth.copy()
    values[:4] = -1000
    values[7:9, 8:56], values[55:57, 8:56] = 500, 500  # the skin
    found = tissue_bias(truth, values, slices=2)
    assert found["air"] == pytest.approx(0.0) and found["bone"] is None


def test_slices_are_drawn_in_for_themselves():
    truth = chest()
    other = truth.copy()
    other[..., 1] = -1000
    one, two = (tissue_regions(each, slices=2)["bone"][..., 0] for each in (truth, other))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(tissue_regions(truth[..., 0])["bone"], one)
