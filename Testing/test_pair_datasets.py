"""Data for reconstruction: which folder and table is what, and what is wrong with those that are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dicom_series import write_series
from MedMapAILib.datasets import open_dataset
from MedMapAILib.datasets.loading import load_case
from MedMapAILib.datasets.report import describe_dataset, measure_dataset
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image, write_image
from synthetic import write_dataset

TASK = {"task": "reconstruction"}


def write(path, seed=0, noise=0.0, shape=(10, 8, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).uniform(0, 100, shape)
    values = values + noise * np.random.default_rng(seed + 100).standard_normal(shape)
    write_image(make_image(values[None], np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return path


@pytest.fixture
def pairs(tmp_path):
    for number in range(3):
        write(tmp_path / "set" / "inputs" / f"P{number}_x.nii.gz", number, noise=2)
        write(tmp_path / "set" / "targets" / f"P{number}_x.nrrd", number)
    return tmp_path / "set"


def test_folders_of_pairs(pairs):
    dataset = open_dataset(pairs, patient_pattern=r"(P\d)")
    assert (dataset.task, dataset.target, dataset.source["kind"]) == ("reconstruction", "pairs", "pairs")
    assert [(case.name, case.patient) for case in dataset.cases] == [(f"P{n}_x", f"P{n}") for n in range(3)]
    image, reference = load_case(dataset.cases[1], dataset)
    assert reference.values.shape == (10, 8, 4) and not np.array_equal(image.numpy()[0], reference.values)


def test_pairs_that_do_not_fit_are_listed(pairs):
    (pairs / "targets" / "P1_x.nrrd").rename(pairs / "targets" / "P9_x.nrrd")
    write(pairs / "inputs" / "P2_x.mha")
    with pytest.raises(InputError) as caught:
        open_dataset(pairs)
    for part in ("1 input(s) without a target (P1_x)", "1 target(s) without an input (P9_x)", "two files in inputs/"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="patient_pattern"):
        open_dataset(pairs, patient_pattern=r"(Q\d)")


def test_pairs_on_two_grids_are_refused(pairs):
    write(pairs / "targets" / "P0_x.nrrd", shape=(10, 9, 4))
    dataset = open_dataset(pairs)
    with pytest.raises(InputError, match="10×8×4 voxels and .* 10×9×4"):
        load_case(dataset.cases[0], dataset)


def test_what_the_simulation_says_of_its_pairs(pairs):
    (pairs / "targets" / "P1_x.nrrd").unlink()
    about = {"pairs": {"P1_x": {"target": "P0_x", "patient": "one"}, "P0_x": {"target": "P0_x", "patient": "one"}}}
    (pairs / "about.json").write_text(json.dumps(about))
    cases = {case.name: case for case in open_dataset(pairs).cases}
    assert cases["P1_x"].target == cases["P0_x"].target and cases["P1_x"].patient == "one"
    assert cases["P2_x"].patient == "P2_x"
    (pairs / "about.json").write_text("{}")
    with pytest.raises(InputError, match="about.json"):
        open_dataset(pairs)


def test_a_table_of_pairs(pairs):
    table = pairs / "list.csv"
    rows = ["Input;Target;Patient;Split"]
    rows += [
        f"inputs\\P{n}_x.nii.gz;targets/P{n}_x.nrrd;{'ab'[n > 1]};{'train' if n < 2 else 'test'}" for n in range(3)
    ]
    table.write_text("\n".join(rows))
    dataset = open_dataset(table)
    assert dataset.target == "pairs" and [case.patient for case in dataset.cases] == ["a", "a", "b"]
    assert dataset.source["split"] == {"P0_x": "train", "P1_x": "train", "P2_x": "test"}
    table.write_text("input,target\ninputs/P0_x.nii.gz,targets/none.nrrd\ninputs/P1_x.nii.gz,\n")
    with pytest.raises(InputError, match=r"missing file\(s\) \(targets/none.nrrd\).*nothing under target \(line 3\)"):
        open_dataset(table)


def test_volumes_are_taken_from_wherever_they_are(tmp_path):
    segmentation = write_dataset(tmp_path / "seg", 2)
    assert open_dataset(segmentation).task == "segmentation"
    clean = open_dataset(segmentation, options=TASK)
    assert (clean.target, len(clean.cases)) == ("clean", 2) and clean.usable == clean.cases
    own = open_dataset(segmentation, options={**TASK, "target": "self"})
    assert own.target == "self" and not own.usable
    image, reference = load_case(clean.cases[0], clean)
    assert np.array_equal(image.numpy()[0], reference.values)
    assert load_case(own.cases[0], own)[1] is None
    # One file needs no word about the task.
    single = open_dataset(segmentation / "images" / "case_00.nii.gz")
    assert single.target == "clean" and [case.name for case in single.cases] == ["case_00"]


def test_volumes_in_many_folders(tmp_path):
    write(tmp_path / "a" / "scan.nrrd", 1)
    write(tmp_path / "b" / "scan.nrrd", 2)
    write(tmp_path / "b" / "labels" / "scan.nrrd", 3)
    write(tmp_path / "b" / "scan.seg.nrrd", 3)
    write_series(tmp_path / "c" / "series", [(0, 0, 2.0 * n) for n in range(3)])
    dataset = open_dataset(tmp_path, "volumes", patient_pattern=r"^([abc])")
    assert [case.name for case in dataset.cases] == ["a_scan", "b_scan", "c_series"]
    assert [case.patient for case in dataset.cases] == ["a", "b", "c"]
    assert load_case(dataset.cases[2], dataset)[0].ndim == 4
    alone = open_dataset(tmp_path / "c" / "series", options=TASK)
    assert [case.images[0].name for case in alone.cases] == ["series"]


def test_a_table_of_volumes(tmp_path):
    write(tmp_path / "one.nrrd")
    (tmp_path / "list.csv").write_text("image,patient\none.nrrd,p\n")
    dataset = open_dataset(tmp_path / "list.csv", options=TASK)
    assert dataset.target == "clean" and dataset.cases[0].patient == "p"
    (tmp_path / "list.csv").write_text("image,patient\ntwo.nrrd,p\n")
    with pytest.raises(InputError, match="missing file"):
        open_dataset(tmp_path / "list.csv", options=TASK)


def test_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match="no volumes"):
        open_dataset(tmp_path, options=TASK)
    with pytest.raises(InputError, match="inputs/ and targets/"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match='"clean"'):
        open_dataset(tmp_path, "volumes", options={"target": "binary"})


def test_measurements(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "set" / "measurements").mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "measurements" / f"{name}.nrrd").write_bytes(b"")
        (tmp_path / "set" / "measurements" / f"{name}.json").write_text("{}")
    dataset = open_dataset(tmp_path / "set")
    assert dataset.target == "measurements" and [case.target for case in dataset.cases] == [None, None]
    write(tmp_path / "set" / "targets" / "a.nii.gz")
    with pytest.raises(InputError, match=r"measurement\(s\) without a target \(b\)"):
        open_dataset(tmp_path / "set")
    # A folder of HDF5 files, as fastMRI comes.
    (tmp_path / "knees").mkdir()
    (tmp_path / "knees" / "file1.h5").write_bytes(b"")
    assert open_dataset(tmp_path / "knees").target == "measurements"
    assert open_dataset(tmp_path / "knees" / "file1.h5").cases[0].name == "file1"


def test_a_table_of_classes_stays_one(tmp_path):
    """ "target" is the class in many tables; only beside "input" does it name an image."""
    write(tmp_path / "one.nrrd", 1)
    write(tmp_path / "two.nrrd", 2)
    (tmp_path / "list.csv").write_text("image,target\none.nrrd,0\ntwo.nrrd,1\n")
    assert open_dataset(tmp_path / "list.csv").task == "classification"
    (tmp_path / "list.csv").write_text("image,input,target\none.nrrd,x,0\ntwo.nrrd,y,1\n")
    assert open_dataset(tmp_path / "list.csv", options={"target": "binary"}).task == "classification"


def test_the_report_says_how_far_inputs_are_from_their_targets(pairs):
    report = measure_dataset(pairs)
    # Noise of standard deviation 2 on values from 0 to 100: 20 log10(100 / 2) dB.
    assert np.allclose([apart for apart, _ in report.differences], 2, rtol=0.15)
    assert np.allclose([psnr for _, psnr in report.differences], 34, atol=1.2)
    assert not report.problems and report.patients == 3
    page = describe_dataset(pairs)
    assert "3 of 3 cases" in page and "PSNR" in page and "Segment" not in page
    write(pairs / "inputs" / "P0_x.nii.gz", 0)
    assert any("same values" in problem for problem in measure_dataset(pairs).problems)
    assert "true images" in describe_dataset(pairs / "targets", options=TASK)
