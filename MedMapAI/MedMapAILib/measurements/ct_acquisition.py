"""A CT scan of the slices of a volume: Hounsfield units to attenuation, line integrals, photons counted."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, NotHounsfield
from ..physics.attenuation import attenuation_of_hounsfield, hounsfield_of_attenuation, without_padding
from ..physics.ct_geometry import FanBeam, Geometry, ParallelBeam, limited_angles
from .acquisition import Acquisition, Progress
from .measured import CtMeasurement
from .settings import called, choice, draw_between, draw_one, number, optional, several, spread, whole

if TYPE_CHECKING:
    from torch import Tensor

    from ..physics.ct_projector import CtProjector

#: Pixels count as square where their sides differ by less than this part.
_SQUARE = 1e-3
#: Projectors that are kept: making one takes longer than using it.
_KEPT = 4


class CtAcquisition(Acquisition):
    """Parallel or fan beam, with the noise of counted photons.

    views: in each turn, one number or a list of which one is drawn. arc_degrees: over which they spread, None for half
    a turn (parallel) or a whole one (fan). first_degree: of the first view. detector_spacing_mm: on the detector; None
    makes it the pixel's, seen at the center of rotation. There are as many detectors as see the corners of the image.
    photons: that leave for each detector in each view; one number, or [low, high] drawn evenly in the logarithm; 0 for
    no noise at all. electronic_noise: standard deviation, photons. filter: of the first images. oversampling: how many
    times finer the grid that is measured is than that of the image to be made, so that the image is not made by the
    very numbers that it was measured with; ``measure`` takes slices on the fine grid, ``simulate_volume`` and
    ``degraded`` make them of the volume's own (bicubic).
    The source's distances are those of the scanner of the Mayo clinic's low-dose data (Moen and others, Medical
    Physics 48 (2021)): 595 mm to the center, 1085.6 mm to the detector. Beam hardening and scatter are left out.
    """

    kind = "ct"
    SETTINGS = {
        "beam": ("parallel", choice("parallel", "fan")),
        "views": (360, several(whole(1))),
        "arc_degrees": (None, optional(number(above=0))),
        "first_degree": (0.0, number()),
        "detector_spacing_mm": (None, optional(number(above=0))),
        "source_to_center_mm": (595.0, number(above=0)),
        "source_to_detector_mm": (1085.6, number(above=0)),
        "photons": (100_000.0, spread(number(0))),
        "electronic_noise": (5.0, number(0)),
        "filter": ("ramp", choice("ramp", "shepp-logan", "cosine", "hann")),
        "oversampling": (1, whole(1)),
    }

    def __init__(self, about: Any, where: str = "") -> None:
        super().__init__(about, where)
        photons = self["photons"]
        if isinstance(photons, list) and photons[0] == 0:
            raise InputError(f"{called('photons', where)} goes from 0 to {photons[1]:g}; a range begins above zero.")

    @property
    def finer(self) -> int:
        return self["oversampling"]

    def geometry(self, size: tuple[int, int], spacing_mm: tuple[float, float]) -> Geometry:
        """Where the rays run for an image of H × W pixels; see ``physics.ct_geometry``.

        Raises InputError for pixels that are not square, and for distances that do not fit the image.
        """
        self._check_drawn()
        pixel = _side(spacing_mm)
        reach = math.hypot(*size) / 2 * pixel
        first = math.radians(self["first_degree"])
        turn = 180.0 if self["beam"] == "parallel" else 360.0
        arc = math.radians(self["arc_degrees"] or turn)
        angles = limited_angles(self["views"], first_rad=first, arc_rad=arc)
        if self["beam"] == "parallel":
            step = self["detector_spacing_mm"] or pixel
            return ParallelBeam(angles, math.ceil(2 * reach / step) + 1, step, size, pixel)
        near, far = self["source_to_center_mm"], self["source_to_detector_mm"]
        step = self["detector_spacing_mm"] or pixel * far / near
        # The ray that touches the circle through the corners; where there is none, FanBeam says so.
        half = far * math.tan(math.asin(min(reach / near, 0.99)))
        return FanBeam(
            angles,
            math.ceil(2 * half / step) + 1 if reach < near else 1,
            step,
            size,
            pixel,
            source_to_center_mm=near,
            source_to_detector_mm=far,
        )

    def operator(self, size: tuple[int, int], spacing_mm: tuple[float, float], *, device: Any = None) -> CtProjector:
        """The projector of the image to be made; one for each geometry and device, which is kept and shared."""
        return _projector(self.geometry(tuple(size), tuple(spacing_mm)), str(device or "cpu"))

    def first_images(self, data: Tensor, size: tuple[int, int], spacing_mm: tuple[float, float]) -> Tensor:
        """Filtered backprojections (S, 1, H, W) in HU of line integrals (S, 1, A, D)."""
        from ..physics.filtered_backprojection import filtered_backprojection

        projector = self.operator(size, spacing_mm, device=data.device)
        return hounsfield_of_attenuation(filtered_backprojection(projector, data, filter_name=self["filter"]))

    def simulate_volume(
        self, image: Any, seed: int, *, device: Any = None, progress: Progress | None = None
    ) -> CtMeasurement:
        """The line integrals of the slices across the patient's length; see ``Acquisition.simulate_volume``."""
        drawn, slicing = self.drawn(seed), self.slicing(image)
        geometry = drawn.geometry(slicing.size, slicing.spacing_mm)
        parts = [data[:, 0].cpu().numpy() for data in drawn._measured_parts(slicing, seed, device, progress)]
        notes = ("Simulated from an image.",)
        if slicing.turned:
            notes += ("The slices lie across the patient's length, not across the volume's last axis.",)
        return CtMeasurement(
            np.concatenate(parts),
            geometry,
            slicing.affine,
            about={"acquisition": drawn.about, "seed": int(seed)},
            notes=notes,
        )

    def _draws(self, rng: np.random.Generator) -> dict[str, Any]:
        return {
            "views": draw_one(self["views"], rng),
            "photons": draw_between(self["photons"], rng, logarithmic=True),
        }

    def _check_values(self, image: Any) -> None:
        from ..lungs.hounsfield import hounsfield_problem

        problem = "" if image.meta.get("assume_hounsfield") else hounsfield_problem(image[0])
        if problem:
            raise NotHounsfield(problem)

    def _refined(self, slices: Tensor, spacing_mm: tuple[float, float]) -> tuple[Tensor, tuple[float, float]]:
        if self.finer == 1:
            return slices, spacing_mm
        from torch.nn.functional import interpolate

        # Padding would ring.
        fine = interpolate(without_padding(slices), scale_factor=self.finer, mode="bicubic", align_corners=False)
        return fine, (spacing_mm[0] / self.finer, spacing_mm[1] / self.finer)

    def _measured(self, slices: Tensor, spacing_mm: tuple[float, float], seeds: list[int], scale: float) -> Tensor:
        import torch

        from ..physics.counts import noisy_line_integrals

        rows, columns = slices.shape[-2:]
        if rows % self.finer or columns % self.finer:
            raise InputError(
                f"Slices of {rows} × {columns} pixels cannot be {self.finer} times as fine as an image that is made of "
                "their measurement (acquisition.oversampling)."
            )
        pixel = _side(spacing_mm) * self.finer
        geometry = self.geometry((rows // self.finer, columns // self.finer), (pixel, pixel))
        if self.finer > 1:
            # The same rays.
            geometry = dataclasses.replace(geometry, image_size=(rows, columns), pixel_mm=pixel / self.finer)
        clean = _projector(geometry, str(slices.device))(attenuation_of_hounsfield(without_padding(slices.float())))
        if not self["photons"]:
            return clean
        noise = {"photons": self["photons"], "electronic_noise": self["electronic_noise"]}
        return torch.stack(
            [noisy_line_integrals(one, **noise, seed=seed) for one, seed in zip(clean, seeds, strict=True)]
        )


def _side(spacing_mm: tuple[float, float]) -> float:
    """The side of a square pixel, mm."""
    rows, columns = spacing_mm
    if abs(rows - columns) > _SQUARE * max(rows, columns):
        raise InputError(
            f"The pixels of the slices are {columns:g} mm wide and {rows:g} mm high; those that a CT is simulated from "
            "must be square: resample the volume first (in Slicer: Resample Scalar Volume)."
        )
    return float(columns)


@functools.lru_cache(maxsize=_KEPT)
def _projector(geometry: Geometry, device: str) -> CtProjector:
    from ..physics.ct_projector import CtProjector

    return CtProjector(geometry).to(device)
