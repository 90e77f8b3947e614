"""Segmentation and label map nodes to segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..image import check_affine
from ..results import Segment, Segmentation, color_of, declared_labels, label_type, on_grid, unique_names, whole_labels
from .geometry import matrix_of_array, name_of, world_matrix
from .oriented_images import image_affine, oriented_image, set_reference_geometry
from .volumes import array_of, grid_of, volume_of


def segmentation_from_node(
    node: Any, referenceVolumeNode: Any = None, segments: Sequence[Segment] | None = None
) -> Segmentation:
    """The segmentation in a segmentation node or label map volume node, where it is in the world.

    It is given in the grid of the reference volume (also its transforms), by default in its own. ``segments`` are the
    ones that may occur: those of a segmentation node are matched by name (where all names are only numbers, as
    "Segment_1", by value), those of a label map by value.
    Raises InputError for a missing or empty node, segments that overlap, others than the declared ones, and non-linear
    transforms.
    """
    if node is None:
        raise InputError("No segmentation is chosen; choose one.")
    if node.IsA("vtkMRMLSegmentationNode"):
        result = _from_segmentation_node(node, referenceVolumeNode, segments)
    else:
        result = _from_label_map(node, segments)
    if referenceVolumeNode is None:
        return result
    return on_grid(result, *grid_of(referenceVolumeNode))


def _from_label_map(node: Any, segments: Sequence[Segment] | None) -> Segmentation:
    what = f"Label map {name_of(node)}"
    node = volume_of(node, None)
    labels = whole_labels(array_of(node, None)[0], what)
    _, affine = grid_of(node)
    if segments is not None:
        labels, found = declared_labels(labels, (), tuple(segments), what)
        return Segmentation(labels, affine, found)
    display = node.GetDisplayNode()
    colors = display.GetColorNode() if display else None
    found = []
    for value in (int(v) for v in np.unique(labels) if v):
        name, color = f"label {value}", color_of(value)
        if colors is not None and value < colors.GetNumberOfColors():
            rgba = [0.0] * 4
            if colors.GetColor(value, rgba):
                name, color = colors.GetColorName(value) or name, tuple(rgba[:3])
        found.append(Segment(value, name, color))
    return Segmentation(labels, affine, tuple(unique_names(found)))


def _from_segmentation_node(node: Any, referenceVolumeNode: Any, segments: Sequence[Segment] | None) -> Segmentation:
    import slicer

    what = f"Segmentation {name_of(node)}"
    world = world_matrix(node)
    content = node.GetSegmentation()
    count = content.GetNumberOfSegments() if content else 0
    if not count:
        raise InputError(f"{what} has no segments; choose another one.")
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if not content.ContainsRepresentation(binary):
        # Only surfaces so far. Made voxels in a copy, so that the user's node stays as it is.
        copy = slicer.vtkSegmentation()
        copy.DeepCopy(content)
        content = copy
        if referenceVolumeNode is not None:
            geometry = oriented_image(np.zeros((1, 1, 1), np.uint8), np.eye(4))
            shape, affine = grid_of(referenceVolumeNode)
            geometry.SetExtent(0, shape[0] - 1, 0, shape[1] - 1, 0, shape[2] - 1)
            geometry.SetGeometryFromImageToWorldMatrix(matrix_of_array(np.linalg.inv(world) @ affine))
            set_reference_geometry(content, geometry)
        if not content.CreateRepresentation(binary, True):
            raise InputError(f"{what} cannot be turned into voxels; choose another one.")
    pieces = []
    for index in range(count):
        segment = content.GetNthSegment(index)
        image = segment.GetRepresentation(binary)
        name = segment.GetName() or f"Segment_{index + 1}"
        terminology = segment.GetTerminology() if hasattr(segment, "GetTerminology") else _tag(segment)
        described = Segment(
            index + 1,
            name,
            tuple(min(max(float(part), 0.0), 1.0) for part in segment.GetColor()),
            terminology if terminology and terminology.strip("~^ ") else None,
        )
        pieces.append((described, image, segment.GetLabelValue()))
    shape, affine = _segmentation_grid(node, content, world, referenceVolumeNode)
    # The values that the node itself uses, unless two layers use the same one.
    stored_values = [stored for _, _, stored in pieces]
    if len(set(stored_values)) == count and min(stored_values) > 0:
        pieces = [(replace(described, value=stored), image, stored) for described, image, stored in pieces]
    owners = [described for described, _, _ in pieces]
    labels = np.zeros(shape, dtype=label_type(owner.value for owner in owners))
    for described, image, stored in pieces:
        if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
            continue
        taken = _paste(labels, affine, image, stored, described.value, world)
        if taken:
            other = next(owner.name for owner in owners if owner.value == taken)
            raise InputError(
                f"{what} has segments that overlap ({described.name!r} and {other!r}); a voxel can have one label "
                "only: make them exclusive in the Segment Editor."
            )
    found = unique_names(owners)
    if segments is None:
        return Segmentation(labels, affine, tuple(found))
    labels, declared = declared_labels(labels, tuple(found), tuple(segments), what)
    return Segmentation(labels, affine, declared)


def _tag(segment: Any) -> str | None:
    """The terminology of a segment in Slicer 5.10 and before, where it is a tag among others."""
    import vtk

    value = vtk.reference("")
    return str(value) if segment.GetTag(segment.GetTerminologyEntryTagName(), value) else None


def _segmentation_grid(
    node: Any, content: Any, world: np.ndarray, referenceVolumeNode: Any
) -> tuple[tuple[int, ...], np.ndarray]:
    """Size and matrix voxel index → world of the grid on which to give the segments of a segmentation node."""
    import slicer

    if referenceVolumeNode is not None:
        return grid_of(referenceVolumeNode)
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = content.GetConversionParameter(name)
    if not geometry:
        geometry = content.DetermineCommonLabelmapGeometry(content.EXTENT_UNION_OF_SEGMENTS, None)
    image = slicer.vtkOrientedImageData()
    if not slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, image, False):
        raise InputError(f"Segmentation {name_of(node)} has no grid of its own; choose its reference volume.")
    dimensions = image.GetDimensions()
    if min(dimensions) < 1:
        raise InputError(f"Segmentation {name_of(node)} is empty; choose another one.")
    return tuple(dimensions), check_affine(world @ image_affine(image), f"Segmentation {name_of(node)}")


def _paste(labels: np.ndarray, affine: np.ndarray, image: Any, stored: int, value: int, world: np.ndarray) -> int:
    """Set ``labels`` (in the grid of ``affine``) to ``value`` where a vtkOrientedImageData is ``stored``.

    Returns 0, or the label that a voxel had already (then ``labels`` is of no more use).
    """
    from vtk.util.numpy_support import vtk_to_numpy

    stores = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions()))).T
    mask = stores == stored
    if not mask.any():
        return 0
    # Only the box that holds the segment, in either grid.
    ends = [(int(hit[0]), int(hit[-1])) for hit in (np.flatnonzero(mask.any(axis=_others(a))) for a in range(3))]
    box = mask[tuple(slice(low, high + 1) for low, high in ends)].astype(np.uint8)
    at = np.eye(4)
    at[:3, 3] = [low for low, _ in ends]
    box_affine = world @ image_affine(image) @ at
    size = np.array(box.shape)
    corners = np.array(
        [(i, j, k, 1.0) for i in (-0.5, size[0] - 0.5) for j in (-0.5, size[1] - 0.5) for k in (-0.5, size[2] - 0.5)]
    )
    reached = (corners @ (np.linalg.inv(affine) @ box_affine).T)[:, :3]
    start = np.maximum(np.floor(reached.min(axis=0)), 0).astype(int)
    stop = np.minimum(np.ceil(reached.max(axis=0)) + 1, labels.shape).astype(int)
    if (stop <= start).any():
        return 0
    part = np.eye(4)
    part[:3, 3] = start
    inside = on_grid(Segmentation(box, box_affine, ()), stop - start, affine @ part).labels > 0
    region = labels[tuple(slice(low, high) for low, high in zip(start, stop, strict=True))]
    taken = region[inside]
    if taken.any():
        return int(taken.max())
    region[inside] = value
    return 0


def _others(axis: int) -> tuple[int, ...]:
    return tuple(a for a in range(3) if a != axis)
