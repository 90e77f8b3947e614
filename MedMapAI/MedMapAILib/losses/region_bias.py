"""The mean error where the truth is like this or that, which a mean squared error alone leaves to what is frequent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class RegionBias(nn.Module):
    """The mean over regions of (mean of output - target in the region)², of a whole batch.

    regions: (low, high) of the target's values. A network that makes the squared error small moves rare values, such as
    bone in a chest CT, towards the frequent ones; measurements in such a region are then off by a constant. Regions
    that a batch does not show count nothing.
    """

    def __init__(self, regions: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.regions = [(float(low), float(high)) for low, high in regions]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        error = (output - target).float()
        squares = []
        for low, high in self.regions:
            inside = (target >= low) & (target <= high)
            count = inside.sum()
            mean = torch.where(inside, error, 0.0).sum() / count.clamp(min=1)
            squares.append(mean.square())
        return torch.stack(squares).mean()
