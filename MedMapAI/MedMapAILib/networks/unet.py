"""U-Net in the form that nnU-Net gave it: MONAI's DynUNet, with strides and kernels per level and axis.

Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 18, 2021, https://doi.org/10.1038/s41592-020-01008-z; after Ronneberger, Fischer, Brox 2015,
https://arxiv.org/abs/1505.04597.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.nets import DynUNet

from ..errors import InputError
from .checks import (
    check_counts,
    check_dropout,
    check_norm,
    divisor_of,
    forward_at_least_two_voxels,
    head_count,
    level_strides,
    per_axis,
    per_level,
)

_TARGET = "monai.networks.nets.DynUNet"
FILTERS = (16, 32, 64, 128)

Levels = int | Sequence[int | Sequence[int]]


class UNet(DynUNet):
    """DynUNet whose deep supervision gives each output at its own resolution, and that takes inputs of any size.

    MONAI's enlarges the coarse outputs to full size and stacks them, which costs memory and time and says nothing more;
    and its dropout also drops logits. The weights have the same names, so either loads those of the other.
    """

    def get_output_block(self, idx: int) -> UnetOutBlock:
        return UnetOutBlock(self.spatial_dims, self.filters[idx], self.out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """x: (B, C, *S). Logits (B, K, *S); in training with deep supervision a list of them, from fine to coarse."""
        return forward_at_least_two_voxels(self._forward, x, divisor_of(self.strides, self.spatial_dims))

    def _forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        logits = self.output_block(self.skip_layers(x))
        if not self.deep_supervision:
            return logits
        coarse = list(self.heads)
        # MONAI's levels leave their outputs in this list. Kept, they would hold the graph, and no network that has
        # run could be copied.
        self.heads[:] = [torch.empty(0)] * len(coarse)
        return [logits, *coarse] if self.training else logits


def build(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    filters: Sequence[int] = FILTERS,
    strides: Levels | None = None,
    kernels: Levels = 3,
    dropout: float = 0.0,
    norm: str = "instance",
    deep_supervision: bool | int = False,
) -> UNet:
    """A U-Net to train.

    filters: channels of each level, from fine to coarse, three levels or more.
    strides: by how much each level is coarser than the one before, a number or one for each axis; the first is 1.
    Default: 1, then 2 for each further level. kernels: of the convolutions, odd, likewise; one number holds for all.
    dropout: probability, after each convolution. norm: "instance", "batch" or "group" (of 8 channels).
    deep_supervision: also give logits of coarser levels in training; true leaves out the coarsest, a number says how
    many.
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
        norm=norm,
        deep_supervision=deep_supervision,
    )
    return trainable(arguments, deep_supervision)


def trainable(arguments: dict[str, Any], deep_supervision: bool | int) -> UNet:
    """The network of a definition, with the heads of deep supervision. Raises InputError."""
    arguments = {key: value for key, value in arguments.items() if key != "_target_"}
    heads = head_count(deep_supervision, most=len(arguments["filters"]) - 2)
    if heads:
        arguments |= {"deep_supervision": True, "deep_supr_num": heads}
    return UNet(**arguments)


def definition(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    filters: Sequence[int] = FILTERS,
    strides: Levels | None = None,
    kernels: Levels = 3,
    dropout: float = 0.0,
    norm: str = "instance",
    deep_supervision: bool | int = False,
) -> dict[str, Any]:
    """The same network for inference, as a MONAI bundle names it. Raises InputError."""
    filters = check_counts(filters, "filters", least=3)
    head_count(deep_supervision, most=len(filters) - 2)
    strides = level_strides(strides, len(filters), spatial_dims)
    kernels = per_level(kernels, "kernels", len(filters), spatial_dims)
    for stride, kernel in zip(strides, kernels, strict=True):
        for s, k in zip(per_axis(stride, spatial_dims), per_axis(kernel, spatial_dims), strict=True):
            if k % 2 == 0 or k < s - 1:
                raise InputError(
                    f"Network option kernels has {k} where strides has {s}; give an odd number of at least {s - 1}."
                )
    return {
        "_target_": _TARGET,
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel_size": kernels,
        "strides": strides,
        "upsample_kernel_size": strides[1:],
        "filters": filters,
        "dropout": check_dropout(dropout) or None,
        "norm_name": check_norm(norm, filters),
        "res_block": False,
    }


def size_divisor(
    *, spatial_dims: int, filters: Sequence[int] = FILTERS, strides: Levels | None = None, **_: Any
) -> tuple[int, ...]:
    """The product of all strides, for each axis. Raises InputError."""
    return divisor_of(
        level_strides(strides, len(check_counts(filters, "filters", least=3)), spatial_dims), spatial_dims
    )
