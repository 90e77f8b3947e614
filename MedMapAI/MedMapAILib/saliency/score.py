"""The score of a class that a saliency map explains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from ..errors import InputError


def log_odds(kind: str, number: int, classes: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The logarithm of p / (1 − p) of a class: ``score(logits (1, O)) → scalar``.

    Unlike a probability its gradient does not vanish where the network is sure; unlike a single logit of a softmax it
    says what speaks for the class against all others. kind: one of results.KINDS. number: of the class, from 0, of
    ``classes``. Ordinal logits are CORN's (Shi, Cao and Raschka 2023): logit j is of "more than j, if at least j".
    Raises InputError for an unknown kind or class.
    """
    if not 0 <= number < classes:
        raise InputError(f"There is no class number {number}: there are {classes}, counted from 0.")
    others = [other for other in range(classes) if other != number]

    def multi_label(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, number]

    def softmax(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, number] - torch.logsumexp(logits[0, others], dim=0)

    def ordinal(logits: torch.Tensor) -> torch.Tensor:
        more, not_more = F.logsigmoid(logits[0]), F.logsigmoid(-logits[0])
        # Class j: more than 0, more than 1, …, more than j - 1, and not more than j; the last ends with "more than".
        reached = torch.cat([more.new_zeros(1), more.cumsum(0)])
        each = reached + torch.cat([not_more, more.new_zeros(1)])
        return each[number] - torch.logsumexp(each[others], dim=0)

    scores = {"binary": softmax, "single-label": softmax, "multi-label": multi_label, "ordinal": ordinal}
    if kind not in scores:
        raise InputError(f"There is no kind of target {kind!r}; there are {', '.join(scores)}.")
    return scores[kind]
