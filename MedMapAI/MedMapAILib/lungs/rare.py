"""Nodules that are rare, made from the shape of those that are not: ground-glass and part-solid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from .nodules import HEALTHY, TISSUE, Nodule

#: Mean density of ground-glass, HU.
DENSITY = (-600.0, -400.0)


def ground_glass(nodule: Nodule, rng: np.random.Generator) -> Nodule:
    """A nodule of the same shape whose air is partly filled, so that vessels stay to be seen in it.

    Its mean is drawn from -600 to -400 HU, it varies by a tenth over some mm and ends softly.
    """
    density = rng.uniform(*DENSITY)
    filled = (density - HEALTHY) / (TISSUE - HEALTHY)
    waves = ndimage.gaussian_filter(rng.standard_normal(nodule.inside.shape), [1.5 / step for step in nodule.spacing])
    waves /= max(float(waves.std()), 1e-6)
    deep = ndimage.distance_transform_edt(nodule.inside, nodule.spacing)
    edge = np.clip(0.45 + 0.55 * deep / max(1.5, 0.3 * float(deep.max())), 0, 1)
    opacity = np.where(nodule.inside, filled * edge * (1 + 0.15 * waves), 0.35 * filled)
    return replace(
        nodule,
        entry=replace(nodule.entry, kind="ground-glass"),
        opacity=opacity.astype(np.float32),
        excess=np.zeros_like(nodule.excess),
    )


def part_solid(nodule: Nodule, rng: np.random.Generator) -> Nodule:
    """Ground-glass around a solid core: the donor's own tissue, in the deeper part of a shape of a third to two thirds
    of the diameter."""
    glass = ground_glass(nodule, rng)
    deep = ndimage.distance_transform_edt(nodule.inside, nodule.spacing)
    share = rng.uniform(0.35, 0.65)
    place = np.argwhere(deep > 0.6 * deep.max())
    middle = place[rng.integers(len(place))]
    index = np.indices(nodule.inside.shape).reshape(3, -1).T
    away = (np.linalg.norm((index - middle) * nodule.spacing, axis=1)).reshape(nodule.inside.shape)
    # The core is a ball cut to the nodule, its edge as irregular as the donor's depth.
    radius = share * nodule.entry.diameter_mm / 2
    core = 1 / (1 + np.exp(np.clip((away - radius - 0.3 * (deep - deep.max() / 2)) / 0.4, -30, 30)))
    core *= nodule.inside
    opacity = glass.opacity * (1 - core) + np.maximum(nodule.opacity, 0.85) * core
    return replace(glass, entry=replace(nodule.entry, kind="part-solid"), opacity=opacity.astype(np.float32))
