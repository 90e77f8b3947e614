"""DenseNet 121 and 169 in two or three dimensions: MONAI's, with a stem for small images and attention after blocks.

Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017,
https://arxiv.org/abs/1608.06993. The keys of the weights are MONAI's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from monai.networks import nets
from torch import nn

from .attention_blocks import gate
from .classifier import Classifier, Halving, check_probability, common_arguments, scaled
from .ensemble import build_members, define_members

_TARGET = "MedMapAILib.networks.densenet.DenseNet"
_MONAI = "monai.networks.nets.DenseNet"
#: Depth → layers of each of the four blocks.
_BLOCKS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32)}
#: MONAI's own does not take images below this many voxels along any axis.
_MONAI_FROM = 32


class DenseNet(Classifier, nets.DenseNet):
    """A DenseNet of ``depth`` 121 or 169, without options left open. See ``build`` for the arguments.

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
        layer_dropout: float,
    ):
        arguments = _monai_arguments(depth, spatial_dims, in_channels, out_channels, width)
        nets.DenseNet.__init__(self, **arguments, dropout_prob=layer_dropout)
        if stem != "standard":
            self.features.conv0 = type(self.features.conv0)(
                in_channels,
                self.features.conv0.out_channels,
                kernel_size=3,
                stride=1 if stem == "small" else 2,
                padding=1,
                bias=False,
            )
            nn.init.kaiming_normal_(self.features.conv0.weight)
            self.features.pool0 = nn.Identity()
        for number in (1, 2, 3):
            getattr(self.features, f"transition{number}").pool = Halving("average")

        # The last layer's activation belongs to the features here, and its pooling to the embedding.
        channels = self.class_layers.out.in_features
        self.class_layers = nn.Sequential(OrderedDict(out=self.class_layers.out))
        self.features.add_module("relu5", nn.ReLU())
        self.features = _with_gates(self.features, attention, spatial_dims)
        self.finish(spatial_dims, channels, attention, dropout)
        if self.transformer is not None:
            self.class_layers.out = nn.Linear(self.transformer.size, out_channels)

    def output_layer(self) -> nn.Linear:
        return self.class_layers.out

    def body_stages(self) -> list[tuple[str, nn.Module]]:
        stages: dict[str, list[nn.Module]] = {"stem": []}
        for name, module in self.features.named_children():
            if name.startswith("denseblock"):
                stages[f"block{name[-1]}"] = []
            list(stages.values())[-1].append(module)
        return [(name, nn.ModuleList(modules)) for name, modules in stages.items()]

    def published_name(self, key: str) -> str | None:
        if key.startswith(("features.attention", "transformer.")):
            return None
        return key.replace("class_layers.out.", "classifier.").replace(".layers.", ".")


def _with_gates(features: nn.Sequential, attention: str, spatial_dims: int) -> nn.Sequential:
    """The same layers under the same names, with a gate after each dense block."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, module in features.named_children():
        layers[name] = module
        if name.startswith("denseblock"):
            last = list(module)[-1].layers
            weighing = gate(attention, spatial_dims, last.norm1.num_features + last.conv2.out_channels)
            if weighing is not None:
                layers[f"attention{name[-1]}"] = weighing
    return nn.Sequential(layers)


def build(
    *,
    depth: int,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    width: float = 1.0,
    attention: str = "none",
    dropout: float = 0.0,
    layer_dropout: float = 0.0,
    members: int = 1,
    stem: str = "auto",
    image_size: Sequence[int] | None = None,
) -> Classifier:
    """A DenseNet to train, or an ensemble of them.

    width: all channels are multiplied by it. attention: "none", "se" or "cbam" after each of the four blocks,
    "transformer" after the last. dropout: probability, before the last layer. layer_dropout: probability, after each
    dense layer (0.2 in the paper for data without augmentation). members: of an ensemble. stem: "standard" (7-wide
    convolution of stride 2 and pooling by 2), "small" (3-wide, stride 1, no pooling), or "auto": small for images below
    64 voxels. image_size: of the images, voxels.
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
        layer_dropout=layer_dropout,
        stem=stem,
        image_size=image_size,
    )
    return build_members(lambda: DenseNet(**arguments), members)


def definition(*, members: int = 1, image_size: Sequence[int] | None = None, **arguments: Any) -> dict[str, Any]:
    """The same network for inference, as a MONAI bundle names it. Raises InputError.

    One without attention, with the standard stem, for images of 32 voxels or more, is MONAI's own.
    """
    checked = _arguments(image_size=image_size, **arguments)
    large = image_size is not None and min(image_size) >= _MONAI_FROM
    if members == 1 and checked["attention"] == "none" and checked["stem"] == "standard" and large:
        names = ("depth", "spatial_dims", "in_channels", "out_channels", "width")
        return {"_target_": _MONAI} | _monai_arguments(*(checked[name] for name in names))
    return define_members({"_target_": _TARGET} | checked, members)


def size_divisor(*, spatial_dims: int, **_: Any) -> tuple[int, ...]:
    """Ones: every size works."""
    return (1,) * spatial_dims


def _arguments(*, depth: int, layer_dropout: float = 0.0, **common: Any) -> dict[str, Any]:
    defaults = {"width": 1.0, "attention": "none", "dropout": 0.0, "stem": "auto", "image_size": None}
    checked = {"depth": depth} | common_arguments(**defaults | common)
    return checked | {"layer_dropout": check_probability(layer_dropout, "layer_dropout")}


def _monai_arguments(
    depth: int, spatial_dims: int, in_channels: int, out_channels: int, width: float
) -> dict[str, Any]:
    return {
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "init_features": scaled(64, width),
        "growth_rate": scaled(32, width),
        "block_config": list(_BLOCKS[depth]),
    }
