"""How far readers agree in their scores, how methods differ in them, and how sure that is.

====================  ==============================================================================================
weighted kappa        1 − Σ d_ij p_ij / Σ d_ij p_i. p_.j of two readers' scores, p_ij the share of items that got i
                      from one and j from the other, d_ij the size of i − j (linear) or its square (quadratic)
                      (Cohen, Psychological Bulletin 70, 1968); interval from its standard error (Fleiss, Cohen,
                      Everitt, Psychological Bulletin 72, 1969)
ICC(2,1)              (B − E) / (B + (k − 1) E + k (J − E) / n): the share of a single score's variance that comes from
                      the item, of n items and k readers who stand for all readers, with the mean squares B between
                      items, J between readers and E the rest; absolute agreement, so a reader who is always stricter
                      lowers it; and its interval (Shrout, Fleiss, Psychological Bulletin 86, 1979)
Wilcoxon              signed-rank test of paired scores (Wilcoxon, Biometrics Bulletin 1, 1945), by scipy
Holm                  P values of several comparisons, adjusted (Holm, Scandinavian J. Statistics 6, 1979)
mean and interval     bootstrap over cases and readers, both drawn (Owen, Annals of Applied Statistics 1, 2007)
====================  ==============================================================================================

Kappa and ICC both depend on how much the items differ: where all images are alike good, readers who hardly differ still
have a low one. Look at the share of equal scores as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from ..errors import InputError
from .bootstrap import resampled_weights

#: How ``weighted_kappa`` weighs distances.
WEIGHTS = ("none", "linear", "quadratic")


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval (or of the confidence asked for)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SignedRank:
    """A Wilcoxon signed-rank test.

    statistic: the smaller sum of ranks. p: two-sided. pairs: with a difference; zeros: without one, left out.
    median_difference: of all pairs, first minus second. note: a sentence where the test can say nothing, else "".
    """

    statistic: float
    p: float
    pairs: int
    zeros: int
    median_difference: float
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def weighted_kappa(
    first: Sequence[int],
    second: Sequence[int],
    *,
    weights: str = "quadratic",
    scores: Sequence[int] | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Chance-corrected agreement of two readers, 1 at most, and its large-sample interval (cut at −1 and 1).

    The interval is that of many items; of readers who agree on all of a few items it has no width.

    first, second: (N,) whole-number scores of the same items. weights: one of WEIGHTS. scores: all that can be given,
    such as 1 to 5; kappa is the same without, since the distance of two scores does not depend on those never given.
    Raises InputError where the items do not match, a score is not on the scale, or both readers gave one and the same
    score throughout, which leaves nothing to agree on by more than chance.
    """
    a, b = _whole(first, "first"), _whole(second, "second")
    if len(a) != len(b):
        raise InputError(f"One reader scored {len(a)} items and the other {len(b)}; give the items that both scored.")
    if weights not in WEIGHTS:
        raise InputError(f"There are no weights {weights!r}; choose one of {', '.join(WEIGHTS)}.")
    scale = np.unique(np.concatenate([a, b])) if scores is None else np.unique(np.asarray(scores))
    off = sorted({*a.tolist(), *b.tolist()} - set(scale.tolist()))
    if off:
        raise InputError(f"The score {off[0]} is not on the scale ({', '.join(map(str, scale.tolist()))}); correct it.")
    share = np.zeros((len(scale), len(scale)))
    np.add.at(share, (np.searchsorted(scale, a), np.searchsorted(scale, b)), 1 / len(a))
    distance = np.abs(scale[:, None] - scale[None, :]).astype(np.float64)
    distance = (
        distance**2 if weights == "quadratic" else (distance > 0).astype(float) if weights == "none" else distance
    )
    if distance.max() == 0:
        raise InputError(f"Both readers gave the score {scale[0]} throughout: their kappa is not defined.")
    # In weights of agreement, 1 for equal scores, as the standard error is written.
    agree = 1 - distance / distance.max()
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    observed, expected = float((agree * share).sum()), float(rows @ agree @ columns)
    if math.isclose(expected, 1):
        raise InputError("Both readers gave one and the same score throughout: their kappa is not defined.")
    kappa = (observed - expected) / (1 - expected)
    means = (agree @ columns)[:, None] + (rows @ agree)[None, :]
    variance = (share * (agree * (1 - expected) - means * (1 - observed)) ** 2).sum()
    variance -= (observed * expected - 2 * expected + observed) ** 2
    error = math.sqrt(max(0.0, variance) / len(a)) / (1 - expected) ** 2
    half = float(stats.norm.ppf((1 + _check_confidence(confidence)) / 2)) * error
    return Estimate(kappa, max(-1.0, kappa - half), min(1.0, kappa + half))


def intraclass_correlation(scores: Any, *, confidence: float = 0.95) -> Estimate:
    """ICC(2,1), two-way random effects, absolute agreement, single scores: at most 1, and its interval.

    scores: (N, K), N items scored by each of K readers. Raises InputError for fewer than 2 of either, missing scores,
    or the same score throughout.
    """
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        raise InputError(f"Scores of shape {x.shape} have no ICC; give 2 items or more, scored by 2 readers or more.")
    if not np.isfinite(x).all():
        raise InputError("A score is missing; take the items that all readers scored.")
    n, k = x.shape
    mean, items, readers = x.mean(), x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True)
    between = k * ((items - mean) ** 2).sum() / (n - 1)
    judges = n * ((readers - mean) ** 2).sum() / (k - 1)
    rest = ((x - items - readers + mean) ** 2).sum() / ((n - 1) * (k - 1))
    # What rounding leaves of mean squares that are 0.
    tiny = 1e-12 * max(between, judges, rest)
    between, judges, rest = (0.0 if part <= tiny else float(part) for part in (between, judges, rest))
    whole = between + (k - 1) * rest + k * (judges - rest) / n
    if between == judges == rest == 0:
        raise InputError("All readers gave all items the same score: their ICC is not defined.")
    if whole == 0:
        raise InputError("The readers contradict each other in every item: their ICC is not defined.")
    icc = (between - rest) / whole
    if rest == 0 and judges == 0:
        return Estimate(1.0, 1.0, 1.0)
    if rest == 0 and between == 0:
        raise InputError("Each reader gave all items the same score: their ICC is not defined.")
    # Satterthwaite's degrees of freedom, multiplied out by the mean square of the rest, which may be 0.
    part = (n * (1 + (k - 1) * icc) - k * icc) * rest
    freedom = (k - 1) * (n - 1) * (k * icc * judges + part) ** 2 / ((n - 1) * (k * icc * judges) ** 2 + part**2)
    upper = (1 + _check_confidence(confidence)) / 2
    f_low, f_high = stats.f.ppf(upper, n - 1, freedom), stats.f.ppf(upper, freedom, n - 1)
    spread = k * judges + (k * n - k - n) * rest
    with np.errstate(divide="ignore", invalid="ignore"):
        low = n * (between - f_low * rest) / np.float64(f_low * spread + n * between)
        high = n * (f_high * between - rest) / np.float64(spread + n * f_high * between)
    # With few items Satterthwaite's formula can leave the range of what there is.
    low, high = (edge if np.isfinite(edge) else limit for edge, limit in ((low, -1.0), (high, 1.0)))
    return Estimate(float(icc), float(min(low, icc)), float(max(high, icc)))


def signed_rank(first: Sequence[float], second: Sequence[float]) -> SignedRank:
    """Wilcoxon's signed-rank test of paired scores of two methods, two-sided.

    first, second: (N,), one a case, such as means over readers; scores of one case by several readers are not
    independent and must not be counted as cases. Pairs without a difference are left out (Wilcoxon). scipy's
    ``wilcoxon`` chooses the exact distribution for few pairs without ties, and the normal approximation else.
    Raises InputError where the pairs do not match or a score is not finite. With no difference at all p is 1.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise InputError(f"There are {a.size} scores of one method and {b.size} of the other; give one pair a case.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("A score is missing; take the cases that have scores of both methods.")
    # Means over three readers differ by rounding where they are equal.
    difference = np.round(a - b, 9)
    pairs = int((difference != 0).sum())
    median = float(np.median(difference))
    if pairs == 0:
        return SignedRank(0.0, 1.0, 0, len(a), median, "No case differs between the methods; there is nothing to test.")
    note = ""
    if pairs < 6:
        note = f"With {pairs} cases that differ no result can be significant at 5 %, whatever the methods are like."
    result = stats.wilcoxon(difference[difference != 0])
    return SignedRank(float(result.statistic), float(result.pvalue), pairs, len(a) - pairs, median, note)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values of several comparisons, adjusted so that all of them together err with the stated probability."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InputError("P values lie between 0 and 1; correct the list.")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, stepped)
    return adjusted.tolist()


def mean_over_readers(scores: Any, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """The mean score, and its percentile bootstrap interval over cases and readers.

    scores: (N, K), N cases and K readers, NaN where a reader did not score a case. Cases and readers are both drawn,
    with replacement, so that the interval holds for other cases and other readers; it errs on the wide side (by the
    part of the variance that is neither the case's nor the reader's, Owen 2007). With one reader only cases are drawn,
    with one case only readers: it then says nothing about others. Two or three readers tell little about all readers.
    The same seed gives the same interval.
    Raises InputError where there is no score, or an infinite one.
    """
    x = np.asarray(scores, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or np.isnan(x).all() or np.isinf(x).any():
        raise InputError("There are no scores to take the mean of; give (cases, readers), NaN where one is missing.")
    there = np.isfinite(x)
    # A case or reader without any score is none.
    x, there = (part[there.any(axis=1)][:, there.any(axis=0)] for part in (x, there))
    filled, counted = np.where(there, x, 0), there.astype(np.float64)
    cases = resampled_weights(x.shape[0], resamples=resamples, seed=seed)
    # A seed of its own: the readers drawn must not go with the cases drawn.
    readers = np.concatenate(list(resampled_weights(x.shape[1], resamples=resamples, seed=seed + 1)))
    means, done = [], 0
    for block in cases:
        drawn = readers[done : done + len(block)]
        done += len(block)
        weight = ((block @ counted) * drawn).sum(axis=1)
        with np.errstate(invalid="ignore"):
            means.append(((block @ filled) * drawn).sum(axis=1) / weight)
    drawn_means = np.concatenate(means)
    drawn_means = drawn_means[np.isfinite(drawn_means)]
    upper = (1 + _check_confidence(confidence)) / 2
    low, high = np.quantile(drawn_means, [1 - upper, upper])
    return Estimate(float(x[there].mean()), float(low), float(high))


def _whole(values: Sequence[int], name: str) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not numbers.size:
        raise InputError(f"The {name} reader has no scores; give one for each item.")
    if not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
        raise InputError(f"The {name} reader has a score that is no whole number; correct it.")
    return numbers.astype(int)


def _check_confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"An interval of confidence {confidence} makes no sense; give a number between 0 and 1.")
    return confidence
