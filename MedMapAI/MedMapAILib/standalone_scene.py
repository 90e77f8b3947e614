"""Slicer's real scene and views without the Slicer desktop, by trame-slicer: for the command line, demo and tests.

Only :func:`start` has to be called; it sets what the desktop has (``slicer.mrmlScene``, ``slicer.util``,
``slicer.modules.<name>.logic()``), so that ``mrml`` works the same in both.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, RunError
from .files import atomic_file, check_place, write_atomically

_app: Any = None


def start() -> Any:
    """The one SlicerApp (trame_slicer.core) of this process, made at the first call. Needs no display.

    Raises InputError where trame-slicer is not installed.
    """
    global _app
    if _app is not None:
        return _app
    try:
        import slicer
        import slicer.util
        from trame_slicer.core import SlicerApp
        from trame_slicer.views import DirectViewFactory
    except ImportError as error:
        raise InputError(
            "Slicer's scene needs the Python package trame-slicer outside the Slicer desktop; install "
            "'trame-slicer[standalone]'."
        ) from error
    app = SlicerApp()
    app.view_manager.register_factory(DirectViewFactory(do_render_offscreen=True))
    slicer.mrmlScene = app.scene
    if not hasattr(slicer, "modules"):
        slicer.modules = types.SimpleNamespace()
    logics = {
        "colors": app.color_logic,
        "data": app.data_logic,
        "segmentations": app.segmentations_logic,
        "subjecthierarchy": app.subject_hierarchy_logic,
        "terminologies": app.terminologies_logic,
        "volumes": app.volumes_logic,
    }
    for name, logic in logics.items():
        if not hasattr(slicer.modules, name):
            setattr(slicer.modules, name, _Module(logic))
    _app = app
    return app


class _Module:
    """What ``slicer.modules.<name>`` is asked for here: its logic."""

    def __init__(self, logic: Any) -> None:
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


def load_segmentation(path: str | Path) -> Any:
    """A segmentation node with the content of a file, read by Slicer's own storage node. Raises InputError."""
    node = start().io_manager.load_segmentation(str(path))
    if node is None:
        raise InputError(f"{path} cannot be loaded by Slicer as a segmentation.")
    return node


def save_scene(path: str | Path) -> None:
    """Write the whole scene with its data to a ``.mrb`` file, whole or not at all. Raises InputError, RunError."""
    path = Path(path)
    if path.suffix.lower() != ".mrb":
        raise InputError(f"{path} cannot be written: the name of a scene must end in .mrb.")
    scene = start().scene
    url, root = scene.GetURL() or "", scene.GetRootDirectory() or ""
    try:
        # In a folder of its own first, because the folder inside the file is called as the file.
        with (
            atomic_file(path, ".mrb") as whole,
            tempfile.TemporaryDirectory(prefix=".medmapai-", dir=path.parent) as folder,
        ):
            temporary = Path(folder) / path.name
            scene.SetURL(str(temporary))
            scene.SetRootDirectory(folder)
            with vtk_quiet():
                written = scene.WriteToMRB(str(temporary))
            if not written or not zipfile.is_zipfile(temporary):
                raise RunError(
                    f"{path} was not written: Slicer could not save the scene there; nothing was left behind."
                )
            os.replace(temporary, whole)
    finally:
        scene.SetURL(url)
        scene.SetRootDirectory(root)


@contextlib.contextmanager
def vtk_quiet() -> Iterator[None]:
    """VTK's messages kept off the terminal: it lists every file that it packs and every deprecated event."""
    import vtk

    window = vtk.vtkOutputWindow.GetInstance()
    verbosity = vtk.vtkLogger.GetCurrentVerbosityCutoff()
    vtk.vtkOutputWindow.SetInstance(vtk.vtkStringOutputWindow())
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    try:
        yield
    finally:
        vtk.vtkLogger.SetStderrVerbosity(verbosity)
        vtk.vtkOutputWindow.SetInstance(window)


def render(
    path: str | Path,
    volumeNode: Any,
    segmentationNodes: Sequence[Any] = (),
    center: Sequence[float] | None = None,
    *,
    overlayNode: Any = None,
    fieldOfView: float | None = None,
    size: int = 500,
) -> None:
    """A PNG of 2x2 views by Slicer itself, off-screen: axial, 3D above; coronal, sagittal below.

    ``center`` (RAS mm) is in the middle of the three slices, by default the middle of the volume; ``fieldOfView`` is
    the edge of what they show in mm, by default the whole volume; ``size`` is the edge of one view in pixels. In 3D
    are the given segmentations, which get a closed surface for it; other segmentations of the scene are left out.
    ``overlayNode`` is a volume, such as a saliency map, that lies half transparent over the slices.
    Raises InputError, RunError; the picture appears whole or not at all.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} cannot be written: the name of a picture must end in .png.")
    check_place(path)
    check_can_render()
    app = start()
    import slicer
    from trame_slicer.views import ViewLayoutDefinition

    if center is None:
        bounds = [0.0] * 6
        volumeNode.GetRASBounds(bounds)
        center = [(bounds[2 * a] + bounds[2 * a + 1]) / 2 for a in range(3)]
    definitions = {
        "axial": ViewLayoutDefinition.axial_view(),
        "3d": ViewLayoutDefinition.threed_view(),
        "coronal": ViewLayoutDefinition.coronal_view(),
        "sagittal": ViewLayoutDefinition.sagittal_view(),
    }
    hidden = _hide_others(app.scene, segmentationNodes)
    with vtk_quiet():
        try:
            for node in segmentationNodes:
                node.CreateClosedSurfaceRepresentation()
            pictures = {}
            for name, definition in definitions.items():
                view = app.view_manager.create_view(definition)
                view.set_render_blocked(True)  # else it would draw at every change of the scene from now on
                view.render_window().SetSize(size, size)
                view.update_size(size, size)
                if name == "3d":
                    _look_at_all(view)
                else:
                    _look_at(view, volumeNode, name.capitalize(), center, fieldOfView)
                    if overlayNode is not None:
                        view.set_foreground_volume_id(overlayNode.GetID())
                        view.set_foreground_opacity(0.5)
                    _draw_image_first(view)
                view.get_view_node().SetOrientationMarkerType(slicer.vtkMRMLAbstractViewNode.OrientationMarkerTypeAxes)
                pictures[name] = _picture_of(view)
        finally:
            for display in hidden:
                display.SetVisibility(True)
    top = np.concatenate([pictures["axial"], pictures["3d"]], axis=1)
    bottom = np.concatenate([pictures["coronal"], pictures["sagittal"]], axis=1)
    _write_png(np.concatenate([top, bottom], axis=0), path)


@functools.cache
def check_can_render() -> None:
    """RunError where VTK finds nothing to draw with: it would end this process, so a child process tries it first."""
    draw = "import vtk; w = vtk.vtkRenderWindow(); w.SetOffScreenRendering(1); w.Render()"
    if subprocess.run([sys.executable, "-c", draw], capture_output=True, timeout=120).returncode:
        raise RunError(
            "Slicer's views cannot be drawn on this machine, which has neither a display nor EGL; install EGL "
            "(on Debian and Ubuntu: apt-get install libegl1 libgl1-mesa-dri) or leave the picture out."
        )


def _look_at(view: Any, volumeNode: Any, orientation: str, center: Sequence[float], fieldOfView: float | None) -> None:
    """Show the slice of a volume through ``center``, the whole of it or ``fieldOfView`` mm around the center."""
    view.set_background_volume_id(volumeNode.GetID())
    view.set_orientation(orientation)
    view.fit_view_to_content()
    sliceNode = view.get_view_node()
    if fieldOfView is None:
        sliceNode.JumpSliceByOffsetting(*center)
    else:
        sliceNode.SetFieldOfView(fieldOfView, fieldOfView, sliceNode.GetFieldOfView()[2])
        sliceNode.JumpSliceByCentering(*center)


def _draw_image_first(view: Any) -> None:
    """Put the slice image before the segments in a view's list of things to draw.

    The image lies behind them; drawn after them, as when the segments were there before the view, it does not shine
    through (VTK tests the depth, and blends with what is there already).
    """
    import vtk

    renderer = view.first_renderer()
    props = list(renderer.GetViewProps())
    behind = [
        prop
        for prop in props
        if isinstance(prop, vtk.vtkActor2D) and prop.GetProperty().GetDisplayLocation() == vtk.VTK_BACKGROUND_LOCATION
    ]
    if props[: len(behind)] == behind:
        return
    for prop in props:
        renderer.RemoveViewProp(prop)
    for prop in behind + [prop for prop in props if prop not in behind]:
        renderer.AddViewProp(prop)


def _look_at_all(view: Any) -> None:
    """Show all that is in a 3D view, from the front, the patient's left and above."""
    view.fit_view_to_content()
    camera = view.get_camera_node().GetCamera()
    camera.Azimuth(35)
    camera.Elevation(25)
    camera.OrthogonalizeViewUp()
    view.reset_camera()


def _hide_others(scene: Any, segmentationNodes: Sequence[Any]) -> list[Any]:
    """Hide the segmentations that are not among those given; the display nodes that were changed."""
    keep = {node.GetID() for node in segmentationNodes}
    hidden = []
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSegmentationNode")
        display = node.GetDisplayNode()
        if node.GetID() not in keep and display is not None and display.GetVisibility():
            display.SetVisibility(False)
            hidden.append(display)
    return hidden


def _picture_of(view: Any) -> np.ndarray:
    """What a view shows, (rows, columns, 3) uint8, the first row on top."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    view.interactor().Render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(view.render_window())
    grabber.SetInputBufferTypeToRGB()
    grabber.ReadFrontBufferOff()
    grabber.Update()
    data = grabber.GetOutput()
    columns, rows, _ = data.GetDimensions()
    return vtk_to_numpy(data.GetPointData().GetScalars()).reshape(rows, columns, 3)[::-1].copy()


def _write_png(pixels: np.ndarray, path: Path) -> None:
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    data = vtk.vtkImageData()
    data.SetDimensions(pixels.shape[1], pixels.shape[0], 1)
    data.GetPointData().SetScalars(numpy_to_vtk(pixels[::-1].reshape(-1, 3).copy(), deep=True))
    writer = vtk.vtkPNGWriter()
    writer.WriteToMemoryOn()
    writer.SetInputData(data)
    writer.Write()
    content = bytes(memoryview(writer.GetResult()))
    write_atomically(path, content)
