"""Slicer's views at two images side by side."""

from __future__ import annotations

from typing import Any

import slicer

#: The views of Slicer's side-by-side layout, left and right.
_LEFT, _RIGHT = "Red", "Yellow"


class SideBySide:
    """Shows two images beside each other, and afterwards the views as they were."""

    def __init__(self) -> None:
        self._before: tuple[int, str] | None = None

    @property
    def shown(self) -> bool:
        return self._before is not None

    def show(self, left: Any, right: Any) -> None:
        """Show two volume nodes: the same orientation, the same slice, linked."""
        manager = slicer.app.layoutManager()
        if self._before is None:
            self._before = manager.layout, manager.sliceWidget(_RIGHT).mrmlSliceNode().GetOrientation()
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
        first, second = (manager.sliceWidget(name).mrmlSliceNode() for name in (_LEFT, _RIGHT))
        second.SetOrientation(first.GetOrientation())
        for name, volume in ((_LEFT, left), (_RIGHT, right)):
            view = manager.sliceWidget(name).mrmlSliceCompositeNode()
            view.SetBackgroundVolumeID(volume.GetID())
            view.SetForegroundVolumeID(None)
            view.SetForegroundOpacity(0.0)
            view.SetLinkedControl(True)
        # Linked views go on alike from here; now they are brought together: whole images, in the same slice.
        offset = manager.sliceWidget(_LEFT).sliceLogic().GetSliceOffset()
        for name in (_LEFT, _RIGHT):
            logic = manager.sliceWidget(name).sliceLogic()
            logic.FitSliceToBackground()
            logic.SetSliceOffset(offset)

    def end(self) -> None:
        """Give the views back; nothing happens where they were not taken."""
        if self._before is None:
            return
        (layout, orientation), self._before = self._before, None
        manager = slicer.app.layoutManager()
        manager.sliceWidget(_RIGHT).mrmlSliceNode().SetOrientation(orientation)
        manager.setLayout(layout)
