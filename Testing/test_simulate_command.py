"""``medmapai simulate``: what it writes, and what it refuses, run as a user runs it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from MedMapAILib.cli import main
from MedMapAILib.datasets import open_dataset
from MedMapAILib.datasets.loading import load_case
from MedMapAILib.image import affine_of, make_image, read_image, write_image
from MedMapAILib.measurements.acquisition import acquisition_of
from MedMapAILib.measurements.files import read_measurement

AFFINE = np.array([[-2.0, 0, 0, 30], [0, -2.0, 0, 20], [0, 0, 5.0, -100], [0, 0, 0, 1]])


def ct_voxels(seed=0):
    voxels = np.full((32, 28, 3), -1000.0, np.float32)
    voxels[6:26, 5:24] = 40
    voxels[12 + seed : 16 + seed, 10:13, 1] = 900
    return voxels


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "scan.nii.gz"
    write_image(make_image(ct_voxels()[None], AFFINE), path)
    return path


def call(capsys, *arguments, status=0):
    """What a call says: standard output, or standard error where it fails."""
    assert main(["simulate", *map(str, arguments)]) == status
    printed = capsys.readouterr()
    return printed.err if status else printed.out


@pytest.mark.parametrize("ending", [".nrrd", ".h5"])
def test_a_measurement_holds_all_that_was_drawn(volume, tmp_path, capsys, ending):
    out = tmp_path / f"sinogram{ending}"
    options = ("--views", "20,40", "--photons", "5000,50000", "--seed", "7", "--set", "electronic_noise=2")
    report = json.loads(call(capsys, volume, out, *options, "--json"))
    measured = read_measurement(out)
    drawn = measured.about["acquisition"]
    assert drawn == report["acquisition"] and drawn["seed"] == measured.about["seed"] == 7
    assert drawn["views"] in (20, 40) and 5000 <= drawn["photons"] <= 50000 and drawn["electronic_noise"] == 2
    assert np.allclose(measured.affine, AFFINE) and measured.shape == (32, 28, 3) and measured.hounsfield
    # What is stored is enough to make the very same numbers again.
    again = acquisition_of(drawn).simulate_volume(read_image(volume), measured.about["seed"])
    assert np.array_equal(again.line_integrals, measured.line_integrals)
    assert again.geometry == measured.geometry


def test_k_space(tmp_path, capsys):
    write_image(make_image(np.abs(ct_voxels())[None], AFFINE), tmp_path / "mr.nrrd")
    call(capsys, tmp_path / "mr.nrrd", tmp_path / "k.npy", "--kind", "mr", "--coils", "2", "--acceleration", "3")
    measured = read_measurement(tmp_path / "k.npy")
    assert measured.k_space.shape == (3, 2, 28, 32) and np.allclose(measured.affine, AFFINE)
    assert measured.mask.mean() == pytest.approx(1 / 3, abs=0.02)
    assert measured.about["acquisition"]["coils"] == 2


@pytest.mark.parametrize(("name", "option"), [("low.nii.gz", ()), ("low.nrrd", ("--image",))])
def test_an_image_lies_where_its_volume_does(volume, tmp_path, capsys, name, option):
    out = tmp_path / name
    call(capsys, volume, out, "--views", "60", "--photons", "100000", "--seed", "2", *option)
    image = read_image(out)
    assert np.allclose(affine_of(image), AFFINE) and image.shape == (1, 32, 28, 3)
    assert float(image[0, 8:24, 7:22, 0].mean()) == pytest.approx(40, abs=15)
    if name.endswith(".nrrd"):
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(out))
        reader.ReadImageInformation()
        about = json.loads(reader.GetMetaData("acquisition"))
        assert not out.with_suffix(".json").exists()
    else:
        about = json.loads((tmp_path / "low.json").read_text())
    assert about["seed"] == 2 and about["acquisition"]["photons"] == 100000


def test_noise_makes_an_image(volume, tmp_path, capsys):
    call(capsys, volume, tmp_path / "noisy.nrrd", "--kind", "noise", "--sd", "30")
    difference = read_image(tmp_path / "noisy.nrrd").numpy()[0] - ct_voxels()
    assert difference.std() == pytest.approx(30, rel=0.05)


def test_padding_is_air_in_inputs_and_targets(tmp_path, capsys):
    voxels = ct_voxels()
    voxels[:3] = -3024
    (tmp_path / "scans").mkdir()
    write_image(make_image(voxels[None], AFFINE), tmp_path / "scans" / "scan.nrrd")
    call(capsys, tmp_path / "scans", tmp_path / "set", "--pairs", "--views", "30")
    dataset = open_dataset(tmp_path / "set")
    image, reference = load_case(dataset.cases[0], dataset)
    assert (reference.values[:3] == -1000).all() and float(image[0, :3].mean()) > -1300
    assert np.array_equal(reference.values[3:], voxels[3:])


def test_pairs_are_a_data_set(tmp_path, capsys):
    (tmp_path / "scans").mkdir()
    for name, seed in (("Doe_John_a", 0), ("Doe_John_b", 3)):
        write_image(make_image(ct_voxels(seed)[None], AFFINE), tmp_path / "scans" / f"{name}.nrrd")
    options = (
        "--pairs",
        "--copies",
        "2",
        "--photons",
        "5000,50000",
        "--views",
        "30",
        "--patient-pattern",
        "(Doe_John)",
    )
    said = call(capsys, tmp_path / "scans", tmp_path / "set", *options)
    assert "4 pairs of 2 images" in said
    written = [path.relative_to(tmp_path / "set").as_posix() for path in sorted((tmp_path / "set").rglob("*.*"))]
    assert len(written) == 7 and "Doe" not in (tmp_path / "set" / "about.json").read_text() + "".join(written)

    dataset = open_dataset(tmp_path / "set")
    assert dataset.task == "reconstruction" and dataset.target == "pairs"
    assert {case.patient for case in dataset.cases} == {"patient_0000"}
    assert len({case.target for case in dataset.cases}) == 2
    about = json.loads((tmp_path / "set" / "about.json").read_text())
    truth = make_image(ct_voxels()[None], AFFINE)
    for case in dataset.cases[:2]:
        image, reference = load_case(case, dataset)
        assert np.array_equal(reference.values, ct_voxels())
        pair = about["pairs"][case.name]
        assert 5000 <= pair["acquisition"]["photons"] <= 50000
        again = acquisition_of(pair["acquisition"]).degraded(truth, pair["seed"])
        assert np.array_equal(np.rint(again.numpy()), image.numpy())
    assert len({pair["seed"] for pair in about["pairs"].values()}) == 4
    # An older set is replaced, somebody else's folder is not.
    call(capsys, tmp_path / "scans", tmp_path / "set", "--pairs", "--views", "30")
    assert len(open_dataset(tmp_path / "set").cases) == 2
    assert "choose another folder" in call(capsys, tmp_path / "scans", tmp_path / "scans", "--pairs", status=2)


def test_a_volume_that_is_no_ct(tmp_path, capsys):
    path = tmp_path / "mr.nrrd"
    write_image(make_image(np.abs(ct_voxels())[None], AFFINE), path)
    said = call(capsys, path, tmp_path / "s.nrrd", status=2)
    assert "no Hounsfield units" in said and "--assume-hu" in said and "--kind mr" in said and said.count("\n") == 1
    assert not (tmp_path / "s.nrrd").exists() and not (tmp_path / "s.json").exists()
    call(capsys, path, tmp_path / "s.nrrd", "--assume-hu", "--views", "10")
    call(capsys, path, tmp_path / "t.nrrd", "--add-hu", "-1000", "--views", "10")
    (tmp_path / "many").mkdir()
    write_image(make_image(np.abs(ct_voxels())[None], AFFINE), tmp_path / "many" / "mr.nrrd")
    assert "mr.nrrd" in call(capsys, tmp_path / "many", tmp_path / "set", "--pairs", status=2)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("out", "options", "said"),
    [
        ("s.npy", (), "A sinogram is written"),
        ("s.nrrd", ("--kind", "mr"), "A k-space is written"),
        ("s.png", ("--image",), "an image ends in"),
        ("nowhere/s.nrrd", (), "no folder"),
        ("s.nrrd", ("--acceleration", "2"), "which has no acceleration"),
        ("s.nrrd", ("--photons", "-2"), "photons is -2"),
        ("s.nrrd", ("--set", "views"), "key=value"),
        ("s.nrrd", ("--set", "doses=1"), "no doses"),
        ("s.nrrd", ("--seed", "-1"), "seed"),
        ("s.nrrd", ("--beam", "fan", "--set", "source_to_center_mm=5"), "source_to_center_mm is 5"),
    ],
)
def test_wrong_calls(volume, tmp_path, capsys, out, options, said):
    before = sorted(tmp_path.iterdir())
    text = call(capsys, volume, tmp_path / out, *options, status=2)
    assert said in text and text.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_volumes_that_cannot_be_measured(tmp_path, capsys):
    voxels = ct_voxels()
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(voxels)] * 2), str(tmp_path / "four.nii.gz"))
    assert "--frame" in call(capsys, tmp_path / "four.nii.gz", tmp_path / "s.nrrd", status=2)
    write_image(make_image(np.full((1, 8, 8, 2), -1000.0), AFFINE), tmp_path / "air.nrrd")
    assert "same value" in call(capsys, tmp_path / "air.nrrd", tmp_path / "s.nrrd", status=2)
    write_image(make_image(voxels[None], np.diag([1.0, 3.0, 5.0, 1.0])), tmp_path / "long.nrrd")
    assert "1 mm wide and 3 mm high" in call(capsys, tmp_path / "long.nrrd", tmp_path / "s.nrrd", status=2)
    assert not (tmp_path / "s.nrrd").exists()
    call(capsys, tmp_path / "four.nii.gz", tmp_path / "s.nrrd", "--frame", "1", "--views", "5")
