"""Faster R-CNN in two dimensions: torchvision's proposal network and heads.

Ren, He, Girshick, Sun, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", NeurIPS 2015,
https://arxiv.org/abs/1506.01497.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .torchvision_detectors import RegionDetector, common_arguments
from .torchvision_parts import FittedAnchors, ProposalNetwork, image_list, level_anchors

#: The path of the class, as a bundle names it.
TARGET = "MedMapAILib.networks.detection.faster_rcnn_2d.FasterRCNN2D"


class FasterRCNN2D(RegionDetector):
    """Faster R-CNN on slices. See ``build`` for the arguments; none is left open.

    Losses: "loss_objectness" and "loss_rpn_box_reg" of the proposal network, "loss_classifier" and "loss_box_reg" of
    the heads. Neither learns from what is at an ignored place.
    """

    def __init__(self, *, anchors: Sequence[Sequence[float]], **common: Any):
        super().__init__(**common)
        generator = FittedAnchors(level_anchors(anchors, self.levels), self.levels)
        self.rpn = ProposalNetwork(generator, self.backbone.out_channels)

    def propose(
        self,
        images: Tensor,
        features: dict[str, Tensor],
        size: tuple[int, int],
        targets: list[dict[str, Tensor]] | None,
        proposals: list[Tensor] | None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        return self.rpn(image_list(images, size), features, targets)


def arguments(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The arguments of the class, checked, with nothing left open, as JSON takes them. Raises InputError."""
    return common_arguments(in_channels=in_channels, classes=classes, **options)


def build(*, in_channels: int, classes: int, **options: Any) -> FasterRCNN2D:
    """A Faster R-CNN to train on slices (B, in_channels, A, B).

    options: backbone, anchors, strides, width, detections, score_floor, nms, dropout; see
    ``torchvision_detectors.common_arguments``. Raises InputError.
    """
    return FasterRCNN2D(**arguments(in_channels=in_channels, classes=classes, **options))


def definition(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The same as a bundle writes it down. Raises InputError."""
    return {"_target_": TARGET} | arguments(in_channels=in_channels, classes=classes, **options)
