"""Whether probabilities mean what they say: expected calibration error, and the temperature that corrects them.

Both from Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
https://arxiv.org/abs/1706.04599. What a prediction claims (its confidence) and whether it came true:

=====================  ===========================================================================================
binary                 the positive class's probability, and whether the case is positive (as torchmetrics)
multi-label            the same for each label by itself; the error is the mean over labels
single-label, ordinal  the highest probability, and whether that class is the true one (the paper's)
=====================  ===========================================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from ..errors import InputError
from ..results import KINDS

#: Number of bins of equal width; the paper's.
BINS = 15
#: Between these lies every temperature that changes anything.
_TEMPERATURES = (0.01, 100.0)


def claims(probabilities: np.ndarray, true: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(confidence, whether it came true), both (N, C): see this file's table. C is 1, or multi-label's labels."""
    if kind == "multi-label":
        return probabilities, true
    if kind == "binary":
        return probabilities[:, 1:], true[:, 1:]
    top = probabilities.argmax(axis=1)[:, None]
    return np.take_along_axis(probabilities, top, axis=1), np.take_along_axis(true, top, axis=1)


def bins_of(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The number of the bin that each confidence falls in; a bin holds its lower edge, the last one also 1."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="right")


def fit_temperature(logits: Any, target: Any, kind: str) -> float:
    """The temperature T by which logits are to be divided so that probabilities are as likely as they can be made.

    logits: (N, O), the network's on cases that it was not trained on. target: (N, K), rows as in training. Minimizes
    the negative log-likelihood, which is convex in 1/T for each kind: softmax (binary, single-label), one sigmoid a
    label (multi-label), conditional sigmoids (ordinal). More than 1: the network was too sure.
    Dividing changes neither the class of a softmax's highest probability nor the order of a label's probabilities.
    It is 1 where the cases set no limit: where all of them are right, ever smaller temperatures look better, and where
    all logits are 0 none does anything. Raises InputError where the two do not belong together.
    """
    if kind not in KINDS:
        raise InputError(f"{kind!r} is no kind of target; choose one of {', '.join(KINDS)}.")
    outputs, wanted = np.asarray(logits, dtype=np.float64), np.asarray(target, dtype=np.float64)
    labels = outputs.shape[-1] + (kind == "ordinal")
    if outputs.ndim != 2 or wanted.shape != (len(outputs), labels) or len(outputs) == 0:
        raise InputError(
            f"Logits {outputs.shape} and targets {wanted.shape} do not belong to one {kind} target; "
            "give (cases, outputs) and (cases, classes), with one case or more."
        )
    if not (np.isfinite(outputs).all() and np.isfinite(wanted).all()):
        raise InputError("A logit or a target is not a finite number; see whether the training diverged.")
    # As the temperature falls to 0, the loss grows with what the wrong answers lead by, 1/T times; or not at all.
    if kind in ("binary", "single-label"):
        behind = outputs - outputs.max(axis=1, keepdims=True)
        lead = -(wanted * behind).sum()

        def loss(log_temperature: float) -> float:
            scaled = behind * np.exp(-log_temperature)
            return float((wanted * (logsumexp(scaled, axis=1, keepdims=True) - scaled)).sum())

    else:
        yes, no = _decisions(wanted, kind)
        lead = (yes * np.maximum(-outputs, 0) + no * np.maximum(outputs, 0)).sum()

        def loss(log_temperature: float) -> float:
            scaled = outputs * np.exp(-log_temperature)
            return float((yes * np.logaddexp(0, -scaled) + no * np.logaddexp(0, scaled)).sum())

    if lead == 0:
        return 1.0
    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def _decisions(target: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """How much each sigmoid should say yes, and no: both (N, O)."""
    if kind == "multi-label":
        return target, 1 - target
    # Conditional logit k tells classes above k from class k, among the cases of class k or more (CORN).
    above = target[:, ::-1].cumsum(axis=1)[:, ::-1]
    return above[:, 1:], target[:, :-1]
