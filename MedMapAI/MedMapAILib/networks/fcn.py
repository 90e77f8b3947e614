"""FCN-8s: a classifier made fully convolutional, its coarse scores refined by those of finer layers.

Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
https://arxiv.org/abs/1411.4038, on the layers of VGG-16 (Simonyan, Zisserman 2014, https://arxiv.org/abs/1409.1556),
in two or three dimensions. What differs from the paper: widths are an option and small by default; convolutions are
padded so that nothing needs cropping; the convolutions are normalized, since there are no pretrained weights to start
from; the last upsampling is learned too, and each class has its own filters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers.utils import get_norm_layer
from torch import nn

from ..errors import InputError
from .checks import check_count, check_counts, check_dropout, check_norm, divisor_of, per_axis, per_level

_TARGET = "MedMapAILib.networks.fcn.FCN"
#: Channels of VGG's five stages, and of its classifier, in units of the first stage's.
_STAGES = (1, 2, 4, 8, 8)
_CLASSIFIER = 16
STRIDES = (2, 2, 2, 2, 2)


class FCN(nn.Module):
    """Logits (B, out_channels, *S) of images (B, in_channels, *S), for S a multiple of the product of ``strides``.

    Five stages of convolutions, each followed by pooling, and a classifier of convolutions give features at 1/8, 1/16
    and 1/32 of the size (with strides of 2). A 1×1 convolution scores each of the three; the scores are enlarged by
    transposed convolutions that begin as linear interpolation, and added from coarse to fine.
    width: channels of the first stage. convolutions: in each of the five stages. strides: of each stage's pooling, a
    number or one for each axis. classifier, classifier_kernel: channels and kernel of the layers that were VGG's fc6
    and fc7. norm: MONAI's (name, arguments), or None. dropout: after fc6 and fc7.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        width: int,
        convolutions: Sequence[int],
        strides: Sequence[int | Sequence[int]],
        classifier: int,
        classifier_kernel: int,
        norm: Sequence[Any] | None,
        dropout: float,
    ):
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        pool = (nn.MaxPool2d, nn.MaxPool3d)[spatial_dims - 2]
        factors = [per_axis(s, spatial_dims) for s in strides]
        widths = [width * stage for stage in _STAGES]

        stages, channels = [], in_channels
        for count, stage_width, factor in zip(convolutions, widths, factors, strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers.append(convolution(channels, stage_width, 3, padding=1, bias=norm is None))
                if norm is not None:
                    layers.append(get_norm_layer(tuple(norm), spatial_dims=spatial_dims, channels=stage_width))
                layers.append(nn.ReLU(inplace=True))
                channels = stage_width
            stages.append(nn.Sequential(*layers, pool(factor, factor)))
        # Up to pool3, to pool4, and to the end of the classifier.
        self.to_pool3 = nn.Sequential(*stages[:3])
        self.to_pool4 = stages[3]
        self.to_classifier = nn.Sequential(
            stages[4],
            convolution(channels, classifier, classifier_kernel, padding=classifier_kernel // 2),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            convolution(classifier, classifier, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.score_pool3 = convolution(widths[2], out_channels, 1)
        self.score_pool4 = convolution(widths[3], out_channels, 1)
        self.score_classifier = convolution(classifier, out_channels, 1)
        self.enlarge_classifier = _enlarging(out_channels, factors[4])
        self.enlarge_pool4 = _enlarging(out_channels, factors[3])
        self.enlarge_pool3 = _enlarging(out_channels, divisor_of(factors[:3], spatial_dims))
        self._initialize(convolution)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, C, *S). Logits (B, K, *S)."""
        pool3 = self.to_pool3(x)
        pool4 = self.to_pool4(pool3)
        scores = self.enlarge_classifier(self.score_classifier(self.to_classifier(pool4)))
        scores = self.enlarge_pool4(scores + self.score_pool4(pool4))
        return self.enlarge_pool3(scores + self.score_pool3(pool3))

    def _initialize(self, convolution: type[nn.Module]) -> None:
        for module in self.modules():
            if isinstance(module, convolution):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The finer scores begin at zero, so that training starts from the coarse answer (section 4.2 of the paper).
        for score in (self.score_pool3, self.score_pool4):
            nn.init.zeros_(score.weight)


def build(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    width: int = 16,
    convolutions: Sequence[int] = (2, 2, 3, 3, 3),
    strides: int | Sequence[int | Sequence[int]] = STRIDES,
    classifier: int | None = None,
    classifier_kernel: int = 3,
    dropout: float = 0.5,
    norm: str = "instance",
) -> FCN:
    """An FCN-8s to train.

    width: channels of the first stage; the others have 2, 4, 8 and 8 times as many (64 in VGG).
    convolutions: in each of the five stages; the default is VGG-16's, [1, 1, 2, 2, 2] is VGG-11's.
    strides: of the pooling at the end of each of the five stages, a number or one for each axis.
    classifier: channels of the layers that were VGG's fc6 and fc7 (4096 there); default 16 times the width.
    classifier_kernel: of fc6, odd (7 in VGG, for inputs of 224 pixels). dropout: probability, after fc6 and fc7.
    norm: "instance", "batch", "group" (of 8 channels), or "none" as in the paper.
    Raises InputError.
    """
    arguments = definition(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        width=width,
        convolutions=convolutions,
        strides=strides,
        classifier=classifier,
        classifier_kernel=classifier_kernel,
        dropout=dropout,
        norm=norm,
    )
    del arguments["_target_"]
    return FCN(**arguments)


def definition(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    width: int = 16,
    convolutions: Sequence[int] = (2, 2, 3, 3, 3),
    strides: int | Sequence[int | Sequence[int]] = STRIDES,
    classifier: int | None = None,
    classifier_kernel: int = 3,
    dropout: float = 0.5,
    norm: str = "instance",
) -> dict[str, Any]:
    """The same network for inference, as a MONAI bundle names it. Raises InputError."""
    width = check_count(width, "width")
    convolutions = check_counts(convolutions, "convolutions", least=5)
    if len(convolutions) != 5:
        raise InputError(
            f"Network option convolutions has {len(convolutions)} entries; FCN-8s has five stages, so give five."
        )
    classifier = _CLASSIFIER * width if classifier is None else check_count(classifier, "classifier")
    classifier_kernel = check_count(classifier_kernel, "classifier_kernel")
    if classifier_kernel % 2 == 0:
        raise InputError(f"Network option classifier_kernel is {classifier_kernel}; give an odd number.")
    return {
        "_target_": _TARGET,
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "width": width,
        "convolutions": convolutions,
        "strides": per_level(strides, "strides", 5, spatial_dims),
        "classifier": classifier,
        "classifier_kernel": classifier_kernel,
        "norm": None if norm == "none" else check_norm(norm, [width], more=["none"]),
        "dropout": check_dropout(dropout),
    }


def size_divisor(
    *, spatial_dims: int, strides: int | Sequence[int | Sequence[int]] = STRIDES, **_: Any
) -> tuple[int, ...]:
    """The product of all poolings, for each axis: 32 by default. Raises InputError."""
    return divisor_of(per_level(strides, "strides", 5, spatial_dims), spatial_dims)


def _enlarging(channels: int, factors: Sequence[int]) -> nn.Module:
    """A transposed convolution, one filter for each channel, that begins as linear interpolation by ``factors``."""
    kernels = [2 * f - f % 2 for f in factors]
    paddings = [math.ceil((f - 1) / 2) for f in factors]
    layer = (nn.ConvTranspose2d, nn.ConvTranspose3d)[len(factors) - 2](
        channels, channels, kernels, stride=tuple(factors), padding=tuple(paddings), groups=channels, bias=False
    )
    weight = torch.ones(())
    for factor, kernel in zip(factors, kernels, strict=True):
        center = factor - 1 if kernel % 2 else factor - 0.5
        triangle = 1 - (torch.arange(kernel) - center).abs() / factor
        weight = weight[..., None] * triangle
    with torch.no_grad():
        layer.weight.copy_(weight.expand_as(layer.weight))
    return layer
