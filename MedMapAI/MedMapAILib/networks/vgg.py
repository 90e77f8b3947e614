"""VGG 11, 13, 16 and 19 with batch normalization, in two or three dimensions.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014,
https://arxiv.org/abs/1409.1556, configurations A, B, D and E, with the normalization that torchvision's vgg*_bn have;
the keys of the weights are torchvision's. What differs: the features are averaged over space and go into one linear
layer (Lin, Chen, Yan, "Network In Network", 2013, https://arxiv.org/abs/1312.4400), since nine tenths of the paper's
weights are in its two fully connected layers, 720 million in 3D. The option ``fully_connected`` brings these back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .attention_blocks import gate
from .classifier import Classifier, Halving, common_arguments, scaled
from .ensemble import build_members, define_members

_TARGET = "MedMapAILib.networks.vgg.VGG"
#: Depth → convolutions of each of the five stages.
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)
#: Voxels along each axis that the fully connected layers take, and their channels.
_POOLED, _FULLY_CONNECTED = 7, 4096


class VGG(Classifier):
    """A VGG of ``depth`` 11, 13, 16 or 19, without options left open. See ``build`` for the arguments.

    stem: "standard" or "small"; "strided" is the standard one.
    """

    def __init__(
        self,
        depth: int,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        width: float,
        stem: str,
        attention: str,
        dropout: float,
        fully_connected: bool,
    ):
        super().__init__()
        widths = [scaled(c, width) for c in _CHANNELS]
        # Of each stage's first layer among the features, for body_stages.
        self._begins: list[int] = []
        self.features = self._make_features(spatial_dims, in_channels, widths, _CONVOLUTIONS[depth], stem, attention)
        self.finish(spatial_dims, widths[-1], attention, dropout)
        # torchvision's numbers: 2 and 5 are its dropouts, of which the second is in ``head`` here.
        layers: dict[str, nn.Module] = {}
        last = widths[-1] if self.transformer is None else self.transformer.size
        if fully_connected:
            hidden = scaled(_FULLY_CONNECTED, width)
            layers["0"], layers["1"] = nn.Linear(last * _POOLED**spatial_dims, hidden), nn.ReLU(inplace=True)
            layers["2"] = nn.Dropout(dropout)
            layers["3"], layers["4"] = nn.Linear(hidden, hidden), nn.ReLU(inplace=True)
            last = hidden
        layers["6"] = nn.Linear(last, out_channels)
        self.classifier = nn.Sequential(OrderedDict(layers))
        self._initialize()

    def _make_features(
        self,
        spatial_dims: int,
        channels: int,
        widths: Sequence[int],
        convolutions: Sequence[int],
        stem: str,
        attention: str,
    ) -> nn.Sequential:
        convolution = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        norm = (nn.BatchNorm2d, nn.BatchNorm3d)[spatial_dims - 2]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        number = 0

        def add(module: nn.Module) -> None:
            nonlocal number
            layers[str(number)] = module
            number += 1

        for stage, (count, width) in enumerate(zip(convolutions, widths, strict=True), start=1):
            self._begins.append(len(layers))
            for _ in range(count):
                add(convolution(channels, width, kernel_size=3, padding=1))
                add(norm(width))
                add(nn.ReLU(inplace=True))
                channels = width
            weighing = gate(attention, spatial_dims, width)
            if weighing is not None:
                layers[f"attention{stage}"] = weighing
            add(nn.Identity() if stage == 1 and stem == "small" else Halving("max"))
        return nn.Sequential(layers)

    def _initialize(self) -> None:
        for module in self.features.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.kernel_size[0] == 3:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def embedding(self, features: torch.Tensor) -> torch.Tensor:
        fully_connected = self.classifier[:-1]
        if not len(fully_connected):
            return super().embedding(features)
        pool = (nn.functional.adaptive_avg_pool2d, nn.functional.adaptive_avg_pool3d)[features.ndim - 4]
        return fully_connected(pool(features, _POOLED).flatten(1))

    def output_layer(self) -> nn.Linear:
        return self.classifier[-1]

    def body_stages(self) -> list[tuple[str, nn.Module]]:
        ends = [*self._begins[1:], len(self.features)]
        bounds = zip(self._begins, ends, strict=True)
        stages: list[tuple[str, nn.Module]] = [
            (f"stage{number}", self.features[begin:end]) for number, (begin, end) in enumerate(bounds, start=1)
        ]
        return stages + ([("fully-connected", self.classifier[:-1])] if len(self.classifier) > 1 else [])

    def published_name(self, key: str) -> str | None:
        return None if key.startswith(("features.attention", "transformer.")) else key


def build(
    *,
    depth: int,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    width: float = 1.0,
    attention: str = "none",
    dropout: float = 0.0,
    fully_connected: bool = False,
    members: int = 1,
    stem: str = "auto",
    image_size: Sequence[int] | None = None,
) -> Classifier:
    """A VGG to train, or an ensemble of them.

    width: all channels are multiplied by it. attention: "none", "se" or "cbam" at the end of each of the five stages,
    "transformer" after the last. dropout: probability, before the last layer (and between the fully connected ones).
    fully_connected: the paper's two layers of 4096 channels on features of 7 voxels along each axis, instead of their
    mean. members: of an ensemble. stem: "standard", "small" (no pooling after the first stage), or "auto":
    small for images below 64 voxels. image_size: of the images, voxels.
    Raises InputError.
    """
    arguments = _arguments(
        depth=depth,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        width=width,
        attention=attention,
        dropout=dropout,
        fully_connected=fully_connected,
        stem=stem,
        image_size=image_size,
    )
    return build_members(lambda: VGG(**arguments), members)


def definition(*, members: int = 1, **arguments: Any) -> dict[str, Any]:
    """The same network for inference, as a MONAI bundle names it. Raises InputError."""
    return define_members({"_target_": _TARGET} | _arguments(**arguments), members)


def size_divisor(*, spatial_dims: int, **_: Any) -> tuple[int, ...]:
    """Ones: every size works."""
    return (1,) * spatial_dims


def _arguments(*, depth: int, fully_connected: bool = False, **common: Any) -> dict[str, Any]:
    defaults = {"width": 1.0, "attention": "none", "dropout": 0.0, "stem": "auto", "image_size": None}
    checked = {"depth": depth} | common_arguments(**defaults | common)
    if not isinstance(fully_connected, bool):
        raise InputError(f"Network option fully_connected is {fully_connected!r}; give true or false.")
    if fully_connected and checked["attention"] == "transformer":
        raise InputError(
            "Network option fully_connected is true and attention is 'transformer', which both read the features; "
            "choose one of them."
        )
    return checked | {"fully_connected": fully_connected}
