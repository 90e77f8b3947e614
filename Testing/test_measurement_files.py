"""Files of measurements: what is in them arrives, and what is wrong with them is said in a sentence."""

from __future__ import annotations

import builtins
import dataclasses
import json
import math

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from measurement_files import (
    header,
    readout,
    scan,
    write_data_exchange,
    write_fastmri,
    write_ismrmrd,
)
from MedMapAILib.errors import InputError
from MedMapAILib.image import ras_from_lps
from MedMapAILib.measurements.fastmri import fastmri_reference
from MedMapAILib.measurements.files import (
    check_writable_measurement,
    is_measurement_file,
    read_measurement,
    write_measurement,
)
from MedMapAILib.measurements.measured import CtMeasurement, MrMeasurement
from MedMapAILib.physics.fourier import image_of_k_space, k_space_of_image
from test_mr_physics import body, coils


def refused(words, call, *arguments, **options):
    with pytest.raises(InputError, match=words) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def degrees_of(geometry):
    return np.degrees(geometry.angles)


def mr_data(size=(24, 20), count=3, slices=2):
    """Images (S, 1, H, W) and k-space (S, C, H, W) of a body seen by coils."""
    images = torch.cat([body(size) * (n + 1) for n in range(slices)])
    return images.numpy(), k_space_of_image(coils(count, size) * images).numpy()


# ---- DataExchange


def test_data_exchange_is_corrected_and_centered(tmp_path):
    geometry, lines = scan(rows=2)
    write_data_exchange(tmp_path / "a.h5", lines, degrees_of(geometry))
    found = read_measurement(tmp_path / "a.h5")
    assert isinstance(found, CtMeasurement) and not found.hounsfield
    assert found.line_integrals == pytest.approx(lines, abs=2e-4)
    assert found.geometry.angles == pytest.approx(geometry.angles)
    assert found.geometry.detector_offset_mm == pytest.approx(3.2, abs=0.15)
    assert found.shape == (72, 72, 2)
    assert any("center of rotation was found at detector pixel 32.3" in note for note in found.notes)
    assert any("1 mm was taken" in note for note in found.notes)


def test_pixel_sizes_angles_and_rows_of_data_exchange(tmp_path):
    geometry, lines = scan(rows=3)

    def change(file):
        file["measurement/instrument/detector/pixel_size_x"] = 6.5
        file["measurement/instrument/detector/pixel_size_x"].attrs["units"] = "um"
        file["measurement/instrument/detection_system/objective/magnification"] = 5.0

    write_data_exchange(tmp_path / "a.h5", lines, geometry.angles, units="rad", change=change)
    found = read_measurement(tmp_path / "a.h5", rows=(1, 2))
    assert found.geometry.detector_spacing_mm == pytest.approx(1.3e-3)
    assert found.geometry.angles == pytest.approx(geometry.angles)
    assert found.line_integrals == pytest.approx(lines[1:2], abs=2e-4)
    # The middle row of three lies in the middle.
    assert (found.affine @ [35.5, 35.5, 0, 1])[:3] == pytest.approx([0, 0, 0], abs=1e-9)
    given = {"angles_deg": degrees_of(geometry).tolist(), "detector_spacing_mm": 0.5, "detector_offset_mm": 1.6}
    found = read_measurement(tmp_path / "a.h5", given, pixel_mm=1.0, image_size=(30, 40), hounsfield=True)
    assert found.geometry.detector_offset_mm == 1.6 and found.hounsfield
    assert found.shape == (40, 30, 3) and found.geometry.pixel_mm == 1.0


def test_holes_and_dead_pixels_are_filled_in_and_told(tmp_path):
    geometry, lines = scan(detectors=80, offset=0.0)

    def change(file):
        data = file["exchange/data"][...]
        data[:, :, 36] = 500.0
        data[3, 0, 40] = np.nan
        file["exchange/data"][...] = data
        white = file["exchange/data_white"][...]
        white[:, :, 50] = 100.0
        file["exchange/data_white"][...] = white

    write_data_exchange(tmp_path / "a.h5", lines, degrees_of(geometry), change=change)
    found = read_measurement(tmp_path / "a.h5")
    assert np.isfinite(found.line_integrals).all()
    assert found.line_integrals == pytest.approx(lines, abs=0.06)
    assert any("2 dead detector pixels (36, 50) and 1 single value that" in note for note in found.notes)


def test_angles_in_the_other_unit_are_noted(tmp_path):
    geometry, lines = scan()
    write_data_exchange(tmp_path / "a.h5", lines, geometry.angles, units="")
    found = read_measurement(tmp_path / "a.h5")
    assert any("look like radians" in note and "angles_rad" in note for note in found.notes)
    # The center cannot be found from three degrees; that is no reason to stop.
    assert any("taken to be in the middle" in note for note in found.notes)
    write_data_exchange(tmp_path / "b.h5", lines, degrees_of(geometry), units="rad")
    assert any("look like degrees" in note for note in read_measurement(tmp_path / "b.h5").notes)


def without(name):
    return lambda file: file.pop(name)


def replaced(name, values):
    def change(file):
        del file[name]
        file[name] = values

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("exchange/data"), "lacks the data set exchange/data, which a DataExchange file has"),
        (without("exchange/data_white"), "lacks the data set exchange/data_white"),
        (without("exchange/theta"), "no angles .exchange/theta.; give them with --geometry"),
        (replaced("exchange/theta", np.arange(59.0)), "has 60 views, and there are 59 angles"),
        (replaced("exchange/theta", np.full(60, np.nan)), "Angle 0 is nan"),
        (replaced("exchange/data", np.ones((60, 72), np.float32)), "has the axes 60 × 72; the layout has angle, row"),
        (replaced("exchange/data", np.full((60, 1, 72), -5.0)), "negative in 4320 of 4320 places"),
        (replaced("exchange/data_white", np.full((5, 1, 72), 50.0)), "nowhere brighter than the dark field"),
        (replaced("exchange/data_white", np.full((5, 1, 70), 50.0)), r"flat field has the shape \(5, 1, 70\)"),
        (replaced("exchange/data", np.full((60, 1, 72), np.nan)), "100% of the sinogram's values are missing"),
        (replaced("exchange/data", np.zeros((60, 0, 72))), "empty data set exchange/data .60 × 0 × 72."),
    ],
)
def test_bad_data_exchange_is_refused(tmp_path, change, words):
    geometry, lines = scan()
    write_data_exchange(tmp_path / "a.h5", lines, degrees_of(geometry), change=change)
    refused(words, read_measurement, tmp_path / "a.h5")


def test_a_missing_dark_field_is_zero_and_rows_are_checked(tmp_path):
    geometry, lines = scan()
    write_data_exchange(tmp_path / "a.h5", lines, degrees_of(geometry), dark=0.0, change=without("exchange/data_dark"))
    found = read_measurement(tmp_path / "a.h5")
    assert found.line_integrals == pytest.approx(lines, abs=2e-4)
    assert any("no dark field" in note for note in found.notes)
    refused(
        "Rows 0 to 4 of the detector were asked for; it has rows 0 to 1",
        read_measurement,
        tmp_path / "a.h5",
        rows=(0, 4),
    )


# ---- sinograms in NRRD


def write_nrrd(path, values, description=None):
    sitk.WriteImage(sitk.GetImageFromArray(np.asarray(values, dtype=np.float32)), str(path))
    if description is not None:
        path.with_suffix(".json").write_text(json.dumps(description))


def plain(geometry, **more):
    return {"angles_deg": degrees_of(geometry).tolist(), "detector_spacing_mm": 1.0, "detector_offset_mm": 3.2, **more}


def test_a_sinogram_with_a_geometry_beside_it(tmp_path):
    geometry, lines = scan(rows=2)
    path = tmp_path / "scan.nrrd"
    write_nrrd(path, lines, plain(geometry, image_size=64, pixel_mm=1.0, hounsfield=False, slice_spacing_mm=2.5))
    found = read_measurement(path)
    assert found.geometry.angles == pytest.approx(geometry.angles)
    assert found.geometry.image_size == (64, 64) and not found.hounsfield
    assert found.line_integrals == pytest.approx(lines)
    assert found.affine == pytest.approx(
        ras_from_lps([[1, 0, 0, -31.5], [0, 1, 0, -31.5], [0, 0, 2.5, -1.25], [0, 0, 0, 1]])
    )
    # One slice may be stored in two dimensions; the geometry may be elsewhere, and ask for another image.
    write_nrrd(tmp_path / "one.nrrd", lines[1])
    found = read_measurement(tmp_path / "one.nrrd", tmp_path / "scan.json", image_size=32, pixel_mm=2.0)
    assert found.shape == (32, 32, 1) and found.line_integrals == pytest.approx(lines[1:])


def test_counts_become_line_integrals(tmp_path):
    geometry, lines = scan()
    path = tmp_path / "scan.nrrd"
    write_nrrd(path, 1e5 * np.exp(-lines), plain(geometry, values="counts", photons=1e5))
    assert read_measurement(path).line_integrals == pytest.approx(lines, abs=1e-4)
    write_nrrd(path, np.exp(-lines), plain(geometry, values="transmission"))
    assert read_measurement(path).line_integrals == pytest.approx(lines, abs=1e-4)
    counts = 1e5 * np.exp(-lines)
    counts[0, 5, :2] = -3.0
    write_nrrd(path, counts, plain(geometry, values="counts", photons=1e5))
    found = read_measurement(path)
    assert found.line_integrals[0, 5, 0] == pytest.approx(math.log(2e5), rel=1e-5)
    assert any("2 of 4320 counts are zero or less" in note for note in found.notes)


def test_values_that_can_hardly_be_what_they_are_said_to_be_are_noted(tmp_path):
    geometry, lines = scan()
    path = tmp_path / "scan.nrrd"
    for words, values, more in (
        ("is their sign right", -lines - 0.01, {}),
        ("are these counts", 5e4 * np.exp(-lines), {}),
        ("zero everywhere", 0 * lines, {}),
        ("is it in percent", 100 * np.exp(-lines), {"values": "transmission"}),
        ("50 photons are said to leave", 5e4 * np.exp(-lines), {"values": "counts", "photons": 50}),
    ):
        write_nrrd(path, values, plain(geometry, **more))
        assert any(words in note for note in read_measurement(path).notes), words
    write_nrrd(path, lines, plain(geometry))
    assert not read_measurement(path).notes


def test_bad_sinograms_are_refused(tmp_path):
    geometry, lines = scan()
    path = tmp_path / "scan.nrrd"
    write_nrrd(path, lines)
    refused("no scan.json beside it; write one, or give --geometry", read_measurement, path)
    cases = {
        "The sinogram has 60 views and the geometry 3 angles": plain(geometry, angles_deg=[0, 1, 2]),
        "The sinogram has 72 detectors a view and the geometry 70": plain(geometry, detectors=70),
        "lacks detector_spacing_mm": {"angles_deg": [0, 1]},
        "lacks angles_deg or angles_rad": {"detector_spacing_mm": 1.0},
        "has no detector_spacing;": plain(geometry, detector_spacing=3),
        "detector_spacing_mm is -1": plain(geometry, detector_spacing_mm=-1),
        "no number": plain(geometry, detector_spacing_mm="wide"),
        'beam of a geometry is "parallel" or "fan", not \'cone\'': plain(geometry, beam="cone"),
        "fan beam geometry lacks source_to_center_mm": plain(geometry, beam="fan"),
        'said to be "photons"; known are line integrals, counts': plain(geometry, values="photons"),
        'no number "photons"': plain(geometry, values="counts"),
        "has axes that lie in one plane": plain(
            geometry, affine=np.ones((4, 4)).tolist() and [[1, 1, 0, 0]] * 2 + [[0, 0, 1, 0], [0, 0, 0, 1]]
        ),
    }
    for words, description in cases.items():
        path.with_suffix(".json").write_text(json.dumps(description))
        refused(words, read_measurement, path)
    for name, value in {
        "slice_spacing_mm": "2 mm",
        "water_per_mm": -1,
        "hounsfield": "false",
        "about": [],
        "notes": "none",
        "detectors": float("inf"),
    }.items():
        path.with_suffix(".json").write_text(json.dumps(plain(geometry, **{name: value})))
        refused(name if name != "detectors" else "no number", read_measurement, path)
    swapped = tmp_path / "swapped.nrrd"
    write_nrrd(swapped, lines[0].T, plain(geometry, detectors=72))
    refused("its last two axes are swapped", read_measurement, swapped)
    write_nrrd(path, -1e4 * np.ones_like(lines), plain(geometry, values="counts", photons=1e5))
    refused("The counts in .*scan.nrrd are negative in 4320 of 4320 places", read_measurement, path)
    path.with_suffix(".json").write_text('{"angles_deg": [')
    refused("scan.json is no valid JSON", read_measurement, path)
    path.write_bytes(path.read_bytes()[:-500])
    refused("truncated", read_measurement, path)


def test_angles_of_a_description_in_the_other_unit_are_noted(tmp_path):
    geometry, lines = scan()
    path = tmp_path / "scan.nrrd"
    write_nrrd(path, lines, plain(geometry, angles_deg=geometry.angles.tolist()))
    assert any("look like radians" in note for note in read_measurement(path).notes)


# ---- what is written comes back


@pytest.mark.parametrize("name", ["a.h5", "a.nrrd"])
def test_sinograms_come_back(tmp_path, name):
    geometry, lines = scan(rows=3)
    affine = ras_from_lps([[0, 0, 2, 5], [1, 0, 0, -3], [0, 1, 0, 7], [0, 0, 0, 1]])
    measured = CtMeasurement(lines, geometry, affine, water_per_mm=0.019, about={"seed": 3}, notes=("Simulated.",))
    write_measurement(measured, tmp_path / name)
    found = read_measurement(tmp_path / name)
    assert found.geometry == geometry and np.array_equal(found.line_integrals, lines)
    assert found.affine == pytest.approx(affine) and found.hounsfield and found.water_per_mm == 0.019
    assert found.about == {"seed": 3} and found.notes == ("Simulated.",)
    assert is_measurement_file(tmp_path / name)
    # Another image of it has the same middle, another slice lies further on.
    half = read_measurement(tmp_path / name, image_size=(32, 16), pixel_mm=2.0, rows=(1, 3))
    assert half.shape == (16, 32, 2)
    assert half.affine @ [7.5, 15.5, 0, 1] == pytest.approx(affine @ [31.5, 31.5, 1, 1])
    assert np.array_equal(half.line_integrals, lines[1:])


@pytest.mark.parametrize("name", ["a.h5", "a.npy"])
def test_k_spaces_come_back(tmp_path, name):
    _, k_space = mr_data()
    k_space[:, :, :, ::3] = 0
    mask = (k_space != 0).any(axis=(0, 1))
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    sensitivities = np.repeat(coils(3, (24, 20)).numpy()[None], 2, axis=0)
    measured = MrMeasurement(k_space, mask, affine, sensitivities, (12, 10), about={"seed": 1}, notes=("Simulated.",))
    write_measurement(measured, tmp_path / name)
    found = read_measurement(tmp_path / name)
    assert np.array_equal(found.k_space, k_space) and np.array_equal(found.mask, mask)
    assert found.crop == (12, 10) and found.shape == (10, 12, 2) and found.affine == pytest.approx(affine)
    assert np.array_equal(found.sensitivities, sensitivities.astype(np.complex64))
    assert found.about == {"seed": 1} and found.notes == ("Simulated.",)
    second = read_measurement(tmp_path / name, rows=(1, 2))
    assert np.array_equal(second.k_space, k_space[1:]) and len(second.sensitivities) == 1


def test_nothing_is_written_where_it_cannot_be(tmp_path):
    geometry, lines = scan()
    measured = CtMeasurement(lines, geometry, np.eye(4))
    refused(
        "A sinogram is written to a file that ends in .nrrd or .h5", write_measurement, measured, tmp_path / "a.npy"
    )
    refused("A measurement is written to", check_writable_measurement, tmp_path / "a.png")
    refused("there is no folder", check_writable_measurement, tmp_path / "no" / "a.h5")
    assert not list(tmp_path.iterdir())


# ---- k-space in NumPy files


def test_numpy_k_space_with_and_without_words(tmp_path):
    images, k_space = mr_data(slices=1)
    path = tmp_path / "k.npy"
    np.save(path, k_space[0])
    found = read_measurement(path)
    assert found.k_space.shape == (1, 3, 24, 20) and found.mask.all() and found.shape == (20, 24, 1)
    assert any("1 mm around the origin" in note for note in found.notes)
    np.save(path, np.fft.ifftshift(k_space[0], axes=(-2, -1)).transpose(1, 2, 0))
    said = {"axes": ["row", "column", "coil"], "center": "corner", "spacing_mm": [1.5, 2, 3], "crop": [20, 20]}
    found = read_measurement(path, said)
    assert found.k_space == pytest.approx(k_space) and found.crop == (20, 20)
    assert np.linalg.norm(found.affine[:3, :3], axis=0) == pytest.approx([1.5, 2, 3])
    # One coil alone.
    np.save(path, k_space_of_image(torch.from_numpy(images[0, 0])).numpy())
    assert read_measurement(path).k_space.shape == (1, 1, 24, 20)


def test_k_space_as_numpy_makes_it(tmp_path):
    image = np.random.default_rng(0).random((23, 20))
    np.save(tmp_path / "k.npy", np.fft.fft2(image, norm="ortho"))
    found = read_measurement(tmp_path / "k.npy", {"center": "numpy"})
    made = image_of_k_space(torch.from_numpy(found.k_space))[0, 0]
    assert made.real.numpy() == pytest.approx(image, abs=1e-5) and float(made.imag.abs().max()) < 1e-5


def test_sensitivities_go_with_what_they_belonged_to(tmp_path):
    _, k_space = mr_data()
    mask, path = np.ones(k_space.shape[-2:], bool), tmp_path / "k.npy"
    known = MrMeasurement(k_space, mask, np.eye(4), np.ones_like(k_space))
    write_measurement(known, path)
    assert read_measurement(path).sensitivities is not None
    write_measurement(dataclasses.replace(known, sensitivities=None), path)
    assert read_measurement(path).sensitivities is None


def test_bad_k_space_is_refused(tmp_path):
    _, k_space = mr_data(slices=1)
    path = tmp_path / "k.npy"
    broken = k_space[0].copy()
    broken[0, 3, 3] = np.nan
    cases = {
        "zero coils .1 × 0 × 24 × 20.": k_space[0, :0],
        "zero columns": k_space[0, :, :, :0],
        'its coil axis seems to be another one.*Say "axes"': k_space[0].transpose(1, 2, 0),
        'wants an fftshift.*Say "center": "corner"': np.fft.ifftshift(k_space[0], axes=(-2, -1)),
        "float32 values; a k-space is complex": np.abs(k_space[0]),
        "values that are no numbers": broken,
        "zero in every sample": np.zeros_like(k_space[0]),
        "has 5 axes": k_space[None],
    }
    for words, values in cases.items():
        np.save(path, values)
        refused(words, read_measurement, path)
    np.save(path, k_space[0])
    for words, said in {
        "no order; it has": {"order": 1},
        "names are said to be coil, row": {"axes": ["coil", "row"]},
        "crop is 30 × 20, and the k-space has 24 × 20 samples": {"crop": [30, 20]},
        "two numbers, rows and columns": {"crop": 3},
        "three lengths above zero": {"spacing_mm": [1, 0, 1]},
        "must be three lengths": {"spacing_mm": "2 mm"},
        "give a list such as": {"axes": 3},
        "four rows of four numbers": {"affine": "x"},
        "must be a JSON object": {"about": 5},
        "must be a list of sentences": {"notes": 5},
        "there are middle, corner, numpy": {"center": "left"},
    }.items():
        refused(words, read_measurement, path, said)
    np.save(tmp_path / "k.sensitivities.npy", k_space[:, :2])
    refused("remove the file to have them estimated", read_measurement, path)
    path.write_bytes(path.read_bytes()[:-100])
    refused("truncated", read_measurement, path)
    np.save(path, np.array([{"a": 1}], dtype=object))
    refused("Python objects", read_measurement, path)


# ---- fastMRI


def test_fastmri_multicoil(tmp_path):
    _, k_space = mr_data((32, 20), slices=2)
    coil_images = image_of_k_space(torch.from_numpy(k_space)).numpy()
    # As the data set's own images: root sum of squares, the middle 16 × 16.
    rss = np.sqrt((np.abs(coil_images) ** 2).sum(axis=1))[:, 8:24, 2:18]
    xml = header((32, 20, 1), (16, 16, 1), (64, 40, 5), (32, 32, 5))
    mask = np.ones(20, bool)
    mask[1::4] = False
    path = tmp_path / "file1.h5"
    write_fastmri(path, k_space, xml, reconstruction=rss, mask=mask)
    found = read_measurement(path)
    assert isinstance(found, MrMeasurement) and found.crop == (16, 16) and found.shape == (16, 16, 2)
    assert np.array_equal(found.mask, np.broadcast_to(mask, (32, 20)))
    assert np.linalg.norm(found.affine[:3, :3], axis=0) == pytest.approx([2, 2, 5])
    assert found.about["acquisition"] == "AXT2"
    assert "0123456789abcdef" not in repr(found.about) and "DOE" not in repr((found.about, found.notes))
    reference = fastmri_reference(path)
    assert reference.values.shape == (16, 16, 2) and reference.affine == pytest.approx(found.affine)
    assert reference.values[3, 5, 1] == pytest.approx(rss[1, 5, 3])
    second = read_measurement(path, rows=(1, 2))
    assert second.k_space.shape == (1, 3, 32, 20)
    # It lies where it lay in the whole.
    assert second.affine @ [2, 3, 0, 1] == pytest.approx(found.affine @ [2, 3, 1, 1])
    assert fastmri_reference(path, slices=(1, 2)).affine == pytest.approx(second.affine)


def test_fastmri_single_coil_without_header(tmp_path):
    _, k_space = mr_data((32, 20), slices=2)
    path = tmp_path / "file1.h5"
    write_fastmri(path, k_space[:, 0], header((32, 20, 1), (16, 16, 1), (64, 40, 5), (32, 32, 5)))
    found = read_measurement(path)
    assert found.k_space.shape == (2, 1, 32, 20) and found.crop == (16, 16)
    assert fastmri_reference(path) is None
    with h5py.File(path, "a") as file:
        del file["ismrmrd_header"]
    found = read_measurement(path)
    assert found.crop is None and any("no header" in note for note in found.notes)


def test_bad_fastmri_is_refused(tmp_path):
    _, k_space = mr_data((32, 20), slices=2)
    xml = header((32, 20, 1), (16, 16, 1), (64, 40, 5), (32, 32, 5))
    path = tmp_path / "file1.h5"
    cases = {
        "the mask has 19 columns and kspace 20": ((k_space, xml), {"mask": np.ones(19)}),
        "no valid XML": ((k_space, "<ismrmrdHeader>"), {}),
        "no encoding": ((k_space, "<ismrmrdHeader/>"), {}),
        "lacks encodedSpace/matrixSize": ((k_space, xml.replace("encodedSpace", "other")), {}),
        "empty data set kspace .2 × 0 × 32 × 20.": ((k_space[:, :0], xml), {}),
        "32 coils of 20 × 3 samples": ((k_space.transpose(0, 2, 3, 1), xml), {}),
    }
    for words, (arguments, options) in cases.items():
        write_fastmri(path, *arguments, **options)
        refused(words, read_measurement, path)
    write_fastmri(path, k_space, xml)
    refused("leave the geometry out", read_measurement, path, {"spacing_mm": [1, 1, 1]})
    refused("Slices 1 to 5", read_measurement, path, rows=(1, 5))
    with h5py.File(path, "a") as file:
        del file["kspace"]
    refused("lacks the data set kspace, which a fastMRI file has; it holds ismrmrd_header", read_measurement, path)


# ---- ISMRMRD


def records_of(k_space, *, spacing=4.0, skip=(), **more):
    """Readouts of k-space (slice, coil, x, y), slices ``spacing`` apart along z."""
    return [
        readout(k_space[s, :, :, y], y, slice_=s, position=(10, -20, 30 + spacing * s), **more)
        for s in range(len(k_space))
        for y in range(k_space.shape[-1])
        if y not in skip
    ]


XML = header((32, 20, 1), (16, 20, 1), (64, 40, 3), (32, 40, 3))


def test_ismrmrd_readouts_become_k_space(tmp_path):
    _, k_space = mr_data((32, 20), slices=2)
    path = tmp_path / "scan.h5"
    write_ismrmrd(path, records_of(k_space, skip=(3, 17)), XML)
    found = read_measurement(path)
    taken = np.ones(20, bool)
    taken[[3, 17]] = False
    assert found.k_space == pytest.approx(k_space * taken)
    assert np.array_equal(found.mask, np.broadcast_to(taken, (32, 20)))
    assert found.crop == (16, 20) and found.shape == (20, 16, 2)
    # Columns run along x, rows along y, slices along z, all in LPS; the middle of the first slice is its position.
    assert found.affine[:3, :3] == pytest.approx(np.diag([-2.0, -2.0, 4.0]))
    assert (found.affine @ [10, 8, 0, 1])[:3] == pytest.approx([-10, 20, 30])
    assert (found.affine @ [10, 8, 1, 1])[:3] == pytest.approx([-10, 20, 34])
    assert "DOE" not in repr((found.about, found.notes))


def test_ismrmrd_reads_what_the_package_writes(tmp_path):
    package = pytest.importorskip("ismrmrd", reason="the reference implementation is not installed")
    _, k_space = mr_data((32, 20), slices=1)
    path = tmp_path / "scan.h5"
    made = package.Dataset(str(path), "dataset", create_if_needed=True)
    made.write_xml_header(XML.encode())
    for y in range(20):
        acquisition = package.Acquisition.from_array(np.ascontiguousarray(k_space[0, :, :, y], dtype=np.complex64))
        acquisition.idx.kspace_encode_step_1, acquisition.center_sample = y, 16
        acquisition.read_dir[:], acquisition.phase_dir[:], acquisition.slice_dir[:] = (0, 1, 0), (1, 0, 0), (0, 0, 1)
        made.append_acquisition(acquisition)
    noise = package.Acquisition.from_array(np.ones((3, 32), np.complex64))
    noise.set_flag(package.ACQ_IS_NOISE_MEASUREMENT)
    made.append_acquisition(noise)
    made.close()
    found = read_measurement(path)
    assert found.k_space == pytest.approx(k_space) and found.about["noise_readouts"] == 1


def test_ismrmrd_oversampled_reversed_averaged_and_partial(tmp_path):
    _, k_space = mr_data((32, 20), slices=1)
    line = lambda y: k_space[0, :, :, y]  # noqa: E731
    records = [readout(line(y), y) for y in range(20) if y not in (4, 5, 6)]
    # Measured twice, from the other end, and without the first eight samples.
    records += [readout(0.5 * line(4), 4, average=0), readout(1.5 * line(4), 4, average=1)]
    records += [readout(line(5)[:, ::-1], 5, flags=1 << 21, center=15)]
    records += [readout(line(6)[:, 8:], 6, center=8)]
    records += [readout(99 * line(7), 7, repetition=1), readout(99 * line(7), 7, flags=1 << 22)]
    path = tmp_path / "scan.h5"
    write_ismrmrd(path, records, XML, group="raw")
    found = read_measurement(path)
    expected = k_space.copy()
    expected[0, :, :8, 6] = 0
    assert found.k_space == pytest.approx(expected)
    assert any("up to 2 times, were averaged" in note for note in found.notes)
    assert any("several values of repetition" in note for note in found.notes)


def test_ismrmrd_calibration_lines(tmp_path):
    _, k_space = mr_data((32, 20), slices=1)
    image = [readout(k_space[0, :, :, y], y) for y in range(0, 20, 2)]
    extra = [readout(3 * k_space[0, :, :, y], y, flags=1 << 19) for y in range(9, 12, 2)]
    path = tmp_path / "scan.h5"
    write_ismrmrd(path, image + extra, XML)
    found = read_measurement(path)
    assert found.mask.any(axis=0).sum() == 10 and any("2 readouts for calibration" in note for note in found.notes)
    parallel = (
        "<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>"
        "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>"
        "<calibrationMode>embedded</calibrationMode></parallelImaging>"
    )
    write_ismrmrd(path, image + extra, header((32, 20, 1), (16, 20, 1), (64, 40, 3), (32, 40, 3), extra=parallel))
    assert read_measurement(path).mask.any(axis=0).sum() == 12


def test_ismrmrd_in_three_dimensions(tmp_path):
    rng = np.random.default_rng(0)
    nx, ny, nz = 16, 12, 10
    x, y, z = np.meshgrid(*(np.arange(n) - n // 2 for n in (nx, ny, nz)), indexing="ij")
    volume = ((x / 3) ** 2 + (y / 4) ** 2 + (z / 2.5) ** 2 < 1) * (2 + 0.1 * rng.random((nx, ny, nz)))
    block = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(volume), norm="ortho"))
    records = [readout(block[None, :, y, z], y, z) for y in range(ny) for z in range(nz)]
    path = tmp_path / "scan.h5"
    write_ismrmrd(path, records, header((nx, ny, nz), (8, ny, nz), (32, 12, 10), (16, 12, 10)))
    found = read_measurement(path)
    assert found.k_space.shape == (8, 1, ny, nz) and found.about["encoding"] == "3D"
    images = image_of_k_space(torch.from_numpy(found.k_space))[:, 0].numpy()
    assert images.real == pytest.approx(volume[4:12], abs=1e-4)
    # Columns along z, rows along x of the patient, slices along its y (the readout), in LPS.
    assert found.affine[:3, :3] == pytest.approx(np.array([[0, -1, 0], [0, 0, -2], [1, 0, 0]]))


def test_bad_ismrmrd_is_refused(tmp_path):
    _, k_space = mr_data((32, 20), slices=1)
    records = records_of(k_space)
    path = tmp_path / "scan.h5"
    wrong = records[3].copy()
    wrong["data"] = wrong["data"][:-4]
    none = records[0].copy()
    none["head"]["active_channels"] = 0
    cases = {
        "radial trajectory; only Cartesian": (
            records,
            header((32, 20, 1), (16, 20, 1), (64, 40, 3), (32, 40, 3), trajectory="radial"),
        ),
        "its header and its data do not fit": ([*records[:3], wrong], XML),
        "zero coils": ([none], XML),
        "lies outside of the encoded space": ([readout(k_space[0, :, :, 0], 20)], XML),
        "none of them is of an image": ([readout(k_space[0, :, :, 0], 0, flags=1 << 18)], XML),
    }
    for words, (some, xml) in cases.items():
        write_ismrmrd(path, some, xml)
        refused(words, read_measurement, path)
    with h5py.File(path, "a") as file:
        del file["dataset/data"]
    refused("lacks the data set dataset/data, which a ISMRMRD file has", read_measurement, path)


# ---- what is no measurement


def test_files_that_are_no_measurement(tmp_path, monkeypatch):
    refused("No such file", read_measurement, tmp_path / "no.h5")
    refused("is a folder", read_measurement, tmp_path)
    path = tmp_path / "a.h5"
    path.write_bytes(b"")
    refused("is empty", read_measurement, path)
    path.write_bytes(b"not at all")
    refused("no measurement that is known; known are DataExchange", read_measurement, path)
    path.write_bytes(bytes(128) + b"DICM" + bytes(50))
    refused("DICOM-CT-PD are not read", read_measurement, path)
    with h5py.File(path, "w") as file:
        file["something"] = 1
    refused("holds something, which is no measurement", read_measurement, path)
    geometry, lines = scan()
    write_data_exchange(path, lines, degrees_of(geometry))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("cannot be read as HDF5: it is truncated or damaged", read_measurement, path)
    path.write_bytes(whole)
    plain_import = builtins.__import__

    def without_h5py(name, *rest):
        if name == "h5py":
            raise ImportError(name)
        return plain_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    refused("need the package h5py, which is not installed; run pip install h5py", read_measurement, path)


# ---- real data


def test_the_real_tooth(shared_data):
    found = read_measurement(shared_data("xray_ct/tooth.h5"))
    assert found.line_integrals.shape == (2, 181, 640)
    # TomoPy's own tutorial finds the center of these data at detector 296 or so.
    assert found.about["center_of_rotation_detector"] == pytest.approx(296, abs=1)


def test_the_real_brain(shared_data):
    found = read_measurement(shared_data("mr_kspace/cartesian_ksp.npy"))
    assert found.k_space.shape == (1, 8, 230, 180)
    assert found.mask.mean() == pytest.approx(0.124, abs=0.001)
