"""What a mask head learns: the object as it lies in the frame of a region."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import boxes as geometry
from .roi_align import roi_align


def mask_targets(target: dict[str, Tensor], boxes: Tensor, rows: Tensor, bins: int) -> Tensor:
    """How much of each bin of a region its object fills, from 0 to 1: (R, bins, …, bins).

    target: of one image, with "boxes" and, where there is one, the label map "instances" of the voxels. boxes: the
    regions (R, 2D). rows: which box of the target each is (R,), 0 or more. An object that is not in the label map is
    taken for the ellipsoid in its box.
    """
    wanted = ellipsoids(target["boxes"][rows], boxes, bins)
    instances = target.get("instances")
    if instances is None or not len(rows):
        return wanted
    drawn, place = rows.unique(return_inverse=True)
    voxels = torch.stack([instances == row + 1 for row in drawn])
    known = voxels.flatten(1).any(dim=1)
    regions = [boxes[place == n] for n in range(len(drawn))]
    order = place.argsort(stable=True)
    cut = torch.empty_like(wanted)
    cut[order] = roi_align(voxels[:, None].float(), regions, bins, sampling_ratio=1)[:, 0]
    return torch.where(known[place].reshape(-1, *[1] * (wanted.ndim - 1)), cut, wanted)


def ellipsoids(objects: Tensor, boxes: Tensor, bins: int) -> Tensor:
    """1 for the bins of regions (R, 2D) whose middle lies in the ellipsoid in the same row of ``objects``, else 0."""
    steps = (torch.arange(bins, device=boxes.device) + 0.5) / bins
    low, side = geometry.corners(boxes)[0], geometry.sizes(boxes)
    middle, half = geometry.centers(objects), geometry.sizes(objects) / 2
    distance = boxes.new_zeros((len(boxes), *[1] * low.shape[1]))
    for axis in range(low.shape[1]):
        place = (low[:, axis, None] + steps * side[:, axis, None] - middle[:, axis, None]) / half[:, axis, None]
        shape = [len(boxes)] + [bins if other == axis else 1 for other in range(low.shape[1])]
        distance = distance + (place**2).reshape(shape)
    return (distance <= 1).float()
