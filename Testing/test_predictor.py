"""Prediction is a function of the physical image, whatever grid it is stored on."""

import numpy as np
import pytest
import torch
from MedMapAILib.bundle import load_bundle
from MedMapAILib.errors import Cancelled, InputError
from MedMapAILib.image import make_image
from MedMapAILib.inference.predictor import Predictor
from MedMapAILib.inference.sliding_window import SlidingWindow
from MedMapAILib.training.run import train
from orders import every_axis_order, rotation
from synthetic import ball_and_box, small_config, write_dataset


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    data = write_dataset(folder / "data", 8)
    config = small_config(data, epochs=6, iterations_per_epoch=15)
    config["network"] = {"name": "unet", "filters": [8, 16, 16]}
    config["optimizer"] = {"learning_rate": 0.01}
    config["training"]["ema_decay"] = 0.9
    # Fixed numbers, so that how much of the surroundings is in the picture plays no part in the geometry tests.
    config["plan"]["normalization"] = {"kind": "ct", "clip": [0, 250], "mean": 100, "sd": 20}
    return Predictor(load_bundle(train(config, folder / "out")))


def test_it_has_learned_something(predictor):
    voxels, labels, affine = ball_and_box(100)
    result = predictor.predict(make_image(voxels[None], affine))
    overlap = 2 * ((result.labels == 1) & (labels == 1)).sum() / ((result.labels == 1).sum() + (labels == 1).sum())
    assert overlap > 0.8


@pytest.mark.slow
def test_48_axis_orders_give_the_same_answer_voxel_for_voxel(predictor):
    voxels, _, affine = ball_and_box(101, shape=(25, 23, 30), spacing=1.3)
    expected = predictor.predict(make_image(voxels[None], affine)).labels
    assert expected.any()
    for array, turned, back in every_axis_order(voxels[None], affine):
        result = predictor.predict(make_image(array, turned))
        np.testing.assert_allclose(result.affine, turned)
        np.testing.assert_array_equal(back(result.labels), expected)


@pytest.mark.parametrize(("axis", "degrees"), [((0, 0, 1), 20), ((1, 1, 0), 35), ((1, -2, 3), 50)])
def test_oblique_storage_gives_the_same_physical_answer(predictor, axis, degrees):
    """A soft ball sampled on an upright and on a turned grid, and a network that knows a ball by its brightness."""
    center = np.array([24.0, 24.0, 24.0])

    def distance(affine, shape):
        points = affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:]
        return np.linalg.norm(points - center[:, None], axis=0).reshape(shape)

    def network(x):
        inside = x - (50 - 100) / 20
        return torch.cat([-inside, inside, torch.full_like(inside, -9)], dim=1)

    tilted = np.eye(4)
    tilted[:3, :3] = rotation(axis, degrees)
    tilted[:3, 3] = center - tilted[:3, :3] @ np.array([29.5, 29.5, 29.5])
    for affine, shape in ((np.eye(4), (48, 48, 48)), (tilted, (60, 60, 60))):
        away = distance(affine, shape)
        image = make_image(100 / (1 + np.exp((away[None] - 14) / 2)), affine)
        answer, truth = predictor.task.predict(network, image).labels == 1, away < 14
        assert 2 * (answer & truth).sum() / (answer.sum() + truth.sum()) >= 0.99


def test_a_volume_smaller_than_the_patch_works(predictor):
    voxels, _, affine = ball_and_box(3)
    small = voxels[5:12, 6:17, 8:9]
    assert predictor.predict(make_image(small[None], affine)).labels.shape == (7, 11, 1)


def test_roi_fills_the_whole_grid_and_is_empty_outside(predictor):
    voxels, _, affine = ball_and_box(102)
    result = predictor.predict(make_image(voxels[None], affine), roi=((0, 30, 15), (12, 12, 12)))
    assert result.labels.shape == voxels.shape
    points = np.argwhere(result.labels > 0) + affine[:3, 3]
    assert len(points) and np.all(np.abs(points - (0, 30, 15)) <= 6)


def test_wrong_number_of_channels_is_refused(predictor):
    with pytest.raises(InputError, match=r"1 channel\(s\) and this one has 2"):
        predictor.predict(make_image(np.random.default_rng(0).normal(size=(2, 16, 16, 16)), np.eye(4)))


def test_a_constant_image_is_refused(predictor):
    with pytest.raises(InputError, match="constant|same value"):
        predictor.predict(make_image(np.ones((1, 16, 16, 16)), np.eye(4)))


def test_cancelling_ends_at_the_next_window(predictor):
    voxels, _, affine = ball_and_box(1, shape=(48, 48, 48))
    seen = []
    with pytest.raises(Cancelled):
        predictor.predict(
            make_image(voxels[None], affine), progress=lambda f, m: seen.append(m), cancelled=lambda: len(seen) >= 2
        )
    assert len(seen) == 2


def test_progress_counts_every_window_to_the_end(predictor):
    voxels, _, affine = ball_and_box(1, shape=(40, 24, 30))
    seen = []
    predictor.predict(make_image(voxels[None], affine), progress=lambda f, m: seen.append((f, m)))
    assert seen[-1][0] == 1.0
    total = len(seen)
    assert [m for _, m in seen] == [f"window {n} of {total}" for n in range(1, total + 1)]


def test_unknown_devices_are_refused(predictor):
    for name in ("cuda:99", "tpu", "meta"):
        with pytest.raises(InputError, match="device"):
            Predictor(predictor.bundle, device=name)


def local_mean(x):
    """A network whose answer at a voxel depends on its neighbors alone: windows may not be seen in the result."""
    return torch.nn.functional.avg_pool3d(x, 3, stride=1, padding=1, count_include_pad=False)


def test_windows_leave_no_seam():
    volume = torch.randn(1, 1, 37, 29, 41, generator=torch.Generator().manual_seed(0))
    windowed = SlidingWindow(local_mean, patch=(16, 16, 16), divisor=(4, 4, 4), overlap=0.5)(volume)
    assert (windowed - local_mean(volume))[..., 3:-3, 3:-3, 3:-3].abs().mean() < 0.02


def test_mirroring_averages_the_flips():
    ramp = torch.linspace(0, 1, 8).reshape(1, 1, 8, 1, 1).expand(1, 1, 8, 8, 8)
    weight = torch.arange(8.0).reshape(1, 1, 8, 1, 1)
    plain = SlidingWindow(lambda x: x * weight, patch=(8, 8, 8), divisor=(1, 1, 1))
    mirrored = SlidingWindow(lambda x: x * weight, patch=(8, 8, 8), divisor=(1, 1, 1), mirror_axes=(0,))
    torch.testing.assert_close(mirrored(ramp), (plain(ramp) + ramp * weight.flip(2)) / 2)


def test_two_dimensional_networks_go_slice_by_slice():
    seen = []

    def network(x):
        seen.append(tuple(x.shape))
        return x

    volume = torch.randn(1, 1, 16, 16, 5)
    out = SlidingWindow(network, patch=(16, 16, 1), divisor=(4, 4), batch=2)(volume)
    torch.testing.assert_close(out, volume)
    assert {s[2:] for s in seen} == {(16, 16)}
