"""The mean error where the truth is like this or that, which a mean squared error alone leaves to what is frequent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Mean and largest value of windows, by the number of axes.
_POOLS = {2: (functional.avg_pool2d, functional.max_pool2d), 3: (functional.avg_pool3d, functional.max_pool3d)}


class RegionBias(nn.Module):
    """The mean over regions of (mean of output - target in the region)², of a whole batch.

    regions: (low, high) of the target's values, as a reader would draw them: in the target smoothed over 5 voxels
    along each axis, and a voxel away from the region's edge. (Of single voxels the brightest are those that noise
    and sharpness made bright; to keep their mean is to sharpen edges.) A network that makes the squared error small
    moves rare values, such as bone in a chest CT, towards the frequent ones; measurements in such a region are then
    off by a constant. Regions that a batch does not show count nothing.
    """

    def __init__(self, regions: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.regions = [(float(low), float(high)) for low, high in regions]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        error, target = (output - target).float(), target.float()
        average, largest = _POOLS[target.ndim - 2]
        smooth = average(target, 5, stride=1, padding=2, count_include_pad=False)
        squares = []
        for low, high in self.regions:
            outside = (smooth < low) | (smooth > high)
            inside = largest(outside.float(), 3, stride=1, padding=1) == 0
            count = inside.sum()
            mean = torch.where(inside, error, 0.0).sum() / count.clamp(min=1)
            squares.append(mean.square())
        return torch.stack(squares).mean()
