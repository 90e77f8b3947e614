"""Volume nodes to images, and images to volume nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..image import affine_of, check_affine, check_finite, make_image, shear_notes
from .changes import unchanged_on_failure
from .geometry import matrix_of_array, name_of, node_affine, world_matrix

if TYPE_CHECKING:
    from monai.data import MetaTensor


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
    node = volume_of(volumeNode, frame)
    array = array_of(node, frame if node is volumeNode else None)
    check_finite(array, f"Volume {name_of(node)}")
    affine = check_affine(world_matrix(volumeNode) @ node_affine(node), f"Volume {name_of(node)}")
    return array, affine, tuple(f"On the volume: {note}." for note in shear_notes(affine))


def volume_state(volumeNode: Any) -> tuple[Any, Any]:
    """Two values to compare with later ones, to learn what has become of a volume node in the meantime.

    The first is another one when its own grid changed (size, spacing, origin, directions; transforms play no part),
    the second when its voxels did. Both are None for a volume without voxels.
    """
    data = volumeNode.GetImageData()
    if data is None:
        return None, None
    return (data.GetExtent(), node_affine(volumeNode).tobytes()), data.GetMTime()


def volume_of(node: Any, frame: int | None) -> Any:
    """The volume node to read: the node itself, or the data node of a frame of a sequence node."""
    if node is None:
        raise InputError("No volume is chosen; choose one.")
    if node.IsA("vtkMRMLSequenceNode"):
        count = node.GetNumberOfDataNodes()
        if frame is None:
            raise InputError(
                f"{name_of(node)} is a sequence of {count} items where one 3D volume is needed; choose its proxy "
                f"volume, or frame=N with N from 0 to {count - 1}."
            )
        if not 0 <= int(frame) < count:
            raise InputError(f"{name_of(node)} has no frame {frame}: it holds {count}, counted from 0.")
        node = node.GetNthDataNode(int(frame))
    if not node.IsA("vtkMRMLVolumeNode"):
        raise InputError(f"{name_of(node)} is not a volume; choose a volume.")
    data = node.GetImageData()
    if data is None or data.GetNumberOfPoints() == 0 or data.GetPointData().GetScalars() is None:
        raise InputError(f"Volume {name_of(node)} is empty; load or choose another one.")
    return node


def array_of(node: Any, frame: int | None) -> np.ndarray:
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
            f"Volume {name_of(node)} has {components} values in each voxel (color, vectors or frames) where one is "
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
            f"The picture {name_of(node)} is transparent in places, so its colors are not all known; save it without "
            "transparency and load it again."
        )
    return voxels[:-1]


def grid_of(volumeNode: Any) -> tuple[tuple[int, ...], np.ndarray]:
    """Size (I, J, K) and matrix voxel index → world RAS mm of a volume node."""
    node = volume_of(volumeNode, None)
    affine = check_affine(world_matrix(node) @ node_affine(node), f"Volume {name_of(node)}")
    return tuple(node.GetImageData().GetDimensions()), affine


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
        node.SetIJKToRASMatrix(matrix_of_array(affine))
        slicer.util.updateVolumeFromArray(node, array.T)
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
    return node
