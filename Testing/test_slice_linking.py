"""Detections of slices become findings: one ball is one, two vessels stay two, whatever the order of the slices."""

from __future__ import annotations

import numpy as np
import pytest
from MedMapAILib.slice_linking import link_slices


def found(*boxes, score=0.9, label=0) -> dict:
    return {
        "boxes": np.array(boxes, dtype=np.float32).reshape(-1, 4),
        "scores": np.full(len(boxes), score, dtype=np.float32),
        "labels": np.full(len(boxes), label, dtype=np.int64),
    }


def square(row: float, column: float, side: float) -> list[float]:
    return [row - side / 2, column - side / 2, row + side / 2, column + side / 2]


def ball(radius: float, slices: int, middle: float) -> list[dict]:
    """The boxes of a ball's circles at (20, 30) in each slice of one voxel, and nothing in the others."""
    result = []
    for n in range(slices):
        squared = radius**2 - (n + 0.5 - middle) ** 2
        result.append(found(square(20, 30, 2 * squared**0.5), score=0.5 + 0.01 * n) if squared > 0 else found())
    return result


def test_a_ball_over_seven_slices_is_one_finding():
    linked = link_slices(ball(3.6, 12, 5.5), np.arange(12) * 1.25)
    assert linked["boxes"] == pytest.approx(np.array([[16.4, 26.4, 2, 23.6, 33.6, 9]]), abs=1e-4)
    assert linked["slices"].tolist() == [7]
    assert linked["labels"].tolist() == [0]
    # The highest of 0.52 to 0.58.
    assert linked["scores"] == pytest.approx([0.58])


@pytest.mark.parametrize("top, score", [(1, 0.58), (3, 0.57), (100, 0.55)])
def test_the_score_is_the_mean_of_the_highest(top, score):
    assert link_slices(ball(3.6, 12, 5.5), np.arange(12), top=top)["scores"] == pytest.approx([score])


def test_the_tips_of_a_ball_belong_to_it():
    # Circles of radius 0.9 and 6: an IoU of 0.02, one inside the other.
    slices = [found(square(9, 9, 1.8)), found(square(10, 10, 12)), found(square(11, 11, 1.8))]
    assert len(link_slices(slices, [0, 5, 10])["boxes"]) == 1
    assert len(link_slices(slices, [0, 5, 10], contained=1.1)["boxes"]) == 3


def test_two_vessels_side_by_side_stay_two():
    # They drift by a voxel a slice, and touch.
    slices = [found(square(20 + n, 20, 8), square(20 + n, 28, 8)) for n in range(9)]
    linked = link_slices(slices, range(9))
    assert len(linked["boxes"]) == 2
    assert sorted(linked["boxes"][:, 1].tolist()) == [16, 24]
    assert linked["slices"].tolist() == [9, 9]


def test_of_two_that_overlap_each_goes_on_with_the_nearer():
    # An IoU of 7/9 with its own, and of 1/3, which would be enough, with the other.
    slices = [found(square(20, 20, 8), square(20, 25, 8)), found(square(20, 26, 8), square(20, 21, 8))]
    linked = link_slices(slices, [0, 1])
    assert sorted(map(tuple, linked["boxes"][:, [1, 4]].tolist())) == [(16, 25), (21, 30)]


@pytest.mark.parametrize("missing, gap, expected", [(1, 1, 1), (1, 0, 2), (2, 1, 2), (2, 2, 1)])
def test_a_gap_is_bridged_as_far_as_allowed(missing, gap, expected):
    slices = [found(square(20, 20, 8))] + [found()] * missing + [found(square(20, 20, 8))]
    linked = link_slices(slices, range(len(slices)), gap=gap)
    assert len(linked["boxes"]) == expected
    if expected == 1:
        assert linked["boxes"][0].tolist() == [16, 16, 0, 24, 24, missing + 2]
        assert linked["slices"].tolist() == [2]


def test_slices_that_were_never_looked_at_are_a_gap_too():
    slices = [found(square(20, 20, 8)) for _ in range(3)]
    # 0, 2.5 and 10 mm: the third is four slices on.
    assert link_slices(slices, [0, 2.5, 10])["boxes"][:, [2, 5]].tolist() == [[0, 2], [4, 5]]
    assert len(link_slices(slices, [0, 2.5, 10], gap=2)["boxes"]) == 1
    # Counted from a first slice that nobody looked at.
    assert link_slices(slices[:1], [7.5], spacing=2.5, first=0)["boxes"][:, [2, 5]].tolist() == [[3, 4]]


def test_the_order_of_slices_and_of_boxes_makes_no_difference():
    rng = np.random.default_rng(3)
    slices = []
    for _ in range(20):
        low = rng.uniform(0, 40, size=(6, 2))
        one = found(*np.concatenate([low, low + rng.uniform(5, 20, size=(6, 2))], axis=1))
        one["scores"] = rng.choice([0.3, 0.6, 0.9], size=6)
        one["labels"] = rng.integers(0, 2, size=6)
        slices.append(one)
    positions = -100 + 2.5 * np.arange(20)
    expected = link_slices(slices, positions)
    shuffled = rng.permutation(20)
    mixed = [{name: values[::-1] for name, values in s.items()} for s in slices]
    other = link_slices([mixed[n] for n in shuffled], positions[shuffled])
    assert 20 < len(expected["boxes"]) < 120
    for name in expected:
        np.testing.assert_array_equal(expected[name], other[name])
    # Every box is part of exactly one finding.
    assert expected["slices"].sum() == 120


def test_classes_are_not_mixed():
    slices = [found(square(20, 20, 8), label=n % 2) for n in range(4)]
    linked = link_slices(slices, range(4), gap=0)
    assert sorted(linked["labels"].tolist()) == [0, 0, 1, 1]
    linked = link_slices(slices, range(4), gap=1)
    assert sorted(linked["labels"].tolist()) == [0, 1]
    assert linked["slices"].tolist() == [2, 2]


def test_masks_are_stacked_in_the_frame_of_the_finding():
    # A disk of radius 6 at (20, 30) in three slices; the middle one's box is larger than the disk.
    size = 28
    slices = []
    for side in (12.0, 16.0, 12.0):
        place = (np.arange(size) + 0.5) / size * side - side / 2
        disk = (place[:, None] ** 2 + place[None] ** 2 <= 36).astype(np.float32)
        slices.append(found(square(20, 30, side)) | {"masks": disk[None]})
    linked = link_slices(slices, range(3))
    mask = linked["masks"]
    assert mask.shape == (1, size, size, size)
    # 16 × 16 × 3 voxels are all of the frame, and the disk is as large in each slice.
    shares = mask[0].mean(axis=(0, 1)) * 16 * 16
    np.testing.assert_allclose(shares, np.pi * 36, rtol=0.05)
    weights = mask[0].sum(axis=(1, 2))
    assert (weights * np.arange(size)).sum() / weights.sum() == pytest.approx((size - 1) / 2, abs=1e-3)


def test_a_mask_across_a_gap_lies_between_its_neighbors():
    masks = [np.full((1, 9, 9), value, dtype=np.float32) for value in (1.0, 0.0)]
    slices = [found([0, 0, 9, 9]) | {"masks": m} for m in masks]
    slices.insert(1, found() | {"masks": np.zeros((0, 9, 9), dtype=np.float32)})
    profile = link_slices(slices, range(3))["masks"][0].mean(axis=(0, 1))
    np.testing.assert_allclose(profile, [1, 1, 1, 2 / 3, 1 / 2, 1 / 3, 0, 0, 0], atol=1e-6)


def test_short_findings_can_be_left_out():
    slices = [found(square(20, 20, 8)), found(square(20, 20, 8), square(40, 40, 8))]
    assert len(link_slices(slices, [0, 1])["boxes"]) == 2
    assert len(link_slices(slices, [0, 1], least_slices=2)["boxes"]) == 1


def test_the_best_are_kept_where_there_are_too_many():
    slices = [found(square(10 * n, 10 * n, 8), score=0.1 * n) for n in range(1, 6)]
    assert link_slices(slices, range(5), count=2)["scores"] == pytest.approx([0.5, 0.4])


def test_nothing_found_is_no_finding():
    for slices in ([], [found()], [found(), found()]):
        linked = link_slices(slices, range(len(slices)))
        assert linked["boxes"].shape == (0, 6)
        assert len(linked["scores"]) == len(linked["labels"]) == 0
    with_masks = [found() | {"masks": np.zeros((0, 28, 28), dtype=np.float32)}] * 2
    assert link_slices(with_masks, [0, 1])["masks"].shape == (0, 28, 28, 28)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="positions"):
        link_slices([found()], [0, 1])
    with pytest.raises(ValueError, match="position"):
        link_slices([found(), found()], [3, 3])
    with pytest.raises(ValueError, match="spacing"):
        link_slices([found(), found(), found()], [0, 1, 1.2], spacing=1)
    with pytest.raises(ValueError, match="slice 0"):
        link_slices([found(square(5, 5, 2)) | {"scores": np.zeros(2)}], [0])
