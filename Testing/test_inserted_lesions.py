"""Inserted lesions: recovery in closed form, and structures that were made up or lost."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.metrics.inserted_lesions import InsertedLesion, check_lesions, insert_lesions, place_lesions
from scipy import integrate, ndimage, stats

SPACING = (0.7, 0.7)
LESION = InsertedLesion((40.0, 40.0), 8.0, 100.0)


@pytest.fixture
def anatomy() -> np.ndarray:
    """A slice of (96, 110) with a smooth background and a real, round structure at (70, 80)."""
    a, b = np.mgrid[:96, :110]
    slope = -800 + 2.0 * a - b
    return insert_lesions(slope, [InsertedLesion((70.0, 80.0), 8.0, 150.0)], SPACING)


def test_a_lesion_is_as_large_as_it_should_be():
    disc = insert_lesions(np.zeros((96, 96)), [LESION], SPACING)
    assert disc.sum() * 0.7**2 == pytest.approx(100 * math.pi * 4**2, rel=0.005)
    assert disc[40, 40] == 100 and disc[40, 48] == 0
    thick = (0.8, 0.7, 2.5)
    ball = insert_lesions(np.zeros((40, 40, 20)), [InsertedLesion((20.3, 19.5, 9.8), 12.0, -50.0)], thick)
    assert ball.sum() * np.prod(thick) == pytest.approx(-50 * math.pi / 6 * 12**3, rel=0.005)
    assert ndimage.center_of_mass(ball) == pytest.approx((20.3, 19.5, 9.8), abs=0.02)


def test_a_perfect_reconstruction_shows_all_of_it_and_nothing_else(anatomy):
    lesions = place_lesions(np.ones(anatomy.shape), SPACING, 4, diameter_mm=6, contrast=60, seed=3)
    found = check_lesions(anatomy, insert_lesions(anatomy, lesions, SPACING), lesions, SPACING)
    assert [one.recovery for one in found.lesions] == pytest.approx([1, 1, 1, 1], abs=1e-9)
    assert (found.detected, found.false_structures, found.lost_structures) == (4, 0, 0)
    assert found.lesions[0].contrast == pytest.approx(60) and found.lesions[0].lesion == lesions[0]


def test_a_reconstruction_from_memory_shows_none_of_it(anatomy):
    # What a network does that paints the anatomy it expects.
    found = check_lesions(anatomy, anatomy, [LESION], SPACING)
    assert found.lesions[0].recovery == pytest.approx(0, abs=1e-9) and found.detected == 0
    # A lesion that is missing is counted once, as not detected.
    assert found.structures == ()


def test_a_faded_lesion(anatomy):
    faded = anatomy + 0.7 * insert_lesions(np.zeros(anatomy.shape), [LESION], SPACING)
    found = check_lesions(anatomy, faded, [LESION], SPACING)
    assert (found.mean_recovery, found.detected) == (pytest.approx(0.7), 1)
    assert check_lesions(anatomy, faded, [LESION], SPACING, recovered=0.8).detected == 0


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_a_blur_in_closed_form(sigma):
    # A disc of radius r blurred by a Gaussian, at the distance d of its center: the probability that a point of that
    # distribution falls into the disc, which is the noncentral χ² distribution's of 2 degrees of freedom.
    r, fine = 4.0, (0.2, 0.2)
    lesion = InsertedLesion((80.0, 80.0), 2 * r, 100.0)
    blurred = ndimage.gaussian_filter(insert_lesions(np.zeros((161, 161)), [lesion], fine), sigma / 0.2, truncate=6)

    def mean(low, high):
        def ring(d):
            return 2 * d * stats.ncx2.cdf((r / sigma) ** 2, 2, (d / sigma) ** 2)

        return integrate.quad(ring, low, high)[0] / (high**2 - low**2)

    expected = mean(0, 0.7 * r) - mean(1.25 * r, 2 * r)
    found = check_lesions(np.zeros((161, 161)), blurred, [lesion], fine)
    assert found.mean_recovery == pytest.approx(expected, abs=0.005)


def test_a_made_up_structure_is_counted(anatomy):
    made_up = [InsertedLesion((25.0, 85.0), 8.0, 90.0)]
    shown = insert_lesions(anatomy, [LESION, *made_up], SPACING)
    found = check_lesions(anatomy, shown, [LESION], SPACING)
    assert (found.detected, found.false_structures, found.lost_structures) == (1, 1, 0)
    assert found.structures[0].center == (25, 85)
    assert found.structures[0].contrast == pytest.approx(90, rel=0.05)
    # Outside the region nobody looks, and less than half of a lesion is none.
    mask = np.zeros(anatomy.shape, dtype=bool)
    mask[50:] = True
    assert check_lesions(anatomy, shown, [LESION], SPACING, mask=mask).structures == ()
    weak = insert_lesions(anatomy, [LESION, InsertedLesion((25.0, 85.0), 8.0, 40.0)], SPACING)
    assert check_lesions(anatomy, weak, [LESION], SPACING).structures == ()


def test_a_lost_structure_of_the_patient_is_counted_apart(anatomy):
    shown = insert_lesions(anatomy, [LESION, InsertedLesion((70.0, 80.0), 8.0, -150.0)], SPACING)
    found = check_lesions(anatomy, shown, [LESION], SPACING)
    assert (found.detected, found.false_structures, found.lost_structures) == (1, 0, 1)
    assert found.structures[0].contrast < 0


def test_noise_hides_lesions_and_makes_them_up(anatomy):
    noise = np.random.default_rng(0).normal(size=anatomy.shape)
    shown = insert_lesions(anatomy, [LESION], SPACING)
    quiet = check_lesions(anatomy, shown + 20 * noise, [LESION], SPACING)
    assert quiet.detected == 1 and quiet.structures == ()
    # K of white noise of 20 HU has the standard deviation 20 √(Σ w²): means over core and shell, by their voxels.
    voxel = 0.7**2
    core, shell = math.pi * (0.7 * 4) ** 2 / voxel, math.pi * (8**2 - 5**2) / voxel
    expected = 100 / (20 * math.sqrt(1 / core + 1 / shell))
    assert quiet.lesions[0].contrast_to_noise == pytest.approx(expected, rel=0.35)
    faint = InsertedLesion((40.0, 40.0), 8.0, 15.0)
    loud = check_lesions(anatomy, insert_lesions(anatomy, [faint], SPACING) + 60 * noise, [faint], SPACING)
    assert loud.detected == 0 and loud.false_structures > 10
    # With the same noise without the lesion, what is left of its contrast is exact.
    paired = check_lesions(
        anatomy,
        insert_lesions(anatomy, [faint], SPACING) + 60 * noise,
        [faint],
        SPACING,
        without=anatomy + 60 * noise,
    )
    assert paired.mean_recovery == pytest.approx(1, abs=1e-9) and paired.detected == 0


def test_a_volume_of_two_sizes():
    spacing = (1.0, 1.0, 2.0)
    truth = np.zeros((60, 60, 30))
    lesions = [InsertedLesion((15.0, 15.0, 15.0), 6.0, 80.0), InsertedLesion((42.5, 41.0, 14.5), 10.0, -60.0)]
    shown = insert_lesions(truth, [*lesions, InsertedLesion((15.0, 45.0, 15.0), 8.0, 200.0)], spacing)
    found = check_lesions(truth, shown, lesions, spacing)
    assert [one.lesion for one in found.lesions] == lesions
    assert found.mean_recovery == pytest.approx(1, abs=1e-9) and found.detected == 2
    # One structure, though it is found at both sizes.
    assert found.false_structures == 1 and found.structures[0].center == (15, 45, 15)
    json.dumps(found.as_dict(), allow_nan=False)


def test_places_are_apart_inside_and_the_same_for_a_seed():
    mask = np.zeros((120, 120), dtype=bool)
    mask[10:110, 10:110] = True
    lesions = place_lesions(mask, SPACING, 6, diameter_mm=8, contrast=50, seed=7)
    assert lesions == place_lesions(mask, SPACING, 6, diameter_mm=8, contrast=50, seed=7)
    assert lesions != place_lesions(mask, SPACING, 6, diameter_mm=8, contrast=50, seed=8)
    centers = np.array([lesion.center for lesion in lesions]) * SPACING
    apart = np.sqrt(((centers[:, None] - centers[None]) ** 2).sum(axis=-1))
    assert apart[~np.eye(6, dtype=bool)].min() >= 16
    assert centers.min() >= 10 * 0.7 + 8 - 0.7 and centers.max() <= 109 * 0.7 - 8 + 0.7
    with pytest.raises(InputError, match="room for"):
        place_lesions(mask, SPACING, 60, diameter_mm=8, contrast=50)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"reconstruction": np.zeros((5, 5))}, "one grid"),
        ({"reconstruction": np.full((96, 110), np.nan)}, "values that are not finite"),
        ({"lesions": []}, "no inserted lesions"),
        ({"lesions": [InsertedLesion((1.0, 1.0), 8.0, 50.0)]}, "leaves the image"),
        ({"lesions": [InsertedLesion((40.0, 40.0), 1.0, 50.0)]}, "1.4 mm or more"),
        ({"lesions": [InsertedLesion((40.0, 40.0), 8.0, 0.0)]}, "contrast 0 HU"),
        ({"spacing": (1, 1, 1)}, "give 2 numbers"),
    ],
)
def test_mistakes_are_one_sentence(anatomy, change, sentence):
    call = {"reconstruction": anatomy, "lesions": [LESION], "spacing": SPACING, **change}
    with pytest.raises(InputError, match=sentence):
        check_lesions(anatomy, **call)
