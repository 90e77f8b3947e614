"""The methods for k-spaces, each on a few slices: from a ``Scan`` and complete options to a complex image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..physics.coil_sensitivities import adaptive_combine, espirit
from ..physics.mr_operator import MrOperator, root_sum_of_squares
from ..reconstruction import compressed_sensing, conjugate_gradient, total_variation
from ..reconstruction.iteration import Solution, Stopping
from .measured import MrMeasurement

Report = Callable[[int, float | None], Any]
_ESTIMATES = {"espirit": espirit, "walsh": adaptive_combine}


class Scan:
    """A measurement on a device."""

    def __init__(self, measurement: MrMeasurement, device: torch.device) -> None:
        self.measurement, self.device = measurement, device

    def k_space(self, first: int, end: int) -> Tensor:
        """Slices ``first`` to before ``end``: (B, C, H, W), zero where nothing was taken."""
        samples = torch.from_numpy(np.ascontiguousarray(self.measurement.k_space[first:end])).to(self.device)
        return samples * self.mask(first, end)

    def mask(self, first: int, end: int) -> Tensor:
        """Which samples were taken: (H, W), or (B, 1, H, W) where slices differ."""
        mask = self.measurement.mask
        mask = mask if mask.ndim == 2 else mask[first:end, None]
        return torch.from_numpy(np.ascontiguousarray(mask)).to(self.device)

    def operator(self, first: int, end: int, estimate: str, **options: Any) -> MrOperator:
        """From an image to these samples, with sensitivities that are known, or estimated from the center.

        options: of the estimate. Raises InputError where there is too little of the center to estimate them from.
        """
        mask, known = self.mask(first, end), self.measurement.sensitivities
        if known is not None:
            here = np.ascontiguousarray(known[first:end], dtype=np.complex64)
            return MrOperator(mask, torch.from_numpy(here).to(self.device))
        k_space = self.k_space(first, end)
        if k_space.shape[1] == 1:
            return MrOperator(mask).to(self.device)
        found = []
        for number, one in enumerate(k_space):
            try:
                found.append(_ESTIMATES[estimate](one, mask if mask.ndim == 2 else mask[number, 0], **options))
            except InputError as error:
                raise InputError(
                    f"Slice {first + number}: {error} The method zero-filled needs none; or measure more of the center."
                ) from None
        return MrOperator(mask, torch.stack(found))


def zero_filled(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Tensor:
    """Root sum of squares (B, 1, H, W): needs no sensitivities."""
    return root_sum_of_squares(scan.k_space(first, end))


def cg_sense(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Solution:
    """CG-SENSE."""
    operator = scan.operator(first, end, options["sensitivities"])
    found = conjugate_gradient.cg_sense(operator, scan.k_space(first, end), **_common(options, report, "damping"))
    return _seen(found, operator)


def tv(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Solution:
    """Total variation of the complex image."""
    operator = scan.operator(first, end, options["sensitivities"])
    found = total_variation.total_variation(
        operator, scan.k_space(first, end), norm=_largest_norm(operator), **_common(options, report, "weight")
    )
    return _seen(found, operator)


def wavelet(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Solution:
    """Compressed sensing with wavelets."""
    operator = scan.operator(first, end, options["sensitivities"])
    common = _common(options, report, "weight", "moments")
    norm = _largest_norm(operator)
    found = compressed_sensing.wavelet_compressed_sensing(operator, scan.k_space(first, end), norm=norm, **common)
    return _seen(found, operator)


def _largest_norm(operator: MrOperator) -> float:
    """At most the operator's: squares of estimated sensitivities add up to 1 or 0, those that are given to anything."""
    return float(operator.sensitivities.abs().square().sum(dim=-3).max().sqrt().clamp(min=1e-12))


def _seen(found: Solution, operator: MrOperator) -> Solution:
    """The image where some coil sees it; elsewhere, where no datum holds it, whatever came about there is no image."""
    somewhere = (operator.sensitivities != 0).any(dim=-3, keepdim=True)
    return replace(found, image=found.image * somewhere)


def _common(options: Mapping[str, Any], report: Report, *names: str) -> dict[str, Any]:
    """The options of these names, and when to stop."""
    stopping = Stopping(options["iterations"], options["tolerance"], options["discrepancy"], report)
    return {"stopping": stopping, **{name: options[name] for name in names}}
