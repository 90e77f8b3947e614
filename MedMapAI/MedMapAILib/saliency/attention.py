"""What the network itself attends to, where it has attention: CBAM's spatial attention, or the class token's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..errors import InputError
from ..networks.classifier import members_of
from . import feature_layer


def attention(network: nn.Module, x: torch.Tensor, output: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """The network's own attention over the image, the mean over an ensemble's members.

    It is the same whatever the score: ``output`` is not used. What every place has is taken away, so that the least
    attended voxel is 0. network, x: see the package. Returns float32 (*S), not scaled. Raises InputError where the
    network has no attention that has a place.
    """
    maps = []
    with torch.no_grad():
        for member in members_of(network):
            values = member.attention_map(x)
            if values is None:
                raise InputError(
                    "This network has no attention map: choose another saliency method, or train a network with "
                    'attention = "cbam" or "transformer".'
                )
            places = feature_layer.places_of(member, x, tuple(values.shape[2:]))
            values = values[0, 0].float().cpu().numpy()
            maps.append(feature_layer.spread(values - values.min(), places, x.shape[2:]))
    return np.mean(maps, axis=0)
