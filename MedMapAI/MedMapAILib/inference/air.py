"""Where in a volume there is nothing but the air around the patient, which needs no network to be told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

#: Normalized intensity (standard deviations) above the lowest that still counts as air: scanner noise is within, lung
#: is not (in CT one standard deviation is some hundred HU).
TOLERANCE = 0.1
#: Edge of the cubes in which air is looked for, voxels. Coarse, because windows are far larger.
BLOCK = 4


@dataclass(frozen=True)
class Air:
    """blocks: True where all of a cube of BLOCK voxels, and the way from there to the border of the volume, is air.
    shape: of the volume, voxels. level: the normalized intensity of air, one for each channel."""

    blocks: np.ndarray
    shape: tuple[int, int, int]
    level: tuple[float, ...]

    def body(self) -> tuple[slice, slice, slice]:
        """The smallest box of whole blocks that holds everything but air, voxels."""
        slices = []
        for axis, size in enumerate(self.shape):
            there = np.flatnonzero(~self.blocks.all(axis=tuple(a for a in range(3) if a != axis)))
            slices.append(slice(int(there[0]) * BLOCK, min(size, (int(there[-1]) + 1) * BLOCK)))
        return tuple(slices)

    def only(self, start: tuple[int, int, int], size: tuple[int, int, int]) -> bool:
        """Whether a window, in voxels of the volume, holds nothing but air."""
        box = tuple(slice(max(0, a) // BLOCK, -(-(a + n) // BLOCK)) for a, n in zip(start, size, strict=True))
        return bool(self.blocks[box].all())


def find_air(volume: torch.Tensor) -> Air | None:
    """The air around the patient, judged by intensities as the model's own normalization gives them.

    volume: (C, I, J, K), normalized. Air is what lies within TOLERANCE of the lowest intensity in every channel, after
    a mean over 3×3×3 voxels that quiets single noisy ones, and is connected to the border of the volume: a dark place
    inside the body, such as a cyst or a bulla, is never taken for air. None when there is none, or nothing else.
    """
    shape = tuple(int(n) for n in volume.shape[1:])
    kernel = [min(3, n) if min(3, n) % 2 else 1 for n in shape]
    levels, blocks = [], None
    for channel in volume:
        mean = torch.nn.functional.avg_pool3d(
            channel[None, None].float(), kernel, stride=1, padding=[k // 2 for k in kernel], count_include_pad=False
        )
        level = float(mean.min())
        pooled = torch.nn.functional.max_pool3d(mean, BLOCK, ceil_mode=True)[0, 0]
        here = (pooled <= level + TOLERANCE).cpu().numpy()
        blocks = here if blocks is None else blocks & here
        levels.append(level)
    parts, count = ndimage.label(blocks)
    if not count:
        return None
    edges = [np.take(parts, end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]
    outside = np.isin(parts, np.setdiff1d(np.concatenate(edges), [0]))
    if not outside.any() or outside.all():
        return None
    return Air(outside, shape, tuple(levels))
