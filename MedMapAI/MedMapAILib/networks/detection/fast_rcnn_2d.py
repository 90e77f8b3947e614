"""Fast R-CNN in two dimensions: torchvision's heads on proposals from outside.

Girshick, "Fast R-CNN", ICCV 2015, https://arxiv.org/abs/1504.08083. The proposals are bright spots that need no
learning to be found, or whatever boxes the data come with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...blobs import blob_proposals, sizes_around
from ...errors import InputError
from .torchvision_detectors import RegionDetector, common_arguments
from .torchvision_parts import turned

#: The path of the class, as a bundle names it.
TARGET = "MedMapAILib.networks.detection.fast_rcnn_2d.FastRCNN2D"
PROPOSALS = ("blobs", "given")
#: Bright spots an image.
_COUNT = 300


class FastRCNN2D(RegionDetector):
    """Fast R-CNN on slices. See ``build`` for the arguments; none is left open.

    Losses: "loss_classifier" and "loss_box_reg". Proposals at ignored places are not learned from.
    """

    def __init__(self, *, anchors: Sequence[Sequence[float]], proposals: str, **common: Any):
        super().__init__(**common)
        self.proposals = proposals
        self.sizes = sizes_around(anchors)

    def propose(
        self,
        images: Tensor,
        features: dict[str, Tensor],
        size: tuple[int, int],
        targets: list[dict[str, Tensor]] | None,
        proposals: list[Tensor] | None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        if proposals is None:
            if self.proposals == "given":
                raise InputError(
                    "This Fast R-CNN chooses among proposals that it is given, and there are none; name a table of "
                    "them (dataset.proposals), or choose the network option proposals 'blobs'."
                )
            proposals = blob_proposals(images[..., : size[0], : size[1]], sizes=self.sizes, count=_COUNT)
        return [turned(boxes) for boxes in proposals], {}


def arguments(*, in_channels: int, classes: int, proposals: str = "blobs", **options: Any) -> dict[str, Any]:
    """The arguments of the class, checked, with nothing left open, as JSON takes them. Raises InputError."""
    if proposals not in PROPOSALS:
        raise InputError(f"Network option proposals is {proposals!r}; choose one of {', '.join(PROPOSALS)}.")
    return common_arguments(in_channels=in_channels, classes=classes, **options) | {"proposals": proposals}


def build(*, in_channels: int, classes: int, **options: Any) -> FastRCNN2D:
    """A Fast R-CNN to train on slices (B, in_channels, A, B).

    options: proposals ("blobs": bright spots about as large as the anchors, see ``blobs``; "given": those that are
    handed over with the images, which "blobs" takes too where there are some), and backbone, anchors, strides, width,
    detections, score_floor, nms, dropout; see ``torchvision_detectors.common_arguments``. Raises InputError.
    """
    return FastRCNN2D(**arguments(in_channels=in_channels, classes=classes, **options))


def definition(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The same as a bundle writes it down. Raises InputError."""
    return {"_target_": TARGET} | arguments(in_channels=in_channels, classes=classes, **options)
