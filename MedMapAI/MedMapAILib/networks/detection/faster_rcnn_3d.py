"""Faster R-CNN in three dimensions: a region proposal network, and a head that looks at each region.

Ren, He, Girshick, Sun, "Faster R-CNN", NeurIPS 2015, https://arxiv.org/abs/1506.01497.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .options_3d import common_arguments
from .proposals import ProposalNetwork
from .region_detector import RegionDetector3D

#: The path of the class, as a bundle names it.
TARGET = "MedMapAILib.networks.detection.faster_rcnn_3d.FasterRCNN3D"


class FasterRCNN3D(RegionDetector3D):
    """Faster R-CNN on volumes. See ``build`` for the arguments; none is left open.

    Losses: "classification" and "box" of the regions, "proposal_objectness" and "proposal_box" of the anchors.
    """

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.proposal_network = ProposalNetwork(self.grid, self.pyramid.out_channels, self.spatial_dims)

    def propose(
        self,
        images: Tensor,
        features: list[Tensor],
        size: tuple[int, ...],
        targets: list[dict[str, Tensor]] | None,
        proposals: list[Tensor] | None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        return self.proposal_network(features, size, targets)


def arguments(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The arguments of the class, checked, with nothing left open, as JSON takes them. Raises InputError."""
    return common_arguments(in_channels=in_channels, classes=classes, **options)


def build(*, in_channels: int, classes: int, **options: Any) -> FasterRCNN3D:
    """A Faster R-CNN to train on volumes (B, in_channels, *S). options: see ``options_3d.common_arguments``.

    Raises InputError.
    """
    return FasterRCNN3D(**arguments(in_channels=in_channels, classes=classes, **options))


def definition(*, in_channels: int, classes: int, **options: Any) -> dict[str, Any]:
    """The same as a bundle writes it down. Raises InputError."""
    return {"_target_": TARGET} | arguments(in_channels=in_channels, classes=classes, **options)
