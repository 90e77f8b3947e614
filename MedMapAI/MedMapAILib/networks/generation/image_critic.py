"""The critic of a generator: how real does an image look, and how much like its class.

Convolutions of stride 2 without normalization, since a gradient penalty holds it (see ``losses.generation``; with
spectral normalization instead, it learned too slowly here on small images), how much the images of a batch differ as
one more map (Karras, Aila, Laine, Lehtinen 2018, https://arxiv.org/abs/1710.10196, section 3), and the class by
projection (Miyato, Koyama 2018, https://arxiv.org/abs/1802.05637). It is for training alone and is in no bundle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .image_generator import channels_last

#: No axis of the last map is shorter.
_SMALLEST = 4
#: Images whose spread is looked at together.
_TOGETHER = 4


class ImageCritic(nn.Module):
    """Scores (B,) of images (B, image_channels, *image_size) for the classes (B, classes) that they should show.

    image_size: voxels along each of two or three axes. width: channels of the first layer.
    """

    def __init__(self, image_channels: int, classes: int, image_size: Sequence[int], width: int):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[len(image_size) - 2]
        halvings = max(1, int(math.log2(min(image_size) / _SMALLEST)))
        channels = [image_channels, *(width * min(8, 2**level) for level in range(halvings))]
        self.layers = nn.ModuleList(
            conv(before, after, 4, stride=2, padding=1) for before, after in zip(channels, channels[1:], strict=False)
        )
        self.last = conv(channels[-1] + 1, channels[-1], 3, padding=1)
        self.score = nn.Linear(channels[-1], 1)
        self.of_class = nn.Linear(classes, channels[-1], bias=False)

    def forward(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """images: from -1 to 1. classes: flags, 0 or 1."""
        x = channels_last(images)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        x = F.leaky_relu(self.last(torch.cat([x, _spread(x)], dim=1)), 0.2)
        x = x.sum(dim=tuple(range(2, x.ndim)))
        return self.score(x)[:, 0] + (x * self.of_class(classes.to(x.dtype))).sum(dim=1)


def _spread(x: torch.Tensor) -> torch.Tensor:
    """(B, F, *s) → (B, 1, *s): the standard deviation among some images of the batch, mean over features and voxels."""
    together = next(n for n in range(min(_TOGETHER, len(x)), 0, -1) if len(x) % n == 0)
    groups = x.view(together, len(x) // together, *x.shape[1:])
    # torch's own variance along the first axis takes ten times as long.
    variance = groups.square().mean(dim=0) - groups.mean(dim=0).square()
    deviation = (variance.clamp(min=0) + 1e-8).sqrt().flatten(1).mean(dim=1)
    return deviation.repeat(together).view(-1, *(1,) * (x.ndim - 1)).expand(-1, 1, *x.shape[2:])
