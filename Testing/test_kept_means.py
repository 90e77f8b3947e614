"""What a network changed in the mean of like tissue is taken back, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from MedMapAILib.bundle import load_bundle
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image
from MedMapAILib.inference.opening import open_predictor
from MedMapAILib.measurements.acquisition import acquisition_of
from MedMapAILib.tasks.kept_means import keep_means
from MedMapAILib.training.config import complete_config
from reconstruction_data import body
from scipy import ndimage

WINDOW = {"low": -1000.0, "high": 1000.0}
AIR, WATER, BONE = -1000.0, 0.0, 700.0


def tissues() -> np.ndarray:
    """Water in air, with a bone in it; (80, 72, 3), HU."""
    truth = np.full((80, 72, 3), AIR, dtype=np.float32)
    truth[10:70, 10:62] = WATER
    truth[30:45, 25:40] = BONE
    return truth


def inside(truth: np.ndarray, value: float, edge: int = 4) -> np.ndarray:
    """Where the truth is of that value, away from where it changes within a slice."""
    return ndimage.binary_erosion(truth == value, np.ones((2 * edge + 1, 2 * edge + 1, 1)), border_value=1)


def test_a_bias_of_each_tissue_is_taken_back():
    given = tissues()
    biases = {AIR: 3.0, WATER: -4.0, BONE: 20.0}
    biased = given + sum((given == value) * np.float32(bias) for value, bias in biases.items())
    kept = keep_means(biased, given, finer=1.35, flat=2, **WINDOW)
    for value, bias in biases.items():
        left = (kept - given)[inside(given, value)]
        assert np.abs(left).max() < 0.1 * abs(bias) and abs(left.mean()) < 0.05 * abs(bias)


def test_noise_stays_away_and_means_stay():
    truth = tissues()
    noise = np.random.default_rng(0).normal(0, 40, truth.shape).astype(np.float32)
    kept = keep_means(truth, truth + noise, finer=1.35, flat=2, **WINDOW)
    for value in (AIR, WATER, BONE):
        where = inside(truth, value)
        assert abs((kept - truth - noise)[where].mean()) < 2.0
        assert (kept - truth)[where].std() < 40 / 6


def test_what_is_finer_stays():
    given = tissues()
    pattern = (np.indices(given.shape)[:2].sum(axis=0) % 2 * 2 - 1).astype(np.float32) * 50
    kept = keep_means(given + pattern, given, finer=1.35, flat=2, **WINDOW)
    where = inside(given, WATER)
    np.testing.assert_allclose((kept - given)[where], pattern[where], atol=1.0)


def test_slices_that_the_network_saw_apart_are_apart():
    given = tissues()
    biased, other = given + 5, given + 5
    other[..., 2] += 30
    one, two = (keep_means(each, given, finer=1.35, flat=2, **WINDOW) for each in (biased, other))
    np.testing.assert_array_equal(one[..., :2], two[..., :2])


@pytest.mark.parametrize("flat", [2, None])
def test_the_result_does_not_depend_on_the_order_of_voxels(flat):
    random = np.random.default_rng(1)
    given = tissues() + random.normal(0, 30, (80, 72, 3)).astype(np.float32)
    output = tissues() + 7
    kept = keep_means(output, given, finer=1.35, flat=flat, **WINDOW)
    turned = keep_means(
        np.ascontiguousarray(output.transpose(2, 1, 0)[:, ::-1]),
        np.ascontiguousarray(given.transpose(2, 1, 0)[:, ::-1]),
        finer=1.35,
        flat=None if flat is None else 0,
        **WINDOW,
    )
    np.testing.assert_allclose(turned[:, ::-1].transpose(2, 1, 0), kept, atol=2e-3)


def test_the_model_that_ships_keeps_hounsfield_units():
    """Air, water and bone of a body, as the noisy image has them."""
    truth, affine = body(3, size=160, slices=2)
    noisy = acquisition_of({"kind": "ct", "views": 360, "photons": 1e5}).degraded(make_image(truth[None], affine), 2)
    noisy.meta["assume_hounsfield"] = True
    bundle = load_bundle("low-dose-ct")
    means = {}
    for kept in (0.0, bundle.inference["keep_means"]):
        result = open_predictor(replace(bundle, inference=bundle.inference | {"keep_means": kept})).predict(noisy)
        change = result.values - noisy.numpy()[0]
        means[kept] = [abs(float(change[inside(truth, value)].mean())) for value in (-1000, 0, 500)]
    off, on = means.values()
    assert max(on) < 2.0 < max(off)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inference": {"keep_means": -1}}, "at least 0"),
        ({"inference": {"keep_means": True}}, "number"),
        ({"inference": {"keep_means": 1}, "task": {"name": "segmentation"}}, "reconstruction"),
    ],
)
def test_mistakes_are_one_sentence(changes, said):
    with pytest.raises(InputError, match=said):
        complete_config({"dataset": {"path": "x"}, "task": {"name": "reconstruction"}} | changes)


def test_a_network_for_measurements_has_no_image_whose_means_it_could_keep():
    bundle = load_bundle("sparse-view-ct")
    with pytest.raises(InputError, match="keep_means"):
        open_predictor(replace(bundle, inference=bundle.inference | {"keep_means": 1.0}))
