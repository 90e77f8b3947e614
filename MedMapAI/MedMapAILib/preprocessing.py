"""From the patient's grid to the model's grid and back: axis order, spacing, intensity.

A model sees every volume on the *model grid*: axes ordered right-anterior-superior, spacing as the plan says,
intensities normalized. Results go back to exactly the voxels that the user gave. Everything here is a pure function of
its input, and exact (no interpolation) wherever axes only swap or flip, so that the answer does not depend on how
voxels are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel.orientations as orientations
import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from .errors import InputError
from .image import make_image
from .plan import Plan

#: Direction cosines further than this from an axis of the patient count as oblique (0.06 degrees).
OBLIQUE_TOLERANCE = 1e-3
#: Spacings closer than this fraction are the same: resampling by less would blur and change nothing else.
SPACING_TOLERANCE = 0.01

_SPLINE_ORDER = {"nearest": 0, "linear": 1, "cubic": 3}


@dataclass(frozen=True)
class Grid:
    """A voxel grid in the patient.

    shape: (I, J, K) voxels. affine: 4×4, voxel index to RAS mm.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def of(cls, image: MetaTensor) -> Grid:
        """The grid of an image (C, I, J, K)."""
        return cls(tuple(int(n) for n in image.shape[1:]), np.asarray(image.affine, dtype=np.float64))

    @property
    def spacing(self) -> np.ndarray:
        """Distance of neighboring voxels along each axis, mm, shape (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def canonical_orientation(affine: np.ndarray) -> np.ndarray:
    """How to permute and flip voxel axes so that they run as nearly right, anterior, superior as they can.

    affine: 4×4, RAS mm. Returns nibabel's (3, 2) orientation array.
    """
    return orientations.io_orientation(affine)


def reorient(array: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Permute and flip the last three axes of (C, I, J, K) by nibabel's orientation array; no interpolation."""
    leading = np.array([[0, 1]])
    shifted = orientation + np.array([1, 0])
    return np.ascontiguousarray(orientations.apply_orientation(array, np.concatenate([leading, shifted])))


def inverse_orientation(orientation: np.ndarray) -> np.ndarray:
    """The orientation array that undoes the given one."""
    standard = np.array([[0, 1], [1, 1], [2, 1]])
    return orientations.ornt_transform(standard, orientation)


def canonical_grid(grid: Grid) -> Grid:
    """The same voxels with axes permuted and flipped to be closest to right, anterior, superior."""
    orientation = canonical_orientation(grid.affine)
    shape = np.empty(3, dtype=int)
    shape[orientation[:, 0].astype(int)] = grid.shape
    return Grid(tuple(int(n) for n in shape), grid.affine @ orientations.inv_ornt_aff(orientation, grid.shape))


def is_oblique(grid: Grid) -> bool:
    """Whether an axis of the grid is off the patient's axes by more than OBLIQUE_TOLERANCE."""
    directions = np.abs(grid.affine[:3, :3] / grid.spacing)
    return bool(np.any(np.minimum(directions, np.abs(directions - 1)) > OBLIQUE_TOLERANCE))


def model_grid(grid: Grid, plan: Plan) -> Grid:
    """The grid on which a model with this plan sees a volume whose canonical grid is given.

    With ``plan.axes == "patient"`` an oblique volume gets a grid along the patient's axes that holds all of it, so that
    the anatomy stands upright for the network however the slices were tilted. With ``"image"`` the volume's own axes
    stay. The new grid is centered on the old one, so that flips of the input flip the output and nothing else.
    """
    spacing = np.where(np.asarray(plan.spacing) > 0, plan.spacing, grid.spacing)
    if plan.axes == "patient" and is_oblique(grid):
        corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape], indexing="ij")).reshape(3, -1)
        extent = np.ptp(grid.affine[:3, :3] @ corners, axis=1)
        directions = np.eye(3)
    else:
        if np.all(np.abs(grid.spacing - spacing) <= SPACING_TOLERANCE * spacing):
            return grid
        extent = np.asarray(grid.shape) * grid.spacing
        directions = grid.affine[:3, :3] / grid.spacing
    shape = np.maximum(1, np.round(np.round(extent / spacing, 6))).astype(int)
    middle = grid.affine[:3, :3] @ ((np.asarray(grid.shape) - 1) / 2) + grid.affine[:3, 3]
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid(tuple(int(n) for n in shape), affine)


def resample(
    array: np.ndarray, source: Grid, target: Grid, interpolation: str, fill: float | None = None
) -> np.ndarray:
    """Sample (C, I, J, K) given on one grid at the voxels of another.

    interpolation: "nearest", "linear" or "cubic" (B-spline of order 3, scipy.ndimage). fill: value outside the source;
    None repeats the source's border. Returns float32 (C, *target.shape); the very array where the grids are the same.
    """
    if source.shape == target.shape and np.allclose(source.affine, target.affine, rtol=0, atol=1e-6):
        return array
    # Rounded, so that the last bits of two affines that say the same do not make two answers.
    mapping = np.round(np.linalg.inv(source.affine) @ target.affine, 9)
    mode = {"mode": "nearest"} if fill is None else {"mode": "grid-constant", "cval": fill}
    # A diagonal matrix given as a vector takes scipy's separable path, several times as fast.
    matrix = mapping[:3, :3]
    diagonal = np.diag(matrix)
    if np.allclose(matrix, np.diag(diagonal), rtol=0, atol=1e-9):
        matrix = diagonal
    output = np.empty((array.shape[0], *target.shape), dtype=np.float32)
    for channel, result in zip(array, output, strict=True):
        ndimage.affine_transform(
            channel.astype(np.float32, copy=False),
            matrix,
            mapping[:3, 3],
            output_shape=target.shape,
            output=result,
            order=_SPLINE_ORDER[interpolation],
            **mode,
        )
    return output


def normalize(array: np.ndarray, normalization: dict) -> np.ndarray:
    """Bring intensities to the scale that the model was trained on.

    array: (C, I, J, K), any unit (HU for CT). normalization: as in the plan,
    ``{"kind": "zscore"}``: each channel minus its mean over its standard deviation;
    ``{"kind": "percentile", "lower": p, "upper": q}``: the same after clipping at two percentiles of the volume itself;
    ``{"kind": "ct", "clip": [low, high], "mean": m, "sd": s}``: fixed numbers from the training data, in HU; "fixed" is
    the same in any other unit;
    ``{"kind": "none"}``. Returns float32 of the same shape. Raises InputError for a constant channel.
    """
    kind = normalization["kind"]
    array = np.asarray(array, dtype=np.float32)
    if kind == "none":
        return array
    if kind in ("ct", "fixed"):
        low, high = normalization["clip"]
        return (np.clip(array, low, high) - np.float32(normalization["mean"])) / np.float32(normalization["sd"])
    channels = []
    for number, channel in enumerate(array):
        if kind == "percentile":
            low, high = np.percentile(channel, [normalization["lower"], normalization["upper"]])
            channel = np.clip(channel, low, high)
        mean, deviation = channel.mean(dtype=np.float64), channel.std(dtype=np.float64)
        if not deviation > 1e-6 * max(1.0, abs(mean)):
            raise InputError(
                f"The image is constant (channel {number}: every voxel is about {mean:g}), so there is nothing to see "
                "for a model; check that the right volume or region is chosen."
            )
        channels.append(((channel - mean) / deviation).astype(np.float32))
    return np.stack(channels)


def intensity_scale(array: np.ndarray, normalization: dict) -> tuple[float, float]:
    """The (shift, scale) by which ``normalize`` brings the first channel of (C, I, J, K) to (value - shift) / scale.

    Clipping is left out. What a network makes of an image is brought back to the image's unit with it.
    """
    kind = normalization["kind"]
    if kind == "none":
        return 0.0, 1.0
    if kind in ("ct", "fixed"):
        return float(normalization["mean"]), float(normalization["sd"])
    channel = np.asarray(array[0], dtype=np.float32)
    if kind == "percentile":
        channel = np.clip(channel, *np.percentile(channel, [normalization["lower"], normalization["upper"]]))
    return float(channel.mean(dtype=np.float64)), float(channel.std(dtype=np.float64)) or 1.0


def to_model_grid(image: MetaTensor, plan: Plan) -> MetaTensor:
    """Normalize, reorder axes and resample an image for a model.

    image: (C, I, J, K), RAS affine, intensities as acquired. Returns the image on the model grid.
    Axes are reordered first, so that every later sum runs in the same order however the voxels were stored;
    intensities are normalized before resampling, so that filled corners of oblique volumes do not count.
    Raises InputError for a constant image.
    """
    source = Grid.of(image)
    array = normalize(reorient(image.numpy(), canonical_orientation(source.affine)), plan.normalization)
    canonical = canonical_grid(source)
    target = model_grid(canonical, plan)
    fill = float(array.min()) if is_oblique(canonical) and plan.axes == "patient" else None
    return make_image(resample(array, canonical, target, plan.interpolation, fill), target.affine)


def from_model_grid(array: np.ndarray, model: Grid, source: Grid) -> np.ndarray:
    """Bring values (I', J', K') on the model grid of a volume back to its own voxels: float32 (I, J, K).

    Linear interpolation, exact where axes only swap or flip; the border is repeated beyond the model grid.
    """
    there = resample(array[None], model, canonical_grid(source), "linear")
    return reorient(there, inverse_orientation(canonical_orientation(source.affine)))[0]


def labels_to_model_grid(labels: np.ndarray, affine: np.ndarray, plan: Plan) -> np.ndarray:
    """Bring a label map (I, J, K) of integers to the model grid that its image has there.

    Where resampling is needed each label is interpolated linearly as its own mask and the strongest wins, which keeps
    thin structures better than nearest neighbor. Returns (I', J', K') of the same integer type.
    """
    source = Grid(tuple(labels.shape), np.asarray(affine, dtype=np.float64))
    reoriented = reorient(labels[None], canonical_orientation(source.affine))
    canonical = canonical_grid(source)
    target = model_grid(canonical, plan)
    if target is canonical:
        return reoriented[0]
    best = np.full(target.shape, -1.0, dtype=np.float32)
    output = np.zeros(target.shape, dtype=labels.dtype)
    for value in np.unique(labels):
        fill = float(value == 0) if is_oblique(canonical) and plan.axes == "patient" else None
        share = resample((reoriented == value).astype(np.float32), canonical, target, "linear", fill)[0]
        stronger = share > best
        output[stronger] = value
        best[stronger] = share[stronger]
    return output


def crop_to_roi(image: MetaTensor, center: tuple, size: tuple) -> tuple[MetaTensor, tuple[slice, slice, slice]]:
    """Cut out the voxels that a box holds.

    image: (C, I, J, K). center, size: of the box, RAS mm, along the patient's axes. For an oblique image the box of
    voxels is the smallest that holds every voxel center in the ROI. Returns the crop, with its own affine, and the
    slices into (I, J, K). Raises InputError when the box holds no voxel.
    """
    grid = Grid.of(image)
    if not all(np.isfinite(size)) or min(size) <= 0:
        raise InputError(
            f"The size of the ROI, {tuple(size)} mm, must be three positive numbers; correct --roi or the ROI node."
        )
    half = np.asarray(size, dtype=float) / 2
    corners = np.array(np.meshgrid(*zip(-half, half, strict=True), indexing="ij")).reshape(3, -1)
    corners = corners + np.asarray(center, dtype=float)[:, None]
    indices = np.linalg.inv(grid.affine) @ np.vstack([corners, np.ones(8)])
    first = np.maximum(0, np.ceil(indices[:3].min(axis=1) - 1e-6)).astype(int)
    last = np.minimum(np.asarray(grid.shape) - 1, np.floor(indices[:3].max(axis=1) + 1e-6)).astype(int)
    if np.any(last < first):
        low, high = image_bounds(grid)
        raise InputError(
            f"The ROI around {tuple(float(c) for c in center)} mm (RAS) holds no voxel of the image, which reaches "
            "from "
            f"{low} to {high} mm; move the ROI onto the image."
        )
    slices = tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    return make_image(image.numpy()[(slice(None), *slices)], affine), slices


def image_bounds(grid: Grid) -> tuple[tuple, tuple]:
    """The lowest and highest RAS coordinates (mm, rounded to 0.1) of the grid's voxel centers."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape], indexing="ij")).reshape(3, -1)
    points = grid.affine[:3, :3] @ corners + grid.affine[:3, 3:]
    return tuple(map(float, points.min(axis=1).round(1))), tuple(map(float, points.max(axis=1).round(1)))


def pad_to_multiple(tensor: torch.Tensor, divisor: tuple[int, ...], at_least: tuple[int, ...] | None = None):
    """Pad the spatial axes of (B, C, *S) on both sides to multiples of ``divisor``, and to no less than ``at_least``.

    The border is repeated, which is what convolutions disturb least. Returns the padded tensor and the slices that
    undo it.
    """
    shape = tensor.shape[2:]
    wanted = [max(n, low) for n, low in zip(shape, at_least or shape, strict=True)]
    wanted = [-(-n // d) * d for n, d in zip(wanted, divisor, strict=True)]
    before = [(w - n) // 2 for w, n in zip(wanted, shape, strict=True)]
    slices = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    if list(shape) == wanted:
        return tensor, slices
    pads = [
        p for b, w, n in zip(reversed(before), reversed(wanted), reversed(shape), strict=True) for p in (b, w - n - b)
    ]
    return torch.nn.functional.pad(tensor, pads, mode="replicate"), slices
