"""U-Net whose skips pass through attention gates: MONAI's AttentionUnet.

Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", 2018, https://arxiv.org/abs/1804.03999. MONAI
normalizes by batch, which is part of that network and no option: give batches of two or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import AttentionUnet as MonaiAttentionUnet

from ..errors import InputError
from .checks import (
    check_counts,
    check_dropout,
    divisor_of,
    forward_at_least_two_voxels,
    level_strides,
    per_axis,
    per_level,
)

_TARGET = "monai.networks.nets.AttentionUnet"
FILTERS = (16, 32, 64, 128)


class AttentionUNet(MonaiAttentionUnet):
    """MONAI's, that also takes a single input with a single voxel at the deepest level in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, C, *S). Logits (B, K, *S)."""
        if not self.training:
            return super().forward(x)
        return forward_at_least_two_voxels(super().forward, x, divisor_of(self.strides, self.dimensions))


def build(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    filters: Sequence[int] = FILTERS,
    strides: int | Sequence[int | Sequence[int]] | None = None,
    kernels: int | Sequence[int] = 3,
    dropout: float = 0.0,
) -> AttentionUNet:
    """An attention U-Net to train.

    filters: channels of each level, from fine to coarse, two levels or more.
    strides: by how much each level is coarser than the one before, a number or one for each axis; the first is 1.
    Default: 1, then 2 for each further level.
    kernels: of all convolutions, one number or one for each axis, odd and not below that axis's strides.
    dropout: probability, after each convolution of encoder and decoder.
    Raises InputError.
    """
    arguments = definition(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        filters=filters,
        strides=strides,
        kernels=kernels,
        dropout=dropout,
    )
    del arguments["_target_"]
    return AttentionUNet(**arguments)


def definition(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    filters: Sequence[int] = FILTERS,
    strides: int | Sequence[int | Sequence[int]] | None = None,
    kernels: int | Sequence[int] = 3,
    dropout: float = 0.0,
) -> dict[str, Any]:
    """The same network for inference, as a MONAI bundle names it. Raises InputError."""
    filters = check_counts(filters, "filters", least=2)
    if filters[0] < 2:
        raise InputError(
            "Network option filters begins with 1; attention gates halve the channels, so begin with 2 or more."
        )
    strides = level_strides(strides, len(filters), spatial_dims)
    kernel = per_level([kernels], "kernels", 1, spatial_dims)[0]
    for stride in strides:
        for s, k in zip(per_axis(stride, spatial_dims), per_axis(kernel, spatial_dims), strict=True):
            if k % 2 == 0 or k < s:
                raise InputError(
                    f"Network option kernels has {k} where strides has {s}; give an odd number of at least {s}."
                )
    return {
        "_target_": _TARGET,
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "channels": filters,
        "strides": strides[1:],
        "kernel_size": kernel,
        "up_kernel_size": kernel,
        "dropout": check_dropout(dropout),
    }


def size_divisor(
    *,
    spatial_dims: int,
    filters: Sequence[int] = FILTERS,
    strides: int | Sequence[int | Sequence[int]] | None = None,
    **_: Any,
) -> tuple[int, ...]:
    """The product of all strides, for each axis. Raises InputError."""
    return divisor_of(
        level_strides(strides, len(check_counts(filters, "filters", least=2)), spatial_dims), spatial_dims
    )
