"""What detectors in three dimensions that look at regions have in common; where the regions come from is open.

Girshick, "Fast R-CNN", ICCV 2015, https://arxiv.org/abs/1504.08083, on a feature pyramid, with RoIAlign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ... import boxes as geometry
from .anchor_grid import AnchorGrid
from .anchors import level_of
from .backbones import build_pyramid
from .detector import Detector
from .heads import BoxHead, of_class
from .roi_align import roi_align
from .sampling import balanced_sample

#: Bins along each axis of a region, and outputs of the layers that look at them, in channels of the features.
_BINS, _HIDDEN = 5, 4
#: Points along each axis of a bin. A region is some four cells wide on its level, so a bin is hardly more than a cell.
_POINTS = 1
#: Regions an image that the head learns from, at most a quarter of them objects, as in the paper.
_SAMPLES, _POSITIVE = 128, 0.25
#: Copies of each object's box that are learned from as well, and how much they are pushed and stretched, in sides:
#: a little, for what is still the object, and much, for what holds it but is not its box.
_COPIES, _PUSHES = 8, (0.15, 0.6)
#: IoU from which a region is an object; 0.5 in the paper. In three dimensions a box that is a fifth of its width off
#: along each axis has 0.34, and of an object of three voxels a good one often has no more.
_OBJECT_IOU = 0.3
#: A region is at an ignored place with this IoU, or if so much of it lies in one.
_IGNORED_IOU, _IGNORED_PART = 0.2, 0.5


@dataclass
class Samples:
    """What the heads learn from one image. boxes: (R, 6). rows: of the target's boxes, or -1 for background (R,)."""

    boxes: Tensor
    rows: Tensor


class RegionDetector3D(Detector):
    """Features of regions, and a head that says what each is and where exactly. See ``options_3d.common_arguments``.

    A family makes ``propose``. Losses: "classification", the cross entropy over sampled regions, "box", twice 1 -
    generalized IoU of those that are objects, and those of ``propose``.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        backbone: str,
        anchors: Sequence[Sequence[float]],
        strides: Sequence[Sequence[int]],
        width: float,
        detections: int,
        score_floor: float,
        nms: float,
        dropout: float,
    ):
        super().__init__(
            spatial_dims=3,
            in_channels=in_channels,
            classes=classes,
            detections=detections,
            score_floor=score_floor,
            nms=nms,
        )
        self.grid = AnchorGrid(anchors, strides)
        self.divisor = tuple(strides[-1])
        self.pyramid = build_pyramid(backbone, in_channels, width, strides, self.grid.levels)
        channels = self.pyramid.out_channels
        self.box_head = BoxHead(channels, _BINS**3, _HIDDEN * channels, classes, 3, dropout)

    def propose(
        self,
        images: Tensor,
        features: list[Tensor],
        size: tuple[int, ...],
        targets: list[dict[str, Tensor]] | None,
        proposals: list[Tensor] | None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Regions (P, 6) of each image and, in training, the losses of proposing. size: before padding, voxels."""
        raise NotImplementedError

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]], proposals: list[Tensor] | None) -> dict:
        features = self.pyramid(images)
        regions, losses = self.propose(images, features, tuple(images.shape[2:]), targets, proposals)
        samples = [_learned(own, target) for own, target in zip(regions, targets, strict=True)]
        logits, deltas = self.box_head(self.pooled(features, [s.boxes for s in samples], _BINS))
        wanted = [_labels(s, target) for s, target in zip(samples, targets, strict=True)]
        labels, boxes = torch.cat(wanted), torch.cat([s.boxes for s in samples])
        objects = labels >= 0
        own = of_class(deltas[objects], labels[objects])
        right = torch.cat([t["boxes"][s.rows[s.rows >= 0]] for s, t in zip(samples, targets, strict=True)])
        overlap = geometry.paired_generalized_iou(geometry.decode(own, boxes[objects]), right)
        # Sums over counts of at least one, so that nothing to learn from gives 0 and not 0 / 0.
        entropy = functional.cross_entropy(logits, labels + 1, reduction="sum")
        losses["classification"] = entropy / max(1, len(labels))
        losses["box"] = (2 * (1 - overlap).sum() + deltas.sum() * 0) / max(1, len(right))
        return losses | self.further_losses(features, samples, targets)

    def detect(self, images: Tensor, size: tuple[int, ...], proposals: list[Tensor] | None) -> list[dict[str, Tensor]]:
        features = self.pyramid(images)
        regions, _ = self.propose(images, features, size, None, proposals)
        logits, deltas = self.box_head(self.pooled(features, regions, _BINS))
        results, start = [], 0
        for own in regions:
            rows = slice(start, start + len(own))
            start += len(own)
            scores = logits[rows].softmax(dim=1)[:, 1:].flatten()
            labels = torch.arange(self.classes, device=images.device).repeat(len(own))
            boxes = geometry.decode(deltas[rows].flatten(0, 1), own.repeat_interleave(self.classes, dim=0))
            results.append(self.select(boxes, scores, labels, size)[0])
        return self.finished(features, results)

    def further_losses(self, features: list[Tensor], samples: list[Samples], targets: list[dict[str, Tensor]]) -> dict:
        """Losses of further heads, name → scalar."""
        return {}

    def finished(self, features: list[Tensor], results: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The results with what further heads say about them."""
        return results

    def pooled(self, features: list[Tensor], boxes: Sequence[Tensor], bins: int) -> Tensor:
        """Features (R, F, bins, bins, bins) of the boxes of all images, each from the level that suits its size."""
        every = torch.cat(list(boxes))
        levels = level_of(geometry.sizes(every), self.grid.strides)
        image = torch.cat([torch.full((len(b),), n, device=every.device) for n, b in enumerate(boxes)])
        result = every.new_zeros((len(every), self.pyramid.out_channels, *(bins,) * 3))
        for number, (maps, stride) in enumerate(zip(features, self.grid.strides, strict=True)):
            here = levels == number
            # In the order of the images, which is the one that roi_align gives.
            rows = here.nonzero()[:, 0]
            own = [every[here & (image == n)] for n in range(len(boxes))]
            found = roi_align(maps, own, bins, stride=stride, sampling_ratio=_POINTS)
            result = result.index_copy(0, rows, found.to(result))
        return result


def _learned(regions: Tensor, target: dict[str, Tensor]) -> Samples:
    """Some of the regions, and of boxes round the objects, which early proposals miss."""
    near = [_pushed(target["boxes"], push) for push in _PUSHES]
    boxes = torch.cat([target["boxes"], *near, regions])
    overlaps = geometry.iou(boxes, target["boxes"])
    if len(target["boxes"]):
        best, rows = overlaps.max(dim=1)
    else:
        best, rows = boxes.new_zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    positive = best >= _OBJECT_IOU
    unclear = torch.zeros_like(positive)
    if len(target["ignored"]):
        unclear = (geometry.iou(boxes, target["ignored"]) >= _IGNORED_IOU).any(dim=1)
        unclear |= (geometry.covered(boxes, target["ignored"]) >= _IGNORED_PART).any(dim=1)
    # What is near objects comes first, and the proposals by falling score: the hardest, always.
    rank = -torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
    chosen = balanced_sample(positive, ~positive & ~unclear, rank, count=_SAMPLES, most_positive=_POSITIVE, pool=1)
    return Samples(boxes[chosen], torch.where(positive, rows, -1)[chosen])


def _pushed(boxes: Tensor, push: float) -> Tensor:
    """Boxes (N, 6) near each of those given, from torch's global generator: what a head gets to see of an object."""
    copies = boxes.repeat(_COPIES, 1)
    deltas = push * (2 * torch.rand(copies.shape, device=boxes.device) - 1)
    return geometry.decode(deltas, copies)


def _labels(samples: Samples, target: dict[str, Tensor]) -> Tensor:
    """Labels of the sampled regions, -1 for background."""
    labels = torch.full_like(samples.rows, -1)
    objects = samples.rows >= 0
    labels[objects] = target["labels"][samples.rows[objects]]
    return labels
