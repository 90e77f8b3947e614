"""A classifier on the encoder of a segmentation network, so that one can start from a model that segments.

What a U-Net has learned to see sits in its encoder; the levels here are that encoder's own modules, in any of our
families for segmentation, and only the head is new. As in the classification branches of Mehta et al., "Y-Net", MICCAI
2018, https://arxiv.org/abs/1806.01313, the deepest level is averaged over space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .. import networks
from ..errors import InputError
from .attention_blocks import gate
from .classifier import Classifier, common_arguments
from .ensemble import build_members, define_members

_TARGET = "MedMapAILib.networks.encoder_classifier.EncoderClassifier"


class EncoderClassifier(Classifier):
    """A classifier on the encoder of the segmentation network ``encoder``. See ``build`` for the arguments."""

    def __init__(
        self,
        encoder: str,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        encoder_options: dict[str, Any],
        attention: str,
        dropout: float,
    ):
        super().__init__()
        whole = networks.build(
            encoder, spatial_dims=spatial_dims, in_channels=in_channels, out_channels=1, **encoder_options
        )
        self._divisor = networks.size_divisor(encoder, spatial_dims=spatial_dims, **encoder_options)
        self.levels = nn.ModuleList(nn.Sequential(*level) for level in _LEVELS[encoder](whole))
        channels = [_channels(level) for level in self.levels]
        # Named by the tensors themselves, so that no rule about names can be wrong.
        theirs = {id(tensor): name for name, tensor in whole.state_dict(keep_vars=True).items()}
        self._names = {
            name: theirs[id(tensor)] for name, tensor in self.state_dict(keep_vars=True).items() if id(tensor) in theirs
        }
        for level, width in zip(self.levels, channels, strict=True):
            weighing = gate(attention, spatial_dims, width)
            if weighing is not None:
                level.append(weighing)
        self.finish(spatial_dims, channels[-1], attention, dropout)
        self.output = nn.Linear(channels[-1] if self.transformer is None else self.transformer.size, out_channels)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *S) → (B, F, *s) of the deepest level, none below zero; S of any size."""
        x = self._at_least_two_voxels(x)
        for level in self.levels:
            x = level(x)
        return torch.relu(x)

    def output_layer(self) -> nn.Linear:
        return self.output

    def body_stages(self) -> list[tuple[str, nn.Module]]:
        return [(f"level{number}", level) for number, level in enumerate(self.levels, start=1)]

    def published_name(self, key: str) -> str | None:
        """None: torchvision has no such network."""
        return None

    def segmentation_names(self) -> dict[str, str]:
        """Key of the state dict → what the segmentation network calls it, for all that is of its encoder."""
        return dict(self._names)

    def _at_least_two_voxels(self, x: torch.Tensor) -> torch.Tensor:
        """Small images, extended on both sides by their border until the deepest level can be normalized."""
        sizes = [max(size, divisor) for size, divisor in zip(x.shape[2:], self._divisor, strict=True)]
        if sizes == list(self._divisor):
            sizes[-1] *= 2
        missing = [size - there for size, there in zip(sizes, x.shape[2:], strict=True)]
        if not any(missing):
            return x
        pad = [end for m in reversed(missing) for end in (m // 2, m - m // 2)]
        return nn.functional.pad(x, pad, mode="replicate")


def build(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    encoder: str = "unet",
    encoder_options: dict[str, Any] | None = None,
    attention: str = "none",
    dropout: float = 0.0,
    members: int = 1,
) -> Classifier:
    """A classifier on a segmentation network's encoder to train, or an ensemble of them.

    encoder: name of a network for segmentation. encoder_options: its options; to start from a model's encoder those of
    the model (``transfer.network_for``). attention: "none", "se" or "cbam" at the end of each level, "transformer"
    after the last. dropout: probability, before the last layer. members: of an ensemble.
    Raises InputError.
    """
    arguments = _arguments(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        encoder=encoder,
        encoder_options=encoder_options,
        attention=attention,
        dropout=dropout,
    )
    return build_members(lambda: EncoderClassifier(**arguments), members)


def definition(*, members: int = 1, **arguments: Any) -> dict[str, Any]:
    """The same network for inference, as a MONAI bundle names it. Raises InputError."""
    return define_members({"_target_": _TARGET} | _arguments(**arguments), members)


def size_divisor(*, spatial_dims: int, **_: Any) -> tuple[int, ...]:
    """Ones: every size works."""
    return (1,) * spatial_dims


def _arguments(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    encoder: str = "unet",
    encoder_options: dict[str, Any] | None = None,
    attention: str = "none",
    dropout: float = 0.0,
) -> dict[str, Any]:
    if encoder not in networks.SEGMENTATION:
        raise InputError(f"Network option encoder is {encoder!r}; choose one of {', '.join(networks.SEGMENTATION)}.")
    if not isinstance(encoder_options, (dict, type(None))):
        raise InputError(
            f"Network option encoder_options is {encoder_options!r}; give a table of the options of {encoder!r}."
        )
    options = {name: value for name, value in (encoder_options or {}).items() if name != "deep_supervision"}
    networks.definition(encoder, spatial_dims=spatial_dims, in_channels=in_channels, out_channels=1, **options)
    common = common_arguments(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        width=1.0,
        attention=attention,
        dropout=dropout,
        stem="standard",
        image_size=None,
    )
    del common["width"], common["stem"]
    return common | {"encoder": encoder, "encoder_options": options}


def _unet_levels(network: nn.Module) -> list[list[nn.Module]]:
    return [[network.input_block], *([level] for level in network.downsamples), [network.bottleneck]]


def _segresnet_levels(network: nn.Module) -> list[list[nn.Module]]:
    before, levels = network.encoder.conv_init, []
    for level in network.encoder.layers:
        levels.append([before, level["blocks"]])
        before = level["downsample"]
    return levels


def _attention_unet_levels(network: nn.Module) -> list[list[nn.Module]]:
    levels, inner = [[network.model[0]]], network.model[1].submodule
    # Each level holds its convolutions and the next level; the deepest its convolutions alone.
    while isinstance(inner, nn.Sequential):
        levels.append([inner[0]])
        inner = inner[1].submodule
    return [*levels, [inner]]


def _fcn_levels(network: nn.Module) -> list[list[nn.Module]]:
    stages = [*network.to_pool3, network.to_pool4, network.to_classifier[0]]
    return [*([stage] for stage in stages), list(network.to_classifier[1:])]


def _channels(level: nn.Module) -> int:
    """How many channels a level gives."""
    return [m.out_channels for m in level.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))][-1]


#: Network for segmentation → the modules of each level of its encoder, from fine to coarse.
_LEVELS: dict[str, Callable[[nn.Module], list[list[nn.Module]]]] = {
    "fcn": _fcn_levels,
    "unet": _unet_levels,
    "attention-unet": _attention_unet_levels,
    "residual-unet": _unet_levels,
    "segresnet": _segresnet_levels,
}
