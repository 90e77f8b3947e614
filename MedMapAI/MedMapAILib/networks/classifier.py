"""What every network that classifies has in common: features, embedding, head; stages to freeze; where it attends.

VGG, ResNet and DenseNet give a map of features; its mean over space, or a transformer over its voxels, is the
embedding; one linear layer turns that into logits. With width 1, no attention and one member, in 2D with 3 channels and
the standard stem, the networks are torchvision's, name by name (``published_name``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .attention_blocks import ATTENTION, SpatialGate, TransformerHead
from .checks import check_dropout

#: How fast a network makes an image coarse at its beginning.
STEMS = ("auto", "standard", "strided", "small")
#: Images whose longest axis is shorter have the small stem: the standard one makes them four times as coarse at once.
SMALL_BELOW = 64


class Classifier(nn.Module):
    """Logits (B, O) of images (B, C, *S) of any size, as ``head(embedding(features(x)))``.

    A family makes ``features``, a method or a module: (B, C, *S) → (B, F, *s), no value below zero; and says what its
    ``body_stages`` and its ``output_layer`` are.
    """

    features: Callable[[torch.Tensor], torch.Tensor]

    def finish(self, spatial_dims: int, channels: int, attention: str, dropout: float) -> None:
        """Add what comes after the features, of which there are ``channels``. For the constructors of families."""
        self.transformer = TransformerHead(spatial_dims, channels) if attention == "transformer" else None
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, O). Raises InputError for a batch too small to be normalized in training."""
        try:
            return self.head(self.embedding(self.features(x)))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            size = " × ".join(str(s) for s in x.shape[2:])
            raise InputError(
                f"A batch of one image of {size} voxels leaves one value in the deepest layer, which batch "
                "normalization cannot learn from; use a batch size of 2 or more, or larger images."
            ) from None

    def embedding(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F, *s) → (B, E): the mean over space, or what the transformer's class token has gathered."""
        if self.transformer is not None:
            return self.transformer(features)
        return features.mean(dim=tuple(range(2, features.ndim)))

    def head(self, embedding: torch.Tensor) -> torch.Tensor:
        """(B, E) → logits (B, O)."""
        return self.output_layer()(self.drop(embedding))

    def output_layer(self) -> nn.Linear:
        """The last layer, which gives the logits."""
        raise NotImplementedError

    def body_stages(self) -> list[tuple[str, nn.Module]]:
        """The stages of the features and whatever else a family has before its last layer."""
        raise NotImplementedError

    def stages(self) -> list[tuple[str, nn.Module]]:
        """(name, module) from input to output; each parameter is in exactly one. The last is "head"."""
        between = [] if self.transformer is None else [("transformer", self.transformer)]
        return [*self.body_stages(), *between, ("head", self.output_layer())]

    def attention_map(self, x: torch.Tensor) -> torch.Tensor | None:
        """(B, C, *S) → (B, 1, *s), from 0 to 1: where the network attends; None without such an attention.

        CBAM: the spatial attention of the last block, which a VGG has before its last pooling. Transformer: how much of
        its attention the class token of the last layer gives to each voxel of the features, mean over the heads; the
        voxels sum to less than 1, the rest is on the token itself.
        """
        if self.transformer is not None:
            return self.transformer.attention_map(self.features(x))
        gates = [module for module in self.modules() if isinstance(module, SpatialGate)]
        if not gates:
            return None
        seen: list[torch.Tensor] = []
        hook = gates[-1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            self.features(x)
        finally:
            hook.remove()
        return seen[0]

    def published_name(self, key: str) -> str | None:
        """torchvision's name of a key of ``state_dict``; None for what torchvision's network does not have."""
        raise NotImplementedError


class Halving(nn.Module):
    """Pooling by 2 along each axis that has two voxels or more; torch refuses to halve the others.

    kind: "max" or "average". Where torch's pooling of kernel 2 and stride 2 works, this is the same.
    """

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factors = [min(2, int(size)) for size in x.shape[2:]]
        functions = nn.functional
        if self.kind == "max":
            return (functions.max_pool2d, functions.max_pool3d)[len(factors) - 2](x, factors, factors)
        return (functions.avg_pool2d, functions.avg_pool3d)[len(factors) - 2](x, factors, factors)

    def extra_repr(self) -> str:
        return self.kind


def members_of(network: Classifier) -> list[Classifier]:
    """The members of an ensemble; of any other network a list of itself."""
    return list(getattr(network, "members", [network]))


def common_arguments(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    width: float,
    attention: str,
    dropout: float,
    stem: str,
    image_size: Sequence[int] | None,
) -> dict[str, Any]:
    """The arguments that the classes of all families take, checked, with the stem decided. Raises InputError.

    stem: "standard", "strided", "small", or "auto" for small where the longest axis of image_size is below 64 voxels.
    Without an image_size that is the standard one.
    """
    if attention not in ATTENTION:
        raise InputError(f"Network option attention is {attention!r}; choose one of {', '.join(ATTENTION)}.")
    if stem not in STEMS:
        raise InputError(f"Network option stem is {stem!r}; choose one of {', '.join(STEMS)}.")
    if image_size is not None:
        numbers = isinstance(image_size, (list, tuple)) and all(
            isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in image_size
        )
        if not numbers or len(image_size) != spatial_dims:
            raise InputError(
                f"Network option image_size is {image_size!r}; give {spatial_dims} whole numbers above zero, in voxels."
            )
    if stem == "auto":
        stem = "small" if image_size is not None and max(image_size) < SMALL_BELOW else "standard"
    return {
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "width": _width(width),
        "stem": stem,
        "attention": attention,
        "dropout": check_dropout(dropout),
    }


def check_probability(value: Any, option: str) -> float:
    """A probability below 1. Raises InputError that names the option."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise InputError(f"Network option {option} is {value!r}; give a probability from 0 to below 1.")
    return float(value)


def scaled(channels: int, width: float) -> int:
    """Channels of a layer that has ``channels`` at width 1."""
    return max(1, round(channels * width))


def _width(width: Any) -> float:
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 1 / 16 <= width < math.inf:
        raise InputError(
            f"Network option width is {width!r}; give a number of 1/16 or more, by which all layers' channels are "
            "multiplied: 1 is the published network."
        )
    return float(width)
