"""Geometry of boxes in two or three dimensions, for networks, metrics and mergers alike.

A box is a row [a0, b0, (c0,) a1, b1, (c1)]: its lowest corner, then its highest, in the order of the array's axes.
In a network it is in voxel edges: voxel n covers n to n + 1, so a box round the voxels 3, 4 and 5 is [3, 6], and the
middle of voxel p is at p + 0.5. Every function works in millimeters as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

#: Boxes compared at once: the table of overlaps stays small, and most boxes need only be compared with those that stay.
_BLOCK = 512
#: No side grows by more than this factor when a box is decoded (as in torchvision): exp would overflow.
_LARGEST_GROWTH = math.log(1000 / 16)


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 2D) → the lowest corners and the highest, (N, D) each. Raises ValueError for another shape."""
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 6):
        raise ValueError(f"boxes are (N, 4) or (N, 6), not {tuple(boxes.shape)}")
    dims = boxes.shape[1] // 2
    return boxes[:, :dims], boxes[:, dims:]


def centers(boxes: Tensor) -> Tensor:
    """(N, 2D) → (N, D)."""
    low, high = corners(boxes)
    return (low + high) / 2


def sizes(boxes: Tensor) -> Tensor:
    """(N, 2D) → the sides (N, D)."""
    low, high = corners(boxes)
    return high - low


def volumes(boxes: Tensor) -> Tensor:
    """(N, 2D) → areas or volumes (N,), 0 for a box whose corners are the wrong way round."""
    return sizes(boxes).clamp(min=0).prod(dim=1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each of (N, 2D) with each of (M, 2D): (N, M), from 0 to 1; 0 between empty boxes."""
    shared = _shared(a[:, None], b[None])
    return _ratio(shared, volumes(a)[:, None] + volumes(b)[None] - shared)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each row of (N, 2D) with the same row of another: (N,)."""
    shared = _shared(a, b)
    return _ratio(shared, volumes(a) + volumes(b) - shared)


def paired_generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU of each row of (N, 2D) with the same row of another: (N,), from -1 (far apart) to 1 (the same).

    IoU less the part of the smallest box around both that neither of them fills: Rezatofighi et al., "Generalized
    Intersection over Union", CVPR 2019, https://arxiv.org/abs/1902.09630.
    """
    dims = a.shape[1] // 2
    shared = _shared(a, b)
    union = volumes(a) + volumes(b) - shared
    around = (torch.maximum(a[:, dims:], b[:, dims:]) - torch.minimum(a[:, :dims], b[:, :dims])).prod(dim=1)
    return _ratio(shared, union) - _ratio(around - union, around)


def covered(a: Tensor, b: Tensor) -> Tensor:
    """How much of each of (N, 2D) lies in each of (M, 2D), from 0 to 1: (N, M)."""
    shared = _shared(a[:, None], b[None])
    return _ratio(shared, volumes(a)[:, None].expand_as(shared))


def nms(boxes: Tensor, scores: Tensor, labels: Tensor | None = None, *, threshold: float) -> Tensor:
    """Non-maximum suppression: a box goes where a better one that stays overlaps it by an IoU above ``threshold``.

    boxes: (N, 2D). scores: (N,). labels: (N,); boxes of different labels do not touch each other. Returns the indices
    of what stays by falling score, (K,) int64; of equal scores the earlier box counts as the better.

    A box stays exactly if no better box that stays overlaps it. Seen as an equation for the set of those that stay,
    this has one solution, to which repeated substitution leads in as many steps as the longest chain of suppressions
    is long: a few table lookups in place of one step a box.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    kept = order[:0]
    for block in order.split(_BLOCK):
        if len(kept):
            block = block[~_overlapping(boxes, labels, kept, block, threshold).any(dim=0)]
        rivals = _overlapping(boxes, labels, block, block, threshold).triu(diagonal=1).float()
        stays = torch.ones(len(block), device=boxes.device)
        while True:
            # How many better boxes that stay overlap each: whole numbers far below 2²⁴, so exact.
            now = (stays @ rivals == 0).float()
            if torch.equal(now, stays):
                break
            stays = now
        kept = torch.cat([kept, block[stays > 0]])
    return kept


def weighted_box_fusion(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    labels: Sequence[Tensor],
    *,
    threshold: float = 0.55,
    weights: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of several models, or of several views of one, merged to their mean weighted by score.

    boxes, scores, labels: one entry a model: (N, 2D), (N,) from 0 to 1, (N,). threshold: IoU above which a box joins a
    group. weights: of the models; 1 each by default. Returns boxes (K, 2D), scores (K,) and labels (K,) by falling
    score, on the device and of the type of the first entries. A box that few of the models see loses score: the mean
    score of its group is multiplied by min(boxes in the group, models) / sum of the weights.

    Solovyev, Wang, Gabruseva, "Weighted boxes fusion: Ensembling boxes from different object detection models", Image
    and Vision Computing 107 (2021), https://arxiv.org/abs/1910.13302. Scores as in its authors' package ensemble-boxes
    with its defaults. Raises ValueError where the lists differ in length or a weight is not above zero.
    """
    models = len(boxes)
    weights = [1.0] * models if weights is None else [float(w) for w in weights]
    if not models == len(scores) == len(labels) == len(weights) or not models:
        raise ValueError("boxes, scores, labels and weights have one entry for each model, and there is at least one")
    if min(weights) <= 0:
        raise ValueError(f"the weights of models are above zero, not {weights}")
    every = torch.cat([b.detach().cpu().double() for b in boxes])
    kinds = torch.cat([label.cpu() for label in labels])
    confidences = torch.cat([s.detach().cpu().double() * w for s, w in zip(scores, weights, strict=True)])

    # A row a group: the sum of score × box, the sum of the scores, how many there are, and their label.
    sums = torch.zeros_like(every)
    totals, counts = torch.zeros(len(every), dtype=torch.float64), torch.zeros(len(every), dtype=torch.int64)
    group_labels = torch.zeros_like(kinds)
    groups = 0
    for index in torch.argsort(confidences, descending=True, stable=True).tolist():
        group = groups
        if groups:
            overlaps = iou(every[index : index + 1], sums[:groups] / totals[:groups, None])[0]
            overlaps[group_labels[:groups] != kinds[index]] = -1
            best = int(overlaps.argmax())
            if overlaps[best] > threshold:
                group = best
        if group == groups:
            group_labels[group] = kinds[index]
            groups += 1
        # A score of zero still has to say where the box is.
        confidence = confidences[index].clamp(min=1e-12)
        sums[group] += confidence * every[index]
        totals[group] += confidence
        counts[group] += 1
    fused = sums[:groups] / totals[:groups, None]
    merged = totals[:groups] / counts[:groups] * counts[:groups].clamp(max=models) / sum(weights)
    order = torch.argsort(merged, descending=True, stable=True)
    return (
        fused[order].to(boxes[0]),
        merged[order].to(scores[0]),
        group_labels[:groups][order].to(labels[0]),
    )


def clip(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(N, 2D) → the parts within an image of ``size`` voxels; a box outside of it gets a side of length 0."""
    low, high = corners(boxes)
    limit = boxes.new_tensor(list(size))
    return torch.cat([low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)], dim=1)


def encode(reference: Tensor, anchors: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """How each anchor (N, 2D) has to move and grow to become the box in the same row of ``reference``: (N, 2D).

    First the shift of the center in units of the anchor's sides, then the logarithm of the growth of the sides; each
    column times its weight. Girshick et al., "Rich feature hierarchies", 2014, https://arxiv.org/abs/1311.2524,
    appendix C. Sides below 1e-3 count as 1e-3.
    """
    sides, wanted = sizes(anchors).clamp(min=1e-3), sizes(reference).clamp(min=1e-3)
    deltas = torch.cat([(centers(reference) - centers(anchors)) / sides, (wanted / sides).log()], dim=1)
    return deltas if weights is None else deltas * deltas.new_tensor(list(weights))


def decode(deltas: Tensor, anchors: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """The inverse of ``encode``: boxes (N, 2D). A side becomes at most 62.5 times as long."""
    if weights is not None:
        deltas = deltas / deltas.new_tensor(list(weights))
    shift, growth = corners(deltas)
    sides = sizes(anchors).clamp(min=1e-3)
    middle = centers(anchors) + shift * sides
    half = sides * growth.clamp(max=_LARGEST_GROWTH).exp() / 2
    return torch.cat([middle - half, middle + half], dim=1)


def ellipsoid_box(center: Tensor, size: Tensor, matrix: Tensor) -> Tensor:
    """The boxes round ellipsoids after a linear map.

    center: (N, D), already mapped. size: (N, D), the axes of the ellipsoids along the coordinate axes before the map.
    matrix: (D, D). Returns (N, 2D). The half extent along axis i is sqrt(Σⱼ (Mᵢⱼ hⱼ)²), the support function of the
    ellipsoid with half axes h mapped by M: a sphere stays as wide however it is turned, where the corners of its box
    would reach out further.
    """
    half = ((matrix[None] * (size[:, None] / 2)) ** 2).sum(dim=2).sqrt()
    return torch.cat([center - half, center + half], dim=1)


def boxes_of_instances(labels: np.ndarray, count: int) -> np.ndarray:
    """The box round each value 1 to ``count`` of a label map (*S): (count, 2D) float64 in voxel edges.

    A row is NaN where its value does not occur.
    """
    boxes = np.full((count, 2 * labels.ndim), np.nan)
    for row, place in enumerate(ndimage.find_objects(np.asarray(labels).astype(np.int32, copy=False), count)):
        if place is not None:
            boxes[row] = [axis.start for axis in place] + [axis.stop for axis in place]
    return boxes


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """Volume that boxes (..., 2D) share. Axis by axis, which is many times as fast as a product over a short axis."""
    dims = a.shape[-1] // 2
    sides = [
        (torch.minimum(a[..., dims + axis], b[..., dims + axis]) - torch.maximum(a[..., axis], b[..., axis])).clamp(
            min=0
        )
        for axis in range(dims)
    ]
    return math.prod(sides[1:], start=sides[0])


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where the whole is 0, also in the gradient."""
    return torch.where(whole > 0, part, 0.0) / torch.where(whole > 0, whole, 1.0)


def _overlapping(boxes: Tensor, labels: Tensor | None, first: Tensor, second: Tensor, threshold: float) -> Tensor:
    overlap = iou(boxes[first], boxes[second]) > threshold
    return overlap if labels is None else overlap & (labels[first][:, None] == labels[second][None])
