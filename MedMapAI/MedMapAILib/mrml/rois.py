"""Boxes that a person draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from .geometry import array_of_matrix, name_of, world_matrix


def roi_bounds(roiNode: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Center (RAS mm) and size (mm) of the smallest box along the world axes that holds a markups ROI node.

    Raises InputError where there is none, it is not placed or has no size, or it is under a non-linear transform.
    """
    if roiNode is None:
        raise InputError("No ROI is chosen; choose one.")
    if not roiNode.IsA("vtkMRMLMarkupsROINode"):
        raise InputError(f"{name_of(roiNode)} is not an ROI; choose a markups ROI.")
    world_matrix(roiNode)  # refuses non-linear transforms
    size = roiNode.GetSize()
    if min(size) <= 0 or not np.isfinite(size).all():
        raise InputError(f"ROI {name_of(roiNode)} has no size; place it in a view first.")
    matrix = array_of_matrix(roiNode.GetObjectToWorldMatrix())
    extent = np.abs(matrix[:3, :3]) @ np.array(size)
    return tuple(float(v) for v in matrix[:3, 3]), tuple(float(v) for v in extent)
