"""Where a nodule may lie in a host: in parenchyma, on a vessel, on the pleura."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .host import HostScan

PLACES = ("parenchyma", "vessel", "pleura")
#: Between two transplants, and to what must be avoided, mm.
APART = 5.0


def find_place(
    host: HostScan,
    place: str,
    half_size: np.ndarray,
    rng: np.random.Generator,
    taken: Sequence[tuple[np.ndarray, float]] = (),
    *,
    reach: float | None = None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """A voxel index (float) of the host for the center of a nodule, and the unit vector from there to the nearest
    pleura (along the host's axes); or None where nothing fits.

    half_size: of the nodule, mm along the axes. taken: centers (voxel index) and radii (mm) of earlier transplants.
    reach: how far it goes to the side with which it sat on a wall, mm.
    """
    radius = float(np.mean(half_size[:2]))
    steps = np.array(host.map_spacing)
    depth, to_vessel = host.depth, host.to_vessel
    if place == "pleura":
        low, high = (0.55 * radius, 0.9 * radius) if reach is None else (0.6 * reach, 0.88 * reach)
        allowed = (depth > low) & (depth < max(high, low + steps[0])) & ~host.mediastinal
    elif place == "vessel":
        allowed = (depth > radius + 2) & (to_vessel > 0.5 * radius) & (to_vessel < max(1.0 * radius, steps.max()))
    else:
        allowed = (depth > radius + 3) & (to_vessel > min(radius, 7.0) + 1)
    # Whole within the scan: a nodule that is cut off at the end has no size.
    slices = int(np.ceil(half_size[2] / steps[2]))
    allowed[:, :, :slices] = False
    allowed[:, :, max(0, allowed.shape[2] - slices) :] = False
    if host.to_forbidden is not None:
        allowed &= host.to_forbidden > float(half_size.max()) + APART
    candidates = np.flatnonzero(allowed)
    largest = float(half_size.max())
    for _ in range(40):
        if not candidates.size:
            return None
        index = np.array(np.unravel_index(int(rng.choice(candidates)), allowed.shape))
        center = _fine(index + np.array([*rng.uniform(-0.5, 0.5, 2), 0]), host.factor)
        center[2] += rng.uniform(-0.5, 0.5)
        far = all(np.linalg.norm((center - other) * host.spacing) > largest + reach + APART for other, reach in taken)
        if far:
            return center, _outward(depth, index, steps)
    return None


def _fine(index: np.ndarray, factor: int) -> np.ndarray:
    """Index in the maps → voxel index of the host."""
    scale = np.array([factor, factor, 1.0])
    return (np.asarray(index, float) + 0.5) * scale - 0.5


def _outward(depth: np.ndarray, index: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Against the slope of the depth, a unit vector."""
    reach = 3
    window = tuple(slice(max(0, n - reach), n + reach + 1) for n in index)
    part = depth[window]
    slope = [
        float(np.mean(np.diff(part, axis=axis))) / step if part.shape[axis] > 1 else 0.0
        for axis, step in enumerate(steps)
    ]
    length = float(np.linalg.norm(slope))
    return -np.array(slope) / length if length > 0 else np.array([0.0, 0.0, 1.0])
