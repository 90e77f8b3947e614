"""The model grid: exact where axes only swap, centered where they are resampled, the same physics either way."""

import numpy as np
import pytest
import torch
from MedMapAILib.decoding import Answer, decode_labels
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image
from MedMapAILib.plan import plan_from_dict
from MedMapAILib.preprocessing import (
    Grid,
    canonical_grid,
    crop_to_roi,
    is_oblique,
    labels_to_model_grid,
    model_grid,
    normalize,
    resample,
    to_model_grid,
)
from orders import every_axis_order, rotation

PLAN = {
    "spacing": [1.0, 1.0, 1.0],
    "patch": [16, 16, 16],
    "batch": 1,
    "normalization": {"kind": "zscore"},
    "interpolation": "linear",
    "axes": "patient",
    "reasons": {},
}


def plan(**changes):
    return plan_from_dict({**PLAN, **changes}, where="the test")


def field(points):
    """A smooth function of the position in the patient (mm), so that its value anywhere is known."""
    x, y, z = points
    return np.sin(x / 9) + np.cos(y / 7) * z / 20 + 0.1 * x


def sampled(shape, affine):
    grid = np.indices(shape).reshape(3, -1)
    return make_image(field(affine[:3, :3] @ grid + affine[:3, 3:]).reshape(1, *shape), affine)


def test_all_axis_orders_give_the_same_model_image():
    affine = np.diag([1.5, 0.8, 2.0, 1])
    affine[:3, 3] = (-20, 5, 30)
    image = sampled((12, 15, 10), affine)
    expected = to_model_grid(image, plan())
    count = 0
    for array, turned, _ in every_axis_order(image.numpy(), affine):
        model = to_model_grid(make_image(array, turned), plan())
        np.testing.assert_array_equal(model.numpy(), expected.numpy())
        np.testing.assert_allclose(model.affine, expected.affine, atol=1e-9)
        count += 1
    assert count == 48


def test_resampled_values_are_those_of_the_position():
    affine = np.diag([1.2, 1.2, 1.2, 1.0])
    image = sampled((40, 40, 40), affine)
    model = to_model_grid(image, plan(normalization={"kind": "none"}, interpolation="cubic"))
    indices = np.indices(model.shape[1:])[:, 5:-5, 5:-5, 5:-5].reshape(3, -1)
    matrix = np.asarray(model.affine)
    truth = field(matrix[:3, :3] @ indices + matrix[:3, 3:])
    found = model.numpy()[0, 5:-5, 5:-5, 5:-5].ravel()
    assert np.abs(found - truth).max() < 2e-3


def test_oblique_volume_stands_upright_on_the_model_grid():
    affine = np.eye(4)
    affine[:3, :3] = rotation((1, 2, 3), 25) * 1.1
    affine[:3, 3] = (3, -40, 12)
    image = sampled((50, 44, 48), affine)
    assert is_oblique(Grid.of(image))
    model = to_model_grid(image, plan(normalization={"kind": "none"}, interpolation="cubic"))
    np.testing.assert_array_equal(np.asarray(model.affine)[:3, :3], np.eye(3))
    # Where the model's voxel lies well inside the source, its value is that of its position.
    indices = np.indices(model.shape[1:]).reshape(3, -1)
    matrix = np.asarray(model.affine)
    points = matrix[:3, :3] @ indices + matrix[:3, 3:]
    inverse = np.linalg.inv(affine)
    source = inverse[:3, :3] @ points + inverse[:3, 3:]
    inside = np.all((source > 9) & (source < np.array([[50], [44], [48]]) - 10), axis=0)
    assert inside.sum() > 10000
    assert np.abs(model.numpy().ravel() - field(points))[inside].max() < 2e-3


def test_image_axes_are_kept_when_the_plan_says_so():
    affine = np.eye(4)
    affine[:3, :3] = rotation((0, 0, 1), 30)
    image = sampled((10, 10, 10), affine)
    model = to_model_grid(image, plan(axes="image"))
    assert model.shape == image.shape
    np.testing.assert_allclose(model.affine, affine, atol=1e-12)


def test_same_grid_is_not_resampled():
    grid = Grid((5, 6, 7), np.diag([1.004, 1, 1, 1]))
    assert model_grid(grid, plan()) is grid
    array = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    assert resample(array, grid, grid, "linear") is array


def test_new_grid_is_centered_on_the_old():
    grid = canonical_grid(Grid((7, 9, 11), np.diag([1.7, 2.1, 0.9, 1])))
    new = model_grid(grid, plan())
    for one in (grid, new):
        middle = one.affine[:3, :3] @ ((np.array(one.shape) - 1) / 2) + one.affine[:3, 3]
        np.testing.assert_allclose(middle, [5.1, 8.4, 4.5])
    assert new.shape == (12, 19, 10)


def test_labels_and_scores_return_to_every_voxel():
    affine = np.diag([2.0, 1.0, 1.5, 1.0])
    labels = np.zeros((20, 24, 18), dtype=np.uint8)
    labels[4:12, 5:17, 3:12] = 7
    labels[12:16, 5:17, 3:12] = 3
    source = Grid(labels.shape, affine)
    on_model = labels_to_model_grid(labels, affine, plan())
    assert set(np.unique(on_model)) == {0, 3, 7}
    values = np.array([0, 3, 7])
    logits = torch.from_numpy(np.stack([20 * (on_model == v).astype(np.float32) for v in values]))
    back = decode_labels(Answer.of(logits[None]), model_grid(canonical_grid(source), plan()), source, values)
    assert back.dtype == np.uint8
    overlap = 2 * ((back == 7) & (labels == 7)).sum() / ((back == 7).sum() + (labels == 7).sum())
    assert overlap > 0.97


def test_zscore_has_mean_zero_and_deviation_one():
    array = np.random.default_rng(1).gamma(2, 300, size=(2, 8, 9, 10))
    normal = normalize(array, {"kind": "zscore"})
    np.testing.assert_allclose(normal.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(normal.std(axis=(1, 2, 3)), 1, atol=1e-5)


def test_ct_normalization_uses_fixed_numbers():
    array = np.array([-2000.0, -100.0, 50.0, 3000.0]).reshape(1, 2, 2, 1)
    normal = normalize(array, {"kind": "ct", "clip": [-1000, 400], "mean": 50, "sd": 150})
    np.testing.assert_allclose(normal.ravel(), [-7, -1, 0, 350 / 150], rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e6])
def test_constant_image_is_refused(value):
    with pytest.raises(InputError, match="constant"):
        normalize(np.full((1, 4, 4, 4), value), {"kind": "zscore"})


def test_roi_takes_the_voxels_whose_centers_it_holds():
    affine = np.diag([-2.0, 1.0, 3.0, 1.0])
    affine[:3, 3] = (40, -10, 0)
    image = make_image(np.random.default_rng(0).normal(size=(1, 30, 30, 12)), affine)
    part, slices = crop_to_roi(image, (0, 0, 12), (8, 6, 6))
    # x = 40 - 2 i in [-4, 4]: i = 18..22; y = j - 10 in [-3, 3]: j = 7..13; z = 3 k in [9, 15]: k = 3..5
    assert [(s.start, s.stop) for s in slices] == [(18, 23), (7, 14), (3, 6)]
    np.testing.assert_allclose(np.asarray(part.affine)[:3, 3], [4, -3, 9])
    np.testing.assert_array_equal(part.numpy(), image.numpy()[:, 18:23, 7:14, 3:6])


def test_roi_beside_the_image_is_refused_with_its_bounds():
    image = make_image(np.random.default_rng(0).normal(size=(1, 10, 10, 10)), np.eye(4))
    with pytest.raises(InputError, match=r"holds no voxel.*\(9.0, 9.0, 9.0\)"):
        crop_to_roi(image, (100, 0, 0), (5, 5, 5))
