"""Slicer's scene and views without the desktop: one application, scenes saved whole, pictures that show the truth."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from MedMapAILib import mrml, standalone_scene
from MedMapAILib.errors import InputError, RunError
from MedMapAILib.image import make_image, spacing
from MedMapAILib.results import Segment, Segmentation

REPOSITORY = Path(__file__).resolve().parents[1]
AFFINE = np.diag([-2.0, -2.0, 2.0, 1.0])
AFFINE[:3, 3] = (40, 40, -40)
SEGMENTS = (Segment(1, "right", (1.0, 0.0, 0.0)), Segment(2, "left", (0.0, 0.0, 1.0)))


def head() -> tuple[np.ndarray, np.ndarray]:
    """A gray ball of 36 mm radius around the origin; a segment 20 mm to the right, another 20 mm to the left."""
    index = np.indices((41, 41, 41)).reshape(3, -1)
    place = (AFFINE[:3, :3] @ index + AFFINE[:3, 3:]).reshape(3, 41, 41, 41)
    voxels = np.where((place**2).sum(axis=0) < 36**2, 100.0, 0.0)
    labels = np.zeros(voxels.shape, np.uint8)
    for value, x in ((1, 20), (2, -20)):
        labels[np.abs(place - np.array([x, 0, 0])[:, None, None, None]).max(axis=0) < 8] = value
    return voxels.astype(np.float32), labels


@pytest.fixture
def world(scene):
    voxels, labels = head()
    volume = mrml.volume_node_from_image(make_image(voxels[None], AFFINE), name="Head")
    made = Segmentation(labels, AFFINE, SEGMENTS)
    return scene, volume, mrml.node_from_segmentation(made, name="Sides", referenceVolumeNode=volume)


def test_there_is_one_application(slicer_app):
    import slicer

    assert standalone_scene.start() is slicer_app
    assert slicer.mrmlScene is slicer_app.scene
    for name in ("volumes", "segmentations", "terminologies", "colors", "subjecthierarchy"):
        assert getattr(slicer.modules, name).logic() is not None


# -- scenes


def test_a_saved_scene_comes_back(world, slicer_app, tmp_path):
    scene, volume, segmentation = world
    before = (scene.GetURL(), scene.GetRootDirectory())
    path = tmp_path / "My scene.mrb"
    standalone_scene.save_scene(path)
    assert [p.name for p in tmp_path.iterdir()] == ["My scene.mrb"]
    assert (scene.GetURL() or "", scene.GetRootDirectory() or "") == (before[0] or "", before[1] or "")
    with zipfile.ZipFile(path) as content:
        assert content.testzip() is None
        assert "My scene/My scene.mrml" in content.namelist()
    scene.Clear(False)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert slicer_app.io_manager.load_scene(path)
    volume = scene.GetFirstNodeByName("Head")
    segmentation = scene.GetFirstNodeByName("Sides")
    voxels, labels = head()
    np.testing.assert_array_equal(mrml.image_from_node(volume).numpy()[0], voxels)
    assert spacing(mrml.image_from_node(volume)) == pytest.approx((2, 2, 2))
    found = mrml.segmentation_from_node(segmentation, volume, SEGMENTS)
    np.testing.assert_array_equal(found.labels, labels)


def test_a_scene_is_replaced_whole(world, tmp_path):
    path = tmp_path / "a.mrb"
    path.write_text("old")
    standalone_scene.save_scene(path)
    assert zipfile.is_zipfile(path)


def test_scenes_that_cannot_be_saved(world, tmp_path):
    scene = world[0]
    (tmp_path / "file").write_text("no folder")
    for path, said in (
        (tmp_path / "a.mrml", "must end in .mrb"),
        (tmp_path / "missing" / "a.mrb", "no folder"),
        (tmp_path / "file" / "a.mrb", "no folder"),
        (Path("/proc/self/a.mrb"), "cannot be written"),
    ):
        with pytest.raises(InputError, match=said):
            standalone_scene.save_scene(path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert not (scene.GetURL() or "").startswith(str(tmp_path))


def test_a_full_disk_leaves_the_old_scene(slicer_app, tmp_path):
    """Files may not grow beyond 20 kB in a child process, as on a full disk."""
    path = tmp_path / "a.mrb"
    path.write_text("old")
    script = f"""
import resource, sys
import numpy as np
from MedMapAILib import standalone_scene
from MedMapAILib.errors import RunError
standalone_scene.start()
import slicer
slicer.util.addVolumeFromArray(np.random.default_rng(0).normal(size=(40, 40, 40)))
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    standalone_scene.save_scene({str(path)!r})
except RunError as error:
    sys.exit(str(error))
"""
    result = run_python(script)
    assert result.returncode == 1, result.stderr
    assert "was not written" in result.stderr.strip().splitlines()[-1]
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.mrb"]


def run_python(script: str) -> subprocess.CompletedProcess:
    import os

    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "MedMapAI"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120)


def test_a_file_that_is_no_segmentation(slicer_app, scene, tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        standalone_scene.load_segmentation(tmp_path / "none.seg.nrrd")


# -- pictures


@pytest.fixture
def can_draw():
    try:
        standalone_scene.check_can_render()
    except RunError as error:
        pytest.skip(str(error))


def pixels_of(path: Path) -> np.ndarray:
    """(rows, columns, 3) as numbers, by another reader than the writer."""
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def middle_of(mask: np.ndarray) -> tuple[float, float]:
    """Mean row and column, as parts of the picture."""
    rows, columns = np.nonzero(mask)
    assert len(rows) > 20
    return rows.mean() / mask.shape[0], columns.mean() / mask.shape[1]


def test_picture_shows_the_slices_and_the_surfaces(world, can_draw, tmp_path):
    """The patient's right is on the left of the axial and coronal slice, as in radiology; only one side is sagittal."""
    scene, volume, segmentation = world
    standalone_scene.render(tmp_path / "a.png", volume, [segmentation], (20, 0, 0), size=200)
    picture = pixels_of(tmp_path / "a.png")
    assert picture.shape == (400, 400, 3)
    views = {
        "axial": picture[:200, :200],
        "3d": picture[:200, 200:],
        "coronal": picture[200:, :200],
        "sagittal": picture[200:, 200:],
    }

    def reddish(view):
        return (view[..., 0] > view[..., 2] + 60) & (view[..., 1] < 160) & (view[..., 0] > view[..., 1] + 60)

    def bluish(view):
        return (view[..., 2] > view[..., 0] + 60) & (view[..., 1] < 160) & (view[..., 2] > view[..., 1] + 60)

    corner = np.ones((200, 200), bool)
    corner[140:, 140:] = False  # where the axes are drawn
    for name in ("axial", "coronal"):
        row, column = middle_of(reddish(views[name]) & corner)
        assert row == pytest.approx(0.5, abs=0.05) and column < 0.4, name
        row, column = middle_of(bluish(views[name]) & corner)
        assert row == pytest.approx(0.5, abs=0.05) and column > 0.6, name
    assert middle_of(reddish(views["sagittal"]) & corner) == pytest.approx((0.5, 0.5), abs=0.05)
    assert not (bluish(views["sagittal"]) & corner).any()
    assert (reddish(views["3d"]) & corner).sum() > 200 and (bluish(views["3d"]) & corner).sum() > 200
    # The image shines through the segments: gray 100 and nothing of it around.
    assert views["axial"][100, 100].min() > 60 and views["axial"][3, 3].max() < 10


def test_field_of_view_is_in_millimeters(world, can_draw, tmp_path):
    """A segment of 7 voxels of 2 mm takes 14 of 56 mm, a quarter of the edge of the view."""
    scene, volume, segmentation = world
    standalone_scene.render(tmp_path / "a.png", volume, [segmentation], (20, 0, 0), fieldOfView=56, size=200)
    axial = pixels_of(tmp_path / "a.png")[:200, :200]
    red = (axial[..., 0] > axial[..., 1] + 60) & (np.arange(200)[:, None] < 140)
    assert np.ptp(np.nonzero(red.any(axis=1))[0]) + 1 == pytest.approx(50, abs=3)
    assert np.ptp(np.nonzero(red[:130].any(axis=0))[0]) + 1 == pytest.approx(50, abs=3)


def test_other_segmentations_are_left_out_and_left_alone(world, can_draw, tmp_path):
    scene, volume, segmentation = world
    labels = (head()[1] == 2).astype(np.uint8)
    other = mrml.node_from_segmentation(Segmentation(labels, AFFINE, (Segment(1, "green", (0, 1, 0)),)), name="other")
    standalone_scene.render(tmp_path / "a.png", volume, [segmentation], (-20, 0, 0), size=150)
    picture = pixels_of(tmp_path / "a.png")[:100, :100]
    assert not (picture[..., 1] > picture[..., 2] + 40).any()
    assert other.GetDisplayNode().GetVisibility()


def test_pictures_without_segments_and_again(world, can_draw, tmp_path):
    scene, volume, _ = world
    for _ in range(2):
        standalone_scene.render(tmp_path / "a.png", volume, size=100)
    assert pixels_of(tmp_path / "a.png")[50, 50].min() > 100
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_pictures_that_cannot_be_written(world, can_draw, tmp_path):
    scene, volume, segmentation = world
    with pytest.raises(InputError, match="must end in .png"):
        standalone_scene.render(tmp_path / "a.jpg", volume)
    with pytest.raises(InputError, match="no folder"):
        standalone_scene.render(tmp_path / "missing" / "a.png", volume)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_draw_it_is_said(slicer_app):
    """Without the check VTK ends the process with a segmentation fault."""
    script = """
import os, sys
os.environ["VTK_DEFAULT_OPENGL_WINDOW"] = "vtkOSOpenGLRenderWindow"
from MedMapAILib import standalone_scene
from MedMapAILib.errors import RunError
import ctypes.util
if ctypes.util.find_library("OSMesa"):
    sys.exit("there is OSMesa")
try:
    standalone_scene.check_can_render()
except RunError as error:
    sys.exit(str(error))
"""
    result = run_python(script)
    assert result.returncode == 1
    if "there is OSMesa" in result.stderr:
        pytest.skip("this machine can draw by OSMesa")
    assert "cannot be drawn on this machine" in result.stderr


def test_torch_can_come_after_the_first_picture(can_draw):
    """Mesa and triton bring an LLVM each; without care, importing torch after drawing ends the process."""
    result = run_python("""
import numpy as np
from MedMapAILib import standalone_scene
standalone_scene.start()
import slicer, sys, tempfile
volume = slicer.util.addVolumeFromArray(np.random.default_rng(0).normal(size=(8, 8, 8)))
with tempfile.TemporaryDirectory() as folder:
    standalone_scene.render(folder + "/a.png", volume, size=60)
assert "torch" not in sys.modules
from MedMapAILib import mrml
print(mrml.image_from_node(volume).shape)
""")
    assert result.returncode == 0, result.stderr
    assert "torch.Size([1, 8, 8, 8])" in result.stdout
