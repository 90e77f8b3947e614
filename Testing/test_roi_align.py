"""RoIAlign: torchvision's in two dimensions, the same in three, right gradients, and regions in the right place."""

from __future__ import annotations

import pytest
import torch
from MedMapAILib.networks.detection.roi_align import roi_align
from torch.autograd import gradcheck
from torchvision.ops import roi_align as torchvision_roi_align

BINS, STRIDE = [5, 4], [2.0, 2.0]


def features(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


def regions() -> list[torch.Tensor]:
    """For each of two images some boxes in a plane of 34 × 26 voxels; some begin before it, or end behind it."""
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(2, 8, 2, generator=generator) * 30 - 6
    return list(torch.cat([low, low + 0.5 + torch.rand(2, 8, 2, generator=generator) * 20], dim=2))


def torchvisions(maps: torch.Tensor, boxes: list[torch.Tensor], ratio: int) -> torch.Tensor:
    turned = [own[:, [1, 0, 3, 2]] for own in boxes]
    return torchvision_roi_align(maps, turned, BINS, spatial_scale=0.5, sampling_ratio=ratio, aligned=True)


@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_in_two_dimensions_it_is_torchvisions(ratio):
    maps, boxes = features(17, 13), regions()
    ours = roi_align(maps, boxes, BINS, stride=STRIDE, sampling_ratio=ratio)
    assert torch.allclose(ours, torchvisions(maps, boxes, ratio), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ratio", [0, 2])
def test_a_volume_constant_along_an_axis_gives_torchvisions_in_each_slice(axis, ratio):
    maps, boxes = features(17, 13), regions()
    volume = maps.unsqueeze(2 + axis).expand(*maps.shape[: 2 + axis], 11, *maps.shape[2 + axis :])
    thick = []
    for own in boxes:
        low, high = list(own[:, :2].T), list(own[:, 2:].T)
        low.insert(axis, torch.full((len(own),), 3.0))
        high.insert(axis, torch.full((len(own),), 9.5))
        thick.append(torch.stack(low + high, dim=1))
    bins, stride = list(BINS), list(STRIDE)
    bins.insert(axis, 3)
    stride.insert(axis, 1.0)
    ours = roi_align(volume, thick, bins, stride=stride, sampling_ratio=ratio)
    expected = torchvisions(maps, boxes, ratio).unsqueeze(2 + axis).expand_as(ours)
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("ratio", [0, 2])
def test_gradients(ratio):
    maps = features(5, 4, 6)[:1, :2].double().requires_grad_()
    boxes = [torch.tensor([[0.3, 0.2, 1.1, 4.2, 3.7, 5.2], [-1.0, 2, 3, 2, 5, 9]])]
    assert gradcheck(lambda x: roi_align(x, boxes, 2, sampling_ratio=ratio), (maps,))


def test_a_linear_volume_is_seen_where_the_bins_are():
    # Each voxel holds the place of its middle along each axis, on cells of 4 × 4 × 2 voxels.
    stride = torch.tensor([4.0, 4.0, 2.0])
    cells = torch.stack(torch.meshgrid(*[torch.arange(12.0)] * 3, indexing="ij")) + 0.5
    maps = (cells * stride[:, None, None, None])[None]
    box = torch.tensor([[7.0, 12.5, 6.0, 19.0, 20.5, 12.0]])
    pooled = roi_align(maps, [box], 3, stride=stride.tolist())[0]
    for axis in range(3):
        side = (box[0, axis + 3] - box[0, axis]) / 3
        middles = box[0, axis] + side * (torch.arange(3) + 0.5)
        assert torch.allclose(pooled[axis].movedim(axis, 0)[:, 0, 0], middles, atol=1e-4)


def test_many_regions_are_looked_at_in_groups_and_none_gives_none(monkeypatch):
    maps, boxes = features(17, 13), regions()
    whole = roi_align(maps, boxes, BINS)
    monkeypatch.setattr("MedMapAILib.networks.detection.roi_align._VALUES", 700)
    assert torch.equal(roi_align(maps, boxes, BINS), whole)
    assert roi_align(maps, [boxes[0][:0]] * 2, BINS).shape == (0, 3, 5, 4)
    assert roi_align(maps, [boxes[0][:0]] * 2, BINS, sampling_ratio=0).shape == (0, 3, 5, 4)


def test_half_precision_features_are_read_where_the_boxes_are():
    maps, boxes = features(17, 13), regions()
    assert torch.equal(roi_align(maps.bfloat16(), boxes, BINS), roi_align(maps.bfloat16().float(), boxes, BINS))


def test_boxes_for_another_number_of_images_are_refused():
    with pytest.raises(ValueError, match="2 images"):
        roi_align(features(5, 5), regions()[:1], 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_it_is_the_same():
    maps, boxes = features(9, 8, 7), [torch.tensor([[0.5, 1, 2, 6, 7, 5]])] * 2
    there = roi_align(maps.cuda(), [b.cuda() for b in boxes], 4).cpu()
    assert torch.allclose(there, roi_align(maps, boxes, 4), atol=1e-5)
