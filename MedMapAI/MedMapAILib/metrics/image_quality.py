"""How close an image is to the one it should be: PSNR, SSIM, MS-SSIM and NRMSE, in the whole image or in a region.

With R the data range, x the reference, y the image, and MSE the mean of (x − y)² over the voxels that count:

========  ==========================================================================================================
psnr      10 log10(R² / MSE), dB; infinite for equal images
rmse      √MSE, in the unit of the image (HU)
nrmse     √MSE divided by √mean(x²) ("euclidean", scikit-image's default), max − min of x ("min-max"), its mean
          ("mean"), or R ("data-range"), see ``nrmse``
ssim      mean of the local structural similarity (Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Process. 13,
          2004), computed by scikit-image; by default its default, a window of 7 voxels a side
ms_ssim   multi-scale structural similarity (Wang, Simoncelli, Bovik, Asilomar 2003): Π_s mean(cs_s)^w_s, over five
          scales, the last with the luminance term; Gaussian windows of 11 voxels (σ = 1.5), whole ones only
========  ==========================================================================================================

All but nrmse depend on the data range, and scores over different ranges cannot be compared: it is part of every
``ImageQuality``. A display window (low, high) stands for what a reader sees: values are clipped to it and counted from
its low end, so that R = high − low and black is 0, as the luminance term of SSIM takes for granted (with HU as they are
water is "black", and a bias of 2 HU there looks like a gross error). Without a window the values stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

from ..errors import InputError

#: Exponents of the five scales, finest first (Wang, Simoncelli, Bovik 2003, section 3.2).
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
#: Ways to divide the error of ``nrmse``.
NORMALIZATIONS = ("euclidean", "min-max", "mean", "data-range")
#: Windows of ``ssim``: of equal weights (scikit-image's default), or Gaussian as in the paper of 2004.
SSIM_WINDOWS = ("uniform", "gaussian")

#: Voxels a side of the Gaussian window, and its standard deviation in voxels.
_SIDE, _SIGMA = 11, 1.5
#: Constants of SSIM: C1 = (K1 R)², C2 = (K2 R)².
_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True)
class ImageQuality:
    """What ``image_quality`` found.

    psnr: dB, infinite for equal images. ssim, ms_ssim: up to 1. nrmse: of ``normalization``. rmse: in the unit of the
    images. data_range: R, in that unit. window: (low, high) of the display, or None. region: whether a mask was given.
    voxels: how many of them psnr, rmse and nrmse are about. ssim_window: of ``ssim``. notes: one sentence for each
    number that is None, since it is not defined here.
    """

    psnr: float | None
    ssim: float | None
    ms_ssim: float | None
    nrmse: float | None
    rmse: float
    data_range: float
    window: tuple[float, float] | None
    region: bool
    voxels: int
    normalization: str
    ssim_window: str
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which knows no infinity: psnr is None for equal images, with a note."""
        values = asdict(self)
        values["window"] = None if self.window is None else list(self.window)
        values["notes"] = list(self.notes)
        if self.psnr is not None and math.isinf(self.psnr):
            values["psnr"] = None
            values["notes"].append("The images are equal; their PSNR is infinite.")
        return values


def image_quality(
    reference: Any,
    image: Any,
    *,
    window: tuple[float, float] | None = None,
    data_range: float | None = None,
    mask: Any = None,
    slices: int | None = None,
    normalization: str = "euclidean",
    ssim_window: str = "uniform",
) -> ImageQuality:
    """All numbers of this file at once.

    reference, image: (A, B) or (A, B, C), numbers of one unit. window: (low, high) of the display, in that unit.
    data_range: R where there is no window; without either it is max − min of the whole reference. mask: as large as
    the image, True where voxels count. slices: the axis across which a volume is taken slice by slice for ssim and
    ms_ssim, whose mean is given (windows do not reach from slice to slice then: right for thick slices); None takes a
    volume as a volume. normalization: one of NORMALIZATIONS. ssim_window: one of SSIM_WINDOWS.
    Raises InputError for images that cannot be compared: of different shapes, with values that are not finite, without
    a range. A single number that is not defined (an image too small for five scales) is None and has a note.
    """
    x, y, inside, span = _prepare(reference, image, window, data_range, mask)
    _check_choice(normalization, NORMALIZATIONS, "normalization")
    _check_choice(ssim_window, SSIM_WINDOWS, "SSIM window")
    notes: list[str] = []

    def number(compute: Callable[[], float]) -> float | None:
        try:
            return compute()
        except InputError as error:
            notes.append(str(error))
            return None

    rmse = _rmse(x, y, inside)
    return ImageQuality(
        psnr=_psnr(rmse, span),
        ssim=number(lambda: _by_slices(_ssim, x, y, inside, slices, span, ssim_window)),
        ms_ssim=number(lambda: _by_slices(_ms_ssim, x, y, inside, slices, span, SCALES)),
        nrmse=number(lambda: rmse / _divisor(x, inside, span, normalization)),
        rmse=rmse,
        data_range=span,
        window=None if window is None else (float(window[0]), float(window[1])),
        region=mask is not None,
        voxels=int(x.size if inside is None else inside.sum()),
        normalization=normalization,
        ssim_window=ssim_window,
        notes=tuple(dict.fromkeys(notes)),
    )


def psnr(
    reference: Any,
    image: Any,
    *,
    window: tuple[float, float] | None = None,
    data_range: float | None = None,
    mask: Any = None,
) -> float:
    """Peak signal-to-noise ratio, dB; infinite for equal images. Arguments and errors as ``image_quality``."""
    x, y, inside, span = _prepare(reference, image, window, data_range, mask)
    return _psnr(_rmse(x, y, inside), span)


def nrmse(
    reference: Any,
    image: Any,
    *,
    window: tuple[float, float] | None = None,
    data_range: float | None = None,
    mask: Any = None,
    normalization: str = "euclidean",
) -> float:
    """Root mean squared error over a size of the reference. Arguments and errors as ``image_quality``.

    "euclidean" and "mean" compare with the reference's distance from 0: they mean little where the zero is a convention
    (HU). Raises InputError where that size is 0.
    """
    x, y, inside, span = _prepare(reference, image, window, data_range, mask)
    _check_choice(normalization, NORMALIZATIONS, "normalization")
    return _rmse(x, y, inside) / _divisor(x, inside, span, normalization)


def ssim(
    reference: Any,
    image: Any,
    *,
    window: tuple[float, float] | None = None,
    data_range: float | None = None,
    mask: Any = None,
    slices: int | None = None,
    ssim_window: str = "uniform",
) -> float:
    """Mean structural similarity. Arguments and errors as ``image_quality``.

    ssim_window: "uniform", 7 voxels a side and the sample covariance (scikit-image's default); "gaussian", σ = 1.5, 11
    voxels a side and the population covariance (Wang 2004). Voxels whose window reaches over the border are left out.
    In a mask it is the mean over its voxels of the local similarity, which looks some voxels beyond the mask's edge.
    """
    x, y, inside, span = _prepare(reference, image, window, data_range, mask)
    _check_choice(ssim_window, SSIM_WINDOWS, "SSIM window")
    return _by_slices(_ssim, x, y, inside, slices, span, ssim_window)


def ms_ssim(
    reference: Any,
    image: Any,
    *,
    window: tuple[float, float] | None = None,
    data_range: float | None = None,
    mask: Any = None,
    slices: int | None = None,
    scales: tuple[float, ...] = SCALES,
) -> float:
    """Multi-scale structural similarity. Arguments and errors as ``image_quality``.

    scales: exponents, finest first; every further scale halves the image by means of 2 voxels a side, and the coarsest
    must still hold 11 of them: 176 voxels a side for five scales. In a mask, a voxel of a coarser scale counts where
    half of it lies in the mask. A mean contrast term below 0 counts as 0 (as in MONAI and torchmetrics).
    """
    x, y, inside, span = _prepare(reference, image, window, data_range, mask)
    return _by_slices(_ms_ssim, x, y, inside, slices, span, scales)


def _prepare(
    reference: Any, image: Any, window: tuple[float, float] | None, data_range: float | None, mask: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, float]:
    """(reference, image, mask or None, data range), as they are compared: float64, clipped to the window."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (reference, image))
    if x.shape != y.shape:
        raise InputError(f"The image is {_sides(y)} and its reference {_sides(x)}; bring both to one grid.")
    if x.ndim not in (2, 3) or x.size == 0:
        raise InputError(f"Images of shape {x.shape} cannot be compared; give a slice (A, B) or a volume (A, B, C).")
    for values, name in ((x, "reference"), (y, "image")):
        wrong = int(values.size - np.isfinite(values).sum())
        if wrong:
            raise InputError(f"The {name} has {wrong} values that are not finite; replace them before comparing.")
    inside = None
    if mask is not None:
        inside = np.asarray(mask).astype(bool)
        if inside.shape != x.shape:
            raise InputError(f"The region is {_sides(inside)} and the image {_sides(x)}; bring both to one grid.")
        if not inside.any():
            raise InputError("The region is empty; mark at least one voxel, or compare the whole images.")
    if window is not None and data_range is not None:
        raise InputError("A display window has its own data range; give one of the two.")
    if window is not None:
        low, high = (float(end) for end in window)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"A display window from {low:g} to {high:g} is none; give a low end below the high end.")
        return np.clip(x, low, high) - low, np.clip(y, low, high) - low, inside, high - low
    if data_range is None:
        data_range = float(x.max() - x.min())
        if data_range == 0:
            raise InputError(
                f"The reference is {x.flat[0]:g} everywhere and has no range of values; give a window or a data range."
            )
    if not (math.isfinite(data_range) and data_range > 0):
        raise InputError(f"A data range of {data_range:g} makes no sense; give a number above 0.")
    return x, y, inside, float(data_range)


def _rmse(x: np.ndarray, y: np.ndarray, inside: np.ndarray | None) -> float:
    difference = x - y if inside is None else x[inside] - y[inside]
    return float(np.sqrt(np.mean(difference**2)))


def _psnr(rmse: float, span: float) -> float:
    return math.inf if rmse == 0 else 20 * math.log10(span / rmse)


def _divisor(x: np.ndarray, inside: np.ndarray | None, span: float, normalization: str) -> float:
    """What ``nrmse`` divides by."""
    counted = x if inside is None else x[inside]
    if normalization == "data-range":
        return span
    if normalization == "euclidean":
        size = float(np.sqrt(np.mean(counted**2)))
    else:
        size = float(np.ptp(counted) if normalization == "min-max" else counted.mean())
    if size == 0:
        raise InputError(
            f"The NRMSE ({normalization}) is not defined: the reference's size to divide by is 0; take another one."
        )
    return size


def _by_slices(
    compute: Callable[..., float],
    x: np.ndarray,
    y: np.ndarray,
    inside: np.ndarray | None,
    slices: int | None,
    *arguments: Any,
) -> float:
    """``compute`` of the whole, or its mean over the slices across an axis (with a mask: those that it meets)."""
    if slices is None or x.ndim == 2:
        return compute(x, y, inside, *arguments)
    if slices not in range(-3, 3):
        raise InputError(f"A volume has no axis {slices}; give 0, 1 or 2.")
    x, y = np.moveaxis(x, slices, 0), np.moveaxis(y, slices, 0)
    if inside is None:
        return float(np.mean([compute(a, b, None, *arguments) for a, b in zip(x, y, strict=True)]))
    inside = np.moveaxis(inside, slices, 0)
    met = [n for n in range(len(x)) if inside[n].any()]
    return float(np.mean([compute(x[n], y[n], inside[n], *arguments) for n in met]))


def _ssim(x: np.ndarray, y: np.ndarray, inside: np.ndarray | None, span: float, window: str) -> float:
    side = _SIDE if window == "gaussian" else 7
    if min(x.shape) < side:
        raise InputError(f"SSIM needs {side} voxels a side, and the image has {_sides(x)}; compare a larger one.")
    options = {"gaussian_weights": True, "sigma": _SIGMA, "use_sample_covariance": False} if side == _SIDE else {}
    mean, local = structural_similarity(x, y, data_range=span, full=True, **options)
    if inside is None:
        return float(mean)
    whole = (slice(side // 2, -(side // 2)),) * x.ndim
    return _mean_inside(local[whole], inside[whole], "SSIM")


def _ms_ssim(x: np.ndarray, y: np.ndarray, inside: np.ndarray | None, span: float, scales: tuple[float, ...]) -> float:
    needed = _SIDE * 2 ** (len(scales) - 1)
    if min(x.shape) < needed:
        raise InputError(
            f"MS-SSIM of {len(scales)} scales needs {needed} voxels a side, and the image has {_sides(x)}; "
            "compare larger images or slice by slice."
        )
    share = None if inside is None else inside.astype(np.float64)
    whole = (slice(_SIDE // 2, -(_SIDE // 2)),) * x.ndim
    value = 1.0
    for scale, exponent in enumerate(scales):
        last = scale == len(scales) - 1
        local = _similarity(x, y, span, luminance=last)
        mean = float(local.mean()) if share is None else _mean_inside(local, share[whole] >= 0.5, "MS-SSIM")
        value *= max(0.0, mean) ** exponent
        if not last:
            x, y = _halved(x), _halved(y)
            share = None if share is None else _halved(share)
    return value


def _similarity(x: np.ndarray, y: np.ndarray, span: float, *, luminance: bool) -> np.ndarray:
    """The contrast and structure term of SSIM, times the luminance term if asked for, where the window is whole.

    MONAI and torchmetrics compute this in one go of 11 voxels to the power of 2 or 3 and in float32, whose rounding
    reaches C2 in flat regions; here it is float64, one axis after the other.
    """
    offsets = np.arange(_SIDE) - _SIDE // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    whole = (slice(_SIDE // 2, -(_SIDE // 2)),) * x.ndim

    def blurred(values: np.ndarray) -> np.ndarray:
        for axis in range(values.ndim):
            values = correlate1d(values, weights, axis=axis)
        return values[whole]

    c1, c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
    mean_x, mean_y = blurred(x), blurred(y)
    spread = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
    local = (2 * (blurred(x * y) - mean_x * mean_y) + c2) / (spread + c2)
    if luminance:
        local *= (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return local


def _halved(values: np.ndarray) -> np.ndarray:
    """Means of 2 voxels a side; an odd one at the end is left out."""
    for axis in range(values.ndim):
        values = np.moveaxis(values, axis, 0)
        pairs = len(values) // 2 * 2
        values = np.moveaxis((values[:pairs:2] + values[1:pairs:2]) / 2, 0, axis)
    return values


def _mean_inside(local: np.ndarray, inside: np.ndarray, name: str) -> float:
    if not inside.any():
        raise InputError(
            f"{name} has no value in this region: all of it is too near the border or too small; take a larger one."
        )
    return float(local[inside].mean())


def _check_choice(name: str, choices: tuple[str, ...], what: str) -> None:
    if name not in choices:
        raise InputError(f"There is no {what} {name!r}; choose one of {', '.join(choices)}.")


def _sides(values: np.ndarray) -> str:
    return "×".join(map(str, values.shape)) if values.ndim else "a single number"
