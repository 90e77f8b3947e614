"""Exponential moving average of weights: smoother than the last step's, and usually better."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, updates: int) -> None:
    """Move the averaged network a step toward the trained one: ``a ← d·a + (1 − d)·w``.

    d is ``min(decay, (1 + updates) / (10 + updates))``, so that the random start is forgotten quickly (the ramp of
    TensorFlow's ExponentialMovingAverage). Counters and other integers are copied.
    """
    decay = min(decay, (1 + updates) / (10 + updates))
    # Not the state dict: a network may list one tensor there under several names, and it would be moved as often.
    tensors = zip([*average.parameters(), *average.buffers()], [*network.parameters(), *network.buffers()], strict=True)
    for old, new in tensors:
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)
