"""Boxes to start from: fitted to the objects, shared out to the levels of a feature pyramid, laid on their grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError

#: An anchor belongs to the level on which it is about so many cells wide, as in feature pyramid networks.
_CELLS = 4.0
#: Sides of the anchors, in cells of the finest level, where nobody has fitted any.
_DEFAULT_CELLS = (1.5, 2.5, 4.0, 7.0)
#: Coarser than this, voxels, the finest level never is; and how many levels there are by default.
_COARSEST_FIRST, _LEVELS = 4, 3


def fit_anchors(sizes: np.ndarray | Sequence[Sequence[float]], count: int) -> list[list[float]]:
    """Sizes of ``count`` anchors that suit objects of these ``sizes`` (N, D), voxels; by rising volume.

    k-means with 1 - IoU of boxes round one center as the distance (Redmon, Farhadi, "YOLO9000", CVPR 2017,
    https://arxiv.org/abs/1612.08242) and the median of each group as its anchor. It starts from the objects at evenly
    spaced ranks of volume, so the same sizes give the same anchors. Fewer anchors come back where there are fewer
    different sizes. Raises InputError where there are no sizes or one is not above zero.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    if sizes.ndim != 2 or not len(sizes) or not (np.isfinite(sizes).all() and (sizes > 0).all()) or count < 1:
        raise InputError(
            "Anchors cannot be fitted: they need at least one box, with sides longer than 0 voxels, in the training "
            "part of the data."
        )
    ranked = sizes[np.argsort(sizes.prod(axis=1), kind="stable")]
    anchors = np.unique(ranked[((np.arange(count) + 0.5) / count * len(ranked)).astype(int)], axis=0)
    assigned = np.full(len(ranked), -1)
    for _ in range(300):
        nearest = _shape_iou(ranked, anchors).argmax(axis=1)
        if (nearest == assigned).all():
            break
        assigned = nearest
        groups = [ranked[assigned == k] for k in range(len(anchors))]
        anchors = np.stack([np.median(g, axis=0) if len(g) else a for g, a in zip(groups, anchors, strict=True)])
    anchors = np.unique(anchors.round(2).clip(min=0.01), axis=0)
    return anchors[np.argsort(anchors.prod(axis=1), kind="stable")].tolist()


def default_strides(anchors: Sequence[Sequence[float]] | None, spatial_dims: int) -> list[list[int]]:
    """Voxels a cell along each axis, for each level, from fine to coarse, where nobody has chosen any.

    On the finest level a cell is at most half as wide as the anchors (their geometric mean, axis by axis), a power of
    two from 1 to 4; so it is flat where voxels are thick. Each further level doubles it.
    """
    first = [_COARSEST_FIRST] * spatial_dims
    if anchors:
        means = np.exp(np.log(np.asarray(anchors, dtype=np.float64)).mean(axis=0))
        first = [int(2 ** np.clip(math.floor(math.log2(m / 2)), 0, math.log2(_COARSEST_FIRST))) for m in means]
    return [[s * 2**level for s in first] for level in range(_LEVELS)]


def default_anchors(strides: Sequence[Sequence[int]]) -> list[list[float]]:
    """Sizes of anchors where nobody has fitted any: 1.5 to 7 cells of the finest level."""
    return [[cells * s for s in strides[0]] for cells in _DEFAULT_CELLS]


def level_of(sizes: Tensor, strides: Sequence[Sequence[int]]) -> Tensor:
    """The level (N,) int64 for boxes of ``sizes`` (N, D), voxels: where they are about four cells wide.

    Width is the geometric mean over the axes. Lin et al., "Feature Pyramid Networks", CVPR 2017,
    https://arxiv.org/abs/1612.03144, equation 1, with the cell in place of the 224 pixels of ImageNet.
    """
    cells = torch.stack([(sizes.clamp(min=1e-3) / sizes.new_tensor(list(s))).log2().mean(dim=1) for s in strides])
    return (cells - math.log2(_CELLS)).abs().argmin(dim=0)


def share_out(anchors: Sequence[Sequence[float]], strides: Sequence[Sequence[int]]) -> list[list[list[float]]]:
    """The anchors of each level, by rising volume; a level may have none."""
    ordered = sorted(([float(s) for s in anchor] for anchor in anchors), key=math.prod)
    levels = level_of(torch.tensor(ordered, dtype=torch.float64), strides).tolist()
    return [[a for a, own in zip(ordered, levels, strict=True) if own == level] for level in range(len(strides))]


def cell_centers(shape: Sequence[int], stride: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Middles of the cells of a feature map of ``shape``, voxel edges: (cells, D), last axis fastest."""
    axes = [(torch.arange(n, dtype=torch.float32, device=device) + 0.5) * s for n, s in zip(shape, stride, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes))


def grid_anchors(centers: Tensor, sizes: Tensor) -> Tensor:
    """Anchors of ``sizes`` (A, D) round each of ``centers`` (cells, D): (cells · A, 2D), the anchors of a cell side by
    side."""
    half = sizes.to(centers)[None] / 2
    return torch.cat([centers[:, None] - half, centers[:, None] + half], dim=2).flatten(0, 1)


def _shape_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    shared = np.minimum(a[:, None], b[None]).prod(axis=2)
    return shared / (a.prod(axis=1)[:, None] + b.prod(axis=1)[None] - shared)
