"""What a classifier sees: the same physical picture, however it is stored, at the place that was asked for."""

import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.framing import frame, framed_grid
from MedMapAILib.image import make_image
from MedMapAILib.plan import plan_from_dict
from MedMapAILib.preprocessing import Grid, crop_to_roi
from orders import every_axis_order, rotation


def plan(**changes):
    base = {
        "spacing": [1.0, 1.0, 1.0],
        "patch": [8, 6, 4],
        "batch": 1,
        "normalization": {"kind": "none"},
        "interpolation": "linear",
        "axes": "patient",
        "framing": "resize",
    }
    return plan_from_dict({**base, **changes}, where="the test")


def affine_at(spacing, origin=(0.0, 0.0, 0.0), directions=None):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if directions is None else directions) * spacing
    affine[:3, 3] = origin
    return affine


def positions(shape, affine):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.parametrize("framing", ["resize", "crop"])
def test_the_48_axis_orders_give_the_same_voxels(framing):
    rng = np.random.default_rng(0)
    voxels = rng.normal(size=(1, 12, 9, 7)).astype(np.float32)
    affine = affine_at((1.1, 0.9, 2.0), (5, -7, 30))
    expected = frame(make_image(voxels, affine), plan(framing=framing))
    assert expected.shape == (1, 8, 6, 4)
    count = 0
    for array, matrix, _ in every_axis_order(voxels, affine):
        framed = frame(make_image(array, matrix), plan(framing=framing))
        np.testing.assert_array_equal(framed.numpy(), expected.numpy())
        np.testing.assert_allclose(framed.affine, expected.affine, atol=1e-9)
        count += 1
    assert count == 48


def test_resized_it_holds_the_whole_image():
    affine = affine_at((0.5, 2.0, 3.0), (10, 20, 30))
    grid = framed_grid(Grid((16, 12, 8), affine), plan())
    # Outer borders, not voxel centers, coincide.
    for corner in (0, 1):
        old = affine[:3, :3] @ (np.array([16, 12, 8]) * corner - 0.5) + affine[:3, 3]
        new = grid.affine[:3, :3] @ (np.array([8, 6, 4]) * corner - 0.5) + grid.affine[:3, 3]
        np.testing.assert_allclose(new, old)


def test_a_ramp_stays_the_ramp_that_it_is_in_the_patient():
    affine = affine_at((0.5, 0.5, 1.0), (3, 4, 5))
    shape = (24, 24, 12)
    values = positions(shape, affine) @ [1.0, -2.0, 0.5]
    framed = frame(make_image(values[None].astype(np.float32), affine), plan(patch=[8, 8, 4]))
    expected = positions((8, 8, 4), np.asarray(framed.affine)) @ [1.0, -2.0, 0.5]
    # Inside: smoothing repeats the border, which bends a ramp there.
    inner = (slice(2, -2), slice(2, -2), slice(1, -1))
    np.testing.assert_allclose(framed.numpy()[0][inner], expected[inner], atol=2e-3)


def test_texture_finer_than_the_new_voxels_does_not_become_a_pattern():
    i, j = np.meshgrid(np.arange(64), np.arange(64), indexing="ij")
    stripes = ((i + j) % 2 * 2 - 1).astype(np.float32)[None, :, :, None]
    framed = frame(make_image(stripes, np.diag([-1.0, -1, 1, 1])), plan(patch=[10, 10, 1], spacing=[1, 1, 0])).numpy()
    assert np.abs(framed).max() < 0.05  # without smoothing samples are ±1


def test_a_crop_lies_around_the_place_that_was_asked_for():
    affine = affine_at((1.0, 1.0, 1.0), (-20, 5, 100), rotation((1, 2, -1), 25))
    shape = (40, 40, 40)
    where = affine[:3, :3] @ [11, 27, 20] + affine[:3, 3]
    blob = np.exp(-0.5 * ((positions(shape, affine) - where) ** 2).sum(-1) / 3.0**2)
    image = make_image(blob[None].astype(np.float32), affine)
    part, _ = crop_to_roi(image, where, (30, 30, 30))
    framed = frame(part, plan(framing="crop", patch=[15, 15, 15]), center=where)
    values = framed.numpy()[0]
    assert np.unravel_index(values.argmax(), values.shape) == (7, 7, 7)
    np.testing.assert_allclose(framed.affine[:3, :3], np.eye(3))  # upright in the patient
    expected = np.exp(-0.5 * ((positions((15, 15, 15), np.asarray(framed.affine)) - where) ** 2).sum(-1) / 3.0**2)
    np.testing.assert_allclose(values, expected, atol=0.03)  # linear interpolation of a blob of 3 mm
    middle = frame(image, plan(framing="crop", patch=[15, 15, 15])).numpy()[0]
    assert np.unravel_index(middle.argmax(), middle.shape) != (7, 7, 7)  # without a place it is the image's middle


def test_normalization_sees_what_the_network_sees():
    rng = np.random.default_rng(1)
    voxels = rng.normal(100, 20, size=(1, 40, 40, 40)).astype(np.float32)
    voxels[:, :10] = -5000  # far from the crop
    framed = frame(
        make_image(voxels, np.eye(4)), plan(framing="crop", patch=[10, 10, 10], normalization={"kind": "zscore"})
    ).numpy()
    assert abs(framed.mean()) < 1e-5 and abs(framed.std() - 1) < 1e-4


def test_a_model_for_slices_takes_one_slice():
    rng = np.random.default_rng(2)
    volume = make_image(rng.normal(size=(1, 20, 20, 6)).astype(np.float32), np.diag([1.0, 1, 5, 1]))
    slices = plan(patch=[10, 10, 1], spacing=[1, 1, 0])
    with pytest.raises(InputError, match="single slice, and the image has 6 .*superior-inferior.*one slice thick"):
        frame(volume, slices)
    part, _ = crop_to_roi(volume, (10, 10, 11.0), (12, 12, 5))
    cropped = frame(part, plan(patch=[10, 10, 1], spacing=[1, 1, 0], framing="crop"), center=(10, 10, 11.0))
    assert np.asarray(cropped.affine)[2, 3] == pytest.approx(10.0)  # the slice in which 11 mm lies is that at 10 mm
