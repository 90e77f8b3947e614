"""Learning rate as a pure function of the iteration, so that a resumed run needs nothing remembered."""

from __future__ import annotations

import math


def learning_rate_factor(
    iteration: int, total: int, *, name: str, warmup: float, final_fraction: float, power: float
) -> float:
    """The learning rate at an iteration, as a fraction of the highest.

    iteration: from 0. total: iterations of the whole training. warmup: iterations of linear rise from 0 before the
    schedule begins. name: "cosine" ``(1 + cos(π t)) / 2`` (Loshchilov and Hutter 2017, one period), "polynomial"
    ``(1 - t)^power`` (as in DeepLab and nnU-Net), or "constant", with t from 0 to 1 after the warm-up.
    final_fraction: what remains at the end.
    """
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    t = min(1.0, (iteration - warmup) / max(1.0, total - warmup))
    shape = {"cosine": (1 + math.cos(math.pi * t)) / 2, "polynomial": (1 - t) ** power, "constant": 1.0}[name]
    return final_fraction + (1 - final_fraction) * shape
