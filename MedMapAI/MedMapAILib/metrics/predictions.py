"""What a classifier said of many cases: checked, and turned into calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..results import KINDS

#: How far a row of probabilities may be from 1 together; float16 is not better.
_ROUNDING = 5e-3


def check_predictions(probabilities: Any, target: Any, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities as float64 (N, K) and targets as bool (N, K), one row a case.

    Raises InputError where they do not belong together, where a value is no probability, or where a row has not exactly
    one true class though the kind is not "multi-label".
    """
    p, wanted = check_probabilities(probabilities, kind), np.asarray(target)
    if wanted.shape != p.shape or len(p) == 0:
        raise InputError(
            f"There are probabilities {p.shape} and targets {wanted.shape}; "
            "both are (cases, classes), with one case or more."
        )
    if not np.isin(wanted, (0, 1)).all():
        raise InputError("A target is neither 0 nor 1; metrics are of true classes, not of mixed ones.")
    true = wanted.astype(bool)
    if kind != "multi-label" and not (true.sum(axis=1) == 1).all():
        case = int(np.argmax(true.sum(axis=1) != 1))
        raise InputError(f"Case {case} has {int(true[case].sum())} true classes; a {kind} target has exactly one.")
    return p, true


def check_probabilities(probabilities: Any, kind: str) -> np.ndarray:
    """Probabilities as float64 (N, K). Raises InputError where a value is no probability of that kind."""
    if kind not in KINDS:
        raise InputError(f"{kind!r} is no kind of target; choose one of {', '.join(KINDS)}.")
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < (1 if kind == "multi-label" else 2) or (kind == "binary" and p.shape[1] != 2):
        raise InputError(f"Probabilities of shape {p.shape} are not those of a {kind} target; give (cases, classes).")
    right = (p >= -_ROUNDING) & (p <= 1 + _ROUNDING)
    if kind != "multi-label":
        right = right.all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= _ROUNDING)
    if not right.all():
        case = int(np.argwhere(~right)[0][0])
        raise InputError(
            f"Case {case} has the values {p[case].tolist()}, which are not probabilities; use the network's."
        )
    return np.clip(p, 0, 1)


def calls(probabilities: Any, kind: str, thresholds: Sequence[float | None] | None = None) -> np.ndarray:
    """What is called at the operating point: uint8 (N, K), 1 for the classes called.

    probabilities: (N, K). thresholds: one a class or None. Multi-label: every class that reaches its threshold (0.5
    where there is none). Binary: the second class where it reaches its threshold, else the first; thresholds are
    (None, number). Otherwise, and without a threshold, the class of the highest probability; of equal ones the first.
    Raises InputError for thresholds that do not fit.
    """
    p = check_probabilities(probabilities, kind)
    limits = [None] * p.shape[1] if thresholds is None else list(thresholds)
    if len(limits) != p.shape[1]:
        raise InputError(f"There are {len(limits)} thresholds for {p.shape[1]} classes; give one (or None) a class.")
    if not all(limit is None or np.isfinite(limit) for limit in limits):
        raise InputError(f"The thresholds {limits} are not all numbers; give numbers from 0 to 1, or None.")
    if kind == "multi-label":
        return (p >= [0.5 if limit is None else limit for limit in limits]).astype(np.uint8)
    if kind == "binary" and limits[0] is None and limits[1] is not None:
        number = (p[:, 1] >= limits[1]).astype(int)
    elif any(limit is not None for limit in limits):
        raise InputError(f"A {kind} target has no use for the thresholds {limits}; leave them out.")
    else:
        number = p.argmax(axis=1)
    return np.eye(p.shape[1], dtype=np.uint8)[number]
