"""From boxes in slices to findings in the volume: what continues from one slice to the next is one finding.

Slices are gone through in the order of their positions. A box continues a finding if it has the same class and
overlaps the finding's last box, no more than a gap of slices away; each box continues at most one finding, and the
pairs that overlap most come first, so that two vessels side by side stay two. Since the outermost slices of a ball are
much smaller than their neighbors, a box that lies inside its neighbor belongs to it as well, if nothing better does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class _Chain:
    """A finding while it grows: indices of its slices, and which boxes of the list of all boxes they show."""

    slices: list[int] = field(default_factory=list)
    members: list[int] = field(default_factory=list)


def link_slices(
    per_slice: Sequence[Mapping[str, Any]],
    positions: Sequence[float],
    *,
    iou: float = 0.3,
    gap: int = 1,
    contained: float = 0.8,
    top: int = 1,
    least_slices: int = 1,
    count: int = 500,
    spacing: float | None = None,
    first: float | None = None,
) -> dict[str, Any]:
    """Findings in the volume out of the detections of its slices, in any order of the slices.

    per_slice: of each slice "boxes" (N, 4) voxel edges [a0, b0, a1, b1], "scores" (N,), "labels" (N,), and where the
    network gives them "masks" (N, m, m), probabilities in the frame of the box. positions: of the slices along the axis
    that they are across, mm. iou: overlap from which two boxes are linked. gap: slices between two linked boxes in
    which nothing was found. contained: part of the smaller box that lies in the other from which they are linked all
    the same. top: the score is the mean of so many highest scores (all, where there are fewer); 1 is their maximum.
    least_slices: findings in fewer slices are left out. count: at most so many findings. spacing: between neighboring
    slices, mm; by default the smallest difference of positions. first: position of the middle of slice 0, mm; by
    default the lowest position.

    Returns by falling score "boxes" (N, 6) voxel edges [a0, b0, s0, a1, b1, s1], the smallest around all boxes of the
    finding, with s counted in slices from ``first``; "scores" (N,), "labels" (N,), "slices" (N,) how many slices show
    it, and, where each slice has them, "masks" (N, m, m, m) in the frame of the 3D box. As numpy arrays.
    Raises ValueError where the lists differ in length, or two slices are at one place.
    """
    if len(per_slice) != len(positions):
        raise ValueError(f"there are {len(per_slice)} slices, but {len(positions)} positions")
    indices = _slice_indices(positions, spacing, first)
    boxes, scores, labels, where = _collected(per_slice, indices)
    chains = _chains(boxes, scores, labels, where, iou=iou, gap=gap, contained=contained)
    chains = [chain for chain in chains if len(chain.slices) >= least_slices]

    found = [_box(boxes[chain.members], chain.slices) for chain in chains]
    found_scores = np.array([np.sort(scores[chain.members])[-top:].mean() for chain in chains], dtype=np.float32)
    found_labels = np.array([labels[chain.members[0]] for chain in chains], dtype=np.int64)
    found_boxes = np.array(found, dtype=np.float32).reshape(-1, 6)
    # Equal scores in the order of their places, so that the order of the slices that were given makes no difference.
    order = np.lexsort((*found_boxes.T[::-1], found_labels, -found_scores))[:count]
    linked: dict[str, Any] = {
        "boxes": found_boxes[order],
        "scores": found_scores[order],
        "labels": found_labels[order],
        "slices": np.array([len(chain.slices) for chain in chains], dtype=np.int64)[order],
    }
    masks = [np.asarray(one["masks"], dtype=np.float32) for one in per_slice if "masks" in one]
    if masks and sum(map(len, masks)) == len(boxes):
        # In the order in which the boxes were collected.
        every = np.concatenate(masks)
        stacked = [_stacked(every, boxes, chains[n], found_boxes[n]) for n in order]
        linked["masks"] = np.stack(stacked) if stacked else np.zeros((0, *[every.shape[-1]] * 3), np.float32)
    return linked


def _slice_indices(positions: Sequence[float], spacing: float | None, first: float | None) -> np.ndarray:
    """Which slice of an evenly spaced volume each position is, (S,) of integers."""
    places = np.asarray(positions, dtype=float).reshape(-1)
    if not len(places):
        return np.zeros(0, dtype=np.int64)
    if not np.isfinite(places).all():
        raise ValueError("the positions of slices are not all finite")
    steps = np.diff(np.sort(places))
    if spacing is None:
        spacing = float(steps.min()) if len(steps) else 1.0
    if not spacing > 0 or not math.isfinite(spacing):
        raise ValueError("two slices are at one position, or the spacing is not above zero")
    indices = np.rint((places - (places.min() if first is None else first)) / spacing).astype(np.int64)
    if len(np.unique(indices)) < len(indices):
        raise ValueError(f"two slices are within one spacing of {spacing:g} mm")
    return indices


def _collected(
    per_slice: Sequence[Mapping[str, Any]], indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All boxes (N, 4), their scores, labels and slices, in the order of ``per_slice``."""
    boxes = [np.asarray(one["boxes"], dtype=float).reshape(-1, 4) for one in per_slice]
    scores = [np.asarray(one["scores"], dtype=float).reshape(-1) for one in per_slice]
    labels = [np.asarray(one["labels"], dtype=np.int64).reshape(-1) for one in per_slice]
    for number, (b, s, k) in enumerate(zip(boxes, scores, labels, strict=True)):
        if not len(b) == len(s) == len(k):
            raise ValueError(f"slice {number} has {len(b)} boxes, {len(s)} scores and {len(k)} labels")
    if not boxes:
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
    where = np.repeat(indices, [len(b) for b in boxes])
    return np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels), where


def _chains(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    where: np.ndarray,
    *,
    iou: float,
    gap: int,
    contained: float,
) -> list[_Chain]:
    chains: list[_Chain] = []
    growing: list[_Chain] = []
    for index in np.unique(where):
        here = np.flatnonzero(where == index)
        here = here[np.lexsort((*boxes[here].T[::-1], labels[here], -scores[here]))]
        growing = [chain for chain in growing if index - chain.slices[-1] <= gap + 1]
        last = np.array([chain.members[-1] for chain in growing], dtype=np.int64)
        overlap, inside = _overlaps(boxes[last], boxes[here])
        same = labels[last][:, None] == labels[here][None]
        near = np.array([index - chain.slices[-1] for chain in growing])[:, None]
        # A pair that overlaps enough comes before any that is only contained, a near one before one across a gap.
        rank = np.where(same & (overlap >= iou), 2 + overlap, np.where(same & (inside >= contained), inside, -1.0))
        rank = np.where(rank >= 0, rank - 1e-6 * near, rank)
        continued = np.zeros(len(here), dtype=bool)
        taken = np.zeros(len(growing), dtype=bool)
        for flat in np.argsort(-rank, axis=None, kind="stable"):
            chain, box = divmod(int(flat), len(here))
            if rank[chain, box] < 0:
                break
            if not taken[chain] and not continued[box]:
                taken[chain] = continued[box] = True
                growing[chain].slices.append(int(index))
                growing[chain].members.append(int(here[box]))
        new = [_Chain([int(index)], [int(box)]) for box in here[~continued]]
        growing += new
        chains += new
    return chains


def _overlaps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union, and over the smaller of the two, of boxes (N, 4) and (M, 4): (N, M) each."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    area_a, area_b = (np.prod(np.clip(x[:, 2:] - x[:, :2], 0, None), axis=-1) for x in (a, b))
    union = area_a[:, None] + area_b[None] - shared
    smaller = np.minimum(area_a[:, None], area_b[None])
    return shared / np.where(union > 0, union, 1), shared / np.where(smaller > 0, smaller, 1)


def _box(boxes: np.ndarray, slices: Sequence[int]) -> list[float]:
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    return [*low, float(min(slices)), *high, float(max(slices) + 1)]


def _stacked(masks: np.ndarray, boxes: np.ndarray, chain: _Chain, box: np.ndarray) -> np.ndarray:
    """The masks of a chain's boxes as one (m, m, m) in the frame of its 3D box; slices in a gap from both sides."""
    size = masks.shape[-1]
    fractions = (np.arange(size) + 0.5) / size
    planes = []
    for member in chain.members:
        weights = []
        for axis in range(2):
            edges = box[axis] + fractions * (box[3 + axis] - box[axis])
            weights.append(_linear(edges, boxes[member, axis], boxes[member, 2 + axis], size))
        planes.append(weights[0] @ masks[member] @ weights[1].T)
    middles = np.array(chain.slices) + 0.5
    along = box[2] + fractions * (box[5] - box[2])
    # Within a slice its own mask; between two slices that a gap separates, linearly from one to the other.
    matrix = np.zeros((size, len(planes)))
    for row, place in enumerate(along):
        slice_index = math.floor(place)
        if slice_index in chain.slices:
            matrix[row, chain.slices.index(slice_index)] = 1
        else:
            after = int(np.searchsorted(middles, place))
            part = (place - middles[after - 1]) / (middles[after] - middles[after - 1])
            matrix[row, after - 1 : after + 1] = 1 - part, part
    return np.einsum("sn,nab->abs", matrix, np.stack(planes)).astype(np.float32)


def _linear(edges: np.ndarray, low: float, high: float, size: int) -> np.ndarray:
    """(len(edges), size): linear interpolation of ``size`` cells that share [low, high]; nothing outside of it."""
    place = (edges - low) / max(high - low, 1e-9) * size - 0.5
    clipped = np.clip(place, 0, size - 1)
    left = np.minimum(np.floor(clipped).astype(int), max(size - 2, 0))
    part = clipped - left
    weights = np.zeros((len(edges), size))
    rows = np.arange(len(edges))
    weights[rows, left] = 1 - part
    weights[rows, np.minimum(left + 1, size - 1)] += part
    return weights * ((edges >= low) & (edges <= high))[:, None]
