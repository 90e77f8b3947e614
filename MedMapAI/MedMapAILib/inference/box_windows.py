"""A detector over a whole scan: window after window, or slice after slice, and one list of boxes at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from ..boxes import nms
from ..errors import Cancelled
from ..plan import Plan
from ..tasks.found_boxes import FoundBoxes
from .tiling import axis_starts, window_starts

#: (B, C, *S), and where there are some a list of proposals (P, 2D), one entry a window → for each a dict of "boxes"
#: (N, 2D), "scores", "labels", perhaps "masks"; voxel edges of the window.
Detector = Callable[..., Sequence[dict[str, torch.Tensor]]]


class BoxWindows:
    """A detector as something that takes whole scans.

    detector: sees windows. ways: of ``find_boxes``. It is called with a volume (1, C, I, J, K) on the model grid and
    gives FoundBoxes.
    """

    def __init__(self, detector: Detector, **ways: Any):
        self._detector, self._ways = detector, ways

    def __call__(self, volume: torch.Tensor, proposals: np.ndarray | None = None) -> FoundBoxes:
        return find_boxes(self._detector, volume, proposals=proposals, **self._ways)


def box_ways(plan: Plan, inference: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``find_boxes`` that a plan and section [inference] of a configuration or a bundle say."""
    return {
        "window": tuple(inference.get("window") or plan.patch),
        "overlap": float(inference["overlap"]),
        "nms_iou": float(inference.get("nms", 0.2)),
        "most": int(inference.get("candidates", 100)),
    }


def find_boxes(
    detector: Detector,
    volume: torch.Tensor,
    *,
    window: Sequence[int],
    overlap: float,
    nms_iou: float,
    proposals: np.ndarray | None = None,
    batch: int = 1,
    most: int = 200,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> FoundBoxes:
    """Run a detector over a volume (1, C, I, J, K) on the model grid.

    window: (3,) voxels; with one 1 the network sees slices, whole, and what it finds in them is linked across. overlap:
    share of a window that the next one sees again. nms_iou: of two boxes of a class that overlap more the better stays.
    proposals: (P, 6) voxel edges of the volume, for a network that chooses among given boxes. batch: windows at once.
    most: boxes kept. progress: called with fraction and message. Raises Cancelled.

    A window answers for what has its middle in its own part of the volume, whose borders lie in the middle of the
    overlaps: nearer to its border it sees too little around.
    """
    if 1 in window:
        return _find_in_slices(detector, volume, tuple(window).index(1), proposals, batch, most, progress, cancelled)
    shape = tuple(int(n) for n in volume.shape[2:])
    size = [min(w, n) for w, n in zip(window, shape, strict=True)]
    owned = [_owned(n, w, overlap) for n, w in zip(shape, size, strict=True)]
    parts: list[dict[str, torch.Tensor]] = []
    starts = window_starts(shape, size, overlap)
    for group in _groups(starts, batch, progress, cancelled, "window"):
        crops = [
            volume[(slice(None), slice(None), *(slice(a, a + n) for a, n in zip(s, size, strict=True)))] for s in group
        ]
        given = None
        if proposals is not None:
            given = [_inside(proposals - [*start, *start], size, (0, 1, 2)) for start in group]
        for start, found in zip(group, _detected(detector, torch.cat(crops), given), strict=True):
            boxes = found["boxes"].cpu() + torch.tensor([*start, *start], dtype=torch.float32)
            middle = (boxes[:, :3] + boxes[:, 3:]) / 2
            low, high = (torch.tensor([owned[a][start[a]][end] for a in range(3)]) for end in (0, 1))
            mine = ((middle >= low) & (middle < high)).all(dim=1)
            parts.append({k: v.cpu()[mine] for k, v in found.items() if k != "boxes"} | {"boxes": boxes[mine]})
    return _joined(parts, nms_iou, most)


def _detected(detector: Detector, images: torch.Tensor, proposals: list[torch.Tensor] | None) -> Sequence[dict]:
    return detector(images) if proposals is None else detector(images, proposals)


def _inside(boxes: np.ndarray, size: Sequence[int], axes: Sequence[int]) -> torch.Tensor:
    """What of boxes (P, 6) lies in a window that begins at 0, along some of its axes: (Q, 2 · axes)."""
    low = np.clip(boxes[:, :3], 0, size)[:, list(axes)]
    high = np.clip(boxes[:, 3:], 0, size)[:, list(axes)]
    seen = (boxes[:, :3] < size).all(axis=1) & (boxes[:, 3:] > 0).all(axis=1)
    return torch.from_numpy(np.concatenate([low, high], axis=1)[seen]).float()


def _owned(size: int, window: int, overlap: float) -> dict[int, tuple[float, float]]:
    """First voxel of each window along an axis → the part of the axis that it answers for."""
    starts = axis_starts(size, window, overlap)
    borders = [(a + window + b) / 2 for a, b in zip(starts[:-1], starts[1:], strict=True)]
    return dict(zip(starts, zip([-np.inf, *borders], [*borders, np.inf], strict=True), strict=True))


def _groups(
    items: Sequence, batch: int, progress: Callable | None, cancelled: Callable | None, what: str
) -> Iterable[Sequence]:
    """Some items at a time, with what is said and asked before each."""
    for done in range(0, len(items), batch):
        if cancelled is not None and cancelled():
            raise Cancelled
        if progress is not None:
            progress(done / len(items), f"{what} {done + 1} of {len(items)}")
        yield items[done : done + batch]
    if progress is not None:
        progress(1.0, f"{len(items)} {what}s done")


def _joined(parts: list[dict[str, torch.Tensor]], nms_iou: float, most: int) -> FoundBoxes:
    boxes, scores, labels = (torch.cat([part[key] for part in parts]) for key in ("boxes", "scores", "labels"))
    kept = nms(boxes, scores, labels, threshold=nms_iou)[:most]
    masks: tuple[np.ndarray, ...] = ()
    if parts and all("masks" in part for part in parts):
        every = [mask for part in parts for mask in part["masks"].float().numpy()]
        masks = tuple(every[int(number)] for number in kept)
    return FoundBoxes(boxes[kept].numpy(), scores[kept].float().numpy(), labels[kept].numpy(), masks)


def _find_in_slices(
    detector: Detector,
    volume: torch.Tensor,
    axis: int,
    proposals: np.ndarray | None,
    batch: int,
    most: int,
    progress: Callable | None,
    cancelled: Callable | None,
) -> FoundBoxes:
    """Slice by slice across an axis, and linked."""
    from ..slice_linking import link_slices

    found: list[dict[str, np.ndarray]] = []
    for numbers in _groups(range(volume.shape[2 + axis]), batch, progress, cancelled, "slice"):
        slices = torch.cat([volume.select(2 + axis, number) for number in numbers])
        given = None
        if proposals is not None:
            size, shift = np.array(volume.shape[2:]), np.eye(6)[axis] + np.eye(6)[3 + axis]
            size[axis] = 1
            kept = [a for a in range(3) if a != axis]
            given = [_inside(proposals - number * shift, size, kept) for number in numbers]
        answers = _detected(detector, slices, given)
        found += [{key: value.cpu().numpy() for key, value in one.items()} for one in answers]
    linked = link_slices(found, range(len(found)), spacing=1.0, first=0.0)
    # Linked boxes are [a0, b0, s0, a1, b1, s1]: slices last.
    order = [0, 1]
    order.insert(axis, 2)
    boxes = np.asarray(linked["boxes"], dtype=np.float64).reshape(-1, 6)[:, [*order, *(3 + n for n in order)]]
    best = np.argsort(-np.asarray(linked["scores"]), kind="stable")[:most]
    masks = tuple(np.moveaxis(linked["masks"][n], 2, axis) for n in best) if "masks" in linked else ()
    return FoundBoxes(boxes[best], np.asarray(linked["scores"])[best], np.asarray(linked["labels"])[best], masks)
