"""SegResNet, a residual encoder with a light decoder: MONAI's SegResNetDS.

Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization", 2018, https://arxiv.org/abs/1810.11654,
without the autoencoder's branch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import SegResNetDS
from monai.networks.nets.segresnet_ds import scales_for_resolution
from torch import nn
from torch.nn.functional import dropout as drop

from ..errors import InputError
from .checks import check_count, check_counts, check_dropout, check_norm, forward_at_least_two_voxels, head_count

_TARGET = "monai.networks.nets.SegResNetDS"
BLOCKS = (1, 2, 2, 4)


class SegResNet(SegResNetDS):
    """MONAI's, with the dropout of the paper, and that takes inputs of a single voxel at the deepest level."""

    def __init__(self, *, dropout: float = 0.0, **arguments: Any):
        super().__init__(**arguments)
        if dropout:
            # As in the paper, after the first convolution. A hook leaves the names of the weights alone.
            self.encoder.conv_init.register_forward_hook(functools.partial(_drop, dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """x: (B, C, *S). Logits (B, K, *S); in training with deep supervision a list of them, from fine to coarse."""
        return forward_at_least_two_voxels(super().forward, x, [int(d) for d in self.shape_factor()])


def build(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    filters: int = 16,
    blocks: Sequence[int] = BLOCKS,
    spacing: Sequence[float] | None = None,
    dropout: float = 0.0,
    norm: str = "instance",
    deep_supervision: bool | int = False,
) -> SegResNet:
    """A SegResNet to train.

    filters: channels of the finest level; each further level has twice as many.
    blocks: residual blocks of the encoder in each level, three levels or more; each level is half as fine.
    spacing: of the voxels, mm, one number for each axis: coarse axes are then halved later, and kernels do not reach
    along them until voxels are about cubes. Default: all axes alike.
    dropout: probability, after the first convolution. norm: "instance", "batch" or "group" (of 8 channels).
    deep_supervision: also give logits of coarser levels in training; true leaves out the coarsest, a number says how
    many.
    Raises InputError.
    """
    arguments = definition(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        filters=filters,
        blocks=blocks,
        spacing=spacing,
        dropout=dropout,
        norm=norm,
        deep_supervision=deep_supervision,
    )
    del arguments["_target_"]
    arguments["dsdepth"] = 1 + head_count(deep_supervision, most=len(blocks) - 2)
    return SegResNet(dropout=dropout, **arguments)


def definition(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    filters: int = 16,
    blocks: Sequence[int] = BLOCKS,
    spacing: Sequence[float] | None = None,
    dropout: float = 0.0,
    norm: str = "instance",
    deep_supervision: bool | int = False,
) -> dict[str, Any]:
    """The same network for inference, as a MONAI bundle names it. Raises InputError."""
    filters = check_count(filters, "filters")
    blocks = check_counts(blocks, "blocks", least=3)
    head_count(deep_supervision, most=len(blocks) - 2)
    check_dropout(dropout)
    return {
        "_target_": _TARGET,
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "init_filters": filters,
        "blocks_down": blocks,
        "norm": check_norm(norm, [filters]),
        "resolution": _spacing(spacing, spatial_dims),
    }


def size_divisor(
    *, spatial_dims: int, blocks: Sequence[int] = BLOCKS, spacing: Sequence[float] | None = None, **_: Any
) -> tuple[int, ...]:
    """How much coarser the deepest level is than the first, for each axis. Raises InputError."""
    halvings = len(check_counts(blocks, "blocks", least=3)) - 1
    spacing = _spacing(spacing, spatial_dims)
    scales = (
        [[2] * spatial_dims] * halvings
        if spacing is None
        else scales_for_resolution(spacing, n_stages=halvings + 1)[:-1]
    )
    return tuple(math.prod(int(s) for s in axis) for axis in zip(*scales, strict=True))


def _spacing(spacing: Any, spatial_dims: int) -> list[float] | None:
    if spacing is None:
        return None
    numbers = isinstance(spacing, (list, tuple)) and all(
        isinstance(s, (int, float)) and not isinstance(s, bool) for s in spacing
    )
    if not numbers or len(spacing) != spatial_dims or not all(0 < s < math.inf for s in spacing):
        raise InputError(f"Network option spacing is {spacing!r}; give {spatial_dims} numbers above zero, in mm.")
    return [float(s) for s in spacing]


def _drop(probability: float, module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
    return drop(output, probability, training=module.training)
