"""Mask R-CNN in three dimensions: Faster R-CNN with a head that draws each finding.

He, Gkioxari, Dollár, Girshick, "Mask R-CNN", ICCV 2017, https://arxiv.org/abs/1703.06870.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .faster_rcnn_3d import FasterRCNN3D
from .heads import MaskHead, of_class
from .mask_targets import mask_targets
from .options_3d import common_arguments
from .region_detector import Samples

#: The path of the class, as a bundle names it.
TARGET = "MedMapAILib.networks.detection.mask_rcnn_3d.MaskRCNN3D"
#: Bins along each axis of a region; the mask has twice as many.
_BINS = 7


class MaskRCNN3D(FasterRCNN3D):
    """Mask R-CNN on volumes; masks are 14 × 14 × 14. See ``build`` for the arguments; none is left open.

    Losses: those of Faster R-CNN and "mask", the binary cross entropy over the bins of regions that are objects. An
    object that is not in the "instances" of its target is taken for the ellipsoid in its box.
    """

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.mask_head = MaskHead(self.pyramid.out_channels, self.classes, self.spatial_dims)

    def further_losses(self, features: list[Tensor], samples: list[Samples], targets: list[dict[str, Tensor]]) -> dict:
        objects = [s.rows >= 0 for s in samples]
        boxes = [s.boxes[own] for s, own in zip(samples, objects, strict=True)]
        rows = [s.rows[own] for s, own in zip(samples, objects, strict=True)]
        labels = torch.cat([t["labels"][own] for t, own in zip(targets, rows, strict=True)])
        logits = of_class(self.mask_head(self.pooled(features, boxes, _BINS)), labels)
        every = zip(targets, boxes, rows, strict=True)
        wanted = torch.cat([mask_targets(target, own, row, 2 * _BINS) for target, own, row in every])
        loss = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return {"mask": loss / max(1, wanted.numel())}

    def finished(self, features: list[Tensor], results: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        boxes = [result["boxes"] for result in results]
        labels = torch.cat([result["labels"] for result in results])
        masks = of_class(self.mask_head(self.pooled(features, boxes, _BINS)), labels).sigmoid()
        parts = masks.split([len(own) for own in boxes])
        return [result | {"masks": own} for result, own in zip(results, parts, strict=True)]


def arguments(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The arguments of the class, checked, with nothing left open, as JSON takes them. Raises InputError."""
    return common_arguments(in_channels=in_channels, classes=classes, **options)


def build(*, in_channels: int, classes: int, **options: Any) -> MaskRCNN3D:
    """A Mask R-CNN to train on volumes (B, in_channels, *S). options: see ``options_3d.common_arguments``.

    Raises InputError.
    """
    return MaskRCNN3D(**arguments(in_channels=in_channels, classes=classes, **options))


def definition(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The same as a bundle writes it down. Raises InputError."""
    return {"_target_": TARGET} | arguments(in_channels=in_channels, classes=classes, **options)
