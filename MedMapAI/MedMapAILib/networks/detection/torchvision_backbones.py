"""Feature pyramids in two dimensions for torchvision's detectors: a light one of our own, ResNets and MobileNetV3.

Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, https://arxiv.org/abs/1612.03144. Each gives
{"0": finest, "1": …}, all with ``out_channels`` channels, each half as fine as the one before. The names of the weights
are torchvision's ("body." and "fpn."), so that those of its published detectors and classifiers can be put in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN, mobilenet_backbone, resnet_fpn_backbone
from torchvision.models.resnet import BasicBlock
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from ...errors import InputError

BACKBONES = ("light", "resnet18-fpn", "resnet50-fpn", "mobilenet")
#: Strides of the levels that each has unless told otherwise. Nodules are as small as one cell of stride 4; the light
#: one is for small objects and small images.
_LEVELS = {"light": (4, 8, 16)}
_PUBLISHED_LEVELS = (4, 8, 16, 32)
#: Channels of the light one behind its stem and at strides 4, 8, 16, …, and of its pyramid.
_LIGHT_STEM, _LIGHT, _LIGHT_PYRAMID = 16, (32, 64, 128, 128), 64
#: In MobileNetV3-large the stages of strides 4, 8, 16 and 32, as torchvision counts them; the last one is the widest.
_MOBILENET_STAGES = (1, 2, 3, 5)


def levels_of(backbone: str, strides: Any = None) -> tuple[int, ...]:
    """Strides of the levels of a backbone, from fine to coarse.

    strides: one a level, a number or the same number for both axes; None for the usual ones. Raises InputError.
    """
    if backbone not in BACKBONES:
        raise InputError(f"Network option backbone is {backbone!r}; choose one of {', '.join(BACKBONES)}.")
    if strides is None:
        return _LEVELS.get(backbone, _PUBLISHED_LEVELS)
    possible = (2, 4, 8, 16, 32) if backbone == "light" else _PUBLISHED_LEVELS
    levels = [_both_axes(stride) for stride in strides] if isinstance(strides, (list, tuple)) else []
    if not levels or levels[0] not in possible or levels != [levels[0] * 2**n for n in range(len(levels))]:
        levels = []
    if not levels or levels[-1] not in possible:
        raise InputError(
            f"Network option strides is {strides!r}; a two-dimensional detector with the backbone {backbone} takes "
            f"some of {', '.join(map(str, possible))} for its levels, the same along both axes and each twice the last."
        )
    return tuple(levels)


def feature_pyramid(backbone: str, in_channels: int, levels: Sequence[int], width: float) -> nn.Module:
    """(B, C, A, B) → {"0": (B, out_channels, A / stride, B / stride), …}, with random weights.

    levels: as ``levels_of`` gives them. width: the channels of the light one are multiplied by it. Raises InputError
    for another width of one whose layers are published.
    """
    if backbone == "light":
        return _light(in_channels, levels, width)
    if width != 1:
        raise InputError(
            f"Network option width is {width:g}, but the backbone {backbone} has its published width; leave width out "
            "or choose the backbone light."
        )
    numbers = [_PUBLISHED_LEVELS.index(level) for level in levels]
    common = {"weights": None, "norm_layer": nn.BatchNorm2d, "extra_blocks": _NoMore()}
    if backbone == "mobilenet":
        stages = [_MOBILENET_STAGES[number] for number in numbers]
        pyramid = mobilenet_backbone(
            backbone_name="mobilenet_v3_large", fpn=True, trainable_layers=6, returned_layers=stages, **common
        )
        _take_channels(pyramid.body["0"], "0", in_channels)
    else:
        layers = [number + 1 for number in numbers]
        name = backbone.removesuffix("-fpn")
        pyramid = resnet_fpn_backbone(backbone_name=name, trainable_layers=5, returned_layers=layers, **common)
        _take_channels(pyramid.body, "conv1", in_channels)
    return pyramid


def multiple_of_8(channels: float) -> int:
    """The nearest number of channels that makes groups of eight, at least one group."""
    return max(8, 8 * round(channels / 8))


def group_norm(channels: int) -> nn.GroupNorm:
    """In groups of eight channels; unlike batch normalization right for the few images that fit a batch.

    Wu, He, "Group Normalization", ECCV 2018, https://arxiv.org/abs/1803.08494.
    """
    return nn.GroupNorm(channels // 8, channels)


class _NoMore(ExtraFPNBlock):
    """No level above the last, where torchvision would add one of stride 64: images would have to be padded to that."""

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        return results, names


def _light(in_channels: int, levels: Sequence[int], width: float) -> nn.Module:
    stem = multiple_of_8(_LIGHT_STEM * width)
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    stages["layer0"] = nn.Sequential(
        nn.Conv2d(in_channels, stem, 3, stride=2, padding=1, bias=False), group_norm(stem), nn.ReLU(inplace=True)
    )
    channels, widths = stem, [stem]
    for number in range(1, levels[-1].bit_length() - 1):
        wanted = multiple_of_8(_LIGHT[number - 1] * width)
        shortcut = nn.Sequential(nn.Conv2d(channels, wanted, 1, stride=2, bias=False), group_norm(wanted))
        stages[f"layer{number}"] = nn.Sequential(
            BasicBlock(channels, wanted, 2, shortcut, norm_layer=group_norm),
            BasicBlock(wanted, wanted, norm_layer=group_norm),
        )
        channels = wanted
        widths.append(wanted)
    # Layer n has a stride of 2 to the power of n + 1.
    used = [level.bit_length() - 2 for level in levels]
    return BackboneWithFPN(
        nn.Sequential(stages),
        {f"layer{number}": str(place) for place, number in enumerate(used)},
        [widths[number] for number in used],
        multiple_of_8(_LIGHT_PYRAMID * width),
        extra_blocks=_NoMore(),
        norm_layer=group_norm,
    )


def _take_channels(module: nn.Module, name: str, in_channels: int) -> None:
    """Give a module's first convolution other input channels, where it does not have them."""
    old = getattr(module, name)
    if old.in_channels == in_channels:
        return
    new = nn.Conv2d(in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    # A ModuleDict and a Sequential take a child by its name as other modules do.
    module.add_module(name, new)


def _both_axes(stride: Any) -> int:
    """The stride as a number; 0 for what is none, or not the same along both axes."""
    if isinstance(stride, (list, tuple)):
        stride = stride[0] if len(stride) == 2 and stride[0] == stride[1] else 0
    return stride if isinstance(stride, int) and not isinstance(stride, bool) else 0
