"""Findings and the voxels that they are made of: boxes round masks, and label maps in which a number is a finding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..image import affine_of
from ..results import Finding, FindingMask, Segmentation

#: Grids whose voxels lie no further than this part of a voxel apart are one.
_SAME_GRID = 0.01


def bounds_of_mask(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest box along the patient's axes round all true voxels, each taken whole.

    values: bool (i, j, k), not empty. affine: 4x4, voxel index → RAS mm. Returns the lowest and the highest right,
    anterior, superior, mm. A voxel reaches from its center half the sum of the sizes of its edges along each axis,
    which on an oblique grid is further than half an edge. Raises ValueError where no voxel is true.
    """
    indices = np.argwhere(values)
    if not len(indices):
        raise ValueError("no voxel is true")
    centers = indices @ affine[:3, :3].T + affine[:3, 3]
    reach = np.abs(affine[:3, :3]).sum(axis=1) / 2
    return centers.min(axis=0) - reach, centers.max(axis=0) + reach


def box_of_edges(
    low: Sequence[float], high: Sequence[float], affine: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Center and size, RAS mm, of a box along the patient's axes round a box along those of a grid.

    low, high: its edges in voxels, where voxel n reaches from n to n + 1. affine: 4x4, index of a voxel's center → RAS
    mm.
    """
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    center = affine[:3, :3] @ ((low + high) / 2 - 0.5) + affine[:3, 3]
    size = np.abs(affine[:3, :3]) @ (high - low)
    return tuple(float(n) for n in center), tuple(float(n) for n in size)


def cropped(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of values (i, j, k) that holds all true ones, which there are, and the 4x4 matrix of that part."""
    indices = np.argwhere(values)
    low, high = indices.min(axis=0), indices.max(axis=0) + 1
    placed = np.array(affine, dtype=np.float64)
    placed[:3, 3] += placed[:3, :3] @ low
    return values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].copy(), placed


def equivalent_diameter(values: np.ndarray, affine: np.ndarray) -> float:
    """Diameter (mm) of the ball that is as large as all true voxels together, (6 V / π)^(1/3)."""
    volume = float(values.sum()) * abs(float(np.linalg.det(affine[:3, :3])))
    return (6 * volume / math.pi) ** (1 / 3)


def finding_of_mask(values: np.ndarray, affine: np.ndarray, label: str, **about: Any) -> Finding:
    """A finding from its voxels: the box round them (``bounds_of_mask``), and the voxels, cropped to it.

    values: bool (i, j, k) on the grid that affine (4x4, voxel index → RAS mm) places. Its diameter is that of a ball of
    the same volume, as LUNA16 measures it. about: further fields of ``results.Finding``. Raises ValueError where no
    voxel is true.
    """
    values = np.asarray(values, dtype=bool)
    low, high = bounds_of_mask(values, affine)
    mask = FindingMask(*cropped(values, affine))
    about.setdefault("measured_diameter_mm", equivalent_diameter(mask.values, mask.affine))
    return Finding(tuple((low + high) / 2), tuple(high - low), label, mask=mask, **about)


def findings_of_segmentation(segmentation: Segmentation, label: str, **about: Any) -> tuple[Finding, ...]:
    """Each part of each segment as a finding of one class, with its voxels; parts touch by faces, edges or corners.

    about: further fields of ``results.Finding``.
    """
    labels, findings = np.asarray(segmentation.labels), []
    for segment in segmentation.segments:
        parts, count = ndimage.label(labels == segment.value, structure=np.ones((3, 3, 3)))
        findings += [
            finding_of_mask(parts == number, segmentation.affine, label, **about) for number in range(1, count + 1)
        ]
    return tuple(findings)


def instances_of(findings: Sequence[Finding], image: Any) -> np.ndarray:
    """A label map (I, J, K), int16, on the grid of an image: n + 1 where ``findings[n]`` is, 0 elsewhere.

    image: a MetaTensor (C, I, J, K), or whatever has an ``affine`` (voxel index → RAS mm) and a ``shape`` that ends in
    I, J, K. Masks on another grid are taken at the nearest voxel. Of a finding without a mask it is the ellipsoid that
    touches the six sides of its box. Where findings meet, the smaller one is on top. One that is smaller than a voxel
    is the voxel that its center lies in; one that lies outside is nowhere. Raises InputError for more than 32767.
    """
    if len(findings) > np.iinfo(np.int16).max:
        raise InputError(f"A scan with {len(findings)} findings is more than a label map can tell apart (32767).")
    affine = affine_of(image)
    instances = np.zeros(tuple(int(n) for n in image.shape[-3:]), dtype=np.int16)
    for number in sorted(range(len(findings)), key=lambda n: -float(np.prod(findings[n].size))):
        finding = findings[number]
        region = _region(finding, affine, instances.shape)
        if region is None:
            continue
        place = np.moveaxis(np.indices([part.stop - part.start for part in region]), 0, -1)
        place = (place + [part.start for part in region]) @ affine[:3, :3].T + affine[:3, 3]
        inside = _in_ellipsoid(finding, place) if finding.mask is None else _in_mask(finding.mask, place)
        if inside.any():
            instances[region][inside] = number + 1
            continue
        index = np.round(np.linalg.inv(affine) @ [*finding.center, 1.0])[:3].astype(int)
        if (index >= 0).all() and (index < instances.shape).all():
            instances[tuple(index)] = number + 1
    return instances


def _region(finding: Finding, affine: np.ndarray, shape: Sequence[int]) -> tuple[slice, slice, slice] | None:
    """The part of the grid whose voxels can be inside the box of a finding; None where there is none."""
    bounds = np.array(finding.bounds).reshape(2, 3)
    corners = np.array([[bounds[a, 0], bounds[b, 1], bounds[c, 2], 1] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    indices = (corners @ np.linalg.inv(affine).T)[:, :3]
    low = np.maximum(np.floor(indices.min(axis=0) + _SAME_GRID), 0).astype(int)
    high = np.minimum(np.ceil(indices.max(axis=0) - _SAME_GRID) + 1, shape).astype(int)
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)) if (low < high).all() else None


def _in_ellipsoid(finding: Finding, place: np.ndarray) -> np.ndarray:
    """Which positions (…, 3), RAS mm, lie in the ellipsoid in the box of a finding."""
    return (((place - finding.center) / (np.array(finding.size) / 2)) ** 2).sum(axis=-1) <= 1


def _in_mask(mask: FindingMask, place: np.ndarray) -> np.ndarray:
    """Which positions (…, 3), RAS mm, lie in a true voxel of a mask."""
    inverse = np.linalg.inv(mask.affine)
    index = np.floor(place @ inverse[:3, :3].T + inverse[:3, 3] + 0.5).astype(int)
    known = ((index >= 0) & (index < mask.values.shape)).all(axis=-1)
    inside = np.zeros(known.shape, dtype=bool)
    inside[known] = mask.values[tuple(index[known].T)]
    return inside
