"""The optimizers to choose from."""

from __future__ import annotations

import torch
from torch import nn

from ..transfer import parameter_groups


def build_optimizer(network: nn.Module, settings: dict, *, layer_decay: float = 1.0) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) or SGD with Nesterov momentum, from section [optimizer] of a configuration.

    Weight decay is left off biases and normalization weights, which it would only shrink. layer_decay: below 1 each
    stage of a classifier learns that much slower than the one above it; the factor of a group is its "scale".
    """
    if layer_decay < 1:
        stages = parameter_groups(network, layer_decay=layer_decay)
    else:
        stages = [{"params": list(network.parameters()), "scale": 1.0}]
    groups = []
    for stage in stages:
        # Those that are frozen now may learn later.
        decayed = [p for p in stage["params"] if p.ndim > 1]
        plain = [p for p in stage["params"] if p.ndim <= 1]
        for some, decay in ((decayed, settings["weight_decay"]), (plain, 0.0)):
            if some:
                groups.append({"params": some, "weight_decay": decay, "scale": stage["scale"]})
    if settings["name"] == "sgd":
        return torch.optim.SGD(groups, lr=settings["learning_rate"], momentum=settings["momentum"], nesterov=True)
    # A network that learns against a critic needs less momentum than torch gives by default.
    betas = tuple(map(float, settings.get("betas") or (0.9, 0.999)))
    return torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=betas)
