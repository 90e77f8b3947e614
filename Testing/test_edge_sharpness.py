"""The modulation transfer function of edges whose transfer is known in closed form."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.metrics.edge_sharpness import modulation_transfer, slanted_edge
from scipy import ndimage
from scipy.special import erf


def blurred_edge(shape, spacing, angle, sigma, contrast=200.0) -> np.ndarray:
    """Values at the centers of the pixels of an edge blurred by a Gaussian of sigma mm: exact."""
    a = (np.arange(shape[0]) + 0.5 - shape[0] / 2) * spacing[0]
    b = (np.arange(shape[1]) + 0.5 - shape[1] / 2) * spacing[1]
    distance = b[None, :] * math.cos(math.radians(angle)) - a[:, None] * math.sin(math.radians(angle))
    return contrast / 2 * (1 + erf(distance / sigma / math.sqrt(2))) - 30


@pytest.mark.parametrize("angle", [3, 5, -7, 12, 35])
@pytest.mark.parametrize("sigma", [0.6, 1.0])
def test_a_gaussian_blur(sigma, angle):
    found = modulation_transfer(blurred_edge((80, 72), (0.7, 0.7), angle, sigma), (0.7, 0.7))
    expected = np.exp(-2 * np.pi**2 * sigma**2 * found.frequency**2)
    assert found.transfer == pytest.approx(expected, abs=0.01)
    assert found.transfer[0] == pytest.approx(1)
    # 50 % at √(ln 2 / 2) / (π σ), 10 % at √(ln 10 / 2) / (π σ).
    assert found.frequency_at(0.5) == pytest.approx(math.sqrt(math.log(2) / 2) / (math.pi * sigma), rel=0.01)
    if sigma > 0.6:
        assert found.frequency_at(0.1) == pytest.approx(math.sqrt(math.log(10) / 2) / (math.pi * sigma), rel=0.02)
    assert found.angle == pytest.approx(abs(angle), abs=0.1)
    assert found.contrast == pytest.approx(200, rel=0.01)


def test_a_sharp_edge_has_the_transfer_of_its_pixels():
    # Means over a square pixel, seen across an edge of 5 degrees: sinc(f a cos 5°) sinc(f a sin 5°).
    found = modulation_transfer(slanted_edge((96, 64), (0.5, 0.5), subsamples=32), (0.5, 0.5))
    turn = math.radians(5)
    expected = np.sinc(found.frequency * 0.5 * math.cos(turn)) * np.sinc(found.frequency * 0.5 * math.sin(turn))
    assert found.transfer == pytest.approx(expected, abs=0.015)
    # Up to the Nyquist frequency nothing falls to 10 %.
    assert found.frequency_at(0.1) is None and found.as_dict()["mtf10_per_mm"] is None
    # The pixels' own spacing, seen across the slanted edge.
    assert found.frequency[-1] == pytest.approx(1.0 / math.cos(turn), rel=0.02)


def test_it_does_not_matter_which_way_the_edge_runs():
    image = blurred_edge((80, 80), (0.7, 0.7), 5, 0.9)
    first = modulation_transfer(image, (0.7, 0.7))
    for other in (image.T, image[::-1], image[:, ::-1], image[::-1].T, 170 - image):
        found = modulation_transfer(other, (0.7, 0.7))
        assert found.frequency_at(0.5) == pytest.approx(first.frequency_at(0.5), rel=1e-3)
        assert found.profile[-1] > found.profile[0]


def test_pixels_need_not_be_square():
    image = blurred_edge((60, 100), (1.0, 0.5), 6, 0.8)
    found = modulation_transfer(image, (1.0, 0.5))
    assert found.frequency_at(0.5) == pytest.approx(0.18739 / 0.8, rel=0.01)
    assert modulation_transfer(image.T, (0.5, 1.0)).frequency_at(0.5) == pytest.approx(0.18739 / 0.8, rel=0.01)


def test_noise_does_little_harm():
    image = blurred_edge((96, 80), (0.7, 0.7), 5, 0.9)
    for seed in range(5):
        noisy = image + np.random.default_rng(seed).normal(0, 10, image.shape)
        assert modulation_transfer(noisy, (0.7, 0.7)).frequency_at(0.5) == pytest.approx(0.18739 / 0.9, rel=0.1)


def test_smoothing_is_seen():
    edge = slanted_edge((96, 96), (0.7, 0.7), angle=4, dark=-100, bright=60)
    before = modulation_transfer(edge, (0.7, 0.7))
    after = modulation_transfer(ndimage.gaussian_filter(edge, 1.5, mode="nearest"), (0.7, 0.7))
    # The blur multiplies the transfer.
    expected = before.transfer * np.exp(-2 * np.pi**2 * (1.5 * 0.7) ** 2 * before.frequency**2)
    assert after.transfer == pytest.approx(expected, abs=0.02)
    assert before.contrast == pytest.approx(160, rel=0.01)


def test_it_can_be_stored():
    found = modulation_transfer(blurred_edge((64, 64), (1, 1), 5, 1.2), (1, 1))
    stored = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert stored["mtf50_per_mm"] == pytest.approx(0.18739 / 1.2, rel=0.01)
    assert len(stored["frequency_per_mm"]) == len(stored["transfer"])


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.full((32, 32), 7.0), "7 everywhere"),
        (np.full((32, 32), np.nan), "1024 values that are not finite"),
        (np.zeros((32, 8)), "too small for an edge"),
        (blurred_edge((64, 64), (1, 1), 0, 1.0), "along the pixel grid"),
        (blurred_edge((24, 64), (1, 1), 45, 1.0), "enough different places"),
        (blurred_edge((64, 64), (1, 1), 10, 1.0)[:, 24:], "through its side"),
        (-np.hypot(*np.mgrid[-32:32, 0:64]), "edge"),
        (np.random.default_rng(0).normal(size=(64, 64)), "edge"),
    ],
)
def test_mistakes_are_one_sentence(image, sentence):
    with pytest.raises(InputError, match=sentence):
        modulation_transfer(image, (1, 1))
