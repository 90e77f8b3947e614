"""RetinaNet in three dimensions: MONAI's network on a pyramid of features, with its losses and its detections here.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, https://arxiv.org/abs/1708.02002. MONAI's own detector
wants cubic pyramids and as many anchors on each level, and always samples; this one takes flat cells, and anchors only
where they fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.apps.detection.networks.retinanet_network import RetinaNet
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from ... import boxes as geometry
from .anchor_grid import AnchorGrid
from .backbones import build_pyramid
from .detector import Detector
from .matching import IGNORED
from .options_3d import common_arguments

#: The path of the class, as a bundle names it.
TARGET = "MedMapAILib.networks.detection.retinanet_3d.RetinaNet3D"
#: Candidates an image, before suppression.
_CANDIDATES = 1000


class RetinaNet3D(Detector):
    """RetinaNet on volumes. See ``build`` for the arguments; none is left open.

    Losses: "classification", the focal loss (α 0.25, γ 2) over all anchors but those ignored, and "box", twice (as in
    ATSS) 1 - generalized IoU of the anchors that learn an object; both summed and divided by how many those are in the
    batch.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        backbone: str,
        anchors: Sequence[Sequence[float]],
        strides: Sequence[Sequence[int]],
        width: float,
        detections: int,
        score_floor: float,
        nms: float,
        dropout: float,
    ):
        super().__init__(
            spatial_dims=3,
            in_channels=in_channels,
            classes=classes,
            detections=detections,
            score_floor=score_floor,
            nms=nms,
        )
        self.grid = AnchorGrid(anchors, strides)
        self.divisor = tuple(strides[-1])
        pyramid = build_pyramid(backbone, in_channels, width, strides, self.grid.levels)
        self.drop = nn.Dropout(dropout)
        self.network = RetinaNet(3, classes, self.grid.most, pyramid, self.divisor)

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]], proposals: list[Tensor] | None) -> dict:
        logits, deltas, centers, anchors = self._heads(images)
        every = torch.cat(anchors)
        classification, box, positives = logits.sum() * 0, deltas.sum() * 0, 0
        for n, target in enumerate(targets):
            matched = self.grid.match(target, centers, anchors)
            learning = matched >= 0
            wanted = torch.zeros_like(logits[n])
            wanted[learning, target["labels"][matched[learning]]] = 1
            counted = matched != IGNORED
            classification = classification + sigmoid_focal_loss(logits[n][counted], wanted[counted], reduction="sum")
            found = geometry.decode(deltas[n][learning], every[learning])
            overlap = geometry.paired_generalized_iou(found, target["boxes"][matched[learning]])
            box = box + (1 - overlap).sum()
            positives += int(learning.sum())
        return {"classification": classification / max(1, positives), "box": 2 * box / max(1, positives)}

    def detect(self, images: Tensor, size: tuple[int, ...], proposals: list[Tensor] | None) -> list[dict[str, Tensor]]:
        logits, deltas, _, anchors = self._heads(images)
        every = torch.cat(anchors)
        results = []
        for image_logits, image_deltas in zip(logits, deltas, strict=True):
            scores, order = image_logits.flatten().sigmoid().sort(descending=True, stable=True)
            order = order[: min(_CANDIDATES, int((scores >= self.score_floor).sum()))]
            place, labels = order // self.classes, order % self.classes
            boxes = geometry.decode(image_deltas[place], every[place])
            results.append(self.select(boxes, scores[: len(order)], labels, size)[0])
        return results

    def _heads(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Logits (B, A, classes), deltas (B, A, 6), float32; middles of cells and anchors of each level."""
        features = [self.drop(level) for level in self.network.feature_extractor(images)]
        centers, anchors = self.grid.lay(features)
        logits = self.grid.rows(self.network.classification_head(features), self.classes)
        deltas = self.grid.rows(self.network.regression_head(features), 2 * self.spatial_dims)
        return logits, deltas, centers, anchors


def arguments(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The arguments of the class, checked, with nothing left open, as JSON takes them. Raises InputError."""
    return common_arguments(in_channels=in_channels, classes=classes, **options)


def build(*, in_channels: int, classes: int, **options: Any) -> RetinaNet3D:
    """A RetinaNet to train on volumes (B, in_channels, *S). options: see ``options_3d.common_arguments``.

    Raises InputError.
    """
    return RetinaNet3D(**arguments(in_channels=in_channels, classes=classes, **options))


def definition(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The same as a bundle writes it down. Raises InputError."""
    return {"_target_": TARGET} | arguments(in_channels=in_channels, classes=classes, **options)
