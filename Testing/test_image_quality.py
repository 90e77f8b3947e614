"""PSNR, SSIM, MS-SSIM and NRMSE against scikit-image, MONAI, torchmetrics and closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.metrics import image_quality as iq
from monai.metrics.regression import MultiScaleSSIMMetric
from skimage import data, metrics
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

WINDOW = (-160.0, 240.0)


@pytest.fixture(scope="module")
def slices():
    """A photograph as HU from −1000 to 1000, and a noisy copy: both (180, 190)."""
    truth = data.camera()[100:280, 120:310].astype(np.float64) / 255 * 2000 - 1000
    return truth, truth + np.random.default_rng(0).normal(0, 60, truth.shape)


@pytest.fixture(scope="module")
def volumes():
    random = np.random.default_rng(1)
    truth = random.uniform(0, 1, (20, 18, 16)).cumsum(0) * 10
    return truth, truth + random.normal(0, 4, truth.shape)


@pytest.mark.parametrize("kind", ["slices", "volumes"])
def test_it_agrees_with_scikit_image(kind, request):
    truth, image = request.getfixturevalue(kind)
    span = float(np.ptp(truth))
    found = iq.image_quality(truth, image)
    assert found.data_range == span
    assert found.psnr == pytest.approx(metrics.peak_signal_noise_ratio(truth, image, data_range=span), abs=1e-6)
    assert found.ssim == pytest.approx(metrics.structural_similarity(truth, image, data_range=span), abs=1e-6)
    for ours in ("euclidean", "min-max", "mean"):
        theirs = metrics.normalized_root_mse(truth, image, normalization=ours)
        assert iq.nrmse(truth, image, normalization=ours) == pytest.approx(theirs, abs=1e-6)
    gaussian = metrics.structural_similarity(
        truth, image, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert iq.ssim(truth, image, ssim_window="gaussian") == pytest.approx(gaussian, abs=1e-6)


def test_a_window_is_what_a_reader_sees(slices):
    truth, image = slices
    seen, shown = (np.clip(values, *WINDOW) + 160 for values in slices)
    found = iq.image_quality(truth, image, window=WINDOW)
    assert (found.data_range, found.window) == (400, WINDOW)
    assert found.psnr == pytest.approx(metrics.peak_signal_noise_ratio(seen, shown, data_range=400), abs=1e-6)
    assert found.ssim == pytest.approx(metrics.structural_similarity(seen, shown, data_range=400), abs=1e-6)
    # What lies outside the window cannot be seen: the same picture.
    assert iq.psnr(np.where(truth > 240, 3000, truth), image, window=WINDOW) == pytest.approx(found.psnr, abs=1e-9)
    # HU or the scanner's stored values (HU + 1024): the same numbers, and so for another unit.
    assert iq.ssim(truth + 1024, image + 1024, window=(864, 1264)) == pytest.approx(found.ssim, abs=1e-9)
    assert iq.ms_ssim(truth / 10, image / 10, window=(-16, 24)) == pytest.approx(found.ms_ssim, abs=1e-9)


def test_a_known_error_in_closed_form():
    truth = np.tile(np.linspace(0, 100, 51), (40, 1))
    # Every voxel is 10 off in a range of 100: 20 dB.
    assert iq.psnr(truth, truth + 10) == pytest.approx(20, abs=1e-12)
    assert iq.nrmse(truth, truth + 10, normalization="min-max") == pytest.approx(0.1, abs=1e-12)
    assert iq.nrmse(truth, truth + 10, data_range=1000, normalization="data-range") == pytest.approx(0.01, abs=1e-12)
    assert iq.psnr(truth, truth + 10, data_range=1000) == pytest.approx(40, abs=1e-12)
    # Constant images: the contrast term is 1, and the luminance term is what the paper writes.
    one, other, c1 = 100.0, 60.0, (0.01 * 255) ** 2
    luminance = (2 * one * other + c1) / (one**2 + other**2 + c1)
    flat = np.full((180, 180), one), np.full((180, 180), other)
    assert iq.ssim(*flat, data_range=255) == pytest.approx(luminance, abs=1e-9)
    assert iq.ms_ssim(*flat, data_range=255) == pytest.approx(luminance ** iq.SCALES[-1], abs=1e-9)


def test_equal_images(slices):
    truth, _ = slices
    found = iq.image_quality(truth, truth)
    assert (found.psnr, found.nrmse, found.rmse) == (math.inf, 0, 0)
    assert (found.ssim, found.ms_ssim) == (pytest.approx(1), pytest.approx(1))
    stored = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert stored["psnr"] is None and "equal" in stored["notes"][0] and stored["data_range"] == np.ptp(truth)


def test_ms_ssim_agrees_with_monai(slices):
    tensors = [torch.as_tensor(values / 2000 + 0.5)[None, None].float() for values in slices]
    theirs = float(MultiScaleSSIMMetric(spatial_dims=2, data_range=1.0)(tensors[1], tensors[0]))
    ours = iq.ms_ssim(slices[0] / 2000 + 0.5, slices[1] / 2000 + 0.5, data_range=1)
    # MONAI computes in float32.
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_ms_ssim_of_a_volume_agrees_with_monai():
    random = np.random.default_rng(2)
    truth = random.uniform(0, 1, (46, 44, 45))
    image = truth + random.normal(0, 0.2, truth.shape)
    tensors = [torch.as_tensor(values)[None, None].float() for values in (image, truth)]
    theirs = float(MultiScaleSSIMMetric(spatial_dims=3, data_range=1.0, weights=(0.3, 0.7))(*tensors))
    assert iq.ms_ssim(truth, image, data_range=1, scales=(0.3, 0.7)) == pytest.approx(theirs, abs=1e-5)


def test_ms_ssim_agrees_with_torchmetrics(slices):
    tensors = [torch.as_tensor(values / 2000 + 0.5)[None, None] for values in slices]

    def theirs(scales):
        return float(multiscale_structural_similarity_index_measure(*tensors, data_range=1.0, betas=scales))

    def ours(scales):
        return iq.ms_ssim(*(values / 2000 + 0.5 for values in slices), data_range=1, scales=scales)

    # torchmetrics counts windows over the border, mirrored there, at the coarsest scale alone; without it they agree.
    without = (0.0448, 0.2856, 0.3001, 0.2363, 0.0)
    assert ours(without) == pytest.approx(theirs(without), abs=1e-6)
    assert ours(iq.SCALES) == pytest.approx(theirs(iq.SCALES), abs=5e-3)


def test_a_region(slices):
    truth, image = slices
    mask = np.zeros(truth.shape, dtype=bool)
    mask[50:120, 60:140] = True
    # A rectangle is an image of its own for what looks at one voxel at a time ...
    cut = truth[50:120, 60:140], image[50:120, 60:140]
    found = iq.image_quality(truth, image, mask=mask)
    assert found.psnr == pytest.approx(metrics.peak_signal_noise_ratio(*cut, data_range=np.ptp(truth)), abs=1e-9)
    assert found.nrmse == pytest.approx(metrics.normalized_root_mse(*cut), abs=1e-9)
    assert (found.region, found.voxels) == (True, 70 * 80)
    # ... and, for windows, the image three voxels larger on each side, whose windows stay inside.
    larger = truth[47:123, 57:143], image[47:123, 57:143]
    theirs = metrics.structural_similarity(*larger, data_range=np.ptp(truth))
    assert found.ssim == pytest.approx(theirs, abs=1e-9)
    # What happens elsewhere does not count; what happens inside does.
    spoiled = image.copy()
    spoiled[:30] += 500
    assert iq.image_quality(truth, spoiled, mask=mask).psnr == pytest.approx(found.psnr, abs=1e-12)
    assert iq.ssim(truth, spoiled, mask=mask) == pytest.approx(found.ssim, abs=1e-9)
    assert iq.ms_ssim(truth, image, mask=np.ones(truth.shape, bool)) == pytest.approx(iq.ms_ssim(truth, image))
    assert iq.ms_ssim(truth, np.where(mask, truth, image), mask=mask) > iq.ms_ssim(truth, image, mask=mask)


def test_a_volume_slice_by_slice(volumes):
    truth, image = volumes
    span = float(np.ptp(truth))
    each = [metrics.structural_similarity(truth[..., k], image[..., k], data_range=span) for k in range(16)]
    assert iq.ssim(truth, image, slices=2) == pytest.approx(np.mean(each), abs=1e-9)
    mask = np.zeros(truth.shape, dtype=bool)
    mask[5:15, 5:15, 7] = True
    assert iq.ssim(truth, image, mask=mask, slices=-1) == pytest.approx(
        iq.ssim(truth[..., 7], image[..., 7], mask=mask[..., 7], data_range=span), abs=1e-12
    )


def test_what_is_not_defined_has_a_note(volumes):
    found = iq.image_quality(*volumes)
    assert found.ms_ssim is None and "176 voxels a side" in found.notes[0]
    air = np.zeros((20, 20))
    found = iq.image_quality(air, air + 1, data_range=100)
    assert found.psnr == pytest.approx(40) and found.nrmse is None
    assert any("NRMSE" in note for note in found.notes)
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image": np.zeros((5, 6))}, "one grid"),
        ({"image": np.full((9, 9), np.nan)}, "81 values that are not finite"),
        ({"reference": np.zeros((9, 9))}, "0 everywhere"),
        ({"mask": np.zeros((9, 9))}, "region is empty"),
        ({"mask": np.ones((9, 8))}, "one grid"),
        ({"window": (40, 40)}, "display window from 40 to 40"),
        ({"window": (0, 1), "data_range": 1}, "one of the two"),
        ({"data_range": -1}, "data range of -1"),
        ({"normalization": "max"}, "no normalization 'max'"),
        ({"reference": np.zeros(9), "image": np.zeros(9)}, "cannot be compared"),
    ],
)
def test_mistakes_are_one_sentence(change, sentence):
    call = {"reference": np.arange(81.0).reshape(9, 9), "image": np.ones((9, 9)), **change}
    with pytest.raises(InputError, match=sentence) as caught:
        iq.image_quality(call.pop("reference"), call.pop("image"), **call)
    assert "\n" not in str(caught.value) and str(caught.value).count(". ") == 0
