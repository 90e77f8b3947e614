"""The noise power spectrum of noise whose spectrum is known in closed form."""

from __future__ import annotations

import json

import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.metrics.noise_power import noise_power_spectrum, uniform_squares
from scipy import ndimage, signal
from skimage import transform


def white(count: int = 200, side: int = 64, sigma: float = 12.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(40, sigma, (count, side, side))


def test_white_noise_is_flat():
    found = noise_power_spectrum(white(), (0.5, 0.7))
    # σ² a b
    expected = 12**2 * 0.5 * 0.7
    assert np.median(found.spectrum) == pytest.approx(expected, rel=0.01)
    assert found.radial[2:] == pytest.approx(np.full(len(found.radial) - 2, expected), rel=0.05)
    assert found.radial_frequency[-1] <= 1 / (2 * 0.7) + 1e-9
    assert found.squares == 200 and found.variance == pytest.approx(144, rel=0.01)


@pytest.mark.parametrize("trend", ["mean", "plane", "quadratic"])
@pytest.mark.parametrize("sides", [(32, 32), (33, 48)])
def test_parseval(trend, sides):
    noise = np.random.default_rng(1).normal(0, 5, (7, *sides)) + np.linspace(0, 30, sides[1])
    found = noise_power_spectrum(noise, (0.8, 1.1), trend=trend)
    cell = (found.frequencies[0][1] - found.frequencies[0][0]) * (found.frequencies[1][1] - found.frequencies[1][0])
    assert found.spectrum.sum() * cell == pytest.approx(found.variance, rel=1e-12)
    # Whatever remains of the squares has the mean 0: no power at the frequency 0.
    assert found.spectrum[sides[0] // 2, sides[1] // 2] == pytest.approx(0, abs=1e-20)


def test_filtered_noise_has_the_spectrum_of_its_filter():
    # A Gaussian blur of σ mm: |H(f)|² = exp(−4 π² σ² f²).
    spacing, blur = 0.7, 0.9
    noise = np.random.default_rng(2).normal(0, 20, (250, 96, 96))
    smooth = ndimage.gaussian_filter(noise, (0, blur / spacing, blur / spacing))[:, 16:80, 16:80]
    found = noise_power_spectrum(smooth, (spacing, spacing), trend="mean")
    expected = np.exp(-4 * np.pi**2 * blur**2 * found.radial_frequency**2) * 400 * spacing**2
    strong = expected > 0.05 * expected[0]
    strong[0] = False
    assert found.radial[strong] == pytest.approx(expected[strong], rel=0.1)
    assert found.mean_frequency < noise_power_spectrum(noise, (spacing, spacing)).mean_frequency / 2


def test_a_band_of_noise_peaks_where_it_is():
    # Noise through (1, 0, −1) along one axis: |H|² = 4 sin²(2π f a), which peaks at a quarter of the sampling rate.
    found = noise_power_spectrum(white()[:, :, 2:] - white()[:, :, :-2], (1.0, 1.0))
    along = found.spectrum[:, :].mean(axis=0)
    expected = 4 * 144 * np.sin(2 * np.pi * found.frequencies[1]) ** 2
    assert along[5:-5] == pytest.approx(expected[5:-5], abs=0.04 * expected.max())
    assert abs(found.frequencies[1][np.argmax(along)]) == pytest.approx(0.25, abs=0.03)
    assert 0.1 < found.peak_frequency < 0.5


def test_filtered_back_projection_has_the_noise_of_a_ramp():
    # White noise of σ in M projections of detector spacing 1: NPS(f) = π σ² f / M (Riederer, Pelc, Chesler, Phys. Med.
    # Biol. 23, 1978), as far as the interpolation between detector elements does not count.
    random = np.random.default_rng(3)
    shown = [
        transform.iradon(random.normal(0, 10, (128, 180)), np.arange(180), interpolation="cubic", circle=True)
        for _ in range(6)
    ]
    inside = np.hypot(*np.mgrid[-64:64, -64:64]) < 60
    squares = np.concatenate([uniform_squares(image, inside, 40) for image in shown])
    found = noise_power_spectrum(squares, (1, 1))
    band = (found.radial_frequency > 0.09) & (found.radial_frequency < 0.26)
    assert found.radial[band] == pytest.approx(np.pi * 100 * found.radial_frequency[band] / 180, rel=0.15)
    assert found.peak_frequency > 0.25


def test_it_agrees_with_scipy_along_one_axis():
    noise = white(50, 40)
    # Of squares that do not vary along the first axis, the row at the frequency 0 is scipy's spectral density of a
    # line, times the length of the square.
    lines = np.repeat(noise[:, :1], 40, axis=1)
    found = noise_power_spectrum(lines, (1.0, 0.4), trend="mean")
    frequency, theirs = signal.periodogram(lines[:, 0], fs=1 / 0.4, detrend="constant", return_onesided=False)
    order = np.argsort(frequency)
    assert found.frequencies[1] == pytest.approx(frequency[order])
    assert found.spectrum[20] == pytest.approx(40 * theirs.mean(axis=0)[order], rel=1e-9, abs=1e-9)


def test_a_trend_is_no_noise():
    a, b = np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij")
    cupping = 0.02 * (a - 15) ** 2 + 0.01 * a * b + 3 * b + 40
    assert noise_power_spectrum(cupping, (1, 1), trend="quadratic").variance == pytest.approx(0, abs=1e-20)
    assert noise_power_spectrum(3 * a - b, (1, 1), trend="plane").variance == pytest.approx(0, abs=1e-20)
    assert noise_power_spectrum(cupping, (1, 1), trend="mean").variance > 500
    assert noise_power_spectrum(3 * a, (1, 1)).mean_frequency >= 0


def test_squares_of_a_region():
    volume = np.arange(40 * 50 * 3, dtype=float).reshape(40, 50, 3)
    mask = np.zeros(volume.shape, dtype=bool)
    mask[4:20, 7:31, 1] = True
    squares = uniform_squares(volume, mask, 16)
    # One across, and 8 pixels on, a second one.
    assert squares.shape == (2, 16, 16)
    assert np.array_equal(squares[0], volume[4:20, 7:23, 1]) and np.array_equal(squares[1], volume[4:20, 15:31, 1])
    assert len(uniform_squares(volume, mask, 16, overlap=0)) == 1
    mask[4, 7, 1] = False
    assert len(uniform_squares(volume, mask, 16)) == 1


def test_two_scans_cancel_their_object():
    random = np.random.default_rng(4)
    thing = 100 * random.normal(size=(96, 96)).cumsum(0)
    first, second = (thing + random.normal(0, 9, thing.shape) for _ in range(2))
    squares = uniform_squares(first, np.ones(thing.shape), 32, of=second)
    assert noise_power_spectrum(squares, (1, 1), trend="mean").variance == pytest.approx(81, rel=0.05)


def test_it_can_be_stored():
    stored = json.loads(json.dumps(noise_power_spectrum(white(3, 32), (0.5, 0.5)).as_dict(), allow_nan=False))
    assert len(stored["frequency_per_mm"]) == len(stored["noise_power_hu2_mm2"]) == 16
    json.dumps(noise_power_spectrum(np.zeros((16, 16)), (1, 1)).as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: noise_power_spectrum(np.zeros((4, 4)), (1, 1)), "8 pixels a side"),
        (lambda: noise_power_spectrum(np.full((9, 9), np.inf), (1, 1)), "81 values that are not finite"),
        (lambda: noise_power_spectrum(np.zeros((9, 9)), (1, 0)), "two numbers above 0"),
        (lambda: noise_power_spectrum(np.zeros((9, 9)), (1, 1), trend="cubic"), "no trend 'cubic'"),
        (lambda: uniform_squares(np.zeros((9, 9)), np.zeros((9, 9)), 8), "No square of 8×8"),
        (lambda: uniform_squares(np.zeros((9, 9)), np.ones((9, 8)), 8), "one grid"),
    ],
)
def test_mistakes_are_one_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
