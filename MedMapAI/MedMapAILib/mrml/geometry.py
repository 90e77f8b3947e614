"""Where nodes are: matrices between a node, its voxels and the world, and back. VTK's matrices to numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from ..image import check_affine


def node_affine(node: Any) -> np.ndarray:
    """Voxel index (from 0) → RAS mm of the node itself, 4x4, without its transforms."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return from_extent(array_of_matrix(matrix), node.GetImageData())


def from_extent(affine: np.ndarray, data: Any) -> np.ndarray:
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
            f"{name_of(node)} is under the non-linear transform {name_of(transform)}, which would bend its voxels; "
            "harden the transform (right-click the node in the Data module, Harden transform) and run again."
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return check_affine(array_of_matrix(matrix), f"Transform {name_of(transform)}")


def array_of_matrix(matrix: Any) -> np.ndarray:
    """A vtkMatrix4x4 as an array (4, 4)."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def matrix_of_array(array: np.ndarray) -> Any:
    """An array (4, 4) as a vtkMatrix4x4."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=np.float64).ravel())
    return matrix


def name_of(node: Any) -> str:
    """The name of a node, in quotes, for a sentence."""
    return repr(node.GetName() or node.GetClassName())
