"""Networks that turn a volume into a pyramid of features: "light", made here, and MONAI's 3D ResNets.

Feature pyramid: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017,
https://arxiv.org/abs/1612.03144.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monai.networks import nets
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError

BACKBONES = ("light", "resnet18-fpn", "resnet50-fpn")
#: Channels at width 1: of what comes before the first level, of the levels (the last for all further ones), and of
#: the pyramid. Many at full size would cost most of the time and memory.
_STEM, _LEVELS, _PYRAMID = 16, (48, 64, 80), 32
#: Residual blocks a level; again the last for all further ones.
_BLOCKS = (2, 2, 1)
_RESNET_PYRAMID = 64
_GROUPS = 8
_POWERS = (1, 2, 4, 8, 16, 32, 64)


class FeaturePyramid(nn.Module):
    """The feature maps (B, out_channels, *S / stride) of the ``used`` levels of a backbone, from fine to coarse.

    backbone: a module that gives a list of maps, one a level. channels: of each. strides: of each level, voxels.
    used: which levels are given; the coarser ones still tell them what surrounds a place.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: Sequence[int],
        out_channels: int,
        strides: Sequence[Sequence[int]],
        used: Sequence[int],
    ):
        super().__init__()
        convolution = _convolution(len(strides[0]))
        self.backbone = backbone
        self.out_channels = out_channels
        self.used = tuple(used)
        self.steps = [tuple(b // a for a, b in zip(*pair, strict=True)) for pair in zip(strides, strides[1:])]  # noqa: B905
        first = min(used)
        self.lateral = nn.ModuleDict(
            {str(n): convolution(channels[n], out_channels, 1) for n in range(first, len(channels))}
        )
        self.smooth = nn.ModuleDict({str(n): convolution(out_channels, out_channels, 3, padding=1) for n in used})
        for module in [*self.lateral.values(), *self.smooth.values()]:
            nn.init.kaiming_uniform_(module.weight, a=1)
            nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.backbone(images)
        above, given = None, {}
        for level in range(len(maps) - 1, min(self.used) - 1, -1):
            own = self.lateral[str(level)](maps[level])
            if above is not None:
                own = own + functional.interpolate(above, scale_factor=tuple(map(float, self.steps[level])))
            above = own
            if level in self.used:
                given[level] = self.smooth[str(level)](own)
        return [given[level] for level in self.used]


class LightBackbone(nn.Module):
    """A small residual network with group normalization, which needs no large batch and no pretrained weights.

    Every convolution that makes the map coarser has an even kernel, so the middle of a cell stays the middle of its
    voxels, where the anchors are.
    """

    def __init__(self, in_channels: int, width: float, strides: Sequence[Sequence[int]]):
        super().__init__()
        spatial_dims = len(strides[0])
        halvings = _halvings(strides[0])
        stem = scaled(_STEM, width)
        before: list[nn.Module] = [_coarser(in_channels, stem, halvings[0], wide=True), _Residual(stem, spatial_dims)]
        channels = stem
        for step in halvings[1:-1]:
            before += [_coarser(channels, 2 * stem, step), _Residual(2 * stem, spatial_dims)]
            channels = 2 * stem
        self.before = nn.Sequential(*before)
        steps = [halvings[-1] if len(halvings) > 1 else (1,) * spatial_dims]
        steps += [tuple(b // a for a, b in zip(*pair, strict=True)) for pair in zip(strides, strides[1:])]  # noqa: B905
        levels, self.channels = [], []
        for number, step in enumerate(steps):
            wide = scaled(_LEVELS[min(number, len(_LEVELS) - 1)], width)
            blocks = [_Residual(wide, spatial_dims) for _ in range(_BLOCKS[min(number, len(_BLOCKS) - 1)])]
            levels.append(nn.Sequential(_coarser(channels, wide, step), *blocks))
            self.channels.append(wide)
            channels = wide
        self.levels = nn.ModuleList(levels)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = self.before(images), []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps


class ResNetBackbone(nn.Module):
    """The layers of MONAI's 3D ResNet as levels, with group normalization in place of batch normalization.

    Batches of volumes are too small for the latter.
    """

    def __init__(self, depth: int, in_channels: int, width: float, strides: Sequence[Sequence[int]]):
        super().__init__()
        # Pooling halves every axis, where the first level has room for it.
        pool = all(s % 2 == 0 for s in strides[0])
        planes = [scaled(c, width) for c in (64, 128, 256, 512)]
        network = nets.ResNet(
            block="basic" if depth == 18 else "bottleneck",
            layers=[2, 2, 2, 2] if depth == 18 else [3, 4, 6, 3],
            block_inplanes=planes,
            spatial_dims=len(strides[0]),
            n_input_channels=in_channels,
            conv1_t_size=7,
            conv1_t_stride=[s // 2 if pool else s for s in strides[0]],
            no_max_pool=not pool,
            feed_forward=False,
            bias_downsample=False,
            norm=("group", {"num_groups": _GROUPS}),
        )
        self.stem = nn.Sequential(network.conv1, network.bn1, network.act, *([network.maxpool] if pool else []))
        layers = (network.layer1, network.layer2, network.layer3, network.layer4)
        self.levels = nn.ModuleList(layers[: len(strides)])
        self.channels = [p * (1 if depth == 18 else 4) for p in planes[: len(strides)]]

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = self.stem(images), []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps


def build_pyramid(
    backbone: str, in_channels: int, width: float, strides: Sequence[Sequence[int]], used: Sequence[int]
) -> FeaturePyramid:
    """A pyramid on a new backbone of one of BACKBONES. Raises InputError for what it cannot be."""
    if backbone == "light":
        body: Any = LightBackbone(in_channels, width, strides)
        channels = scaled(_PYRAMID, width)
    else:
        doubled = [[s * 2**level for s in strides[0]] for level in range(len(strides))]
        if [list(s) for s in strides] != doubled or len(strides) > 4:
            raise InputError(
                f"Network option strides is {[list(s) for s in strides]}; with backbone {backbone!r} each of at most "
                "4 levels doubles all strides of the one before. The light backbone takes others."
            )
        body = ResNetBackbone(18 if backbone == "resnet18-fpn" else 50, in_channels, width, strides)
        channels = scaled(_RESNET_PYRAMID, width)
    return FeaturePyramid(body, body.channels, channels, strides, used)


def check_backbone(backbone: Any) -> str:
    """One of BACKBONES. Raises InputError."""
    if backbone not in BACKBONES:
        raise InputError(f"Network option backbone is {backbone!r}; in 3D choose one of {', '.join(BACKBONES)}.")
    return backbone


def check_strides(strides: Any, spatial_dims: int) -> list[list[int]] | None:
    """Voxels a cell, for each level and axis; None stays None. Raises InputError."""
    if strides is None:
        return None
    good = isinstance(strides, (list, tuple)) and len(strides) > 0
    for level in strides if good else ():
        good = good and isinstance(level, (list, tuple)) and len(level) == spatial_dims
        good = good and all(
            isinstance(s, int) and not isinstance(s, bool) and s in (1, 2, 4, 8, 16, 32, 64) for s in level
        )
    if good:
        pairs = zip(strides, strides[1:])  # noqa: B905
        good = all(b in (a, 2 * a) for fine, coarse in pairs for a, b in zip(fine, coarse, strict=True))
    if not good:
        raise InputError(
            f"Network option strides is {strides!r}; give for each level, fine to coarse, {spatial_dims} powers of "
            "two (voxels a cell), each as large as on the level before or twice that, as in [[4, 4, 2], [8, 8, 4]]."
        )
    return [list(level) for level in strides]


def scaled(channels: int, width: float) -> int:
    """Channels of a layer that has ``channels`` at width 1: a multiple of 8, which group normalization needs."""
    return max(_GROUPS, round(channels * width / _GROUPS) * _GROUPS)


class _Residual(nn.Module):
    def __init__(self, channels: int, spatial_dims: int):
        super().__init__()
        convolution = _convolution(spatial_dims)
        self.first = convolution(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(_GROUPS, channels)
        self.second = convolution(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(_GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        branch = functional.relu(self.first_norm(self.first(x)), inplace=True)
        return functional.relu(x + self.second_norm(self.second(branch)), inplace=True)


def _coarser(channels: int, out: int, step: Sequence[int], *, wide: bool = False) -> nn.Sequential:
    """A convolution that makes the map coarser by ``step``; wide: its kernel also sees the neighbors."""
    kernel = [2 * s if s > 1 else 3 for s in step] if wide else list(step)
    padding = [(k - s) // 2 for k, s in zip(kernel, step, strict=True)]
    layer = _convolution(len(step))(channels, out, kernel, stride=tuple(step), padding=padding, bias=False)
    return nn.Sequential(layer, nn.GroupNorm(_GROUPS, out), nn.ReLU(inplace=True))


def _halvings(stride: Sequence[int]) -> list[tuple[int, ...]]:
    """The steps by which an image gets as coarse as ``stride``; the axis with the fewest waits for the others."""
    counts = [int(math.log2(s)) for s in stride]
    most = max(*counts, 1)
    return [tuple(2 if step >= most - count else 1 for count in counts) for step in range(most)]


def _convolution(spatial_dims: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    return (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
