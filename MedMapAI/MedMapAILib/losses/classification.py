"""What training a classifier makes small, and the probabilities that its outputs stand for.

One formula for every kind of target: each output asks a question with two answers or more, and the loss is

    Σ target · weight · (1 - p)^γ · (-log p) / number of questions,

the cross-entropy for γ = 0, and the focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002) above. "binary" and
"single-label" ask one question a case (softmax), "multi-label" asks one a class (sigmoid), and "ordinal" asks "is it
above class k?" of those cases that are above class k - 1: CORN (Shi, Cao, Raschka 2023,
https://arxiv.org/abs/2111.08851). Everything is linear in the target, so the loss of a mixed target is the mix of the
losses, and a target may be soft.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import log_softmax, logsigmoid

from ..errors import InputError
from ..results import KINDS

ClassificationLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: weight: None, "balanced", "effective" or a list; beta: of the effective number; gamma: how little easy cases count.
_OPTIONS: dict[str, dict[str, Any]] = {
    "cross-entropy": {"label_smoothing": 0.0, "weight": None, "beta": 0.999},
    "focal": {"gamma": 2.0, "label_smoothing": 0.0, "weight": None, "beta": 0.999},
}


def build_classification_loss(
    name: str, *, kind: str, counts: Sequence[int] | None = None, total: int | None = None, **options: Any
) -> ClassificationLoss:
    """A loss: ``loss(logits, target)`` of (B, O) and (B, K) → scalar float32, on the logits' device.

    kind: one of ``results.KINDS``; O is K, or K - 1 for "ordinal". The target is one-hot, flags of 0 and 1 for
    "multi-label", or a mix of such (rows of soft targets sum to 1 except for "multi-label"). The mean is over cases,
    over cases and classes for "multi-label", and over the questions asked for "ordinal" (as published). It is not
    divided by the weights of the batch (as torch does for hard targets and does not for soft ones): so the loss of a
    rare class counts in full in a batch that holds nothing else.

    counts: training cases of each class; total: of all cases ("multi-label" needs it, where a case has any number of
    classes). Both are needed only where weight is a word: see ``class_weights``. A list for weight has one number a
    class, and for "multi-label" says what a case that has the class counts (one that has it not counts 1).
    label_smoothing: share of the target that is spread evenly over the classes (Szegedy et al. 2016,
    https://arxiv.org/abs/1512.00567); over "yes" and "no" of each class for "multi-label".
    Raises InputError for an unknown name, kind or option, and for a value that makes no sense.
    """
    known = classification_options(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InputError(f"Loss {name!r} has no option {unknown[0]!r}; there are {', '.join(known)}.")
    _check_kind(kind)
    chosen = {**known, **options}
    for option, highest, allowed in (
        ("gamma", math.inf, "a number from 0"),
        ("label_smoothing", 1.0, "a number from 0 to less than 1"),
        ("beta", 1.0, "a number from 0 to less than 1"),
    ):
        if option in chosen and not (_is_number(chosen[option]) and 0 <= chosen[option] < highest):
            raise InputError(f"Option {option} of loss {name!r} is {chosen[option]!r}; give {allowed}.")
    weights = None
    if isinstance(chosen["weight"], str):
        weights = class_weights(chosen["weight"], counts, kind=kind, total=total, beta=float(chosen["beta"]))
    elif chosen["weight"] is not None:
        weights = _given_weights(name, chosen["weight"], kind)
    return _Loss(kind, weights, float(chosen.get("gamma", 0.0)), float(chosen["label_smoothing"]))


def classification_options(name: str) -> dict[str, Any]:
    """The options of a loss and their defaults. Raises InputError for an unknown name."""
    if name not in _OPTIONS:
        raise InputError(f"There is no loss {name!r} for classification; choose one of {', '.join(_OPTIONS)}.")
    return dict(_OPTIONS[name])


#: Name → builder.
CLASSIFICATION: dict[str, Callable[..., ClassificationLoss]] = {
    name: functools.partial(build_classification_loss, name) for name in _OPTIONS
}


def probabilities(logits: torch.Tensor, kind: str) -> torch.Tensor:
    """(B, O) → (B, K) float32, before any calibration. Rows sum to 1 unless kind is "multi-label".

    "ordinal": P(above k) is the product of the sigmoids up to k, so it never rises with k, and P(class k) is the
    difference of two of them (CORN, equation 8).
    """
    _check_kind(kind)
    log_p = _log_answers(logits, kind)
    if kind == "multi-label":
        return log_p[..., 1].exp()
    if kind == "ordinal":
        above = torch.cumsum(log_p[..., 1], dim=1)
        first = torch.zeros_like(above[:, :1])
        return torch.cat([log_p[..., 0] + torch.cat([first, above[:, :-1]], dim=1), above[:, -1:]], dim=1).exp()
    return log_p.exp()


def class_weights(
    rule: str, counts: Sequence[int] | None, *, kind: str, total: int | None = None, beta: float = 0.999
) -> torch.Tensor:
    """Weights that let rare classes count more: (K,), or (K, 2) for "multi-label" (not having the class, having it).

    rule: "balanced", one over the number of cases; "effective", one over the effective number of cases,
    (1 - β^n) / (1 - β) (Cui et al. 2019, https://arxiv.org/abs/1901.05555). Each question's weights are scaled so that
    their mean over the training cases is 1, which keeps the size of the loss (Cui et al. let them sum to the number of
    classes: a constant factor); so "balanced" is N / (K n), and "effective" goes from no weights (β = 0) to balanced
    (β → 1). For "multi-label" each class is a question with two answers.
    Raises InputError for an unknown rule and for a class without cases; ValueError where counts or total is missing.
    """
    if rule not in ("balanced", "effective"):
        raise InputError(f"Loss weight {rule!r} is unknown; give 'balanced', 'effective' or one number for each class.")
    if counts is None or (kind == "multi-label" and total is None):
        raise ValueError("weights from the training cases need counts, and total for multi-label targets")
    cases = torch.as_tensor(counts, dtype=torch.float64)
    if kind == "multi-label":
        cases = torch.stack([total - cases, cases], dim=1)
    empty = (cases.reshape(len(cases), -1) <= 0).any(dim=1)
    if empty.any():
        raise InputError(
            f"Loss weight {rule!r} needs training cases of every class"
            f"{' and cases without it' if kind == 'multi-label' else ''}, and class {int(empty.nonzero()[0]) + 1} of "
            f"{len(cases)} lacks them; add cases, or give the weights as numbers."
        )
    if rule == "balanced" or beta == 1:
        weights = 1 / cases
    else:
        weights = (1 - beta) / -torch.expm1(cases * math.log(beta)) if beta > 0 else torch.ones_like(cases)
    mean = (weights * cases).sum(dim=-1, keepdim=True) / cases.sum(dim=-1, keepdim=True)
    return (weights / mean).float()


class _Loss:
    def __init__(self, kind: str, weights: torch.Tensor | None, gamma: float, smoothing: float):
        self._kind, self._weights, self._gamma, self._smoothing = kind, weights, gamma, smoothing

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        classes = target.shape[1]
        outputs = classes - 1 if self._kind == "ordinal" else classes
        if logits.shape != (target.shape[0], outputs):
            raise ValueError(
                f"{self._kind} logits for targets {tuple(target.shape)} must be ({target.shape[0]}, {outputs}), not "
                f"{tuple(logits.shape)}"
            )
        if self._weights is not None:
            if len(self._weights) != classes:
                raise InputError(
                    f"Loss option weight has {len(self._weights)} numbers for {classes} classes; give one for each."
                )
            self._weights = self._weights.to(logits.device)
        with torch.autocast(logits.device.type, enabled=False):
            log_p = _log_answers(logits, self._kind)
            wanted, questions = self._answers(target.float())
            loss = -wanted * log_p
            if self._gamma > 0:
                # The clamp keeps the gradient finite for γ below 1, where the slope at a certain answer is infinite.
                loss = loss * (-torch.expm1(log_p)).clamp(min=1e-12) ** self._gamma
            return loss.sum() / questions

    def _answers(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | int]:
        """How much each answer is wanted, in the shape of ``_log_answers``, and the number of questions."""
        weights, smoothing = self._weights, self._smoothing
        if self._kind == "multi-label":
            yes = target * (1 - smoothing) + smoothing / 2
            wanted = torch.stack([1 - yes, yes], dim=-1)
            return wanted if weights is None else wanted * weights, target.numel()
        target = target * (1 - smoothing) + smoothing / target.shape[1]
        wanted = target if weights is None else target * weights
        if self._kind != "ordinal":
            return wanted, len(target)
        # Column k of the survival is the share of the target above class k - 1; those cases are asked question k.
        asked = _survival(target)[:, :-1].sum()
        survival = _survival(wanted)
        return torch.stack([survival[:, :-1] - survival[:, 1:], survival[:, 1:]], dim=-1), asked


def _log_answers(logits: torch.Tensor, kind: str) -> torch.Tensor:
    """Logarithms of the probability of each answer: (B, K), or (B, O, 2) of "no" and "yes" where they are sigmoids."""
    logits = logits.float()
    if kind in ("multi-label", "ordinal"):
        return torch.stack([logsigmoid(-logits), logsigmoid(logits)], dim=-1)
    return log_softmax(logits, dim=1)


def _survival(target: torch.Tensor) -> torch.Tensor:
    """(B, K) → (B, K): how much of the target lies in class k or above."""
    return target.flip(1).cumsum(1).flip(1)


def _given_weights(name: str, weight: Any, kind: str) -> torch.Tensor:
    if not isinstance(weight, (list, tuple)) or not all(_is_number(w) and 0 <= w < math.inf for w in weight):
        raise InputError(
            f"Option weight of loss {name!r} is {weight!r}; give 'balanced', 'effective' or a list of numbers from 0, "
            "one for each class."
        )
    weights = torch.tensor(weight, dtype=torch.float32)
    return torch.stack([torch.ones_like(weights), weights], dim=1) if kind == "multi-label" else weights


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InputError(f"There is no kind of target {kind!r}; choose one of {', '.join(KINDS)}.")
