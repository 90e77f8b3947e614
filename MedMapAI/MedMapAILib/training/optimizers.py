"""The optimizers to choose from."""

from __future__ import annotations

import torch
from torch import nn


def build_optimizer(network: nn.Module, settings: dict) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) or SGD with Nesterov momentum, from section [optimizer] of a configuration.

    Weight decay is left off biases and normalization weights, which it would only shrink.
    """
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings["weight_decay"]},
        {"params": plain, "weight_decay": 0.0},
    ]
    if settings["name"] == "sgd":
        return torch.optim.SGD(groups, lr=settings["learning_rate"], momentum=settings["momentum"], nesterov=True)
    return torch.optim.AdamW(groups, lr=settings["learning_rate"])
