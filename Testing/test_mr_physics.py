"""MR as a linear map: the transform, sampling masks, coils and their sensitivities."""

import math

import numpy as np
import pytest
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.physics import mr_sampling
from MedMapAILib.physics.coil_sensitivities import adaptive_combine, calibration_block, calibration_size, espirit
from MedMapAILib.physics.fourier import image_of_k_space, k_space_of_image
from MedMapAILib.physics.linear_operator import dot_product_error, operator_norm
from MedMapAILib.physics.mr_operator import MrOperator, axis_order_problem, check_k_space, root_sum_of_squares
from scipy import special

SIZE = (64, 48)


def coils(count=4, size=SIZE):
    """Smooth complex sensitivities (C, H, W) of coils round the body, their squares adding up to 1."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    maps = []
    for n in range(count):
        angle = 2 * math.pi * n / count
        away = (x - 1.3 * math.cos(angle)) ** 2 + (y - 1.3 * math.sin(angle)) ** 2
        maps.append(torch.exp(-away / 1.5) * torch.exp(1j * (x * math.sin(angle) + y * n / 3)))
    stack = torch.stack(maps)
    return stack / stack.abs().square().sum(dim=0).sqrt()


def body(size=SIZE):
    """A complex image (1, 1, H, W): an ellipse with structure, nothing round it."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.85) ** 2 < 1
    values = inside * (1 + 0.5 * torch.cos(9 * x) * torch.sin(7 * y) + 0.6 * ((x - 0.2) ** 2 + y**2 < 0.04))
    return (values * torch.exp(0.5j * (x + y)))[None, None]


def random_pair(operator, batch=2, dtype=torch.complex64):
    generator = torch.Generator().manual_seed(1)
    size = operator.mask.shape[-2:]
    image = torch.randn(batch, 1, *size, dtype=dtype, generator=generator)
    return image, torch.randn(batch, operator.coils, *size, dtype=dtype, generator=generator)


# ---- the transform and the operator


def test_a_disc_has_the_k_space_of_bessel():
    # The transform of a disc of radius r is r J1(2 π r k) / k, here with pixels of a size of 1.
    size, radius, parts = 128, 30, 8
    place = (np.arange(size * parts) + 0.5) / parts - 0.5 - size // 2
    disc = (place[:, None] ** 2 + place**2 < radius**2).reshape(size, parts, size, parts).mean(axis=(1, 3))
    found = k_space_of_image(torch.from_numpy(disc)).numpy() * size
    frequency = (np.arange(size) - size // 2) / size
    k = np.hypot(frequency[:, None], frequency)
    k[size // 2, size // 2] = 1e-9
    # A pixel is a square, whose transform is a product of two sincs.
    true = radius * special.j1(2 * np.pi * radius * k) / k * np.sinc(frequency)[:, None] * np.sinc(frequency)
    low = k < 0.25
    assert np.abs(found - true)[low].max() < 0.01 * true.max()


@pytest.mark.parametrize("size", [(16, 16), (15, 22), (7, 9)])
def test_the_transform_is_unitary_and_centered(size):
    image = torch.randn(2, 3, *size, dtype=torch.complex128)
    k_space = k_space_of_image(image)
    assert float(k_space.norm()) == pytest.approx(float(image.norm()))
    assert torch.allclose(image_of_k_space(k_space), image)
    even = k_space_of_image(torch.ones(size, dtype=torch.complex128))
    assert float(even[size[0] // 2, size[1] // 2].real) == pytest.approx(math.sqrt(size[0] * size[1]))


@pytest.mark.parametrize("many", [False, True])
def test_the_adjoint_is_exact(many):
    mask = mr_sampling.random_lines(SIZE, 3, seed=2)
    operator = MrOperator(mask, coils() if many else None)
    assert dot_product_error(operator, *random_pair(operator)) < 1e-6
    assert operator_norm(operator, (1, 1, *SIZE), dtype=torch.complex64) <= 1 + 1e-5


def test_all_samples_give_the_image_back():
    operator = MrOperator(torch.ones(SIZE, dtype=torch.bool), coils())
    assert torch.allclose(operator.adjoint(operator(body())), body(), atol=1e-5)
    assert torch.allclose(root_sum_of_squares(operator(body())), body().abs(), atol=1e-5)


def test_masks_may_differ_in_a_batch_and_gradients_run_through():
    masks = torch.stack([mr_sampling.random_lines((8, 12), 2, seed=n)[None] for n in range(2)])
    operator = MrOperator(masks, coils(3, (8, 12)).to(torch.complex128))
    image, k_space = random_pair(operator, dtype=torch.complex128)
    single = MrOperator(masks[1, 0], operator.sensitivities)
    assert torch.allclose(operator(image)[1], single(image[1:])[0])
    small = MrOperator(torch.ones(2, 3), coils(2, (2, 3)).to(torch.complex128))
    x = torch.randn(1, 1, 2, 3, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: torch.view_as_real(small(v)), x)


# ---- sampling


@pytest.mark.parametrize("name", mr_sampling.MASKS)
@pytest.mark.parametrize("acceleration", [2, 4.5])
def test_masks_take_what_they_should(name, acceleration):
    size = (64, 80)
    mask = mr_sampling.sampling_mask(name, size, acceleration, seed=3)
    assert mask.dtype == torch.bool and mask.shape == size
    assert mr_sampling.acceleration_of(mask) == pytest.approx(acceleration, rel=0.06)
    assert torch.equal(mask, mr_sampling.sampling_mask(name, size, acceleration, seed=3))
    assert not torch.equal(mask, mr_sampling.sampling_mask(name, size, acceleration, seed=4))
    assert bool(mask[31:34, 39:42].all())
    if not name.endswith(("points", "disc")):
        assert bool((mask == mask[:1]).all())


def test_equispaced_lines_are():
    mask = mr_sampling.equispaced_lines((4, 240), 6, center=0.0, offset=2)
    assert torch.equal(torch.nonzero(mask[0]).ravel(), torch.arange(2, 240, 6))


def test_variable_density_falls_off():
    mask = mr_sampling.variable_density_points((200, 200), 5, center=0.02, seed=0).float()
    inner, outer = mask[75:125, 75:125].mean(), torch.cat([mask[:25], mask[-25:]]).mean()
    assert inner > 3 * outer


def test_a_poisson_disc_keeps_its_distance():
    mask = mr_sampling.poisson_disc((90, 90), 6, center=0.0, slope=0.0, seed=1)
    points = torch.nonzero(mask).float()
    distance = torch.cdist(points, points) + 1e9 * torch.eye(len(points))
    nearest = distance.min(dim=1).values
    # As many points at random would have neighbors at distance 1; rounding to places costs at most √2 / 2 each.
    least = float(nearest.min())
    assert least >= 1.4
    assert float(nearest.max()) < 3 * float(nearest.median())
    dense = mr_sampling.poisson_disc((90, 90), 6, center=0.0, slope=3.0, seed=1).float()
    assert dense[35:55, 35:55].mean() > 2 * dense[:20, :20].mean()


def test_impossible_samplings_are_refused():
    with pytest.raises(InputError, match="center's 32 lines are more than the 16"):
        mr_sampling.random_lines((64, 64), 4, center=0.5)
    with pytest.raises(InputError, match="acceleration is 0.5; it is at least 1"):
        mr_sampling.poisson_disc((64, 64), 0.5)
    with pytest.raises(InputError, match="no sampling 'spiral'; there are random"):
        mr_sampling.sampling_mask("spiral", (8, 8), 2)
    with pytest.raises(InputError, match="takes no sample"):
        MrOperator(torch.zeros(8, 8))


# ---- coils


def test_the_calibration_block_is_found():
    mask = torch.zeros(64, 48, dtype=torch.bool)
    mask[24:40, 14:34] = True
    assert calibration_size(mask) == (16, 20)
    lines = mr_sampling.random_lines((64, 48), 4, center=0.25)
    rows, columns = calibration_size(lines)
    assert rows == 64 and columns >= 12
    assert calibration_size(torch.zeros(8, 8, dtype=torch.bool)) == (0, 0)
    with pytest.raises(InputError, match="Only 4 × 4 samples in the center"):
        small = torch.zeros(64, 48)
        small[30:34, 22:26] = 1
        calibration_block(torch.ones(3, 64, 48, dtype=torch.complex64), small)


@pytest.mark.parametrize("estimate", [adaptive_combine, espirit])
@pytest.mark.parametrize("size", [(64, 48), (63, 50)])
def test_sensitivities_are_found_from_the_center(estimate, size):
    true = coils(6, size)
    full = k_space_of_image(true * body(size)[0])
    mask = mr_sampling.random_lines(size, 3, center=0.3, seed=0)
    found = estimate(mask * full)
    inside = body(size)[0, 0].abs() > 0
    # Well inside the body; up to a phase that the coils share in each pixel.
    inner = torch.nn.functional.avg_pool2d(inside[None].float(), 7, 1, 3)[0] > 0.99
    agreement = (found.conj() * true).sum(dim=0).abs()[inner]
    assert float(agreement.min()) > 0.97
    assert float(agreement.mean()) > 0.998
    power = found.abs().square().sum(dim=0)
    assert torch.allclose(power[inner], torch.ones_like(power[inner]), atol=1e-4)
    # The combined image is the body's.
    combined = MrOperator(torch.ones(size), found).adjoint(full[None])[0, 0].abs()
    assert float((combined - body(size)[0, 0].abs())[inner].abs().max()) < 0.05


def test_espirit_knows_where_nothing_is():
    size = (96, 96)
    place = torch.linspace(-1, 1, 96)
    small = (body(size)[0] * ((place[:, None] ** 2 + place**2) < 0.2)).to(torch.complex64)
    found = espirit(k_space_of_image(coils(6, size) * small))
    power = found.abs().square().sum(dim=0)
    assert float(power[48, 48]) == pytest.approx(1, abs=1e-4)
    assert float(power[:8, :8].max()) == 0


def test_phases_of_sensitivities_are_smooth():
    full = k_space_of_image(coils(6) * body()[0])
    found = espirit(full)[0, 24:40, 16:32]
    steps = torch.angle(found[:, 1:] * found[:, :-1].conj()).abs()
    assert float(steps.max()) < 0.3


# ---- bad input


def test_bad_k_spaces_are_refused():
    operator = MrOperator(torch.ones(SIZE), coils())
    cases = {
        "is complex; this one holds torch.float32": torch.ones(4, *SIZE),
        "at least one coil; this one has": torch.ones(0, *SIZE, dtype=torch.complex64),
        "axes coil, row, column": torch.ones(SIZE, dtype=torch.complex64),
        "no numbers": torch.full((4, *SIZE), math.nan, dtype=torch.complex64),
        "zero in every sample": torch.zeros(4, *SIZE, dtype=torch.complex64),
    }
    for sentence, k_space in cases.items():
        with pytest.raises(InputError, match=sentence):
            check_k_space(k_space)
    with pytest.raises(InputError, match="has 3 coils and the sensitivities 4"):
        operator.adjoint(torch.ones(1, 3, *SIZE, dtype=torch.complex64))
    with pytest.raises(InputError, match="64 × 49 samples, not 64 × 48"):
        operator.adjoint(torch.ones(1, 4, 64, 49, dtype=torch.complex64))
    with pytest.raises(InputError, match=r"fits\."):
        operator(torch.ones(1, 4, *SIZE, dtype=torch.complex64))


def test_a_wrong_axis_order_is_noticed():
    k_space = k_space_of_image(coils() * body()[0])
    assert not axis_order_problem(k_space)
    assert "64 coils of 48 × 4" in axis_order_problem(k_space.permute(1, 2, 0))
    assert "fftshift" in axis_order_problem(torch.fft.ifftshift(k_space, (-2, -1)))


def test_real_k_space_has_coils_in_agreement(shared_data):
    k_space = torch.from_numpy(np.load(shared_data("mr_kspace/cartesian_ksp.npy")))
    assert not axis_order_problem(k_space)
    mask = mr_sampling.mask_of_k_space(k_space)
    assert calibration_size(mask) == (24, 24)
    first, second = espirit(k_space), adaptive_combine(k_space)
    inside = first.abs().square().sum(dim=0) > 0.5
    agreement = (first.conj() * second).sum(dim=0).abs()[inside]
    assert float(agreement.mean()) > 0.98
