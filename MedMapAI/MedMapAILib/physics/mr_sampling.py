"""Which samples of a Cartesian k-space are taken: whole lines, or points of the two phase-encoding axes.

A mask is a bool tensor (H, W), the center of k-space at (H // 2, W // 2), the same for the same seed. Lines run along
the rows (frequency encoding down the picture), so a mask of lines is the same in every row. All samples of a stated
center are taken: coil sensitivities are estimated from them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

#: How many trials a Poisson disc gets around each point: Bridson's number.
_TRIALS = 30
#: The acceleration of a Poisson disc is met to within this part.
_CLOSE = 0.02
#: So many radii are tried at most.
_SEARCHES = 12


def random_lines(size: tuple[int, int], acceleration: float, *, center: float = 0.08, seed: int = 0) -> Tensor:
    """Lines drawn at random outside the center, so many that 1 / acceleration of all are taken.

    center: the part of the lines in the middle that are all taken (0.08 and 0.04 for accelerations 4 and 8 in fastMRI,
    Zbontar and others 2018). Raises InputError where the center alone is more than there may be.
    """
    height, width = _size(size)
    count, middle = _counts(width, acceleration, center)
    taken = np.zeros(width, dtype=bool)
    taken[middle] = True
    rest = np.flatnonzero(~taken)
    taken[np.random.default_rng(seed).choice(rest, count - int(taken.sum()), replace=False)] = True
    return _lines(taken, height)


def equispaced_lines(
    size: tuple[int, int], acceleration: float, *, center: float = 0.08, offset: int | None = None, seed: int = 0
) -> Tensor:
    """Evenly spaced lines and the center; the spacing makes up for the center, so that 1 / acceleration are taken.

    offset: of the first line; by default drawn with the seed.
    """
    height, width = _size(size)
    count, middle = _counts(width, acceleration, center)
    inner = middle.stop - middle.start
    taken = np.zeros(width, dtype=bool)
    if count > inner:
        # Of the evenly spaced lines some fall into the center, where they count for nothing.
        step = (width - inner) / (count - inner)
        first = np.random.default_rng(seed).uniform(0, step) if offset is None else offset % step
        places = np.floor(np.arange(first, width, step)).astype(int)
        taken[places[places < width]] = True
    taken[middle] = True
    return _lines(taken, height)


def variable_density_lines(
    size: tuple[int, int], acceleration: float, *, center: float = 0.04, power: float = 2.0, seed: int = 0
) -> Tensor:
    """Lines drawn at random, rarer the farther from the center: weight (1 - distance)^power.

    Lustig, Donoho and Pauly, "Sparse MRI", Magnetic Resonance in Medicine 58 (2007).
    """
    height, width = _size(size)
    count, middle = _counts(width, acceleration, center)
    distance = np.abs(np.arange(width) - width // 2) / (width / 2)
    return _lines(_drawn(distance, count, middle, power, np.random.default_rng(seed)), height)


def variable_density_points(
    size: tuple[int, int], acceleration: float, *, center: float = 0.08, power: float = 3.0, seed: int = 0
) -> Tensor:
    """Single points of the k-space drawn at random, rarer the farther from the center: (1 - distance)^power.

    For 3D acquisitions, where both axes are phase-encoded. center: side of the block in the middle that is all taken,
    as a part of each axis. Lustig, Donoho and Pauly (2007).
    """
    height, width = _size(size)
    count, block = _block_counts(height, width, acceleration, center)
    distance = _distance(height, width).ravel()
    middle = np.zeros((height, width), dtype=bool)
    middle[block] = True
    taken = _drawn(distance, count, middle.ravel(), power, np.random.default_rng(seed))
    return torch.from_numpy(taken.reshape(height, width))


def poisson_disc(
    size: tuple[int, int], acceleration: float, *, center: float = 0.08, slope: float = 2.0, seed: int = 0
) -> Tensor:
    """Single points that keep their distance from each other, growing with that from the center.

    Bridson, "Fast Poisson disk sampling in arbitrary dimensions", SIGGRAPH sketches (2007); the least distance at a
    point is r (1 + slope · its distance from the center), and r is searched so that 1 / acceleration of all are taken,
    to within 2 %. center: as for ``variable_density_points``.
    """
    height, width = _size(size)
    count, block = _block_counts(height, width, acceleration, center)
    distance = _distance(height, width)
    radius = 0.9 * math.sqrt(acceleration) / (1 + 0.7 * slope)
    best = np.ones((height, width), dtype=bool)
    for _ in range(_SEARCHES):
        taken = _bridson(radius * (1 + slope * distance), np.random.default_rng(seed))
        taken[block] = True
        if abs(int(taken.sum()) - count) < abs(int(best.sum()) - count):
            best = taken
        if abs(int(best.sum()) - count) <= _CLOSE * count:
            break
        # Twice the distance, a quarter of the points.
        radius *= math.sqrt(taken.sum() / count)
    return torch.from_numpy(best)


def acceleration_of(mask: Tensor) -> float:
    """How many samples there are for each that was taken. Raises InputError for a mask without any."""
    taken = int((mask != 0).sum())
    if not taken:
        raise InputError("The mask takes no sample of k-space.")
    return mask.numel() / taken


def mask_of_k_space(k_space: Tensor) -> Tensor:
    """Which samples (H, W) of a k-space (…, C, H, W) were taken: those that are not zero in some coil."""
    return (k_space != 0).reshape(-1, *k_space.shape[-2:]).any(dim=0)


#: Name → function(size, acceleration, *, center, seed).
MASKS = {
    "random": random_lines,
    "equispaced": equispaced_lines,
    "variable-density": variable_density_lines,
    "variable-density-points": variable_density_points,
    "poisson-disc": poisson_disc,
}


def sampling_mask(
    name: str, size: tuple[int, int], acceleration: float, *, center: float | None = None, seed: int = 0
) -> Tensor:
    """The mask (H, W) of this name; see the functions. Raises InputError."""
    if name not in MASKS:
        raise InputError(f"There is no sampling {name!r}; there are {', '.join(MASKS)}.")
    options = {} if center is None else {"center": center}
    return MASKS[name](size, acceleration, seed=seed, **options)


def _bridson(radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A Poisson disc with the least distance (H, W) stated at each place: bool (H, W).

    Points lie anywhere and are rounded to places at the end: distances between whole places alone would make rings.
    """
    height, width = radius.shape
    taken = np.zeros((height, width), dtype=bool)
    blocked = np.zeros((height, width), dtype=bool)
    across, along = np.arange(height, dtype=float)[:, None], np.arange(width, dtype=float)

    def take(y: float, x: float) -> tuple[float, float, float]:
        row, column = round(y), round(x)
        reach = radius[row, column]
        size = int(reach) + 2
        rows, columns = slice(max(0, row - size), row + size + 1), slice(max(0, column - size), column + size + 1)
        near = np.square(across[rows] - y) + np.square(along[columns] - x) < reach * reach
        np.logical_or(blocked[rows, columns], near, out=blocked[rows, columns])
        taken[row, column] = blocked[row, column] = True
        return y, x, reach

    active = [take(height // 2, width // 2)]
    while active:
        index = int(rng.integers(len(active)))
        y, x, reach = active[index]
        length = reach * rng.uniform(1, 2, _TRIALS)
        angle = rng.uniform(0, 2 * math.pi, _TRIALS)
        ys, xs = y + length * np.sin(angle), x + length * np.cos(angle)
        rows, columns = np.rint(ys).astype(int), np.rint(xs).astype(int)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        free = inside & ~blocked[rows * inside, columns * inside]
        first = int(free.argmax())
        if free[first]:
            active.append(take(ys[first], xs[first]))
        else:
            active[index] = active[-1]
            active.pop()
    return taken


def _drawn(
    distance: np.ndarray, count: int, middle: slice | np.ndarray, power: float, rng: np.random.Generator
) -> np.ndarray:
    """``count`` places, those of the middle and others by weight; distance: 0 in the middle, 1 at the edge."""
    taken = np.zeros(distance.shape, dtype=bool)
    taken[middle] = True
    rest = np.flatnonzero(~taken)
    # Never quite zero, so that a small acceleration finds enough places.
    weight = np.maximum(1 - np.minimum(distance[rest], 1), 1e-3) ** power
    # The largest keys of Efraimidis and Spirakis (2006) are a weighted draw without replacement.
    keys = np.log(rng.uniform(size=rest.size)) / weight
    more = count - int(taken.sum())
    taken[rest[np.argsort(-keys, kind="stable")[:more]]] = True
    return taken


def _distance(height: int, width: int) -> np.ndarray:
    """From the center of k-space, 1 at the middle of each side: (H, W)."""
    y = (np.arange(height) - height // 2) / (height / 2)
    x = (np.arange(width) - width // 2) / (width / 2)
    return np.hypot(y[:, None], x[None])


def _lines(taken: np.ndarray, height: int) -> Tensor:
    return torch.from_numpy(np.repeat(taken[None], height, axis=0))


def _size(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 2:
        raise InputError(f"A k-space has rows and columns, at least two of each, not the size {tuple(size)}.")
    return int(size[0]), int(size[1])


def _middle(length: int, part: float) -> slice:
    count = round(length * part)
    first = length // 2 - count // 2
    return slice(first, first + count)


def _check(acceleration: float, center: float) -> None:
    if not acceleration >= 1 or not math.isfinite(acceleration):
        raise InputError(f"The acceleration is {acceleration}; it is at least 1.")
    if not 0 <= center < 1:
        raise InputError(f"The center of k-space is a part of it between 0 and 1, not {center}.")


def _counts(width: int, acceleration: float, center: float) -> tuple[int, slice]:
    _check(acceleration, center)
    count, middle = round(width / acceleration), _middle(width, center)
    if middle.stop - middle.start > count:
        raise InputError(
            f"The center's {middle.stop - middle.start} lines are more than the {count} that an acceleration of "
            f"{acceleration:g} leaves of {width}; take a smaller center or a smaller acceleration."
        )
    return count, middle


def _block_counts(height: int, width: int, acceleration: float, center: float) -> tuple[int, tuple[slice, slice]]:
    _check(acceleration, center)
    count, block = round(height * width / acceleration), (_middle(height, center), _middle(width, center))
    inner = math.prod(part.stop - part.start for part in block)
    if inner > count:
        raise InputError(
            f"The center's {inner} points are more than the {count} that an acceleration of {acceleration:g} leaves of "
            f"{height} × {width}; take a smaller center or a smaller acceleration."
        )
    return count, block
