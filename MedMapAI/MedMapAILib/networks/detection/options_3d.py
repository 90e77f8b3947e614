"""The options that all detectors in three dimensions have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checks import check_dropout
from .anchors import default_anchors, default_strides
from .backbones import check_backbone, check_strides
from .detector import check_anchors, check_width, common_options


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
    nms: float = 0.2,
    dropout: float = 0.0,
) -> dict[str, Any]:
    """The arguments of a 3D detector, checked, with nothing left open, as JSON takes them.

    backbone: "light", "resnet18-fpn" or "resnet50-fpn". anchors: sizes in voxels, [[a, b, c], …]; see
    ``anchors.fit_anchors``. strides: voxels a cell, for each level and axis, such as [[4, 4, 2], [8, 8, 4]]; where none
    are given they follow from the anchors. width: all channels are multiplied by it. detections: at most so many an
    image. score_floor: what scores less is not given. nms: IoU above which the better of two boxes is kept.
    dropout: probability, before the last layers. Raises InputError.
    """
    anchors, strides = check_anchors(anchors, 3), check_strides(strides, 3)
    strides = strides or default_strides(anchors, 3)
    return {
        "in_channels": in_channels,
        "classes": classes,
        "backbone": check_backbone(backbone),
        "anchors": anchors or default_anchors(strides),
        "strides": strides,
        "width": check_width(width),
        **common_options(detections=detections, score_floor=score_floor, nms=nms),
        "dropout": check_dropout(dropout),
    }
