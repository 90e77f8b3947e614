"""FBPConvNet: a U-Net that learns what is wrong with an image, and takes it away.

Jin, McCann, Froustey, Unser, "Deep convolutional neural network for inverse problems in imaging", IEEE Transactions on
Image Processing 26(9), 2017, https://arxiv.org/abs/1611.03679: a U-Net after filtered backprojection, its input added
to its output. What differs: 24 channels on the first of four levels instead of 64 on the first of five, 1.1 million
weights instead of 31; leaky rectifiers; and no normalization. Batch and instance normalization take the mean of what a
window holds away, so that HU would depend on what else the window shows, which is not to be in a CT; they remain an
option. The last layer begins at zero, so that a network that has learned nothing gives its input back.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..checks import check_count, check_dropout
from .blocks import UNet, check_channels, check_reconstruction_norm

_TARGET = "MedMapAILib.networks.reconstruction.fbpconvnet.FBPConvNet"
WIDTH, LEVELS = 24, 4


class FBPConvNet(nn.Module):
    """(B, C, *S) → (B, O, *S) with O ≤ C, for sizes that are multiples of 2 ** (levels - 1). See ``build``."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        width: int = WIDTH,
        levels: int = LEVELS,
        norm: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        layers = check_reconstruction_norm(norm, [width])
        self.body = UNet(spatial_dims, in_channels, out_channels, width, levels, layers, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, *S) → its first O channels, corrected."""
        return x[:, : self.out_channels] + self.body(x)


def build(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    width: int = WIDTH,
    levels: int = LEVELS,
    norm: str = "none",
    dropout: float = 0.0,
) -> FBPConvNet:
    """A network to train, whose output is its input so far.

    width: channels of the first level, doubled at each further one. levels: 1 or more. norm: "none", "instance",
    "batch" or "group" (of 8 channels). dropout: probability that a channel is dropped, at the end of each level.
    Raises InputError.
    """
    arguments = definition(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        width=width,
        levels=levels,
        norm=norm,
        dropout=dropout,
    )
    arguments.pop("_target_")
    return FBPConvNet(**arguments)


def definition(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    width: int = WIDTH,
    levels: int = LEVELS,
    norm: str = "none",
    dropout: float = 0.0,
) -> dict[str, Any]:
    """The same network for inference, as a MONAI bundle names it. Raises InputError."""
    check_channels("fbpconvnet", in_channels, out_channels)
    check_reconstruction_norm(norm, [check_count(width, "width")])
    return {
        "_target_": _TARGET,
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "width": width,
        "levels": check_count(levels, "levels"),
        "norm": norm,
        "dropout": check_dropout(dropout),
    }


def size_divisor(*, spatial_dims: int, levels: int = LEVELS, **_: Any) -> tuple[int, ...]:
    """Half for each level below the first. Raises InputError."""
    return (2 ** (check_count(levels, "levels") - 1),) * spatial_dims
