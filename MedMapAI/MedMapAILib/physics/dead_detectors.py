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
    neighbors do not. They are interpolated linearly along the detector, in each view. The values that were there stay
    as they are. Raises InputError where more than a fifth of the values are missing.
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
        if gap.all():
            raise InputError("A view of the sinogram holds no number at all.")
        if gap.any():
            row[gap] = np.interp(places[gap], places[~gap], row[~gap])
    parts = []
    whole = holes.all(axis=-2)
    if whole.any():
        names = ", ".join(map(str, np.flatnonzero(whole.any(axis=tuple(range(whole.ndim - 1))))[:8]))
        parts.append(f"{int(whole.sum())} dead detector pixels ({names})")
    single = int((missing & ~whole[..., None, :]).sum())
    if single:
        parts.append(f"{single} single values that were no numbers")
    return torch.from_numpy(filled).to(sinogram), f"Interpolated from the neighbors: {' and '.join(parts)}."


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
