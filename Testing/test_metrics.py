"""Segmentation metrics: shapes whose distances are known, and other libraries."""

from __future__ import annotations

import json
import math
import time
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.metrics import evaluate_labels
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou, compute_surface_dice
from scipy import ndimage

METRICS = ("dice", "iou", "hd95_mm", "hausdorff_mm", "surface_dice", "volume_error_ml", "volume_error_percent")


def score(predicted, reference, spacing=(1.0, 1.0, 1.0), **settings) -> dict:
    """The metrics of label 1."""
    scores = evaluate_labels(predicted, reference, labels={1: "one"}, spacing=spacing, **settings)
    assert scores["mean"] == scores["labels"]["one"]
    assert tuple(scores["mean"]) == METRICS
    return scores["mean"]


def box(shape, corner, size, value=1) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.uint8)
    labels[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = value
    return labels


def ball(shape, center, radius_mm, spacing) -> np.ndarray:
    """Voxels whose center is within a radius of a center, both in mm."""
    grid = np.indices(shape, sparse=True)
    return (sum((g * s - c) ** 2 for g, s, c in zip(grid, spacing, center, strict=True)) <= radius_mm**2).astype(
        np.uint8
    )


def blobs(seed: int, shape=(24, 20, 16)) -> np.ndarray:
    """Something irregular, that touches the border."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return (ndimage.gaussian_filter(noise, 2.0) > 0.02).astype(np.uint8)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("steps", [1, 4, 11])
def test_displaced_boxes_are_as_far_apart_as_they_were_moved(axis, steps):
    spacing, size = (0.5, 1.25, 3.0), (8, 9, 10)
    corner = [4, 4, 4]
    reference = box((30, 30, 30), corner, size)
    corner[axis] += steps
    predicted = box((30, 30, 30), corner, size)
    scores = score(predicted, reference, spacing)
    overlap = max(0, size[axis] - steps) / size[axis]
    assert scores["dice"] == pytest.approx(overlap)
    assert scores["iou"] == pytest.approx(overlap / (2 - overlap))
    # The face that moved out holds more than 5 % of the surface.
    assert scores["hausdorff_mm"] == scores["hd95_mm"] == pytest.approx(steps * spacing[axis])
    assert scores["volume_error_ml"] == scores["volume_error_percent"] == 0


def test_a_diagonal_move_is_measured_along_the_diagonal():
    scores = score(box((9, 9, 9), (1, 2, 3), (1, 1, 1)), box((9, 9, 9), (4, 4, 4), (1, 1, 1)), (1.0, 2.0, 12.0))
    assert scores["hausdorff_mm"] == scores["hd95_mm"] == pytest.approx(13.0)  # 3, 4 and 12 mm
    assert scores["dice"] == scores["iou"] == 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.9, 2.0)])
def test_balls_of_two_radii(spacing):
    shape, center = tuple(math.ceil(70 / s) for s in spacing), (34.0, 34.0, 34.0)
    small, large = ball(shape, center, 20.0, spacing), ball(shape, center, 25.0, spacing)
    scores = score(large, small, spacing)
    ratio = (20 / 25) ** 3
    assert scores["iou"] == pytest.approx(ratio, rel=0.01)
    assert scores["dice"] == pytest.approx(2 * ratio / (1 + ratio), rel=0.01)
    # Surfaces are voxels, so distances are right to the size of one.
    assert scores["hausdorff_mm"] == pytest.approx(5.0, abs=np.linalg.norm(spacing))
    assert scores["hd95_mm"] == pytest.approx(5.0, abs=max(spacing))
    assert scores["volume_error_ml"] == pytest.approx(4 / 3 * math.pi * (25**3 - 20**3) / 1000, rel=0.01)
    assert scores["volume_error_percent"] == pytest.approx(100 * (1 / ratio - 1), rel=0.01)
    assert score(small, large, spacing)["volume_error_percent"] == pytest.approx(100 * (ratio - 1), rel=0.01)
    margin = np.linalg.norm(spacing)
    assert score(large, small, spacing, tolerance_mm=5 + margin)["surface_dice"] == 1
    assert score(large, small, spacing, tolerance_mm=5 - margin)["surface_dice"] == 0


def test_hd95_leaves_out_the_farthest_twentieth():
    # A plate of 30×30 voxels, all of them surface; the prediction has a spike of 20 on it, 2 % of its surface.
    reference = box((30, 30, 30), (0, 0, 0), (30, 30, 1))
    predicted = reference.copy()
    predicted[10, 10, 1:21] = 1
    scores = score(predicted, reference)
    assert (scores["hausdorff_mm"], scores["hd95_mm"]) == (20, 0)


def test_hd95_is_the_larger_of_both_directions():
    # The reference lacks a part that is 10 % of the prediction's surface: of the 1000 distances from the prediction 100
    # are not 0, of the 900 from the reference none is. One percentile of all 1900 together would be 24.
    predicted = box((1000, 3, 3), (0, 1, 1), (1000, 1, 1))
    reference = box((1000, 3, 3), (0, 1, 1), (900, 1, 1))
    scores = score(predicted, reference)
    distances = np.concatenate([np.zeros(900), np.arange(1, 101)])
    assert scores["hd95_mm"] == pytest.approx(np.percentile(distances, 95))  # 50.05
    assert scores["hausdorff_mm"] == 100
    assert score(reference, predicted)["hd95_mm"] == scores["hd95_mm"]


def test_surface_dice_is_the_share_of_the_area():
    # Boxes of 40×20×10 mm, one moved 8 mm along its long axis: of a surface of 2800 mm² the two ends (400 mm²) and
    # what of the sides (60 mm round) reaches beyond the other lie apart. Surface elements round the edges of a box.
    shape = (60, 30, 20)
    reference, predicted = box(shape, (5, 5, 5), (40, 20, 10)), box(shape, (13, 5, 5), (40, 20, 10))
    area = 2 * (40 * 20 + 40 * 10 + 20 * 10)
    assert score(predicted, reference, tolerance_mm=0)["surface_dice"] == pytest.approx(32 * 60 / area, rel=0.04)
    # Within 3 mm there are 3 mm more of the sides, and of the end that is inside the other box a rim of 3 mm.
    wanted = (35 * 60 + 20 * 10 - 14 * 4) / area
    assert score(predicted, reference, tolerance_mm=3)["surface_dice"] == pytest.approx(wanted, rel=0.04)
    assert score(predicted, reference, tolerance_mm=7.9)["surface_dice"] < 1
    assert score(predicted, reference, tolerance_mm=8)["surface_dice"] == 1
    # Voxels of 1×1×4 mm have the same surface to weigh, though fewer lie on the sides.
    coarse = box((60, 30, 20), (5, 5, 5), (40, 20, 5)), box((60, 30, 20), (13, 5, 5), (40, 20, 5))
    area = 2 * (40 * 20 + 40 * 20 + 20 * 20)
    assert score(*coarse, (1, 1, 4), tolerance_mm=0)["surface_dice"] == pytest.approx(32 * 80 / area, rel=0.06)


def test_a_distance_that_equals_the_tolerance_is_within_it():
    shape, spacing = (20, 12, 12), (0.1, 0.3, 0.7)
    reference, predicted = box(shape, (3, 3, 3), (6, 6, 6)), box(shape, (6, 3, 3), (6, 6, 6))
    assert score(predicted, reference, spacing, tolerance_mm=0.3)["surface_dice"] == 1
    assert score(predicted, reference, spacing, tolerance_mm=0.299)["surface_dice"] < 1


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.1, 2.5)])
def test_it_agrees_with_monai(seed, spacing):
    predicted, reference = blobs(seed), blobs(seed + 10)
    one_hot = [torch.from_numpy(np.stack([a == 0, a == 1])[None].astype(np.float32)) for a in (predicted, reference)]
    scores = score(predicted, reference, spacing, tolerance_mm=1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {
            "dice": compute_dice(*one_hot, include_background=False),
            "iou": compute_iou(*one_hot, include_background=False),
            "hausdorff_mm": compute_hausdorff_distance(*one_hot, spacing=spacing),
            "hd95_mm": compute_hausdorff_distance(*one_hot, spacing=spacing, percentile=95),
            "surface_dice": compute_surface_dice(*one_hot, [1.5], spacing=spacing, use_subvoxels=True),
        }
    for metric, value in theirs.items():
        assert scores[metric] == pytest.approx(value.item(), rel=1e-5), metric


@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.1, 2.5)])
def test_it_agrees_with_simpleitk(seed, spacing):
    predicted, reference = blobs(seed), blobs(seed + 10)
    images = [sitk.GetImageFromArray(a.transpose(2, 1, 0)) for a in (reference, predicted)]
    for image in images:
        image.SetSpacing(spacing)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(images[1], images[0])
    scores = score(predicted, reference, spacing)
    assert scores["dice"] == pytest.approx(overlap.GetDiceCoefficient(1))
    assert scores["iou"] == pytest.approx(overlap.GetJaccardCoefficient(1))
    volumes = [sitk.LabelShapeStatisticsImageFilter() for _ in images]
    for statistics, image in zip(volumes, images, strict=True):
        statistics.Execute(image)
    true, found = (statistics.GetPhysicalSize(1) for statistics in volumes)
    assert scores["volume_error_ml"] == pytest.approx((found - true) / 1000)
    assert scores["volume_error_percent"] == pytest.approx(100 * (found / true - 1))
    # ITK's Hausdorff distance is that of whole objects, not of surfaces; give it the surfaces.
    surfaces = [sitk.BinaryContour(sitk.ConstantPad(i, [1] * 3, [1] * 3), fullyConnected=False) for i in images]
    hausdorff = sitk.HausdorffDistanceImageFilter()
    hausdorff.Execute(*surfaces)
    assert scores["hausdorff_mm"] == pytest.approx(hausdorff.GetHausdorffDistance(), rel=1e-5)


@pytest.mark.parametrize("seed", [5, 6])
def test_distances_agree_with_scipys_distance_transform(seed):
    predicted, reference = blobs(seed).astype(bool), blobs(seed + 10).astype(bool)
    spacing = (0.8, 1.1, 2.5)
    surfaces = [a & ~ndimage.binary_erosion(a) for a in (predicted, reference)]
    directed = [
        ndimage.distance_transform_edt(~other, sampling=spacing)[own] for own, other in (surfaces, surfaces[::-1])
    ]
    scores = score(predicted.astype(np.uint8), reference.astype(np.uint8), spacing)
    assert scores["hd95_mm"] == pytest.approx(max(np.percentile(d, 95) for d in directed), abs=2e-5)
    assert scores["hausdorff_mm"] == pytest.approx(max(d.max() for d in directed), abs=2e-5)


def test_order_of_axes_and_room_around_make_no_difference():
    predicted, reference, spacing = blobs(7), blobs(17), (0.8, 1.1, 2.5)
    wanted = score(predicted, reference, spacing)
    for order in ((2, 0, 1), (1, 0, 2)):
        turned = score(predicted.transpose(order), reference.transpose(order), tuple(spacing[a] for a in order))
        assert turned == pytest.approx(wanted, rel=1e-6)
    flipped = score(predicted[::-1, :, ::-1], reference[::-1, :, ::-1], spacing)
    assert flipped == pytest.approx(wanted, rel=1e-6)
    wide = [np.pad(a, ((30, 5), (0, 9), (40, 40))) for a in (predicted, reference)]
    assert score(*wide, spacing) == pytest.approx(wanted, rel=1e-6)


def test_the_affine_gives_the_spacing():
    predicted, reference = blobs(8), blobs(18)
    turn = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.8, 1.1, 2.5)
    affine[:3, 3] = (-50, 20, 7)
    with_affine = evaluate_labels(predicted, reference, labels={1: "one"}, affine=torch.from_numpy(affine))
    assert with_affine["mean"] == pytest.approx(score(predicted, reference, (0.8, 1.1, 2.5)), rel=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_is_measured_in_its_plane(axis):
    # Squares of 10×10 in one slice; the outline is 1 in from the middle, however thick the slice.
    large = np.expand_dims(box((30, 30, 1), (5, 5, 0), (20, 20, 1))[..., 0], axis)
    small = np.expand_dims(box((30, 30, 1), (10, 10, 0), (10, 10, 1))[..., 0], axis)
    spacing = np.insert([1.0, 1.0], axis, 5.0)
    scores = score(small, large, spacing)
    assert scores["hausdorff_mm"] == pytest.approx(5 * math.sqrt(2))
    assert scores["hd95_mm"] >= 5
    assert scores["volume_error_ml"] == pytest.approx((100 - 400) * 5 / 1000)
    assert score(large, large, spacing)["surface_dice"] == 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 4), (2, 1, 3), (2, 2, 2)])
def test_the_smallest_volumes(shape):
    full = np.ones(shape, dtype=np.uint8)
    assert score(full, full) == dict.fromkeys(METRICS, 0.0) | {"dice": 1.0, "iou": 1.0, "surface_dice": 1.0}


def test_labels_that_are_absent():
    empty, some = np.zeros((8, 8, 8), dtype=np.uint8), box((8, 8, 8), (2, 2, 2), (2, 3, 4))
    right = dict.fromkeys(METRICS, 0.0) | {"dice": 1.0, "iou": 1.0, "surface_dice": 1.0}
    nothing = dict.fromkeys(METRICS, 0.0) | {"hd95_mm": None, "hausdorff_mm": None}
    assert score(empty, empty) == right
    assert score(some, some) == right
    spacing = (0.5, 1.0, 2.0)
    assert score(some, empty, spacing) == nothing | {"volume_error_ml": 0.024, "volume_error_percent": None}
    assert score(empty, some, spacing) == nothing | {"volume_error_ml": -0.024, "volume_error_percent": -100.0}


def test_the_mean_is_over_labels_and_undefined_where_one_is():
    reference = box((12, 12, 12), (1, 1, 1), (4, 4, 4), 3) + box((12, 12, 12), (7, 7, 7), (4, 4, 4), 7)
    predicted = box((12, 12, 12), (1, 1, 1), (4, 4, 2), 3) + box((12, 12, 12), (7, 7, 7), (4, 4, 4), 9)
    scores = evaluate_labels(predicted, reference, labels={3: "front", 7: "back"}, spacing=(1, 1, 1))
    assert list(scores["labels"]) == ["front", "back"]
    assert scores["labels"]["front"]["dice"] == pytest.approx(2 / 3)
    assert scores["mean"]["dice"] == pytest.approx(1 / 3)
    assert scores["labels"]["front"]["hausdorff_mm"] == 2
    assert scores["mean"]["hausdorff_mm"] is None
    assert scores["mean"]["volume_error_percent"] == pytest.approx((-50 - 100) / 2)
    # A label that is in neither is right, not missing.
    scores = evaluate_labels(predicted, reference, labels={3: "front", 5: "top"}, spacing=(1, 1, 1))
    assert scores["mean"]["hausdorff_mm"] == 1
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
def test_label_maps_of_any_integers(dtype):
    predicted, reference = blobs(9).astype(dtype), blobs(19).astype(dtype)
    assert score(predicted, reference) == score(blobs(9), blobs(19))
    assert predicted.sum() == blobs(9).sum()


def test_a_large_volume_takes_seconds():
    shape, spacing = (512, 512, 100), (0.8, 0.8, 2.5)
    maps = []
    for shift in (0.0, 1.6):
        labels = np.zeros(shape, dtype=np.uint8)
        for value, (center, radius) in enumerate((((160, 200, 125), 80), ((300, 200, 120), 35), ((80, 80, 75), 12)), 1):
            labels[ball(shape, (center[0] + shift, *center[1:]), radius, spacing) > 0] = value
        maps.append(labels)
    start = time.process_time()
    scores = evaluate_labels(*maps, labels={1: "liver", 2: "spleen", 3: "kidney"}, spacing=spacing)
    assert time.process_time() - start < 15
    assert scores["mean"]["hausdorff_mm"] == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"predicted": np.zeros((4, 4, 5), np.uint8)}, "bring both to one grid"),
        ({"predicted": np.zeros((4, 4), np.uint8)}, "The prediction is uint8 of shape \\(4, 4\\)"),
        ({"reference": np.zeros((4, 4, 4), np.float32)}, "The reference is float32"),
        ({"labels": {}}, "at least one value"),
        ({"labels": {0: "background"}}, "not 0"),
        ({"tolerance_mm": -1}, "tolerance"),
        ({"tolerance_mm": float("nan")}, "tolerance"),
        ({"spacing": None}, "affine or their spacing"),
        ({"affine": np.eye(4)}, "affine or their spacing"),
        ({"spacing": (1, 1)}, "three numbers above zero"),
        ({"spacing": (1, 1, 0)}, "three numbers above zero"),
        ({"spacing": None, "affine": np.eye(3)}, "give 4×4"),
        ({"spacing": None, "affine": np.diag([1, 1, 0, 1])}, "three numbers above zero"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_a_sentence(changes, says):
    empty = np.zeros((4, 4, 4), dtype=np.uint8)
    call = {"predicted": empty, "reference": empty, "labels": {1: "one"}, "spacing": (1, 1, 1)} | changes
    with pytest.raises(InputError, match=says):
        evaluate_labels(call.pop("predicted"), call.pop("reference"), **call)
