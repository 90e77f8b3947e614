"""Methods on measurements, and ``medmapai reconstruct``: right images, right options, sentences for mistakes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ct_phantoms import disc_image
from measurement_files import DISCS, header, scan, write_data_exchange, write_fastmri
from MedMapAILib.cli import main
from MedMapAILib.errors import Cancelled, InputError
from MedMapAILib.image import make_image, read_volume, write_array
from MedMapAILib.measurements import ct_methods, methods, mr_methods
from MedMapAILib.measurements.acquisition import acquisition_of
from MedMapAILib.measurements.ct_methods import noise_deviation
from MedMapAILib.measurements.files import write_measurement
from MedMapAILib.measurements.grid import centered_affine
from MedMapAILib.measurements.measured import CtMeasurement, MrMeasurement
from MedMapAILib.measurements.method_table import FILTERS, METHODS
from MedMapAILib.measurements.methods import check_method, reconstruct_measurement
from MedMapAILib.measurements.options import parse_settings
from MedMapAILib.physics.attenuation import WATER_PER_MM
from MedMapAILib.physics.filters import WINDOWS
from MedMapAILib.physics.fourier import k_space_of_image
from MedMapAILib.physics.mr_sampling import variable_density_points
from MedMapAILib.reconstruct_command import reconstructed
from MedMapAILib.reconstruction.iteration import Stopping
from MedMapAILib.reconstruction.sirt import sirt
from MedMapAILib.training.run import train
from PIL import Image
from reconstruction_data import reconstruction_config, write_bodies
from test_mr_physics import body, coils

#: Options with which a method is through with a small case.
QUICK = {
    "fbp": {"filter": "hann"},
    "sirt": {"iterations": 60},
    "sart": {"iterations": 5},
    "cgls": {"iterations": 8},
    "mlem": {"iterations": 40},
    "tv": {"iterations": 60},
}


@pytest.fixture(scope="module")
def sinogram():
    """Two slices of discs of which the second is denser; and the true images (I, J, K) in 1/mm."""
    geometry, lines = scan(rows=2)
    true = disc_image(64, 1.0, DISCS)[0, 0].numpy().T
    measured = CtMeasurement(lines, geometry, centered_affine((64, 64, 2), (1, 1, 3)), hounsfield=False)
    return measured, np.stack([true, 1.25 * true], axis=-1)


def k_space(slices=2, size=(48, 40), acceleration=3.0, noise=0.002):
    """A body in ``slices`` slices seen by three coils, and the true magnitudes (I, J, K)."""
    sensitivities = coils(3, size)
    images = torch.cat([body(size) * (n + 1) for n in range(slices)])
    mask = variable_density_points(size, acceleration, center=0.3, seed=0)
    generator = torch.Generator().manual_seed(0)
    samples = k_space_of_image(sensitivities * images)
    samples = mask * (samples + noise * torch.randn(samples.shape, dtype=samples.dtype, generator=generator))
    measured = MrMeasurement(samples.numpy(), mask.numpy(), centered_affine((*size[::-1], slices), (1, 1, 3)))
    return measured, images[:, 0].abs().numpy().transpose(2, 1, 0)


def psnr(found, true):
    return 10 * np.log10(true.max() ** 2 / np.square(found - true).mean())


# ---- methods


@pytest.mark.parametrize("name", QUICK)
def test_every_ct_method_gives_the_discs_back(sinogram, name):
    measured, true = sinogram
    result = reconstruct_measurement(name, measured, options=QUICK[name], device="cpu")
    assert result.values.shape == (64, 64, 2) and result.values.dtype == np.float32
    assert psnr(result.values, true) > 21
    assert result.unit == "1/mm" and result.window is None and np.array_equal(result.affine, measured.affine)
    # The inside of the large disc.
    assert result.values[20:26, 40:46].mean(axis=(0, 1)) == pytest.approx([0.02, 0.025], rel=0.03)
    if name != "fbp":
        assert len(result.residuals) == QUICK[name]["iterations"] or "converged" in result.notes[-1]
        assert result.residuals[-1] < 0.1 and min(result.residuals[1:]) <= result.residuals[1]


def test_hounsfield_units_when_it_is_of_a_patient(sinogram):
    measured, true = sinogram
    plain = reconstruct_measurement("fbp", measured, device="cpu").values
    result = reconstruct_measurement("fbp", replace(measured, hounsfield=True), device="cpu")
    assert result.unit == "HU" and result.window == (-1000, 1000)
    assert result.values == pytest.approx((plain / WATER_PER_MM - 1) * 1000, abs=0.05)


def test_residuals_are_the_mean_over_portions(sinogram, monkeypatch):
    measured, _ = sinogram
    together = reconstruct_measurement("sirt", measured, options={"iterations": 4}, device="cpu")
    monkeypatch.setattr(methods, "_PIXELS_AT_ONCE", 1)
    apart = reconstruct_measurement("sirt", measured, options={"iterations": 4}, device="cpu")
    assert apart.values == pytest.approx(together.values, abs=1e-6)
    projector = ct_methods.Scan(measured, torch.device("cpu")).projector
    curves = [
        sirt(projector, torch.from_numpy(one)[None, None], stopping=Stopping(4, tolerance=1e-4)).residuals
        for one in measured.line_integrals
    ]
    assert apart.residuals == pytest.approx(np.mean(curves, axis=0), rel=1e-4)


@pytest.mark.parametrize("name", ["cg-sense", "tv", "wavelet"])
def test_mr_methods_beat_the_zero_filled_image(name):
    measured, true = k_space()
    zero = reconstruct_measurement("zero-filled", measured, device="cpu")
    assert zero.residuals == () and zero.values.shape == (40, 48, 2)
    options = {} if name == "cg-sense" else {"weight": 1e-3, "iterations": 40}
    found = reconstruct_measurement(name, measured, options=options, device="cpu")
    assert psnr(found.values, true) > psnr(zero.values, true) + 3
    assert found.unit == "" and found.residuals[-1] < 0.1


def test_where_no_coil_sees_there_is_no_image():
    # Nothing holds such pixels: they went astray, and others with them, the longer the iteration took.
    measured, true = k_space(slices=1)
    short, long = (
        reconstruct_measurement("wavelet", measured, options={"weight": 1e-3, "iterations": n, "tolerance": 0}).values
        for n in (30, 120)
    )
    assert psnr(long, true) > psnr(short, true) - 1
    assert (long[true == 0] == 0).mean() > 0.5


def test_mr_crops_single_coils_and_masks_of_each_slice():
    measured, _ = k_space()
    whole = reconstruct_measurement("cg-sense", measured, device="cpu").values
    part = reconstruct_measurement("cg-sense", replace(measured, crop=(20, 12)), device="cpu").values
    assert np.array_equal(part, whole[14:26, 14:34])
    masks = np.stack([measured.mask, np.ones_like(measured.mask)])
    assert reconstruct_measurement("tv", replace(measured, mask=masks), options={"iterations": 3}).values.shape[2] == 2
    # One coil that sees everything alike, all samples: the image itself.
    image = body((48, 40))
    lone = MrMeasurement(k_space_of_image(image).numpy(), np.ones((48, 40), bool), np.eye(4))
    found = reconstruct_measurement("cg-sense", lone, options={"damping": 0}, device="cpu").values
    assert found[..., 0].T == pytest.approx(image[0, 0].abs().numpy(), abs=1e-5)


def test_progress_and_cancel(sinogram):
    measured, _ = sinogram
    told = []
    options = {"iterations": 3, "tolerance": 0}
    reconstruct_measurement("sirt", measured, options=options, progress=lambda *values: told.append(values))
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert told[-1][0] == 1 and "iteration 2, residual" in told[2][1]
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Cancelled):
        reconstruct_measurement("sirt", measured, options=options, cancelled=cancelled)
    assert len(asked) == 3


def test_the_noise_of_a_sinogram_is_measured():
    _, lines = scan(views=120, detectors=200)
    noise = 0.02 * torch.randn(lines.shape, generator=torch.Generator().manual_seed(0))
    assert noise_deviation(torch.from_numpy(lines) + noise) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("name", ["zero-filled", "cg-sense", "tv", "wavelet"])
def test_slices_of_which_nothing_was_measured_are_empty(name):
    image = np.zeros((24, 20, 3), np.float32)
    image[6:18, 5:15, 1] = 1
    acquisition = acquisition_of({"kind": "mr", "coils": 4, "noise": 0, "center_fraction": 0.4, "acceleration": 2})
    measurement = acquisition.simulate_volume(make_image(image[None], np.eye(4)), 0)
    found = reconstruct_measurement(name, measurement, options={"iterations": 5} if name != "zero-filled" else None)
    assert found.values.shape == (24, 20, 3) and not found.values[..., [0, 2]].any()
    assert np.corrcoef(found.values[..., 1].ravel(), image[..., 1].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("name", ["tv", "wavelet"])
def test_sensitivities_of_any_size_are_taken(name):
    """Three times as large they make the image a third, and the iterations do not diverge."""
    image = np.zeros((24, 20, 1), np.float32)
    image[6:18, 5:15] = 1
    about = {"kind": "mr", "coils": 4, "noise": 0, "center_fraction": 0.4, "acceleration": 2}
    acquisition = acquisition_of(about).drawn(0)
    measurement = acquisition.simulate_volume(make_image(image[None], np.eye(4)), 0)
    known = acquisition.operator((20, 24), (1.0, 1.0)).sensitivities.numpy()[None].astype(np.complex64)
    options = {"iterations": 60, "weight": 1e-4}
    plain, large = (
        reconstruct_measurement(name, replace(measurement, sensitivities=known * factor), options=options).values
        for factor in (1, 3)
    )
    assert np.abs(3 * large - plain).max() < 0.05


def test_options_are_checked():
    assert check_method("tv", "ct", {"weight": 0.01})["iterations"] == 200
    assert check_method("tv", "mr")["sensitivities"] == "espirit"
    cases = {
        "There is no method sort; there are fbp, sirt": ("sort", "ct", {}),
        "fbp is for a sinogram, and this is a k-space: tv, zero-filled, cg-sense, wavelet": ("fbp", "mr", {}),
        "cg-sense is for a k-space, and this is a sinogram": ("cg-sense", "ct", {}),
        "sirt has no option weight; it has iterations": ("sirt", "ct", {"weight": 1}),
        "option iterations of sirt is 0, not a whole number": ("sirt", "ct", {"iterations": 0}),
        "option iterations of sirt is 2.5": ("sirt", "ct", {"iterations": 2.5}),
        "option filter of fbp is 'box'; there are ramp": ("fbp", "ct", {"filter": "box"}),
        "option nonnegative of tv is 1; it is true or false": ("tv", "ct", {"nonnegative": 1}),
        "option relaxation of sirt is 2": ("sirt", "ct", {"relaxation": 2}),
        "option denoiser of plug-and-play is None, not a name": ("plug-and-play", "ct", {}),
    }
    for words, (name, kind, options) in cases.items():
        with pytest.raises(InputError) as caught:
            check_method(name, kind, options)
        assert words.replace("'sort'", "sort") in str(caught.value).replace("'sort'", "sort")
    assert parse_settings(["iterations=5", "weight=1e-3", "nonnegative=false", "filter=hann", "discrepancy=none"]) == {
        "iterations": 5, "weight": 1e-3, "nonnegative": False, "filter": "hann", "discrepancy": None,
    }  # fmt: skip
    with pytest.raises(InputError, match="not of the form KEY=VALUE"):
        parse_settings(["iterations"])


def test_a_table_names_each_method_and_every_default_is_allowed():
    for name, method in METHODS.items():
        for kind in method.kinds:
            given = {"denoiser": "some"} if "denoiser" in method.options[kind] else {}
            assert set(check_method(name, kind, given)) == set(method.options[kind])
            # Each has a function of its name.
            assert callable(getattr({"ct": ct_methods, "mr": mr_methods}[kind], name.replace("-", "_")))
    assert FILTERS == tuple(WINDOWS)


# ---- models


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory):
    """A bundle of a network that has learned nothing: it gives its input back."""
    folder = tmp_path_factory.mktemp("unlearned")
    config = reconstruction_config(write_bodies(folder / "data", 6), epochs=1, iterations=1)
    config["optimizer"]["learning_rate"] = 1e-12
    return train(config, folder / "out", on_event=lambda event: None)


def test_a_model_of_images_is_given_the_backprojection(sinogram, unlearned):
    measured = replace(sinogram[0], hounsfield=True)
    first = reconstruct_measurement("fbp", measured, device="cpu").values
    result = reconstructed(str(unlearned), measured, device="cpu")
    assert result.values == pytest.approx(first, abs=0.5)
    assert "it was given the measurement's image by fbp" in result.notes[-1]
    with pytest.raises(InputError, match="has no options; leave --set out"):
        reconstructed(str(unlearned), measured, {"iterations": 3})
    with pytest.raises(InputError, match="takes images in HU, and those of this measurement are in 1/mm"):
        reconstructed(str(unlearned), sinogram[0], device="cpu")


def test_plug_and_play_with_a_model(sinogram, unlearned):
    measured = replace(sinogram[0], hounsfield=True)
    result = reconstruct_measurement(
        "plug-and-play", measured, options={"denoiser": str(unlearned), "iterations": 3}, device="cpu"
    )
    # A denoiser that does nothing leaves the fit of the data: better than the image that it began from.
    true = (sinogram[1] / WATER_PER_MM - 1) * 1000
    first = reconstruct_measurement("fbp", measured, device="cpu").values
    assert len(result.residuals) == 3 and result.residuals[-1] <= result.residuals[0] < 0.1
    assert np.abs(result.values - true).mean() < np.abs(first - true).mean()
    with pytest.raises(InputError, match="this measurement is of no patient"):
        reconstruct_measurement("plug-and-play", sinogram[0], options={"denoiser": str(unlearned)}, device="cpu")
    with pytest.raises(InputError, match="does not denoise CT images in HU"):
        reconstruct_measurement("plug-and-play", measured, options={"denoiser": "hippocampus"}, device="cpu")


# ---- the command


def run(*arguments, capsys):
    status = main(["reconstruct", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_the_command_writes_an_image_a_curve_and_json(tmp_path, sinogram, capsys):
    measured, true = sinogram
    write_measurement(measured, tmp_path / "scan.nrrd")
    write_array(true.astype(np.float32), measured.affine, tmp_path / "true.nrrd")
    status, out, err = run(
        "sirt", tmp_path / "scan.nrrd", tmp_path / "out.nii.gz", "--set", "iterations=30", "--set", "tolerance=0",
        "--reference", tmp_path / "true.nrrd", "--window", "0,0.03", "--residuals", tmp_path / "r.csv", "--json",
        "--device", "cpu", capsys=capsys,
    )  # fmt: skip
    assert status == 0, err
    report = json.loads(out)
    assert report["unit"] == "1/mm" and report["size"] == [64, 64, 2] and len(report["residuals"]) == 30
    assert report["metrics"]["psnr"] > 21 and report["metrics"]["data_range"] == pytest.approx(0.03)
    volume = read_volume(tmp_path / "out.nii.gz")
    assert volume.affine == pytest.approx(measured.affine) and volume.array[22, 42, 1] == pytest.approx(0.025, rel=0.05)
    with open(tmp_path / "r.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["residual"]) for row in rows] == pytest.approx(report["residuals"], rel=1e-6)


def test_the_command_in_words_with_a_picture(tmp_path, capsys):
    geometry, lines = scan()
    write_data_exchange(tmp_path / "scan.h5", lines, np.degrees(geometry.angles))
    status, out, err = run(
        "cgls", tmp_path / "scan.h5", tmp_path / "out.nrrd", "--size", "48x40", "--pixel", "1.5", "--rows", "0:1",
        "--set", "iterations=6", "--residuals", tmp_path / "r.png", capsys=capsys,
    )  # fmt: skip
    assert status == 0, err
    assert "center of rotation was found" in err and "out.nrrd" in out
    assert read_volume(tmp_path / "out.nrrd").array.shape == (40, 48, 1)
    with Image.open(tmp_path / "r.png") as picture:
        assert min(picture.size) > 300
    status, out, err = run(
        "fbp", tmp_path / "scan.h5", tmp_path / "o.nrrd", "--residuals", tmp_path / "n.csv", capsys=capsys
    )
    assert status == 0 and "does not iterate" in err and not (tmp_path / "n.csv").exists()


def test_the_command_on_fastmri_with_its_own_reference(tmp_path, capsys):
    size = (32, 20)
    samples = k_space_of_image(coils(3, size) * body(size)).numpy()
    measured = MrMeasurement(samples, np.ones(size, bool), np.eye(4), None, (16, 16))
    truth = reconstruct_measurement("zero-filled", measured, device="cpu").values
    xml = header((32, 20, 1), (16, 16, 1), (64, 40, 5), (32, 32, 5))
    path = tmp_path / "file1.h5"
    write_fastmri(path, samples, xml, reconstruction=truth.transpose(2, 1, 0))
    status, out, err = run("zero-filled", path, tmp_path / "o.nrrd", "--reference", path, "--json", capsys=capsys)
    report = json.loads(out)
    assert status == 0 and report["metrics"]["nrmse"] < 1e-5 and report["metrics"]["data_range"] > 0


def test_mistakes_are_one_line_and_leave_nothing(tmp_path, sinogram, capsys):
    measured, true = sinogram
    path = tmp_path / "scan.nrrd"
    write_measurement(measured, path)
    write_array(true[:30].astype(np.float32), measured.affine, tmp_path / "small.nrrd")
    before = set(tmp_path.iterdir())
    out = tmp_path / "out.nrrd"
    cases = {
        "must end in one of .nrrd": ("fbp", path, tmp_path / "out.png"),
        "there is no folder": ("fbp", path, tmp_path / "no" / "out.nrrd"),
        "cg-sense is for a k-space": ("cg-sense", path, out),
        "sirt has no option weight": ("sirt", path, out, "--set", "weight=1"),
        "not of the form KEY=VALUE": ("sirt", path, out, "--set", "weight"),
        "nosuch is no method": ("nosuch", path, out),
        "must end in .csv or .png": ("sirt", path, out, "--residuals", tmp_path / "r.txt"),
        "has 30×64×2 voxels": ("fbp", path, out, "--reference", tmp_path / "small.nrrd"),
        "No such file": ("fbp", tmp_path / "other.nrrd", out),
        "cannot be read (No such file": ("fbp", path, out, "--geometry", tmp_path / "g.json"),
        "there is no device cuda:7": ("fbp", path, out, "--device", "cuda:7"),
        "Give a method, a measurement": ("fbp", path),
        "is for segmentation, not for reconstruction": ("hippocampus", path, out),
        "Slices 0 to 9 were asked for": ("fbp", path, out, "--rows", "0:9"),
    }
    for words, arguments in cases.items():
        status, printed, err = run(*arguments, capsys=capsys)
        assert status == 2 and not printed, (words, err)
        assert words.lower() in err.lower() and err.count("\n") == 1, err
        assert set(tmp_path.iterdir()) == before
    for arguments in (["--rows", "3:1"], ["--size", "axb"], ["--window", "3,1"]):
        with pytest.raises(SystemExit) as left:
            main(["reconstruct", "fbp", str(path), str(out), *arguments])
        assert left.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_help_lists_methods_and_options(capsys):
    status, out, _ = run("help", capsys=capsys)
    assert status == 0 and all(name in out for name in METHODS) and "--set weight=0.001" in out


def test_the_real_tooth(shared_data, tmp_path, capsys):
    status, _, err = run(
        "sart", shared_data("xray_ct/tooth.h5"), tmp_path / "t.nrrd", "--size", "160", "--pixel", "2", "--rows", "0:1",
        "--set", "iterations=2", "--geometry", _offset(tmp_path), capsys=capsys,
    )  # fmt: skip
    assert status == 0, err
    found = read_volume(tmp_path / "t.nrrd").array[..., 0]
    # Enamel and dentin in the middle, air at the corners.
    assert found[60:100, 60:100].mean() > 20 * abs(found[:20, :20].mean())


def _offset(folder):
    """A geometry that says where the center is, so that it need not be searched."""
    path = folder / "geometry.json"
    path.write_text('{"detector_offset_mm": 23.5}')
    return path
