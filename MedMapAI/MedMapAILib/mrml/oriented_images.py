"""Voxels as a segmentation node holds them: label maps that know their own place."""

from __future__ import annotations

from typing import Any

import numpy as np

from .geometry import array_of_matrix, from_extent, matrix_of_array


def oriented_image(labels: np.ndarray, affine: np.ndarray) -> Any:
    """A vtkOrientedImageData with a copy of labels (I, J, K) at the place that a matrix voxel index → mm says."""
    import slicer
    from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*labels.shape)
    image.AllocateScalars(get_vtk_array_type(labels.dtype), 1)
    target = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(labels.shape)))
    target[:] = labels.T
    image.SetGeometryFromImageToWorldMatrix(matrix_of_array(affine))
    return image


def image_affine(image: Any) -> np.ndarray:
    """Voxel index (from 0) → mm of a vtkOrientedImageData."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return from_extent(array_of_matrix(matrix), image)


def set_reference_geometry(content: Any, image: Any) -> None:
    """Make the grid of a vtkOrientedImageData the one in which a vtkSegmentation makes new label maps."""
    import slicer

    content.SetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
        slicer.vtkSegmentationConverter.SerializeImageGeometry(image),
    )
