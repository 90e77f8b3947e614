"""The data that lung-nodule was trained on: parts do not share patients, and what moves moves together."""

import sys
from pathlib import Path

import numpy as np
import pytest

_BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    """Scripts of the folder import each other by name."""
    monkeypatch.syspath_prepend(str(_BENCHMARKS))
    yield
    for name in [name for name in sys.modules if name.startswith("lung_nodule")]:
        del sys.modules[name]


def test_parts_are_stretches_with_gaps(benchmarks):
    from lung_nodule_parts import ROWS, part_of, part_of_row

    assert [part_of(place) for place in (0.0, 0.5, 0.67, 0.7, 0.81, 0.9, 1.0)] == [
        "train",
        "train",
        None,
        "validation",
        None,
        "test",
        "test",
    ]
    assert part_of(None) is None
    # The reserved patient's scan is number 231 of 888.
    assert part_of_row(int(ROWS * 231 / 888)) is None
    assert part_of_row(10) == "train"


def test_a_patient_with_scans_in_two_parts_or_reserved_is_in_none(benchmarks):
    from lung_nodule_parts import parts_of_patients

    places = {"a": 0.1, "b": 0.7, "c": 0.9, "d": 0.67}
    rows = [
        {"patient_id": patient, "seriesuid": series}
        for patient, series in [
            ("P1", "a"), ("P1", "a"), ("P2", "b"), ("P3", "a"), ("P3", "c"), ("P4", "d"), ("P5", "unknown"),
            ("LIDC-IDRI-0001", "a"),
        ]
    ]  # fmt: skip
    assert parts_of_patients(rows, places) == {"P1": "train", "P2": "validation"}


@pytest.mark.parametrize("seed", range(4))
def test_a_tumor_is_where_its_box_is_after_a_host_was_turned_and_stretched(benchmarks, seed):
    from lung_nodule_data import Source, varied

    affine = np.array([[1.0, 0, 0, -30], [0, 1, 0, 50], [0, 0, 3, -200], [0, 0, 0, 1]])
    voxels = np.full((60, 60, 24), -850, np.float32)
    voxels[20:30, 35:47, 8:13] = 60
    box = np.array([[20, 35, 8], [29, 46, 12]]) @ affine[:3, :3].T + affine[:3, 3]
    source = Source(voxels, voxels < -500, affine, (box,))
    random = np.random.default_rng(seed)
    changed, _, placed, (corners,) = varied(source, 2.5, random, strong=True)
    found = np.argwhere(changed > -250) @ placed[:3, :3].T + placed[:3, 3]
    low, high = corners.min(axis=0), corners.max(axis=0)
    assert len(found) > 100
    # All of it inside, to a voxel; and the box no larger than a turned cuboid needs.
    assert (found >= low - 3.5).all() and (found <= high + 3.5).all()
    assert np.abs(found.mean(axis=0) - (low + high) / 2).max() < 1.5
