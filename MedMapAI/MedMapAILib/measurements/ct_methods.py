"""The methods for sinograms, each on a few slices: from a ``Scan`` and complete options to an image in 1/mm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..physics.attenuation import attenuation_of_hounsfield, hounsfield_of_attenuation
from ..physics.ct_projector import CtProjector
from ..physics.filtered_backprojection import filtered_backprojection
from ..physics.linear_operator import operator_norm
from ..reconstruction import conjugate_gradient, ordered_subsets, total_variation
from ..reconstruction import mlem as expectation_maximization
from ..reconstruction import plug_and_play as splitting
from ..reconstruction import sirt as simultaneous
from ..reconstruction.iteration import Solution, Stopping
from .measured import CtMeasurement

Report = Callable[[int, float | None], Any]
Denoiser = Callable[[Tensor, float], Tensor]
#: The estimate of an operator's norm is a lower bound; so much more is safe.
_MARGIN = 1.05
#: The deviation of white noise whose second difference has the deviation 1: 1 / √(1 + 4 + 1).
_SECOND_DIFFERENCE = 6**-0.5


class Scan:
    """A measurement on a device, with what all portions of it share: the projector, its norm, a denoiser."""

    def __init__(self, measurement: CtMeasurement, device: torch.device) -> None:
        self.measurement, self.device = measurement, device
        self.projector = CtProjector(measurement.geometry).to(device)
        self._norm: float | None = None
        self._denoiser: Denoiser | None = None

    @property
    def norm(self) -> float:
        """The projector's norm, a little more than it is."""
        if self._norm is None:
            shape = (1, 1, *self.measurement.geometry.image_size)
            self._norm = _MARGIN * operator_norm(self.projector, shape, device=self.device)
        return self._norm

    def denoiser(self, name: str) -> Denoiser:
        """The model of that name, loaded once."""
        if self._denoiser is None:
            self._denoiser = trained_denoiser(name, self.measurement, self.device)
        return self._denoiser

    def sinogram(self, first: int, end: int) -> Tensor:
        """Slices ``first`` to before ``end``: (B, 1, A, D)."""
        lines = np.ascontiguousarray(self.measurement.line_integrals[first:end], dtype=np.float32)
        return torch.from_numpy(lines)[:, None].to(self.device)


def in_hounsfield(values: Any, measurement: CtMeasurement) -> Any:
    """Attenuation in 1/mm in Hounsfield units."""
    return hounsfield_of_attenuation(values, water_per_mm=measurement.water_per_mm)


def fbp(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Tensor:
    """Filtered backprojection (B, 1, H, W)."""
    return filtered_backprojection(
        scan.projector, scan.sinogram(first, end), filter_name=options["filter"], cutoff=min(1.0, options["cutoff"])
    )


def sirt(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Solution:
    """SIRT."""
    return simultaneous.sirt(
        scan.projector, scan.sinogram(first, end), **_common(options, report, "nonnegative", "relaxation")
    )


def sart(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Solution:
    """SART with ordered subsets, at most as many as there are views."""
    common = _common(options, report, "nonnegative", "relaxation")
    subsets = min(options["subsets"], len(scan.projector.geometry.angles_rad))
    return ordered_subsets.ordered_subsets(scan.projector, scan.sinogram(first, end), subsets=subsets, **common)


def cgls(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Solution:
    """Conjugate gradients."""
    return conjugate_gradient.cgls(scan.projector, scan.sinogram(first, end), **_common(options, report, "damping"))


def mlem(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Solution:
    """MLEM."""
    return expectation_maximization.mlem(scan.projector, scan.sinogram(first, end), **_common(options, report))


def tv(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Solution:
    """Total variation, begun from filtered backprojection, which takes fewer iterations than any other begin."""
    sinogram = scan.sinogram(first, end)
    start = filtered_backprojection(scan.projector, sinogram, filter_name="hann")
    common = _common(options, report, "weight", "nonnegative")
    return total_variation.total_variation(scan.projector, sinogram, start=start, norm=scan.norm, **common)


def plug_and_play(scan: Scan, first: int, end: int, options: Mapping[str, Any], report: Report) -> Solution:
    """A trained model of the image domain as denoiser; distances are given in water's attenuation."""
    sinogram, water = scan.sinogram(first, end), scan.measurement.water_per_mm
    return splitting.plug_and_play(
        scan.projector,
        sinogram,
        scan.denoiser(options["denoiser"]),
        deviations=splitting.falling(options["first"] * water, options["last"] * water, options["iterations"]),
        trust=options["trust"] or noise_deviation(sinogram),
        start=filtered_backprojection(scan.projector, sinogram),
        stopping=Stopping(options["iterations"], tolerance=0, progress=report),
    )


def trained_denoiser(name: str, measurement: CtMeasurement, device: torch.device) -> Denoiser:
    """A bundle's model as a function of (image (B, 1, H, W) in 1/mm, deviation) → image; it is not told the deviation.

    Raises InputError for a model that does not make images of images in HU.
    """
    from ..bundle import load_bundle
    from ..image import make_image
    from ..inference.opening import open_predictor

    bundle = load_bundle(name)
    images = bundle.info.images
    if images is None or images.domain != "image" or images.unit != "HU":
        raise InputError(f"The model {bundle.info.name} does not denoise CT images in HU; choose one that does.")
    if not measurement.hounsfield:
        raise InputError(
            f"The model {bundle.info.name} denoises images in HU, and this measurement is of no patient: its images "
            "are in 1/mm. Read it with Hounsfield units if that is wrong."
        )
    predictor = open_predictor(bundle, str(device))

    def denoise(image: Tensor, deviation: float) -> Tensor:
        values = in_hounsfield(image, measurement)[:, 0].permute(2, 1, 0)[None].cpu()
        # Half-way through an iteration values need not look like those of a patient.
        asked = make_image(values, measurement.affine, meta={"assume_hounsfield": True})
        found = predictor.predict(asked).values
        slices = torch.from_numpy(np.ascontiguousarray(found.transpose(2, 1, 0)))[:, None].to(image)
        # Nothing attenuates less than nothing.
        return attenuation_of_hounsfield(slices, water_per_mm=measurement.water_per_mm).clamp(min=0)

    return denoise


def noise_deviation(sinogram: Tensor) -> float:
    """The deviation of the noise of a sinogram (…, A, D), from second differences along the detector.

    Robust: the median of their size, so that edges of the body do not count. White noise is taken for granted.
    """
    second = sinogram[..., 2:] - 2 * sinogram[..., 1:-1] + sinogram[..., :-2]
    # 0.6745 is the median of |x| of a standard normal x. A scan without noise still has numbers of limited precision.
    found = float(second.abs().median()) / 0.6745 * _SECOND_DIFFERENCE
    return max(found, 1e-6 * float(sinogram.abs().max()), 1e-12)


def _common(options: Mapping[str, Any], report: Report, *names: str) -> dict[str, Any]:
    """The options of these names, and when to stop."""
    stopping = Stopping(options["iterations"], options["tolerance"], options["discrepancy"], report)
    return {"stopping": stopping, **{name: options[name] for name in names}}
