"""Where the rays of a CT scan run: parallel and fan beam with a flat detector, in mm and radians.

Image: row i, column j of H × W square pixels; x along the columns, y against the rows, origin in the middle of the
image and center of rotation. A view at angle θ has the detector's axis e = (cos θ, sin θ); the rays run along
(sin θ, -cos θ), at θ = 0 from the top of the picture to its bottom. A parallel ray that meets the detector at t is the
line x cos θ + y sin θ = t, as in scikit-image's radon. The fan's source is at D (-sin θ, cos θ) from the center, and
its detector stands across the central ray.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError

#: Angles beyond this, in radians, are two turns: more likely degrees.
_TWO_TURNS = 4 * math.pi
#: Half the fan's opening is less than this: beyond it a ray may run along the rows that it is to cross. Radians.
_WIDEST_HALF_FAN = math.radians(44)


@dataclasses.dataclass(frozen=True)
class ParallelBeam:
    """A parallel beam scan of one slice.

    angles_rad: one for each view, any order. detectors: pixels of the detector row. detector_spacing_mm: between their
    middles; each integrates over its whole width. image_size: (H, W) or one number. pixel_mm: side of an image pixel.
    detector_offset_mm: where the middle of the detector lies on its axis t, seen from the projected center of
    rotation; detector d is at t = (d - (detectors - 1) / 2) · spacing + offset.
    Raises InputError that names the number that is wrong.
    """

    angles_rad: tuple[float, ...]
    detectors: int
    detector_spacing_mm: float
    image_size: tuple[int, int]
    pixel_mm: float
    detector_offset_mm: float = 0.0

    #: The angle after which all rays were measured once.
    full_turn = math.pi
    beam = "parallel"

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "angles_rad", _angles(self.angles_rad))
        set_(self, "detectors", _count(self.detectors, "detectors"))
        size = (self.image_size,) * 2 if np.ndim(self.image_size) == 0 else tuple(self.image_size)
        if len(size) != 2:
            raise InputError(f"image_size is one number or rows and columns, not {self.image_size!r}.")
        set_(self, "image_size", tuple(_count(n, "image_size") for n in size))
        set_(self, "detector_spacing_mm", _length(self.detector_spacing_mm, "detector_spacing_mm"))
        set_(self, "pixel_mm", _length(self.pixel_mm, "pixel_mm"))
        set_(self, "detector_offset_mm", _number(self.detector_offset_mm, "detector_offset_mm"))

    @property
    def angles(self) -> np.ndarray:
        """The angles (A,), radians, float64."""
        return np.array(self.angles_rad)

    @property
    def sinogram_size(self) -> tuple[int, int]:
        """Views and detectors: (A, D)."""
        return len(self.angles_rad), self.detectors

    @property
    def detector_edges_mm(self) -> np.ndarray:
        """Where the pixels of the detector begin and end on its axis: (D + 1,), mm, rising."""
        middle = self.detectors / 2
        return (np.arange(self.detectors + 1) - middle) * self.detector_spacing_mm + self.detector_offset_mm

    @property
    def detectors_mm(self) -> np.ndarray:
        """The middles of the detector's pixels on its axis: (D,), mm, rising."""
        edges = self.detector_edges_mm
        return (edges[1:] + edges[:-1]) / 2

    @property
    def field_of_view_mm(self) -> float:
        """The diameter of the circle round the center of rotation that every view sees whole; 0 where none is."""
        return 2 * max(0.0, float(min(self.detector_edges_mm[-1], -self.detector_edges_mm[0])))

    def subset(self, views: Sequence[int] | np.ndarray) -> ParallelBeam:
        """The same scan with only these views, by their index, in that order."""
        return dataclasses.replace(self, angles_rad=tuple(np.array(self.angles_rad)[np.asarray(views)].tolist()))

    def check_sinogram(self, shape: Sequence[int]) -> None:
        """Raise InputError unless (…, A, D) is the shape of a sinogram of this scan; the sentence names the number."""
        views, detectors = self.sinogram_size
        if len(shape) < 2:
            raise InputError(f"A sinogram has views and detectors as its last axes; this one has the shape {shape}.")
        if tuple(shape[-2:]) == (detectors, views) and views != detectors:
            raise InputError(
                f"The sinogram has {shape[-2]} views of {shape[-1]} detectors and the geometry {views} angles and "
                f"{detectors} detectors: its last two axes are swapped."
            )
        if shape[-2] != views:
            raise InputError(f"The sinogram has {shape[-2]} views and the geometry {views} angles.")
        if shape[-1] != detectors:
            raise InputError(f"The sinogram has {shape[-1]} detectors a view and the geometry {detectors}.")

    def check_image(self, shape: Sequence[int]) -> None:
        """Raise InputError unless (…, H, W) is the shape of an image of this scan."""
        if tuple(shape[-2:]) != self.image_size:
            rows, columns = self.image_size
            raise InputError(f"The image has the shape {tuple(shape)}, not the geometry's {rows} × {columns} pixels.")

    def as_dict(self) -> dict[str, Any]:
        """What a JSON file holds; ``geometry_from_dict`` reads it back, equal."""
        values = dataclasses.asdict(self)
        return {"beam": self.beam, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}


@dataclasses.dataclass(frozen=True)
class FanBeam(ParallelBeam):
    """A fan beam scan of one slice, with a flat detector.

    As for ParallelBeam; in addition source_to_center_mm: from the source to the center of rotation, and
    source_to_detector_mm: from the source to the detector, along the central ray. The detector's spacing and offset
    are measured on the detector itself. Raises InputError that names the number that is wrong.
    """

    source_to_center_mm: float = dataclasses.field(kw_only=True)
    source_to_detector_mm: float = dataclasses.field(kw_only=True)

    full_turn = 2 * math.pi
    beam = "fan"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("source_to_center_mm", "source_to_detector_mm"):
            object.__setattr__(self, name, _length(getattr(self, name), name))
        reach = math.hypot(*self.image_size) / 2 * self.pixel_mm
        if self.source_to_center_mm <= reach:
            raise InputError(
                f"source_to_center_mm is {self.source_to_center_mm:g}, and the corners of the image are {reach:g} mm "
                "from the center: the source would pass through the image."
            )
        if self.source_to_detector_mm < self.source_to_center_mm:
            raise InputError(
                f"source_to_detector_mm is {self.source_to_detector_mm:g}, less than source_to_center_mm, "
                f"{self.source_to_center_mm:g}: the detector would stand between the source and the center of rotation."
            )
        if self.half_fan_rad > _WIDEST_HALF_FAN:
            raise InputError(
                f"The detector's {self.detectors} × {self.detector_spacing_mm:g} mm at {self.source_to_detector_mm:g} "
                f"mm reach {math.degrees(self.half_fan_rad):.0f} degrees to one side of the central ray; at most "
                f"{math.degrees(_WIDEST_HALF_FAN):.0f} are handled."
            )

    @property
    def magnification(self) -> float:
        """How much larger the center of rotation appears on the detector."""
        return self.source_to_detector_mm / self.source_to_center_mm

    @property
    def half_fan_rad(self) -> float:
        """The largest angle between a ray that is measured and the central ray, radians."""
        return math.atan(float(np.abs(self.detector_edges_mm).max()) / self.source_to_detector_mm)

    @property
    def field_of_view_mm(self) -> float:
        """The diameter of the circle round the center of rotation that every view sees whole; 0 where none is."""
        side = super().field_of_view_mm / 2
        return 2 * self.source_to_center_mm * math.sin(math.atan(side / self.source_to_detector_mm))


Geometry = ParallelBeam | FanBeam


def geometry_from_dict(values: dict[str, Any]) -> Geometry:
    """The geometry that ``as_dict`` wrote, or that a person did. Raises InputError for what is missing or unknown.

    Instead of ``angles_rad`` there may be ``angles_deg``.
    """
    values = dict(values)
    beam = values.pop("beam", "parallel")
    if beam not in ("parallel", "fan"):
        raise InputError(f'The beam of a geometry is "parallel" or "fan", not {beam!r}.')
    if "angles_deg" in values:
        if "angles_rad" in values:
            raise InputError("A geometry has angles_deg or angles_rad, not both.")
        values["angles_rad"] = np.radians(np.asarray(values.pop("angles_deg"), dtype=float)).tolist()
    kind = FanBeam if beam == "fan" else ParallelBeam
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise InputError(f"A {beam} beam geometry has no {', '.join(unknown)}; it has {', '.join(fields)}.")
    missing = [name for name in fields if name not in values and name != "detector_offset_mm"]
    if missing:
        raise InputError(f"The {beam} beam geometry lacks {', '.join(missing)}.")
    return kind(**values)


def full_angles(count: int, *, beam: str = "parallel", first_rad: float = 0.0) -> tuple[float, ...]:
    """Evenly spaced angles that see every ray: half a turn for a parallel beam, a whole one for a fan; radians."""
    turn = math.pi if beam == "parallel" else 2 * math.pi
    return limited_angles(count, first_rad=first_rad, arc_rad=turn)


def limited_angles(count: int, *, first_rad: float, arc_rad: float) -> tuple[float, ...]:
    """Evenly spaced angles over an arc, its end left out; radians."""
    count = _count(count, "the number of angles")
    return tuple((first_rad + np.arange(count) * arc_rad / count).tolist())


def every_nth(geometry: Geometry, step: int, *, first: int = 0) -> Geometry:
    """The scan as if only every ``step``-th view had been taken: sparse view."""
    step = _count(step, "the step between views")
    return geometry.subset(np.arange(first, len(geometry.angles_rad), step))


def angle_problem(angles: Sequence[float] | np.ndarray, *, unit: str = "rad") -> str:
    """One sentence where angles seem to be in the other unit, or "".

    angles: as given. unit: "rad" or "deg", what they are taken for. More than two turns in radians are most likely
    degrees; many angles that span less than seven degrees, π or 2 π to within a part in twenty, most likely radians.
    """
    values = np.asarray(angles, dtype=float).ravel()
    if values.size < 2 or not np.isfinite(values).all():
        return ""
    largest, span = float(np.abs(values).max()), float(values.max() - values.min())
    if unit == "rad" and largest > _TWO_TURNS:
        return f"The angles reach {largest:g} radians, more than two turns; they look like degrees."
    # With n views the last is one step short of the whole arc.
    whole = span * values.size / (values.size - 1)
    if unit == "deg" and any(abs(arc - turn) < 0.05 * turn for turn in (math.pi, 2 * math.pi) for arc in (span, whole)):
        return f"The angles span only {span:.3g} degrees in {values.size} views; they look like radians."
    return ""


def _angles(values: Any) -> tuple[float, ...]:
    angles = np.asarray(values, dtype=float).ravel()
    if not angles.size:
        raise InputError("The geometry has no angles.")
    wrong = np.flatnonzero(~np.isfinite(angles))
    if wrong.size:
        raise InputError(f"Angle {wrong[0]} is {angles[wrong[0]]}, not a number of radians.")
    return tuple(angles.tolist())


def _count(value: Any, name: str) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise InputError(f"{name} is {value!r}, not a whole number above zero.")
    return int(value)


def _number(value: Any, name: str) -> float:
    if not math.isfinite(value):
        raise InputError(f"{name} is {value!r}, not a finite number.")
    return float(value)


def _length(value: Any, name: str) -> float:
    if not value > 0 or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}, not a length above zero.")
    return float(value)
