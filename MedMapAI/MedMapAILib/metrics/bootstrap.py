"""How far a mean over cases could lie from the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import InputError

#: Numbers drawn at a time, to bound memory.
_AT_ONCE = 1_000_000


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """The mean of values, one for each case, and its percentile bootstrap interval: (mean, low, high).

    Cases are drawn with replacement ``resamples`` times, and the interval holds the central share ``confidence`` of the
    means (Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). The same seed gives the same
    interval. A single value is its own interval: it says nothing about the spread.
    Raises InputError when there are no values, when one is not finite, or for settings that make no sense.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise InputError("There are no values to take the mean of; evaluate at least one case.")
    if not np.isfinite(numbers).all():
        raise InputError(f"Value {int(np.argmin(np.isfinite(numbers)))} is not finite; leave undefined values out.")
    if not 0 < confidence < 1 or resamples < 1:
        raise InputError(
            f"A bootstrap with confidence {confidence} and {resamples} resamples makes no sense; "
            "give a confidence between 0 and 1, and one resample or more."
        )
    random = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // numbers.size)
    means = np.concatenate(
        [
            numbers[random.integers(numbers.size, size=(min(block, resamples - done), numbers.size))].mean(axis=1)
            for done in range(0, resamples, block)
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(numbers.mean()), float(low), float(high)


def summarize_rows(rows: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Mean and 95 % bootstrap interval over cases of every number in rows, one row a case: name → {"mean", "low",
    "high", "cases"}. What is not defined for a case (None) is left out."""
    summary = {}
    for name in dict.fromkeys(key for row in rows for key in row if key != "case"):
        values = [row[name] for row in rows if isinstance(row.get(name), (int, float))]
        if values:
            mean, low, high = bootstrap_interval(values)
            summary[name] = {"mean": mean, "low": low, "high": high, "cases": len(values)}
    return summary


def resampled_weights(
    cases: int, *, groups: Sequence | None = None, resamples: int = 1000, seed: int = 0
) -> Iterator[np.ndarray]:
    """How often each case is in each bootstrap resample, some resamples at a time: float64 (at a time, cases).

    A statistic that takes weights is thus computed for many resamples in one go. groups: one name or number a case,
    such as the patient; whole groups are drawn then, as many as there are, since the cases of one patient tell less
    than those of many (the cluster bootstrap: Field, Welsh, J. R. Stat. Soc. B 69, 2007). The same seed gives the same
    draws.
    Raises InputError where there is nothing to draw from, or not one group a case.
    """
    if cases < 1 or resamples < 1:
        raise InputError(f"A bootstrap of {cases} cases with {resamples} resamples makes no sense; give one or more.")
    if groups is None:
        drawn, member = cases, None
    else:
        if len(groups) != cases:
            raise InputError(f"There are {len(groups)} groups (patients) for {cases} cases; give one for each case.")
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        drawn, member = len(numbers), np.array([numbers[group] for group in groups])
    random = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // cases)
    for done in range(0, resamples, block):
        rows = min(block, resamples - done)
        picks = random.integers(drawn, size=(rows, drawn)) + drawn * np.arange(rows)[:, None]
        weights = np.bincount(picks.ravel(), minlength=rows * drawn).reshape(rows, drawn).astype(np.float64)
        yield weights if member is None else weights[:, member]
