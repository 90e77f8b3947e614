"""Simulated measurements: what counting statistics, closed forms and geometry say that they must be."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from ct_phantoms import disc_image, disc_sinogram
from MedMapAILib.errors import InputError, NotHounsfield
from MedMapAILib.image import affine_of, make_image
from MedMapAILib.measurements.acquisition import acquisition_of, spacing_of_slices
from MedMapAILib.measurements.mr_acquisition import ring_sensitivities
from MedMapAILib.physics.attenuation import WATER_PER_MM, hounsfield_of_attenuation
from MedMapAILib.physics.filtered_backprojection import filtered_backprojection
from MedMapAILib.physics.mr_sampling import acceleration_of

QUIET = {"kind": "ct", "views": 90, "photons": 0}
SQUARE = (1.0, 1.0)


def ct(**settings):
    return acquisition_of({"kind": "ct", **settings})


def water_disc(size=64, radius=24.0, pixel=1.0):
    """(1, 1, H, W) HU: water in air."""
    return hounsfield_of_attenuation(disc_image(size, pixel, [(0, 0, radius, WATER_PER_MM)])).float()


def body(affine=None, shape=(40, 36, 5)):
    """A block of water off the middle, with a dense marker of one column in one slice; (1, I, J, K) HU."""
    voxels = np.full(shape, -1000.0, np.float32)
    voxels[8:30, 6:28, :] = 0
    voxels[12:15, 9:12, 3] = 2000
    return make_image(voxels[None], np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine)


# Settings


def test_defaults_are_filled_in_and_survive_json():
    for kind in ("none", "ct", "mr", "noise"):
        acquisition = acquisition_of({"kind": kind})
        assert acquisition.kind == kind
        assert acquisition_of(json.loads(json.dumps(acquisition.about))) == acquisition
        drawn = acquisition.drawn(5)
        assert acquisition_of(json.loads(json.dumps(drawn.about))) == drawn
        assert drawn.drawn(6) is drawn
    assert acquisition_of({}).kind == "none"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "pet"}, "acquisition.kind in x.toml is 'pet'; there are none, ct, mr, noise"),
        ({"views": 10}, "acquisition.kind in x.toml is None"),
        ({"kind": "ct", "dose": 3}, "which has no dose"),
        ({"kind": "ct", "photons": -1}, "acquisition.photons in x.toml is -1, not a number of at least 0"),
        ({"kind": "ct", "photons": [0, 10]}, "begins above zero"),
        ({"kind": "ct", "photons": [20, 10]}, "from 20 to 10"),
        ({"kind": "ct", "photons": [1, 2, 3]}, "lowest and the highest"),
        ({"kind": "ct", "views": 0}, "views in x.toml is 0, not a whole number of at least 1"),
        ({"kind": "ct", "views": []}, "empty list"),
        ({"kind": "ct", "views": True}, "True"),
        ({"kind": "ct", "beam": "cone"}, "there are parallel, fan"),
        ({"kind": "ct", "filter": "gauss"}, "ramp"),
        ({"kind": "mr", "acceleration": 0.5}, "not a number of at least 1"),
        ({"kind": "mr", "sampling": "spiral"}, "poisson-disc"),
        ({"kind": "mr", "center_fraction": 1}, "below 1"),
        ({"kind": "noise", "sd": float("nan")}, "nan"),
        ({"kind": "noise", "copies": 0}, "copies"),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(InputError, match=said):
        acquisition_of(settings, where="x.toml")


def test_draws_stay_in_their_ranges_and_are_those_of_the_seed():
    acquisition = ct(photons=[1e4, 1e6], views=[30, 60, 90])
    drawn = [acquisition.drawn(seed) for seed in range(400)]
    photons = np.log([each["photons"] for each in drawn])
    assert math.log(1e4) <= photons.min() and photons.max() <= math.log(1e6)
    # Even in the logarithm: its middle is that of 1e5, to within 4 standard errors.
    assert photons.mean() == pytest.approx(math.log(1e5), abs=4 * math.log(100) / math.sqrt(12 * 400))
    assert {each["views"] for each in drawn} == {30, 60, 90}
    assert acquisition.drawn(7) == acquisition.drawn(7)
    assert acquisition.drawn(7) != acquisition.drawn(8)
    sd = [acquisition_of({"kind": "noise", "sd": [5, 25]}).drawn(seed)["sd"] for seed in range(200)]
    assert min(sd) >= 5 and max(sd) <= 25 and np.mean(sd) == pytest.approx(15, abs=1.7)
    with pytest.raises(InputError, match="drawn"):
        acquisition.operator((8, 8), SQUARE)
    with pytest.raises(InputError, match="seed"):
        acquisition.drawn(-1)


# CT


@pytest.mark.parametrize("electronic", [0, 8])
def test_noise_of_line_integrals_is_that_of_counted_photons(electronic):
    """To first order the variance of log(photons / counts) is (counts + electronic²) / counts²."""
    photons, copies = 20_000, 1500
    slices = water_disc(24, 11.0, 4.0).expand(copies, -1, -1, -1)
    settings = {"views": 3, "photons": photons, "electronic_noise": electronic}
    true = ct(**{**settings, "photons": 0}).measure(slices[:1], (4.0, 4.0), 0)
    measured = ct(**settings).measure(slices, (4.0, 4.0), 0).double()
    counts = photons * torch.exp(-true[0].double())
    expected = (counts + electronic**2) / counts.square()
    ratio = measured.var(dim=0) / expected
    assert float(ratio.mean()) == pytest.approx(1, abs=0.02)
    assert float((ratio - 1).abs().max()) < 6 * math.sqrt(2 / copies)
    assert float((measured.mean(dim=0) - true[0]).abs().max()) < 6 * float(expected.max().sqrt()) / math.sqrt(copies)


def test_a_slice_has_its_own_noise_however_many_are_measured_at_once():
    slices = water_disc(16, 6.0).expand(5, -1, -1, -1)
    acquisition = ct(views=7, photons=1000)
    measured = acquisition.measure(slices, SQUARE, 11)
    assert torch.equal(measured[3:], acquisition.measure(slices[3:], SQUARE, 11, first_slice=3))
    assert not torch.equal(measured[0], measured[1])
    assert not torch.equal(measured, acquisition.measure(slices, SQUARE, 12))


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_an_oversampled_measurement_is_that_of_the_disc(beam):
    """Pixels three times finer than those of the image that is made: closer to the disc than that image's own."""
    far = {"source_to_center_mm": 150, "source_to_detector_mm": 260} if beam == "fan" else {}
    once, finer = (ct(**{**QUIET, "beam": beam, "oversampling": n, **far}).drawn(0) for n in (1, 3))
    operator = finer.operator((64, 64), SQUARE)
    # The detector sees the corners of the image.
    assert operator.geometry.field_of_view_mm >= 64 * math.sqrt(2)
    true = disc_sinogram(operator.geometry, [(0, 0, 24.0, WATER_PER_MM)])
    third = (1 / 3, 1 / 3)
    measured = finer.measure(water_disc(192, 24.0, third[0]), third, 0), once.measure(water_disc(64, 24.0), SQUARE, 0)
    errors = [float((each - true).norm() / true.norm()) for each in measured]
    assert errors[0] < 0.003 and errors[0] < errors[1] < 0.015
    with pytest.raises(InputError, match="64 × 64 pixels cannot be 3 times"):
        finer.measure(water_disc(64, 24.0), SQUARE, 0)


def test_oversampling_a_volume_leaves_it_on_its_grid():
    """No number of the image is measured by itself; where nothing is sharp, that makes no difference."""
    image = make_image(water_disc(64, 24.0)[0, 0].T.numpy()[None, :, :, None], np.diag([2.0, 2.0, 3.0, 1.0]))
    once, finer = (ct(**{**QUIET, "oversampling": n}) for n in (1, 2))
    assert once.simulate_volume(image, 0).geometry == finer.simulate_volume(image, 0).geometry
    shown = [each.degraded(image, 0)[0, :, :, 0] for each in (once, finer)]
    inside = disc_image(64, 1.0, [(0, 0, 20.0, 1.0)])[0, 0] == 1
    assert float((shown[0] - shown[1])[inside].abs().mean()) < 5
    assert float((shown[0] - shown[1]).abs().max()) > 20


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_first_images_are_in_hounsfield_units(beam):
    acquisition = ct(**{**QUIET, "views": 180, "beam": beam}).drawn(0)
    image = water_disc(64, 24.0)
    shown = acquisition.first_images(acquisition.measure(image, SQUARE, 0), (64, 64), SQUARE)[0, 0]
    inside = disc_image(64, 1.0, [(0, 0, 20.0, 1.0)])[0, 0] == 1
    assert float(shown[inside].mean()) == pytest.approx(0, abs=3)
    assert float(shown[:4].mean()) == pytest.approx(-1000, abs=3)


def test_a_quarter_of_the_dose_doubles_the_noise():
    image = water_disc(64, 24.0).expand(6, -1, -1, -1)
    inside = disc_image(64, 1.0, [(0, 0, 18.0, 1.0)])[0, 0] == 1
    noise = []
    for photons in (400_000, 100_000):
        acquisition = ct(views=90, photons=photons, electronic_noise=0).drawn(0)
        shown = acquisition.first_images(acquisition.measure(image, SQUARE, 1), (64, 64), SQUARE)[:, 0]
        noise.append(float((shown - shown.mean(dim=0))[:, inside].std()))
    assert noise[1] / noise[0] == pytest.approx(2, rel=0.05)


def test_noise_in_the_air_of_an_image_does_not_make_it_denser():
    """A simulated scan of a noisy image has the means of that image; padding outside of it is air."""
    truth = body(shape=(64, 64, 5)).numpy()
    truth += np.random.default_rng(0).normal(0, 15, truth.shape).astype(np.float32)
    padded = truth.copy()
    padded[:, :, :2] = -3024
    found = ct(photons=0).degraded(make_image(padded, np.diag([2.0, 2.0, 3.0, 1.0])), 0).numpy()
    air, water = np.s_[0, 40:60, 10:50, :2], np.s_[0, 12:26, 12:24, :2]
    assert abs(found[air].mean() - truth[air].mean()) < 1.0
    assert abs(found[water].mean() - truth[water].mean()) < 3.0
    assert abs(found[0, 0, 10:50].mean() + 1000) < 5.0


def test_pixels_that_are_not_square_are_refused():
    with pytest.raises(InputError, match="0.7 mm wide and 3 mm high"):
        ct(**QUIET).measure(water_disc(16, 6.0), (3.0, 0.7), 0)
    with pytest.raises(InputError, match="square"):
        ct(**QUIET).degraded(body(np.diag([1.0, 2.0, 3.0, 1.0])), 0)


def test_a_source_inside_of_the_image_is_refused():
    with pytest.raises(InputError, match="source_to_center_mm is 20"):
        ct(**QUIET, beam="fan", source_to_center_mm=20, source_to_detector_mm=40).measure(water_disc(), SQUARE, 0)


# Volumes


def test_volumes_that_are_no_ct_are_refused():
    random = np.random.default_rng(0)
    mr = make_image(random.uniform(0, 400, (1, 12, 12, 2)), np.eye(4))
    with pytest.raises(NotHounsfield):
        ct(**QUIET).degraded(mr, 0)
    with pytest.raises(NotHounsfield):
        ct(**QUIET).simulate_volume(mr, 0)
    mr.meta["assume_hounsfield"] = True
    assert ct(**QUIET).degraded(mr, 0).shape == mr.shape
    with pytest.raises(InputError, match="same value"):
        ct(**QUIET).degraded(make_image(np.full((1, 8, 8, 2), -1000.0), np.eye(4)), 0)
    with pytest.raises(InputError, match="3 channels"):
        ct(**QUIET).degraded(make_image(random.normal(0, 500, (3, 8, 8, 2)), np.eye(4)), 0)
    with pytest.raises(InputError, match="below zero"):
        acquisition_of({"kind": "mr"}).degraded(body(), 0)


def marker(values, affine):
    """Where the densest voxels are, RAS mm."""
    places = np.argwhere(np.asarray(values) > 1000)
    return affine[:3, :3] @ places.mean(axis=0) + affine[:3, 3]


def orders():
    """Volumes of the same object, voxels in other orders: (axes, which of them flipped)."""
    return [
        ((0, 1, 2), ()),
        ((0, 1, 2), (0, 1)),
        ((0, 1, 2), (2,)),
        ((1, 0, 2), (1,)),
        ((2, 0, 1), (0, 2)),
        ((1, 2, 0), ()),
        ((0, 2, 1), (1,)),
    ]


@pytest.mark.parametrize(("axes", "flipped"), orders())
def test_the_order_of_voxels_changes_nothing_in_the_patient(axes, flipped):
    image = body()
    plain = ct(**QUIET).degraded(image, 0)[0].numpy()
    affine = affine_of(image)
    turned = image[0].numpy().transpose(axes)
    matrix = affine[:, [*axes, 3]].copy()
    for axis in flipped:
        matrix[:3, 3] += matrix[:3, axis] * (turned.shape[axis] - 1)
        matrix[:3, axis] *= -1
    turned = np.flip(turned, flipped)
    other = make_image(np.ascontiguousarray(turned)[None], matrix)
    shown = ct(**QUIET).degraded(other, 0)
    assert np.array_equal(affine_of(shown), matrix) and shown.shape == other.shape
    back = np.flip(shown[0].numpy(), flipped).transpose(np.argsort(axes))
    # Mirrored views meet the pixels a rounding elsewhere; streaks at the marker's edges differ by some HU.
    assert np.abs(back - plain).mean() < 4 and np.corrcoef(back.ravel(), plain.ravel())[0, 1] > 0.999
    # Slices know nothing of each other: those of another direction would smear the marker over its neighbors.
    assert back[13, 10, 3] > 1500 and abs(back[13, 10, 2]) < 100
    assert np.allclose(marker(shown[0], matrix), marker(image[0], affine), atol=0.5)

    measured = ct(**QUIET).simulate_volume(other, 0)
    from MedMapAILib.physics.ct_projector import CtProjector

    data = torch.from_numpy(measured.line_integrals)[:, None]
    slices = hounsfield_of_attenuation(filtered_backprojection(CtProjector(measured.geometry), data))[:, 0]
    values = slices.numpy().transpose(2, 1, 0)
    assert values.shape == measured.shape
    assert np.allclose(marker(values, measured.affine), marker(image[0], affine), atol=0.5)
    assert bool(len(measured.notes) > 1) == (axes[2] != 2)


def rotation(degrees, axis):
    a, b = [n for n in range(3) if n != axis]
    matrix = np.eye(3)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix[a, a] = matrix[b, b] = cosine
    matrix[a, b], matrix[b, a] = -sine, sine
    return matrix


@pytest.mark.parametrize("kind", ["lps", "oblique", "thick"])
def test_geometry_of_the_volume_stays(kind):
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    if kind == "lps":
        affine = np.diag([-2.0, -2.0, 3.0, 1.0])
        affine[:3, 3] = (40, 50, -700)
    elif kind == "oblique":
        affine[:3, :3] = rotation(17, 0) @ rotation(-9, 2) @ affine[:3, :3]
    else:
        affine[2, 2] = 10.0
    image = body(affine)
    measured = ct(views=60, photons=1e6).simulate_volume(image, 3)
    assert measured.shape == (40, 36, 5) and np.allclose(measured.affine, affine)
    assert measured.geometry.pixel_mm == pytest.approx(2) and measured.geometry.image_size == (36, 40)
    assert measured.hounsfield and measured.about["seed"] == 3 and measured.about["acquisition"]["views"] == 60
    shown = ct(views=60, photons=1e6).degraded(image, 3)
    assert np.array_equal(affine_of(shown), affine_of(image))
    assert np.allclose(marker(shown[0], affine), marker(image[0], affine), atol=0.5)
    assert torch.equal(shown, ct(views=60, photons=1e6).degraded(image, 3))


def test_a_single_slice_is_measured_as_it_lies():
    """A slice of a coronal reformation has its rows along the patient."""
    affine = np.array([[2.0, 0, 0, 0], [0, 0, 2.0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])
    image = make_image(body().numpy()[:, :, :, 3:4], affine)
    assert ct(**QUIET).simulate_volume(image, 0).shape == (40, 36, 1)


# MR


@pytest.mark.parametrize("count", [1, 4, 8])
def test_sensitivities_have_squares_that_add_up_to_one(count):
    maps = ring_sensitivities(count, (20, 30), (1.0, 2.0))
    assert maps.shape == (count, 20, 30) and maps.dtype == torch.complex64
    assert torch.allclose(maps.abs().square().sum(dim=0), torch.ones(20, 30), atol=1e-5)


def test_coils_see_best_what_is_near_and_all_alike():
    """Of four coils on an odd square, a quarter turn of the picture turns each coil's magnitude into the next one's."""
    maps = ring_sensitivities(4, (21, 21), SQUARE).abs()
    # Coil 0 stands at the right, coil 1 at the top.
    assert [int(maps[:, 10, 20].argmax()), int(maps[:, 0, 10].argmax())] == [0, 1]
    for coil in range(4):
        assert torch.allclose(torch.rot90(maps[coil]), maps[(coil + 1) % 4], atol=1e-6)


def test_a_whole_k_space_gives_the_image_back():
    image = torch.rand(2, 1, 18, 24, generator=torch.Generator().manual_seed(0))
    for coils in (1, 6):
        scan = acquisition_of({"kind": "mr", "acceleration": 1, "coils": coils, "noise": 0}).drawn(0)
        data = scan.measure(image, SQUARE, 0)
        assert data.shape == (2, coils, 18, 24) and data.is_complex()
        assert torch.allclose(scan.first_images(data, (18, 24), SQUARE), image, atol=1e-5)
        assert torch.allclose(scan.operator((18, 24), SQUARE).adjoint(data).abs(), image, atol=1e-5)


def test_noise_of_k_space_is_the_stated_part_of_the_brightest_tissue():
    image = torch.ones(40, 1, 32, 32) * 500
    clean, noisy = (
        acquisition_of({"kind": "mr", "acceleration": 2, "coils": 2, "noise": noise}).drawn(1) for noise in (0, 0.03)
    )
    mask = noisy.mask((32, 32))
    difference = (noisy.measure(image, SQUARE, 1) - clean.measure(image, SQUARE, 1))[..., mask]
    assert float(difference.real.std()) == pytest.approx(0.03 * 500, rel=0.02)
    assert float(difference.imag.std()) == pytest.approx(0.03 * 500, rel=0.02)
    assert not noisy.measure(image, SQUARE, 1)[..., ~mask].any()


@pytest.mark.parametrize(
    "sampling", ["random", "equispaced", "variable-density", "variable-density-points", "poisson-disc"]
)
def test_acceleration_of_the_mask(sampling):
    scan = acquisition_of({"kind": "mr", "sampling": sampling, "acceleration": [3, 5]}).drawn(4)
    mask = scan.mask((96, 96))
    assert acceleration_of(mask) == pytest.approx(scan["acceleration"], rel=0.03)
    assert 3 <= scan["acceleration"] <= 5
    assert mask[44:52, 46:50].all()
    assert torch.equal(mask, scan.mask((96, 96)))


def test_an_mr_volume_keeps_its_slices_and_its_place():
    values = np.abs(body().numpy()) + 1
    affine = np.array([[0, 0, 3.0, 1], [2.0, 0, 0, 2], [0, 1.0, 0, 3], [0, 0, 0, 1]])
    image = make_image(values, affine)
    measured = acquisition_of({"kind": "mr", "coils": 3}).simulate_volume(image, 2)
    assert measured.k_space.shape == (5, 3, 36, 40) and measured.mask.shape == (36, 40)
    assert measured.shape == (40, 36, 5) and np.array_equal(measured.affine, affine)
    whole = acquisition_of({"kind": "mr", "acceleration": 1, "noise": 0}).degraded(image, 0)
    assert np.allclose(whole.numpy(), values, atol=values.max() * 1e-5)


# Noise


def test_noise_in_the_image():
    image = make_image(np.zeros((1, 60, 60, 20), np.float32), np.eye(4))
    image[:, :30] = 1000
    gaussian = acquisition_of({"kind": "noise", "sd": 12}).degraded(image, 0)
    assert float((gaussian - image).std()) == pytest.approx(12, rel=0.01)
    rician = acquisition_of({"kind": "noise", "sd": 12, "distribution": "rician"}).degraded(image, 0)
    # Without a signal the mean is that of Rayleigh's distribution; with much, about signal + sd² / (2 signal).
    assert float(rician[:, 30:].mean()) == pytest.approx(12 * math.sqrt(math.pi / 2), rel=0.01)
    assert float(rician[:, :30].mean()) == pytest.approx(1000 + 144 / 2000, abs=0.3)
    assert not torch.equal(gaussian[..., 0], gaussian[..., 1])


def test_nothing_is_done_to_pairs():
    image = body()
    nothing = acquisition_of({"kind": "none"})
    assert nothing.degraded(image, 0) is image
    with pytest.raises(InputError, match="measures nothing"):
        nothing.simulate_volume(image, 0)
    with pytest.raises(InputError, match="measures nothing"):
        acquisition_of({"kind": "noise"}).operator((8, 8), SQUARE)


def test_spacing_of_slices_is_that_of_rows_and_columns():
    assert spacing_of_slices(np.diag([1.0, 2.0, 3.0, 1.0])) == (2.0, 1.0)
