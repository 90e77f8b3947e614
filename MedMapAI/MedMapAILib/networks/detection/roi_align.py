"""RoIAlign in two or three dimensions, in plain torch: features inside boxes, on a grid of fixed size.

He, Gkioxari, Dollár, Girshick, "Mask R-CNN", ICCV 2017, https://arxiv.org/abs/1703.06870. torchvision has it in two
dimensions; this one gives the same numbers as its ``aligned=True``, and runs wherever torch does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ... import boxes as geometry

#: Sampled values at once: regions are looked at in groups that need no more memory than this (64 MiB of float32).
_VALUES = 16 * 2**20


def roi_align(
    features: Tensor,
    boxes: Sequence[Tensor],
    output_size: int | Sequence[int],
    *,
    stride: Sequence[float] | None = None,
    sampling_ratio: int = 2,
) -> Tensor:
    """The features in each box: (R, C, *output_size), the boxes of the first image first.

    features: (B, C, *S). boxes: for each image (R, 2D) in voxel edges. output_size: bins along each axis. stride:
    voxels a cell of ``features``, for each axis; 1 by default. sampling_ratio: points along each axis of a bin whose
    mean is the bin's value; 0 for so many that they are at most a cell apart, as torchvision does it.

    A point is interpolated linearly between the middles of cells; between the outermost middles and one cell beyond
    the border it has the border's value, and farther out it is 0. There are gradients for the features, none for the
    boxes. Raises ValueError where there is not one tensor of boxes for each image.
    """
    if len(boxes) != len(features):
        raise ValueError(f"there are {len(features)} images, but boxes for {len(boxes)}")
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    dims = features.ndim - 2
    bins = (output_size,) * dims if isinstance(output_size, int) else tuple(output_size)
    scale = features.new_tensor([1.0] * dims if stride is None else [float(s) for s in stride])
    pooled = [
        _of_image(image, own.detach(), bins, scale, sampling_ratio) for image, own in zip(features, boxes, strict=True)
    ]
    return torch.cat(pooled)


def _of_image(image: Tensor, boxes: Tensor, bins: tuple[int, ...], scale: Tensor, sampling_ratio: int) -> Tensor:
    """image: (C, *S). boxes: (R, 2D)."""
    boxes = boxes.to(image) / scale.repeat(2)
    if sampling_ratio > 0 or not len(boxes):
        return _sampled(image, boxes, bins, (max(1, sampling_ratio),) * len(bins))
    wanted = (geometry.sizes(boxes) / image.new_tensor(bins)).ceil().clamp(min=1).long()
    pooled = image.new_zeros((len(boxes), len(image), *bins))
    for counts in wanted.unique(dim=0):
        alike = (wanted == counts).all(dim=1).nonzero()[:, 0]
        pooled = pooled.index_copy(0, alike, _sampled(image, boxes[alike], bins, tuple(counts.tolist())))
    return pooled


def _sampled(image: Tensor, boxes: Tensor, bins: tuple[int, ...], counts: tuple[int, ...]) -> Tensor:
    """boxes: (R, 2D) in cells of the image. counts: points of a bin along each axis."""
    points = [b * n for b, n in zip(bins, counts, strict=True)]
    each = max(1, _VALUES // (len(image) * int(torch.tensor(points).prod())))
    parts = [_group(image, part, points, bins, counts) for part in boxes.split(each)]
    return torch.cat(parts)


def _group(image: Tensor, boxes: Tensor, points: list[int], bins: tuple[int, ...], counts: tuple[int, ...]) -> Tensor:
    dims, regions = len(bins), len(boxes)
    low, side = geometry.corners(boxes)[0], geometry.sizes(boxes)
    places, within = [], []
    for axis, (count, size) in enumerate(zip(points, image.shape[1:], strict=True)):
        steps = (torch.arange(count, device=image.device, dtype=image.dtype) + 0.5) / count
        edge = low[:, axis, None] + steps * side[:, axis, None]
        # Cell n has its middle at edge coordinate n + 0.5, and counts from -1 to size between middles.
        within.append((edge >= -0.5) & (edge <= size + 0.5))
        # grid_sample's -1 to 1 span the image from edge to edge.
        places.append(2 * edge / size - 1)
    shape = (regions, *points)
    grid = torch.stack([_along(places[axis], axis, shape) for axis in reversed(range(dims))], dim=-1)
    inside = torch.stack([_along(within[axis], axis, shape) for axis in range(dims)]).all(dim=0)
    # The regions one behind the other along the first axis make one image's worth of points.
    values = functional.grid_sample(
        image[None], grid.flatten(0, 1)[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    values = values[0].unflatten(1, (regions, points[0])) * inside
    split = values.reshape(len(image), regions, *[n for pair in zip(bins, counts, strict=True) for n in pair])
    return split.mean(dim=[3 + 2 * axis for axis in range(dims)]).transpose(0, 1)


def _along(values: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    """(R, points of the axis) → shape."""
    view = [1] * len(shape)
    view[0], view[axis + 1] = values.shape
    return values.reshape(view).expand(shape)
