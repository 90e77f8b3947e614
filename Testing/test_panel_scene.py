"""What crosses between the scene and the worker: voxels as they are, and where a result belongs afterwards."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import panel_data
import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401
from MedMapAILib import mrml
from MedMapAILib.errors import InputError
from MedMapAILib.results import Segment, Segmentation

ROOT = Path(__file__).resolve().parent.parent
PATHS = [str(ROOT / part) for part in ("MedMapAI", "MedMapAITraining", "Testing")]


def matrix_node(matrix):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(node, np.array(matrix, dtype=float))
    return node


@pytest.mark.parametrize("kind", ["i2", "u1", "f4", "f8"])
def test_voxels_keep_their_type_and_are_not_copied(slicer_host, kind):  # noqa: F811
    import slicer

    array = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(kind)  # K, J, I
    node = slicer.util.addVolumeFromArray(array, name="Volume")
    voxels, affine, notes = mrml.voxels_from_node(node)
    assert voxels.shape == (1, 4, 3, 2) and voxels.dtype == np.dtype(kind) and notes == ()
    np.testing.assert_array_equal(voxels[0], array.T)
    assert np.shares_memory(voxels, slicer.util.arrayFromVolume(node))
    np.testing.assert_array_equal(affine, np.eye(4))
    # The image of the same node is the same, in the type of images.
    image = mrml.image_from_node(node)
    np.testing.assert_array_equal(image.numpy(), voxels.astype(np.float32))
    np.testing.assert_array_equal(image.affine.numpy(), affine)


def test_a_sheared_volume_is_told(slicer_host):  # noqa: F811
    volume, _ = panel_data.volume_node()
    # A tilted gantry: 45 degrees.
    volume.SetAndObserveTransformNodeID(matrix_node([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).GetID())
    _, _, notes = mrml.voxels_from_node(volume)
    assert len(notes) == 1 and "45 degrees off" in notes[0]
    assert list(mrml.image_from_node(volume).meta["notes"]) == list(notes)


def test_volume_state_tells_what_changed(slicer_host):  # noqa: F811
    import slicer

    volume, _ = panel_data.volume_node()
    before = mrml.volume_state(volume)
    panel_data.show(volume)
    slicer_host.process_events()
    volume.SetName("Other")
    volume.SetAndObserveTransformNodeID(matrix_node(np.diag([1, 1, 1, 1])).GetID())
    assert mrml.volume_state(volume) == before, "neither name, nor view, nor transform is of the volume itself"
    slicer.util.arrayFromVolumeModified(volume)
    painted = mrml.volume_state(volume)
    assert painted[0] == before[0] and painted[1] != before[1]
    volume.SetSpacing(2, 2, 2)
    assert mrml.volume_state(volume)[0] != before[0]
    volume.SetAndObserveImageData(None)
    assert mrml.volume_state(volume) == (None, None)


@pytest.fixture
def shipped(monkeypatch):
    monkeypatch.setenv("MEDMAPAI_MODELS", str(ROOT / "MedMapAI" / "Resources" / "Models"))


def scene_run(volume, output=None):
    from MedMapAIQt.scene_run import SceneRun

    return SceneRun(volume, "hippocampus", None, None, output)


def answer(run):
    labels = np.zeros(run.voxels.shape[1:], np.uint8)
    labels[3:5, 6:9, 2:4] = 1
    return Segmentation(labels, run.affine, (Segment(1, "one", (1, 0, 0), None),))


def test_a_volume_with_another_grid_leaves_the_result_where_it_was(slicer_host, shipped):  # noqa: F811
    volume, _ = panel_data.volume_node()
    volume.SetAndObserveTransformNodeID(matrix_node([[1, 0, 0, 50], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).GetID())
    run = scene_run(volume)
    segmentation = answer(run)
    where = segmentation.centroids_ras()["one"]
    volume.SetSpacing(3, 3, 3)
    node, told = run.place(segmentation)
    assert "changed while the model ran" in told.notes[-1]
    assert node.GetParentTransformNode() is None
    found = mrml.segmentation_from_node(node)
    np.testing.assert_allclose(found.centroids_ras()["one"], where, atol=1e-6)


def test_a_volume_that_is_bent_meanwhile_bends_the_result_too(slicer_host, shipped):  # noqa: F811
    import slicer

    volume, _ = panel_data.volume_node()
    run = scene_run(volume)
    segmentation = answer(run)
    bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    volume.SetAndObserveTransformNodeID(bent.GetID())
    node, told = run.place(segmentation)
    assert node.GetParentTransformNode() == bent and told.notes == ()
    with pytest.raises(InputError, match="harden"):
        scene_run(volume)


def test_a_run_in_the_panel_needs_no_torch(tmp_path):
    """In a process where torch and MONAI cannot be imported: the panel lists models and makes the request all the
    same, and the worker, which is another process, answers."""
    code = textwrap.dedent(
        """
        import sys
        BLOCKED = ("torch", "monai", "nibabel", "openvino", "triton", "skimage")
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in BLOCKED:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Blocker())
        import host
        application = host.start(sys.argv[1])
        import slicer, numpy as np
        random = np.random.default_rng(0)
        volume = slicer.util.addVolumeFromArray(random.normal(size=(40, 44, 36)).astype("f4"), name="Scan")
        panel = application.openModule("MedMapAI")
        assert panel.ui.applyButton.enabled, panel.ui.statusLabel.text
        panel.ui.applyButton.click()
        application.process_events(lambda: not panel.logic.running, timeout_s=240)
        application.check()
        assert panel.ui.outputSelector.currentNode() is not None, panel.ui.statusLabel.text
        print("STATUS:", panel.ui.statusLabel.text)
        assert not [name for name in BLOCKED if name in sys.modules]
        application.exit()
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {PATHS!r}\n{code}", str(tmp_path)],
        capture_output=True, text=True, timeout=400, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0 and "segments found in" in done.stdout, done.stdout + done.stderr
