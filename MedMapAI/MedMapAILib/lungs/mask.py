"""Where the lungs are in a chest CT, by classical means.

Air inside the body, by a threshold (Hu, Hoffman and Reinhardt, IEEE Transactions on Medical Imaging 20(6), 2001:
thresholding, removing the airways, closing), on a grid of about 1.4 mm in the slice, where it is quick.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..image import affine_of, check_finite
from .airways import without_airways
from .axes import from_patient_axes, to_patient_axes

#: Voxels below are air or lung (HU): half way between lung (about -850) and soft tissue (about 50).
THRESHOLD = -400.0
#: Wanted spacing of the grid to work on, mm, in the slice and across.
_GRID = (1.4, 1.4, 2.0)
#: The smallest piece of lung that is kept, mL, and as a part of all lung.
_SMALLEST_ML, _SMALLEST_PART = 3.0, 0.01
#: Radius of the closing, mm: takes in nodules that touch the pleura, and vessels at the hilum.
_CLOSING = 12.0
#: Lung has vessels in it; gas in stomach and bowel has not. HU that a tenth of a piece of lung must exceed.
_GAS = -880.0

_NO_LUNGS = (
    "No lungs were found in this image: there is no air-filled space inside a body between -1000 and -400 HU; "
    "give a chest CT in Hounsfield units."
)


def lung_mask(image: Any) -> np.ndarray:
    """The lungs in a CT: bool (I, J, K) on the grid of the image, the same voxels however its axes are stored.

    image: MetaTensor (1, I, J, K) in HU with affine to RAS mm; a whole chest or some slices of it, up to about 7 mm.
    Trachea and main bronchi are left out. Vessels, and nodules also where they touch the pleura (closing by 12 mm in
    the slice), are part of the mask; a mass much larger than that at the chest wall is not. Raises InputError where
    there are no lungs in the image.
    """
    voxels = np.asarray(image)
    if voxels.ndim != 4 or voxels.shape[0] != 1:
        raise InputError(f"Lungs are looked for in an image of one channel (1, I, J, K), not in {voxels.shape}.")
    check_finite(voxels, "The image")
    oriented, spacing, storage = to_patient_axes(voxels[0], affine_of(image))
    factors = tuple(max(1, round(grid / step)) for grid, step in zip(_GRID, spacing, strict=True))
    coarse = _averaged(oriented, factors)
    steps = tuple(step * factor for step, factor in zip(spacing, factors, strict=True))
    air = _air_inside(coarse, steps)
    air = _pieces_of_lung(without_airways(air, coarse, steps), coarse, steps)
    closed = _closed(air, steps) & _body(coarse, steps)
    return from_patient_axes(_enlarged(closed, factors, oriented.shape), storage)


def _averaged(voxels: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Means of blocks of voxels; what is left over at the far end is repeated to fill the last block."""
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        missing = -voxels.shape[axis] % factor
        if missing:
            last = voxels.take([-1] * missing, axis=axis)
            voxels = np.concatenate([voxels, last], axis=axis)
        shape = list(voxels.shape)
        shape[axis : axis + 1] = [shape[axis] // factor, factor]
        voxels = voxels.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return np.asarray(voxels, dtype=np.float32)


def _enlarged(mask: np.ndarray, factors: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Back to the finer grid, by linear interpolation: no stairs at the pleura."""
    soft = mask.astype(np.float32)
    for axis, (factor, size) in enumerate(zip(factors, shape, strict=True)):
        if factor > 1:
            place = np.clip((np.arange(size) + 0.5) / factor - 0.5, 0, soft.shape[axis] - 1)
            low = np.minimum(place.astype(int), soft.shape[axis] - 1)
            high = np.minimum(low + 1, soft.shape[axis] - 1)
            weight = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
            soft = soft.take(low, axis=axis) * (1 - weight) + soft.take(high, axis=axis) * weight
    return soft > 0.5


def _body(voxels: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
    """The patient without the table, filled slice by slice."""
    tissue = voxels > -300
    flat = ndimage.generate_binary_structure(2, 1)[:, :, None]
    if steps[0] <= 2:
        # Sheets and the table top touch the skin by a voxel or two. Of coarse voxels the chest wall has no more.
        tissue = ndimage.binary_dilation(ndimage.binary_erosion(tissue, flat, border_value=1), flat)
    numbers, count = ndimage.label(tissue)
    if not count:
        raise InputError(_NO_LUNGS)
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    body = numbers == int(sizes.argmax())
    # Where arms or lung reach the edge of the picture the outline is open; a closing of 5 mm mends small gaps.
    gap = max(1, round(5 / steps[0]))
    padded = np.pad(body, ((gap, gap), (gap, gap), (0, 0)))
    padded = ndimage.binary_closing(padded, flat, iterations=gap)
    body = padded[gap:-gap, gap:-gap]
    for k in range(body.shape[2]):
        body[:, :, k] = ndimage.binary_fill_holes(body[:, :, k])
    return body


def _air_inside(voxels: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
    """Air and lung inside the body."""
    return (voxels < THRESHOLD) & _body(voxels, steps)


def _pieces_of_lung(air: np.ndarray, voxels: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
    """The pieces that are large enough and not gas. Raises InputError where there are none."""
    numbers, count = ndimage.label(air)
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:] * float(np.prod(steps)) / 1000
    if not count or sizes.max() < _SMALLEST_ML:
        raise InputError(_NO_LUNGS)
    kept = []
    for number in np.flatnonzero(sizes >= _SMALLEST_ML) + 1:
        inside = voxels[numbers == number]
        if np.quantile(inside, 0.8) > _GAS:
            kept.append((number, sizes[number - 1]))
    if not kept:
        raise InputError(_NO_LUNGS)
    total = sum(size for _, size in kept)
    return np.isin(numbers, [number for number, size in kept if size >= _SMALLEST_PART * total])


def _closed(lungs: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
    """Each lung closed by a disk in every axial slice, and its holes filled."""
    result = np.zeros_like(lungs)
    for side in _sides(lungs, steps):
        margin = [int(np.ceil(_CLOSING / step)) + 1 for step in steps[:2]]
        where = ndimage.find_objects(side.astype(np.uint8))[0]
        for k in range(where[2].start, where[2].stop):
            flat = np.pad(side[where[0], where[1], k], [(m, m) for m in margin])
            if not flat.any():
                continue
            grown = ndimage.distance_transform_edt(~flat, steps[:2]) <= _CLOSING
            grown = ndimage.distance_transform_edt(grown, steps[:2]) > _CLOSING
            filled = ndimage.binary_fill_holes(grown | flat)
            result[where[0], where[1], k] |= filled[margin[0] : -margin[0], margin[1] : -margin[1]]
    return result


def _sides(lungs: np.ndarray, steps: tuple[float, ...]) -> list[np.ndarray]:
    """Right and left lung apart, where they are two, also when they touch; first axis is right to left."""
    for shrink in (0.0, 2.0, 4.0, 6.0):
        core = lungs if not shrink else ndimage.distance_transform_edt(lungs, steps) > shrink
        numbers, count = ndimage.label(core)
        sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
        order = np.argsort(-sizes)
        if count > 1 and sizes[order[1]] > 0.15 * sizes[order[0]]:
            break
    else:
        return [lungs]
    seeds = np.zeros(lungs.shape, np.uint8)
    for side, number in enumerate(order[:2], start=1):
        seeds[numbers == number + 1] = side
    nearest = ndimage.distance_transform_edt(seeds == 0, steps, return_distances=False, return_indices=True)
    shared = seeds[tuple(nearest)]
    return [side for side in (lungs & (shared == 1), lungs & (shared == 2)) if side.any()]
