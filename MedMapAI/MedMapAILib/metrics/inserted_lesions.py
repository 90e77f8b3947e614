"""Whether a reconstruction shows what is there and nothing else: lesions of known contrast, put in before simulation.

PSNR and SSIM are means, in which one lesion wiped out or made up hardly counts. So lesions are added to a volume, its
measurements are simulated and reconstructed, and then both questions are asked at the lesions' own size, with one
measure: the local contrast K, the mean in the core of a sphere (a disc in a slice) of the lesion's diameter, up to 0.7
of its radius, less the mean in the shell around it, from 1.25 to 2 radii.

- What was inserted: recovery = K(reconstruction − what it would be without lesions) / K(lesions alone). 1 is all of the
  contrast, 0 none of it. A lesion is detected where at least ``recovered`` (a half) of it is left and it stands out of
  the noise: its contrast is ``visible`` (3) standard deviations of K(reconstruction − truth) or more elsewhere (Rose,
  J. Opt. Soc. Am. 38, 1948, puts what can be seen at 3 to 5).
- What was not: each place where K(reconstruction − truth) reaches ``recovered`` of an inserted lesion's contrast. It is
  "added" where the reconstruction has the larger local contrast (a false structure: noise that looks like a lesion
  counts as one, as it would for a reader), else "lost" (a structure of the patient that is gone).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage, signal

from ..errors import InputError

#: Ends of the core and of the shell, in radii.
_CORE, _SHELL = 0.7, (1.25, 2.0)
#: Points a voxel and axis at which the share of a voxel is taken.
_POINTS = 5


@dataclass(frozen=True)
class InsertedLesion:
    """A uniform sphere, in a slice a disc. center: voxel index, may lie between voxels. contrast: HU that it adds."""

    center: tuple[float, ...]
    diameter_mm: float
    contrast: float


@dataclass(frozen=True)
class LesionRecovery:
    """What became of a lesion. contrast: HU left of it. contrast_to_noise: infinite without noise."""

    lesion: InsertedLesion
    recovery: float
    contrast: float
    contrast_to_noise: float
    detected: bool


@dataclass(frozen=True)
class UnexpectedStructure:
    """What differs from the truth as a lesion would. center: voxel index. contrast: HU. kind: "added" or "lost"."""

    center: tuple[int, ...]
    diameter_mm: float
    contrast: float
    kind: str


@dataclass(frozen=True)
class LesionCheck:
    """What ``check_lesions`` found. structures come by falling contrast."""

    lesions: tuple[LesionRecovery, ...]
    structures: tuple[UnexpectedStructure, ...]

    @property
    def detected(self) -> int:
        """Of the inserted lesions."""
        return sum(found.detected for found in self.lesions)

    @property
    def mean_recovery(self) -> float:
        """Of all inserted lesions, detected or not."""
        return float(np.mean([found.recovery for found in self.lesions]))

    @property
    def false_structures(self) -> int:
        """Those that the reconstruction made up."""
        return sum(structure.kind == "added" for structure in self.structures)

    @property
    def lost_structures(self) -> int:
        """Those of the patient that it lost."""
        return sum(structure.kind == "lost" for structure in self.structures)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which knows no infinity: contrast_to_noise is None without noise."""
        lesions = [asdict(found) for found in self.lesions]
        for found in lesions:
            if math.isinf(found["contrast_to_noise"]):
                found["contrast_to_noise"] = None
        return {
            "inserted": len(self.lesions),
            "detected": self.detected,
            "mean_recovery": self.mean_recovery,
            "false_structures": self.false_structures,
            "lost_structures": self.lost_structures,
            "lesions": lesions,
            "structures": [asdict(structure) for structure in self.structures],
        }


def place_lesions(
    mask: Any,
    spacing: Sequence[float],
    count: int,
    *,
    diameter_mm: float,
    contrast: float,
    seed: int = 0,
) -> tuple[InsertedLesion, ...]:
    """Lesions at random places of a region, none of whose surroundings (two radii) leave it or overlap.

    mask: (A, B) or (A, B, C), True where a lesion and its surroundings may lie. spacing: mm, one for each axis.
    contrast: HU. The same seed gives the same places. Raises InputError where there is no room for so many.
    """
    inside = np.asarray(mask).astype(bool)
    steps = _check_spacing(spacing, inside.ndim)
    _check_diameter(diameter_mm, steps)
    # The border of the image is a border of the region.
    room = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=steps)[(slice(1, -1),) * inside.ndim]
    reach = _SHELL[1] * diameter_mm / 2
    free = room >= reach + max(steps)
    random = np.random.default_rng(seed)
    placed: list[InsertedLesion] = []
    places = np.argwhere(free)
    while len(placed) < count:
        if not len(places):
            raise InputError(
                f"There is room for {len(placed)} lesions of {diameter_mm:g} mm and their surroundings, not {count}; "
                "insert fewer or smaller ones, or give a larger region."
            )
        center = places[random.integers(len(places))]
        placed.append(InsertedLesion(tuple(float(n) for n in center), float(diameter_mm), float(contrast)))
        distance = np.sqrt((((places - center) * steps) ** 2).sum(axis=1))
        places = places[distance >= 2 * reach + max(steps)]
    return tuple(placed)


def insert_lesions(image: Any, lesions: Sequence[InsertedLesion], spacing: Sequence[float]) -> np.ndarray:
    """The image with the lesions added, float64; a voxel partly in a lesion gets that share of its contrast.

    image: (A, B) or (A, B, C), HU. spacing: mm. Raises InputError for a lesion that leaves the image or is smaller than
    two voxels.
    """
    values = np.array(image, dtype=np.float64)
    steps = _check_spacing(spacing, values.ndim)
    for lesion in lesions:
        _check_lesion(lesion, values.shape, steps)
        place, offsets = _around(lesion.center, lesion.diameter_mm / 2, values.shape, steps)
        values[place] += lesion.contrast * _ball(offsets, steps, lesion.diameter_mm / 2)
    return values


def check_lesions(
    before: Any,
    reconstruction: Any,
    lesions: Sequence[InsertedLesion],
    spacing: Sequence[float],
    *,
    without: Any = None,
    mask: Any = None,
    recovered: float = 0.5,
    visible: float = 3.0,
) -> LesionCheck:
    """Look for the lesions that were inserted, and for structures that were not.

    before: the true image without lesions, (A, B) or (A, B, C), HU. reconstruction: of measurements of
    ``insert_lesions(before, lesions, spacing)``. spacing: mm. without: a reconstruction by the same method of the same
    measurements (same noise) of ``before``; with it the recovery is that of the lesion alone, and not of anatomy and
    noise at its place. mask: where to look for unexpected structures; by default everywhere. recovered, visible: as at
    the top of this file.
    Raises InputError for images that do not fit, values that are not finite, or no lesions.
    """
    truth, shown = (np.asarray(values, dtype=np.float64) for values in (before, reconstruction))
    other = truth if without is None else np.asarray(without, dtype=np.float64)
    for values, name in ((truth, "image before"), (shown, "reconstruction"), (other, "reconstruction without lesions")):
        if values.shape != truth.shape:
            raise InputError(f"The {name} is of shape {values.shape} and not {truth.shape}; bring all to one grid.")
        wrong = int(values.size - np.isfinite(values).sum())
        if wrong:
            raise InputError(f"The {name} has {wrong} values that are not finite; replace them first.")
    region = np.ones(truth.shape, dtype=bool) if mask is None else np.asarray(mask).astype(bool)
    if region.shape != truth.shape:
        raise InputError(f"The region is of shape {region.shape} and the image {truth.shape}; bring both to one grid.")
    if not lesions:
        raise InputError("There are no inserted lesions to look for; insert some before simulating.")
    steps = _check_spacing(spacing, truth.ndim)
    alone = insert_lesions(np.zeros(truth.shape), lesions, spacing)
    truth = truth + alone
    away = region & ~_near(lesions, truth.shape, steps)
    found, structures = [], []
    for diameter in sorted({lesion.diameter_mm for lesion in lesions}):
        kernel = _contrast_weights(diameter / 2, steps)
        if any(side < part for side, part in zip(truth.shape, kernel.shape, strict=True)):
            raise InputError(f"The image is too small for the surroundings of a lesion of {diameter:g} mm.")
        excess = _local_contrast(shown - truth, kernel)
        # Where the surroundings lie in the image; and not at lesions, whose loss is counted there.
        looked = away & np.pad(
            np.ones([n - k + 1 for n, k in zip(truth.shape, kernel.shape, strict=True)], dtype=bool),
            [(k // 2, k // 2) for k in kernel.shape],
        )
        noise = _spread(excess[looked])
        same = [lesion for lesion in lesions if lesion.diameter_mm == diameter]
        weakest = math.inf
        for lesion in same:
            full = _contrast_at(alone, lesion, steps)
            weakest = min(weakest, abs(full))
            recovery = _contrast_at(shown - (other if without is not None else truth - alone), lesion, steps) / full
            to_noise = abs(recovery * full) / noise if noise > 0 else math.inf
            detected = recovery >= recovered and to_noise >= visible
            found.append(LesionRecovery(lesion, recovery, recovery * lesion.contrast, to_noise, bool(detected)))
        sizes = _local_contrast(shown, kernel), _local_contrast(truth, kernel)
        for center in _peaks(np.where(looked, np.abs(excess), 0), recovered * weakest, diameter, steps):
            kind = "added" if abs(sizes[0][center]) >= abs(sizes[1][center]) else "lost"
            structures.append(UnexpectedStructure(center, diameter, float(excess[center]), kind))
    order = {lesion: n for n, lesion in enumerate(lesions)}
    found.sort(key=lambda recovery: order[recovery.lesion])
    return LesionCheck(tuple(found), tuple(_strongest(structures, steps)))


def _check_spacing(spacing: Sequence[float], dimensions: int) -> np.ndarray:
    steps = np.asarray(tuple(spacing), dtype=np.float64)
    if dimensions not in (2, 3):
        raise InputError(f"An image of {dimensions} axes has no lesions; give a slice (A, B) or a volume (A, B, C).")
    if steps.shape != (dimensions,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise InputError(f"A spacing of {steps.tolist()} mm does not fit; give {dimensions} numbers above 0.")
    return steps


def _check_diameter(diameter: float, steps: np.ndarray) -> None:
    if not (math.isfinite(diameter) and diameter >= 2 * steps.min()):
        raise InputError(
            f"A lesion of {diameter:g} mm cannot be told from noise on voxels of {steps.min():g} mm; "
            f"give {2 * steps.min():g} mm or more."
        )


def _check_lesion(lesion: InsertedLesion, shape: tuple[int, ...], steps: np.ndarray) -> None:
    _check_diameter(lesion.diameter_mm, steps)
    if not (math.isfinite(lesion.contrast) and lesion.contrast):
        raise InputError(f"A lesion of contrast {lesion.contrast:g} HU cannot be found again; give another number.")
    center, half = np.asarray(lesion.center, dtype=np.float64), lesion.diameter_mm / 2 / steps
    if center.shape != (len(shape),) or not (np.isfinite(center).all() and (center - half >= -0.5).all()):
        raise InputError(f"The lesion at {lesion.center} leaves the image of {shape} voxels; move it.")
    if (center + half > np.array(shape) - 0.5).any():
        raise InputError(f"The lesion at {lesion.center} leaves the image of {shape} voxels; move it.")


def _around(
    center: Sequence[float], radius: float, shape: tuple[int, ...], steps: np.ndarray
) -> tuple[tuple[slice, ...], list[np.ndarray]]:
    """The voxels that a ball touches, cut at the image's border, and how far they are from its center, voxels."""
    place, offsets = [], []
    for middle, side, step in zip(center, shape, steps, strict=True):
        low = max(0, math.floor(middle - radius / step))
        high = min(side, math.ceil(middle + radius / step) + 1)
        place.append(slice(low, high))
        offsets.append(np.arange(low, high) - middle)
    return tuple(place), offsets


def _ball(offsets: Sequence[np.ndarray], steps: np.ndarray, radius: float) -> np.ndarray:
    """The share of each voxel that lies in a ball. offsets: of the voxels from its center, voxels, along each axis."""
    points = (np.arange(_POINTS) + 0.5) / _POINTS - 0.5
    squared = np.zeros(())
    for axis, (offset, step) in enumerate(zip(offsets, steps, strict=True)):
        along = ((offset[:, None] + points) * step) ** 2
        squared = squared[(..., None)] + along.ravel() if axis else along.ravel()
    share = (squared <= radius**2).astype(np.float64)
    for axis in range(share.ndim):
        share = np.moveaxis(share, axis, -1)
        share = np.moveaxis(share.reshape(*share.shape[:-1], -1, _POINTS).mean(axis=-1), -1, axis)
    return share


def _weights(offsets: Sequence[np.ndarray], steps: np.ndarray, radius: float) -> np.ndarray:
    """What K multiplies voxels by: it is 1 in sum over the core, −1 over the shell."""
    core, inner, outer = (_ball(offsets, steps, part * radius) for part in (_CORE, *_SHELL))
    shell = outer - inner
    return core / core.sum() - shell / shell.sum()


def _contrast_weights(radius: float, steps: np.ndarray) -> np.ndarray:
    """K round the middle of a voxel; odd sides."""
    halves = [math.ceil(_SHELL[1] * radius / step) for step in steps]
    return _weights([np.arange(-half, half + 1) for half in halves], steps, radius)


def _contrast_at(values: np.ndarray, lesion: InsertedLesion, steps: np.ndarray) -> float:
    """K round a lesion, HU."""
    radius = lesion.diameter_mm / 2
    place, offsets = _around(lesion.center, _SHELL[1] * radius, values.shape, steps)
    return float((values[place] * _weights(offsets, steps, radius)).sum())


def _local_contrast(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """K round every voxel, HU; near the border the image goes on as 0. The kernel is its own mirror image."""
    return signal.oaconvolve(values, kernel, mode="same")


def _near(lesions: Sequence[InsertedLesion], shape: tuple[int, ...], steps: np.ndarray) -> np.ndarray:
    """Where K depends on a lesion: its core or shell touches one."""
    widest = max(lesion.diameter_mm for lesion in lesions) / 2
    near = np.zeros(shape, dtype=bool)
    for lesion in lesions:
        place, offsets = _around(lesion.center, lesion.diameter_mm / 2 + _SHELL[1] * widest, shape, steps)
        reach = lesion.diameter_mm / 2 + _SHELL[1] * widest
        near[place] |= _ball(offsets, steps, reach) > 0
    return near


def _spread(values: np.ndarray) -> float:
    """Standard deviation of K, from its median absolute deviation: a few real structures do not count as noise."""
    if not values.size:
        return 0.0
    return float(1.482602 * np.median(np.abs(values - np.median(values))))


def _peaks(size: np.ndarray, threshold: float, diameter: float, steps: np.ndarray) -> list[tuple[int, ...]]:
    """Places of local maxima at or above a threshold, no two within a diameter, by falling size."""
    halves = [max(1, round(diameter / 2 / step)) for step in steps]
    highest = ndimage.maximum_filter(size, size=[2 * half + 1 for half in halves], mode="constant")
    places = np.argwhere((size == highest) & (size >= threshold) & (size > 0))
    places = places[np.argsort(-size[tuple(places.T)], kind="stable")]
    kept: list[tuple[int, ...]] = []
    while len(places):
        kept.append(tuple(int(n) for n in places[0]))
        places = places[np.sqrt((((places - places[0]) * steps) ** 2).sum(axis=1)) > diameter]
    return kept


def _strongest(structures: list[UnexpectedStructure], steps: np.ndarray) -> list[UnexpectedStructure]:
    """One for each place: of those found at several sizes, the strongest."""
    kept: list[UnexpectedStructure] = []
    for new in sorted(structures, key=lambda structure: -abs(structure.contrast)):
        apart = (
            math.dist(np.array(new.center) * steps, np.array(old.center) * steps)
            > max(new.diameter_mm, old.diameter_mm)
            for old in kept
        )
        if all(apart):
            kept.append(new)
    return kept
