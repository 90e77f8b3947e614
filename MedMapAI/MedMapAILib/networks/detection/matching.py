"""Which anchor learns which object."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import boxes as geometry

BACKGROUND, IGNORED = -1, -2
#: Cells of a level round the middle of an object whose anchors are candidates: those at the corners of a cube have to
#: be among them, wherever in its cell an object lies.
_NEAREST = {2: 9, 3: 8}
#: IoU from which an anchor belongs to a place that counts for nothing.
_IGNORED_IOU = 0.2


def match(boxes: Tensor, ignored: Tensor, centers: Sequence[Tensor], anchors: Sequence[Tensor]) -> Tensor:
    """For each anchor of all levels the row of ``boxes`` that it learns, or BACKGROUND, or IGNORED: (A,) int64.

    boxes: (N, 2D). ignored: (M, 2D). centers: of the cells of each level (cells, D). anchors: of each level, those of
    a cell side by side (cells · n, 2D).

    Candidates for an object are the anchors of the nearest cells of each level; those overlap it enough whose IoU is
    at least the mean plus a standard deviation over its candidates (ATSS: Zhang et al., "Bridging the Gap Between
    Anchor-based and Anchor-free Detection", CVPR 2020, https://arxiv.org/abs/1912.02424). So an object of any size has
    its share. What differs from the paper: the middle of an anchor need not lie in the object, or objects smaller than
    a cell would often have none; and an object that still has none, because its neighbors are better at all of its
    candidates, takes the one that fits it best.
    """
    every = torch.cat(list(anchors))
    matched = torch.full((len(every),), BACKGROUND, dtype=torch.int64, device=every.device)
    if len(ignored):
        candidates, good, _ = _candidates(ignored, centers, anchors, every)
        matched[candidates[good]] = IGNORED
        middles = geometry.centers(every)
        for box in ignored:
            dims = len(box) // 2
            inside = ((middles >= box[:dims]) & (middles <= box[dims:])).all(dim=1)
            matched[inside | (geometry.iou(every, box[None])[:, 0] >= _IGNORED_IOU)] = IGNORED
    if not len(boxes):
        return matched

    candidates, good, overlaps = _candidates(boxes, centers, anchors, every)
    rows = torch.arange(len(boxes), device=every.device)[:, None].expand_as(candidates)
    wanted, rows, overlap = candidates[good], rows[good], overlaps[good]
    best = every.new_full((len(every),), -1.0).scatter_reduce(0, wanted, overlap, "amax")
    winning = overlap >= best[wanted]
    owner = torch.full_like(matched, BACKGROUND).scatter_reduce(0, wanted[winning], rows[winning], "amax")
    matched = torch.where(owner >= 0, owner, matched)
    for row in range(len(boxes)):
        if not bool((matched == row).any()):
            mine = candidates[row]
            fit = geometry.paired_generalized_iou(every[mine], boxes[row : row + 1].expand(len(mine), -1))
            fit = fit - 4.0 * (matched[mine] >= 0)
            matched[mine[fit.argmax()]] = row
    return matched


def _candidates(
    boxes: Tensor, centers: Sequence[Tensor], anchors: Sequence[Tensor], every: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the candidates of each box (N, K), whether each overlaps it enough, and its IoU."""
    middles, dims = geometry.centers(boxes), boxes.shape[1] // 2
    found, start = [], 0
    for level_centers, level_anchors in zip(centers, anchors, strict=True):
        each = len(level_anchors) // len(level_centers)
        # In units of the cell, so that a flat cell has as many neighbors along its thin axis.
        pitch = _pitch(level_centers)
        distances = torch.cdist(middles / pitch, level_centers / pitch)
        nearest = distances.topk(min(_NEAREST[dims], len(level_centers)), dim=1, largest=False).indices
        index = start + nearest[:, :, None] * each + torch.arange(each, device=every.device)
        found.append(index.flatten(1))
        start += len(level_anchors)
    candidates = torch.cat(found, dim=1)
    pairs = boxes[:, None].expand(-1, candidates.shape[1], -1).flatten(0, 1)
    overlaps = geometry.paired_iou(every[candidates.flatten()], pairs).reshape(candidates.shape)
    least = overlaps.mean(dim=1) + (overlaps.std(dim=1) if candidates.shape[1] > 1 else 0)
    return candidates, (overlaps >= least[:, None]) & (overlaps > 0), overlaps


def _pitch(centers: Tensor) -> Tensor:
    """The sides of a cell: the first cell's middle lies half of them from the edge of the image."""
    return centers[0] * 2
