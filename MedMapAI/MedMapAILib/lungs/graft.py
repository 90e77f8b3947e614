"""A donor nodule turned, scaled and brought to the grid of a host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

from .nodules import Nodule

#: A contour lies where the eye sees the edge; that far beyond it the blurred edge still belongs to the nodule, mm.
_RIM = 1.1
#: Softness (standard deviation, mm) with which the mask ends beyond.
_SOFT = 0.7
#: Around the mask that much is computed, mm.
_MARGIN = 3.0


@dataclass(frozen=True)
class Pose:
    """matrix: 3x3, mm of the donor along its patient's axes → mm of the host, with rotation, flips and scale. scale:
    the part of it that is size."""

    matrix: np.ndarray
    scale: float


@dataclass(frozen=True)
class Graft:
    """A nodule on the host's grid. start: index of its first voxel. opacity: float32 (i, j, k), what part of the air is
    filled. excess: HU beyond tissue. inside: part of each voxel that the readers' mask fills, 0 to 1."""

    start: tuple[int, int, int]
    opacity: np.ndarray
    excess: np.ndarray
    inside: np.ndarray

    @property
    def where(self) -> tuple[slice, slice, slice]:
        """The voxels of the host."""
        return tuple(slice(s, s + n) for s, n in zip(self.start, self.opacity.shape, strict=True))


def random_pose(rng: np.random.Generator) -> Pose:
    """Any turn about the long axis of the patient, up to 15 degrees about the others, mirrored or not along each axis,
    scaled by 0.8 to 1.25."""
    about_z = rng.uniform(0, 2 * np.pi)
    about_x, about_y = rng.uniform(-1, 1, 2) * np.radians(15)
    scale = float(np.exp(rng.uniform(np.log(0.8), np.log(1.25))))
    flips = np.diag(rng.choice([-1.0, 1.0], 3))
    return Pose(_about(2, about_z) @ _about(0, about_x) @ _about(1, about_y) @ flips * scale, scale)


def turned_to(pose: Pose, direction: np.ndarray, wanted: np.ndarray) -> Pose:
    """A pose turned about the long axis so that in the slice a direction (in the host) points where it is wanted."""
    turn = np.arctan2(wanted[1], wanted[0]) - np.arctan2(direction[1], direction[0])
    return Pose(_about(2, float(turn)) @ pose.matrix, pose.scale)


def half_size(nodule: Nodule, pose: Pose) -> np.ndarray:
    """Half the sides (mm) of the box along the host's axes that holds the turned mask."""
    points = np.argwhere(nodule.inside) - np.array(ndimage.center_of_mass(nodule.inside))
    reach = np.abs((points * nodule.spacing) @ pose.matrix.T).max(axis=0)
    return reach + 0.5 * np.abs(pose.matrix) @ np.array(nodule.spacing)


def make_graft(
    nodule: Nodule,
    pose: Pose,
    center: np.ndarray,
    spacing: tuple[float, float, float],
    shape: tuple[int, ...],
    sharpness: float,
) -> Graft:
    """The nodule with its center of mass at ``center`` (voxel index of the host, float).

    spacing, shape: of the host. A slice of the host is a mean over its thickness: the donor is sampled several times
    across it, over the width by which it is thicker than the donor's slices (widths add as squares). Where the host is
    blurred more than the donor (``sharpness``, mm), the rest of the blur is added.
    """
    center = np.asarray(center, float)
    steps = np.array(spacing)
    reach = half_size(nodule, pose) + _MARGIN
    first = np.maximum(np.floor(center - reach / steps), 0).astype(int)
    last = np.minimum(np.ceil(center + reach / steps), np.array(shape) - 1).astype(int)
    size = tuple(int(n) for n in last - first + 1)
    donor_thickness = nodule.spacing[2] * pose.scale
    width = np.sqrt(max(spacing[2] ** 2 - donor_thickness**2, 0.0))
    count = int(np.clip(np.ceil(width / 0.8), 1, 8))
    shifts = ((np.arange(count) + 0.5) / count - 0.5) * width
    middle = np.array(ndimage.center_of_mass(nodule.inside))
    to_donor = np.linalg.inv(pose.matrix) / np.array(nodule.spacing)[:, None]
    grid = np.indices(size, dtype=np.float64).reshape(3, -1) + (first - center)[:, None]
    grid *= steps[:, None]
    distance, opacity, excess = _padded(nodule)
    pad = _PAD
    total = [np.zeros(size, np.float32) for _ in range(3)]
    for shift in shifts:
        place = to_donor @ (grid + np.array([0, 0, shift])[:, None]) + (middle + pad)[:, None]
        deep = ndimage.map_coordinates(distance, place, order=1, mode="nearest").reshape(size) * pose.scale
        window = special.ndtr((deep + _RIM * pose.scale) / _SOFT).astype(np.float32)
        seen = ndimage.map_coordinates(opacity, place, order=3, mode="nearest", prefilter=False).reshape(size)
        total[0] += window * np.clip(seen, -0.15, 1.05)
        if excess is not None:
            total[1] += window * ndimage.map_coordinates(excess, place, order=1, mode="nearest").reshape(size)
        total[2] += deep > 0
    blur = np.sqrt(max(sharpness**2 - (nodule.sharpness * pose.scale) ** 2, 0.0))
    parts = [part / count for part in total]
    if blur > 0.1:
        sigma = (blur / spacing[0], blur / spacing[1], 0)
        parts[:2] = [ndimage.gaussian_filter(part, sigma, mode="constant") for part in parts[:2]]
    return Graft(tuple(int(n) for n in first), *parts)


#: Voxels around a donor, so that interpolation sees how it ends.
_PAD = np.array([2, 2, 2])


def _padded(nodule: Nodule) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Signed distance to the mask's surface (mm, positive inside); spline coefficients of the opacity; the excess, or
    None where there is none; each with _PAD voxels around."""
    widths = [(int(n), int(n)) for n in _PAD]
    mask = np.pad(nodule.inside, widths)
    distance = ndimage.distance_transform_edt(mask, nodule.spacing) - ndimage.distance_transform_edt(
        ~mask, nodule.spacing
    )
    # The surface lies between voxels: half a pixel off both distances.
    distance -= np.sign(distance) * 0.5 * nodule.spacing[0]
    opacity = ndimage.spline_filter(np.pad(nodule.opacity, widths, "edge"), order=3, mode="nearest")
    excess = np.pad(nodule.excess, widths, "edge") if (nodule.excess[nodule.inside] > 0).any() else None
    return distance.astype(np.float32), opacity.astype(np.float32), excess


def _about(axis: int, angle: float) -> np.ndarray:
    """Rotation about an axis, 3x3."""
    a, b = (n for n in range(3) if n != axis)
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix
