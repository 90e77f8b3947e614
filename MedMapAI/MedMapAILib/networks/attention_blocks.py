"""Attention for classifiers: gates on channels (SE), on channels and voxels (CBAM), and a transformer over voxels."""

from __future__ import annotations

import math

import torch
from monai.networks.blocks import ChannelSELayer, MLPBlock
from monai.networks.blocks.selfattention import SABlock
from torch import nn

#: What the option ``attention`` may be.
ATTENTION = ("none", "se", "cbam", "transformer")

# Bias of the last layer before a gate's sigmoid: gates begin at about 0.88, so that pretrained features pass.
_OPEN = 2.0


def gate(attention: str, spatial_dims: int, channels: int) -> nn.Module | None:
    """The block that weighs features (B, channels, *S); None where ``attention`` is not of that kind."""
    if attention == "cbam":
        return CBAM(spatial_dims, channels)
    if attention == "se":
        layer = ChannelSELayer(spatial_dims, channels, r=channels // _hidden(channels))
        nn.init.constant_(layer.fc[2].bias, _OPEN)
        return layer
    return None


class CBAM(nn.Module):
    """Features weighed by channel and then by voxel; (B, C, *S) → the same shape.

    Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018, https://arxiv.org/abs/1807.06521,
    equations 1 to 3: F' = M_c(F) F, F'' = M_s(F') F'.
    """

    def __init__(self, spatial_dims: int, channels: int):
        super().__init__()
        self.channel = ChannelGate(channels)
        self.spatial = SpatialGate(spatial_dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.channel(x)
        return x * self.spatial(x)


class ChannelGate(nn.Module):
    """M_c(F) = σ(MLP(mean of F over space) + MLP(maximum of F over space)): (B, C, *S) → (B, C, 1, …)."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = _hidden(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        # It is added twice.
        nn.init.constant_(self.mlp[2].bias, _OPEN / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        voxels = x.flatten(2)
        weights = torch.sigmoid(self.mlp(voxels.mean(dim=2)) + self.mlp(voxels.amax(dim=2)))
        return weights.reshape(*x.shape[:2], *[1] * (x.ndim - 2))


class SpatialGate(nn.Module):
    """M_s(F) = σ(7-wide convolution of [mean of F over channels; maximum over channels]): (B, C, *S) → (B, 1, *S)."""

    def __init__(self, spatial_dims: int):
        super().__init__()
        self.convolution = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2](2, 1, kernel_size=7, padding=3)
        nn.init.constant_(self.convolution.bias, _OPEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.convolution(seen))


class TransformerHead(nn.Module):
    """Features (B, channels, *s) of any size → (B, E): what a class token gathers from all voxels in two layers.

    The hybrid of Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, https://arxiv.org/abs/2010.11929,
    section 3.1: a vision transformer on the features of a convolutional network. Positions are sines and cosines along
    each axis (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5), so that no weight depends on the
    size. E is 256, or the multiple of 8 at or below ``channels``.
    """

    HEADS = 4

    def __init__(self, spatial_dims: int, channels: int, layers: int = 2):
        super().__init__()
        size = 8 * max(1, min(channels, 256) // 8)
        self.size = size
        self.enter = nn.Linear(channels, size)
        self.class_token = nn.Parameter(torch.empty(1, 1, size))
        nn.init.trunc_normal_(self.class_token, std=0.02)
        self.layers = nn.ModuleList(_Layer(size, self.HEADS) for _ in range(layers))
        self.norm = nn.LayerNorm(size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        tokens = self.enter(features.flatten(2).transpose(1, 2))
        tokens = tokens + positions(features.shape[2:], self.size).to(tokens)
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens[:, 0])

    def attention_map(self, features: torch.Tensor) -> torch.Tensor:
        """(B, channels, *s) → (B, 1, *s): the class token's attention in the last layer, mean over its heads."""
        attention = self.layers[-1].attention
        attention.save_attn = True
        try:
            self.forward(features)
            weights = attention.att_mat
        finally:
            attention.save_attn = False
            attention.att_mat = torch.Tensor()
        return weights[:, :, 0, 1:].mean(dim=1).reshape(len(features), 1, *features.shape[2:])


class _Layer(nn.Module):
    """Self-attention and two linear layers, each on normalized tokens and beside a bypass: (B, N, E) → (B, N, E)."""

    def __init__(self, size: int, heads: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(size)
        self.attention = SABlock(size, heads, qkv_bias=True)
        self.mlp_norm = nn.LayerNorm(size)
        self.mlp = MLPBlock(size, 2 * size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


def positions(shape: torch.Size, size: int) -> torch.Tensor:
    """(number of voxels, size) for a map of ``shape``: sines and cosines of each voxel's index along each axis.

    Each axis has its own ``2 * (size // (2 * axes))`` numbers, with wavelengths from 2π to 20,000π voxels; what is left
    over is zero.
    """
    frequencies = size // (2 * len(shape))
    rates = torch.exp(torch.arange(frequencies) * (-math.log(10_000) / max(1, frequencies - 1)))
    axes = torch.meshgrid(*(torch.arange(int(length)) for length in shape), indexing="ij")
    angles = [axis.flatten()[:, None] * rates for axis in axes]
    waves = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return nn.functional.pad(waves, (0, size - waves.shape[1]))


def _hidden(channels: int) -> int:
    """Channels of a gate's middle layer: a sixteenth as in both papers, but 8 or more, if there are as many."""
    return min(channels, max(8, channels // 16))
