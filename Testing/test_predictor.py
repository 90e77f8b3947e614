"""Prediction is a function of the physical image, whatever grid it is stored on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from MedMapAILib.bundle import load_bundle
from MedMapAILib.decoding import Answer
from MedMapAILib.errors import Cancelled, InputError, RunError
from MedMapAILib.image import make_image
from MedMapAILib.inference.backends import OutOfMemory
from MedMapAILib.inference.estimate import Estimate
from MedMapAILib.inference.predictor import Predictor
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
        answer, truth = predictor.task.predict(lambda volume: Answer.of(network(volume)), image).labels == 1, away < 14
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


def test_an_estimate_is_given_before_the_windows_and_again_with_a_time(predictor):
    voxels, _, affine = ball_and_box(1, shape=(40, 24, 30))
    fresh = Predictor(predictor.bundle)
    for estimates_with_time in ([False, True], [True]):
        events = []
        fresh.predict(
            make_image(voxels[None], affine),
            progress=lambda f, m, events=events: events.append(m),
            on_estimate=events.append,
        )
        estimates = [e for e in events if isinstance(e, Estimate)]
        assert isinstance(events[0], Estimate)
        assert [e.seconds is not None for e in estimates] == estimates_with_time
        assert estimates[0].windows == sum(isinstance(e, str) for e in events)
        assert estimates[0].window == (16, 16, 16) and estimates[0].memory_bytes > 0


def test_mirroring_is_the_models_choice_and_can_be_left_out(predictor):
    bundle = replace(predictor.bundle, inference={**predictor.bundle.inference, "mirror_axes": [0, 2]})
    assert Predictor(bundle).passes == 4
    assert Predictor(bundle, mirror=False).passes == 1
    with pytest.raises(InputError, match="not trained on mirrored"):
        Predictor(predictor.bundle, mirror=True)


def test_with_little_memory_smaller_windows_are_used_and_said(predictor):
    voxels, labels, affine = ball_and_box(100)
    asked = []
    little = Predictor(predictor.bundle, backend="torch", memory_bytes=2**20)
    result = little.predict(make_image(voxels[None], affine), on_estimate=asked.append)
    assert asked[0].window == (4, 4, 4) or np.prod(asked[0].window) < 16**3
    assert any("memory" in note for note in result.notes)
    assert result.labels.shape == labels.shape


class SmallMemory:
    """A back end on a device that has room for little windows alone."""

    def __init__(self, inner, most_voxels):
        self._inner, self._most, self.refused = inner, most_voxels, []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __call__(self, windows):
        if windows[0, 0].numel() > self._most:
            self.refused.append(tuple(windows.shape))
            raise OutOfMemory("no room")
        return self._inner(windows)


def test_when_memory_runs_out_smaller_windows_are_tried(predictor):
    voxels, labels, affine = ball_and_box(100)
    fresh = Predictor(predictor.bundle, backend="torch", precision="fp32")
    fresh._backend = SmallMemory(fresh._backend, 8 * 16 * 16)
    result = fresh.predict(make_image(voxels[None], affine))
    assert fresh._backend.refused == [(1, 1, 16, 16, 16)]
    assert any("ran out" in note and "8×16×16" in note for note in result.notes)
    assert ((result.labels == 1) & (labels == 1)).any()


def test_when_nothing_fits_it_is_one_sentence(predictor):
    voxels, _, affine = ball_and_box(100)
    fresh = Predictor(predictor.bundle, backend="torch")
    fresh._backend = SmallMemory(fresh._backend, 0)
    with pytest.raises(RunError, match="no room"):
        fresh.predict(make_image(voxels[None], affine))


def test_the_result_says_where_and_in_which_format_it_was_computed(predictor):
    voxels, _, affine = ball_and_box(100)
    result = predictor.predict(make_image(voxels[None], affine))
    assert result.notes[-1] == f"Computed on {predictor.device_description}."
    assert predictor.device_description.endswith(("fp32", "bf16"))
