"""How much of a turn each view stands for, and how rays that were measured twice share their weight."""

from __future__ import annotations

import math

import numpy as np

from .ct_geometry import FanBeam, Geometry

#: A gap this much larger than the median one was not meant to be covered: the scan is of a limited angle.
_GAP = 3.0
#: Weights pass from rays that were measured twice to those that were measured once within so many pixels, or more.
_PASSAGE = 8


def view_steps(angles: np.ndarray, turn: float) -> np.ndarray:
    """The part of a turn that each view stands for, (A,), radians: half the way to its neighbors on both sides.

    angles: (A,) radians, any order, taken modulo ``turn`` (π for a parallel beam, 2 π for a fan). Views at the same
    angle share. A gap of more than three median steps is left uncovered, so that a limited scan is not stretched over
    what it has not seen. Evenly spaced angles of a whole turn each get turn / A.
    """
    folded = np.mod(np.asarray(angles, dtype=float), turn)
    # Angles that differ by rounding from a whole turn are at its begin.
    folded[np.isclose(folded, turn, rtol=0, atol=1e-9)] = 0
    places, which, counts = np.unique(np.round(folded, 9), return_inverse=True, return_counts=True)
    if len(places) == 1:
        return np.full(len(folded), turn / len(folded))
    gaps = np.diff(places, append=places[0] + turn)
    step = np.median(gaps)
    gaps = np.where(gaps > _GAP * step, step, gaps)
    return ((gaps + np.roll(gaps, 1)) / 2 / counts)[which.ravel()]


def redundancy(geometry: Geometry) -> np.ndarray:
    """The weight of each ray among those along the same line, (A, D); a whole scan's sum to 1 on each line.

    A parallel beam's angles are taken modulo half a turn, which settles it: 1 everywhere. A fan that goes all round
    measures each line twice: 1/2. Where the detector is off the middle, a whole turn measures the lines far out on
    its longer side once only: they weigh twice as much, with a smooth passage. A fan that goes over half a turn and its
    own opening, or more, gets the smooth weights
    of Parker, "Optimal short scan convolution reconstruction for fanbeam CT", Medical Physics 9 (1982), the opening
    being whatever the arc exceeds half a turn by (Silver, Medical Physics 27, 2000). Over less than that, a ray
    weighs 1/2 where the scan has the opposite one too, and 1 where not.
    """
    shape = geometry.sinogram_size
    turn = 2 * math.pi
    if not isinstance(geometry, FanBeam):
        return np.ones(shape) * _shared(geometry)
    folded, order, gaps, step = _round_the_turn(geometry.angles)
    widest = int(np.argmax(gaps))
    if gaps[widest] <= _GAP * step:
        return np.full(shape, 0.5) * _shared(geometry)
    # From half a step before the first view to half a step after the last, the widest gap lying behind that.
    first = folded[order[(widest + 1) % len(order)]] - step / 2
    along = np.mod(folded - first, turn)[:, None]
    arc = turn - gaps[widest] + step
    # The angle to the central ray, rising along the detector: the ray's direction is angle + gamma.
    gamma = np.arctan(geometry.detectors_mm / geometry.source_to_detector_mm)[None]
    half = (arc - math.pi) / 2
    if half >= np.abs(gamma).max() - 1e-9:
        return _parker(along, gamma, half)
    # The line of (angle, gamma) is seen again at angle + π + 2 gamma, from its other end.
    return np.where(np.mod(along + math.pi + 2 * gamma, turn) <= arc, 0.5, 1.0)


def one_sided(geometry: Geometry) -> int:
    """How many detectors more a whole turn's detector has on one side of the middle than on the other: above 0 on the
    side that comes last, below 0 on the one that comes first. 0 for less than a turn."""
    if not _all_round(geometry.angles):
        return 0
    place = geometry.detectors_mm
    return round(float(place.max() + place.min()) / geometry.detector_spacing_mm)


def _all_round(angles: np.ndarray) -> bool:
    """Whether views go round a whole turn, with no gap that was not meant."""
    folded, _, gaps, step = _round_the_turn(angles)
    return len(folded) > 2 and float(gaps.max()) <= _GAP * step


def _round_the_turn(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Angles within one turn, radians; their order; the gaps after each in that order; and the usual one."""
    turn = 2 * math.pi
    folded = np.mod(angles, turn)
    order = np.argsort(folded, kind="stable")
    gaps = np.diff(folded[order], append=folded[order[0]] + turn)
    return folded, order, gaps, float(np.median(gaps[gaps > 1e-9])) if (gaps > 1e-9).any() else turn


def _shared(geometry: Geometry) -> np.ndarray:
    """Of a whole turn: the weight of each detector pixel (D,) where its mirrored one may not exist; two that mirror
    each other have a sum of 2. Wang, "X-ray micro-CT with a displaced detector array", Medical Physics 29 (2002)."""
    place, spacing = geometry.detectors_mm, geometry.detector_spacing_mm
    side = 1.0 if place.max() >= -place.min() else -1.0
    along = side * place
    seen_twice = -along.min()
    if not one_sided(geometry) or seen_twice <= 0:
        return np.ones(len(place))
    # From 0 to 1 at the short end, and from 1 to 2 where that mirrors to.
    passage = min(seen_twice, max(_PASSAGE * spacing, seen_twice / 4)) + spacing / 2
    rise = np.clip((along + seen_twice + spacing / 2) / passage, 0, 1)
    fall = np.clip((seen_twice + spacing / 2 - along) / passage, 0, 1)
    return np.sin(math.pi / 2 * rise) ** 2 + 1 - np.sin(math.pi / 2 * fall) ** 2


def _parker(along: np.ndarray, gamma: np.ndarray, half: float) -> np.ndarray:
    """Parker's weights (A, D) for an arc of π + 2 half; along: from the begin of the arc. Radians."""
    # Seen again at along + π + 2 gamma where that is before the end: at the begin of the arc; and the other way round.
    rise, fall = np.maximum(half - gamma, 1e-12), np.maximum(half + gamma, 1e-12)
    weights = np.ones(np.broadcast_shapes(along.shape, gamma.shape))
    start = along < 2 * rise
    weights = np.where(start, np.sin(math.pi / 4 * along / rise) ** 2, weights)
    left = math.pi + 2 * half - along
    return np.where(left < 2 * fall, np.sin(math.pi / 4 * np.maximum(left, 0) / fall) ** 2, weights)
