"""What a detector is trained on shows its findings where its boxes say."""

import numpy as np
import pytest
from MedMapAILib.box_samples import IGNORED, Move, random_move, sample_at
from scipy import ndimage

SPACING = np.array([1.0, 1.0, 2.0])
OFF = {"affine": 0.0, "flip_axes": [], "flip": 0.5, "rotate_degrees": [0, 0, 0], "scale": 0.0}
ON = {"affine": 1.0, "flip_axes": [0, 1, 2], "flip": 0.5, "rotate_degrees": [30, 30, 30], "scale": 0.2}


def ellipsoid(half=(7.0, 6.0, 4.0), center=(40.0, 30.0, 20.0), shape=(80, 70, 40)):
    """A soft ellipsoid along the axes: its edge is where the volume is one half. Voxel edges."""
    grid = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in shape], indexing="ij"), -1)
    distance = np.linalg.norm((grid - center) / half, axis=-1)
    volume = np.clip(0.5 + (1 - distance) * 2, 0, 1)
    box = np.concatenate([np.subtract(center, half), np.add(center, half)])
    return volume, box


def prepared(volume, boxes, **more):
    boxes = np.reshape(boxes, (-1, 6))
    return {
        "image": volume[None].astype(np.float16),
        "boxes": boxes,
        "labels": np.zeros(len(boxes), dtype=np.int64),
        "ignored": np.zeros((0, 6)),
        "negatives": np.zeros((0, 3)),
        **more,
    }


def shown(image):
    """The box around what is at least one half bright, from the volume itself."""
    place = ndimage.find_objects((image.squeeze() >= 0.5).astype(int))[0]
    return np.array([axis.start for axis in place] + [axis.stop for axis in place])


def test_a_patch_that_is_not_moved_is_a_cut():
    volume, box = ellipsoid()
    move = Move(np.array([40.5, 30.5, 20.5]), np.eye(3), np.array([32, 32, 16]))
    sample = sample_at(prepared(volume, box), move)
    np.testing.assert_array_equal(sample["image"][0], volume[25:57, 15:47, 13:29].astype(np.float16))
    np.testing.assert_allclose(sample["boxes"][0], box - [25, 15, 13, 25, 15, 13])
    assert sample["labels"].tolist() == [0] + [-1] * 63


@pytest.mark.parametrize("seed", range(12))
def test_boxes_move_with_the_picture(seed):
    volume, box = ellipsoid(half=(7.0, 7.0, 3.5))  # a ball in mm
    case = prepared(volume, box)
    move = random_move(case, np.array([48, 48, 24]), SPACING, ON, (1.0, 0.0), np.random.default_rng(seed))
    sample = sample_at(case, move)
    assert sample["labels"][0] == 0
    np.testing.assert_allclose(sample["boxes"][0], shown(sample["image"].numpy()), atol=1.0)


@pytest.mark.parametrize("seed", range(4))
def test_turned_ellipsoids_have_the_box_around_them(seed):
    volume, box = ellipsoid(half=(10.0, 5.0, 3.0))
    case = prepared(volume, box)
    settings = ON | {"rotate_degrees": [0, 0, 60]}
    sample = sample_at(
        case, random_move(case, np.array([64, 64, 32]), SPACING, settings, (1.0, 0.0), np.random.default_rng(seed))
    )
    np.testing.assert_allclose(sample["boxes"][0], shown(sample["image"].numpy()), atol=1.0)


def test_instances_give_the_box_of_their_voxels():
    volume, box = ellipsoid()
    instances = (volume >= 0.5).astype(np.int16)
    case = prepared(volume, box + [-3, 0, 0, 3, 0, 0], instances=instances)
    sample = sample_at(case, Move(np.array([40.5, 30.5, 20.5]), np.eye(3), np.array([32, 32, 16])))
    np.testing.assert_array_equal(sample["boxes"][0], shown(sample["image"].numpy()))
    np.testing.assert_array_equal(sample["instances"] > 0, sample["image"][0] >= 0.5)


def test_a_finding_that_is_hardly_in_the_patch_is_neither_right_nor_wrong():
    volume, box = ellipsoid()
    for x, label in ((58.5, IGNORED), (54.5, 0), (70.5, -1)):  # the patch begins at 43, 39, 55; the box is 33 to 47
        sample = sample_at(prepared(volume, box), Move(np.array([x, 30.5, 20.5]), np.eye(3), np.array([32, 32, 16])))
        assert sample["labels"][0] == label
        assert sample["boxes"][0, 0] >= 0


def test_a_slice_shows_the_cross_section():
    volume, box = ellipsoid(half=(8.0, 6.0, 5.0), center=(40.5, 30.5, 20.5))
    patch = np.array([64, 64, 1])
    for away in (0, 2, 4):
        sample = sample_at(prepared(volume, box), Move(np.array([40.5, 30.5, 20.0 + away]), np.eye(3), patch))
        assert sample["image"].shape == (1, 64, 64) and sample["boxes"].shape[1] == 4
        # The nearest edge of the slice is what it shows of the ellipsoid: half a slice nearer than its middle.
        factor = np.sqrt(1 - (max(away - 0.5, 0) / 5) ** 2)
        width = sample["boxes"][0, 2:] - sample["boxes"][0, :2]
        np.testing.assert_allclose(width, [16 * factor, 12 * factor], rtol=1e-5)
    beyond = sample_at(prepared(volume, box), Move(np.array([40.5, 30.5, 27.0]), np.eye(3), patch))
    assert (beyond["labels"] == -1).all()


def test_findings_smaller_than_a_voxel_keep_a_box():
    volume, _ = ellipsoid()
    sample = sample_at(
        prepared(volume, [40.2, 30.2, 20.2, 40.5, 30.5, 20.4]),
        Move(np.array([40.5, 30.5, 20.5]), np.eye(3), np.array([32, 32, 16])),
    )
    np.testing.assert_allclose(sample["boxes"][0, 3:] - sample["boxes"][0, :3], 1.0)


def test_the_share_of_patches_around_findings_and_mistakes():
    volume, box = ellipsoid(shape=(200, 70, 40))
    case = prepared(volume, box, negatives=np.array([[150.0, 30.0, 20.0]]))
    random = np.random.default_rng(0)
    centers = np.array(
        [random_move(case, np.array([24, 24, 16]), SPACING, OFF, (0.5, 0.5), random).center for _ in range(200)]
    )
    near = np.abs(centers[:, 0] - 40) < 12
    assert 0.4 < near.mean() < 0.6
    assert (np.abs(centers[~near, 0] - 150) < 13).all()


def test_the_same_seed_gives_the_same_sample():
    volume, box = ellipsoid()
    case = prepared(volume, box)
    first, second = (
        sample_at(case, random_move(case, np.array([32, 32, 16]), SPACING, ON, (0.5, 0), np.random.default_rng(5)))
        for _ in range(2)
    )
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_what_is_mostly_out_of_sight_is_ignored_with_masks_too():
    """2 of 10 voxels are in the patch: less than half, whether the box is drawn or measured."""
    instances = np.zeros((40, 40, 40), np.uint8)
    instances[10:20, 10:20, 10:20] = 1
    case = prepared(instances.astype(float), [10, 10, 10, 20, 20, 20])
    move = Move(np.array([25.5, 15.5, 15.5]), np.eye(3), np.array([16, 16, 16]))
    for more in ({}, {"instances": instances}):
        sample = sample_at(case | more, move)
        assert sample["labels"][0] == IGNORED
        np.testing.assert_allclose(sample["boxes"][0], [0, 2, 2, 2, 12, 12])
        assert not sample.get("instances", np.zeros(1)).any()
