"""The anchors of a network on the levels of its pyramid, and what its heads say about them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .anchors import cell_centers, grid_anchors, share_out
from .matching import match


class AnchorGrid:
    """Anchors shared out to the levels of a pyramid by their size.

    anchors: sizes in voxels, one list of D an anchor. strides: of all levels. ``levels``: those that have anchors; only
    these need heads. ``most``: the largest number of anchors a cell, which the heads, shared by all levels, are made
    for; on a level with fewer the further channels are not used.
    """

    def __init__(self, anchors: Sequence[Sequence[float]], strides: Sequence[Sequence[int]]):
        shared = share_out(anchors, strides)
        self.levels = [level for level, own in enumerate(shared) if own]
        self.sizes = [torch.tensor(shared[level]) for level in self.levels]
        self.strides = [list(strides[level]) for level in self.levels]
        self.most = max(len(own) for own in shared)

    def lay(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Middles of the cells (cells, D) and anchors (cells · n, 2D) of each level's map (B, F, *s)."""
        centers = [
            cell_centers(own.shape[2:], stride, own.device) for own, stride in zip(features, self.strides, strict=True)
        ]
        return centers, [grid_anchors(c, sizes) for c, sizes in zip(centers, self.sizes, strict=True)]

    def rows(self, outputs: Sequence[Tensor], values: int) -> Tensor:
        """Maps (B, most · values, *s) of each level → (B, A, values) float32: rows ordered as by ``lay``."""
        rows = []
        for output, sizes in zip(outputs, self.sizes, strict=True):
            own = output.float().flatten(2).unflatten(1, (self.most, values))[:, : len(sizes)]
            rows.append(own.permute(0, 3, 1, 2).flatten(1, 2))
        return torch.cat(rows, dim=1)

    def match(self, target: dict[str, Tensor], centers: Sequence[Tensor], anchors: Sequence[Tensor]) -> Tensor:
        """What each anchor learns of a target: a row of its boxes, or BACKGROUND, or IGNORED (A,)."""
        return match(target["boxes"], target["ignored"], centers, anchors)
