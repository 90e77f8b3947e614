"""Detector pixels that say nothing: found, filled in from their neighbors, and told."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import InputError

#: More than this part of the values missing cannot be made up for.
_MOST = 0.2
#: A pixel is dead whose values change from view to view by less than this part of what its neighbors' do.
_STILL = 1e-3


def repaired(sinogram: Tensor) -> tuple[Tensor, str]:
    """A sinogram (…, A, D) without holes, and one sentence about what was filled in, "" where nothing was.

    Holes are values that are no finite numbers, and detector pixels that say the same in all views while their
    neighbors do not. They are interpolated linearly along the detector, in each view; a view of which nothing is there
    from those before and after it, in the order in which they come. The values that were there stay as they are.
    Raises InputError where more than a fifth of the values are missing.
    """
    values = sinogram.detach().cpu().numpy()
    missing = ~np.isfinite(values)
    still = _still(values)
    holes = missing | still[..., None, :]
    if not holes.any():
        return sinogram, ""
    share = holes.mean()
    if share > _MOST:
        raise InputError(f"{share:.0%} of the sinogram's values are missing; at most {_MOST:.0%} can be filled in.")
    filled = values.copy()
    flat, gaps = filled.reshape(-1, values.shape[-1]), holes.reshape(-1, values.shape[-1])
    places = np.arange(values.shape[-1])
    for row, gap in zip(flat, gaps, strict=True):
        if gap.any() and not gap.all():
            row[gap] = np.interp(places[gap], places[~gap], row[~gap])
    parts = []
    lost = holes.all(axis=-1)
    if lost.any():
        parts.append(_fill_views(filled, lost))
        missing = missing & ~lost[..., None]
    whole = holes.all(axis=-2)
    if whole.any():
        names = ", ".join(map(str, np.flatnonzero(whole.any(axis=tuple(range(whole.ndim - 1))))[:8]))
        count = int(whole.any(axis=tuple(range(whole.ndim - 1))).sum())
        parts.append(f"{count} dead detector pixel{'s' * (count > 1)} ({names})")
    single = int((missing & ~whole[..., None, :]).sum())
    if single:
        parts.append(f"{single} single value{'s' * (single > 1)} that {'were' if single > 1 else 'was'} no number")
    return torch.from_numpy(filled).to(sinogram), f"Interpolated from the neighbors: {' and '.join(parts)}."


def _fill_views(values: np.ndarray, lost: np.ndarray) -> str:
    """Fill views (…, A) of which nothing is there from those before and after, in place; says which."""
    places = np.arange(values.shape[-2])
    for index in np.ndindex(lost.shape[:-1]):
        gone = lost[index]
        if gone.all():
            raise InputError("The sinogram of a slice holds no number at all.")
        for view in places[gone]:
            there = places[~gone]
            before, after = there[there < view], there[there > view]
            first = before[-1] if before.size else after[0]
            last = after[0] if after.size else before[-1]
            share = (view - first) / (last - first) if last != first else 0.0
            values[index][view] = (1 - share) * values[index][first] + share * values[index][last]
    numbers = np.flatnonzero(lost.any(axis=tuple(range(lost.ndim - 1))))
    named = ", ".join(map(str, numbers[:8]))
    return f"{len(numbers)} lost view{'s' * (len(numbers) > 1)} ({named})"


def _still(values: np.ndarray) -> np.ndarray:
    """Which detector pixels (…, D) say the same in all views, though their neighbors do not."""
    if values.shape[-2] < 3:
        return np.zeros(values.shape[:-2] + values.shape[-1:], dtype=bool)
    # A hole is neither still nor moving; views with one are left out.
    with np.errstate(invalid="ignore"):
        change = np.nan_to_num(np.abs(np.diff(np.where(np.isfinite(values), values, np.nan), axis=-2)), nan=0).max(-2)
    window = (*(1,) * (change.ndim - 1), 7)
    around = ndimage.median_filter(change, size=window, mode="nearest")
    return change < _STILL * around
