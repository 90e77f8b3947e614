"""Run a network over a volume of any size, window by window, and give the answer plane by plane."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from monai.data.utils import compute_importance_map

from ..decoding import Answer, Slab
from ..errors import Cancelled
from ..preprocessing import pad_to_multiple
from .air import Air
from .tiling import Start, axes_divisor, fitted_window, window_starts

#: Size of a slab of the answer, as far as whole planes allow.
_SLAB_BYTES = 64 * 2**20

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Layout:
    """Where the windows of one volume lie.

    box: the part of the volume that is computed. window: voxels. starts: of the windows that go through the network, in
    the padded box. axis: across which the answer is given, plane by plane. air: windows left out because they hold air
    alone. level: the intensity of air, one for each channel, or None where nothing is left out.
    """

    box: tuple[slice, slice, slice]
    window: tuple[int, int, int]
    starts: tuple[Start, ...]
    axis: int
    air: int
    level: tuple[float, ...] | None

    @property
    def count(self) -> int:
        """Windows that go through the network, that of air included."""
        return len(self.starts) + (self.level is not None)


class SlidingWindow:
    """A network that takes volumes of any size.

    network: (B, C, *S) → logits (B, K, *S), for S a multiple of ``divisor``; of two spatial axes when ``patch`` has a
    1, and then it is run slice by slice across that axis.
    patch: the window, voxels, three numbers. divisor: per axis of the network. overlap: of neighboring windows, 0 to
    <1. mirror_axes: every combination of flips of these axes (0, 1, 2) is run too and the logits are averaged; n axes
    cost 2ⁿ times as much. batch: windows that go through the network together. weighting: "gaussian" trusts the middle
    of a window more than its border (standard deviation an eighth of the window, as nnU-Net and MONAI do), "constant"
    does not. own_threads: the network computes with threads of its own, and not with torch's, which would only be in
    their way between two windows.
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
        weighting: str = "gaussian",
        own_threads: bool = False,
    ):
        self._network = network
        self._patch = tuple(patch)
        self._slice_axis = self._patch.index(1) if len(divisor) == 2 else None
        self._divisor = axes_divisor(divisor, patch)
        self._overlap = overlap
        self._flips = [f for r in range(len(mirror_axes) + 1) for f in itertools.combinations(tuple(mirror_axes), r)]
        self._batch = batch
        self._weighting = weighting
        self._own_threads = own_threads

    @property
    def passes(self) -> int:
        """How often each window goes through the network."""
        return len(self._flips)

    def lay(self, shape: Sequence[int], air: Air | None = None) -> Layout:
        """Lay the windows of a volume of that shape, around the body alone where ``air`` is given."""
        shape = tuple(shape)
        box = tuple(slice(0, n) for n in shape) if air is None else self._grown(air.body(), shape)
        size = [s.stop - s.start for s in box]
        window = fitted_window(size, self._patch, self._divisor)
        padded = [max(n, w) for n, w in zip(size, window, strict=True)]
        starts = window_starts(padded, window, self._overlap)
        left_out = 0
        if air is not None:
            # A window that reaches into the padding sees the border of the box repeated there.
            before = [(p - n) // 2 for p, n in zip(padded, size, strict=True)]
            there = [
                start
                for start in starts
                if not air.only(tuple(s.start + a - b for s, a, b in zip(box, start, before, strict=True)), window)
            ]
            left_out = len(starts) - len(there)
            starts = there
        counts = [len({start[axis] for start in starts}) for axis in range(3)]
        axis = max(range(3), key=lambda a: (counts[a], size[a]))
        starts = tuple(sorted(starts, key=lambda start: (start[axis], start)))
        whole = air is None or (not left_out and size == list(shape))
        return Layout(box, window, starts, axis, left_out, None if whole else air.level)

    def __call__(
        self,
        volume: torch.Tensor,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> torch.Tensor:
        """Logits (1, K, I, J, K') of a volume (1, C, I, J, K'), on the network's device. See ``answer``."""
        return self.answer(volume, self.lay(volume.shape[2:]), progress, cancelled).whole()

    def answer(
        self,
        volume: torch.Tensor,
        layout: Layout,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Answer:
        """The logits of a volume (1, C, I, J, K'), plane by plane as they are done.

        layout: from ``lay`` for this shape. progress: called with the fraction done and a message after each window.
        cancelled: asked before each window; the slabs raise Cancelled when it says so. No more logits are held than
        the windows at hand need.
        """
        counter = _Counter(layout.count * len(self._flips), progress, cancelled)
        outside = None
        if layout.level is not None:
            level = torch.tensor(layout.level, dtype=volume.dtype, device=volume.device)
            air = level.reshape(1, -1, 1, 1, 1).expand(1, -1, *layout.window)
            middle = [n // 2 for n in layout.window]
            outside = self._mirrored(air.contiguous(), counter)[0][(slice(None), *middle)].clone()
        part = volume[(slice(None), slice(None), *layout.box)]
        padded, inside = pad_to_multiple(part, (1, 1, 1), at_least=layout.window)
        return Answer(layout.box, outside, self._slabs(padded, inside, layout, outside, counter))

    def _slabs(
        self,
        volume: torch.Tensor,
        inside: tuple[slice, slice, slice],
        layout: Layout,
        outside: torch.Tensor | None,
        counter: _Counter,
    ) -> Iterator[Slab]:
        axis, window = layout.axis, layout.window
        shape = list(volume.shape[2:])
        size = [window[a] if a == axis else shape[a] for a in range(3)]
        importance = _importance(window, self._weighting)
        logits: torch.Tensor | None = None
        weights: torch.Tensor | None = None
        origin = 0

        def finished(first: int, planes: int) -> Iterator[Slab]:
            """Planes of the buffer that no further window reaches, without the padding."""
            first_inside, last = max(first, inside[axis].start), min(first + planes, inside[axis].stop)
            if last <= first_inside:
                return
            keep = [*inside]
            step = planes_at_once(logits.shape[0], [size[a] for a in range(3) if a != axis])
            for plane in range(first_inside, last, step):
                keep[axis] = slice(plane - first, min(plane + step, last) - first)
                done, weight = logits[(slice(None), *keep)], weights[tuple(keep)]
                done = done / weight
                if outside is not None:
                    done = torch.where(weight > 0, done, outside.to(done.device).reshape(-1, 1, 1, 1))
                yield Slab(axis, plane - inside[axis].start, done)

        for batch in self._batches(layout):
            with self._threads():
                patches = torch.cat([volume[(slice(None), slice(None), *_box(start, window))] for start in batch])
                answers = self._mirrored(patches, counter)
            if logits is None:
                importance = importance.to(answers.device)
                logits = torch.zeros(answers.shape[1], *size, device=answers.device)
                weights = torch.zeros(*size, device=answers.device)
            new = batch[0][axis]
            while origin < new:
                planes = min(window[axis], new - origin)
                yield from finished(origin, planes)
                _shift(logits, 1 + axis, planes)
                _shift(weights, axis, planes)
                origin += planes
            with self._threads():
                for start, answer in zip(batch, answers, strict=True):
                    place = _box([0 if a == axis else start[a] for a in range(3)], window)
                    logits[(slice(None), *place)].addcmul_(answer, importance)
                    weights[place] += importance
        while origin < shape[axis]:
            planes = min(window[axis], shape[axis] - origin)
            yield from finished(origin, planes)
            _shift(logits, 1 + axis, planes)
            _shift(weights, axis, planes)
            origin += planes

    def _batches(self, layout: Layout) -> Iterator[list[Start]]:
        """Windows to go through the network together: neighbors that begin in the same plane."""
        for _, group in itertools.groupby(layout.starts, key=lambda start: start[layout.axis]):
            members = list(group)
            for n in range(0, len(members), self._batch):
                yield members[n : n + self._batch]

    def _mirrored(self, windows: torch.Tensor, counter: _Counter) -> torch.Tensor:
        counter.check()
        total: torch.Tensor | None = None
        last = [axis + 2 for axis in self._flips[-1]]
        for flip in self._flips:
            axes = [axis + 2 for axis in flip]
            logits = self._apply(windows.flip(axes) if axes else windows)
            logits = logits.flip(axes) if axes else logits
            # A back end may write its next answer over this one.
            total = (logits.clone() if axes != last else logits) if total is None else total + logits
            counter.add(windows.shape[0])
        return total / len(self._flips) if len(self._flips) > 1 else total

    @contextlib.contextmanager
    def _threads(self) -> Iterator[None]:
        """One thread of torch beside a network that has its own: after each use the others wait for more by spinning,
        and take from the network's threads what they need."""
        if not self._own_threads:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _apply(self, windows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            if self._slice_axis is None:
                return self._network(windows).float()
            axis = self._slice_axis + 2
            return self._network(windows.squeeze(axis)).float().unsqueeze(axis)

    def _grown(self, box: tuple[slice, slice, slice], shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
        """The box made no less than the patch, with real surroundings where there are some."""
        grown = []
        for part, n, p in zip(box, shape, self._patch, strict=True):
            size = min(n, max(part.stop - part.start, p))
            start = min(max(0, part.start - (size - (part.stop - part.start)) // 2), n - size)
            grown.append(slice(start, start + size))
        return tuple(grown)


class _Counter:
    """Counts windows for the progress, and asks whether to go on."""

    def __init__(self, total: int, progress: Progress | None, cancelled: Callable[[], bool] | None):
        self._done, self._total, self._progress, self._cancelled = 0, total, progress, cancelled

    def check(self) -> None:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled

    def add(self, windows: int) -> None:
        self._done += windows
        if self._progress is not None:
            self._progress(min(1.0, self._done / self._total), f"window {self._done} of {self._total}")


def planes_at_once(channels: int, cross_section: Sequence[int]) -> int:
    """How many planes of an answer are given in one slab, so that work on it needs little memory beside the windows."""
    return max(1, _SLAB_BYTES // (4 * channels * cross_section[0] * cross_section[1]))


def _importance(window: Sequence[int], weighting: str) -> torch.Tensor:
    """Weight of each voxel of a window, (*window), positive."""
    return compute_importance_map(tuple(window), mode=weighting, sigma_scale=0.125, device="cpu").float()


def _box(start: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


def _shift(buffer: torch.Tensor, axis: int, planes: int) -> None:
    """Move a buffer's planes to the front by so many, and clear those that are new."""
    size = buffer.shape[axis]
    # Piece by piece, so that no copy of it is made: each piece ends where the next one to be read begins.
    for first in range(planes, size, planes):
        piece = min(planes, size - first)
        buffer.narrow(axis, first - planes, piece).copy_(buffer.narrow(axis, first, piece))
    buffer.narrow(axis, size - planes, planes).zero_()
