"""DICOM folders: which slices make a volume, where they lie, and what is said about those that do not fit."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
import SimpleITK as sitk
from dicom_series import PATIENT, PATIENT_ID, write_enhanced, write_series
from MedMapAILib.errors import InputError
from MedMapAILib.image import GeometryWarning, affine_of, read_image, read_volume, spacing
from orders import rotation
from pydicom.uid import generate_uid

STRAIGHT = [(10.0, 20.0, 30.0 + 2.5 * k) for k in range(6)]


def read_quietly(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeometryWarning)
        return read_image(path, **options)


def by_itk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def check_against_itk(image, picture: sitk.Image, atol=1e-4) -> None:
    np.testing.assert_array_equal(image.numpy()[0], sitk.GetArrayFromImage(picture).T)
    for index in ((0, 0, 0), [n - 1 for n in picture.GetSize()]):
        expected = np.array(picture.TransformIndexToPhysicalPoint([int(n) for n in index])) * [-1, -1, 1]
        np.testing.assert_allclose((affine_of(image) @ [*index, 1])[:3], expected, atol=atol)


# -- known files


@pytest.mark.parametrize("name", ("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"))
def test_known_file_lies_where_its_header_says(name):
    path = pydicom.data.get_testdata_file(name)
    header = pydicom.dcmread(path)
    image = read_quietly(path)
    affine = affine_of(image)
    np.testing.assert_allclose(affine[:3, 3], np.array(header.ImagePositionPatient, float) * [-1, -1, 1])
    np.testing.assert_allclose(
        affine[:3, 0],
        np.array(header.ImageOrientationPatient[:3], float) * [-1, -1, 1] * header.PixelSpacing[1],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        affine[:3, 1],
        np.array(header.ImageOrientationPatient[3:], float) * [-1, -1, 1] * header.PixelSpacing[0],
        atol=1e-6,
    )
    raw = pydicom.dcmread(pydicom.data.get_testdata_file(name.split("_small")[0] + "_small.dcm"))
    values = raw.pixel_array * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
    np.testing.assert_array_equal(image.numpy()[0, :, :, 0], values.T)
    assert any("only the one slice" in note for note in image.meta["notes"])


def test_whole_chest_ct_is_as_itk_reads_it(shared_data):
    folder = shared_data("chest_ct/CPTAC-LSCC-C3N-00247")
    image = read_image(folder)
    assert image.shape == (1, 512, 512, 99)
    assert image.meta["notes"] == [] and image.meta["modality"] == "CT"
    np.testing.assert_allclose(spacing(image), (0.564453125, 0.564453125, 3.0), atol=1e-9)
    check_against_itk(image, by_itk(folder))


def test_lidc_slices_are_as_itk_reads_them(shared_data):
    folder = shared_data("lidc/LIDC-IDRI-0001")
    image = read_image(folder)
    np.testing.assert_allclose(spacing(image), (0.703125, 0.703125, 2.5), atol=1e-9)
    check_against_itk(image, by_itk(folder))
    # Padding of this scanner, in HU: the rescale intercept of -1024 is applied to -1024 and above.
    assert float(image.min()) == -2048


# -- order and place


def test_values_are_in_hounsfield_units_and_in_order(tmp_path):
    values = write_series(tmp_path, STRAIGHT)
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.numpy()[0], values.T.astype(float) - 1024)
    np.testing.assert_allclose(spacing(image), (0.6, 0.8, 2.5), atol=1e-9)
    np.testing.assert_allclose(affine_of(image)[:3, 3], (-10, -20, 30))
    check_against_itk(image, by_itk(tmp_path))


def test_slices_from_head_to_feet_are_turned_around(tmp_path):
    values = write_series(tmp_path, STRAIGHT[::-1])
    np.testing.assert_array_equal(read_image(tmp_path).numpy()[0], values[::-1].T.astype(float) - 1024)


def test_oblique_series(tmp_path):
    turn = rotation((3, -1, 2), 37)
    positions = [turn @ (-40, 22, 3.0 * k) for k in range(5)]
    write_series(tmp_path, positions, orientation=[*turn[:, 0], *turn[:, 1]])
    image = read_image(tmp_path)
    assert image.meta["notes"] == []
    expected = np.diag([-1, -1, 1]) @ turn @ np.diag([0.6, 0.8, 3.0])
    np.testing.assert_allclose(affine_of(image)[:3, :3], expected, atol=1e-5)
    check_against_itk(image, by_itk(tmp_path))


def test_tilted_gantry_is_kept_and_said(tmp_path):
    positions = [(0, 0.5 * k, 2.0 * k) for k in range(5)]
    write_series(tmp_path, positions)
    with pytest.warns(GeometryWarning, match="14 degrees off a right angle"):
        image = read_image(tmp_path)
    for k, position in enumerate(positions):
        np.testing.assert_allclose((affine_of(image) @ [0, 0, k, 1])[:3], np.array(position) * [-1, -1, 1], atol=1e-9)


def test_a_gap_is_said_and_taken_as_itk_takes_it(tmp_path):
    write_series(tmp_path, [p for k, p in enumerate(STRAIGHT) if k != 3])
    with pytest.warns(GeometryWarning) as warned:
        image = read_image(tmp_path)
    (note,) = image.meta["notes"]
    assert "1 slice seems to be missing" in note and "5 mm between number 3 and 4 of 5" in note
    # 30, 32.5, 35, 40, 42.5 against five even steps of 3.125 mm: the third is off by 1.25 mm.
    assert "3.125 mm apart throughout" in note and "up to 1.25 mm" in note
    assert note in str(warned[0].message)
    assert spacing(image)[2] == pytest.approx(3.125)
    check_against_itk(image, by_itk(tmp_path))


def test_two_gaps_are_counted(tmp_path):
    write_series(tmp_path, [(0, 0, 2.0 * k) for k in range(14) if k not in (3, 7, 8)])
    with pytest.warns(GeometryWarning, match="3 slices seem to be missing"):
        read_image(tmp_path)


def test_uneven_slices_are_said(tmp_path):
    write_series(tmp_path, [(0, 0, z) for z in (0, 2, 4.4, 6, 8.2, 10)])
    with pytest.warns(GeometryWarning, match=re.escape("unevenly spaced (1.6 to 2.4 mm)")):
        image = read_image(tmp_path)
    assert spacing(image)[2] == pytest.approx(2.0)
    check_against_itk(image, by_itk(tmp_path))


def test_rounded_positions_are_even(tmp_path):
    write_series(tmp_path, [(0, 0, round(1.3333333 * k, 2)) for k in range(12)])
    assert read_image(tmp_path).meta["notes"] == []


def test_slices_shifted_sideways_are_said(tmp_path):
    write_series(tmp_path, [(1.5 * (k == 2), 0, 2.0 * k) for k in range(5)])
    with pytest.warns(GeometryWarning, match="shifted sideways"):
        read_image(tmp_path)


def test_rescale_of_each_slice_is_its_own(tmp_path):
    """As in PET, where every slice has its slope."""
    slopes = [0.5, 1.25, 2.0, 0.125, 3.0, 1.0]
    values = write_series(tmp_path, STRAIGHT, RescaleSlope=slopes, RescaleIntercept=0, Modality="PT")
    expected = values * np.array(slopes)[:, None, None]
    np.testing.assert_allclose(read_image(tmp_path).numpy()[0], expected.T, rtol=1e-6)


# -- several in a folder


def test_several_series_are_listed_and_one_is_chosen(tmp_path):
    first = write_series(tmp_path / "a", STRAIGHT, SeriesNumber=2, seed=1)
    uid = "1.2.826.0.1.3680043.8.498.12345678901234567890123458"
    second = write_series(
        tmp_path / "b" / "c", STRAIGHT[:4], SeriesNumber=5, SeriesDescription="Bone", SeriesInstanceUID=uid, seed=2
    )
    with pytest.raises(InputError) as error:
        read_image(tmp_path)
    text = str(error.value)
    assert "holds 2 DICOM series; choose one with series=N (--series N)" in text and "\n" not in text
    assert "(CT, 'Lung 2 mm', 6 slices of 6×5)" in text and f"2: …{uid[-12:]} (CT, 'Bone', 4 slices of 6×5)" in text
    assert PATIENT not in text and PATIENT_ID not in text
    for series, values in ((1, first), ("1", first), (2, second), (uid, second), (uid[-12:], second)):
        np.testing.assert_array_equal(read_image(tmp_path, series=series).numpy()[0], values.T.astype(float) - 1024)
    for wrong in ("9.9.9", 3, 0, "", uid[-1], uid[-3:]):  # so short an end of a UID is no UID
        with pytest.raises(InputError, match="holds no series"):
            read_image(tmp_path, series=wrong)


def test_a_localizer_of_the_same_series_is_a_stack_of_its_own(tmp_path):
    uid = generate_uid()
    values = write_series(tmp_path, STRAIGHT, SeriesInstanceUID=uid)
    write_series(tmp_path, [(0, 0, 0)], orientation=(0, 1, 0, 0, 0, -1), SeriesInstanceUID=uid, prefix="scout")
    with pytest.raises(InputError, match="holds 2 DICOM series"):
        read_image(tmp_path)
    with pytest.raises(InputError, match="2 stacks of slices"):
        read_image(tmp_path, series=uid)
    shapes = [read_quietly(tmp_path, series=n).shape for n in (1, 2)]
    assert sorted(shapes) == [(1, 6, 5, 1), (1, 6, 5, 6)]
    whole = read_image(tmp_path, series=1 + shapes.index((1, 6, 5, 6)))
    np.testing.assert_array_equal(whole.numpy()[0], values.T.astype(float) - 1024)


def test_time_points_are_frames(tmp_path):
    uid = generate_uid()
    series = [
        write_series(tmp_path, STRAIGHT, SeriesInstanceUID=uid, TemporalPositionIdentifier=t, prefix=f"t{t}_", seed=t)
        for t in (1, 2, 3)
    ]
    with pytest.raises(InputError, match=re.escape("holds 3 frames (slices at each position)")):
        read_image(tmp_path)
    for frame, values in enumerate(series):
        np.testing.assert_array_equal(read_image(tmp_path, frame=frame).numpy()[0], values.T.astype(float) - 1024)


def test_positions_scanned_a_different_number_of_times_are_refused(tmp_path):
    uid = generate_uid()
    write_series(tmp_path, STRAIGHT, SeriesInstanceUID=uid)
    write_series(tmp_path, STRAIGHT[:2], SeriesInstanceUID=uid, prefix="again", seed=5)
    with pytest.raises(InputError, match="1 to 2 slices at each position"):
        read_image(tmp_path)


def test_copies_of_slices_are_left_out(tmp_path):
    values = write_series(tmp_path, STRAIGHT)
    shutil.copy(tmp_path / "slice000.dcm", tmp_path / "copy.dcm")
    with pytest.warns(GeometryWarning, match="1 of its 7 slices are copies"):
        image = read_image(tmp_path)
    np.testing.assert_array_equal(image.numpy()[0], values.T.astype(float) - 1024)


def test_other_files_in_the_folder_do_not_matter(tmp_path):
    write_series(tmp_path, STRAIGHT)
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "LICENSE").write_text("free " * 100)
    for name in ("rtstruct.dcm", "rtdose.dcm", "test-SR.dcm"):
        shutil.copy(pydicom.data.get_testdata_file(name), tmp_path)
    assert read_image(tmp_path).shape == (1, 6, 5, 6)


def test_names_without_ending_and_without_preamble(tmp_path):
    values = write_series(tmp_path, STRAIGHT)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        path.rename(tmp_path / f"IM{number:04}")
    np.testing.assert_array_equal(read_image(tmp_path).numpy()[0], values.T.astype(float) - 1024)


# -- multi-frame files


def test_enhanced_multi_frame_file(tmp_path):
    order = [2, 0, 3, 1, 4]
    turn = rotation((1, 1, 0), 20)
    positions = [turn @ (5, 6, 2.0 * k) for k in order]
    values = write_enhanced(tmp_path / "a.dcm", positions, orientation=[*turn[:, 0], *turn[:, 1]])
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.numpy()[0], values[np.argsort(order)].T * 2.0 + 10)
    np.testing.assert_allclose(
        affine_of(image)[:3, :3], np.diag([-1, -1, 1]) @ turn @ np.diag([0.6, 0.8, 2.0]), atol=1e-5
    )
    np.testing.assert_allclose(affine_of(image)[:3, 3], (turn @ (5, 6, 0)) * [-1, -1, 1], atol=1e-5)
    assert image.meta["notes"] == [] and image.meta["modality"] == "MR"


def test_frames_with_slopes_of_their_own_are_refused(tmp_path):
    write_enhanced(tmp_path / "a.dcm", STRAIGHT, slopes=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    with pytest.raises(InputError, match="another rescale slope for each frame"):
        read_image(tmp_path / "a.dcm")


def test_color_pictures_have_three_channels():
    for name in ("SC_rgb_rle.dcm", "examples_ybr_color.dcm", "examples_rgb_color.dcm", "examples_palette.dcm"):
        path = pydicom.data.get_testdata_file(name)
        if name == "examples_ybr_color.dcm":
            with pytest.raises(InputError, match="30 color pictures"):
                read_quietly(path)
            continue
        image = read_quietly(path)
        header = pydicom.dcmread(path)
        assert image.shape == (3, header.Columns, header.Rows, 1)
        assert read_quietly(path, frame=2).shape[0] == 1
        np.testing.assert_array_equal(read_quietly(path, frame=2).numpy()[0], image.numpy()[2])
        if "PALETTE" not in header.PhotometricInterpretation:
            np.testing.assert_array_equal(image.numpy()[..., 0], pydicom.pixels.pixel_array(path).T)
        with pytest.raises(InputError, match="3 color components"):
            read_volume(path)  # where one value a voxel is needed, as for a label map


def xray(path, values, **fields):
    """A CR picture of the values (rows, columns), with columns 0.1 and rows 0.2 mm apart at the detector."""
    write_series(path.parent, [(0, 0, 0)], prefix=path.stem, ImagePositionPatient=None, ImageOrientationPatient=None)
    (written,) = path.parent.glob(f"{path.stem}*.dcm")
    header = pydicom.dcmread(written)
    for name in ("PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(header, name)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    header.Modality, header.ImagerPixelSpacing = "CR", [0.2, 0.1]
    header.Rows, header.Columns = values.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    for name, value in fields.items():
        setattr(header, name, value)
    header.PixelData = values.astype(np.uint16).tobytes()
    header.save_as(path)
    written.unlink()


def test_an_xray_is_a_picture_whichever_way_it_is_stored(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (4, 5))
    xray(tmp_path / "a" / "plain.dcm", values)
    # PS3.3 C.7.6.3.1.2: MONOCHROME1 shows the lowest value white; of 12 bits 4095 is the highest.
    xray(tmp_path / "b" / "inverted.dcm", 4095 - values, PhotometricInterpretation="MONOCHROME1")
    xray(tmp_path / "c" / "in patient.dcm", values, PixelSpacing=[0.4, 0.3])
    plain, inverted, known = (read_quietly(next((tmp_path / name).iterdir())) for name in "abc")
    assert plain.shape == (1, 5, 4, 1)
    np.testing.assert_array_equal(plain.numpy()[0, :, :, 0], values.T)
    np.testing.assert_array_equal(inverted.numpy(), plain.numpy())
    np.testing.assert_allclose(affine_of(plain), np.diag([-0.1, -0.2, 1, 1]))
    np.testing.assert_allclose(spacing(known), (0.3, 0.4, 1))
    assert plain.meta["notes"] == ["its pixel size is that at the detector, not in the patient"]
    assert known.meta["notes"] == []


# -- what is missing or broken


def test_no_position_is_said(tmp_path):
    values = write_series(tmp_path, STRAIGHT, ImagePositionPatient=None, ImageOrientationPatient=None)
    with pytest.warns(GeometryWarning, match="order of their instance numbers"):
        image = read_image(tmp_path)
    np.testing.assert_array_equal(image.numpy()[0], values.T.astype(float) - 1024)
    np.testing.assert_allclose(spacing(image), (0.6, 0.8, 2.0))


def test_some_slices_without_a_position_are_refused(tmp_path):
    write_series(tmp_path, STRAIGHT, ImagePositionPatient=[*[list(p) for p in STRAIGHT[:5]], None])
    with pytest.raises(InputError, match="1 slices of 6 that do not say where they lie"):
        read_image(tmp_path)


@pytest.mark.parametrize("pixel", ([0, 0.6], [-0.8, 0.6]))
def test_pixels_must_have_a_size(tmp_path, pixel):
    write_series(tmp_path, STRAIGHT, PixelSpacing=pixel)
    with pytest.raises(InputError, match="greater than zero"):
        read_image(tmp_path)


def test_rows_and_columns_must_be_at_right_angles(tmp_path):
    write_series(tmp_path, STRAIGHT, orientation=(1, 0, 0, 0.6, 0.8, 0))
    with pytest.raises(InputError, match="not at right angles"):
        read_image(tmp_path)


@pytest.mark.parametrize("part", (0.5, 0.95))
def test_a_truncated_slice_is_named(tmp_path, part):
    write_series(tmp_path, STRAIGHT)
    path = tmp_path / "slice002.dcm"
    whole = path.read_bytes()
    pixels = 5 * 6 * 2
    path.write_bytes(whole[: len(whole) - int(pixels * (1 - part))])
    with pytest.raises(InputError, match="truncated") as error:
        read_image(tmp_path)
    assert "slice002.dcm" in str(error.value)


def test_truncated_known_file():
    with pytest.raises(InputError, match="truncated"):
        read_image(pydicom.data.get_testdata_file("MR_truncated.dcm"))


def test_a_report_is_no_picture():
    with pytest.raises(InputError, match="not a DICOM picture"):
        read_image(pydicom.data.get_testdata_file("test-SR.dcm"))


def test_nobody_learns_who_the_patient_is(tmp_path):
    """Not from the image, not from warnings, not from errors."""
    write_series(tmp_path / "whole", [p for k, p in enumerate(STRAIGHT) if k != 2])
    with pytest.warns(GeometryWarning) as warned:
        image = read_image(tmp_path / "whole")
    said = [str(w.message) for w in warned] + [repr(image.meta), repr(image)]
    write_series(tmp_path / "bad", STRAIGHT, PixelSpacing=[0, 1])
    write_series(tmp_path / "two" / "a", STRAIGHT)
    write_series(tmp_path / "two" / "b", STRAIGHT)
    for folder in ("bad", "two"):
        with pytest.raises(InputError) as error:
            read_image(tmp_path / folder)
        said.append(str(error.value))
    for text in said:
        for secret in ("Doe", "Jane", PATIENT_ID, "19700131"):
            assert secret not in text
