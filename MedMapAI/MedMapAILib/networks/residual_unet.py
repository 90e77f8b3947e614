"""U-Net of residual blocks: the U-Net's file, with a bypass round every two convolutions of the encoder.

He et al., "Deep Residual Learning for Image Recognition", 2016, https://arxiv.org/abs/1512.03385; as an encoder for
segmentation: Isensee et al., "nnU-Net Revisited", 2024, https://arxiv.org/abs/2404.09556.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from . import unet
from .checks import per_axis
from .unet import FILTERS, Levels, UNet, size_divisor

__all__ = ["build", "definition", "size_divisor"]


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
    """A residual U-Net to train; the options are those of the U-Net, with strides of 1 and 2. Raises InputError."""
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
    return unet.trainable(arguments, deep_supervision)


def definition(**arguments: Any) -> dict[str, Any]:
    """The same network for inference, as a MONAI bundle names it. Raises InputError."""
    plain = unet.definition(**arguments)
    for stride in plain["strides"]:
        # MONAI's bypass is a convolution of one voxel, which it cannot pad for more.
        if max(per_axis(stride, plain["spatial_dims"])) > 2:
            raise InputError(
                f"Network option strides has the entry {stride}; residual blocks halve at most, so give 1 or 2."
            )
    return plain | {"res_block": True}
