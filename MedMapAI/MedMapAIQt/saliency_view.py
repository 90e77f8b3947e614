"""A saliency map over its image in the slice views."""

from __future__ import annotations

from typing import Any

import slicer


def show_saliency(volumeNode: Any, saliencyNode: Any, opacity: float) -> None:
    """Lay a saliency map over an image in every slice view, 0 (not to be seen) to 1 (nothing else to be seen)."""
    for view in _views():
        view.SetBackgroundVolumeID(volumeNode.GetID())
        view.SetForegroundVolumeID(saliencyNode.GetID())
    fade_saliency(saliencyNode, opacity)


def fade_saliency(saliencyNode: Any, opacity: float) -> None:
    """Change the opacity of a saliency map where it lies over an image; views that show other things stay."""
    for view in _views():
        if view.GetForegroundVolumeID() == saliencyNode.GetID():
            view.SetForegroundOpacity(opacity)


def _views() -> list[Any]:
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
