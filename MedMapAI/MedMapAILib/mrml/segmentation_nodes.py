"""Segmentations to segmentation nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from ..results import Segmentation
from .changes import unchanged_on_failure
from .geometry import world_matrix
from .oriented_images import oriented_image, set_reference_geometry


def node_from_segmentation(
    segmentation: Segmentation,
    *,
    name: str,
    referenceVolumeNode: Any = None,
    node: Any = None,
    world: np.ndarray | None = None,
) -> Any:
    """A segmentation node with the segments' names, colors and terminology, visible; ``node`` is filled anew if given.

    With a reference volume the node is tied to its geometry and put under its transform, with the voxels where
    ``segmentation`` has them in the world. ``world`` is the :func:`world_matrix` of that volume at the time when
    ``segmentation`` was made, by default now: of a volume that was moved since then, the segments move along.
    Where it fails the scene is as before.
    """
    import slicer

    parent = referenceVolumeNode.GetParentTransformNode() if referenceVolumeNode is not None else None
    if world is None:
        world = world_matrix(referenceVolumeNode) if referenceVolumeNode is not None else np.eye(4)
    image = oriented_image(segmentation.labels, np.linalg.inv(world) @ segmentation.affine)
    # All that can fail is done before the scene is touched. One label map is shared by all segments.
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    made = []
    for segment in segmentation.segments:
        one = slicer.vtkSegment()
        one.SetName(segment.name)
        one.SetColor(*segment.color)
        one.SetLabelValue(int(segment.value))
        if segment.terminology:
            if hasattr(one, "SetTerminology"):
                one.SetTerminology(segment.terminology)
            else:
                one.SetTag(one.GetTerminologyEntryTagName(), segment.terminology)
        one.AddRepresentation(binary, image)
        made.append((f"Segment_{segment.value}", one))
    with unchanged_on_failure() as scene:
        if node is None:
            node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        modifying = node.StartModify()
        try:
            node.SetName(name)
            node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
            content = node.GetSegmentation()
            content.RemoveAllSegments()
            content.SetSourceRepresentationName(binary)
            if referenceVolumeNode is not None:
                node.SetReferenceImageGeometryParameterFromVolumeNode(referenceVolumeNode)
            else:
                set_reference_geometry(content, image)
            for identifier, one in made:
                if not content.AddSegment(one, identifier):
                    raise InputError(f"Segment {one.GetName()!r} cannot be added to segmentation {name!r}.")
        finally:
            node.EndModify(modifying)
        node.CreateDefaultDisplayNodes()
    return node
