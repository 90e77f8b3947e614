"""RetinaNet in two dimensions: torchvision's heads and matching.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, https://arxiv.org/abs/1708.02002.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.retinanet import RetinaNetHead

from ... import boxes as geometry
from .torchvision_backbones import group_norm
from .torchvision_detectors import TorchvisionDetector, common_arguments
from .torchvision_parts import FittedAnchors, at_ignored, image_list, level_anchors, turned

#: The path of the class, as a bundle names it.
TARGET = "MedMapAILib.networks.detection.retinanet_2d.RetinaNet2D"
#: Candidates an image, before suppression.
_CANDIDATES = 1000


class RetinaNet2D(TorchvisionDetector):
    """RetinaNet on slices. See ``build`` for the arguments; none is left open.

    Losses: "classification", the focal loss over all anchors but those at ignored places, and "bbox_regression". An
    anchor learns an object from an IoU of 0.5 on, and the best anchor of an object always does.
    """

    def __init__(self, *, anchors: Sequence[Sequence[float]], dropout: float, **common: Any):
        super().__init__(**common)
        self.anchors = FittedAnchors(level_anchors(anchors, self.levels), self.levels)
        self.drop = nn.Dropout(dropout)
        count = self.anchors.num_anchors_per_location()[0]
        self.head = RetinaNetHead(self.backbone.out_channels, count, self.classes, norm_layer=group_norm)
        self.matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)

    def losses(
        self, images: Tensor, targets: list[dict[str, Tensor]], proposals: list[Tensor] | None
    ) -> dict[str, Tensor]:
        outputs, anchors = self._heads(images, tuple(images.shape[2:]))
        theirs = [{"boxes": turned(target["boxes"]), "labels": target["labels"]} for target in targets]
        matched = [self._match(anchors, one["boxes"], turned(t["ignored"])) for one, t in zip(theirs, targets)]  # noqa: B905
        return self.head.compute_loss(theirs, outputs, [anchors] * len(targets), matched)

    def detect(self, images: Tensor, size: tuple[int, ...], proposals: list[Tensor] | None) -> list[dict[str, Tensor]]:
        outputs, anchors = self._heads(images, size)
        results = []
        for logits, deltas in zip(outputs["cls_logits"], outputs["bbox_regression"], strict=True):
            scores, order = logits.flatten().sigmoid().sort(descending=True, stable=True)
            order = order[: min(_CANDIDATES, int((scores >= self.score_floor).sum()))]
            place, labels = order // self.classes, order % self.classes
            boxes = turned(geometry.decode(deltas[place], anchors[place]))
            results.append(self.select(boxes, scores[: len(order)], labels, size)[0])
        return results

    def _heads(self, images: Tensor, size: tuple[int, int]) -> tuple[dict[str, Tensor], Tensor]:
        """What the heads say, float32, and the anchors (A, 4), x before y."""
        features = [self.drop(level) for level in self.backbone(images).values()]
        outputs = {name: values.float() for name, values in self.head(features).items()}
        return outputs, self.anchors(image_list(images, size), features)[0]

    def _match(self, anchors: Tensor, boxes: Tensor, ignored: Tensor) -> Tensor:
        """The row of ``boxes`` that each anchor learns, or one of torchvision's Matcher's two constants: (A,) int64."""
        if len(boxes):
            matched = self.matcher(geometry.iou(boxes, anchors))
        else:
            matched = torch.full((len(anchors),), Matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
        unclear = (matched == Matcher.BELOW_LOW_THRESHOLD) & at_ignored(anchors, ignored)
        return torch.where(unclear, Matcher.BETWEEN_THRESHOLDS, matched)


def arguments(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The arguments of the class, checked, with nothing left open, as JSON takes them. Raises InputError."""
    return common_arguments(in_channels=in_channels, classes=classes, **options)


def build(*, in_channels: int, classes: int, **options: Any) -> RetinaNet2D:
    """A RetinaNet to train on slices (B, in_channels, A, B).

    options: backbone, anchors, strides, width, detections, score_floor, nms, dropout; see
    ``torchvision_detectors.common_arguments``. Raises InputError.
    """
    return RetinaNet2D(**arguments(in_channels=in_channels, classes=classes, **options))


def definition(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The same as a bundle writes it down. Raises InputError."""
    return {"_target_": TARGET} | arguments(in_channels=in_channels, classes=classes, **options)
