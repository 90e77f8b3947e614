"""Region proposal network: which anchors hold an object, of whatever class.

Ren, He, Girshick, Sun, "Faster R-CNN", NeurIPS 2015, https://arxiv.org/abs/1506.01497.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import boxes as geometry
from .anchor_grid import AnchorGrid
from .matching import BACKGROUND
from .sampling import balanced_sample

#: Anchors an image that it learns from, at most half of them objects; the others drawn from so many times as many.
_SAMPLES, _POSITIVE, _POOL = 256, 0.5, 10
#: Candidates before suppression, the IoU above which they are suppressed, and how many regions are left.
_CANDIDATES, _OVERLAP, _REGIONS = 1000, 0.5, 256
#: Regions thinner than this, voxels, are nothing to look at.
_THINNEST = 0.1


class ProposalNetwork(nn.Module):
    """One convolution on each level, and from it for each anchor an objectness and where its object is.

    grid: the anchors. channels: of the features. Losses: "proposal_objectness", the binary cross entropy over sampled
    anchors, and "proposal_box", 1 - generalized IoU of the anchors that learn an object.
    """

    def __init__(self, grid: AnchorGrid, channels: int, spatial_dims: int):
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        self.grid = grid
        self.spatial_dims = spatial_dims
        self.shared = nn.Sequential(convolution(channels, channels, 3, padding=1), nn.ReLU(inplace=True))
        self.objectness = convolution(channels, grid.most, 1)
        self.deltas = convolution(channels, grid.most * 2 * spatial_dims, 1)
        nn.init.kaiming_normal_(self.shared[0].weight, nonlinearity="relu")
        for layer in (self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
        for layer in (self.shared[0], self.objectness, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(
        self, features: Sequence[Tensor], size: Sequence[int], targets: Sequence[dict[str, Tensor]] | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Regions (P, 2D) of each image, without gradient, and with ``targets`` the losses. size: of the images."""
        shared = [self.shared(level) for level in features]
        logits = self.grid.rows([self.objectness(level) for level in shared], 1)[:, :, 0]
        deltas = self.grid.rows([self.deltas(level) for level in shared], 2 * self.spatial_dims)
        centers, anchors = self.grid.lay(features)
        every = torch.cat(anchors)
        regions = [_best(*outputs, every, size) for outputs in zip(logits.detach(), deltas.detach(), strict=True)]
        if targets is None:
            return regions, {}
        objectness, box, samples, positives = logits.sum() * 0, deltas.sum() * 0, 0, 0
        for own_logits, own_deltas, target in zip(logits, deltas, targets, strict=True):
            matched = self.grid.match(target, centers, anchors)
            learning, others = matched >= 0, matched == BACKGROUND
            chosen = balanced_sample(learning, others, own_logits, count=_SAMPLES, most_positive=_POSITIVE, pool=_POOL)
            objectness = objectness + functional.binary_cross_entropy_with_logits(
                own_logits[chosen], learning[chosen].float(), reduction="sum"
            )
            found = geometry.decode(own_deltas[learning], every[learning])
            box = box + (1 - geometry.paired_generalized_iou(found, target["boxes"][matched[learning]])).sum()
            samples += len(chosen)
            positives += int(learning.sum())
        return regions, {"proposal_objectness": objectness / max(1, samples), "proposal_box": box / max(1, positives)}


def _best(logits: Tensor, deltas: Tensor, anchors: Tensor, size: Sequence[int]) -> Tensor:
    scores, order = logits.sort(descending=True, stable=True)
    order = order[:_CANDIDATES]
    boxes = geometry.clip(geometry.decode(deltas[order], anchors[order]), size)
    thick = (geometry.sizes(boxes) >= _THINNEST).all(dim=1)
    boxes, scores = boxes[thick], scores[: len(order)][thick]
    return boxes[geometry.nms(boxes, scores, threshold=_OVERLAP)[:_REGIONS]]
