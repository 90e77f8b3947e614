"""Training samples of a detector: a patch of a prepared scan, moved by one linear map together with its boxes.

Boxes are in voxel edges: a box of the voxels 3 to 5 along an axis goes from 3 to 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from .boxes import boxes_of_instances, ellipsoid_box

#: What a label says that is no class: there is no box in this row; what is in the box counts for nothing.
NO_BOX, IGNORED = -1, -2
#: Rows of boxes in a sample. A patch with more findings keeps those nearest to its middle.
_ROWS = 64
#: Rows of proposals; a patch with more keeps a random choice.
_PROPOSALS = 300
#: A finding of which less than this share is in the patch cannot be told, so it is neither right nor wrong to find it.
_LEAST_VISIBLE = 0.5


@dataclass(frozen=True)
class Move:
    """Where a patch lies in a prepared scan: output index p shows the scan at center + matrix · (p − middle).

    center: (3,) voxel index. matrix: (3, 3). patch: (3,) voxels.
    """

    center: np.ndarray
    matrix: np.ndarray
    patch: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """Index of the middle of the patch."""
        return (self.patch - 1) / 2

    def cut(self, volume: np.ndarray, order: int) -> np.ndarray:
        """The patch of a volume (I, J, K), by spline interpolation of that order; beyond it its border is repeated.
        float32 for order 1, else the type of the volume."""
        offset = self.center - self.matrix @ self.middle
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.patch], indexing="ij")).reshape(3, -1)
        reached = self.matrix @ corners + offset[:, None]
        first = np.floor(reached.min(axis=1)).astype(int) - 1
        size = np.ceil(reached.max(axis=1)).astype(int) + 2 - first
        indices = [
            np.clip(np.arange(a, a + n), 0, limit - 1) for a, n, limit in zip(first, size, volume.shape, strict=True)
        ]
        block = volume[np.ix_(*indices)]
        block = block.astype(np.float32) if order else block
        start = offset - first
        if np.array_equal(self.matrix, np.eye(3)) and np.array_equal(start, np.round(start)):
            return block[tuple(slice(int(a), int(a) + int(n)) for a, n in zip(start, self.patch, strict=True))]
        diagonal = np.diag(self.matrix)
        separable = np.array_equal(self.matrix, np.diag(diagonal))
        return ndimage.affine_transform(
            block,
            diagonal if separable else self.matrix,
            start,
            output_shape=tuple(int(n) for n in self.patch),
            order=order,
            mode="nearest",
        )

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 6) of the scan as they lie in the patch: those of the ellipsoids in them, which for a finding
        that is round is no larger than it must be."""
        if not len(boxes):
            return boxes.reshape(0, 6)
        inverse = np.linalg.inv(self.matrix)
        center = (boxes[:, :3] + boxes[:, 3:]) / 2 - 0.5
        moved = (center - self.center) @ inverse.T + self.middle + 0.5
        size = boxes[:, 3:] - boxes[:, :3]
        return ellipsoid_box(
            *(torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in (moved, size, inverse))
        ).numpy()


def random_move(
    prepared: dict[str, np.ndarray],
    patch: np.ndarray,
    spacing: np.ndarray,
    settings: dict[str, Any],
    fractions: tuple[float, float],
    random: np.random.Generator,
) -> Move:
    """Where the next sample of a scan lies.

    prepared: "image" (C, I, J, K), "boxes" (N, 6), "negatives" (M, 3) centers of what was mistaken for a finding, voxel
    edges. patch: (3,), one of them 1 for slices. spacing: of the scan's grid, mm. settings: section [augmentation].
    fractions: how often a finding, and else a place that was mistaken for one, lies in the patch.
    """
    shape = np.array(prepared["image"].shape[1:])
    flat = patch == 1
    boxes, negatives = prepared["boxes"], prepared["negatives"]
    draw = random.random()
    shown = None
    if len(boxes) and draw < fractions[0]:
        box = boxes[random.integers(len(boxes))]
        shown, half = (box[:3] + box[3:]) / 2 - 0.5, (box[3:] - box[:3]) / 2
    elif len(negatives) and draw < sum(fractions):
        shown, half = negatives[random.integers(len(negatives))] - 0.5, np.full(3, 2.0)
    if shown is not None:
        # Anywhere in the patch where it is whole; of slices any that shows it.
        room = np.where(flat, np.maximum(half - 0.5, 0), np.maximum(patch / 2 - half - 1, 0))
        center = shown + random.uniform(-room, room)
    else:
        low = np.where(flat, 0, np.minimum((patch - 1) / 2, (shape - 1) / 2))
        center = random.uniform(low, np.maximum(shape - 1 - low, low))
    matrix = np.eye(3)
    if settings["affine"] and random.random() < settings["affine"]:
        matrix = _rotation(settings["rotate_degrees"], flat, spacing, random)
        zoom = 1 + settings["scale"] * random.uniform(-1, 1)
        matrix = matrix @ np.diag(np.where(flat, 1.0, zoom))
    for axis in settings["flip_axes"]:
        kept = np.flatnonzero(~flat)
        if axis < len(kept) and random.random() < settings["flip"]:
            matrix[:, kept[axis]] *= -1
    # Of slices whole ones; and where nothing turns, whole voxels, which need no interpolation.
    whole = np.round(np.clip(center, 0, shape - 1))
    even = (patch % 2 == 0) * 0.5
    center = np.where(flat | np.array_equal(np.abs(matrix), np.eye(3)), whole + even * ~flat, center)
    return Move(center, matrix, patch)


def sample_at(prepared: dict[str, np.ndarray], move: Move, minimum: float = 1.0) -> dict[str, torch.Tensor]:
    """The sample at a place: "image" (C, *S) float32, "boxes" (rows, 2D) float32, "labels" (rows,) int64, where -1 is
    no box and -2 a box to ignore; where the scan has them "proposals" (300, 2D), NaN below the last, and "instances"
    (*S) int32; all of it without the axis across slices.

    prepared: as ``random_move``, with "labels" (N,), "ignored" (M, 6) and perhaps "instances" (I, J, K), value n + 1
    for row n of boxes. minimum: no side of a box is shorter, voxels.
    """
    flat = move.patch == 1
    kept = np.flatnonzero(~flat)
    image = np.stack([move.cut(channel, 1) for channel in prepared["image"]])
    boxes, labels = move.boxes(prepared["boxes"]), np.array(prepared["labels"], dtype=np.int64)
    instances = None
    if "instances" in prepared and len(boxes):
        instances = move.cut(prepared["instances"], 0)
        seen = boxes_of_instances(instances, len(boxes))
        # A box that was drawn around the voxels is tighter than the ellipsoid's; a finding out of sight keeps that one.
        inside = ~np.isnan(seen[:, 0])
        # How much of it that is has to be known from its whole box.
        labels[inside & (_visible(boxes, move) < _LEAST_VISIBLE)] = IGNORED
        boxes[inside] = seen[inside]
    rows = [_clipped(boxes, labels, move, _LEAST_VISIBLE)]
    ignored = move.boxes(prepared["ignored"])
    rows.append(_clipped(ignored, np.full(len(ignored), IGNORED), move, 0.0))
    boxes, labels, numbers = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    columns = np.concatenate([kept, kept + 3])
    boxes = _widened(boxes[:, columns], minimum)
    middle = (boxes[:, : len(kept)] + boxes[:, len(kept) :]) / 2 - move.patch[kept] / 2
    order = np.argsort((middle**2).sum(axis=1), kind="stable")[:_ROWS]
    sample = {
        "image": torch.from_numpy(np.ascontiguousarray(image.squeeze(tuple(1 + np.flatnonzero(flat))))),
        "boxes": torch.zeros(_ROWS, 2 * len(kept)),
        "labels": torch.full((_ROWS,), NO_BOX, dtype=torch.int64),
    }
    sample["boxes"][: len(order)] = torch.from_numpy(boxes[order]).float()
    sample["labels"][: len(order)] = torch.from_numpy(labels[order])
    if "proposals" in prepared:
        given, _, _ = _clipped(move.boxes(prepared["proposals"]), np.zeros(len(prepared["proposals"])), move, 0.0)
        given = given[:, columns]
        chosen = np.random.default_rng(len(given)).permutation(len(given))[:_PROPOSALS]
        sample["proposals"] = torch.full((_PROPOSALS, 2 * len(kept)), torch.nan)
        sample["proposals"][: len(chosen)] = torch.from_numpy(given[chosen]).float()
    if "instances" in prepared:
        table = np.zeros(len(prepared["boxes"]) + 1, dtype=np.int32)
        for row, number in enumerate(order):
            if labels[number] >= 0:
                table[numbers[number] + 1] = row + 1
        shown = np.zeros(tuple(move.patch), np.int32) if instances is None else table[instances]
        sample["instances"] = torch.from_numpy(np.ascontiguousarray(shown.squeeze(tuple(np.flatnonzero(flat)))))
    return sample


def _clipped(
    boxes: np.ndarray, labels: np.ndarray, move: Move, least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 6) as far as the patch shows them, their labels (ignored where too little is left) and row numbers."""
    patch, flat = move.patch, move.patch == 1
    boxes = boxes.copy()
    if flat.any() and len(boxes):
        boxes = _cross_sections(boxes, int(np.flatnonzero(flat)[0]))
    low, high = np.clip(boxes[:, :3], 0, patch), np.clip(boxes[:, 3:], 0, patch)
    share = _visible(boxes, move)
    kept = np.flatnonzero(share > 0)
    labels = np.where(share < least, IGNORED, labels)
    return np.concatenate([low, high], axis=1)[kept], labels[kept], kept


def _visible(boxes: np.ndarray, move: Move) -> np.ndarray:
    """The share of each box (N, 6) that is in the patch, of slices in their plane."""
    axes = np.flatnonzero(move.patch != 1)
    size = np.maximum(boxes[:, 3:] - boxes[:, :3], 1e-6)
    low, high = np.clip(boxes[:, :3], 0, move.patch), np.clip(boxes[:, 3:], 0, move.patch)
    return np.prod((high - low)[:, axes] / size[:, axes], axis=1)


def _cross_sections(boxes: np.ndarray, axis: int) -> np.ndarray:
    """What of ellipsoids in boxes (N, 6) the slice at 0 to 1 along an axis shows: boxes that are smaller the further
    the slice is from the middle, and empty beyond the ends."""
    center, half = (boxes[:, :3] + boxes[:, 3:]) / 2, (boxes[:, 3:] - boxes[:, :3]) / 2
    away = np.maximum(np.abs(center[:, axis] - 0.5) - 0.5, 0) / np.maximum(half[:, axis], 1e-6)
    factor = np.sqrt(np.clip(1 - away**2, 0, 1))
    half = half * factor[:, None]
    result = np.concatenate([center - half, center + half], axis=1)
    result[:, [axis, axis + 3]] = [0, 1]
    return result


def _widened(boxes: np.ndarray, minimum: float) -> np.ndarray:
    """Boxes (N, 2D) of which no side is shorter than a minimum, around the same middle."""
    axes = boxes.shape[1] // 2
    middle = (boxes[:, :axes] + boxes[:, axes:]) / 2
    half = np.maximum((boxes[:, axes:] - boxes[:, :axes]) / 2, minimum / 2)
    return np.concatenate([middle - half, middle + half], axis=1)


def _rotation(degrees: list[float], flat: np.ndarray, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random rotation as voxels see it: in mm it is one, whatever their shape. Of slices in their plane alone."""
    from scipy.spatial.transform import Rotation

    angles = np.array([random.uniform(-a, a) for a in degrees])
    if flat.any():
        axis = int(np.flatnonzero(flat)[0])
        angles = np.where(np.arange(3) == axis, angles[0], 0.0)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    return np.diag(1 / spacing) @ turned @ np.diag(spacing)
