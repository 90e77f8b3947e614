"""RetinaNet, Faster R-CNN and Mask R-CNN, which have the same options; fast_rcnn.py has one more.

RetinaNet finds in one step, every anchor being an object of a class or not: Lin et al., "Focal Loss for Dense Object
Detection", ICCV 2017, https://arxiv.org/abs/1708.02002. 2D on torchvision's heads, 3D on MONAI's network.
Faster R-CNN finds in two, a network proposing regions and a head looking at each: Ren, He, Girshick, Sun, "Faster
R-CNN", NeurIPS 2015, https://arxiv.org/abs/1506.01497. 2D on torchvision's, 3D ours.
Mask R-CNN is a Faster R-CNN with a mask for each finding: He, Gkioxari, Dollár, Girshick, "Mask R-CNN", ICCV 2017,
https://arxiv.org/abs/1703.06870. 2D on torchvision's, 3D ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import families
from .detector import Detector
from .families import size_divisor


def build(
    *,
    family: str,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    backbone: str = "light",
    anchors: Sequence[Sequence[float]] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    width: float = 1.0,
    detections: int = 100,
    score_floor: float = 0.02,
    nms: float | None = None,
    dropout: float = 0.0,
) -> Detector:
    """A detector to train; ``out_channels`` is how many classes there are to find.

    family: "retinanet", "faster_rcnn" or "mask_rcnn". backbone: "light", "resnet18-fpn", "resnet50-fpn", in 2D also
    "mobilenet". anchors: sizes of boxes to start from, in voxels of the model's grid; see ``anchors.fit_anchors``.
    strides: voxels a cell for each level and axis, such as [[4, 4, 2], [8, 8, 4]]; None: what suits the anchors. width:
    all channels of the light backbone are multiplied by it. detections: at most so many an image. score_floor: what
    scores less is not given. nms: IoU above which only the better of two boxes of a class stays; None: 0.5 in 2D and
    0.2 in 3D. dropout: probability, before the last layers.
    Raises InputError.
    """
    return families.build(
        family,
        spatial_dims,
        in_channels,
        out_channels,
        {
            "backbone": backbone,
            "anchors": anchors,
            "strides": strides,
            "width": width,
            "detections": detections,
            "score_floor": score_floor,
            "nms": nms,
            "dropout": dropout,
        },
    )


def definition(
    *, family: str, spatial_dims: int, in_channels: int, out_channels: int, **options: Any
) -> dict[str, Any]:
    """The same network for inference, as a bundle names it. Raises InputError."""
    return families.definition(family, spatial_dims, in_channels, out_channels, options)


__all__ = ["build", "definition", "size_divisor"]
