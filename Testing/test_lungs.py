"""Lungs are found where they are, however a scan is stored, and what is no chest CT in HU is refused in a sentence."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from chest_phantom import chest
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image, read_image, spacing
from MedMapAILib.lungs import hounsfield_problem, lung_mask
from MedMapAILib.lungs.axes import from_patient_axes, oriented_affine, to_patient_axes


def dice(a, b):
    """2 |a ∩ b| / (|a| + |b|)."""
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("grid", [(2.5, 2.5, 4.0), (1.25, 1.25, 6.0), (3.0, 3.0, 1.5)])
def test_lungs_of_a_phantom(grid):
    whole = chest(grid, height_mm=90.0)
    mask = lung_mask(make_image(whole.voxels[None], whole.affine))
    assert mask.dtype == bool and mask.shape == whole.voxels.shape
    assert dice(mask, whole.lungs) > 0.96
    # Not in it: the trachea, gas in the belly, air around the patient and under the table.
    assert mask[whole.trachea].mean() < 0.02
    assert mask[whole.gas].mean() < 0.02
    assert not mask[:, :2].any() and not mask[:2].any()


def test_what_touches_the_pleura_is_lung():
    where = (118.0, 10.0, 10.0)  # the outer edge of the right lung lies at 127 mm
    whole = chest(lesion=(*where, 11.0))
    mask = lung_mask(make_image(whole.voxels[None], whole.affine))
    i, j, k = np.round(np.linalg.inv(whole.affine)[:3] @ [*where, 1.0]).astype(int)
    assert whole.voxels[i, j, k] > -200 and mask[i, j, k]
    assert dice(mask, chest().lungs) > 0.96


def test_a_slab_is_enough():
    whole = chest()
    middle = slice(18, 22)
    mask = lung_mask(make_image(whole.voxels[None, :, :, middle], whole.affine))
    assert dice(mask, whole.lungs[:, :, middle]) > 0.96


def test_however_the_voxels_are_stored():
    """All 48 orders and flips of the axes give the same voxels."""
    whole = chest((5.0, 5.0, 6.0), height_mm=60.0)
    expected = lung_mask(make_image(whole.voxels[None], whole.affine))
    assert expected.any()
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            axes = [axis for axis, flip in enumerate(flips) if flip]
            voxels = np.flip(whole.voxels.transpose(order), axes)
            affine = whole.affine[:, [*order, 3]].copy()
            for axis in axes:
                affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
                affine[:3, axis] *= -1
            mask = lung_mask(make_image(voxels[None].copy(), affine))
            np.testing.assert_array_equal(mask, np.flip(expected.transpose(order), axes))


def test_turned_to_the_patients_axes_and_back():
    voxels = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    # i runs to the feet, j to the left, k to the front; 0.1 rad oblique.
    c, s = np.cos(0.1), np.sin(0.1)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, -c, -s], [0, -s, c], [-1, 0, 0]]) @ np.diag([2.0, 3.0, 4.0])
    affine[:3, 3] = 5, 6, 7
    turned, steps, storage = to_patient_axes(voxels, affine)
    assert turned.shape == (3, 4, 2) and steps == pytest.approx((3, 4, 2))
    matrix = oriented_affine(affine, storage, turned.shape)
    assert (np.diag(matrix)[:3] > 0).all()
    np.testing.assert_array_equal(from_patient_axes(turned, storage), voxels)
    for index in np.ndindex(*turned.shape):
        (home,) = np.argwhere(voxels == turned[index])
        np.testing.assert_allclose(matrix @ [*index, 1], affine @ [*home, 1], atol=1e-9)


def test_an_image_without_lungs_is_refused():
    water = np.zeros((1, 40, 40, 10), np.float32)
    air = np.full((1, 40, 40, 10), -1000, np.float32)
    belly = np.full((1, 80, 80, 10), -1000, np.float32)
    belly[:, 10:70, 10:70] = 40
    belly[:, 30:36, 30:36, 3:6] = -1000
    for voxels in (water, air, belly):
        with pytest.raises(InputError, match="No lungs were found"):
            lung_mask(make_image(voxels, np.diag([2.5, 2.5, 4.0, 1.0])))
    with pytest.raises(InputError, match="one channel"):
        lung_mask(make_image(np.zeros((2, 8, 8, 8)), np.eye(4)))


def test_values_that_are_no_hounsfield_units():
    whole = chest()
    assert hounsfield_problem(make_image(whole.voxels[None], whole.affine)) == ""
    # A piece of nothing but lung, and air outside the circle of reconstruction as -2048 or -3024.
    assert hounsfield_problem(make_image(np.full((1, 9, 9, 9), -850) + np.arange(9), np.eye(4))) == ""
    padded = whole.voxels.copy()
    padded[:3] = -3024
    assert hounsfield_problem(make_image(padded[None], whole.affine)) == ""
    problem = hounsfield_problem(make_image(whole.voxels[None] + 1024, whole.affine))
    assert "1024" in problem and "subtract" in problem and "go on" in problem
    gray = np.clip((whole.voxels + 1000) / 1400, 0, 1)
    for factor in (1, 255):
        problem = hounsfield_problem(make_image(gray[None] * factor, whole.affine))
        assert "no Hounsfield units" in problem and "go on" in problem


def test_the_chest_ct_of_the_data(shared_data):
    image = read_image(shared_data("chest_ct/CPTAC-LSCC-C3N-00247"))
    mask = lung_mask(image)
    liters = mask.sum() * np.prod(spacing(image)) / 1e6
    assert 3.5 < liters < 6  # 4.6 as seen slice by slice
    right, left = mask[:256].sum(), mask[256:].sum()  # the first axis runs to the left
    assert 0.7 < right / left < 1.6
    inside = image[0].numpy()[mask]
    assert -900 < np.median(inside) < -780 and (inside > -300).mean() < 0.12


def test_the_slab_holds_its_nodule(shared_data):
    """The four readers' outlines of LIDC-IDRI-0001's nodule lie in columns 297 to 340, rows 340 to 391."""
    image = read_image(shared_data("lidc/LIDC-IDRI-0001"))
    mask = lung_mask(image)
    heights = np.asarray(image.affine)[2, 2] * np.arange(16) + np.asarray(image.affine)[2, 3]
    nodule = np.zeros(mask.shape, bool)
    nodule[303:335, 347:383, (heights > -124) & (heights < -108)] = True
    nodule &= image[0].numpy() > -300
    assert nodule.sum() > 3000 and mask[nodule].mean() > 0.97


@pytest.mark.parametrize("name", ["lung1", "lung2"])
def test_the_chest_cts_from_pypi(name):
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medmapai"
    found = sorted(cache.rglob(f"{name}_image.nrrd"))
    if not found:
        pytest.skip("pyradiomics' source archive was not fetched on this machine (make demo does)")
    image = read_image(found[0])
    mask = lung_mask(image)
    liters = mask.sum() * np.prod(spacing(image)) / 1e6
    assert (2.4 if name == "lung1" else 3.4) < liters < (3.4 if name == "lung1" else 4.6)
    if name == "lung1":
        # The tumor of the label that comes with it: its middle, RAS mm.
        index = np.linalg.inv(np.asarray(image.affine)) @ [21.86, 120.54, -611.5, 1.0]
        assert mask[tuple(np.round(index[:3]).astype(int))]
