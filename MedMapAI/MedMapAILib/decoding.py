"""From class scores on the model grid to labels on the user's grid, plane by plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from .preprocessing import Grid, canonical_grid, canonical_orientation, inverse_orientation, reorient

#: Voxels of the user's grid that are worked on together.
_CHUNK = 2_000_000
#: Of those, voxels whose scores are interpolated together.
_GATHERED = 200_000


@dataclass(frozen=True)
class Slab:
    """Consecutive planes of a network's answer.

    axis: 0, 1 or 2, across which the planes follow each other. start: the first, counted in the box of the answer.
    logits: (K, *S) float32, S the box but for ``axis``, where it is the number of planes.
    """

    axis: int
    start: int
    logits: torch.Tensor


@dataclass(frozen=True)
class Answer:
    """A network's answer for a volume on the model grid, as it comes.

    box: the part of the volume that was computed, three slices. outside: (K,) logits everywhere else, or None where the
    box is the whole volume. slabs: planes of the box, in order and without gaps.
    """

    box: tuple[slice, slice, slice]
    outside: torch.Tensor | None
    slabs: Iterator[Slab]

    @classmethod
    def of(cls, logits: torch.Tensor) -> Answer:
        """The answer that is there already: logits (1, K, I, J, K') of a whole volume."""
        box = tuple(slice(0, n) for n in logits.shape[2:])
        return cls(box, None, iter([Slab(0, 0, logits[0])]))

    def whole(self) -> torch.Tensor:
        """Logits (1, K, *S) of the whole box, once all of it is done."""
        slabs = list(self.slabs)
        return torch.cat([slab.logits for slab in slabs], dim=1 + slabs[0].axis)[None]


def decode_labels(answer: Answer, model: Grid, source: Grid, values: np.ndarray) -> np.ndarray:
    """The label with the highest score at every voxel of the user's grid.

    model: the grid of the whole volume that the answer is about. source: the user's grid, any orientation.
    values: (K,) label value of each class. Returns (I, J, K) on ``source`` in the smallest unsigned type.

    Scores (softmax of the logits) are interpolated linearly between model voxels; beyond the volume its border counts.
    The work is done only where it can matter: interpolation weights are not negative and sum to one, so between eight
    corners whose best class is the same, that class is the best. Scores of all classes therefore exist for the planes
    of one slab, and on the fine grid for voxels at the borders of classes alone.
    """
    decoder = _Decoder(answer, model, source, values)
    for slab in answer.slabs:
        decoder.add(slab)
    return reorient(decoder.labels[None], inverse_orientation(canonical_orientation(source.affine)))[0]


class _Decoder:
    def __init__(self, answer: Answer, model: Grid, source: Grid, values: np.ndarray):
        canonical = canonical_grid(source)
        self._values = values.astype(np.uint16)
        # Where the best class is not the same at all corners. Never a class: 65535 classes do not occur.
        self._mixed = np.uint16(np.iinfo(np.uint16).max)
        self._size = [s.stop - s.start for s in answer.box]
        self._cut = [(s.start > 0, s.stop < n) for s, n in zip(answer.box, model.shape, strict=True)]
        # Rounded, so that the last bits of two affines that say the same do not make two answers.
        mapping = np.round(np.linalg.inv(model.affine) @ canonical.affine, 9)
        self._matrix = mapping[:3, :3]
        self._offset = mapping[:3, 3] - [s.start for s in answer.box]
        self._straight = np.allclose(self._matrix, np.diag(np.diag(self._matrix)), rtol=0, atol=1e-9)
        self._identical = np.allclose(mapping, np.eye(4), rtol=0, atol=1e-6)
        background = 0 if answer.outside is None else int(answer.outside.argmax())
        dtype = np.uint8 if values.max() < 256 else np.uint16
        self.labels = np.full(canonical.shape, self._values[background], dtype=dtype)
        self._last: torch.Tensor | None = None
        self._box = answer.box

    def add(self, slab: Slab) -> None:
        axis, planes = slab.axis, slab.logits.shape[1 + slab.axis]
        if self._identical:
            best = _best_class(slab.logits).cpu().numpy()
            where = [slice(b.start, b.stop) for b in self._box]
            where[axis] = slice(where[axis].start + slab.start, where[axis].start + slab.start + planes)
            self.labels[tuple(where)] = self._values[best]
            return
        scores = slab.logits.softmax(dim=0).cpu()
        first = slab.start
        if self._last is not None:
            # Cells between the last plane of the slab before and the first of this one.
            scores = torch.cat([self._last, scores], dim=1 + axis)
            first -= 1
        stop = slab.start + planes
        at_end = stop == self._size[axis]
        self._last = None if at_end else scores.narrow(1 + axis, scores.shape[1 + axis] - 1, 1).clone()
        self._fill(scores, axis, first, stop if at_end else stop - 1)

    def _fill(self, scores: torch.Tensor, axis: int, first: int, end: int) -> None:
        """Decide on the voxels that lie in planes [first, end) of the box; scores begin at plane ``first``."""
        best = _best_class(scores).numpy().astype(np.uint16)
        cells = best.copy()
        for a in range(3):
            following = np.concatenate([np.delete(cells, 0, axis=a), np.take(cells, [-1], axis=a)], axis=a)
            cells[cells != following] = self._mixed
        flat = scores.reshape(scores.shape[0], -1).T.contiguous()
        for chunk in self._chunks(axis, first, end):
            positions = self._positions(chunk)
            inside = True
            for a, (below, above) in enumerate(self._cut):
                if below:
                    inside = inside & (positions[a] >= -0.5)
                if above:
                    inside = inside & (positions[a] <= self._size[a] - 0.5)
            clamped = [np.clip(p, 0, n - 1) for p, n in zip(positions, self._size, strict=True)]
            inside = inside & (clamped[axis] >= first) & (clamped[axis] < end)
            clamped[axis] = np.clip(clamped[axis] - first, 0, best.shape[axis] - 1)
            lower = [p.astype(np.int64) for p in clamped]
            classes = cells[tuple(lower)]
            inside = np.broadcast_to(inside, classes.shape)
            mixed = (classes == self._mixed) & inside
            if mixed.any():
                places = [np.broadcast_to(p, classes.shape)[mixed] for p in clamped]
                classes[mixed] = _interpolated_classes(flat, best.shape, places)
            block = self.labels[chunk]
            np.copyto(block, self._values[np.where(inside, classes, 0)], where=inside, casting="unsafe")

    def _chunks(self, axis: int, first: int, end: int) -> Iterator[tuple[slice, slice, slice]]:
        """Parts of the user's grid that reach into planes [first, end) of the box."""
        row = self._matrix[axis]
        along = int(np.argmax(np.abs(row)))
        shape = self.labels.shape
        others = [a for a in range(3) if a != along]
        reach = [sorted((0.0, row[a] * (shape[a] - 1))) for a in others]
        low, high = (self._offset[axis] + sum(r[side] for r in reach) for side in (0, 1))
        # Voxels n along that axis lie at row[along] * n + [low, high].
        upper = np.inf if end == self._size[axis] else end
        lower = -np.inf if first == 0 else first
        ends = sorted([(lower - high) / row[along], (upper - low) / row[along]])
        start = int(max(0, np.floor(max(ends[0], -1)))) if np.isfinite(ends[0]) else 0
        stop = int(min(shape[along], np.ceil(min(ends[1], shape[along])) + 1)) if np.isfinite(ends[1]) else shape[along]
        step = max(1, _CHUNK // int(np.prod([shape[a] for a in others])))
        for n in range(start, stop, step):
            yield tuple(slice(n, min(n + step, stop)) if a == along else slice(0, shape[a]) for a in range(3))

    def _positions(self, chunk: tuple[slice, slice, slice]) -> list[np.ndarray]:
        """Box coordinates of a part of the user's grid: three arrays that broadcast to its shape."""
        indices = np.ogrid[chunk]
        if self._straight:
            return [self._matrix[a, a] * indices[a] + self._offset[a] for a in range(3)]
        return [sum(self._matrix[a, b] * indices[b] for b in range(3)) + self._offset[a] for a in range(3)]


def _best_class(scores: torch.Tensor) -> torch.Tensor:
    """The index of the highest of (K, *S), the first of equals, (*S) int32. Class by class, which on CPUs is many times
    as fast as ``argmax`` over the first axis."""
    highest = scores[0].clone()
    best = torch.zeros(highest.shape, dtype=torch.int32, device=scores.device)
    for number in range(1, scores.shape[0]):
        higher = scores[number] > highest
        torch.where(higher, scores[number], highest, out=highest)
        best.masked_fill_(higher, number)
    return best


def _interpolated_classes(scores: torch.Tensor, shape: tuple[int, ...], places: list[np.ndarray]) -> np.ndarray:
    """The best class at places between voxels. scores: (voxels of ``shape``, K). places: three arrays (n,)."""
    classes = np.empty(len(places[0]), dtype=np.uint16)
    for begin in range(0, len(classes), _GATHERED):
        part = slice(begin, begin + _GATHERED)
        lower = [p[part].astype(np.int64) for p in places]
        share = [(p[part] - n).astype(np.float32) for p, n in zip(places, lower, strict=True)]
        index = np.empty((len(lower[0]), 8), dtype=np.int64)
        weight = np.empty((len(lower[0]), 8), dtype=np.float32)
        for number, corner in enumerate(np.ndindex(2, 2, 2)):
            w, i = 1.0, 0
            for a, (bit, size) in enumerate(zip(corner, shape, strict=True)):
                w = w * (share[a] if bit else 1 - share[a])
                i = i * size + np.minimum(lower[a] + bit, size - 1)
            weight[:, number], index[:, number] = w, i
        # A weighted sum of eight rows each: what torch's embedding bags are.
        total = torch.nn.functional.embedding_bag(
            torch.from_numpy(index), scores, per_sample_weights=torch.from_numpy(weight), mode="sum"
        )
        classes[part] = total.argmax(dim=1).numpy()
    return classes
