"""Findings and their voxels: boxes round masks, and label maps of findings."""

import numpy as np
import pytest
from MedMapAILib.datasets.instances import (
    bounds_of_mask,
    box_of_edges,
    equivalent_diameter,
    finding_of_mask,
    instances_of,
)
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image
from MedMapAILib.results import Finding, finding_of_sphere


def oblique(degrees=30.0, spacing=(0.7, 0.7, 2.5), origin=(-40.0, 12.0, 7.0)):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def empty(shape, affine=None):
    return make_image(np.zeros((1, *shape), dtype=np.float32), np.eye(4) if affine is None else affine)


def test_a_box_reaches_to_the_edges_of_voxels():
    values = np.zeros((8, 8, 8), dtype=bool)
    values[3:6, 2, 4:6] = True
    affine = np.diag([-0.5, -0.5, 2.0, 1.0])  # left, posterior, superior, as CT is
    low, high = bounds_of_mask(values, affine)
    np.testing.assert_allclose(low, (-2.75, -1.25, 7.0))
    np.testing.assert_allclose(high, (-1.25, -0.75, 11.0))
    center, size = box_of_edges((3, 2, 4), (6, 3, 6), affine)
    np.testing.assert_allclose(center, (low + high) / 2)
    np.testing.assert_allclose(size, high - low)
    with pytest.raises(ValueError, match="no voxel"):
        bounds_of_mask(np.zeros((2, 2, 2), dtype=bool), affine)


def test_a_box_round_an_oblique_mask_holds_every_corner_and_nothing_more():
    values = np.random.default_rng(0).random((7, 6, 4)) > 0.9
    affine = oblique()
    low, high = bounds_of_mask(values, affine)
    corners = np.concatenate(
        [np.argwhere(values) + (a, b, c) for a in (-0.5, 0.5) for b in (-0.5, 0.5) for c in (-0.5, 0.5)]
    )
    places = corners @ affine[:3, :3].T + affine[:3, 3]
    np.testing.assert_allclose(low, places.min(axis=0))
    np.testing.assert_allclose(high, places.max(axis=0))


def test_the_diameter_is_that_of_a_ball_of_the_same_volume():
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    grid = np.moveaxis(np.indices((60, 60, 60)), 0, -1) * 0.5
    ball = ((grid - 15.1) ** 2).sum(axis=-1) <= 10**2
    assert equivalent_diameter(ball, affine) == pytest.approx(20, rel=0.005)
    finding = finding_of_mask(ball, affine, "nodule", state="reference")
    assert finding.diameter_mm == pytest.approx(20, rel=0.005)
    np.testing.assert_allclose(finding.center, (15.1,) * 3, atol=0.26)
    assert finding.mask.values.shape == (40, 40, 40) and finding.volume_ml == pytest.approx(4 / 3 * np.pi, rel=0.01)


def test_masks_come_back_as_they_were_on_any_grid_of_their_own():
    labels = np.zeros((12, 10, 6), dtype=int)
    labels[2:5, 3:7, 1:3] = 1
    labels[6:11, 1:3, 2:6] = 2
    labels[8, 8, 5] = 3
    for affine in (np.eye(4), np.diag([-0.6, -0.6, 2.5, 1]), oblique()):
        findings = [finding_of_mask(labels == n, affine, "nodule") for n in (1, 2, 3)]
        result = instances_of(findings, empty(labels.shape, affine))
        assert result.dtype == np.int16
        np.testing.assert_array_equal(result, labels)


def test_a_mask_from_another_grid_is_taken_at_the_nearest_voxel():
    values = np.ones((4, 4, 4), dtype=bool)
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    fine = np.diag([1.0, 1.0, 1.0, 1.0])
    fine[:3, 3] = -0.5  # each voxel of the mask is eight of the image
    result = instances_of([finding_of_mask(values, coarse, "nodule")], empty((10, 10, 10), fine))
    expected = np.zeros((10, 10, 10))
    expected[:8, :8, :8] = 1
    np.testing.assert_array_equal(result, expected)


def test_without_a_mask_it_is_the_ellipsoid_in_the_box():
    finding = Finding((20.0, 15.0, 10.0), (24.0, 16.0, 12.0), "nodule")
    for affine in (np.diag([0.5, 0.5, 0.5, 1.0]), oblique(20, (0.5, 0.5, 0.5), (8.0, 0.0, 0.0))):
        result = instances_of([finding], empty((80, 80, 60), affine))
        assert result.sum() * 0.125 == pytest.approx(np.pi / 6 * 24 * 16 * 12, rel=0.01)
        low, high = bounds_of_mask(result == 1, affine)
        # A voxel beyond the ellipsoid's own box at most.
        assert (low > np.array(finding.bounds[:3]) - 0.5).all() and (high < np.array(finding.bounds[3:]) + 0.5).all()


def test_small_ones_lie_on_top_and_what_is_smaller_than_a_voxel_is_one():
    large, small = finding_of_sphere((10, 10, 10), 12, "nodule"), finding_of_sphere((10, 10, 10), 4, "nodule")
    tiny, outside = finding_of_sphere((3.3, 2.8, 17.4), 0.2, "nodule"), finding_of_sphere((-9, 2, 2), 4, "nodule")
    partly = finding_of_sphere((0, 10, 19), 6, "nodule")
    result = instances_of([small, tiny, outside, large, partly], empty((20, 20, 20)))
    assert result[10, 10, 10] == 1 and result[10, 10, 14] == 4
    assert np.argwhere(result == 2).tolist() == [[3, 3, 17]]
    assert not (result == 3).any() and (result == 5).any()
    for number in range(5):
        alone = instances_of([[small, tiny, outside, large, partly][number]], empty((20, 20, 20)))
        seen = (result == number + 1).sum()
        assert seen == (alone == 1).sum() - ((result == 1).sum() if number == 3 else 0)


def test_more_than_a_label_map_can_tell_apart():
    with pytest.raises(InputError, match="32767"):
        instances_of([finding_of_sphere((1, 1, 1), 1, "nodule")] * 32768, empty((3, 3, 3)))
