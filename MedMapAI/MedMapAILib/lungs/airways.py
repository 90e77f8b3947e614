"""Trachea and main bronchi, told from lung by what is in them: air, and nothing else."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

#: The lumen is darker than this (HU), and lung is not but for the wrong it does by emphysema.
_LUMEN = (-980.0, -965.0, -950.0, -935.0, -920.0, -900.0)
#: No trachea with its main bronchi holds more, mL; growing beyond has leaked into the lung.
_LARGEST_ML = 90.0
#: Cross-section of a trachea, mm².
_AREA = (60.0, 900.0)
#: How far beside the middle of the body a trachea may lie, mm.
_ASIDE = 45.0


def without_airways(air: np.ndarray, voxels: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
    """Air inside the body without trachea and main bronchi, bool (I, J, K).

    air: bool, along the patient's axes, head last. voxels: HU on the same grid. steps: its spacing, mm. Grown from
    round dark spots near the middle under rising thresholds, until that would leak into the lung.
    """
    lumen = _seeds(air, voxels, steps)
    if not lumen.any():
        return air
    limit = _LARGEST_ML * 1000 / float(np.prod(steps))
    # Growth keeps to a box around the middle: a leak ends there, and the box is quick.
    last = None
    for threshold in _LUMEN:
        numbers, _ = ndimage.label(air & (voxels < threshold) | lumen)
        touched = np.unique(numbers[lumen])
        grown = np.isin(numbers, touched[touched > 0])
        count = int(grown.sum())
        if count > limit or (last is not None and count > 2.5 * max(int(last.sum()), 1) and count > 0.2 * limit):
            break
        last = grown
    if last is None:
        last = lumen
    # The wall's partial volume is air by the threshold, too.
    around = ndimage.binary_dilation(last, ndimage.generate_binary_structure(3, 1)[:, :, 1:2], iterations=2)
    return air & ~around


def _seeds(air: np.ndarray, voxels: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
    """Round dark spots in the axial slices near the middle of the body, one above the other."""
    seeds = np.zeros_like(air)
    area = steps[0] * steps[1]
    where = np.flatnonzero(air.any(axis=(1, 2)))
    if not where.size:
        return seeds
    middle = (where[0] + where[-1]) / 2
    for k in range(air.shape[2]):
        numbers, count = ndimage.label(air[:, :, k] & (voxels[:, :, k] < -900))
        if not count:
            continue
        sizes = np.bincount(numbers.ravel(), minlength=count + 1)
        boxes = ndimage.find_objects(numbers)
        for number in range(1, count + 1):
            if not _AREA[0] <= sizes[number] * area <= _AREA[1]:
                continue
            box = boxes[number - 1]
            sides = [(part.stop - part.start) * step for part, step in zip(box, steps[:2], strict=True)]
            center = (box[0].start + box[0].stop - 1) / 2
            full = sizes[number] * area / (sides[0] * sides[1])
            if abs(center - middle) * steps[0] > _ASIDE or max(sides) > 2.5 * min(sides) or full < 0.55:
                continue
            spot = numbers == number
            ring = ndimage.binary_dilation(spot, iterations=3) & ~ndimage.binary_dilation(spot, iterations=2)
            # Lung around it: a bulla, not an airway in the mediastinum.
            if np.mean(voxels[:, :, k][ring]) > -450:
                seeds[:, :, k] |= spot
    numbers, count = ndimage.label(seeds)
    if not count:
        return seeds
    tall = [n for n, box in enumerate(ndimage.find_objects(numbers), 1) if (box[2].stop - box[2].start) * steps[2] > 12]
    if not tall:
        return np.zeros_like(seeds)
    return np.isin(numbers, tall)
