"""Iterative reconstruction: every method arrives where mathematics says, and stops when told."""

import math

import numpy as np
import pytest
import torch
from ct_phantoms import DISCS, disc_image, disc_sinogram
from MedMapAILib.errors import Cancelled, InputError, RunError
from MedMapAILib.physics import counts, mr_sampling
from MedMapAILib.physics.center_of_rotation import center_of_rotation
from MedMapAILib.physics.coil_sensitivities import espirit
from MedMapAILib.physics.ct_geometry import FanBeam, ParallelBeam, every_nth, full_angles
from MedMapAILib.physics.ct_projector import CtProjector
from MedMapAILib.physics.filtered_backprojection import filtered_backprojection
from MedMapAILib.physics.flat_field import flat_field_corrected
from MedMapAILib.physics.fourier import k_space_of_image
from MedMapAILib.physics.linear_operator import LinearOperator
from MedMapAILib.physics.mr_operator import MrOperator
from MedMapAILib.reconstruction.compressed_sensing import shrunk, wavelet_compressed_sensing
from MedMapAILib.reconstruction.conjugate_gradient import cg_sense, cgls
from MedMapAILib.reconstruction.iteration import Stopping
from MedMapAILib.reconstruction.mlem import mlem
from MedMapAILib.reconstruction.ordered_subsets import ordered_subsets, spread_order
from MedMapAILib.reconstruction.plug_and_play import falling, plug_and_play
from MedMapAILib.reconstruction.sirt import sirt
from MedMapAILib.reconstruction.total_variation import (
    gradient,
    gradient_adjoint,
    total_variation,
    total_variation_of,
)
from MedMapAILib.reconstruction.wavelets import MOMENTS, WaveletTransform, daubechies
from test_mr_physics import body, coils


class Matrix(LinearOperator):
    """A dense matrix as an operator on images of some size."""

    def __init__(self, matrix, size):
        super().__init__()
        self.matrix, self.size = matrix, size

    def _apply_forward(self, image):
        return (image.flatten(1) @ self.matrix.T)[:, None, None]

    def _apply_adjoint(self, data):
        return (data.flatten(1) @ self.matrix.conj()).reshape(-1, 1, *self.size)


class Identity(LinearOperator):
    """Sees the image itself."""

    def _apply_forward(self, image):
        return image.clone()

    _apply_adjoint = _apply_forward


def random_problem(rows=40, size=(3, 4), seed=0, noise=0.3):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.rand(rows, size[0] * size[1], generator=generator, dtype=torch.float64)
    image = torch.rand(2, 1, *size, generator=generator, dtype=torch.float64)
    operator = Matrix(matrix, size)
    data = operator(image)
    return operator, data + noise * torch.rand(data.shape, generator=generator, dtype=torch.float64), image


def scan(views=40, photons=5e4, fan=False):
    discs = [(x * 0.6, y * 0.6, r * 0.6, value) for x, y, r, value in DISCS]
    if fan:
        geometry = FanBeam(
            full_angles(views, beam="fan"), 130, 1.5, 96, 1.0, source_to_center_mm=250, source_to_detector_mm=400
        )
    else:
        geometry = ParallelBeam(full_angles(views), 115, 0.9, 96, 1.0)
    sinogram = disc_sinogram(geometry, discs)
    if photons:
        sinogram = counts.noisy_line_integrals(sinogram, photons, seed=0)
    return CtProjector(geometry), sinogram, disc_image(96, 1.0, discs)


def psnr(found, true):
    return float(10 * torch.log10(true.abs().max() ** 2 / (found - true).abs().square().mean()))


LONG = Stopping(iterations=3000, tolerance=1e-9)


# ---- closed forms


@pytest.mark.parametrize("damping", [0.0, 2.0])
def test_cgls_solves_the_normal_equations(damping):
    operator, data, _ = random_problem()
    matrix = operator.matrix
    normal = matrix.T @ matrix + damping * torch.eye(12, dtype=torch.float64)
    true = torch.linalg.solve(normal, matrix.T @ data.flatten(1).T).T.reshape(2, 1, 3, 4)
    # As many steps as unknowns, and a few for rounding.
    result = cgls(operator, data, damping=damping, stopping=Stopping(iterations=20, tolerance=1e-12))
    assert torch.allclose(result.image, true, rtol=1e-5, atol=1e-6)
    assert result.stopped == "converged"


def test_cgls_never_grows_its_misfit():
    projector, sinogram, _ = scan()
    residuals = cgls(projector, sinogram, stopping=Stopping(iterations=40, tolerance=0)).residuals
    assert all(later <= earlier * (1 + 1e-5) for earlier, later in zip(residuals, residuals[1:], strict=False))


def test_sirt_arrives_at_the_weighted_least_squares():
    operator, data, _ = random_problem()
    matrix = operator.matrix
    rows = 1 / matrix.sum(dim=1)
    normal = matrix.T @ (rows[:, None] * matrix)
    true = torch.linalg.solve(normal, matrix.T @ (rows[:, None] * data.flatten(1).T)).T.reshape(2, 1, 3, 4)
    result = sirt(operator, data, nonnegative=False, relaxation=1.9, stopping=LONG)
    assert torch.allclose(result.image, true, atol=1e-4)


def test_mlem_arrives_at_a_likeliest_image():
    operator, data, image = random_problem(size=(2, 2), noise=0.0)
    exact = mlem(operator, data, stopping=Stopping(iterations=2000, tolerance=1e-9))
    assert torch.allclose(exact.image, image, atol=0.01)
    operator, data, _ = random_problem(size=(2, 2), noise=1.0)
    result = mlem(operator, data, stopping=Stopping(iterations=2000, tolerance=1e-10))
    # Kuhn and Tucker: the likelihood's slope is 0 where the image is above 0, and not above 0 elsewhere.
    slope = operator.adjoint(data / operator(result.image) - 1)
    assert float((slope * result.image).abs().max()) < 1e-4
    assert float(slope.max()) < 0.01
    sums = operator(mlem(operator, data, stopping=Stopping(3)).image).sum(dim=(1, 2, 3))
    assert torch.allclose(sums, data.sum(dim=(1, 2, 3)))


def test_total_variation_lowers_a_step_by_its_closed_form():
    # A step of height 1 between halves of 8 and 12 columns: each plateau moves by λ over its width.
    image = torch.zeros(1, 1, 10, 20, dtype=torch.float64)
    image[..., 8:] = 1
    weight = 0.4
    result = total_variation(Identity(), image, weight=weight, stopping=LONG)
    true = torch.where(image > 0.5, 1 - weight / 12, weight / 8).double()
    assert torch.allclose(result.image, true, atol=1e-4)


def test_total_variation_of_a_complex_image_and_each_item_its_own_weight():
    image = torch.zeros(2, 1, 10, 20, dtype=torch.complex128)
    image[0, ..., 8:] = 1j
    image[1, ..., 8:] = 50j
    found = total_variation(Identity(), image, weight=0.4, stopping=LONG).image
    assert torch.allclose(found[0] * 50, found[1], atol=1e-2)
    assert torch.allclose(found[0, 0, 0, 15], torch.tensor(1j * (1 - 0.4 / 12), dtype=torch.complex128), atol=1e-4)


def test_wavelets_shrink_to_their_closed_form():
    image = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    transform = WaveletTransform((32, 32), moments=2)
    limit = 0.05 * float(image.max()) * transform.details(image)
    true = transform.inverse(shrunk(transform(image), limit))
    found = wavelet_compressed_sensing(Identity(), image, weight=0.05, moments=2, stopping=LONG).image
    assert torch.allclose(found, true, atol=1e-5)


def test_subsets_arrive_at_the_image_that_fits():
    # Consistent data of more rays than pixels: only one image fits, with any number of subsets.
    geometry = ParallelBeam(full_angles(30), 24, 1.0, 16, 1.0)
    projector = CtProjector(geometry)
    image = disc_image(16, 1.0, [(x / 10, y / 10, r / 10, value) for x, y, r, value in DISCS])
    for subsets in (6, 30):
        stopping = Stopping(iterations=60, tolerance=1e-6)
        found = ordered_subsets(projector, projector(image), subsets=subsets, stopping=stopping)
        assert float((found.image - image).norm() / image.norm()) < 0.03 and found.residuals[-1] < 1e-3, subsets


def test_plug_and_play_with_a_linear_denoiser_has_a_closed_form():
    # The denoiser of a Gaussian prior |x|² / p²: z = x / (1 + (d / p)²). Splitting then ends at the least
    # |A x - y|² / t² + |x|² / (p² + d²), of which the answer is the denoised one.
    operator, data, _ = random_problem()
    prior, deviation, trust = 0.7, 0.3, 0.5
    gain = 1 / (1 + (deviation / prior) ** 2)
    found = plug_and_play(
        operator, data, lambda image, told: image * gain, deviations=[deviation] * 1500, trust=trust, stopping=LONG
    ).image
    matrix = operator.matrix
    normal = matrix.T @ matrix + trust**2 / (prior**2 + deviation**2) * torch.eye(12, dtype=matrix.dtype)
    expected = gain * torch.linalg.solve(normal, (data.flatten(1) @ matrix).T).T.reshape(found.shape)
    assert torch.allclose(found, expected, atol=1e-4)


def test_cg_sense_unfolds_what_coils_saw():
    mask = mr_sampling.equispaced_lines((64, 48), 2, center=0.1, offset=0)
    operator = MrOperator(mask, coils(6))
    k_space = operator(body())
    found = cg_sense(operator, k_space, damping=0.0, stopping=Stopping(100, tolerance=1e-7)).image
    assert psnr(found, body()) > 50 > 30 > psnr(operator.adjoint(k_space), body())


# ---- wavelets and gradients


def test_the_filters_are_daubechies():
    assert daubechies(1) == pytest.approx([math.sqrt(0.5)] * 2)
    root = math.sqrt(3)
    true = [(1 + root) / 4, (3 + root) / 4, (3 - root) / 4, (1 - root) / 4]
    assert daubechies(2) == pytest.approx(np.array(true) / math.sqrt(2))
    for moments in MOMENTS:
        taps = np.array(daubechies(moments))
        assert len(taps) == 2 * moments and taps.sum() == pytest.approx(math.sqrt(2))
        for shift in range(moments):
            product = taps[2 * shift :] @ taps[: len(taps) - 2 * shift]
            assert product == pytest.approx(1.0 if shift == 0 else 0.0, abs=1e-7)
        signs = (-1.0) ** np.arange(len(taps))
        for power in range(moments):
            assert (signs * taps * np.arange(len(taps)) ** power).sum() == pytest.approx(0, abs=1e-3 * 8.0**power)


@pytest.mark.parametrize("size", [(64, 64), (70, 51), (230, 180)])
@pytest.mark.parametrize("moments", [1, 4])
def test_the_wavelet_transform_is_orthogonal(size, moments):
    transform = WaveletTransform(size, moments=moments)
    image = torch.randn(2, 1, *size, dtype=torch.complex128)
    coefficients = transform(image)
    assert torch.allclose(transform.inverse(coefficients), image)
    assert float(coefficients.norm()) == pytest.approx(float(image.norm()))
    other = torch.randn_like(coefficients)
    assert torch.allclose(torch.vdot(coefficients.flatten(), other.flatten()),
                          torch.vdot(image.flatten(), transform.inverse(other).flatten()))  # fmt: skip
    # An even image has no details.
    if transform.padded == size:
        details = transform(torch.ones(1, 1, *size, dtype=torch.float64)) * transform.details(image)
        assert float(details.abs().max()) < 1e-6


def test_the_gradient_has_its_adjoint():
    image, field = torch.randn(2, 1, 7, 9), torch.randn(2, 2, 1, 7, 9)
    assert torch.allclose((gradient(image) * field).sum(), (image * gradient_adjoint(field)).sum(), atol=1e-4)
    square = torch.zeros(1, 1, 9, 9)
    square[..., 3:6, 2:7] = 2
    # Two corners of the sixteen differences lie in one pixel.
    assert float(total_variation_of(square)) == pytest.approx(2 * (16 - 2 + math.sqrt(2)), rel=1e-5)


def test_subsets_are_spread():
    for count in (1, 2, 7, 10, 60):
        order = spread_order(count)
        assert sorted(order) == list(range(count))
    assert min(abs(a - b) for a, b in zip(spread_order(60), spread_order(60)[1:], strict=False)) > 15


# ---- CT


@pytest.mark.parametrize("fan", [False, True])
def test_methods_beat_filtered_backprojection_on_few_noisy_views(fan):
    projector, sinogram, true = scan(32, 2e4, fan)
    found = {
        "fbp": filtered_backprojection(projector, sinogram, filter_name="hann"),
        "sirt": sirt(projector, sinogram, stopping=Stopping(60)).image,
        "subsets": ordered_subsets(projector, sinogram, subsets=8, stopping=Stopping(8)).image,
        "cgls": cgls(projector, sinogram, stopping=Stopping(10)).image,
        "mlem": mlem(projector, sinogram, stopping=Stopping(50)).image,
        "tv": total_variation(projector, sinogram, weight=3e-3, nonnegative=True, stopping=Stopping(100)).image,
    }
    quality = {name: psnr(image, true) for name, image in found.items()}
    assert all(quality[name] > quality["fbp"] + 1 for name in ("sirt", "subsets", "mlem")), quality
    assert quality["cgls"] > quality["fbp"] - 1, quality
    assert quality["tv"] > max(quality["sirt"], quality["fbp"]) + 3, quality


def test_subsets_are_faster_than_all_at_once():
    projector, sinogram, true = scan(60, None)
    slow = sirt(projector, sinogram, stopping=Stopping(10, tolerance=0)).image
    fast = ordered_subsets(projector, sinogram, subsets=10, stopping=Stopping(10, tolerance=0)).image
    assert psnr(fast, true) > psnr(slow, true) + 3


def test_plug_and_play_with_a_median_takes_streaks_away():
    # A median is a denoiser that no gradient stands behind.
    from scipy import ndimage

    projector, sinogram, true = scan(30, 2e4)

    def median(image, deviation):
        return torch.from_numpy(ndimage.median_filter(image.numpy(), size=(1, 1, 3, 3)))

    result = plug_and_play(projector, sinogram, median, deviations=falling(3e-3, 5e-4, 12), trust=0.02)
    assert result.iterations == 12
    assert psnr(result.image, true) > psnr(filtered_backprojection(projector, sinogram, filter_name="hann"), true) + 2
    assert falling(1.0, 0.01, 3) == pytest.approx([1, 0.1, 0.01])


def test_a_batch_gives_what_its_items_give():
    projector, sinogram, _ = scan(20)
    both = torch.cat([sinogram, 3 * sinogram.flip(-1)])
    stopping = Stopping(5, tolerance=0)
    for method in (sirt, cgls, mlem, ordered_subsets, total_variation):
        together = method(projector, both, stopping=stopping).image
        for index in range(2):
            alone = method(projector, both[index : index + 1], stopping=stopping).image
            assert torch.allclose(together[index], alone[0], rtol=2e-2, atol=2e-4), method.__name__


# ---- MR


def test_compressed_sensing_beats_zero_filling():
    size = (96, 80)
    mask = mr_sampling.poisson_disc(size, 5, center=0.15, seed=0)
    operator = MrOperator(mask, coils(4, size))
    true = body(size)
    noise = 0.005 * torch.randn(1, 4, *size, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    k_space = operator.mask * (operator(true) + noise)
    quality = {
        "zero-filled": psnr(operator.adjoint(k_space), true),
        "sense": psnr(cg_sense(operator, k_space, damping=1e-2).image, true),
        "wavelets": psnr(wavelet_compressed_sensing(operator, k_space, weight=2e-3, norm=1.0).image, true),
        "tv": psnr(total_variation(operator, k_space, weight=2e-3, norm=1.0).image, true),
    }
    assert quality["sense"] > quality["zero-filled"] + 3, quality
    assert min(quality["wavelets"], quality["tv"]) > quality["zero-filled"] + 6, quality


# ---- stopping


def test_iterations_stop_when_told_and_say_why():
    projector, sinogram, _ = scan(20, 1e4)
    noise = float((sinogram - scan(20, None)[1]).norm() / sinogram.norm())
    fitted = sirt(projector, sinogram, stopping=Stopping(500, discrepancy=1.5 * noise))
    assert fitted.stopped == "fitted to the noise" and fitted.iterations < 500
    assert fitted.residuals[-1] <= 1.5 * noise < fitted.residuals[-2]
    assert sirt(projector, sinogram, stopping=Stopping(3)).stopped == "out of iterations"
    assert sirt(projector, sinogram, stopping=Stopping(500, tolerance=0.05)).stopped == "converged"
    seen = []
    cgls(projector, sinogram, stopping=Stopping(4, tolerance=0, progress=lambda *values: seen.append(values)))
    assert [number for number, _ in seen] == [1, 2, 3, 4]

    def stop(number, residual):
        raise Cancelled

    with pytest.raises(Cancelled):
        sirt(projector, sinogram, stopping=Stopping(progress=stop))


def test_nothing_measured_is_nothing_there():
    projector = scan(12)[0]
    empty = torch.zeros(1, 1, *projector.geometry.sinogram_size)
    for method in (sirt, ordered_subsets, cgls, mlem, total_variation):
        found = method(projector, empty, stopping=Stopping(3)).image
        assert float(found.abs().max()) == 0, method.__name__


def test_mistakes_are_told():
    projector, sinogram, _ = scan(12)
    cases = {
        "relaxation lies between 0 and 2; it is 3": lambda: sirt(projector, sinogram, relaxation=3),
        "13 subsets of 12 views": lambda: ordered_subsets(projector, sinogram, subsets=13),
        "at least one iteration, not 0": lambda: Stopping(0),
        "weight of the total variation is -1": lambda: total_variation(projector, sinogram, weight=-1),
        "no numbers": lambda: cgls(projector, sinogram * math.nan),
        "12 angles": lambda: sirt(projector, sinogram[:, :, 1:]),
        "1 to 8 vanishing moments, not 9": lambda: daubechies(9),
    }
    for sentence, call in cases.items():
        with pytest.raises(InputError, match=sentence):
            call()
    with pytest.raises(RunError, match="diverged in iteration"):
        total_variation(projector, sinogram, norm=1.0, stopping=Stopping(500, tolerance=0))


# ---- real data


def test_a_real_tooth(shared_data):
    h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")
    with h5py.File(shared_data("xray_ct/tooth.h5")) as file:
        exchange = file["exchange"]
        raw, flat, dark = (torch.from_numpy(exchange[name][:]) for name in ("data", "data_white", "data_dark"))
        theta = np.radians(exchange["theta"][:])
    lines = flat_field_corrected(raw.float(), flat.float(), dark.float())[:, 0]
    geometry = ParallelBeam(theta, lines.shape[-1], 1.0, 640, 1.0)
    offset = center_of_rotation(lines, geometry)
    # TomoPy's own tutorial finds the center of these data at detector 296 or so.
    assert (640 - 1) / 2 - offset == pytest.approx(296, abs=1.5)
    geometry = ParallelBeam(theta, 640, 1.0, 640, 1.0, offset)
    image = filtered_backprojection(CtProjector(geometry), lines[None, None])[0, 0]
    sixth = every_nth(geometry, 6)
    few = filtered_backprojection(CtProjector(sixth), lines[None, None, ::6])[0, 0]
    y, x = torch.meshgrid(torch.arange(640) - 319.5, torch.arange(640) - 319.5, indexing="ij")
    air = ((x.square() + y.square()).sqrt() > 290) & ((x.square() + y.square()).sqrt() < 310)
    assert image[300:340, 300:340].mean() > 10 * image[air].mean().abs()
    assert few[air].std() > 1.5 * image[air].std()


def test_real_k_space_is_less_noisy_than_zero_filled(shared_data):
    k_space = torch.from_numpy(np.load(shared_data("mr_kspace/cartesian_ksp.npy")))[None]
    k_space = k_space / k_space.abs().max()
    operator = MrOperator(mr_sampling.mask_of_k_space(k_space), espirit(k_space[0]))
    zero = operator.adjoint(k_space)
    result = wavelet_compressed_sensing(operator, k_space, norm=1.0, stopping=Stopping(12))
    assert result.residuals[-1] < 0.15
    # What it made of the samples that were not taken is not nothing.
    missing = ~operator.mask * k_space_of_image(operator.sensitivities * result.image)
    assert float(missing.norm()) > 0.05 * float(k_space.norm())
    assert not torch.allclose(result.image, zero, atol=1e-3)
