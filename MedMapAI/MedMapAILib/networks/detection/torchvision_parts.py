"""Parts of torchvision's detectors, made exact for objects of a few voxels and given places to ignore.

torchvision rounds its anchors to whole pixels, puts them half a pixel beside the features that judge them, and widens
a region to a whole cell of the features before it looks into it. None of it matters for objects of a hundred pixels;
a nodule has five. Boxes in this file are torchvision's, (N, 4) of x0, y0, x1, y1, where x counts columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign, roi_align

from ... import boxes as geometry

#: An anchor or a proposal looks at an ignored place if so much of it lies there, or with this IoU.
_IGNORED_PART, _IGNORED_IOU = 0.5, 0.3
#: A level is for objects of about so many of its cells (torchvision's RetinaNet: 32 pixels at stride 8).
_CELLS = 4
#: Feature Pyramid Networks, equation 1: a region of 224 is looked up at stride 16, and half as large at half of it.
_CANONICAL_CELLS = 14


def level_anchors(anchors: Sequence[Sequence[float]], levels: Sequence[int]) -> list[list[list[float]]]:
    """Which anchors each level has: all of the given ones, scaled by the level's stride.

    anchors: sizes in voxels. levels: strides, each twice the one before. The level whose cells suit the median size
    (four cells across) takes the anchors as they are; each finer one has them at half the size, each coarser one at
    twice: what was fitted is there exactly, and what is smaller or larger than all training boxes can be found too.
    """
    means = sorted(math.prod(anchor) ** (1 / len(anchor)) for anchor in anchors)
    median = means[len(means) // 2]
    own = round(math.log2(median / (_CELLS * levels[0])))
    own = min(max(own, 0), len(levels) - 1)
    return [[[side * 2.0 ** (number - own) for side in anchor] for anchor in anchors] for number in range(len(levels))]


class FittedAnchors(AnchorGenerator):
    """Anchors of given sizes, not rounded, in the middle of what each feature sees.

    anchors: for each level a list of [rows, columns] in voxels, as many for each. levels: their strides.
    """

    def __init__(self, anchors: Sequence[Sequence[Sequence[float]]], levels: Sequence[int]):
        super().__init__(sizes=tuple((level,) for level in levels), aspect_ratios=((1.0,),) * len(levels))
        self.levels = tuple(levels)
        self.cell_anchors = [
            torch.tensor([[-columns / 2, -rows / 2, columns / 2, rows / 2] for rows, columns in sizes])
            for sizes in anchors
        ]

    def num_anchors_per_location(self) -> list[int]:
        return [len(cell) for cell in self.cell_anchors]

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        device = feature_maps[0].device
        every = []
        for cell, level, features in zip(self.cell_anchors, self.levels, feature_maps, strict=True):
            # Convolutions of kernel 3 and stride 2, padded by 1: feature n sees the voxels around voxel n · stride,
            # whose middle is half a voxel further.
            rows, columns = (torch.arange(n, device=device) * float(level) + 0.5 for n in features.shape[-2:])
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            middles = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            # float32 also where the features are not: positions need more than eight bits.
            every.append((middles + cell.to(device)).reshape(-1, 4))
        anchors = torch.cat(every)
        return [anchors] * len(image_list.image_sizes)


class RegionPool(MultiScaleRoIAlign):
    """Features of regions, (P, C, size, size), looked up where the regions are to a fraction of a voxel."""

    def __init__(self, levels: Sequence[int], size: int):
        super().__init__([str(n) for n in range(len(levels))], size, sampling_ratio=2)
        self.levels = tuple(levels)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        image = torch.cat([b.new_full((len(b), 1), n) for n, b in enumerate(boxes)])
        regions = torch.cat(boxes)
        sides = (regions[:, 2:] - regions[:, :2]).clamp(min=1e-3).prod(dim=1).sqrt()
        which = torch.log2(sides / (_CANONICAL_CELLS * self.levels[0]) + 1e-6).floor().clamp(0, len(self.levels) - 1)
        finest = x[self.featmap_names[0]]
        pooled = regions.new_zeros((len(regions), finest.shape[1], *self.output_size))
        for number, (name, level) in enumerate(zip(self.featmap_names, self.levels, strict=True)):
            rows = (which == number).nonzero()[:, 0]
            # Feature n is in the middle of voxel n · level; roi_align takes it to be in the middle of its own cell.
            shifted = regions[rows] + (level - 1) / 2
            there = roi_align(
                x[name].float(),
                torch.cat([image[rows], shifted], dim=1),
                self.output_size,
                1 / level,
                self.sampling_ratio,
                aligned=True,
            )
            pooled = pooled.index_put((rows,), there)
        return pooled


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's, that learns nothing from anchors at ignored places ("ignored" (M, 4) of a target)."""

    def __init__(self, anchors: FittedAnchors, channels: int):
        super().__init__(
            anchors,
            _ProposalHead(channels, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 1000, "testing": 1000},
            post_nms_top_n={"training": 256, "testing": 256},
            nms_thresh=0.7,
        )

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for number, (boxes, target) in enumerate(zip(anchors, targets, strict=True)):
            unclear = (labels[number] == 0) & at_ignored(boxes, target["ignored"])
            # Were nothing left, there would be no mean.
            if bool(((labels[number] >= 0) & ~unclear).any()):
                labels[number] = torch.where(unclear, -1.0, labels[number])
        return labels, matched


class RegionHead(TwoMLPHead):
    """torchvision's two layers for a region, with dropout behind them."""

    def __init__(self, channels: int, size: int, dropout: float):
        super().__init__(channels, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(super().forward(x))


class RegionPredictor(FastRCNNPredictor):
    """torchvision's, whose answers are float32 also where half precision computes the rest."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


class _ProposalHead(RPNHead):
    """torchvision's, whose answers are float32 also where half precision computes the rest."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [one.float() for one in logits], [one.float() for one in deltas]


def at_ignored(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Which boxes (N, 4) look at an ignored place (M, 4): (N,) of bool."""
    if not len(ignored):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    inside = geometry.covered(boxes, ignored).amax(dim=1) >= _IGNORED_PART
    return inside | (geometry.iou(boxes, ignored).amax(dim=1) >= _IGNORED_IOU)


def training_proposals(
    proposals: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], size: Sequence[int]
) -> list[Tensor]:
    """The proposals of each image that there is something to learn from.

    Those at ignored places are left out, unless an object is there too. An image without objects in which none is left
    shows itself as a whole, as background: a mean over nothing would be no number. size: rows, columns.
    """
    chosen = []
    for boxes, target in zip(proposals, targets, strict=True):
        objects = target["boxes"]
        keep = ~at_ignored(boxes, target["ignored"])
        if len(objects) and len(boxes):
            keep |= geometry.iou(boxes, objects).amax(dim=1) >= 0.5
        boxes = boxes[keep]
        if not len(boxes) and not len(objects):
            boxes = boxes.new_tensor([[0.0, 0.0, size[1], size[0]]])
        chosen.append(boxes)
    return chosen


def turned(boxes: Tensor) -> Tensor:
    """(N, 4) of ours, rows before columns, as torchvision's, x before y; and the other way round."""
    return boxes[:, [1, 0, 3, 2]]


def image_list(images: Tensor, size: tuple[int, int]) -> ImageList:
    """Images (B, C, A, B), padded at their ends, of which ``size`` (rows, columns) is the image."""
    return ImageList(images, [size] * len(images))


def instance_masks(target: dict[str, Any], size: Sequence[int]) -> Tensor:
    """The masks (N, A + 1, B + 1) of a target's boxes, as torchvision's loss of masks looks them up.

    target: "boxes" (N, 4) in our order and, if known, "instances" (A, B). size: A, B. An object that is not in the
    label map gets the ellipse in its box.
    torchvision takes value n of a mask to be at n, where the middle of voxel n is at n + 0.5. So value n is here what
    the mask is at the edge n: the mean of the voxels on both sides of it.
    """
    boxes = target["boxes"]
    rows, columns = (torch.arange(n, device=boxes.device) + 0.5 for n in size)
    middle, half = geometry.centers(boxes), geometry.sizes(boxes) / 2
    across = ((rows[None] - middle[:, :1]) / half[:, :1]) ** 2
    along = ((columns[None] - middle[:, 1:]) / half[:, 1:]) ** 2
    masks = across[:, :, None] + along[:, None, :] <= 1
    if target.get("instances") is not None:
        values = torch.arange(1, len(boxes) + 1, device=boxes.device)
        drawn = target["instances"][None] == values[:, None, None]
        masks = torch.where(drawn.flatten(1).any(dim=1)[:, None, None], drawn, masks)
    if not len(boxes):
        return torch.zeros((0, size[0] + 1, size[1] + 1), device=boxes.device)
    around = nn.functional.pad(masks[:, None].float(), (1, 1, 1, 1))
    return nn.functional.avg_pool2d(around, 2, stride=1)[:, 0]
