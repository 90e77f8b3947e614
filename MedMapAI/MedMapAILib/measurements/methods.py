"""The methods of ``method_table``, run by one function.

Each works on a few slices at a time, whatever the volume: iterations, residuals and stopping are those of
``reconstruction``, whose files say where each method comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..devices import choose_device
from ..errors import Cancelled, InputError
from ..reconstruction.iteration import Solution
from ..results.reconstruction import Reconstruction
from . import ct_methods, mr_methods
from .measured import CtMeasurement, Measurement, MrMeasurement
from .method_table import METHODS
from .options import complete_options

#: The window that CT images in HU are shown and scored in.
HOUNSFIELD_WINDOW = (-1000.0, 1000.0)
#: So many pixels of image at a time, for the memory's sake. Iterations end for all of them together.
_PIXELS_AT_ONCE = 8 * 512 * 512

Progress = Callable[[float, str], Any]


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
    if isinstance(measurement, MrMeasurement) and 0 < len(filled := measurement.filled()) < len(measurement.k_space):
        some = {"options": options, "progress": progress, "cancelled": cancelled, "device": device}
        return _among_empty(reconstruct_measurement(name, measurement.some(filled), **some), measurement.shape, filled)
    complete = check_method(name, kind, options)
    where = choose_device(device)
    run = getattr({"ct": ct_methods, "mr": mr_methods}[kind], name.replace("-", "_"))
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
    if kind == "mr":
        values = measurement.cropped(values)
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


def _among_empty(result: Reconstruction, shape: tuple[int, int, int], slices: np.ndarray) -> Reconstruction:
    """The result of some slices among those of which nothing was measured, which are zero."""
    values = np.zeros(shape, dtype=np.float32)
    values[..., slices] = result.values
    return replace(result, values=values)


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
