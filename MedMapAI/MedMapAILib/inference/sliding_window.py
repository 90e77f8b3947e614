"""Run a network over a volume of any size, window by window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import SlidingWindowInferer

from ..errors import Cancelled
from ..preprocessing import pad_to_multiple


class SlidingWindow:
    """A network that takes volumes of any size.

    network: (B, C, *S) → logits (B, K, *S), for S a multiple of ``divisor``; of two spatial axes when ``patch`` has a
    1, and then it is run slice by slice across that axis.
    patch: the window, voxels, three numbers. divisor: per axis of the network. overlap: of neighboring windows, 0 to
    <1. mirror_axes: every combination of flips of these axes (0, 1, 2) is run too and the logits are averaged; n axes
    cost 2ⁿ times as much. batch: windows that go through the network together.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        *,
        patch: Sequence[int],
        divisor: Sequence[int],
        overlap: float = 0.5,
        mirror_axes: Sequence[int] = (),
        batch: int = 1,
    ):
        self._network = network
        self._patch = tuple(patch)
        self._slice_axis = self._patch.index(1) if len(divisor) == 2 else None
        self._divisor = tuple(divisor)
        if self._slice_axis is not None:
            self._divisor = (*divisor[: self._slice_axis], 1, *divisor[self._slice_axis :])
        self._overlap = overlap
        self._mirror_axes = tuple(mirror_axes)
        self._batch = batch

    def __call__(
        self,
        volume: torch.Tensor,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> torch.Tensor:
        """Logits (B, K, I, J, K') of a volume (B, C, I, J, K'), on the volume's device.

        progress: called with the fraction done and a message after each window. cancelled: asked before each window.
        Raises Cancelled when it says so.
        """
        padded, inside = pad_to_multiple(volume, self._divisor)
        # A volume smaller than the patch is one window of its own size.
        window = tuple(min(p, n) for p, n in zip(self._patch, padded.shape[2:], strict=True))
        window = tuple(-(-w // d) * d for w, d in zip(window, self._divisor, strict=True))
        flips = [f for r in range(len(self._mirror_axes) + 1) for f in itertools.combinations(self._mirror_axes, r)]
        total = len(flips) * self._count(padded.shape[2:], window) * padded.shape[0]
        done = 0

        def run(windows: torch.Tensor) -> torch.Tensor:
            nonlocal done
            if cancelled is not None and cancelled():
                raise Cancelled
            logits = 0
            for flip in flips:
                axes = [axis + 2 for axis in flip]
                logits = logits + self._apply(windows.flip(axes)).flip(axes)
                done += windows.shape[0]
                if progress is not None:
                    progress(min(1.0, done / total), f"window {min(done, total)} of {total}")
            return logits / len(flips)

        inferer = SlidingWindowInferer(
            roi_size=window, sw_batch_size=self._batch, overlap=self._overlap, mode="gaussian", padding_mode="replicate"
        )
        with torch.inference_mode():
            logits = run(padded) if tuple(padded.shape[2:]) == window else inferer(padded, run)
        return logits[(slice(None), slice(None), *inside)]

    def _apply(self, windows: torch.Tensor) -> torch.Tensor:
        if self._slice_axis is None:
            return self._network(windows).float()
        axis = self._slice_axis + 2
        return self._network(windows.squeeze(axis)).float().unsqueeze(axis)

    def _count(self, shape: Sequence[int], window: Sequence[int]) -> int:
        interval = [w if w == n else max(1, int(w * (1 - self._overlap))) for w, n in zip(window, shape, strict=True)]
        return max(1, math.ceil(len(dense_patch_slices(shape, window, interval))))
