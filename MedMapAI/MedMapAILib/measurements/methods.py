"""The methods that make an image of a measurement without being trained to: a table, and one function that runs them.

Each works on a few slices at a time, whatever the volume: iterations, residuals and stopping are those of
``reconstruction``, whose files say where each method comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..devices import choose_device
from ..errors import Cancelled, InputError
from ..physics.filters import WINDOWS
from ..reconstruction.iteration import Solution
from ..results.reconstruction import Reconstruction
from . import ct_methods, mr_methods
from .measured import CtMeasurement, Measurement
from .options import Option, complete_options, words, yes_no
from .settings import choice, number, optional, whole

#: The window that CT images in HU are shown and scored in.
HOUNSFIELD_WINDOW = (-1000.0, 1000.0)
#: So many pixels of image at a time: memory depends on it, not the result.
_PIXELS_AT_ONCE = 8 * 512 * 512

Progress = Callable[[float, str], Any]


@dataclass(frozen=True)
class Method:
    """A method. kinds: of measurements that it takes, "ct" and "mr". sentence: what it does. options: name → Option for
    each kind. run: kind → function(scan, first and end of the slices, options, report) → Solution or image."""

    kinds: tuple[str, ...]
    sentence: str
    options: Mapping[str, Mapping[str, Option]]
    run: Mapping[str, Callable[..., Any]]


def _iterative(iterations: int, tolerance: float) -> dict[str, Option]:
    return {
        "iterations": Option(iterations, whole(), "at most so many"),
        "tolerance": Option(tolerance, number(0), "converged where an iteration changes less than this part; 0: never"),
        "discrepancy": Option(
            None, optional(number(0)), "fitted where |A x - y| / |y| is no more: the part of the data that is noise"
        ),
    }


_NONNEGATIVE = {"nonnegative": Option(True, yes_no, "no attenuation below zero")}
_RELAXATION = {"relaxation": Option(1.0, number(above=0, below=2), "length of the steps, between 0 and 2")}
_COILS = {
    "sensitivities": Option(
        "espirit", choice("espirit", "walsh"), "how the coils' sensitivities are estimated, where they are not known"
    )
}


def _weight(default: float) -> dict[str, Option]:
    return {"weight": Option(default, number(0), "of the penalty, as a part of the largest value of Aᴴ y")}


#: Name → method.
METHODS: dict[str, Method] = {
    "fbp": Method(
        ("ct",),
        "filtered backprojection, in one pass",
        {
            "ct": {
                "filter": Option("ramp", choice(*WINDOWS), f"one of {', '.join(WINDOWS)}"),
                "cutoff": Option(1.0, number(above=0, below=1.0000001), "part of the Nyquist frequency that passes"),
            }
        },
        {"ct": ct_methods.fbp},
    ),
    "sirt": Method(
        ("ct",),
        "simultaneous iterative reconstruction: all rays at once",
        {"ct": {**_iterative(200, 1e-4), **_NONNEGATIVE, **_RELAXATION}},
        {"ct": ct_methods.sirt},
    ),
    "sart": Method(
        ("ct",),
        "the same from a few views at a time (ordered subsets), many times faster at the begin",
        {
            "ct": {
                **_iterative(20, 1e-4),
                "subsets": Option(10, whole(), "parts that the views are taken in; as many as views: SART proper"),
                **_NONNEGATIVE,
                **_RELAXATION,
            }
        },
        {"ct": ct_methods.sart},
    ),
    "cgls": Method(
        ("ct",),
        "least squares by conjugate gradients; fits noise when it goes on for long",
        {"ct": {**_iterative(20, 1e-5), "damping": Option(0.0, number(0), "of |x|², against noise")}},
        {"ct": ct_methods.cgls},
    ),
    "mlem": Method(
        ("ct",),
        "the likeliest image of Poisson data, never negative",
        {"ct": _iterative(100, 1e-4)},
        {"ct": ct_methods.mlem},
    ),
    "tv": Method(
        ("ct", "mr"),
        "total variation: flat in pieces, for few views or an undersampled k-space",
        {
            "ct": {**_iterative(200, 1e-4), **_weight(1e-3), **_NONNEGATIVE},
            "mr": {**_iterative(100, 1e-4), **_weight(2e-3), **_COILS},
        },
        {"ct": ct_methods.tv, "mr": mr_methods.tv},
    ),
    "plug-and-play": Method(
        ("ct",),
        "a model that denoises images, by turns with fitting the measurement",
        {
            "ct": {
                "denoiser": Option(None, words, "a model of the image domain: its name, or a bundle's path"),
                "iterations": Option(6, whole(), "so many turns"),
                "first": Option(0.10, number(above=0), "how far from the denoised image the fit may go at first"),
                "last": Option(0.02, number(above=0), "and at last; both in water's attenuation"),
                "trust": Option(None, optional(number(above=0)), "deviation of the data's noise; measured if not said"),
            }
        },
        {"ct": ct_methods.plug_and_play},
    ),
    "zero-filled": Method(
        ("mr",),
        "the coils' images of the samples as they are, combined by root sum of squares",
        {"mr": {}},
        {"mr": mr_methods.zero_filled},
    ),
    "cg-sense": Method(
        ("mr",),
        "least squares through the coils' sensitivities",
        {"mr": {**_iterative(30, 1e-4), "damping": Option(1e-2, number(0), "of |x|², against noise"), **_COILS}},
        {"mr": mr_methods.cg_sense},
    ),
    "wavelet": Method(
        ("mr",),
        "compressed sensing: few large wavelet coefficients",
        {
            "mr": {
                **_iterative(100, 1e-4),
                **_weight(3e-3),
                "moments": Option(4, whole(), "vanishing moments of the Daubechies wavelet, 1 to 8"),
                **_COILS,
            }
        },
        {"mr": mr_methods.wavelet},
    ),
}


def check_method(name: str, kind: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The complete options of a method for a kind of measurement, before any work is done. Raises InputError."""
    if name not in METHODS:
        raise InputError(f"There is no method {name!r}; there are {', '.join(METHODS)}.")
    if kind not in METHODS[name].kinds:
        fit = ", ".join(other for other, method in METHODS.items() if kind in method.kinds)
        what = {"ct": "a sinogram", "mr": "a k-space"}
        raise InputError(f"The method {name} is for {what[METHODS[name].kinds[0]]}, and this is {what[kind]}: {fit}.")
    return complete_options(METHODS[name].options[kind], options or {}, name)


def reconstruct_measurement(
    name: str,
    measurement: Measurement,
    *,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    device: str = "auto",
) -> Reconstruction:
    """The image of a measurement by one of METHODS, on the measurement's own grid.

    options: as ``METHODS[name].options`` has them for the kind of measurement. progress: called with a fraction and a
    message after each iteration; cancelled: asked then, too. Values are HU where the measurement is of a patient, 1/mm
    where not, magnitudes for MR. ``residuals`` is the mean over the slices, those that stopped early kept at their
    last. Raises InputError for options and measurements that do not fit, Cancelled, RunError where it diverges.
    """
    kind = measurement.kind
    complete = check_method(name, kind, options)
    where = choose_device(device)
    run = METHODS[name].run[kind]
    count = measurement.shape[2]
    pixels = int(np.prod(_size(measurement)))
    at_once = max(1, min(count, _PIXELS_AT_ONCE // pixels))
    scan = (ct_methods if kind == "ct" else mr_methods).Scan(measurement, where)
    images, solutions = [], []
    for first in range(0, count, at_once):
        end = min(count, first + at_once)
        report = _Report(first, end, count, int(complete.get("iterations", 1)), progress, cancelled)
        report(0, None)
        answer = run(scan, first, end, complete, report)
        if isinstance(answer, Solution):
            solutions.append((answer, end - first))
            answer = answer.image
        images.append(_magnitude(answer)[:, 0].float().cpu().numpy())
        report.finished()
    values = np.concatenate(images)
    if kind == "mr" and measurement.crop is not None:
        values = _middle(values, measurement.crop)
    unit, window = "", None
    if isinstance(measurement, CtMeasurement):
        unit = "1/mm"
        if measurement.hounsfield:
            values, unit, window = ct_methods.in_hounsfield(values, measurement), "HU", HOUNSFIELD_WINDOW
    return Reconstruction(
        np.ascontiguousarray(values.transpose(2, 1, 0), dtype=np.float32),
        np.asarray(measurement.affine, dtype=float),
        unit=unit,
        window=window,
        method=_in_words(name, complete),
        residuals=_mean_curve(solutions),
        notes=(*measurement.notes, *_stopped(solutions, complete)),
    )


class _Report:
    """What a method calls after each iteration: tells how far the whole is, and ends it where the user asked."""

    def __init__(self, first: int, end: int, count: int, iterations: int, progress, cancelled) -> None:
        self.first, self.end, self.count, self.iterations = first, end, count, iterations
        self.progress, self.cancelled = progress, cancelled

    def __call__(self, iteration: int, residual: float | None) -> None:
        if self.cancelled is not None and self.cancelled():
            raise Cancelled
        if self.progress is None:
            return
        part = min(1.0, iteration / self.iterations)
        done = (self.first + part * (self.end - self.first)) / self.count
        slices = f"slices {self.first + 1} to {self.end} of {self.count}"
        if residual is None:
            self.progress(done, slices)
        else:
            self.progress(done, f"{slices}, iteration {iteration}, residual {residual:.4g}")

    def finished(self) -> None:
        if self.progress is not None:
            self.progress(self.end / self.count, f"slices {self.first + 1} to {self.end} of {self.count}")


def _size(measurement: Measurement) -> tuple[int, int]:
    return measurement.geometry.image_size if isinstance(measurement, CtMeasurement) else measurement.k_space.shape[-2:]


def _magnitude(images: torch.Tensor) -> torch.Tensor:
    return images.abs() if images.is_complex() else images


def _middle(values: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
    """The middle rows and columns of (S, H, W)."""
    top, left = ((n - c) // 2 for n, c in zip(values.shape[1:], crop, strict=True))
    return values[:, top : top + crop[0], left : left + crop[1]]


def _mean_curve(solutions: list[tuple[Solution, int]]) -> tuple[float, ...]:
    """Residuals after each iteration, the mean over slices."""
    if not solutions:
        return ()
    longest = max(answer.iterations for answer, _ in solutions)
    curves = [np.pad(answer.residuals, (0, longest - answer.iterations), mode="edge") for answer, _ in solutions]
    return tuple(np.average(curves, axis=0, weights=[weight for _, weight in solutions]).tolist())


def _stopped(solutions: list[tuple[Solution, int]], options: Mapping[str, Any]) -> list[str]:
    """Why the iterations ended, as a sentence."""
    if not solutions or options.get("denoiser"):
        return []
    counts = sorted({answer.iterations for answer, _ in solutions})
    said = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    why = ", ".join(sorted({answer.stopped for answer, _ in solutions}))
    return [f"Stopped after {said} of at most {options['iterations']} iterations: {why}."]


def _in_words(name: str, options: Mapping[str, Any]) -> str:
    """The method with those of its options that make the image what it is."""
    told = [key for key in ("filter", "weight", "damping", "subsets", "denoiser", "iterations") if key in options]
    values = [f"{key} {options[key]:g}" if isinstance(options[key], float) else f"{key} {options[key]}" for key in told]
    return ", ".join([name, *values])
