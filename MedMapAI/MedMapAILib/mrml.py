"""MRML nodes to images, and results to MRML nodes: the only file of this library that knows 3D Slicer.

Voxels cross by memory, never by a file. Arrays of Slicer come as (K, J, I) and are turned around here, in
``_array_of`` and ``_oriented_image``. Everything is taken and put where it is in the world: linear parent transforms
are part of an image's affine, non-linear ones are refused.

Works in the Slicer desktop and with the ``slicer`` package of trame-slicer (see ``standalone_scene.py``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .image import affine_of, check_affine, check_finite, make_image, shear_notes
from .results import (
    Classification,
    Saliency,
    Segment,
    Segmentation,
    color_of,
    declared_labels,
    label_type,
    on_grid,
    unique_names,
    whole_labels,
)

if TYPE_CHECKING:
    from monai.data import MetaTensor

# --------------------------------------------------------------------------------------------------------------------
# From nodes


def image_from_node(volumeNode: Any, *, frame: int | None = None) -> MetaTensor:
    """The image (C, I, J, K) of a volume node, where the node is in the world; a copy, the node stays as it is.

    ``frame`` and errors as in :func:`voxels_from_node`.
    """
    voxels, affine, notes = voxels_from_node(volumeNode, frame=frame)
    return make_image(voxels, affine, meta={"notes": list(notes)})


def voxels_from_node(volumeNode: Any, *, frame: int | None = None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Voxels (C, I, J, K) of a volume node, the matrix voxel index → world (4x4, RAS mm), and notes on them.

    Needs numpy alone. The voxels keep their type and are a view into the node's memory: read them at once, and change
    nothing. There is one channel, and of a color picture (a vector volume of one slice, or one that says that it holds
    colors) there are three, red, green and blue; opacity is left out where it is full everywhere. ``frame`` (from 0)
    picks one frame of a sequence node, or one component of a vector, color or multi-frame volume. Notes are sentences
    on the geometry that the user should know.
    Raises InputError for a missing or empty volume, for one of several frames, for a picture that is transparent
    somewhere, for NaN and infinite voxels, and for a node under a non-linear transform.
    """
    node = _volume_of(volumeNode, frame)
    array = _array_of(node, frame if node is volumeNode else None)
    check_finite(array, f"Volume {_name(node)}")
    affine = check_affine(world_matrix(volumeNode) @ _node_affine(node), f"Volume {_name(node)}")
    return array, affine, tuple(f"On the volume: {note}." for note in shear_notes(affine))


def volume_state(volumeNode: Any) -> tuple[Any, Any]:
    """Two values to compare with later ones, to learn what has become of a volume node in the meantime.

    The first is another one when its own grid changed (size, spacing, origin, directions; transforms play no part),
    the second when its voxels did. Both are None for a volume without voxels.
    """
    data = volumeNode.GetImageData()
    if data is None:
        return None, None
    return (data.GetExtent(), _node_affine(volumeNode).tobytes()), data.GetMTime()


def _volume_of(node: Any, frame: int | None) -> Any:
    """The volume node to read: the node itself, or the data node of a frame of a sequence node."""
    if node is None:
        raise InputError("No volume is chosen; choose one.")
    if node.IsA("vtkMRMLSequenceNode"):
        count = node.GetNumberOfDataNodes()
        if frame is None:
            raise InputError(
                f"{_name(node)} is a sequence of {count} items where one 3D volume is needed; choose its proxy volume, "
                f"or frame=N with N from 0 to {count - 1}."
            )
        if not 0 <= int(frame) < count:
            raise InputError(f"{_name(node)} has no frame {frame}: it holds {count}, counted from 0.")
        node = node.GetNthDataNode(int(frame))
    if not node.IsA("vtkMRMLVolumeNode"):
        raise InputError(f"{_name(node)} is not a volume; choose a volume.")
    data = node.GetImageData()
    if data is None or data.GetNumberOfPoints() == 0 or data.GetPointData().GetScalars() is None:
        raise InputError(f"Volume {_name(node)} is empty; load or choose another one.")
    return node


def _array_of(node: Any, frame: int | None) -> np.ndarray:
    """Voxels (C, I, J, K) of a volume node, a view into its memory."""
    from vtk.util.numpy_support import vtk_to_numpy

    data = node.GetImageData()
    components = data.GetNumberOfScalarComponents()
    shape = (*reversed(data.GetDimensions()), components)
    voxels = vtk_to_numpy(data.GetPointData().GetScalars()).reshape(shape).T
    if components == 1:
        return voxels
    if frame is None and _is_picture(node):
        return _without_opacity(voxels, node)
    if frame is None or not 0 <= int(frame) < components:
        raise InputError(
            f"Volume {_name(node)} has {components} values in each voxel (color, vectors or frames) where one is "
            "needed; convert it to a scalar volume, or choose one of the values with frame=N, "
            f"N from 0 to {components - 1}."
        )
    return voxels[int(frame)][None]


def _is_picture(node: Any) -> bool:
    """Whether the values of a voxel are a color, as in a photograph or an RGB picture, and no vector or time series."""
    if not node.IsA("vtkMRMLVectorVolumeNode") or node.GetImageData().GetNumberOfScalarComponents() > 4:
        return False
    colors = (node.VoxelVectorTypeColorRGB, node.VoxelVectorTypeColorRGBA)
    one_slice = 1 in node.GetImageData().GetDimensions()
    undefined = node.GetVoxelVectorType() == node.VoxelVectorTypeUndefined
    return node.GetVoxelVectorType() in colors or (one_slice and undefined)


def _without_opacity(voxels: np.ndarray, node: Any) -> np.ndarray:
    """Colors (C, I, J, K) without the opacity that comes last of two or four values."""
    if len(voxels) not in (2, 4):
        return voxels
    full = np.iinfo(voxels.dtype).max if voxels.dtype.kind == "u" else 1
    if (voxels[-1] != full).any():
        raise InputError(
            f"The picture {_name(node)} is transparent in places, so its colors are not all known; save it without "
            "transparency and load it again."
        )
    return voxels[:-1]


def _node_affine(node: Any) -> np.ndarray:
    """Voxel index (from 0) → RAS mm of the node itself, 4x4, without its transforms."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return _from_extent(_array_of_matrix(matrix), node.GetImageData())


def _from_extent(affine: np.ndarray, data: Any) -> np.ndarray:
    """The matrix for indices that count from 0, from one for those of a vtkImageData, which may start anywhere."""
    shift = np.eye(4)
    shift[:3, 3] = data.GetExtent()[::2]
    return affine @ shift


def world_matrix(node: Any) -> np.ndarray:
    """4x4 matrix from the coordinates of a node to the world (RAS mm); the identity without a parent transform.

    Raises InputError where a transform above the node is not linear.
    """
    import vtk

    transform = node.GetParentTransformNode() if hasattr(node, "GetParentTransformNode") else None
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise InputError(
            f"{_name(node)} is under the non-linear transform {_name(transform)}, which would bend its voxels; harden "
            "the transform (right-click the node in the Data module, Harden transform) and run again."
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return check_affine(_array_of_matrix(matrix), f"Transform {_name(transform)}")


def _array_of_matrix(matrix: Any) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _matrix_of_array(array: np.ndarray) -> Any:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=np.float64).ravel())
    return matrix


def _name(node: Any) -> str:
    return repr(node.GetName() or node.GetClassName())


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
    return on_grid(result, *_grid_of(referenceVolumeNode))


def _grid_of(volumeNode: Any) -> tuple[tuple[int, ...], np.ndarray]:
    """Size (I, J, K) and matrix voxel index → world RAS mm of a volume node."""
    node = _volume_of(volumeNode, None)
    affine = check_affine(world_matrix(node) @ _node_affine(node), f"Volume {_name(node)}")
    return tuple(node.GetImageData().GetDimensions()), affine


def _from_label_map(node: Any, segments: Sequence[Segment] | None) -> Segmentation:
    what = f"Label map {_name(node)}"
    node = _volume_of(node, None)
    labels = whole_labels(_array_of(node, None)[0], what)
    _, affine = _grid_of(node)
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

    what = f"Segmentation {_name(node)}"
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
            geometry = _oriented_image(np.zeros((1, 1, 1), np.uint8), np.eye(4))
            shape, affine = _grid_of(referenceVolumeNode)
            geometry.SetExtent(0, shape[0] - 1, 0, shape[1] - 1, 0, shape[2] - 1)
            geometry.SetGeometryFromImageToWorldMatrix(_matrix_of_array(np.linalg.inv(world) @ affine))
            _set_reference_geometry(content, geometry)
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
        return _grid_of(referenceVolumeNode)
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = content.GetConversionParameter(name)
    if not geometry:
        geometry = content.DetermineCommonLabelmapGeometry(content.EXTENT_UNION_OF_SEGMENTS, None)
    image = slicer.vtkOrientedImageData()
    if not slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, image, False):
        raise InputError(f"Segmentation {_name(node)} has no grid of its own; choose its reference volume.")
    dimensions = image.GetDimensions()
    if min(dimensions) < 1:
        raise InputError(f"Segmentation {_name(node)} is empty; choose another one.")
    return tuple(dimensions), check_affine(world @ _image_affine(image), f"Segmentation {_name(node)}")


def _image_affine(image: Any) -> np.ndarray:
    """Voxel index (from 0) → mm of a vtkOrientedImageData."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return _from_extent(_array_of_matrix(matrix), image)


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
    box_affine = world @ _image_affine(image) @ at
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


def roi_bounds(roiNode: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Center (RAS mm) and size (mm) of the smallest box along the world axes that holds a markups ROI node.

    Raises InputError where there is none, it is not placed or has no size, or it is under a non-linear transform.
    """
    if roiNode is None:
        raise InputError("No ROI is chosen; choose one.")
    if not roiNode.IsA("vtkMRMLMarkupsROINode"):
        raise InputError(f"{_name(roiNode)} is not an ROI; choose a markups ROI.")
    world_matrix(roiNode)  # refuses non-linear transforms
    size = roiNode.GetSize()
    if min(size) <= 0 or not np.isfinite(size).all():
        raise InputError(f"ROI {_name(roiNode)} has no size; place it in a view first.")
    matrix = _array_of_matrix(roiNode.GetObjectToWorldMatrix())
    extent = np.abs(matrix[:3, :3]) @ np.array(size)
    return tuple(float(v) for v in matrix[:3, 3]), tuple(float(v) for v in extent)


# --------------------------------------------------------------------------------------------------------------------
# To nodes


@contextlib.contextmanager
def unchanged_on_failure() -> Iterator[Any]:
    """Gives the scene; where the block fails, every node that was added to it in the block is removed again."""
    import slicer

    scene = slicer.mrmlScene
    before = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
    try:
        yield scene
    except BaseException:
        added = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
        for node in reversed([one for one in added if one.GetID() not in before]):
            scene.RemoveNode(node)
        raise


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
    image = _oriented_image(segmentation.labels, np.linalg.inv(world) @ segmentation.affine)
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
                _set_reference_geometry(content, image)
            for identifier, one in made:
                if not content.AddSegment(one, identifier):
                    raise InputError(f"Segment {one.GetName()!r} cannot be added to segmentation {name!r}.")
        finally:
            node.EndModify(modifying)
        node.CreateDefaultDisplayNodes()
    return node


def _set_reference_geometry(content: Any, image: Any) -> None:
    """Make the grid of a vtkOrientedImageData the one in which a vtkSegmentation makes new label maps."""
    import slicer

    content.SetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
        slicer.vtkSegmentationConverter.SerializeImageGeometry(image),
    )


def _oriented_image(labels: np.ndarray, affine: np.ndarray) -> Any:
    """A vtkOrientedImageData with a copy of labels (I, J, K) at the place that a matrix voxel index → mm says."""
    import slicer
    from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*labels.shape)
    image.AllocateScalars(get_vtk_array_type(labels.dtype), 1)
    target = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(labels.shape)))
    target[:] = labels.T
    image.SetGeometryFromImageToWorldMatrix(_matrix_of_array(affine))
    return image


def volume_node_from_image(image: Any, *, name: str, node: Any = None) -> Any:
    """A scalar volume node (float) with a one-channel image (1, I, J, K); ``node`` is filled anew if given.

    A given node keeps its parent transform, and its voxels lie in the world where the image has them.
    Where it fails the scene is as before.
    """
    import slicer

    if len(image.shape) != 4 or image.shape[0] != 1:
        raise InputError(f"A volume node needs an image (1, i, j, k), not one of shape {tuple(image.shape)}.")
    affine = check_affine(affine_of(image), "The image")
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image, dtype=np.float32)[0]
    if node is not None:
        affine = np.linalg.inv(world_matrix(node)) @ affine
    with unchanged_on_failure() as scene:
        if node is None:
            node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        node.SetName(name)
        node.SetIJKToRASMatrix(_matrix_of_array(affine))
        slicer.util.updateVolumeFromArray(node, array.T)
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
    return node


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
    matrix = _matrix_of_array(np.linalg.inv(world) @ saliency.affine)
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


# --------------------------------------------------------------------------------------------------------------------
# Tables and curves


def _column(kind: str, name: str, values: Iterable[Any]) -> Any:
    import vtk

    column = {"text": vtk.vtkStringArray, "whole": vtk.vtkIntArray, "number": vtk.vtkDoubleArray}[kind]()
    column.SetName(name)
    for value in values:
        # Half a character, as in a damaged file, ends the whole program in VTK.
        column.InsertNextValue(value.encode("utf-8", "replace").decode() if kind == "text" else value)
    return column


def _fill(tableNode: Any, columns: Sequence[Any]) -> None:
    """Replace the columns of a table node, with one event at the end."""
    modifying = tableNode.StartModify()
    try:
        tableNode.RemoveAllColumns()
        for column in columns:
            tableNode.AddColumn(column)
        # Renamed between Slicer 5.10 and 5.11, where the old name still works and warns.
        header = getattr(tableNode, "SetUseColumnTitleAsColumnHeader", None) or tableNode.SetUseColumnNameAsColumnHeader
        header(True)
    finally:
        tableNode.EndModify(modifying)


def node_from_volumes_table(segmentation: Segmentation, *, name: str, node: Any = None) -> Any:
    """A table node with a row for each segment: Segment, Voxels, Volume (mL); ``node`` is filled anew if given."""
    counts, volumes = segmentation.voxel_counts(), segmentation.volumes_ml()
    columns = [
        _column("text", "Segment", list(counts)),
        _column("whole", "Voxels", list(counts.values())),
        _column("number", "Volume (mL)", list(volumes.values())),
    ]
    with unchanged_on_failure() as scene:
        if node is None:
            node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
        node.SetName(name)
        _fill(node, columns)
    return node


def node_from_classification(result: Classification, *, name: str, node: Any = None) -> Any:
    """A table node with a row for each class: Class, Probability, Threshold, Called; ``node`` is filled anew if given.

    Threshold is the operating point, empty where the highest probability decides. The node's description has the
    sentences that belong to the result. Where it fails the scene is as before.
    """
    columns = [
        _column("text", "Class", result.classes),
        _column("number", "Probability", map(float, result.probabilities)),
        _column("text", "Threshold", ["" if t is None else f"{t:.6g}" for t in result.thresholds]),
        _column("text", "Called", ["yes" if each in result.called else "no" for each in result.classes]),
    ]
    unfamiliar = result.familiarity is not None and not result.familiarity.familiar
    said = ["Research use only.", *([result.familiarity.sentence] if unfamiliar else []), *result.notes]
    with unchanged_on_failure() as scene:
        if node is None:
            node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
        node.SetName(name)
        node.SetDescription(" ".join(said))
        _fill(node, columns)
    return node


# Column name, key in a row of the history, and color of the curve (None: not drawn).
_HISTORY = (
    ("Epoch", "epoch", None),
    ("Training loss", "train_loss", (0.12, 0.47, 0.71)),
    ("Validation loss", "validation_loss", (1.0, 0.5, 0.05)),
    ("Learning rate", "learning_rate", None),
)
#: The score that a training follows: name, and title of its curve.
_SCORES = {"dice": "Validation Dice", "auc": "Validation AUC"}
_SCORE_COLOR = (0.17, 0.63, 0.17)


def history_nodes(name: str, score: str = "dice") -> tuple[Any, Any]:
    """A table node and a plot chart node for the course of a training; those of this name are used again.

    The chart draws training loss, validation loss and a score of the validation part ("dice" or "auc") over the epoch.
    See :func:`update_history`.
    """
    columns = (*_HISTORY[:3], (_SCORES[score], f"validation_{score}", _SCORE_COLOR), _HISTORY[3])
    with unchanged_on_failure() as scene:
        table = _first_of_name(scene, "vtkMRMLTableNode", name)
        chart = _first_of_name(scene, "vtkMRMLPlotChartNode", name)
        if table is not None and table.GetColumnIndex(_SCORES[score]) < 0:
            # That of a training of another task.
            _remove_chart(chart)
            scene.RemoveNode(table)
            table = chart = None
        if table is None:
            table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
            _fill(table, [_column("number", title, []) for title, _, _ in columns])
        if chart is None:
            chart = _new_chart(name, "Epoch", "")
            for title, _, color in columns:
                if color is not None:
                    _add_series(chart, title, table, "Epoch", title, color)
    return table, chart


def update_history(tableNode: Any, chartNode: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Fill the nodes of :func:`history_nodes` with all epochs so far, in place, so that an open plot follows.

    ``rows`` are the training's "epoch" events: dicts with ``epoch``, ``train_loss``, ``validation_loss``,
    ``validation_dice`` or ``validation_auc``, ``learning_rate``; what is missing or None is left out of the curve (NaN
    in the table).
    """
    keys = {title: key for title, key, _ in _HISTORY} | {title: f"validation_{s}" for s, title in _SCORES.items()}

    def number(row: dict[str, Any], key: str) -> float:
        value = row.get(key)
        return math.nan if value is None else float(value)

    titles = [tableNode.GetColumnName(n) for n in range(tableNode.GetNumberOfColumns())]
    _fill(tableNode, [_column("number", title, [number(row, keys[title]) for row in rows]) for title in titles])
    tableNode.Modified()
    chartNode.Modified()


# Key of the curves, title, keys of a curve's points (x, y), titles of the axes, and what the diagonal means.
_CURVES = (
    (
        "roc", "ROC", ("false_positive_rate", "true_positive_rate"),
        ("False positive rate (1 - specificity)", "True positive rate (sensitivity)"), "chance",
    ),
    ("precision_recall", "precision-recall", ("recall", "precision"), ("Recall (sensitivity)", "Precision"), None),
    (
        "reliability", "reliability", ("confidence", "frequency"),
        ("Probability that the model gives", "Share that came true"), "perfectly calibrated",
    ),
)  # fmt: skip


def curve_nodes(name: str, curves: dict[str, dict[str, dict[str, Sequence[float]]]]) -> dict[str, Any]:
    """Plot chart nodes of a classifier's curves: ``{"roc": chart, "precision_recall": chart, "reliability": chart}``.

    curves: of ``metrics.classification_curves``: {"roc": {class: points}, …}. Each chart, named "<name> ROC" and so on,
    has a curve a class, the diagonal, the operating points, and a table node with the numbers; those of this name are
    made anew. Curves without a point are left out. Where it fails the scene is as before.
    """
    charts, old = {}, []
    with unchanged_on_failure() as scene:
        for key, title, points, axes, diagonal in _CURVES:
            drawn = {each: tuple(list(some[p]) for p in points) for each, some in curves.get(key, {}).items()}
            if not drawn:
                continue
            marks = [tuple(some["operating_point"]) for some in curves[key].values() if some.get("operating_point")]
            # Reliability has few points, and a line between them is only to guide the eye.
            dots = {"marks": True} if key == "reliability" else {}
            lines = [(each, *xy, {"color": color_of(n), **dots}) for n, (each, xy) in enumerate(drawn.items(), start=1)]
            if diagonal:
                lines.append((diagonal, [0.0, 1.0], [0.0, 1.0], {"color": (0.6, 0.6, 0.6), "dashed": True}))
            if marks:
                xs, ys = ([float(mark[axis]) for mark in marks] for axis in (0, 1))
                lines.append(("operating point", xs, ys, {"color": (0.0, 0.0, 0.0), "marks": True, "line": False}))
            for each in ("vtkMRMLPlotChartNode", "vtkMRMLTableNode"):
                old.append(_first_of_name(scene, each, f"{name} {title}"))
            charts[key] = _curve_chart(f"{name} {title}", axes, lines)
    for node in old:
        if node is not None and node.IsA("vtkMRMLPlotChartNode"):
            _remove_chart(node)
        elif node is not None:
            scene.RemoveNode(node)
    return charts


def _curve_chart(name: str, axes: tuple[str, str], lines: Sequence[tuple]) -> Any:
    """A chart from 0 to 1. lines: (name, xs, ys, look) each."""
    import slicer

    chart = _new_chart(name, *axes)
    for direction in ("X", "Y"):
        getattr(chart, f"Set{direction}AxisRangeAuto")(False)
        getattr(chart, f"Set{direction}AxisRange")(0.0, 1.0)
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    rows = max(len(xs) for _, xs, _, _ in lines)
    columns = []
    for title, xs, ys, _ in lines:
        for axis, values in (("x", xs), ("y", ys)):
            # A shorter curve stays where it ends.
            columns.append(_column("number", f"{title}: {axis}", [*values, *[values[-1]] * (rows - len(values))]))
    _fill(table, columns)
    for title, _, _, look in lines:
        _add_series(chart, title, table, f"{title}: x", f"{title}: y", **look)
    return chart


def _new_chart(name: str, x_title: str, y_title: str) -> Any:
    import slicer

    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", name)
    chart.SetTitle(name)
    chart.SetXAxisTitle(x_title)
    chart.SetYAxisTitle(y_title)
    return chart


def _add_series(
    chart: Any,
    name: str,
    table: Any,
    x: str,
    y: str,
    color: tuple,
    *,
    line: bool = True,
    dashed: bool = False,
    marks: bool = False,
) -> None:
    """Draw columns x and y of a table node, as a line, marks, or both."""
    import slicer

    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(x)
    series.SetYColumnName(y)
    series.SetPlotType(series.PlotTypeScatter)
    style = series.LineStyleDash if dashed else series.LineStyleSolid
    series.SetLineStyle(style if line else series.LineStyleNone)
    series.SetMarkerStyle(series.MarkerStyleCircle if marks else series.MarkerStyleNone)
    series.SetColor(*color)
    chart.AddAndObservePlotSeriesNodeID(series.GetID())


def _remove_chart(chart: Any) -> None:
    """Remove a chart node with its series; nothing happens for None."""
    import slicer

    if chart is not None:
        for series in [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]:
            slicer.mrmlScene.RemoveNode(series)
        slicer.mrmlScene.RemoveNode(chart)


def _first_of_name(scene: Any, className: str, name: str) -> Any:
    for index in range(scene.GetNumberOfNodesByClass(className)):
        node = scene.GetNthNodeByClass(index, className)
        if node.GetName() == name:
            return node
    return None
