"""Blob proposals: spots of known size are found where they are, as large as they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from MedMapAILib.blobs import ball_response, blob_proposals, find_blobs, sizes_around, strength
from skimage.feature import blob_log

SHAPES = {2: (60, 84), 3: (36, 48, 40)}
MIDDLES = {2: (20.5, 51.5), 3: (15.5, 26.5, 21.5)}


def distance_squared(dims: int, middle=None, shape=None) -> np.ndarray:
    """To a place in voxel edges, of the middle of each voxel."""
    where = np.indices(shape or SHAPES[dims]) + 0.5
    return sum((w - m) ** 2 for w, m in zip(where, middle or MIDDLES[dims], strict=True))


def middle_and_side(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    dims = len(box) // 2
    return (box[:dims] + box[dims:]) / 2, box[dims:] - box[:dims]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("deviation", [2.2, 3.0, 4.1])
def test_a_gaussian_is_found_at_its_scale(dims, deviation):
    # Its strongest response is at the deviation s √(2/D), which is a ball of radius s √2 in any dimension.
    image = np.exp(-distance_squared(dims) / (2 * deviation**2))
    boxes, strengths = find_blobs(image, sizes=sizes_around([[6] * dims, [14] * dims]))
    middle, side = middle_and_side(boxes[0])
    np.testing.assert_allclose(middle, MIDDLES[dims], atol=1e-5)
    np.testing.assert_allclose(side / 2, math.sqrt(2) * deviation, rtol=0.03)
    # In closed form: D t² s^D / (s² + t²)^(D/2 + 1), for a ball of contrast 1 the ball's.
    scale = deviation**2 * 2 / dims
    expected = dims * scale * deviation**dims / (deviation**2 + scale) ** (dims / 2 + 1) / ball_response(dims)
    assert strengths[0] == pytest.approx(expected, rel=0.03)
    assert (strengths[1:] < 0.1 * strengths[0]).all()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("radius", [3.5, 5.5, 8.0])
def test_a_ball_is_found_with_its_box_and_contrast(dims, radius):
    image = 40 + 300 * (distance_squared(dims) <= radius**2)
    boxes, strengths = find_blobs(image, sizes=sizes_around([[6] * dims, [14] * dims]))
    middle, side = middle_and_side(boxes[0])
    np.testing.assert_allclose(middle, MIDDLES[dims], atol=1e-5)
    # A ball of voxels has as many of them as its volume says, to a tenth.
    np.testing.assert_allclose(side, 2 * radius, rtol=0.06)
    assert strengths[0] == pytest.approx(300, rel=0.05)


def test_the_response_to_a_ball_is_the_closed_form():
    assert ball_response(2) == pytest.approx(2 / math.e)
    assert ball_response(3) == pytest.approx(4 * math.pi * (3 / (2 * math.pi * math.e)) ** 1.5)


def test_it_agrees_with_scikit_image():
    image = sum(
        np.exp(-distance_squared(2, middle) / (2 * s**2)) for middle, s in [((20.5, 20.5), 2.0), ((35.5, 60.5), 4.0)]
    )
    theirs = blob_log(image, min_sigma=1, max_sigma=8, num_sigma=29, threshold=0.1)
    ours = [middle_and_side(box) for box in find_blobs(image, sizes=sizes_around([[4, 4], [16, 16]]), least=0.3)[0]]
    assert len(ours) == len(theirs) == 2
    # scikit-image says that the radius is about √2 σ, and counts from the middle of the first voxel.
    for (middle, side), (row, column, sigma) in zip(
        sorted(ours, key=lambda one: one[1][0]), sorted(theirs, key=lambda blob: blob[2]), strict=True
    ):
        np.testing.assert_allclose(middle, (row + 0.5, column + 0.5))
        np.testing.assert_allclose(side / 2, math.sqrt(2) * sigma, rtol=0.1)


def test_flat_voxels_give_flat_boxes():
    where = (np.indices(SHAPES[3]) + 0.5 - np.array(MIDDLES[3]).reshape(3, 1, 1, 1)) * np.array([1, 1, 2.5]).reshape(
        3, 1, 1, 1
    )
    image = ((where**2).sum(axis=0) <= 6**2).astype(np.float32)
    boxes, _ = find_blobs(image, sizes=sizes_around([[8, 8, 3.2], [14, 14, 5.6]]))
    np.testing.assert_allclose(middle_and_side(boxes[0])[1], [12, 12, 4.8], rtol=0.1)


def test_the_strongest_come_first_and_no_more_than_asked_for():
    contrasts = {(14.5, 14.5): 100, (14.5, 60.5): 300, (44.5, 40.5): 200}
    image = sum(c * (distance_squared(2, middle) <= 5.5**2) for middle, c in contrasts.items())
    boxes, strengths = find_blobs(image, sizes=[11], count=2)
    assert [tuple(middle_and_side(box)[0]) for box in boxes] == [(14.5, 60.5), (44.5, 40.5)]
    assert strengths == pytest.approx([300, 200], rel=0.05)
    assert len(find_blobs(image, sizes=[11], least=250)[0]) == 1


def test_dark_spots_and_empty_images_give_nothing():
    hole = 1.0 - (distance_squared(2) <= 25)
    assert not any((middle_and_side(box)[0] == MIDDLES[2]).all() for box in find_blobs(hole, sizes=[10])[0])
    assert find_blobs(np.zeros((20, 30)), sizes=[5])[0].shape == (0, 4)
    assert find_blobs(np.full((20, 30), 7.0), sizes=[5])[0].shape == (0, 4)


def test_batches_of_both_kinds_give_the_same():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 3, 32, 40)).astype(np.float32)
    arrays = blob_proposals(images, sizes=[4, 8], count=20)
    tensors = blob_proposals(torch.from_numpy(images), sizes=[4, 8], count=20)
    again = blob_proposals(images[::-1], sizes=[8, 4], count=20)[::-1]
    assert [a.shape for a in arrays] == [(20, 4), (20, 4)]
    for a, b, c in zip(arrays, tensors, again, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
        np.testing.assert_array_equal(a, c)


def test_a_ladder_of_sizes_holds_the_anchors_and_their_proportions():
    ladder = np.array(sizes_around([[6, 6, 3], [24, 24, 12]]))
    assert ladder[0, 0] <= 4 and ladder[-1, 0] >= 36
    np.testing.assert_allclose(ladder[:, 2] / ladder[:, 0], 0.5)
    np.testing.assert_allclose(ladder[1:] / ladder[:-1], math.sqrt(2))


@pytest.mark.parametrize("sizes", [[], [0], [[4, 4, 4]], [[4, -1]]])
def test_wrong_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes"):
        find_blobs(np.zeros((8, 8)), sizes=sizes)


def test_strength_is_in_the_unit_of_the_image():
    image = distance_squared(2) <= 6**2
    assert strength(1000.0 * image, (12, 12)).max() == pytest.approx(1000, rel=0.03)
