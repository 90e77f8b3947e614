"""Duplicates: found by their voxels, whatever holds them, and kept out of two parts."""

import gzip
import shutil
import time

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from MedMapAILib.datasets import Case, open_dataset
from MedMapAILib.datasets.duplicates import content_hash, find_duplicates
from MedMapAILib.datasets.split import make_split
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image, write_image
from orders import every_axis_order
from synthetic import ball_and_box, write_dataset
from test_datasets import HIPPOCAMPUS, needs_hippocampus


def case(*paths):
    return Case(paths[0].name, paths[0].name, paths, None)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    voxels, _, affine = ball_and_box(0)
    voxels = np.rint(voxels)
    path = tmp_path_factory.mktemp("original") / "a.nii.gz"
    write_image(make_image(voxels[None], affine), path)
    return voxels, affine, path, content_hash(case(path))


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_the_container_plays_no_part(original, tmp_path, ending):
    voxels, affine, _, expected = original
    write_image(make_image(voxels[None], affine), tmp_path / f"b{ending}")
    assert content_hash(case(tmp_path / f"b{ending}")) == expected


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64])
def test_the_number_type_plays_no_part(original, tmp_path, dtype):
    voxels, affine, _, expected = original
    path = tmp_path / "b.nii"
    nibabel.save(nibabel.Nifti1Image(voxels.astype(dtype), affine), path)
    assert content_hash(case(path)) == expected


def test_the_compression_plays_no_part(original, tmp_path):
    _, _, path, expected = original
    other = tmp_path / "b.nii.gz"
    other.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1, mtime=5))
    assert other.read_bytes() != path.read_bytes()
    assert content_hash(case(other)) == expected


def test_the_48_axis_orders_play_no_part(original, tmp_path):
    voxels, affine, _, expected = original
    count = 0
    for array, turned, _ in every_axis_order(voxels[None], affine):
        write_image(make_image(np.ascontiguousarray(array), turned), tmp_path / "b.nrrd")
        assert content_hash(case(tmp_path / "b.nrrd")) == expected
        count += 1
    assert count == 48


def test_the_position_plays_no_part_and_a_single_voxel_does(original, tmp_path):
    voxels, affine, _, expected = original
    moved = affine.copy()
    moved[:3, 3] += 7
    write_image(make_image(voxels[None], moved), tmp_path / "b.nrrd")
    assert content_hash(case(tmp_path / "b.nrrd")) == expected
    changed = voxels.copy()
    changed[3, 4, 5] += 1
    write_image(make_image(changed[None], affine), tmp_path / "c.nrrd")
    assert content_hash(case(tmp_path / "c.nrrd")) != expected
    # The same numbers in the same order in another shape are another image.
    write_image(make_image(voxels.reshape(26, 24, 22)[None], affine), tmp_path / "d.nrrd")
    assert content_hash(case(tmp_path / "d.nrrd")) != expected


def test_minus_zero_is_zero(tmp_path):
    voxels = np.zeros((4, 4, 4), dtype=np.float32)
    for name, zero in (("a", 0.0), ("b", -0.0)):
        voxels[:2] = zero
        voxels[3, 3, 3] = 1
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / f"{name}.nrrd"))
    assert content_hash(case(tmp_path / "a.nrrd")) == content_hash(case(tmp_path / "b.nrrd"))


def test_all_channels_count(original, tmp_path):
    voxels, affine, path, _ = original
    for name, last in (("b", voxels), ("c", voxels + 1)):
        nibabel.save(nibabel.Nifti1Image(np.stack([voxels, last], axis=-1), affine), tmp_path / f"{name}.nii.gz")
    assert content_hash(case(tmp_path / "b.nii.gz")) != content_hash(case(tmp_path / "c.nii.gz"))
    # Frames of one file and files of one case are the same channels.
    assert content_hash(case(tmp_path / "b.nii.gz")) == content_hash(case(path, path))


def duplicate(folder, old, new):
    """A copy of a case under another name, in another format and with other axes."""
    image = nibabel.load(folder / "images" / f"{old}.nii.gz")
    flipped = image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    write_image(make_image(np.asarray(flipped.dataobj)[None], flipped.affine), folder / "images" / f"{new}.nrrd")
    shutil.copy(folder / "labels" / f"{old}.nii.gz", folder / "labels" / f"{new}.nii.gz")


def test_duplicates_are_reported_and_kept_in_one_part(tmp_path):
    folder = write_dataset(tmp_path, 8)
    duplicate(folder, "case_02", "copy_a")
    duplicate(folder, "case_05", "copy_b")
    duplicate(folder, "case_05", "copy_c")
    dataset = open_dataset(folder, labels={1: "ball", 2: "box"})
    expected = (("case_02", "copy_a"), ("case_05", "copy_b", "copy_c"))
    assert find_duplicates(dataset.cases) == expected
    crossed = 0
    for seed in range(10):
        split = make_split(dataset, validation=0.3, test=0.2, seed=seed)
        part = {name: p for p in ("train", "validation", "test") for name in getattr(split, p)}
        assert tuple(tuple(group["cases"]) for group in split.duplicates) == expected
        assert all(len({part[name] for name in group}) == 1 for group in expected)
        assert "case_02 = copy_a" in split.notes[0] and "one patient" in split.notes[0]
        crossed += sum(group["crossed"] for group in split.duplicates)
    assert crossed > 5  # of 20 groups drawn blindly into three parts most are torn apart


def test_duplicates_across_parts_that_were_given_go_to_the_more_protected_one(tmp_path):
    folder = write_dataset(tmp_path, 4)
    duplicate(folder, "case_00", "copy")
    dataset = open_dataset(folder, labels={1: "ball", 2: "box"})
    dataset.source["split"] = dict.fromkeys([c.name for c in dataset.cases], "train") | {
        "copy": "test",
        "case_01": "validation",
    }
    split = make_split(dataset)
    assert split.test == ("case_00", "copy")
    assert split.duplicates == ({"cases": ["case_00", "copy"], "crossed": True},)


def test_files_that_cannot_be_read_are_all_named(tmp_path):
    folder = write_dataset(tmp_path, 4)
    for name in ("case_01", "case_03"):
        path = folder / "images" / f"{name}.nii.gz"
        path.write_bytes(path.read_bytes()[:1000])
    dataset = open_dataset(folder, labels={1: "ball", 2: "box"})
    with pytest.raises(InputError, match="2 cases.*case_01, case_03"):
        make_split(dataset)


@needs_hippocampus
def test_hippocampus_has_none_and_the_search_is_quick():
    dataset = open_dataset(HIPPOCAMPUS, labels={1: "anterior", 2: "posterior"})
    start = time.perf_counter()
    assert find_duplicates(dataset.cases) == ()
    assert time.perf_counter() - start < 20  # about one second on an idle machine
