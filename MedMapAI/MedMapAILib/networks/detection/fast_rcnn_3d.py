"""Fast R-CNN in three dimensions: a head that looks at regions which something else proposes.

Girshick, "Fast R-CNN", ICCV 2015, https://arxiv.org/abs/1504.08083. The proposals are bright spots that need no
learning to be found, or whatever boxes the data come with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ... import boxes as geometry
from ...blobs import blob_proposals, sizes_around
from ...errors import InputError
from .options_3d import common_arguments
from .region_detector import RegionDetector3D

#: The path of the class, as a bundle names it.
TARGET = "MedMapAILib.networks.detection.fast_rcnn_3d.FastRCNN3D"
PROPOSALS = ("blobs", "given")
#: Bright spots an image.
_COUNT = 300


class FastRCNN3D(RegionDetector3D):
    """Fast R-CNN on volumes. See ``build`` for the arguments; none is left open.

    Losses: "classification" and "box".
    """

    def __init__(self, *, anchors: Sequence[Sequence[float]], proposals: str, **common: Any):
        super().__init__(anchors=anchors, **common)
        self.proposals = proposals
        self.sizes = sizes_around(anchors)

    def propose(
        self,
        images: Tensor,
        features: list[Tensor],
        size: tuple[int, ...],
        targets: list[dict[str, Tensor]] | None,
        proposals: list[Tensor] | None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        if proposals is None:
            if self.proposals == "given":
                raise InputError(
                    "This Fast R-CNN chooses among proposals that it is given, and there are none; name a table of "
                    "them (dataset.proposals), or choose the network option proposals 'blobs'."
                )
            inside = images[(slice(None), slice(None), *(slice(n) for n in size))]
            proposals = blob_proposals(inside, sizes=self.sizes, count=_COUNT)
        clipped = [geometry.clip(boxes, size) for boxes in proposals]
        return [boxes[geometry.volumes(boxes) > 0] for boxes in clipped], {}


def arguments(*, in_channels: int, classes: int, proposals: str = "blobs", **options: Any) -> dict[str, Any]:
    """The arguments of the class, checked, with nothing left open, as JSON takes them. Raises InputError."""
    if proposals not in PROPOSALS:
        raise InputError(f"Network option proposals is {proposals!r}; choose one of {', '.join(PROPOSALS)}.")
    return common_arguments(in_channels=in_channels, classes=classes, **options) | {"proposals": proposals}


def build(*, in_channels: int, classes: int, **options: Any) -> FastRCNN3D:
    """A Fast R-CNN to train on volumes (B, in_channels, *S).

    options: proposals ("blobs": bright spots about as large as the anchors, see ``blobs``; "given": those that are
    handed over with the images, which "blobs" takes too where there are some), and those of
    ``options_3d.common_arguments``. Raises InputError.
    """
    return FastRCNN3D(**arguments(in_channels=in_channels, classes=classes, **options))


def definition(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The same as a bundle writes it down. Raises InputError."""
    return {"_target_": TARGET} | arguments(in_channels=in_channels, classes=classes, **options)
