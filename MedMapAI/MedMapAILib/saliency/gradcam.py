"""Grad-CAM and Grad-CAM++: the network's last feature maps, weighted by how much the score depends on each of them.

An ensemble is treated as the one network that it is: its members' features side by side, its logits their mean.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from . import feature_layer


def grad_cam(network: nn.Module, x: torch.Tensor, output: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., ICCV 2017, equations 1 and 2).

    The weight of a feature map A_k is the mean of its gradient, α_k = mean_p ∂y/∂A_k(p), and the map is
    ReLU(Σ_k α_k A_k). For global average pooling and a linear head this is the class activation map.
    network, x, output: see the package. Returns float32 (*S), not scaled.
    """

    def weights(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.flatten(2).mean(dim=2)

    return _weighted(network, x, output, weights)


def grad_cam_plus_plus(
    network: nn.Module, x: torch.Tensor, output: Callable[[torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, equations 5 and 19), which finds several places of a thing better.

    With g = ∂y/∂A_k(p) for the score y before the exponential,
    α_k(p) = g² / (2 g² + g³ Σ_q A_k(q)), w_k = Σ_p α_k(p) ReLU(g), and the map is ReLU(Σ_k w_k A_k). The factor exp(y)
    of the paper is the same for every voxel and left out. network, x, output: see the package. Returns float32 (*S),
    not scaled.
    """

    def weights(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        features, gradient = features.flatten(2), gradient.flatten(2)
        # Divided by g², so that gradients whose square underflows still count.
        below = 2 + gradient * features.sum(dim=2, keepdim=True)
        alpha = torch.where(below.abs() > 1e-12, 1 / below, torch.zeros_like(below))
        return (alpha * gradient.relu()).sum(dim=2)

    return _weighted(network, x, output, weights)


def _weighted(
    network: nn.Module,
    x: torch.Tensor,
    output: Callable[[torch.Tensor], torch.Tensor],
    weights: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> np.ndarray:
    """ReLU of the sum of feature maps by ``weights(features, gradient) → (B, F)``, on the grid of x."""
    layers = feature_layer.read(network, x, output)
    maps = []
    for layer in layers:
        factors = weights(layer.features, layer.gradient)
        maps.append((layer.features.flatten(2) * factors[:, :, None]).sum(dim=1).reshape(layer.features.shape[2:]))
    return feature_layer.spread(torch.stack(maps).sum(dim=0).relu().cpu().numpy(), layers[0].places, x.shape[2:])
