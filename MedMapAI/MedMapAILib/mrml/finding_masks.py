"""The voxels of findings as segments of one segmentation node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..results import Finding, FindingMask
from .finding_colors import score_color
from .finding_rois import SEGMENT, finding_name
from .geometry import world_matrix
from .oriented_images import image_affine, oriented_image, set_reference_geometry


def masks_node(
    scene: Any, findings: Sequence[Finding], rois: Sequence[Any], name: str, volumeNode: Any, world: np.ndarray
) -> Any:
    """A segmentation node with a segment for each finding that has a mask, named as its ROI; None without any mask.

    findings and rois: in the same order. Each segment has voxels of its own, so that findings may overlap. world: 4x4,
    of the transform above ``volumeNode`` (or None: no geometry to follow). The ROI refers to its segment.
    """
    import slicer

    having = [(n, finding) for n, finding in enumerate(findings) if finding.mask is not None]
    if not having:
        return None
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    inverse = np.linalg.inv(world)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    modifying = node.StartModify()
    try:
        parent = volumeNode.GetParentTransformNode() if volumeNode is not None else None
        node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
        content = node.GetSegmentation()
        content.SetSourceRepresentationName(binary)
        if volumeNode is not None:
            node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        for n, finding in having:
            image = oriented_image(finding.mask.values.astype(np.uint8), inverse @ finding.mask.affine)
            if volumeNode is None and n == having[0][0]:
                set_reference_geometry(content, image)
            segment = slicer.vtkSegment()
            segment.SetName(finding_name(finding, n + 1))
            segment.SetColor(*score_color(finding.score))
            segment.SetLabelValue(1)
            segment.AddRepresentation(binary, image)
            identifier = f"Finding_{n + 1}"
            if not content.AddSegment(segment, identifier):
                raise InputError(f"The voxels of finding {n + 1} cannot be added to segmentation {name!r}.")
            rois[n].SetAttribute(SEGMENT, identifier)
    finally:
        node.EndModify(modifying)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetOpacity2DFill(0.2)
    return node


def mask_of(node: Any, roiNode: Any) -> FindingMask | None:
    """The voxels of an ROI's finding in the segmentation node (or None), in the world; None where there are none."""
    import slicer
    from vtk.util.numpy_support import vtk_to_numpy

    identifier = roiNode.GetAttribute(SEGMENT)
    segment = node.GetSegmentation().GetSegment(identifier) if node is not None and identifier else None
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    image = segment.GetRepresentation(binary) if segment is not None else None
    if image is None or not image.GetNumberOfPoints() or image.GetPointData().GetScalars() is None:
        return None
    stored = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions()))).T
    values = stored == segment.GetLabelValue()
    if not values.any():
        return None
    return FindingMask(values, world_matrix(node) @ image_affine(image))


def show_mask(node: Any, roiNode: Any, on: bool) -> None:
    """Show or hide the segment of an ROI's finding, where there is one."""
    identifier = roiNode.GetAttribute(SEGMENT)
    if node is not None and identifier and node.GetDisplayNode() is not None:
        if node.GetSegmentation().GetSegment(identifier) is not None:
            node.GetDisplayNode().SetSegmentVisibility(identifier, on)


def remove_mask(node: Any, roiNode: Any) -> None:
    """Forget the voxels of an ROI's finding."""
    identifier = roiNode.GetAttribute(SEGMENT)
    if node is not None and identifier:
        node.GetSegmentation().RemoveSegment(identifier)
    roiNode.RemoveAttribute(SEGMENT)
