"""CT as a linear map: closed forms, exact adjoints, analytic inversion, noise and corrections."""

import json
import math

import numpy as np
import pytest
import torch
from ct_phantoms import DISCS, disc_image, disc_sinogram, ray_distance
from MedMapAILib.errors import InputError
from MedMapAILib.physics import attenuation, counts, dead_detectors, filters, flat_field, view_weights
from MedMapAILib.physics.center_of_rotation import center_of_rotation
from MedMapAILib.physics.ct_geometry import (
    FanBeam,
    ParallelBeam,
    angle_problem,
    every_nth,
    full_angles,
    geometry_from_dict,
    limited_angles,
)
from MedMapAILib.physics.ct_projector import CtProjector
from MedMapAILib.physics.filtered_backprojection import filtered_backprojection
from MedMapAILib.physics.linear_operator import dot_product_error, operator_norm
from MedMapAILib.physics.parallel_beam import trapezoid_below
from skimage.transform import iradon, radon

FAN = {"source_to_center_mm": 250.0, "source_to_detector_mm": 450.0}


def parallel(views=60, size=160, **changes):
    values = {"angles_rad": full_angles(views), "detectors": 190, "detector_spacing_mm": 0.9, "image_size": size}
    return ParallelBeam(**{**values, "pixel_mm": 1.0, **changes})


def fan(views=64, size=160, **changes):
    values = {"angles_rad": full_angles(views, beam="fan"), "detectors": 220, "detector_spacing_mm": 1.5}
    return FanBeam(**{**values, "image_size": size, "pixel_mm": 1.0, **FAN, **changes})


GEOMETRIES = {
    "parallel": parallel(),
    "limited, shifted, not square": parallel(
        angles_rad=limited_angles(31, first_rad=-2.0, arc_rad=7.3), image_size=(96, 130), detector_offset_mm=3.3
    ),
    "narrow detectors": parallel(detectors=700, detector_spacing_mm=0.21, views=12),
    "wide detectors": parallel(detectors=40, detector_spacing_mm=4.4),
    "fan": fan(),
    "fan, shifted, not square": fan(
        angles_rad=limited_angles(29, first_rad=0.3, arc_rad=4.1), image_size=(130, 96), detector_offset_mm=-5.7
    ),
}


@pytest.fixture(params=GEOMETRIES)
def geometry(request):
    return GEOMETRIES[request.param]


def relative(found, true):
    return float((found - true).detach().norm() / true.detach().norm())


def random_pair(geometry, count=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(count, 1, *geometry.image_size, generator=generator, dtype=dtype)
    return image, torch.randn(count, 1, *geometry.sinogram_size, generator=generator, dtype=dtype)


# ---- the projector


def test_discs_project_to_their_closed_form(geometry):
    discs = [(x * 0.6, y * 0.6, r * 0.6, value) for x, y, r, value in DISCS]
    found = CtProjector(geometry)(disc_image(geometry.image_size, geometry.pixel_mm, discs))
    true = disc_sinogram(geometry, discs)
    assert relative(found, true) < 0.01
    assert abs(float(found.sum() / true.sum()) - 1) < 1e-3


def test_a_large_disc_is_right_to_one_percent_at_every_ray():
    geometry = parallel(views=45, size=256, detectors=300, detector_spacing_mm=1.0)
    disc = [(7.0, -11.0, 90.0, 0.02)]
    found = CtProjector(geometry)(disc_image(256, 1.0, disc))
    distance = ray_distance(geometry, geometry.detectors_mm, *disc[0][:2])
    error = (found - disc_sinogram(geometry, disc))[0, 0].abs().numpy() / (2 * 90 * 0.02)
    # At its edge the disc has an infinite slope, and pixels have a size.
    assert error[np.abs(distance) < 85].max() < 0.01
    assert np.sqrt((error**2).mean()) < 0.003


def test_one_pixel_projects_to_its_trapezoid():
    # The closed form of a square: its projection at 30 degrees has height 1 / cos 30 and flanks of sin 30.
    geometry = parallel(angles_rad=(math.radians(30),), size=3, detectors=400, detector_spacing_mm=0.01)
    image = torch.zeros(1, 1, 3, 3)
    image[..., 1, 1] = 1
    found = CtProjector(geometry)(image)[0, 0, 0].numpy()
    place = np.abs(geometry.detectors_mm)
    cosine, sine = math.cos(math.radians(30)), 0.5
    true = np.clip(((cosine + sine) / 2 - place) / (sine * cosine), 0, 1 / cosine)
    assert np.abs(found - true).max() < 0.02


def test_the_adjoint_is_exact(geometry):
    projector = CtProjector(geometry)
    assert dot_product_error(projector, *random_pair(geometry, 2)) < 1e-5
    assert dot_product_error(projector, *random_pair(geometry, 2, torch.float64)) < 1e-6


def test_every_column_of_the_adjoint_is_a_row_of_the_projector():
    for geometry in (
        parallel(7, size=(5, 6), detectors=9, detector_spacing_mm=1.1),
        fan(6, size=(5, 6), detectors=9, detector_spacing_mm=2.2),
    ):
        projector = CtProjector(geometry)
        forward = projector(torch.eye(30).reshape(30, 1, 5, 6)).reshape(30, -1)
        back = projector.adjoint(torch.eye(forward.shape[1]).reshape(-1, 1, *geometry.sinogram_size))
        assert torch.allclose(forward.T, back.reshape(-1, 30), atol=1e-5)
        assert forward.min() > -1e-6


def test_the_gradient_of_filtered_backprojection_is_its_adjoint():
    projector = CtProjector(ParallelBeam(full_angles(7), 21, 1.0, (12, 14), 1.0))
    generator = torch.Generator().manual_seed(0)
    sinogram, other = (torch.rand(2, 1, 7, 21, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = torch.rand(2, 1, 12, 14, generator=generator, dtype=torch.float64)
    sinogram.requires_grad_()
    (filtered_backprojection(projector, sinogram) * weights).sum().backward()
    # It is linear: the gradient answers every other sinogram, too.
    there = (filtered_backprojection(projector, other) * weights).sum()
    assert float((sinogram.grad * other).sum()) == pytest.approx(float(there), rel=1e-9)


def test_gradients_run_through_both_directions():
    geometry = parallel(3, size=4, detectors=5, detector_spacing_mm=1.2)
    for g in (geometry, fan(3, size=4, detectors=5)):
        projector = CtProjector(g).double()
        image, sinogram = random_pair(g, 2, torch.float64)
        assert torch.autograd.gradcheck(projector, image.requires_grad_(), eps=1.0, atol=1e-4)
        assert torch.autograd.gradcheck(projector.adjoint, sinogram.requires_grad_(), eps=1.0, atol=1e-4)
        loss = projector.adjoint(projector(image)).square().sum()
        (gradient,) = torch.autograd.grad(loss, image, create_graph=True)
        assert gradient.requires_grad


def test_batches_give_what_single_images_give(geometry):
    image, sinogram = random_pair(geometry, 3)
    projector = CtProjector(geometry)
    for apply, values in ((projector, image), (projector.adjoint, sinogram), (projector.backproject, sinogram)):
        together = apply(values)
        for index in range(3):
            assert torch.allclose(together[index], apply(values[index : index + 1])[0], rtol=1e-4, atol=1e-3)


def test_parallel_views_are_those_of_scikit_image():
    # Smooth, so that both see the same; scikit-image samples lines, this integrates over strips.
    y, x = np.mgrid[:128, :128] - 64.0
    image = (np.exp(-((x - 12) ** 2 + (y + 9) ** 2) / 200) * (np.hypot(x, y) < 60)).astype(np.float32)
    angles = np.arange(0, 180, 9.0)
    # Its center of rotation is pixel 64, ours lies between 63 and 64.
    geometry = ParallelBeam(np.radians(angles), 127, 1.0, 127, 1.0)
    found = CtProjector(geometry)(torch.from_numpy(image)[None, None, 1:, 1:])[0, 0].numpy()
    true = radon(image, angles, circle=True)[1:].T
    assert np.abs(found - true).max() < 0.01 * true.max()


def test_a_far_source_is_a_parallel_beam():
    # 40 m away the rays are parallel to a milliradian.
    distance = {"source_to_center_mm": 4e4, "source_to_detector_mm": 4e4}
    far = fan(views=24, size=64, detectors=100, detector_spacing_mm=1.0, **distance)
    near = ParallelBeam(far.angles_rad, 100, 1.0, 64, 1.0)
    image = disc_image(64, 1.0, [(4.0, -7.0, 18.0, 1.0)])
    assert relative(CtProjector(far)(image), CtProjector(near)(image)) < 0.01


def test_opposite_rays_of_a_fan_agree():
    geometry = fan(views=72)
    sinogram = CtProjector(geometry)(disc_image(160, 1.0))[0, 0]
    middle = sinogram[:, 109:111].mean(dim=1)
    assert torch.allclose(middle[:36], middle[36:], rtol=0.02, atol=0.01)


def test_a_projector_holds_nothing_to_save_and_takes_half_precision():
    geometry = parallel(8, size=16, detectors=20)
    projector = CtProjector(geometry)
    assert not projector.state_dict()
    image = torch.rand(1, 1, 16, 16)
    half = image.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = projector(half)
    assert found.dtype == torch.float32
    assert relative(found, projector(image)) < 0.01
    found.sum().backward()
    assert half.grad.dtype == torch.bfloat16


def test_subsets_are_the_views_of_the_whole():
    for geometry in (parallel(12, size=32, detectors=40), fan(12, size=32, detectors=40)):
        projector, image = CtProjector(geometry), torch.rand(1, 1, 32, 32)
        part = projector.subset([7, 1, 4])
        assert torch.allclose(part(image), projector(image)[:, :, [7, 1, 4]], rtol=1e-4, atol=1e-4)
    assert every_nth(geometry, 4).angles_rad == geometry.angles_rad[::4]


def test_the_norm_of_a_projector_bounds_its_gain():
    geometry = parallel(20, size=24, detectors=40)
    projector = CtProjector(geometry)
    matrix = projector(torch.eye(576).reshape(576, 1, 24, 24)).reshape(576, -1)
    true = float(torch.linalg.matrix_norm(matrix, 2))
    assert operator_norm(projector, (1, 1, 24, 24)) == pytest.approx(true, rel=0.01)


def test_a_trapezoid_is_two_boxes_convolved():
    place = np.linspace(-3, 3, 6001)
    boxes = [(np.abs(place) <= width / 2).astype(float) for width in (1.5, 0.7)]
    true = np.cumsum(np.convolve(*boxes, mode="same"))
    assert np.abs(trapezoid_below(place, 1.5, 0.7) - true / true[-1]).max() < 2e-3
    assert trapezoid_below(np.array([-0.25, 0.0, 0.25]), 1.0, 0.0) == pytest.approx([0.25, 0.5, 0.75])


# ---- filtered backprojection


@pytest.mark.parametrize("name", ["parallel", "fan", "parallel twice round", "uneven", "short scan", "fan shifted"])
def test_filtered_backprojection_gives_the_discs_back(name):
    rng = np.random.default_rng(0)
    half_fan = fan().half_fan_rad
    geometry = {
        "parallel": parallel(360),
        "parallel twice round": parallel(angles_rad=limited_angles(360, first_rad=1.0, arc_rad=2 * math.pi)),
        "uneven": parallel(angles_rad=rng.permutation(np.arange(400) * math.pi / 400 + rng.uniform(0, 4e-3, 400))),
        "fan": fan(480),
        "fan shifted": fan(480, detector_offset_mm=2.1),
        "short scan": fan(angles_rad=limited_angles(400, first_rad=2.0, arc_rad=math.pi + 2 * half_fan + 0.2)),
    }[name]  # fmt: skip
    found = filtered_backprojection(CtProjector(geometry), disc_sinogram(geometry))[0, 0].numpy()
    for x, y, radius, value in ((30.0, -10.0, 8, 0.020), (-20.0, 10.0, 14, 0.008), (25.0, 20.0, 7, 0.030)):
        column, row = x + 79.5, 79.5 - y
        rows, columns = np.mgrid[:160, :160]
        inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        assert found[inside].mean() == pytest.approx(value, rel=0.01)


def test_filtered_backprojection_is_as_close_as_that_of_scikit_image():
    angles = np.arange(0, 180, 0.5)
    geometry = ParallelBeam(np.radians(angles), 161, 1.0, 161, 1.0)
    sinogram, true = disc_sinogram(geometry), disc_image(161, 1.0)[0, 0].numpy()
    ours = filtered_backprojection(CtProjector(geometry), sinogram)[0, 0].numpy()
    # Its rows run down and its first detector is at the left; its center is pixel 80, as ours.
    theirs = iradon(sinogram[0, 0].numpy().T, angles, circle=False, output_size=161)
    errors = [np.linalg.norm(found - true) / np.linalg.norm(true) for found in (ours, theirs)]
    assert errors[0] < 1.05 * errors[1]
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(true) < 0.06


def test_windows_spare_the_noise_in_their_order():
    geometry = parallel(180, size=64, detectors=90, detector_spacing_mm=1.0)
    projector, noise = CtProjector(geometry), random_pair(geometry)[1]
    names = ("ramp", "shepp-logan", "cosine", "hann")
    spread = [float(filtered_backprojection(projector, noise, filter_name=name).std()) for name in names]
    assert spread == sorted(spread, reverse=True)
    assert float(filtered_backprojection(projector, noise, cutoff=0.4).std()) < spread[-1]


def test_the_ramp_is_the_one_of_kak_and_slaney():
    found = filters.ramp(64, 0.5)
    # Close to |frequency|, in cycles per mm, and not zero at zero, where the sampled kernel's sum counts.
    frequency = torch.fft.rfftfreq(64, 0.5)
    assert torch.allclose(found / 2, (frequency / 2).double(), atol=0.02)
    assert 0 < float(found[0]) < 0.02
    ends = {"ramp": 1.0, "shepp-logan": 2 / math.pi, "cosine": 0.0, "hann": 0.0}
    for name, end in ends.items():
        response = filters.response(name, 64, 0.5)
        assert float(response[-1] / found[-1]) == pytest.approx(end, abs=1e-6)
    assert float(filters.response("ramp", 64, 0.5, cutoff=0.5)[20]) == 0


@pytest.mark.parametrize("offset", [5, 22, -25, 30])
@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_a_whole_turn_with_the_detector_off_the_middle(beam, offset):
    """What one side of the detector sees alone it sees once in a turn; discs everywhere have their value."""
    angles, discs = tuple(np.arange(400) * 2 * math.pi / 400), [(0, 0, 8, 1.0), (28, 6, 8, 1.0), (-20, -25, 6, 1.0)]
    if beam == "parallel":
        scan = ParallelBeam(angles, 70, 1.0, 100, 1.0, detector_offset_mm=offset)
    else:
        far = {"source_to_center_mm": 250, "source_to_detector_mm": 450}
        scan = FanBeam(angles, 140, 1.0, 100, 1.0, detector_offset_mm=2 * offset, **far)
    found = filtered_backprojection(CtProjector(scan), disc_sinogram(scan, discs))[0, 0]
    for x, y, radius, _ in discs:
        inside = disc_image(100, 1.0, [(x, y, radius - 3, 1.0)])[0, 0] > 0.99
        assert float(found[inside].mean()) == pytest.approx(1.0, abs=0.005)


def test_steps_of_views():
    assert view_weights.view_steps(np.radians([0, 90, 180, 270]), math.pi) == pytest.approx(math.pi / 4)
    limited = np.radians(np.arange(0, 60, 2.0))
    assert view_weights.view_steps(limited, math.pi) == pytest.approx(math.radians(2))
    uneven = view_weights.view_steps(np.radians([0, 30, 40, 90]), math.pi)
    assert uneven.sum() == pytest.approx(math.pi)


@pytest.mark.parametrize("more", [0.0, 0.3, 1.5])
def test_weights_of_a_short_scan_sum_to_one_on_every_line(more):
    arc = math.pi + 2 * fan().half_fan_rad + more
    geometry = fan(angles_rad=limited_angles(2000, first_rad=1.0, arc_rad=arc))
    weights = view_weights.redundancy(geometry)
    gamma = np.arctan(geometry.detectors_mm / geometry.source_to_detector_mm)
    total = 0.0
    for index in (3, 110, 200):
        # Lines whose first ray is in view 5: their second is at its angle + π + 2 gamma, mirrored.
        other = geometry.angles[5] + math.pi + 2 * gamma[index]
        opposite = int(round((other - 1.0) / (arc / 2000)))
        mirrored = len(gamma) - 1 - index
        total = weights[5, index] + (weights[opposite, mirrored] if opposite < 2000 else 0)
        assert total == pytest.approx(1, abs=0.02)


# ---- geometry


def test_geometries_say_which_number_is_wrong():
    cases = {
        "detectors is 0": lambda: parallel(detectors=0),
        "detector_spacing_mm is -1": lambda: parallel(detector_spacing_mm=-1),
        "pixel_mm is nan": lambda: parallel(pixel_mm=math.nan),
        "image_size is 1.5": lambda: parallel(image_size=1.5),
        "Angle 1 is inf": lambda: parallel(angles_rad=(0.0, math.inf)),
        "has no angles": lambda: parallel(angles_rad=()),
        "source_to_center_mm is 100.*corners of the image are 113": lambda: fan(source_to_center_mm=100),
        "source_to_detector_mm is 200, less": lambda: fan(source_to_detector_mm=200),
        "degrees to one side": lambda: fan(detector_spacing_mm=5),
        "61 views and the geometry 60 angles": lambda: parallel().check_sinogram((1, 1, 61, 190)),
        "191 detectors a view and the geometry 190": lambda: parallel().check_sinogram((1, 1, 60, 191)),
        "axes are swapped": lambda: parallel().check_sinogram((190, 60)),
        "not the geometry's 160": lambda: CtProjector(parallel(2))(torch.zeros(1, 1, 160, 161)),
        'no filter .*ramp, shepp-logan': lambda: filters.response("hamm", 8, 1),
        "The parallel beam geometry lacks detectors": lambda: geometry_from_dict({"angles_deg": [0]}),
        "has no detector;": lambda: geometry_from_dict({**parallel().as_dict(), "detector": 3}),
    }  # fmt: skip
    for sentence, call in cases.items():
        with pytest.raises(InputError, match=sentence):
            call()


def test_geometries_survive_json(geometry):
    assert geometry_from_dict(json.loads(json.dumps(geometry.as_dict()))) == geometry
    values = {**geometry.as_dict(), "angles_deg": np.degrees(geometry.angles).tolist()}
    del values["angles_rad"]
    assert geometry_from_dict(values).angles == pytest.approx(geometry.angles)


def test_angles_in_the_wrong_unit_are_noticed():
    assert "look like degrees" in angle_problem(np.arange(180.0))
    assert "look like radians" in angle_problem(np.linspace(0, np.pi, 181), unit="deg")
    assert "look like radians" in angle_problem(full_angles(90, beam="fan"), unit="deg")
    assert not angle_problem(np.radians(np.arange(360.0)))
    assert not angle_problem(np.arange(0, 60, 1.0), unit="deg")


def test_the_field_of_view_is_what_every_view_sees():
    assert parallel(detector_offset_mm=5).field_of_view_mm == pytest.approx(190 * 0.9 - 10)
    wide = fan()
    assert wide.field_of_view_mm == pytest.approx(2 * 250 * math.sin(math.atan(165 / 450)))


def test_a_lost_view_is_made_of_those_beside_it():
    scan = parallel(120)
    true = disc_sinogram(scan, DISCS)[0]
    broken = true.clone()
    broken[0, [0, 40, 41]] = torch.nan
    found, sentence = dead_detectors.repaired(broken)
    assert "3 lost views (0, 40, 41)" in sentence
    kept = [n for n in range(120) if n not in (0, 40, 41)]
    assert torch.equal(found[0, kept], true[0, kept])
    assert float((found - true).abs().max()) < 0.1 * float(true.max())
    assert found[0, 40] == pytest.approx((2 * true[0, 39] + true[0, 42]).numpy() / 3, abs=1e-5)


# ---- attenuation and counts


def test_hounsfield_units_and_back():
    assert float(attenuation.attenuation_of_hounsfield(torch.tensor(0.0))) == pytest.approx(0.02059)
    values = torch.linspace(-1040, 3000, 50)
    back = attenuation.hounsfield_of_attenuation(attenuation.attenuation_of_hounsfield(values))
    assert torch.allclose(back, values, atol=1e-3)
    with pytest.raises(InputError, match="50, 60, 80, 100 keV, not at 70"):
        attenuation.water_attenuation(70)


def test_padding_is_air_and_noise_in_air_stays():
    values = np.array([-3024.0, -2000.0, -1040.0, -960.0, 50.0])
    expected = [-1000.0, -1000.0, -1040.0, -960.0, 50.0]
    np.testing.assert_array_equal(attenuation.without_padding(values), expected)
    np.testing.assert_array_equal(attenuation.without_padding(torch.tensor(values)).numpy(), expected)


def test_counts_have_poisson_mean_and_variance():
    lines = torch.full((1, 1, 300, 300), 2.0)
    found = counts.measure_counts(lines, 1000.0, electronic_noise=5.0, seed=4)
    mean = 1000 * math.exp(-2)
    assert float(found.mean()) == pytest.approx(mean, rel=0.002)
    assert float(found.var()) == pytest.approx(mean + 25, rel=0.02)
    assert torch.equal(found, counts.measure_counts(lines, 1000.0, electronic_noise=5.0, seed=4))
    assert not torch.equal(found, counts.measure_counts(lines, 1000.0, electronic_noise=5.0, seed=5))


def test_the_logarithm_undoes_beer_and_lambert_and_its_variance_is_known():
    lines = torch.linspace(0, 6, 50)
    assert torch.allclose(counts.line_integrals_of_counts(counts.expected_counts(lines, 1e5), 1e5), lines, atol=1e-4)
    many = counts.noisy_line_integrals(torch.full((1, 1, 400, 400), 1.0), 1e4, electronic_noise=20.0, seed=1)
    mean = torch.tensor(1e4 * math.exp(-1))
    assert float(1 / many.var()) == pytest.approx(float(counts.count_weights(mean, electronic_noise=20.0)), rel=0.02)
    assert torch.isfinite(counts.line_integrals_of_counts(torch.tensor([0.0, -3.0]), 10.0)).all()


def test_impossible_counts_are_refused():
    with pytest.raises(InputError, match="negative in 50 of 100"):
        counts.check_counts(torch.cat([torch.ones(50), -torch.ones(50)]))
    with pytest.raises(InputError, match="1 values that are no numbers"):
        counts.check_counts(torch.tensor([1.0, math.nan]))
    with pytest.raises(InputError, match="photons is 0"):
        counts.measure_counts(torch.zeros(2), 0, seed=0)


# ---- corrections


def test_flat_and_dark_fields_are_undone():
    generator = torch.Generator().manual_seed(0)
    lines = disc_sinogram(parallel())[0, 0]
    gain = 8000 + 2000 * torch.rand(190, generator=generator)
    dark = 300 + 50 * torch.rand(190, generator=generator)
    flats = (gain + dark).repeat(5, 1)
    flats[2] *= 40
    found = flat_field.flat_field_corrected(gain * torch.exp(-lines) + dark, flats, dark.repeat(3, 1))
    assert torch.allclose(found, lines, atol=1e-4)
    with pytest.raises(InputError, match="swapped"):
        flat_field.flat_field_corrected(lines, dark.repeat(3, 1), flats)
    with pytest.raises(InputError, match="flat field has the shape"):
        flat_field.flat_field_corrected(lines, flats[:, :-1], dark.repeat(3, 1))


def test_a_flickering_beam_is_leveled_by_its_air():
    lines = disc_sinogram(parallel())
    flicker = torch.linspace(-0.1, 0.2, 60)[:, None] + torch.linspace(0, 0.05, 190)
    assert torch.allclose(flat_field.beam_normalized(lines + flicker, margin=10), lines, atol=0.002)


def test_dead_detectors_are_filled_in_and_told():
    lines = disc_sinogram(parallel(image_size=160))
    broken = lines.clone()
    broken[..., 70] = 0.3
    broken[0, 0, 12, 100] = math.nan
    broken[..., 101] = math.inf
    fixed, sentence = dead_detectors.repaired(broken)
    assert "2 dead detector pixels (70, 101)" in sentence and "1 single value that was no number" in sentence
    assert relative(fixed, lines) < 0.005
    assert dead_detectors.repaired(lines) == (lines, "")
    broken[..., :60] = math.nan
    with pytest.raises(InputError, match="of the sinogram's values are missing"):
        dead_detectors.repaired(broken)


@pytest.mark.parametrize("offset", [-7.35, 0.0, 12.2])
@pytest.mark.parametrize("turn", [1, 2])
def test_the_center_of_rotation_is_found(offset, turn):
    angles = limited_angles(180 * turn, first_rad=0.4, arc_rad=turn * math.pi)
    geometry = parallel(angles_rad=angles, detector_offset_mm=offset)
    sinogram = disc_sinogram(geometry)
    noisy = counts.noisy_line_integrals(sinogram, 2e4, seed=2)
    assert center_of_rotation(noisy, geometry) == pytest.approx(offset, abs=0.15)


def test_the_center_needs_half_a_turn():
    with pytest.raises(InputError, match="angles span 89 degrees"):
        geometry = parallel(angles_rad=tuple(np.radians(np.arange(90.0))))
        center_of_rotation(torch.zeros(90, 190), geometry)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_cuda_gives_what_the_processor_gives(geometry):
    image, sinogram = random_pair(geometry, 2)
    here, there = CtProjector(geometry), CtProjector(geometry).cuda()
    assert relative(there(image.cuda()).cpu(), here(image)) < 1e-5
    assert relative(there.adjoint(sinogram.cuda()).cpu(), here.adjoint(sinogram)) < 1e-5
    assert relative(there.backproject(sinogram.cuda()).cpu(), here.backproject(sinogram)) < 1e-5
