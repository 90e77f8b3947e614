"""What torchvision's detectors have in common as ours: the options, and the way from proposals to detections.

torchvision resizes and normalizes the images that its detectors get; here that part is left out, for our images are
normalized already and their boxes are on our grid. Only this package knows that torchvision counts x before y, and 0
as background where it chooses among classes. The names of the weights are torchvision's ("backbone.", "rpn.",
"roi_heads.", "head.").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads

from ..checks import check_dropout
from .anchors import default_anchors
from .detector import Detector, check_anchors, check_width, common_options
from .torchvision_backbones import feature_pyramid, levels_of, multiple_of_8
from .torchvision_parts import (
    RegionHead,
    RegionPool,
    RegionPredictor,
    image_list,
    training_proposals,
    turned,
)

#: Cells into which a region is divided to be looked at.
_REGION = 7
#: Outputs of the two layers of a region's head at the light backbone, and at the published ones.
_LIGHT_REPRESENTATION, _REPRESENTATION = 256, 1024
#: Regions an image that a region's head learns from: medical images hold few objects, and on a CPU looking up regions
#: costs as much as all of the light backbone. And which part of them are objects at most.
_LIGHT_SAMPLES, _SAMPLES, _OBJECTS = 128, 256, 0.25


def common_arguments(
    *,
    in_channels: int,
    classes: int,
    backbone: str = "light",
    anchors: Sequence[Sequence[float]] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    width: float = 1.0,
    detections: int = 100,
    score_floor: float = 0.02,
    nms: float = 0.5,
    dropout: float = 0.0,
) -> dict[str, Any]:
    """The arguments of a class, checked, with nothing left open, as JSON takes them.

    backbone: "light" (made here, group normalization), "resnet18-fpn", "resnet50-fpn" or "mobilenet" (torchvision's,
    with random weights). anchors: sizes in voxels, [[rows, columns], …]; see ``anchors.fit_anchors``. strides: voxels a
    cell, for each level and axis, such as [[4, 4], [8, 8]]; where none are given they follow from the backbone.
    width: the channels of the light backbone are multiplied by it. detections: at most so many an image. score_floor:
    what scores less is not given. nms: IoU above which the better of two boxes is kept. dropout: probability, before
    the last layers. Raises InputError.
    """
    checked = check_anchors(anchors, 2)
    if strides is None and backbone == "light" and checked and np.exp(np.log(checked).mean()) < 8:
        # A cell as wide as the objects shows none of them apart.
        strides = [[2, 2], [4, 4], [8, 8]]
    levels = [[level, level] for level in levels_of(backbone, strides)]
    return {
        "in_channels": in_channels,
        "classes": classes,
        "backbone": backbone,
        "anchors": checked or default_anchors(levels),
        "strides": levels,
        "width": check_width(width),
        **common_options(detections=detections, score_floor=score_floor, nms=nms),
        "dropout": check_dropout(dropout),
    }


class TorchvisionDetector(Detector):
    """A detector on a feature pyramid of torchvision's kind. See ``common_arguments``."""

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        backbone: str,
        strides: Sequence[Sequence[int]],
        width: float,
        detections: int,
        score_floor: float,
        nms: float,
    ):
        super().__init__(
            spatial_dims=2,
            in_channels=in_channels,
            classes=classes,
            detections=detections,
            score_floor=score_floor,
            nms=nms,
        )
        self.levels = levels_of(backbone, strides)
        self.divisor = (self.levels[-1],) * 2
        self.light = backbone == "light"
        self.backbone = feature_pyramid(backbone, in_channels, self.levels, width)
        self.width = width


class RegionDetector(TorchvisionDetector):
    """One that judges regions: proposals, from wherever ``propose`` has them, and torchvision's heads for them.

    Losses: "loss_classifier" and "loss_box_reg" of the heads, and those of ``propose``.
    """

    def __init__(self, *, dropout: float, **common: Any):
        super().__init__(**common)
        channels = self.backbone.out_channels
        size = multiple_of_8(_LIGHT_REPRESENTATION * self.width) if self.light else _REPRESENTATION
        self.roi_heads = RoIHeads(
            RegionPool(self.levels, _REGION),
            RegionHead(channels * _REGION**2, size, dropout),
            RegionPredictor(size, self.classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=_LIGHT_SAMPLES if self.light else _SAMPLES,
            positive_fraction=_OBJECTS,
            bbox_reg_weights=None,
            score_thresh=self.score_floor,
            nms_thresh=self.nms,
            detections_per_img=self.detections,
        )

    def propose(
        self,
        images: Tensor,
        features: dict[str, Tensor],
        size: tuple[int, int],
        targets: list[dict[str, Tensor]] | None,
        proposals: list[Tensor] | None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Boxes (P, 4) of each image in torchvision's order, and the losses of proposing, name → scalar.

        size: of the images before they were padded. targets: in torchvision's order, in training. proposals: that were
        given, in ours.
        """
        raise NotImplementedError

    def torchvision_target(self, target: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """A target as torchvision's heads take it. size: of the padded images."""
        return {
            "boxes": turned(target["boxes"]),
            "labels": target["labels"] + 1,
            "ignored": turned(target["ignored"]),
        }

    def losses(
        self, images: Tensor, targets: list[dict[str, Tensor]], proposals: list[Tensor] | None
    ) -> dict[str, Tensor]:
        size = tuple(images.shape[2:])
        theirs = [self.torchvision_target(target, size) for target in targets]
        features = self.backbone(images)
        boxes, losses = self.propose(images, features, size, theirs, proposals)
        boxes = training_proposals(boxes, theirs, size)
        _, of_heads = self.roi_heads(features, boxes, image_list(images, size).image_sizes, theirs)
        return {**of_heads, **losses}

    def detect(self, images: Tensor, size: tuple[int, ...], proposals: list[Tensor] | None) -> list[dict[str, Tensor]]:
        features = self.backbone(images)
        boxes, _ = self.propose(images, features, size, None, proposals)
        found, _ = self.roi_heads(features, boxes, image_list(images, size).image_sizes)
        results = []
        for one in found:
            result = {"boxes": turned(one["boxes"]), "scores": one["scores"], "labels": one["labels"] - 1}
            if "masks" in one:
                result["masks"] = one["masks"][:, 0].float()
            results.append(result)
        return results
