"""RED-CNN: five convolutions, five transposed ones, and shortcuts between them, all at full resolution.

Chen and others, "Low-dose CT with a residual encoder-decoder convolutional neural network", IEEE Transactions on
Medical Imaging 36(12), 2017, https://arxiv.org/abs/1702.00288: 5-wide kernels, 96 channels, no normalization, the
features after the second and the fourth convolution and the input itself added to what comes back. What differs: 32
channels (0.2 million weights instead of 1.8); borders are filled with zeros, so that an image of any size works; no
rectifier after the last sum, which would cut whatever the image's unit has below zero; and the last layer begins at
zero, so that a network that has learned nothing gives its input back.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...errors import InputError
from ..checks import check_count, check_dropout
from .blocks import check_channels, convolution, packed, zero

_TARGET = "MedMapAILib.networks.reconstruction.red_cnn.REDCNN"
WIDTH, KERNEL = 32, 5
_LAYERS = 5


class REDCNN(nn.Module):
    """(B, C, *S) → (B, O, *S) with O ≤ C, any size. See ``build``."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        width: int = WIDTH,
        kernel: int = KERNEL,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.encoder = nn.ModuleList(
            convolution(spatial_dims, width if layer else in_channels, width, kernel) for layer in range(_LAYERS)
        )
        # With stride 1 a transposed convolution is one with its kernel mirrored, which learning does not notice.
        self.decoder = nn.ModuleList(
            convolution(spatial_dims, width, width if layer < _LAYERS - 1 else out_channels, kernel)
            for layer in range(_LAYERS)
        )
        zero(self.decoder[-1])
        self.rectify = nn.ReLU(inplace=True)
        self.drop = (nn.Dropout2d, nn.Dropout3d)[spatial_dims - 2](dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, *S) → its first O channels, corrected."""
        features, shortcuts = packed(x), []
        for number, layer in enumerate(self.encoder):
            features = self.rectify(layer(features))
            if number in (1, 3):
                shortcuts.append(features)
        features = self.drop(features)
        for number, layer in enumerate(self.decoder):
            features = layer(features)
            if number in (0, 2):
                features = features + shortcuts.pop()
            if number < _LAYERS - 1:
                features = self.rectify(features)
        return x[:, : self.out_channels] + features


def build(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    width: int = WIDTH,
    kernel: int = KERNEL,
    dropout: float = 0.0,
) -> REDCNN:
    """A network to train, whose output is its input so far.

    width: channels of every layer. kernel: of the convolutions, odd. dropout: probability that a channel is dropped
    between encoder and decoder. Raises InputError.
    """
    arguments = definition(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        width=width,
        kernel=kernel,
        dropout=dropout,
    )
    arguments.pop("_target_")
    return REDCNN(**arguments)


def definition(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    width: int = WIDTH,
    kernel: int = KERNEL,
    dropout: float = 0.0,
) -> dict[str, Any]:
    """The same network for inference, as a bundle names it. Raises InputError."""
    check_channels("red-cnn", in_channels, out_channels)
    if check_count(kernel, "kernel") % 2 == 0:
        raise InputError(f"Network option kernel is {kernel}; give an odd number.")
    return {
        "_target_": _TARGET,
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "width": check_count(width, "width"),
        "kernel": kernel,
        "dropout": check_dropout(dropout),
    }


def size_divisor(*, spatial_dims: int, **_: Any) -> tuple[int, ...]:
    """Ones: every size works."""
    return (1,) * spatial_dims
