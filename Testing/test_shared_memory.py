"""Arrays and messages that cross between two processes, and what is left behind: nothing."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from MedMapAILib import inference
from MedMapAILib.errors import RunError
from MedMapAILib.inference.messages import (
    RunRequest,
    from_line,
    report_from_message,
    report_to_message,
    request_from_message,
    request_to_message,
    to_line,
)
from MedMapAILib.inference.report import RunReport
from MedMapAILib.inference.shared_memory import SharedArrays, remove_block, remove_blocks
from MedMapAILib.results import Segment, Segmentation, terminology_entry

FOLDER = Path("/dev/shm")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux shows shared memory as files")
LIVER = terminology_entry(
    category=("SCT", "123037004", "Anatomical Structure"), type=("SCT", "10200004", "Liver"), region=None
)


def name(suffix="t"):
    return f"medmapai-{os.getpid()}-99-{suffix}"


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    left = list(FOLDER.glob(f"medmapai-{os.getpid()}-99-*")) if FOLDER.is_dir() else []
    remove_blocks(f"medmapai-{os.getpid()}-99-")
    assert not left


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i2", ">u2", "u1", "i1", "<f8", "<u4"])
def test_arrays_come_out_as_they_went_in(dtype):
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 100, (1, 5, 6, 7)).astype(dtype), random.integers(0, 9, (3, 1, 2)).astype("u1")]
    made = SharedArrays.create(name(), arrays)
    opened = SharedArrays.open(made.description)
    made.unlink()
    for array, one, other in zip(arrays, made.arrays, opened.arrays, strict=True):
        assert one.dtype == other.dtype == array.dtype
        np.testing.assert_array_equal(one, array)
        np.testing.assert_array_equal(other, array)


def test_both_look_into_the_same_memory():
    made = SharedArrays.create(name(), [np.zeros((2, 3))])
    opened = SharedArrays.open(made.description)
    made.unlink()
    opened.arrays[0][1, 2] = 7
    assert made.arrays[0][1, 2] == 7


def test_the_order_in_memory_is_kept():
    """Slicer's voxels are (K, J, I) in memory and (C, I, J, K) to us: neither side turns them round."""
    voxels = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    made = SharedArrays.create(name(), [voxels.transpose(2, 1, 0)[None], voxels[::-1, :, ::2]])
    made.unlink()
    assert made.arrays[0].shape == (1, 6, 5, 4)
    assert made.arrays[0][0].T.flags.c_contiguous
    np.testing.assert_array_equal(made.arrays[0][0].T, voxels)
    np.testing.assert_array_equal(made.arrays[1], voxels[::-1, :, ::2])


def test_the_order_in_memory_can_be_that_of_vtk():
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    made = SharedArrays.create(name(), [labels], first_axis_fastest=True)
    made.unlink()
    assert made.arrays[0].T.flags.c_contiguous
    np.testing.assert_array_equal(made.arrays[0], labels)


def test_arrays_outlive_their_name_and_their_block():
    made = SharedArrays.create(name(), [np.arange(1000)])
    view = SharedArrays.open(made.description).arrays[0][10:20]
    made.unlink()
    del made
    gc.collect()
    np.testing.assert_array_equal(view, np.arange(10, 20))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no names that outlive their users")
def test_a_name_is_there_once_and_then_gone():
    made = SharedArrays.create(name(), [np.zeros(3)])
    with pytest.raises(FileExistsError):
        SharedArrays.create(name(), [np.zeros(3)])
    made.unlink()
    made.unlink()
    remove_block(name())
    with pytest.raises(FileNotFoundError):
        SharedArrays.open(made.description)


def test_names_fit_every_system():
    with pytest.raises(ValueError, match="no name"):
        SharedArrays.create("medmapai-" + 22 * "x", [np.zeros(3)])
    # The largest process number of Linux, and more models than anybody runs.
    assert len("medmapai-4194304-999-99999i") <= 30


@linux
def test_too_much_is_refused_before_anything_is_written():
    huge = np.broadcast_to(np.uint8(0), (2**20, 2**20, 64))
    with pytest.raises(RunError, match="no room in shared memory"):
        SharedArrays.create(name(), [huge])


@linux
def test_blocks_are_removed_by_the_beginning_of_their_names():
    for suffix in ("a1", "a2", "b1"):
        SharedArrays.create(name(suffix), [np.zeros(3)])
    remove_blocks(name("a"))
    assert [path.name for path in FOLDER.glob(name("*"))] == [name("b1")]
    remove_blocks("")  # not everything
    assert (FOLDER / name("b1")).exists()
    remove_blocks(name("b"))


def test_no_tracker_process_is_started():
    code = """
import sys, numpy as np, psutil
from MedMapAILib.inference.shared_memory import SharedArrays
made = SharedArrays.create(sys.argv[1], [np.zeros(9)])
SharedArrays.open(made.description)
made.unlink()
assert not psutil.Process().children(recursive=True)
assert "multiprocessing.resource_tracker" not in sys.modules
assert "torch" not in sys.modules
"""
    library = Path(inference.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, name()], check=True, env={**os.environ, "PYTHONPATH": str(library)})


def through_json(message):
    return from_line(to_line(message))


def segmentation(**changes):
    labels = np.zeros((3, 4, 5), dtype=np.uint16)
    labels[1] = 300
    affine = np.array([[-0.1, 1 / 3, 0, 1e-17], [0.7, 0, 0.2, -12.25], [0, 0.1, 2.5, 1e6], [0, 0, 0, 1]])
    segments = (Segment(300, "Leber, ß ’日本", (0.1, 2 / 3, 1.0), LIVER), Segment(2, "rest", (0, 0, 0), None))
    return Segmentation(**{"labels": labels, "affine": affine, "segments": segments, "notes": ("sheared",), **changes})


def assert_same_segmentation(one, other):
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.labels.dtype == other.labels.dtype
    np.testing.assert_array_equal(one.affine, other.affine)
    assert one.segments == other.segments
    assert one.notes == other.notes


@pytest.mark.parametrize("whole", [True, False])
def test_a_request_comes_out_as_it_went_in(whole):
    more = dict(
        notes=("Größe",), roi=((1 / 3, -2, 3), (4, 5.5, 6)), reference=segmentation(), device="cpu", precision="bf16"
    )
    more |= dict(backend="openvino", overlap=0.1, mirror=False)
    image = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    request = RunRequest("/models/ä b.zip", image, segmentation().affine, **(more if whole else {}))
    message, arrays = request_to_message(request)
    back = request_from_message(through_json(message), arrays)
    np.testing.assert_array_equal(back.image, image)
    np.testing.assert_array_equal(back.affine, request.affine)
    for key in ("model", "notes", "roi", "device", "precision", "backend", "overlap", "mirror"):
        assert getattr(back, key) == getattr(request, key), key
    if whole:
        assert_same_segmentation(back.reference, request.reference)
    else:
        assert back.reference is None


def test_a_report_comes_out_as_it_went_in():
    scores = {"mean": {"dice": np.float32(0.5), "hd95_mm": None}, "labels": {"rest": {"dice": float("nan")}}}
    report = RunReport("liver", segmentation(), "cpu, fp32", 1.25, scores)
    message, arrays = report_to_message(report)
    back = report_from_message(through_json(message), arrays)
    assert_same_segmentation(back.segmentation, report.segmentation)
    assert (back.model, back.device, back.seconds) == ("liver", "cpu, fp32", 1.25)
    assert back.scores["mean"] == {"dice": 0.5, "hd95_mm": None}
    assert np.isnan(back.scores["labels"]["rest"]["dice"])
    assert back.sentence == report.sentence


@pytest.mark.parametrize("line", [b"", b"hello", b"[1, 2]", b"3", b'{"event": "progress"', b"\xff\xfe{}", b"null"])
def test_what_is_no_object_is_told_apart(line):
    assert from_line(line) is None
