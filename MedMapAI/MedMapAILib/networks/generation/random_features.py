"""An embedding of images that needs no training and no download: a fixed network with random weights.

Distances between images by the features of a network with random weights rank sets of images much as those of a trained
one do, and do not favor what a training saw, which helps far from photographs (Naeem, Oh, Uh, Choi, Yoo, ICML 2020,
https://arxiv.org/abs/2002.09797, section 4). The weights are the same on every machine: torch's generator on the CPU.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_CHANNELS = (32, 64, 64)
_POOLED = 3
_SEED = 20261123


class RandomFeatures(nn.Module):
    """Images (B, C, *S), from -1 to 1 → embeddings (B, 64·3ⁿ) of n spatial axes: rectified features by place."""

    def __init__(self, channels: int, spatial_dims: int):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        # Made as parameters are, and then filled: building it must not move torch's global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            self.layers = nn.ModuleList()
            before = channels
            for number, after in enumerate(_CHANNELS):
                layer = conv(before, after, 3, stride=1 + (number > 0), padding=1)
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
                self.layers.append(layer)
                before = after
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images
        for layer in self.layers:
            x = F.relu(layer(x))
        pool = (F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[x.ndim - 4]
        return pool(x, _POOLED).flatten(1)
