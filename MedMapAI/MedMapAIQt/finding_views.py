"""Slicer's views at a finding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer


def show_findings(volumeNode: Any) -> None:
    """Show the scan in the slice views that show something else, so that the boxes lie in their image."""
    if volumeNode is not None:
        for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            if view.GetBackgroundVolumeID() != volumeNode.GetID():
                view.SetBackgroundVolumeID(volumeNode.GetID())


def jump_to(position: Sequence[float]) -> None:
    """Move all views to a place (RAS mm): slices through it with it in the middle, 3D views turned round it."""
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.JumpSliceByCentering(*position)
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
        shift = [place - old for place, old in zip(position, camera.GetFocalPoint(), strict=True)]
        camera.SetPosition([old + by for old, by in zip(camera.GetPosition(), shift, strict=True)])
        camera.SetFocalPoint(list(position))
        camera.ResetClippingRange()


def middle_of_axial_view() -> tuple[float, float, float]:
    """The place (RAS mm) in the middle of the axial slice view; of another one where there is none."""
    views = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    if not views:
        return (0.0, 0.0, 0.0)
    axial = [view for view in views if view.GetOrientation() == "Axial"] or views
    matrix = axial[0].GetSliceToRAS()
    return tuple(matrix.GetElement(row, 3) for row in range(3))
