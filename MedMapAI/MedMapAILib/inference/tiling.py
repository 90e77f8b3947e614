"""Where the windows of a large volume lie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Start = tuple[int, int, int]

#: Share of the overlap asked for that may be missing where that saves a window: a volume that is one voxel longer than
#: two windows reach is not worth half as many windows again along each axis.
SLACK = 0.1


def axis_starts(size: int, window: int, overlap: float) -> list[int]:
    """First voxels of the fewest windows that cover ``size`` voxels and overlap their neighbors by about that share.

    size, window: voxels. overlap: 0 to <1, of the window; it is never less than (1 - SLACK) of that. The windows are
    spread evenly, so that what is left over becomes more overlap everywhere instead of one crowded end. One window
    where it is as large as the axis.
    """
    if size <= window:
        return [0]
    stride = max(1, math.floor(window * (1 - overlap * (1 - SLACK)) + 1e-9))
    steps = math.ceil((size - window) / stride)
    return [round(n * (size - window) / steps) for n in range(steps + 1)]


def window_starts(shape: Sequence[int], window: Sequence[int], overlap: float) -> list[Start]:
    """First voxels of the windows that cover a volume; see ``axis_starts``."""
    return list(itertools.product(*[axis_starts(n, w, overlap) for n, w in zip(shape, window, strict=True)]))


def axes_divisor(divisor: Sequence[int], patch: Sequence[int]) -> tuple[int, int, int]:
    """A network's divisor along each of the three axes of a volume: 1 across the slices of a two-dimensional network.

    divisor: two or three numbers. patch: three, with a 1 where the two-dimensional network has no axis.
    """
    if len(divisor) == 3:
        return tuple(divisor)
    axis = tuple(patch).index(1)
    return (*divisor[:axis], 1, *divisor[axis:])


def fitted_window(shape: Sequence[int], patch: Sequence[int], divisor: Sequence[int]) -> tuple[int, int, int]:
    """The window for a volume: the patch, and along axes where the volume is shorter no more than it needs.

    Every size is a multiple of ``divisor``, so that few different shapes occur and compiled networks are met again.
    """
    return tuple(
        -(-min(n, p) // d) * d if n < p else -(-p // d) * d for n, p, d in zip(shape, patch, divisor, strict=True)
    )


def smaller_window(window: Sequence[int], divisor: Sequence[int]) -> tuple[int, int, int] | None:
    """The window halved along its longest axis that can be, or None when it is as small as the network allows."""
    for axis in sorted(range(len(window)), key=lambda a: -window[a]):
        half = max(1, round(window[axis] / 2 / divisor[axis])) * divisor[axis]
        if half < window[axis]:
            return tuple(half if a == axis else n for a, n in enumerate(window))
    return None
