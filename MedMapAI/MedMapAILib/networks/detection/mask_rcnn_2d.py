"""Mask R-CNN in two dimensions: Faster R-CNN with torchvision's head for a mask in each box.

He, Gkioxari, Dollár, Girshick, "Mask R-CNN", ICCV 2017, https://arxiv.org/abs/1703.06870.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from .faster_rcnn_2d import FasterRCNN2D
from .torchvision_detectors import common_arguments
from .torchvision_parts import RegionPool, instance_masks

#: The path of the class, as a bundle names it.
TARGET = "MedMapAILib.networks.detection.mask_rcnn_2d.MaskRCNN2D"
#: Cells along a side of a region; the mask has twice as many.
_REGION = 14
#: Convolutions of the head, with the channels of the pyramid.
_DEPTH = {True: 2, False: 4}


class MaskRCNN2D(FasterRCNN2D):
    """Mask R-CNN on slices; masks are 28 × 28. See ``build`` for the arguments; none is left open.

    Losses: those of Faster R-CNN and "loss_mask", from the "instances" of the targets. An object that is not in them is
    taken to fill the ellipse in its box.
    """

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        channels = self.backbone.out_channels
        self.roi_heads.mask_roi_pool = RegionPool(self.levels, _REGION)
        self.roi_heads.mask_head = MaskRCNNHeads(channels, (channels,) * _DEPTH[self.light], dilation=1)
        self.roi_heads.mask_predictor = _Predictor(channels, channels, self.classes + 1)

    def torchvision_target(self, target: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        instances = target.get("instances")
        drawn = size if instances is None else tuple(instances.shape)
        return super().torchvision_target(target, size) | {"masks": instance_masks(target, drawn)}


class _Predictor(MaskRCNNPredictor):
    """torchvision's, whose answers are float32 also where half precision computes the rest."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


def arguments(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The arguments of the class, checked, with nothing left open, as JSON takes them. Raises InputError."""
    return common_arguments(in_channels=in_channels, classes=classes, **options)


def build(*, in_channels: int, classes: int, **options: Any) -> MaskRCNN2D:
    """A Mask R-CNN to train on slices (B, in_channels, A, B).

    options: backbone, anchors, strides, width, detections, score_floor, nms, dropout; see
    ``torchvision_detectors.common_arguments``. Raises InputError.
    """
    return MaskRCNN2D(**arguments(in_channels=in_channels, classes=classes, **options))


def definition(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The same as a bundle writes it down. Raises InputError."""
    return {"_target_": TARGET} | arguments(in_channels=in_channels, classes=classes, **options)
