"""From what each reader of LIDC-IDRI drew to the nodules of a scan: which outlines are one nodule, and its voxels.

Which outlines belong together is found as pylidc does it (Hancock and Magnan, Journal of Medical Imaging 2016; its
``Scan.cluster_annotations`` and ``utils.consensus``): those whose lines come closer than the distance between slices,
less where one reader would be in a nodule twice; and the consensus are the voxels that a part of those who outlined the
nodule have in common. Centers and diameters of single readers come out as LUNA16 has them (tested).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, cKDTree
from scipy.spatial.distance import cdist, pdist
from skimage.draw import line, polygon

from ..results import Finding
from .dicom_grid import SeriesGrid
from .instances import equivalent_diameter, finding_of_mask
from .lidc_xml import RATINGS, Contour, Mark, Outline, Reading

#: The diameter (mm) of lesions that were only marked, with which LUNA16's evaluation ignores hits near them.
MARK_DIAMETER_MM = 10.0
#: Lines this far apart (mm) are not taken apart any further, and the factor on the way there; both are pylidc's.
_CLOSEST_MM, _FACTOR = 0.1, 0.9
#: Marks within this distance (mm; or that of slices, where it is larger) are in the same lesion.
_SAME_LESION_MM = 3.0
#: A slice this part of a distance off (in ``imageZposition``) is the one that is meant.
_SAME_HEIGHT = 0.1


@dataclass
class Nodules:
    """What is known of a scan.

    findings: nodules of 3 mm or more that enough readers saw. ignored: those that fewer saw, and all lesions that were
    only marked. missing: heights (mm) of slices under a nodule that are not in the series. outside: names of what lies
    in slices beyond its ends, cut: of nodules of which a part does; tiny: of nodules whose outline holds no voxel.
    """

    findings: list[Finding] = field(default_factory=list)
    ignored: list[Finding] = field(default_factory=list)
    missing: dict[str, list[float]] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    tiny: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Drawn:
    """An outline on the grid. low: index (i, j, k) of the first voxel of values (bool). line: (N, 3) indices."""

    outline: Outline
    low: np.ndarray
    values: np.ndarray
    line: np.ndarray


def nodules_of(reading: Reading, grid: SeriesGrid, consensus: float, label: str) -> Nodules:
    """The nodules of one scan, in the order of the reading.

    consensus: above 0 and up to 1, the part of all readers that must have outlined a nodule for it to count, and the
    part of those who did that must agree on a voxel of it. Findings have their voxels, the diameter of a ball of the
    same volume, and in ``about``: readers (how many outlined it), of_readers, ratings (name → one number a reader),
    centroid (RAS mm), largest_axial_mm (the largest distance of two corners of its voxels in one slice) and
    reader_diameters_mm.
    """
    result = Nodules()
    drawn = [d for outline in reading.outlines if (d := _draw(outline, grid, result)) is not None]
    for group in match(drawn, grid):
        finding = _finding([drawn[n] for n in group], reading, grid, consensus, label)
        seen = finding.about["readers"] / reading.readers
        (result.findings if seen >= consensus - 1e-9 else result.ignored).append(finding)
    _add_marks(reading.marks, grid, result, label)
    return result


def slice_of(grid: SeriesGrid, instance: str, z: float) -> int | None:
    """The index of a slice by its SOPInstanceUID, or, in copies with new ones, by its height (mm); None if absent."""
    if instance in grid.slices:
        return grid.slices[instance]
    nearest = int(np.argmin(np.abs(grid.heights - z)))
    return nearest if abs(grid.heights[nearest] - z) <= _SAME_HEIGHT * grid.between else None


def interior(contour: Contour, size: tuple[int, int]) -> np.ndarray:
    """What a contour goes round, without its line, which by LIDC's rule is the first pixels outside: bool (columns,
    rows) of the given size."""
    x, y = contour.points.T
    inside = np.zeros(size, dtype=bool)
    inside[polygon(x, y, size)] = True
    for (x0, y0), (x1, y1) in zip(contour.points, np.roll(contour.points, -1, axis=0), strict=True):
        columns, rows = line(x0, y0, x1, y1)
        known = (columns >= 0) & (rows >= 0) & (columns < size[0]) & (rows < size[1])
        inside[columns[known], rows[known]] = False
    return inside


def match(drawn: Sequence[_Drawn], grid: SeriesGrid) -> list[list[int]]:
    """Which outlines are one nodule: groups of indices, each outline in one of them."""
    scale = np.array([np.linalg.norm(grid.affine[:3, axis]) for axis in range(3)])
    count = len(drawn)
    distances = np.zeros((count, count))
    trees = [cKDTree(one.line * scale) for one in drawn]
    for a in range(count):
        for b in range(a + 1, count):
            nearest = 0.0 if _overlap(drawn[a], drawn[b]) else trees[a].query(trees[b].data)[0].min()
            distances[a, b] = distances[b, a] = nearest

    def apart(members: list[int], tolerance: float) -> list[list[int]]:
        _, groups = connected_components(distances[np.ix_(members, members)] <= tolerance, directed=False)
        parts = [[members[n] for n in np.flatnonzero(groups == group)] for group in range(groups.max() + 1)]
        return [
            smaller
            for part in parts
            for smaller in (
                apart(part, tolerance * _FACTOR)
                if _a_reader_twice([drawn[n] for n in part]) and tolerance * _FACTOR >= _CLOSEST_MM
                else [part]
            )
        ]

    return sorted(apart(list(range(count)), grid.between)) if count else []


def _a_reader_twice(drawn: Sequence[_Drawn]) -> bool:
    return len({one.outline.reader for one in drawn}) < len(drawn)


def _overlap(a: _Drawn, b: _Drawn) -> bool:
    low = np.maximum(a.low, b.low)
    high = np.minimum(a.low + a.values.shape, b.low + b.values.shape)
    if (low >= high).any():
        return False
    parts = [
        one.values[tuple(slice(p - o, q - o) for p, q, o in zip(low, high, one.low, strict=True))] for one in (a, b)
    ]
    return bool((parts[0] & parts[1]).any())


def _draw(outline: Outline, grid: SeriesGrid, result: Nodules) -> _Drawn | None:
    """The outline on the grid; None, and listed in ``result``, where it cannot be."""
    name = f"{outline.name} of reader {outline.reader + 1}"
    placed = [(slice_of(grid, contour.instance, contour.z), contour) for contour in outline.contours]
    low, high = grid.heights.min(), grid.heights.max()
    absent = sorted({contour.z for index, contour in placed if index is None})
    within = [z for z in absent if low < z < high]
    indices = sorted({index for index, _ in placed if index is not None})
    within += [float(grid.heights[n : n + 2].mean()) for n in grid.gaps if indices and indices[0] <= n < indices[-1]]
    if within:
        result.missing[name] = sorted(set(within))
        return None
    if not indices:
        result.outside.append(name)
        return None
    if absent:
        result.cut.append(name)
    placed = [(index, contour) for index, contour in placed if index is not None]
    points = np.concatenate([np.c_[contour.points, np.full(len(contour.points), index)] for index, contour in placed])
    start = np.maximum(points.min(axis=0), 0)
    end = np.minimum(points.max(axis=0) + 1, grid.shape)
    if (start >= end).any():
        result.outside.append(name)
        return None
    values = np.zeros(end - start, dtype=bool)
    # Holes after what they are in.
    for index, contour in sorted(placed, key=lambda pair: not pair[1].included):
        moved = Contour(contour.z, contour.instance, contour.points - start[:2], contour.included)
        values[..., index - start[2]][interior(moved, values.shape[:2])] = contour.included
    if not values.any():
        result.tiny.append(name)
        kept = points[((points >= start) & (points < end)).all(axis=1)] - start
        values[tuple(kept.T)] = True
    return _Drawn(outline, start, values, points)


def _finding(group: Sequence[_Drawn], reading: Reading, grid: SeriesGrid, consensus: float, label: str) -> Finding:
    low = np.min([one.low for one in group], axis=0)
    high = np.max([one.low + one.values.shape for one in group], axis=0)
    readers = sorted({one.outline.reader for one in group})
    drawn = np.zeros((len(readers), *(high - low)), dtype=bool)
    for one in group:
        part = tuple(slice(p, p + n) for p, n in zip(one.low - low, one.values.shape, strict=True))
        drawn[readers.index(one.outline.reader)][part] |= one.values
    share = drawn.mean(axis=0)
    # Outlines that are chained by others, and have nothing in common: what most of them have.
    values = share >= min(consensus, share.max()) - 1e-9
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    centroid = np.argwhere(values).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    about: dict[str, Any] = {
        "kind": "nodule",
        "readers": len(readers),
        "of_readers": reading.readers,
        "ratings": {
            name: given
            for name in RATINGS
            if (given := [one.outline.ratings[name] for one in group if name in one.outline.ratings])
        },
        "centroid": [round(float(n), 4) for n in centroid],
        "largest_axial_mm": round(_largest_axial(values, affine), 4),
        "reader_diameters_mm": [round(equivalent_diameter(one, affine), 4) for one in drawn],
    }
    return finding_of_mask(values, affine, label, state="reference", about=about)


def _largest_axial(values: np.ndarray, affine: np.ndarray) -> float:
    """The largest distance (mm) of two corners of voxels in one slice."""
    largest = 0.0
    for k in np.flatnonzero(values.any(axis=(0, 1))):
        pixels = np.argwhere(values[..., k])
        corners = np.unique(np.concatenate([pixels + (a, b) for a in (0, 1) for b in (0, 1)]), axis=0)
        places = corners @ affine[:3, :2].T
        largest = max(largest, float(pdist(places[ConvexHull(corners).vertices]).max()))
    return largest


def _add_marks(marks: Sequence[Mark], grid: SeriesGrid, result: Nodules, label: str) -> None:
    """Lesions that were only marked, among the ignored; one finding where several readers marked the same."""
    places: list[tuple[np.ndarray, Mark]] = []
    for mark in marks:
        index = slice_of(grid, mark.instance, mark.z)
        if index is None or not all(0 <= n < size for n, size in zip(mark.point, grid.shape[:2], strict=True)):
            result.outside.append(f"{mark.kind} of reader {mark.reader + 1}")
            continue
        places.append((grid.affine[:3, :3] @ (*mark.point, index) + grid.affine[:3, 3], mark))
    if not places:
        return
    centers = np.array([place for place, _ in places])
    near = cdist(centers, centers) <= max(grid.between, _SAME_LESION_MM)
    count, groups = connected_components(near, directed=False)
    for group in range(count):
        members = np.flatnonzero(groups == group)
        about = {
            "kind": ", ".join(sorted({places[n][1].kind for n in members})),
            "readers": len({places[n][1].reader for n in members}),
            "size": "not known; as LUNA16's evaluation takes it",
        }
        center = tuple(centers[members].mean(axis=0))
        result.ignored.append(Finding(center, (MARK_DIAMETER_MM,) * 3, label, state="reference", about=about))
