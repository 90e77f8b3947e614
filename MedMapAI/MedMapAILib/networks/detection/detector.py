"""What every network that detects has in common, in two and in three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import boxes as geometry
from ...errors import InputError

#: A detection thinner than this along an axis, in voxels, is nothing (what clipping leaves of a box outside).
_THINNEST = 0.1


class Detector(nn.Module):
    """A network that finds boxes, in voxel edges of its input (see ``boxes``), array order.

    A family makes ``losses`` and ``detect``, and sets ``divisor`` in its constructor where the size of its input must
    be a multiple of something; the images that it gets are padded to that at their end, by their border.

    classes: how many there are; a label is 0 to classes - 1. detections: at most so many an image. score_floor: what
    scores less is not given. nms: IoU above which the better of two boxes of one class is kept.
    """

    def __init__(
        self, *, spatial_dims: int, in_channels: int, classes: int, detections: int, score_floor: float, nms: float
    ):
        super().__init__()
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.classes = classes
        self.detections = detections
        self.score_floor = score_floor
        self.nms = nms
        self.divisor: tuple[int, ...] = (1,) * spatial_dims

    def forward(
        self,
        images: Tensor,
        targets: Sequence[dict[str, Tensor]] | None = None,
        proposals: Sequence[Tensor] | None = None,
    ) -> Any:
        """images: (B, C, *S) of any size.

        In training mode, with ``targets``, one an image: the losses, name → scalar, finite also where no image has a
        box. A target has "boxes" (N, 2D) float, "labels" (N,) int64, and may have "instances" (*S), a label map where
        value n + 1 is box n, and "ignored" (M, 2D), places that count neither as object nor as background.
        In evaluation mode: one dict an image of "boxes" (N, 2D) float32 within the image, "scores" (N,) from 0 to 1 by
        falling score, "labels" (N,) int64, and from networks with masks "masks" (N, m, …, m), probabilities in the
        frame of the box.
        proposals: boxes (P, 2D) of each image, for networks that choose among given ones.
        Raises ValueError for what is no image or no target of this network.
        """
        if images.ndim != self.spatial_dims + 2 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"images are (B, {self.in_channels}, and {self.spatial_dims} axes), not {tuple(images.shape)}"
            )
        if proposals is not None:
            proposals = [self._boxes(p, images, "proposals") for p in _one_each(proposals, images, "proposals")]
        size = tuple(images.shape[2:])
        if not self.training:
            return self.detect(self.padded(images), size, proposals)
        if targets is None:
            raise ValueError("a detector in training mode needs targets")
        checked = [self._target(target, images) for target in _one_each(targets, images, "targets")]
        return self.losses(self.padded(images), checked, proposals)

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]], proposals: list[Tensor] | None) -> dict:
        """Name → scalar. images: padded. targets: checked, on the images' device, each with "ignored".

        "instances" keeps the size before padding.
        """
        raise NotImplementedError

    def detect(self, images: Tensor, size: tuple[int, ...], proposals: list[Tensor] | None) -> list[dict[str, Tensor]]:
        """What ``forward`` gives in evaluation mode. images: padded. size: before that, voxels; no box leaves it."""
        raise NotImplementedError

    def padded(self, images: Tensor) -> Tensor:
        """(B, C, *S) extended at the end of each axis by its border to a multiple of ``divisor``."""
        missing = [-size % divisor for size, divisor in zip(images.shape[2:], self.divisor, strict=True)]
        if not any(missing):
            return images
        return functional.pad(images, [n for m in reversed(missing) for n in (0, m)], mode="replicate")

    def select(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, size: tuple[int, ...]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The detections of one image out of all its candidates, and which candidates they were.

        boxes: (N, 2D). scores: (N,). labels: (N,). size: of the image. Clips to the image, leaves out what is too thin
        or scores too little, suppresses by class, and takes the best ``detections``. Returns a result as ``forward``
        gives it, and indices (K,) of the candidates.
        """
        clipped = geometry.clip(boxes.float(), size)
        thick = (geometry.sizes(clipped) >= _THINNEST).all(dim=1)
        index = ((scores >= self.score_floor) & thick).nonzero()[:, 0]
        kept = geometry.nms(clipped[index], scores[index], labels[index], threshold=self.nms)[: self.detections]
        index = index[kept]
        found = {"boxes": clipped[index], "scores": scores[index].float(), "labels": labels[index].long()}
        return found, index

    def _target(self, target: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
        boxes = self._boxes(target["boxes"], images, "the boxes of a target")
        labels = torch.as_tensor(target["labels"]).to(images.device, torch.int64).reshape(-1)
        if len(labels) != len(boxes):
            raise ValueError(f"a target has {len(boxes)} boxes, but {len(labels)} labels")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ValueError(f"the labels of a target are 0 to {self.classes - 1}, not {labels.unique().tolist()}")
        if len(boxes) and not bool((geometry.sizes(boxes) > 0).all()):
            raise ValueError("a box of a target has a side that is not longer than 0")
        checked = {"boxes": boxes, "labels": labels}
        ignored = target.get("ignored")
        checked["ignored"] = boxes[:0] if ignored is None else self._boxes(ignored, images, "ignored boxes")
        if target.get("instances") is not None:
            instances = torch.as_tensor(target["instances"]).to(images.device)
            if tuple(instances.shape) != tuple(images.shape[2:]):
                raise ValueError(f"instances are of the image's size {tuple(images.shape[2:])}, not {instances.shape}")
            checked["instances"] = instances
        return checked

    def _boxes(self, boxes: Tensor, images: Tensor, what: str) -> Tensor:
        boxes = torch.as_tensor(boxes).to(images.device, torch.float32)
        if boxes.numel() == 0:
            return boxes.new_zeros((0, 2 * self.spatial_dims))
        if boxes.ndim != 2 or boxes.shape[1] != 2 * self.spatial_dims:
            raise ValueError(f"{what} are (N, {2 * self.spatial_dims}), not {tuple(boxes.shape)}")
        if not bool(torch.isfinite(boxes).all()):
            raise ValueError(f"{what} are not all finite")
        return boxes


def common_options(*, detections: int, score_floor: float, nms: float) -> dict[str, Any]:
    """The options that all detectors have, checked. Raises InputError that names the option."""
    if isinstance(detections, bool) or not isinstance(detections, int) or detections < 1:
        raise InputError(f"Network option detections is {detections!r}; give a whole number above zero.")
    return {
        "detections": detections,
        "score_floor": _fraction(score_floor, "score_floor"),
        "nms": _fraction(nms, "nms"),
    }


def check_width(width: Any) -> float:
    """By which all channels are multiplied, above zero. Raises InputError."""
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < math.inf:
        raise InputError(f"Network option width is {width!r}; give a number above zero.")
    return float(width)


def check_anchors(anchors: Any, spatial_dims: int) -> list[list[float]] | None:
    """Sizes of anchors, voxels, one list of ``spatial_dims`` numbers an anchor; None stays None. Raises InputError."""
    if anchors is None:
        return None
    wrong = InputError(
        f"Network option anchors is {anchors!r}; give a list of boxes, each of {spatial_dims} sizes in voxels."
    )
    if not isinstance(anchors, (list, tuple)) or not anchors:
        raise wrong
    for anchor in anchors:
        if not isinstance(anchor, (list, tuple)) or len(anchor) != spatial_dims:
            raise wrong
        if not all(isinstance(s, (int, float)) and not isinstance(s, bool) and 0 < s < math.inf for s in anchor):
            raise wrong
    return [[float(side) for side in anchor] for anchor in anchors]


def _fraction(value: Any, option: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InputError(f"Network option {option} is {value!r}; give a number from 0 to 1.")
    return float(value)


def _one_each(values: Sequence[Any], images: Tensor, what: str) -> Sequence[Any]:
    if len(values) != len(images):
        raise ValueError(f"there are {len(images)} images, but {len(values)} {what}")
    return values
