"""Which of very many places a head learns from."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_sample(
    positive: Tensor, negative: Tensor, scores: Tensor, *, count: int, most_positive: float, pool: int
) -> Tensor:
    """Indices (K,) of at most ``count`` places, of which at most the part ``most_positive`` is positive.

    positive, negative: (N,) bool; a place that is neither is never taken. scores: (N,), how much each looks like an
    object. There are three negatives to a positive, but at least half of ``count``: the papers fill up the count,
    which drowns the one object that a volume has. They are drawn among the ``pool`` times as many that look most like
    an object: of a hundred thousand places nearly all are air, and teach nothing. From torch's global generator.
    """
    objects = positive.nonzero()[:, 0]
    objects = objects[torch.randperm(len(objects), device=objects.device)[: int(count * most_positive)]]
    others = negative.nonzero()[:, 0]
    wanted = min(count - len(objects), max(count // 2, 3 * len(objects)), len(others))
    hardest = scores.detach()[others].topk(min(wanted * pool, len(others))).indices
    drawn = hardest[torch.randperm(len(hardest), device=hardest.device)[:wanted]]
    return torch.cat([objects, others[drawn]])
