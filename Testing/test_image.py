"""Images from files and to files: where voxels lie, what is refused, and that nothing is written by halves."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from MedMapAILib.errors import InputError, RunError
from MedMapAILib.image import (
    WRITABLE,
    GeometryWarning,
    affine_of,
    check_not_constant,
    check_same_geometry,
    in_voxel_order,
    lps_from_ras,
    make_image,
    ras_from_lps,
    read_image,
    read_volume,
    spacing,
    write_array,
    write_image,
)
from orders import every_axis_order, rotation

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = rotation((1, 2, 3), 25) @ np.diag([0.7, 0.9, 2.5])
OBLIQUE[:3, 3] = (-31.5, 12.25, 87.0)


def noise(shape=(6, 7, 5), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 500, shape).astype(np.float32)


def test_every_order_of_voxels_comes_back_to_the_first():
    voxels = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    for turned, matrix, _ in every_axis_order(voxels[None], OBLIQUE):
        found, affine = in_voxel_order(turned[0], matrix, OBLIQUE)
        np.testing.assert_array_equal(found, voxels)
        np.testing.assert_allclose(affine, OBLIQUE, atol=1e-9)
    # Of an image that lies otherwise nothing is changed.
    same, affine = in_voxel_order(voxels, np.eye(4), np.diag([2.0, 1.0, 1.0, 1.0]))
    assert same is voxels and (affine == np.eye(4)).all()


def sentence(error) -> str:
    """The message of an error, checked to be one line."""
    text = str(error.value)
    assert "\n" not in text and text.endswith((".", ".)")), text
    return text


# -- where voxels lie


@pytest.mark.parametrize("ending", WRITABLE)
def test_round_trip_keeps_values_and_place(tmp_path, ending):
    image = make_image(noise()[None], OBLIQUE)
    write_image(image, tmp_path / f"image{ending}")
    back = read_image(tmp_path / f"image{ending}")
    assert back.shape == (1, 6, 7, 5)
    np.testing.assert_array_equal(back.numpy(), image.numpy())
    # NIfTI stores the matrix in single precision.
    np.testing.assert_allclose(affine_of(back), OBLIQUE, atol=1e-5 if "nii" in ending else 1e-12)
    assert back.meta["notes"] == []
    assert [p.name for p in tmp_path.iterdir()] == [f"image{ending}"]


@pytest.mark.parametrize("ending", WRITABLE)
def test_other_libraries_see_the_same_place(tmp_path, ending):
    """A voxel's position by SimpleITK (LPS) and by nibabel is that of the affine."""
    path = tmp_path / f"image{ending}"
    write_image(make_image(noise()[None], OBLIQUE), path)
    index = (4, 1, 3)
    position = (OBLIQUE @ [*index, 1])[:3]
    picture = sitk.ReadImage(str(path))
    np.testing.assert_allclose(picture.TransformIndexToPhysicalPoint(index), position * [-1, -1, 1], atol=1e-4)
    assert picture[index] == noise()[index]
    if "nii" in ending:
        file = nibabel.load(path)
        np.testing.assert_allclose(nibabel.affines.apply_affine(file.affine, index), position, atol=1e-4)
        assert file.get_sform(coded=True)[1] == file.get_qform(coded=True)[1] == 1
        assert file.get_fdata()[index] == noise()[index]


@pytest.mark.parametrize("ending", (".nrrd", ".nii.gz", ".mha"))
def test_48_axis_orders_keep_each_voxel_where_it_is(tmp_path, ending):
    voxels = noise((3, 4, 5))
    for turned, matrix, back in every_axis_order(voxels[None], OBLIQUE):
        write_image(make_image(turned, matrix), tmp_path / f"turned{ending}")
        image = read_image(tmp_path / f"turned{ending}")
        np.testing.assert_array_equal(back(image.numpy()[0]), voxels)
        # The position of each voxel, brought to the first order as its value is.
        index = np.indices(image.shape[1:]).reshape(3, -1)
        positions = affine_of(image)[:3, :3] @ index + affine_of(image)[:3, 3:]
        expected = OBLIQUE[:3, :3] @ np.indices(voxels.shape).reshape(3, -1) + OBLIQUE[:3, 3:]
        for axis in range(3):
            np.testing.assert_allclose(
                back(positions[axis].reshape(image.shape[1:])).ravel(), expected[axis], atol=1e-4
            )


def test_nifti_agrees_with_nibabel_on_the_affine(shared_data):
    for path in sorted((shared_data("hippocampus") / "images").iterdir())[:5]:
        np.testing.assert_allclose(affine_of(read_image(path)), nibabel.load(path).affine, atol=1e-6)


@pytest.mark.parametrize("moved", (0.0, 1.0, 30.0), ids=("equal", "shifted", "turned"))
def test_nifti_takes_the_form_that_itk_takes(tmp_path, moved):
    """For every pair of qform and sform codes, as SimpleITK and so Slicer places the file."""
    sform, qform = np.diag([1.0, 2, 3, 1]), np.diag([1.0, 2, 3, 1])
    sform[:3, 3], qform[:3, 3] = (10, 20, 30), (10 + moved, 20, 30)
    if moved == 30:
        qform[:3, :3] = rotation((0, 0, 1), 90) @ qform[:3, :3]
    for scode in range(5):
        for qcode in range(5):
            file = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), sform)
            file.set_sform(sform, scode)
            file.set_qform(qform, qcode)
            file.to_filename(tmp_path / "a.nii")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GeometryWarning)
                image = read_image(tmp_path / "a.nii")
            picture = sitk.ReadImage(str(tmp_path / "a.nii"))
            for index in ((0, 0, 0), (3, 2, 5)):
                expected = np.array(picture.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
                np.testing.assert_allclose((affine_of(image) @ [*index, 1])[:3], expected, atol=1e-4)
            assert bool(image.meta["notes"]) == ((moved > 0 and scode > 0 < qcode) or scode == qcode == 0)


def test_sheared_nifti_is_kept_sheared_and_said(tmp_path):
    """SimpleITK cannot read it at all."""
    sheared = np.array([[1, 0.2, 0, 5], [0, 1, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
    write_image(make_image(noise()[None], sheared), tmp_path / "a.nii.gz")
    with pytest.warns(GeometryWarning) as warned:
        image = read_image(tmp_path / "a.nii.gz")
    assert any("11.3 degrees off a right angle" in str(warning.message) for warning in warned)
    np.testing.assert_allclose(affine_of(image), sheared, atol=1e-6)


def test_lps_and_ras_differ_in_two_signs():
    position = ras_from_lps(np.eye(4)) @ [1, 2, 3, 1]
    assert position.tolist() == [-1, -2, 3, 1]
    np.testing.assert_array_equal(lps_from_ras(ras_from_lps(OBLIQUE)), OBLIQUE)


def test_spacing_is_the_length_of_the_steps():
    np.testing.assert_allclose(spacing(make_image(noise()[None], OBLIQUE)), (0.7, 0.9, 2.5), atol=1e-12)


def test_number_types_survive(tmp_path):
    for kind in (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64):
        voxels = np.arange(24).reshape(2, 3, 4).astype(kind)
        for ending in WRITABLE:
            write_array(voxels, np.eye(4), tmp_path / f"a{ending}")
            volume = read_volume(tmp_path / f"a{ending}")
            assert volume.array.dtype == kind
            np.testing.assert_array_equal(volume.array, voxels)


def test_nifti_scale_and_offset_are_applied(tmp_path):
    file = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    file.header.set_slope_inter(2.5, -1024)
    file.to_filename(tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii")[0, 1, 2, 3] == 23 * 2.5 - 1024


def test_two_dimensional_file_is_one_slice(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(noise((4, 5))), str(tmp_path / "a.mha"))
    with pytest.warns(GeometryWarning, match="2D"):
        assert read_image(tmp_path / "a.mha").shape == (1, 5, 4, 1)
    nibabel.Nifti1Image(noise((4, 5)), np.eye(4)).to_filename(tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").shape == (1, 4, 5, 1)


# -- one of several


def four_dimensional(path: Path, frames: np.ndarray) -> Path:
    """Frames (T, I, J, K) as a 4D file."""
    if ".nii" in path.name:
        nibabel.Nifti1Image(np.moveaxis(frames, 0, -1), OBLIQUE).to_filename(path)
    else:
        pictures = [sitk.GetImageFromArray(np.ascontiguousarray(frame.T)) for frame in frames]
        sitk.WriteImage(sitk.JoinSeries(pictures), str(path))
    return path


@pytest.mark.parametrize("ending", WRITABLE)
def test_4d_is_asked_about_and_a_frame_is_picked(tmp_path, ending):
    frames = noise((4, 3, 5, 2))
    path = four_dimensional(tmp_path / f"a{ending}", frames)
    with pytest.raises(InputError) as error:
        read_image(path)
    assert "4 frames" in sentence(error) and "--frame" in sentence(error) and str(path) in sentence(error)
    for n in range(4):
        np.testing.assert_array_equal(read_image(path, frame=n).numpy()[0], frames[n])
    with pytest.raises(InputError, match="no frame 4"):
        read_image(path, frame=4)
    with pytest.raises(InputError, match="no frame -1"):
        read_image(path, frame=-1)


@pytest.mark.parametrize("ending", WRITABLE)
def test_one_frame_needs_no_question(tmp_path, ending):
    frames = noise((1, 3, 5, 2))
    path = four_dimensional(tmp_path / f"a{ending}", frames)
    np.testing.assert_array_equal(read_image(path).numpy(), frames)


@pytest.mark.parametrize("ending", WRITABLE)
def test_channels_are_components(tmp_path, ending):
    image = make_image(noise((3, 4, 5, 2)), OBLIQUE)
    write_image(image, tmp_path / f"a{ending}")
    with pytest.raises(InputError, match="3 "):
        read_image(tmp_path / f"a{ending}")
    for n in range(3):
        back = read_image(tmp_path / f"a{ending}", frame=n)
        np.testing.assert_array_equal(back.numpy()[0], image.numpy()[n])
        np.testing.assert_allclose(affine_of(back), OBLIQUE, atol=1e-5)


def test_color_volumes_are_asked_about(tmp_path):
    colors = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colors, isVector=True), str(tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match="components"):
        read_image(tmp_path / "a.nrrd")
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.Nifti1Image(np.ascontiguousarray(colors).view(kind)[..., 0], np.eye(4)).to_filename(tmp_path / "a.nii")
    with pytest.raises(InputError, match="3 color components"):
        read_image(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii", frame=1).numpy()[0], colors[..., 1])


# -- what is no image


@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize("compressed", (False, True))
@pytest.mark.parametrize("part", (0.05, 0.5, 0.9, 0.999))
def test_truncated_files_are_refused(tmp_path, capfd, ending, compressed, part):
    picture = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 999, (12, 20, 30)).astype(np.int16))
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(picture, str(path), compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(InputError) as error:
        read_image(path)
    assert str(path) in sentence(error) and "cannot be read as an image" in sentence(error)
    # The one sentence is all that the user sees: no library has its say as well.
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", (".nrrd", ".nii.gz", ".mha"))
def test_damaged_compressed_voxels_are_refused(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write_image(make_image(noise((20, 20, 20))[None], np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged|not a whole"):
        read_image(path)


def test_a_frame_of_a_truncated_4d_file_is_refused_too(tmp_path):
    for ending in (".nii", ".nii.gz"):
        path = four_dimensional(tmp_path / f"a{ending}", noise((4, 8, 9, 7)))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InputError, match="truncated"):
            read_image(path, frame=0)


@pytest.mark.parametrize("ending", (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd", ".dcm"))
@pytest.mark.parametrize(
    "content", (b"", b"This is no image at all, but a letter of some length.\n" * 40), ids=("empty", "text")
)
def test_not_an_image(tmp_path, ending, content):
    path = tmp_path / f"letter{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_image(path)
    assert str(path) in sentence(error)


def test_gzip_of_something_else(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"no image " * 500))
    with pytest.raises(InputError, match="not a whole NIfTI"):
        read_image(tmp_path / "a.nii.gz")


def test_missing_voxel_file_of_a_header(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(noise()), str(tmp_path / "a.mhd"), True)
    sitk.WriteImage(sitk.GetImageFromArray(noise()), str(tmp_path / "a.nhdr"))
    for name in ("a.mhd", "a.nhdr"):
        assert read_image(tmp_path / name).shape == (1, 5, 7, 6)
    for file in tmp_path.iterdir():
        if file.suffix not in (".mhd", ".nhdr"):
            file.unlink()
    for name in ("a.mhd", "a.nhdr"):
        with pytest.raises(InputError, match=re.escape(name)):
            read_image(tmp_path / name)


def test_wrong_places(tmp_path):
    with pytest.raises(InputError, match="no file or folder"):
        read_image(tmp_path / "none.nrrd")
    with pytest.raises(InputError, match="empty folder"):
        read_image(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="not an image that can be read here"):
        read_image(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="none is a DICOM picture"):
        read_image(tmp_path)
    write_image(make_image(noise()[None], np.eye(4)), tmp_path / "scan.nrrd")
    with pytest.raises(InputError, match="name one, such as scan.nrrd"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("value", "said"), ((np.nan, "1 voxel that is"), (np.inf, "1 voxel that is"), (-np.inf, "1 voxel"))
)
def test_voxels_that_are_no_number(tmp_path, value, said):
    voxels = noise()
    voxels[2, 3, 4] = value
    for ending in WRITABLE:
        write_array(voxels, np.eye(4), tmp_path / f"a{ending}")
        with pytest.raises(InputError) as error:
            read_image(tmp_path / f"a{ending}")
        assert said in sentence(error) and "(2, 3, 4)" in sentence(error)


def test_infinities_that_cancel_are_found(tmp_path):
    voxels = noise()
    voxels[0, 0, 1], voxels[0, 1, 0] = np.inf, -np.inf
    write_array(voxels, np.eye(4), tmp_path / "a.nrrd")
    with pytest.raises(InputError, match=re.escape("2 voxels that are NaN or infinite, the first at index (0, 0, 1)")):
        read_image(tmp_path / "a.nrrd")


@pytest.mark.parametrize("step", (0.0, -1.5, np.nan, np.inf))
def test_spacing_must_be_positive(tmp_path, step):
    file = nibabel.Nifti1Image(noise(), np.eye(4))
    header = file.header
    header["pixdim"][2], header["vox_offset"], header["magic"] = step, 352, b"n+1"
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4) + noise().tobytes("F"))
    write_image(make_image(noise()[None], np.eye(4)), tmp_path / "a.mha")
    content = (tmp_path / "a.mha").read_bytes()
    changed = content.replace(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 %g 1" % step)
    assert changed != content
    (tmp_path / "a.mha").write_bytes(changed)
    (tmp_path / "a.nrrd").write_bytes(
        b"NRRD0004\ntype: float\ndimension: 3\nsizes: 6 7 5\nspacings: 1 %g %g\nencoding: raw\nendian: little\n\n"
        % (step, step)
        + noise().tobytes("F")
    )
    for name in ("a.nii", "a.mha", "a.nrrd"):
        with pytest.raises(InputError, match="spacing|finite|not a whole") as error:
            read_image(tmp_path / name)
        assert name in sentence(error)


def test_nrrd_axes_of_no_length_or_in_one_plane(tmp_path):
    for directions in (b"(0,0,0) (0,1,0) (0,0,1)", b"(1,0,0) (1,0,0) (0,0,1)"):
        (tmp_path / "a.nrrd").write_bytes(
            b"NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 7 5\n"
            b"space directions: %s\nspace origin: (0,0,0)\nencoding: raw\nendian: little\n\n"
            % directions
            + noise().tobytes("F")
        )
        with pytest.raises(InputError) as error:
            read_image(tmp_path / "a.nrrd")
        assert "a.nrrd" in sentence(error)


def test_affines_that_place_nothing():
    for affine, said in (
        (np.full((4, 4), np.nan), "not finite"),
        (np.diag([1.0, 0, 1, 1]), "greater than zero"),
        (np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "one plane"),
        (np.eye(3), "4x4"),
        (np.ones((4, 4)), "last row"),
    ):
        with pytest.raises(InputError, match=said):
            make_image(noise()[None], affine)
    with pytest.raises(InputError, match="channel"):
        make_image(noise(), np.eye(4))


def test_constant_images_are_read_and_can_be_refused(tmp_path):
    write_image(make_image(np.full((1, 3, 3, 3), 7.0), np.eye(4)), tmp_path / "a.nrrd")
    image = read_image(tmp_path / "a.nrrd")
    with pytest.raises(InputError, match="the same value, 7,"):
        check_not_constant(image, "a.nrrd")
    check_not_constant(make_image(noise()[None], np.eye(4)), "b")


# -- the same place


def moved(change) -> object:
    affine = OBLIQUE.copy()
    change(affine)
    return make_image(noise()[None], affine)


def test_same_geometry_names_what_differs():
    image = make_image(noise()[None], OBLIQUE)
    # Turned around its own k axis, which is what the third column points along.
    turned = OBLIQUE.copy()
    turned[:3, :3] = rotation(OBLIQUE[:3, 2], 2) @ turned[:3, :3]
    for other, said in (
        (make_image(noise((6, 7, 4))[None], OBLIQUE), "6×7×5 voxels and the label has 6×7×4"),
        (
            make_image(noise()[None], OBLIQUE @ np.diag([1, 1, 1.2, 1])),
            "the spacing is 0.7 0.9 2.5 mm against 0.7 0.9 3 mm",
        ),
        (make_image(noise()[None], turned), "directions of the axes differ by up to 2 degrees"),
        (moved(lambda a: a.__setitem__((0, 3), -30.5)), "origin .* voxels lie up to 1 mm apart"),
    ):
        with pytest.raises(InputError, match=said):
            check_same_geometry(image, other, "the image", "the label")


def test_rounding_in_headers_is_the_same_place():
    image = make_image(noise()[None], OBLIQUE)
    check_same_geometry(image, moved(lambda a: a.__setitem__((1, 3), a[1, 3] + 0.005)), "a", "b")
    check_same_geometry(image, make_image(noise()[None], OBLIQUE.astype(np.float32)), "a", "b")
    with pytest.raises(InputError, match="origin"):
        check_same_geometry(image, moved(lambda a: a.__setitem__((1, 3), a[1, 3] + 0.02)), "a", "b")


# -- writing, or not


def files_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("ending", WRITABLE)
def test_a_full_disk_leaves_what_was_there(tmp_path, ending):
    """The operating system refuses to let files grow beyond 20 kB in a child process, as on a full disk."""
    path = tmp_path / f"a{ending}"
    write_image(make_image(np.zeros((1, 2, 2, 2)), np.eye(4)), path)
    before = path.read_bytes()
    script = f"""
import resource, sys
import numpy as np
from MedMapAILib.errors import RunError
from MedMapAILib.image import write_array
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    write_array(np.random.default_rng(0).normal(size=(40, 40, 40)), np.eye(4), {str(path)!r})
except RunError as error:
    sys.exit(str(error))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment())
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        f"{path} was not written: the disk is full; nothing was left behind."
    )
    assert path.read_bytes() == before
    assert files_in(tmp_path) == [path.name]


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "MedMapAI")}


@pytest.mark.parametrize("ending", WRITABLE)
def test_folders_that_cannot_be_written_to(tmp_path, ending):
    image = make_image(noise()[None], np.eye(4))
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "missing", Path("/proc/self")):
        if str(folder).startswith("/proc") and not folder.exists():
            continue
        with pytest.raises(InputError) as error:
            write_image(image, folder / f"a{ending}")
        assert str(folder) in sentence(error)
    assert files_in(tmp_path) == ["file"]


def test_names_that_cannot_be_written(tmp_path):
    image = make_image(noise()[None], np.eye(4))
    for name in ("a.jpg", "a", "a.mhd", "a.nhdr"):
        with pytest.raises(InputError, match=r"must end in one of \.nrrd"):
            write_image(image, tmp_path / name)
    (tmp_path / "folder.nrrd").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write_image(image, tmp_path / "folder.nrrd")
    assert files_in(tmp_path) == ["folder.nrrd"]


def test_written_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "other").write_text("x")
    write_image(make_image(noise()[None], np.eye(4)), tmp_path / "a.nrrd")
    assert (tmp_path / "a.nrrd").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_importing_loads_nothing_heavy():
    """Slicer imports these files before the packages are installed."""
    script = (
        "import sys; import MedMapAILib.image, MedMapAILib.results, MedMapAILib.mrml, MedMapAILib.dicom;"
        "print([m for m in ('torch', 'monai', 'nibabel', 'pydicom', 'scipy', 'slicer', 'vtk') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment())
    assert result.stdout.strip() == "[]", result.stderr


def test_a_disk_error_is_the_runs_and_no_mistake_of_the_user():
    assert not issubclass(RunError, InputError)
