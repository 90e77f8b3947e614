"""Slicer's views as a reader of a study sees them: images under neutral names, all slices linked, one window for all.

Images are nodes of the scene for as long as they are shown, called "Image 1" and so on; they have no file, so that
nothing in Slicer can show its name. At the end they are gone, and layout and slice views are as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

#: What can be chosen to look at: orientations of Slicer, and all three of one image.
ORIENTATIONS = ("Axial", "Sagittal", "Coronal")
ALL = "All three"
#: Layouts of n slice views are _LAYOUT + n; Slicer leaves numbers from 100 on to extensions.
_LAYOUT = 56_100
_SETTLE_MS = 50
#: Slicer's own names of slice views.
_NAMES = ("Red", "Yellow", "Green", *(f"Slice{n}" for n in range(4, 30)))


class ReadingViews(VTKObservationMixin):
    """Takes Slicer's views over from ``begin`` to ``end``."""

    def __init__(self):
        VTKObservationMixin.__init__(self)
        self.nodes: list[Any] = []
        self._before: dict[str, Any] | None = None
        self._syncing = False
        self._names: Sequence[str] = ()
        # Views of a new layout have their size a moment later.
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self._fit)

    def begin(self) -> None:
        """Remember the views as they are."""
        if self._before is None:
            self._before = {
                "layout": slicer.app.layoutManager().layout,
                "slices": {n.GetID(): _slice_state(n) for n in slicer.util.getNodesByClass("vtkMRMLSliceNode")},
                "composites": {
                    n.GetID(): _composite_state(n) for n in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
                },
            }

    def show(self, volumes: Sequence[Any], window: tuple[float, float] | None, orientation: str) -> None:
        """Show volumes (``image.Volume``, scalar) in place of those before; window: (lowest, highest value) of all."""
        self._removeNodes()
        with slicer.util.RenderBlocker():
            for number, volume in enumerate(volumes, 1):
                self.nodes.append(_volume_node(volume, _("Image {number}").format(number=number)))
            self.setWindow(window)
            self.arrange(orientation)
        for node in self.nodes:
            self.addObserver(node.GetDisplayNode(), vtk.vtkCommand.ModifiedEvent, self._onDisplay)

    def arrange(self, orientation: str) -> None:
        """Lay the shown images out: all in one of ORIENTATIONS, or, where there is one, in ALL."""
        chosen = ORIENTATIONS if orientation == ALL and len(self.nodes) == 1 else (orientation,)
        wanted = [(node, one) for node in self.nodes for one in (chosen if chosen[0] in ORIENTATIONS else ("Axial",))]
        names = _NAMES[: len(wanted)]
        _set_layout(names)
        shown = list(zip(names, wanted, strict=True))
        for name, (node, one) in shown:
            widget = slicer.app.layoutManager().sliceWidget(name)
            composite, view = widget.mrmlSliceCompositeNode(), widget.mrmlSliceNode()
            # Not linked while they are set one by one.
            composite.SetLinkedControl(False)
            composite.SetBackgroundVolumeID(node.GetID())
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
            view.SetOrientation(one)
            # Along the voxels: a slice between them would be smoothed.
            view.RotateToVolumePlane(node)
            view.SetLayoutLabel(str(self.nodes.index(node) + 1))
        self._names = names
        self._fit()
        for name in names:
            composite = slicer.app.layoutManager().sliceWidget(name).mrmlSliceCompositeNode()
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)
        self._timer.start()

    def _fit(self) -> None:
        """Show the middle of the images, whole, all at the same scale."""
        widgets = [slicer.app.layoutManager().sliceWidget(name) for name in self._names if self.nodes]
        for widget in widgets:
            widget.sliceLogic().FitSliceToBackground()
            widget.sliceLogic().SnapSliceOffsetToIJK()
        views = [widget.mrmlSliceNode() for widget in widgets]
        scale = max((view.GetFieldOfView()[0] / max(1, view.GetDimensions()[0]) for view in views), default=1.0)
        for view in views:
            columns, rows, _depth = view.GetDimensions()
            view.SetFieldOfView(scale * columns, scale * rows, view.GetFieldOfView()[2])

    def setWindow(self, window: tuple[float, float] | None) -> None:
        """Set the window of all images; None: as the first image's display finds it, for all."""
        if self.nodes:
            display = self.nodes[0].GetDisplayNode()
            if window is None:
                display.SetAutoWindowLevel(True)
                window = display.GetWindowLevelMin(), display.GetWindowLevelMax()
            self._apply(window)

    def end(self) -> None:
        """Remove the images, and put layout and slice views back."""
        self._timer.stop()
        self._removeNodes()
        before, self._before = self._before, None
        if before is None:
            return
        slicer.app.layoutManager().setLayout(before["layout"])
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if view.GetID() in before["slices"]:
                _restore_slice(view, before["slices"][view.GetID()])
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            _restore_composite(composite, before["composites"].get(composite.GetID(), _NO_LAYERS))

    def _apply(self, window: tuple[float, float]) -> None:
        self._syncing = True
        try:
            for node in self.nodes:
                display = node.GetDisplayNode()
                display.SetAutoWindowLevel(False)
                display.SetWindowLevelMinMax(*window)
        finally:
            self._syncing = False

    def _onDisplay(self, caller: Any, event: Any = None) -> None:
        """One image was windowed: all are."""
        if not self._syncing:
            self._apply((caller.GetWindowLevelMin(), caller.GetWindowLevelMax()))

    def _removeNodes(self) -> None:
        self.removeObservers()
        for node in self.nodes:
            for one in (node.GetDisplayNode(), node):
                if one is not None and slicer.mrmlScene.IsNodePresent(one):
                    slicer.mrmlScene.RemoveNode(one)
        self.nodes = []


def _volume_node(volume: Any, name: str) -> Any:
    from MedMapAILib.mrml.geometry import matrix_of_array

    voxels = volume.array.astype("uint8") if volume.array.dtype == bool else volume.array
    node = slicer.util.addVolumeFromArray(voxels.T, matrix_of_array(volume.affine), name, "vtkMRMLScalarVolumeNode")
    node.CreateDefaultDisplayNodes()
    for one in (node, node.GetDisplayNode()):
        one.SetSaveWithScene(False)
    return node


def _set_layout(names: Sequence[str]) -> None:
    """Slice views in one row, or in two where they are more than three."""
    manager = slicer.app.layoutManager()
    node = manager.layoutLogic().GetLayoutNode()
    number = _LAYOUT + len(names)
    columns = len(names) if len(names) <= 3 else (len(names) + 1) // 2
    rows = [names[start : start + columns] for start in range(0, len(names), columns)]
    if not node.IsLayoutDescription(number):
        node.AddLayoutDescription(number, _description(rows))
    manager.setLayout(number)


def _description(rows: Sequence[Sequence[str]]) -> str:
    def row(names: Sequence[str]) -> str:
        views = "".join(f'<item><view class="vtkMRMLSliceNode" singletontag="{name}"/></item>' for name in names)
        return f'<layout type="horizontal" split="false">{views}</layout>'

    if len(rows) == 1:
        return row(rows[0])
    return '<layout type="vertical" split="false">' + "".join(f"<item>{row(r)}</item>" for r in rows) + "</layout>"


# -- states of the views -------------------------------------------------------------------------------------------

_NO_LAYERS = (None, None, None, 0.0, 1.0, False, False)


def _slice_state(view: Any) -> tuple:
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(view.GetSliceToRAS())
    return matrix, tuple(view.GetFieldOfView()), tuple(view.GetXYZOrigin()), view.GetLayoutLabel()


def _restore_slice(view: Any, state: tuple) -> None:
    matrix, field, origin, label = state
    view.GetSliceToRAS().DeepCopy(matrix)
    view.SetFieldOfView(*field)
    view.SetXYZOrigin(*origin)
    view.SetLayoutLabel(label)
    view.UpdateMatrices()


def _composite_state(node: Any) -> tuple:
    return (
        node.GetBackgroundVolumeID(), node.GetForegroundVolumeID(), node.GetLabelVolumeID(),
        node.GetForegroundOpacity(), node.GetLabelOpacity(), node.GetLinkedControl(), node.GetHotLinkedControl(),
    )  # fmt: skip


def _restore_composite(node: Any, state: tuple) -> None:
    background, foreground, label, foreground_opacity, label_opacity, linked, hot = state
    node.SetLinkedControl(False)
    for set_layer, volume in (
        (node.SetBackgroundVolumeID, background),
        (node.SetForegroundVolumeID, foreground),
        (node.SetLabelVolumeID, label),
    ):
        set_layer(volume if volume and slicer.mrmlScene.GetNodeByID(volume) is not None else None)
    node.SetForegroundOpacity(foreground_opacity)
    node.SetLabelOpacity(label_opacity)
    node.SetLinkedControl(linked)
    node.SetHotLinkedControl(hot)
