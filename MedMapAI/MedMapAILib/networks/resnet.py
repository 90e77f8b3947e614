"""ResNet 18, 34 and 50 in two or three dimensions: MONAI's, with attention in the blocks and stochastic depth.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385; the
gates before the addition as in Hu et al., "Squeeze-and-Excitation Networks", 2018, https://arxiv.org/abs/1709.01507,
and Woo et al. 2018. The keys of the weights are MONAI's, which are also torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks import nets
from monai.networks.nets.resnet import ResNetBlock, ResNetBottleneck
from torch import nn
from torchvision.ops import StochasticDepth

from .attention_blocks import gate
from .classifier import Classifier, check_probability, common_arguments, scaled
from .ensemble import build_members, define_members

_TARGET = "MedMapAILib.networks.resnet.ResNet"
_MONAI = "monai.networks.nets.ResNet"
#: Depth → kind of block, and how many of them each of the four layers has.
_BLOCKS = {18: ("basic", [2, 2, 2, 2]), 34: ("basic", [3, 4, 6, 3]), 50: ("bottleneck", [3, 4, 6, 3])}
_CHANNELS = (64, 128, 256, 512)


class ResNet(Classifier, nets.ResNet):
    """A ResNet of ``depth`` 18, 34 or 50, without options left open. See ``build`` for the arguments.

    stem: "standard", "strided" or "small".
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
        stochastic_depth: float,
    ):
        arguments = _monai_arguments(depth, spatial_dims, in_channels, out_channels, width, stem)
        block = _Basic if arguments["block"] == "basic" else _Bottleneck
        nets.ResNet.__init__(self, **arguments | {"block": block})
        blocks = [block for _, layer in self._layers() for block in layer]
        for number, block in enumerate(blocks, start=1):
            weighing = gate(attention, spatial_dims, _last_norm(block).num_features)
            if weighing is not None:
                block.attention = weighing
            if stochastic_depth:
                # The deeper the likelier: Huang et al. 2016, equation 4.
                block.stochastic_depth = StochasticDepth(stochastic_depth * number / len(blocks), "row")
        self.finish(spatial_dims, self.fc.in_features, attention, dropout)
        if self.transformer is not None:
            self.fc = nn.Linear(self.transformer.size, out_channels)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.bn1(self.conv1(x)))
        if not self.no_max_pool:
            x = self.maxpool(x)
        for _, layer in self._layers():
            x = layer(x)
        return x

    def output_layer(self) -> nn.Linear:
        return self.fc

    def body_stages(self) -> list[tuple[str, nn.Module]]:
        return [("stem", nn.ModuleList([self.conv1, self.bn1])), *self._layers()]

    def published_name(self, key: str) -> str | None:
        return None if ".attention." in key or key.startswith("transformer.") else key

    def _layers(self) -> list[tuple[str, nn.Module]]:
        return [(name, getattr(self, name)) for name in ("layer1", "layer2", "layer3", "layer4")]


class _Basic(ResNetBlock):
    """MONAI's block of two convolutions, with room for a gate and for stochastic depth before the addition."""

    def __init__(self, *arguments: Any, **more: Any):
        super().__init__(*arguments, **more)
        self.attention, self.stochastic_depth = nn.Identity(), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.act(self.bn1(self.conv1(x)))
        return _joined(self, x, self.bn2(self.conv2(branch)))


class _Bottleneck(ResNetBottleneck):
    """MONAI's block of three convolutions, with the same."""

    def __init__(self, *arguments: Any, **more: Any):
        super().__init__(*arguments, **more)
        self.attention, self.stochastic_depth = nn.Identity(), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.act(self.bn1(self.conv1(x)))
        branch = self.act(self.bn2(self.conv2(branch)))
        return _joined(self, x, self.bn3(self.conv3(branch)))


def _joined(block: _Basic | _Bottleneck, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    bypass = x if block.downsample is None else block.downsample(x)
    return block.act(block.stochastic_depth(block.attention(branch)) + bypass)


def _last_norm(block: _Basic | _Bottleneck) -> nn.Module:
    return block.bn2 if isinstance(block, _Basic) else block.bn3


def build(
    *,
    depth: int,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    width: float = 1.0,
    attention: str = "none",
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    members: int = 1,
    stem: str = "auto",
    image_size: Sequence[int] | None = None,
) -> Classifier:
    """A ResNet to train, or an ensemble of them.

    width: all channels are multiplied by it. attention: "none", "se" or "cbam" in each block, "transformer" after the
    last. dropout: probability, before the last layer. stochastic_depth: probability with which the last block is left
    out in training, earlier ones in proportion (Huang et al. 2016, https://arxiv.org/abs/1603.09382).
    members: of an ensemble. stem: "standard" (7-wide convolution of stride 2 and pooling by 2), "strided" (3-wide,
    stride 2, no pooling), "small" (3-wide, stride 1, no pooling), or "auto": small for images below 64 voxels.
    image_size: of the images, voxels.
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
        stochastic_depth=stochastic_depth,
        stem=stem,
        image_size=image_size,
    )
    return build_members(lambda: ResNet(**arguments), members)


def definition(*, members: int = 1, **arguments: Any) -> dict[str, Any]:
    """The same network for inference, as a MONAI bundle names it. Raises InputError.

    One without attention is MONAI's own, which MONAI builds without us.
    """
    checked = _arguments(**arguments)
    if members == 1 and checked["attention"] == "none":
        names = ("depth", "spatial_dims", "in_channels", "out_channels", "width", "stem")
        return {"_target_": _MONAI} | _monai_arguments(*(checked[name] for name in names))
    return define_members({"_target_": _TARGET} | checked, members)


def size_divisor(*, spatial_dims: int, **_: Any) -> tuple[int, ...]:
    """Ones: every size works."""
    return (1,) * spatial_dims


def _arguments(*, depth: int, stochastic_depth: float = 0.0, **common: Any) -> dict[str, Any]:
    defaults = {"width": 1.0, "attention": "none", "dropout": 0.0, "stem": "auto", "image_size": None}
    checked = {"depth": depth} | common_arguments(**defaults | common)
    return checked | {"stochastic_depth": check_probability(stochastic_depth, "stochastic_depth")}


def _monai_arguments(
    depth: int, spatial_dims: int, in_channels: int, out_channels: int, width: float, stem: str
) -> dict[str, Any]:
    block, layers = _BLOCKS[depth]
    return {
        "block": block,
        "layers": list(layers),
        "block_inplanes": [scaled(c, width) for c in _CHANNELS],
        "spatial_dims": spatial_dims,
        "n_input_channels": in_channels,
        "conv1_t_size": 7 if stem == "standard" else 3,
        "conv1_t_stride": 1 if stem == "small" else 2,
        "no_max_pool": stem != "standard",
        "num_classes": out_channels,
        "bias_downsample": False,
    }
