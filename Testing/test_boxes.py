"""Geometry of boxes: closed forms, a naive reference, and the numbers of the package ensemble-boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from MedMapAILib import boxes as geometry
from torchvision.ops import generalized_box_iou, nms

CUBE = [0.0, 0, 0, 2, 2, 2]


def random_boxes(count: int, dims: int, seed: int = 0, extent: float = 40.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, dims, generator=generator) * extent
    return torch.cat([low, low + 2 + 8 * torch.rand(count, dims, generator=generator)], dim=1)


def naive_nms(boxes, scores, labels, threshold: float) -> list[int]:
    """Box by box, as the rule is told."""
    kept: list[int] = []
    for n in sorted(range(len(boxes)), key=lambda n: (-float(scores[n]), n)):
        rivals = [m for m in kept if labels is None or labels[m] == labels[n]]
        if all(float(geometry.iou(boxes[n : n + 1], boxes[m : m + 1])) <= threshold for m in rivals):
            kept.append(n)
    return kept


def test_iou_of_cubes():
    shifted = torch.tensor([[1.0, 1, 1, 3, 3, 3], [0, 0, 0, 2, 2, 1], [2, 0, 0, 4, 2, 2], [5, 5, 5, 6, 6, 6]])
    overlap = geometry.iou(torch.tensor([CUBE]), shifted)[0]
    # One shared voxel of 8 + 8 - 1; half of the cube; only a face; nothing.
    assert overlap.tolist() == pytest.approx([1 / 15, 0.5, 0, 0])
    assert geometry.volumes(shifted).tolist() == [8, 4, 8, 1]
    assert geometry.covered(torch.tensor([[0.0, 0, 0, 2, 2, 1]]), torch.tensor([CUBE])).item() == 1


def test_empty_boxes_have_no_overlap_and_no_gradient_that_is_no_number():
    empty = torch.tensor([[1.0, 1, 1, 1, 2, 2]], requires_grad=True)
    overlap = geometry.paired_generalized_iou(empty, empty) + geometry.iou(empty, empty)[0]
    overlap.sum().backward()
    assert overlap.item() == 0
    assert torch.isfinite(empty.grad).all()


def test_generalized_iou_is_torchvisions_in_two_dimensions_and_closed_in_three():
    a, b = random_boxes(20, 2), random_boxes(20, 2, seed=1)
    assert torch.allclose(geometry.paired_generalized_iou(a, b), generalized_box_iou(a, b).diagonal(), atol=1e-6)
    # Two unit cubes with two cubes' room between them: 0 less 2 of 4.
    far = geometry.paired_generalized_iou(torch.tensor([[0.0, 0, 0, 1, 1, 1]]), torch.tensor([[3.0, 0, 0, 4, 1, 1]]))
    assert far.item() == pytest.approx(-0.5)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5])
def test_suppression_is_that_of_the_rule_box_by_box(dims, threshold):
    boxes = random_boxes(150, dims, extent=25)
    # Equal scores are common where a network is sure.
    scores = (torch.rand(150, generator=torch.Generator().manual_seed(2)) * 20).round() / 20
    labels = torch.arange(150) % 3
    for own in (None, labels):
        assert geometry.nms(boxes, scores, own, threshold=threshold).tolist() == naive_nms(
            boxes, scores, own, threshold
        )


def test_suppression_of_more_boxes_than_are_compared_at_once_is_torchvisions():
    boxes = random_boxes(5000, 2, extent=150)
    scores = torch.rand(5000, generator=torch.Generator().manual_seed(3))
    assert geometry.nms(boxes, scores, threshold=0.3).tolist() == nms(boxes, scores, 0.3).tolist()


def test_suppression_of_a_long_chain_and_of_nothing():
    # Each suppresses the next, so every second one stays.
    start = torch.arange(40.0)[:, None]
    chain = torch.cat([start, torch.zeros(40, 1), start + 2, torch.ones(40, 1)], dim=1)
    assert geometry.nms(chain, torch.arange(40, 0, -1.0), threshold=0.3).tolist() == list(range(0, 40, 2))
    assert geometry.nms(torch.zeros(0, 6), torch.zeros(0), threshold=0.3).tolist() == []


def test_fused_boxes_have_the_numbers_of_ensemble_boxes():
    # What weighted_boxes_fusion_3d of ensemble-boxes 1.0.9 gives for these boxes with weights 2 and 1, and by hand:
    # the scores count 1.8 and 0.6, so 0.1 and 0.14 make 0.11; their mean 1.2 times 2 boxes over the weights' 3 is 0.8.
    boxes, scores, labels = geometry.weighted_box_fusion(
        [
            torch.tensor([[0.1, 0.1, 0.1, 0.5, 0.5, 0.5], [0.6, 0.6, 0.6, 0.9, 0.9, 0.9]]),
            torch.tensor([[0.14, 0.1, 0.1, 0.52, 0.5, 0.5]]),
        ],
        [torch.tensor([0.9, 0.4]), torch.tensor([0.6])],
        [torch.tensor([0, 0]), torch.tensor([0])],
        weights=[2, 1],
    )
    assert boxes[0].tolist() == pytest.approx([0.11, 0.1, 0.1, 0.505, 0.5, 0.5])
    assert boxes[1].tolist() == pytest.approx([0.6, 0.6, 0.6, 0.9, 0.9, 0.9])
    assert scores.tolist() == pytest.approx([0.8, 0.4 * 2 / 3])
    assert labels.tolist() == [0, 0]


def test_models_that_agree_change_nothing_and_labels_are_not_mixed():
    box = torch.tensor([[1.0, 2, 3, 4]])
    boxes, scores, labels = geometry.weighted_box_fusion(
        [box, box, box], [torch.tensor([0.6])] * 3, [torch.tensor([1]), torch.tensor([1]), torch.tensor([0])]
    )
    assert torch.equal(boxes, box.expand(2, 4))
    # Two of three models, and one of three.
    assert scores.tolist() == pytest.approx([0.4, 0.2])
    assert labels.tolist() == [1, 0]


def test_fusing_nothing_gives_nothing():
    boxes, scores, labels = geometry.weighted_box_fusion(
        [torch.zeros(0, 6)], [torch.zeros(0)], [torch.zeros(0, dtype=torch.int64)]
    )
    assert boxes.shape == (0, 6) and scores.shape == (0,) and labels.dtype == torch.int64
    with pytest.raises(ValueError, match="one entry for each model"):
        geometry.weighted_box_fusion([], [], [])


def test_clipping():
    clipped = geometry.clip(torch.tensor([[-2.0, 1, 3, 4, 20, 5], [12, 0, 0, 15, 2, 2]]), (10, 10, 4))
    assert clipped.tolist() == [[0, 1, 3, 4, 10, 4], [10, 0, 0, 10, 2, 2]]


@pytest.mark.parametrize("weights", [None, [10.0, 10, 10, 5, 5, 5]])
def test_decoding_undoes_encoding(weights):
    anchors, reference = random_boxes(30, 3), random_boxes(30, 3, seed=1)
    deltas = geometry.encode(reference, anchors, weights)
    assert torch.allclose(geometry.decode(deltas, anchors, weights), reference, atol=1e-4)


def test_encoding_is_the_papers():
    deltas = geometry.encode(torch.tensor([[1.0, 0, 0, 5, 2, 1]]), torch.tensor([[0.0, 0, 0, 2, 2, 2]]))
    assert deltas[0].tolist() == pytest.approx([1.0, 0, -0.25, math.log(2), 0, math.log(0.5)])


def test_a_wild_answer_is_a_finite_box():
    boxes = geometry.decode(torch.full((1, 6), 1e4), torch.tensor([CUBE]))
    assert torch.isfinite(boxes).all()


def test_a_turned_sphere_stays_as_wide_and_a_turned_ellipsoid_reaches_as_far_as_its_points():
    angle = 0.7
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    center = torch.tensor([[5.0, 6, 7]])
    sphere = geometry.ellipsoid_box(center, torch.full((1, 3), 4.0), turn)
    assert sphere[0].tolist() == pytest.approx([3, 4, 5, 7, 8, 9], abs=1e-5)

    axes = torch.tensor([[8.0, 3, 5]])
    matrix = turn @ torch.diag(torch.tensor([1.0, 2, 0.5]))
    points = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    surface = (points * axes / 2) @ matrix.T + center
    box = geometry.ellipsoid_box(center, axes, matrix)[0]
    assert torch.allclose(box, torch.cat([surface.amin(0), surface.amax(0)]), atol=0.02)


def test_boxes_round_instances():
    labels = np.zeros((6, 7, 8), dtype=np.int16)
    labels[3:6, 1, 2:4] = 2
    labels[0, 0, 0] = 3
    boxes = geometry.boxes_of_instances(labels, 3)
    assert np.isnan(boxes[0]).all()
    # Voxels 3 to 5 lie between the edges 3 and 6.
    assert boxes[1].tolist() == [3, 1, 2, 6, 2, 4]
    assert boxes[2].tolist() == [0, 0, 0, 1, 1, 1]
    assert geometry.boxes_of_instances(labels[0], 3).shape == (3, 4)


def test_what_is_no_box_is_refused():
    with pytest.raises(ValueError, match="boxes are"):
        geometry.volumes(torch.zeros(3, 5))
