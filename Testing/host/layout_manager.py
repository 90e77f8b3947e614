"""``slicer.app.layoutManager()``: Slicer's own slice and 3D views, drawn off-screen, and a plot and a table view of
the host.
"""

from __future__ import annotations

import contextlib

import vtk
from PySide6.QtCore import Property, QObject, Qt, Signal, Slot
from PySide6.QtGui import QImage

from .node_combo_box import qMRMLWidget
from .plot_view import qMRMLPlotWidget
from .proxy import register
from .table_views import qMRMLTableWidget

SLICES = ("Red", "Green", "Yellow")


def load_triton_first() -> None:
    """Load triton's library, where there is one, before Mesa's: both carry LLVM, and after Mesa triton's crashes.

    Seen with triton 3.8 and Mesa's software renderer: the first torch optimizer made after a view was drawn ended the
    process. In this order both work.
    """
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401


def _view_image(view, width: int, height: int) -> QImage:
    """Draw one of Slicer's views now, in this size."""
    view.render_window().SetSize(width, height)
    view.update_size(width, height)
    view.set_render_blocked(False)
    view.interactor().Render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(view.render_window())
    grabber.SetInputBufferTypeToRGB()
    grabber.ReadFrontBufferOff()
    grabber.Update()
    # Blocked again: else every change of the scene is drawn at once.
    view.set_render_blocked(True)
    data = grabber.GetOutput()
    columns, rows, _ = data.GetDimensions()
    content = bytes(memoryview(data.GetPointData().GetScalars()))
    image = QImage(content, columns, rows, 3 * columns, QImage.Format.Format_RGB888)
    return image.flipped(Qt.Orientation.Vertical)  # copies; VTK's first row is the lowest


class _ViewWidget(qMRMLWidget):
    def __init__(self, view, parent=None):
        super().__init__(parent)
        self._view = view

    def image(self, width: int, height: int) -> QImage:
        return _view_image(self._view, width, height)

    def mrmlAbstractViewNode(self):
        return self._view.get_view_node()


@register('slicer.app.layoutManager().sliceWidget("Red")')
class SliceWidget(_ViewWidget):
    def image(self, width: int, height: int) -> QImage:
        # VTK 9.6 no longer says by itself that the window's size changed.
        self.sliceLogic().ResizeSliceNode(width, height)
        return super().image(width, height)

    def mrmlSliceNode(self):
        return self._view.get_view_node()

    def sliceLogic(self):
        return self._view._logic

    def mrmlSliceCompositeNode(self):
        return self._view._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        self._view._logic.FitSliceToBackground()

    def sliceView(self):
        if not hasattr(self, "_slice_view"):
            self._slice_view = SliceView(self._view)
        return self._slice_view

    def setSliceOrientation(self, orientation: str) -> None:
        self.mrmlSliceNode().SetOrientation(orientation)

    sliceViewName = property(lambda self: self.mrmlSliceNode().GetLayoutName())
    sliceOrientation = property(lambda self: self.mrmlSliceNode().GetOrientation(), setSliceOrientation)


@register("slicer.qMRMLSliceView")
class SliceView(qMRMLWidget):
    def __init__(self, view):
        super().__init__()
        self._view = view

    def renderWindow(self):
        return self._view.render_window()

    def mrmlSliceNode(self):
        return self._view.get_view_node()

    def forceRender(self) -> None:
        self._view.render_window().Render()

    def scheduleRender(self) -> None:
        pass


@register("slicer.app.layoutManager().threeDWidget(0)")
class ThreeDWidget(_ViewWidget):
    def mrmlViewNode(self):
        return self._view.get_view_node()

    def threeDView(self):
        if not hasattr(self, "_three_d_view"):
            self._three_d_view = ThreeDView(self._view)
        return self._three_d_view


@register("slicer.qMRMLThreeDView")
class ThreeDView(qMRMLWidget):
    def __init__(self, view):
        super().__init__()
        self._view = view

    def renderWindow(self):
        return self._view.render_window()

    def mrmlViewNode(self):
        return self._view.get_view_node()

    def resetFocalPoint(self) -> None:
        self._view.fit_view_to_content()

    def resetCamera(self) -> None:
        self._view.reset_camera()

    def forceRender(self) -> None:
        self._view.render_window().Render()

    def scheduleRender(self) -> None:
        pass


@register("slicer.app.layoutManager()")
class LayoutManager(QObject):
    """The four-up layout with Slicer's own view nodes; a plot or table view when the layout has one."""

    layoutChanged = Signal(int)

    def __init__(self, slicer_app, sizes: dict):
        super().__init__()
        import slicer

        self._app = slicer_app
        self._views: dict[str, object] = {}
        self._plot = self._table = self._logic = None
        self._scene = slicer.mrmlScene
        self._layout = self._first = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
        from MedMapAILib.standalone_scene import vtk_quiet

        load_triton_first()
        with vtk_quiet():
            self._create_views(sizes)

    def _create_views(self, sizes: dict) -> None:
        from trame_slicer.views import DirectViewFactory, ViewLayoutDefinition

        definitions = {
            "Red": ViewLayoutDefinition.axial_view(),
            "Green": ViewLayoutDefinition.coronal_view(),
            "Yellow": ViewLayoutDefinition.sagittal_view(),
            "1": ViewLayoutDefinition.threed_view(background_color=("#c1c3e8", "#7a7ec4"), box_visible=True),
        }
        manager = self._app.view_manager
        for name, definition in definitions.items():
            view = manager.get_view(definition.singleton_tag) or manager.create_view(definition)
            if view is None:
                manager.register_factory(DirectViewFactory(do_render_offscreen=True))
                view = manager.create_view(definition)
            view.set_render_blocked(True)
            view.render_window().SetSize(*sizes.get(name, (500, 400)))
            self._views[name] = ThreeDWidget(view) if name == "1" else SliceWidget(view)
        for name in SLICES:
            self._views[name].sliceLogic().ResizeSliceNode(*sizes.get(name, (500, 400)))

    def views(self) -> dict:
        return self._views

    def sliceViewNames(self) -> list[str]:
        return [name for name in self._views if name != "1"]

    def sliceWidget(self, name: str):
        return self._views.get(name) if name != "1" else None

    def threeDWidget(self, index: int):
        return self._views["1"] if index == 0 else None

    def mrmlScene(self):
        return self._scene

    def mrmlSliceLogics(self):
        return self._app.app_logic.GetSliceLogics()

    def mrmlViewLogics(self):
        return self._app.app_logic.GetViewLogics()

    def resetSliceViews(self) -> None:
        for name in SLICES:
            self._views[name].sliceLogic().FitSliceToBackground()

    def resetThreeDViews(self) -> None:
        self._views["1"].threeDView().resetFocalPoint()

    def pauseRender(self) -> None:
        pass

    resumeRender = pauseRender

    def setRenderPaused(self, _paused: bool) -> None:
        pass

    def layoutLogic(self):
        """Slicer's own, which makes the view nodes of a layout; made when it is first asked for."""
        if self._logic is None:
            import slicer

            self._logic = slicer.vtkMRMLLayoutLogic()
            self._logic.SetMRMLScene(self._scene)
        return self._logic

    @Slot(int)
    def setLayout(self, layout: int) -> None:
        if layout != self._layout:
            self._layout = layout
            if self._logic is not None:
                # First, so that view and layout have the same node.
                self._create_missing_views()
                self._logic.GetLayoutNode().SetViewArrangement(layout)
            self.layoutChanged.emit(layout)

    def rows(self) -> list[list[str]] | None:
        """Names of the slice views of Slicer's side-by-side layout, or of one that a panel made (its number is above
        Slicer's own), row by row; else None."""
        if self._is_one_of("SideBySideView"):
            return [["Red", "Yellow"]]
        if self._logic is None or self._layout < 100:
            return None
        from xml.etree import ElementTree

        root = ElementTree.fromstring(self._logic.GetLayoutNode().GetLayoutDescription(self._layout))
        rows = [root] if root.get("type") == "horizontal" else root.findall("item")
        return [[view.get("singletontag") for view in row.iter("view")] for row in rows]

    def _create_missing_views(self) -> None:
        from trame_slicer.views import ViewLayoutDefinition

        for name in [name for row in self.rows() or [] for name in row if name not in self._views]:
            view = self._app.view_manager.create_view(ViewLayoutDefinition.slice_view("Axial", label=name))
            view.set_render_blocked(True)
            view.render_window().SetSize(500, 400)
            self._views[name] = SliceWidget(view)
            self._views[name].sliceLogic().ResizeSliceNode(500, 400)

    def forget_layouts(self) -> None:
        """Between tests: Slicer's first layout and the views it has."""
        self.setLayout(self._first)
        for name in [name for name in self._views if name not in (*SLICES, "1")]:
            widget = self._views.pop(name)
            view, logic = widget._view, widget.sliceLogic()
            nodes = logic.GetSliceCompositeNode(), widget.mrmlSliceNode()
            self._app.app_logic.GetSliceLogics().RemoveItem(logic)
            view._interactor_observer.SetInteractor(None)
            logic.SetMRMLScene(None)
            view.finalize()
            view._displayable_manager_group.SetMRMLDisplayableNode(None)
            self._app.view_manager.remove_view(name)
            for node in nodes:
                self._scene.RemoveNode(node)

    def _is_one_of(self, *names: str) -> bool:
        import slicer

        return self._layout in [getattr(slicer.vtkMRMLLayoutNode, "SlicerLayout" + n) for n in names]

    def shows_plot(self) -> bool:
        return self._is_one_of("ConventionalPlotView", "FourUpPlotView", "FourUpPlotTableView", "OneUpPlotView")

    def shows_table(self) -> bool:
        return self._is_one_of("FourUpTableView", "3DTableView", "FourUpPlotTableView")

    def _view_node(self, class_name: str):
        node = self._scene.GetFirstNodeByClass(class_name)
        if node is None:
            node = self._scene.CreateNodeByClass(class_name)
            node.UnRegister(None)
            node.SetSingletonTag("1" if "Plot" in class_name else "Table1")
            node = self._scene.AddNode(node)
        return node

    def plotWidget(self, index: int):
        if index != 0 or not self.shows_plot():
            return None
        if self._plot is None:
            self._plot = qMRMLPlotWidget()
            self._plot.setMRMLScene(self._scene)
            self._plot.setMRMLPlotViewNode(self._view_node("vtkMRMLPlotViewNode"))
        return self._plot

    def tableWidget(self, index: int):
        if index != 0 or not self.shows_table():
            return None
        if self._table is None:
            self._table = qMRMLTableWidget()
            self._table.setMRMLScene(self._scene)
            self._table.setMRMLTableViewNode(self._view_node("vtkMRMLTableViewNode"))
        return self._table

    layout = Property(int, lambda self: self._layout, setLayout)
    threeDViewCount = Property(int, lambda self: 1)
    plotViewCount = Property(int, lambda self: int(self.shows_plot()))
    tableViewCount = Property(int, lambda self: int(self.shows_table()))
