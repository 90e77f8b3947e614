"""Noise and sharpness of a CT, measured and imitated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

#: Difference of second differences in both directions: blind to slopes and straight edges (Immerkær, Computer Vision
#: and Image Understanding 64(2), 1996). White noise of deviation 1 gives 6.
_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
_GAIN = 6.0
#: Side of the squares that a noise power spectrum is measured in, pixels.
SQUARE = 24
#: From lung to tissue, HU: what the edges that sharpness is measured at go across.
_CONTRAST = 890.0


def rough(voxels: np.ndarray) -> np.ndarray:
    """Voxels (I, J, K) seen through the kernel above, slice by slice."""
    return ndimage.convolve(np.asarray(voxels, np.float32), _KERNEL[:, :, None], mode="nearest")


def robust_noise(voxels: np.ndarray, where: np.ndarray) -> float:
    """Standard deviation of white noise in the voxels (I, J, K) at ``where`` (bool), from the median of absolute
    differences, which few edges do not move."""
    values = rough(voxels)[where]
    return float(np.median(np.abs(values)) / 0.6745 / _GAIN) if values.size else 0.0


def denoised(voxels: np.ndarray, noise: float) -> np.ndarray:
    """Voxels (I, J, K) smoothed slice by slice, in the flat parts and along edges, but not across these.

    Non-local means (Buades, Coll, Morel, CVPR 2005; scikit-image). noise: standard deviation of the white part, HU;
    that of CT is correlated, so that all of it is more.
    """
    from skimage.restoration import denoise_nl_means

    values = np.asarray(voxels, np.float32)
    sigma = 1.4 * noise
    if sigma < 1:
        return values
    options = {"patch_size": 3, "patch_distance": 5, "h": 0.8 * sigma, "sigma": sigma, "fast_mode": True}
    return np.stack([denoise_nl_means(values[:, :, k], **options) for k in range(values.shape[2])], axis=-1)


def edge_width(voxels: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Standard deviation (mm) of the Gaussian that blurs the sharpest edges between lung and tissue in the slices.

    Such an edge has the slope contrast / (√(2π) σ) in its middle. 1.0 where there is no edge.
    """
    values = np.asarray(voxels, np.float32)
    if values.shape[0] < 3 or values.shape[1] < 3:
        return 1.0
    slopes = np.hypot(np.gradient(values, spacing[0], axis=0), np.gradient(values, spacing[1], axis=1))
    slopes = slopes[(values > -600) & (values < -200)]
    if slopes.size < 20:
        return 1.0
    return float(np.clip(_CONTRAST / (np.sqrt(2 * np.pi) * np.quantile(slopes, 0.95)), 0.3, 2.0))


@dataclass(frozen=True)
class NoiseTexture:
    """What the noise of a scan looks like, at a standard deviation of 1.

    amplitude: (SQUARE, SQUARE), root of its power spectrum in the slice. between_slices: correlation of neighboring
    slices. roughness: standard deviation of what the kernel above makes of it.
    """

    amplitude: np.ndarray
    between_slices: float
    roughness: float

    def draw(self, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
        """Noise of deviation 1 (I, J, K)."""
        slices = []
        for k in range(shape[2]):
            fresh = self._slice(shape[:2], rng)
            if k:
                fresh = self.between_slices * slices[-1] + np.sqrt(1 - self.between_slices**2) * fresh
            slices.append(fresh)
        return np.stack(slices, axis=-1).astype(np.float32)

    def _slice(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        size = tuple(max(n, SQUARE) for n in shape)
        kernel = np.fft.fftshift(np.fft.ifft2(self.amplitude).real)
        kernel /= np.linalg.norm(kernel)
        spectrum = np.fft.rfft2(kernel, size) * np.fft.rfft2(rng.standard_normal(size))
        return np.fft.irfft2(spectrum, size)[: shape[0], : shape[1]]


def noise_texture(voxels: np.ndarray, tissue: np.ndarray, rng: np.random.Generator) -> NoiseTexture:
    """The noise in even soft tissue of a CT: power spectrum of squares from which a plane is taken (AAPM Report 233).

    voxels: (I, J, K) HU along the patient's axes. tissue: bool, soft tissue. White noise where there is too little.
    """
    half = SQUARE // 2
    whole = ndimage.uniform_filter(tissue.astype(np.float32), (SQUARE, SQUARE, 1), mode="constant")
    places = np.argwhere(whole > 0.97)
    places = places[(places[:, :2] >= half).all(axis=1)]
    places = places[(places[:, :2] + half <= np.array(voxels.shape[:2])).all(axis=1)]
    if len(places) > 400:
        places = places[rng.choice(len(places), 400, replace=False)]
    axis = np.linspace(-1, 1, SQUARE)
    plane = np.stack([np.ones((SQUARE, SQUARE)), *np.meshgrid(axis, axis, indexing="ij")], axis=-1).reshape(-1, 3)
    projector = plane @ np.linalg.pinv(plane)
    # What is cut off at the edges of a square would look like fine noise.
    window = np.hanning(SQUARE + 2)[1:-1, None] * np.hanning(SQUARE + 2)[None, 1:-1]
    spectra, deviations, products = [], [], []
    for i, j, k in places:
        square = voxels[i - half : i + half, j - half : j + half, k].astype(np.float64).ravel()
        square -= projector @ square
        spectra.append(np.abs(np.fft.fft2(window * square.reshape(SQUARE, SQUARE))) ** 2)
        deviations.append(square.std())
        if k + 1 < voxels.shape[2] and whole[i, j, k + 1] > 0.97:
            other = voxels[i - half : i + half, j - half : j + half, k + 1].astype(np.float64).ravel()
            other -= projector @ other
            products.append(float((square * other).mean() / max(square.std() * other.std(), 1e-6)))
    if len(spectra) < 5:
        return NoiseTexture(np.ones((SQUARE, SQUARE)), 0.0, _GAIN)
    # The more even half: what there is of vessels and fat in the others is no noise.
    even = np.argsort(deviations)[: max(5, len(deviations) // 2)]
    power = np.mean([spectra[n] / max(deviations[n], 1e-6) ** 2 for n in even], axis=0)
    power /= power.mean()
    kernel = np.abs(np.fft.fft2(_KERNEL, (SQUARE, SQUARE))) ** 2
    between = float(np.clip(np.median(products), 0, 0.9)) if products else 0.0
    return NoiseTexture(np.sqrt(power), between, float(np.sqrt((power * kernel).mean())))
