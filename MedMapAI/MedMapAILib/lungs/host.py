"""A scan that nodules are put into, and what has to be known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..image import affine_of
from .axes import Storage, oriented_affine, to_patient_axes
from .hounsfield import hounsfield_problem
from .mask import lung_mask
from .noise import NoiseTexture, edge_width, noise_texture, rough

#: Vessels in the lung are above (HU) on the grid of the maps.
_VESSEL = -600.0
#: Wanted spacing of the maps in the slice, mm.
_GRID = 1.4


@dataclass(frozen=True)
class HostScan:
    """A scan along the patient's axes (right, front, head) with its maps.

    voxels: float32 (I, J, K) HU. lungs: bool (I, J, K). spacing: mm. affine: voxel index of these → RAS mm. storage:
    how the image itself is stored. Maps on a grid ``factor`` times as coarse in the slice: depth (mm to the nearest
    voxel that is no lung), to_vessel (mm), mediastinal (bool: no place for a nodule on the pleura), to_forbidden (mm,
    or None where nothing is forbidden). texture: of its noise. sharpness: standard deviation of its blur, mm.
    """

    voxels: np.ndarray
    lungs: np.ndarray
    spacing: tuple[float, float, float]
    affine: np.ndarray
    storage: Storage
    factor: int
    depth: np.ndarray
    to_vessel: np.ndarray
    mediastinal: np.ndarray
    to_forbidden: np.ndarray | None
    texture: NoiseTexture
    sharpness: float

    @property
    def map_spacing(self) -> tuple[float, float, float]:
        """Of the maps, mm."""
        return (self.spacing[0] * self.factor, self.spacing[1] * self.factor, self.spacing[2])


def prepare_host(
    image: object,
    *,
    lungs: np.ndarray | None = None,
    avoid: Sequence[Sequence[float]] = (),
    seed: int = 0,
) -> HostScan:
    """What is needed to put nodules into a CT, computed once.

    image: MetaTensor (1, I, J, K), HU. lungs: its lung mask (I, J, K) where it is known already. avoid: boxes where
    nothing may be put, such as the patient's own lesions: lowest right, anterior, superior, then highest, RAS mm.
    Raises InputError where the values are no HU or there are no lungs.
    """
    problem = hounsfield_problem(image)
    if problem:
        raise InputError(problem)
    if lungs is None:
        lungs = lung_mask(image)
    affine = affine_of(image)
    voxels, spacing, storage = to_patient_axes(np.asarray(image)[0], affine)
    turned, _, _ = to_patient_axes(np.asarray(lungs, bool), affine)
    voxels, turned = np.ascontiguousarray(voxels, dtype=np.float32), np.ascontiguousarray(turned)
    matrix = oriented_affine(affine, storage, voxels.shape)
    factor = max(1, round(_GRID / spacing[0]))
    steps = (spacing[0] * factor, spacing[1] * factor, spacing[2])
    coarse = _reduced(voxels, factor)
    lung = _reduced(turned.astype(np.float32), factor) > 0.5
    # A scan may end within the lung: its first and last slice are no pleura.
    depth = ndimage.distance_transform_edt(np.pad(lung, ((0, 0), (0, 0), (1, 1)), "edge"), steps)[:, :, 1:-1]
    vessels = (depth > 3.0) & (coarse > _VESSEL)
    to_vessel = ndimage.distance_transform_edt(~vessels, steps) if vessels.any() else np.full(lung.shape, 1e3)
    # Smoothed, for a noisy scan has hardly a voxel of soft tissue that looks like it.
    smooth = ndimage.uniform_filter(voxels, (9, 9, 1))
    tissue = (smooth > -20) & (smooth < 150) & ~turned
    forbidden = _boxes(avoid, matrix, lung.shape, factor)
    return HostScan(
        voxels,
        turned,
        spacing,
        matrix,
        storage,
        factor,
        depth.astype(np.float32),
        to_vessel.astype(np.float32),
        _mediastinal(lung, steps),
        None if not forbidden.any() else ndimage.distance_transform_edt(~forbidden, steps).astype(np.float32),
        noise_texture(voxels, tissue, np.random.default_rng(seed)),
        _sharpness(voxels, turned, spacing, np.random.default_rng([seed, 1])),
    )


def local_noise(host: HostScan, where: tuple[slice, slice, slice]) -> float:
    """Standard deviation of the noise (HU) in the lung around a place, with the spectrum of the scan's own noise.

    where: voxels of the place; lung without vessels within 20 mm of it is looked at.
    """
    around = tuple(
        slice(max(0, part.start - round(20 / step)), part.stop + round(20 / step))
        for part, step in zip(where[:2], host.spacing[:2], strict=True)
    )
    values = host.voxels[around[0], around[1], where[2]]
    smooth = ndimage.uniform_filter(values, (5, 5, 1))
    lung = host.lungs[around[0], around[1], where[2]] & (smooth < -750)
    seen = np.abs(rough(values)[lung])
    if seen.size < 200:
        return 15.0
    # The lower quartile: small vessels and walls are in the rest. 0.3186 is that of |N(0, 1)|.
    return float(np.quantile(seen, 0.25) / 0.3186 / host.texture.roughness)


def _reduced(voxels: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks in the slice; the remainder at the far end is left out."""
    if factor == 1:
        return voxels
    i, j = (n // factor for n in voxels.shape[:2])
    cut = voxels[: i * factor, : j * factor]
    return cut.reshape(i, factor, j, factor, -1).mean(axis=(1, 3), dtype=np.float32)


def _mediastinal(lung: np.ndarray, steps: tuple[float, float, float]) -> np.ndarray:
    """Where the pleura is that of the mediastinum or the diaphragm's dome: near what has lung on both sides of it."""
    before = np.maximum.accumulate(lung, axis=0)
    after = np.maximum.accumulate(lung[::-1], axis=0)[::-1]
    between = before & after & ~lung
    above = np.maximum.accumulate(lung[:, :, ::-1], axis=2)[:, :, ::-1] & ~lung
    return ndimage.distance_transform_edt(~(between | above), steps) < 8.0


def _boxes(avoid: Sequence[Sequence[float]], affine: np.ndarray, shape: tuple[int, ...], factor: int) -> np.ndarray:
    """Voxels of the maps inside one of the boxes (RAS mm)."""
    result = np.zeros(shape, bool)
    if not len(avoid):
        return result
    offset = (factor - 1) / 2
    index = np.indices(shape, dtype=np.float32).reshape(3, -1)
    index[:2] = index[:2] * factor + offset
    place = affine[:3, :3] @ index + affine[:3, 3:]
    for box in avoid:
        low, high = np.array(box[:3])[:, None], np.array(box[3:])[:, None]
        # Half a slice more: a box may be thinner than the scan's slices.
        slack = np.abs(affine[:3, :3]).sum(axis=1)[:, None] / 2
        result |= ((place >= low - slack) & (place <= high + slack)).all(axis=0).reshape(shape)
    return result


def _sharpness(
    voxels: np.ndarray, lungs: np.ndarray, spacing: tuple[float, float, float], rng: np.random.Generator
) -> float:
    """The blur of edges, mm: median over pieces as large as those that nodules come in, so both are measured alike.

    In the whole scan the sharpest edges would be those of bone, which no nodule has near it.
    """
    places = np.flatnonzero(lungs)
    half = [int(np.ceil(15 / spacing[0])), int(np.ceil(15 / spacing[1])), int(np.ceil(4 / spacing[2]))]
    widths = []
    for place in rng.choice(places, min(60, len(places)), replace=False):
        index = np.unravel_index(int(place), lungs.shape)
        piece = voxels[tuple(slice(max(0, n - h), n + h + 1) for n, h in zip(index, half, strict=True))]
        width = edge_width(piece, spacing)
        if width != 1.0:  # there are edges
            widths.append(width)
    return float(np.median(widths)) if widths else 1.0
