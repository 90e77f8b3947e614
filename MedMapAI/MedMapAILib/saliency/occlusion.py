"""Occlusion sensitivity: how much the score falls when a part of the image is hidden."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

#: A box is this part of each axis, for two and for three axes: about 121 boxes in 2D and 343 in 3D.
_PARTS = {2: 6, 3: 4}
#: So many voxels go through the network at once.
_BATCH_VOXELS = 2**21


def occlusion(
    network: nn.Module,
    x: torch.Tensor,
    output: Callable[[torch.Tensor], torch.Tensor],
    *,
    size: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    fill: float | None = None,
) -> np.ndarray:
    """How much the score falls when a box is hidden (Zeiler and Fergus, ECCV 2014, section 4.2).

    Boxes of ``size`` voxels (a sixth of each axis in 2D, a quarter in 3D) are hidden one after the other, ``stride``
    voxels apart (half their size), the last against the border; inside a box every voxel gets ``fill`` (the mean of
    its channel). A voxel's value is the mean of score(image) − score(hidden) over the boxes that hold it, or 0 where
    hiding it raises the score. network, x, output: see the package; the score is asked for one image at a time.
    Returns float32 (*S), not scaled. No gradients are needed.
    """
    shape = x.shape[2:]
    size = size or [n // _PARTS[len(shape)] for n in shape]
    size = [min(n, max(1, wanted)) for n, wanted in zip(shape, size, strict=True)]
    stride = [max(1, wanted) for wanted in stride or [n // 2 for n in size]]
    starts = [sorted({*range(0, n - box + 1, step), n - box}) for n, box, step in zip(shape, size, stride, strict=True)]
    boxes = [
        tuple(slice(a, a + box) for a, box in zip(corner, size, strict=True)) for corner in itertools.product(*starts)
    ]
    falls, counts = np.zeros(shape), np.zeros(shape)
    at_once = max(1, _BATCH_VOXELS // x[0].numel())
    with torch.no_grad():
        filler = x[0].mean(dim=tuple(range(1, len(shape) + 1)), keepdim=True) if fill is None else fill
        whole = float(output(network(x)))
        for first in range(0, len(boxes), at_once):
            some = boxes[first : first + at_once]
            hidden = x.repeat(len(some), *[1] * (x.ndim - 1))
            for number, box in enumerate(some):
                hidden[(number, slice(None), *box)] = filler
            for logits, box in zip(network(hidden).split(1), some, strict=True):
                falls[box] += whole - float(output(logits))
                counts[box] += 1
    return (falls / counts).clip(min=0).astype(np.float32)
