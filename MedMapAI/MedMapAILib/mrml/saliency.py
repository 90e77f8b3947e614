"""Saliency maps to volume nodes that lie over the image."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..results import Saliency
from .changes import unchanged_on_failure
from .geometry import matrix_of_array, world_matrix

#: From red over orange to yellow: no color is that of a gray image. Always there, in the desktop and without it.
_HEAT = "vtkMRMLColorTableNodeIron"
#: Below this share of the most the image is shown as it is: a map that says nothing hides nothing.
_SHOWN_FROM = 0.1


def node_from_saliency(
    saliency: Saliency,
    *,
    name: str,
    referenceVolumeNode: Any = None,
    node: Any = None,
    world: np.ndarray | None = None,
) -> Any:
    """A scalar volume node with a saliency map, to be laid over the image; ``node`` is filled anew if given.

    A new one is shown from 0 to 1 in heat colors, transparent where there is next to nothing; how a given one is shown
    stays. Referenced volume and ``world`` as for :func:`node_from_segmentation`. Where it fails the scene is as before.
    """
    import slicer

    parent = referenceVolumeNode.GetParentTransformNode() if referenceVolumeNode is not None else None
    if world is None:
        world = world_matrix(referenceVolumeNode) if referenceVolumeNode is not None else np.eye(4)
    matrix = matrix_of_array(np.linalg.inv(world) @ saliency.affine)
    with unchanged_on_failure() as scene:
        if node is None:
            node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(node, saliency.values.T)  # first, because memory may not do
        node.SetName(name)
        node.SetDescription(f"Where the network looked for {saliency.of_class}, by {saliency.method}; 0 to 1.")
        node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
        node.SetIJKToRASMatrix(matrix)
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetAndObserveColorNodeID(_HEAT)
            display.AutoWindowLevelOff()
            display.SetWindowLevelMinMax(0.0, 1.0)
            display.SetAutoThreshold(False)
            display.SetThreshold(_SHOWN_FROM, 1.0)
            display.ApplyThresholdOn()
    return node
