"""Round spots brighter than what surrounds them, found without learning: places where a nodule may be.

Lindeberg, "Feature Detection with Automatic Scale Selection", International Journal of Computer Vision 30 (1998): the
Laplacian of the image smoothed by a Gaussian of deviation t, times -t², is largest at the middle of a bright spot and
at the t that fits its size. In D dimensions that t is r / √D for a ball of radius r, and s √(2 / D) for a Gaussian of
deviation s. The largest value for a ball is its contrast times a number that depends on D alone, so that dividing by
it makes a strength in the unit of the image: a ball's contrast to its surroundings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import torch

#: Sizes that are looked for differ by this factor; what lies between two of them is found between them.
_STEP = math.sqrt(2)
#: A smaller strength, as a part of the range of the image, is rounding.
_LEAST = 1e-4


def blob_proposals(
    images: np.ndarray | torch.Tensor,
    *,
    sizes: Sequence[float] | Sequence[Sequence[float]],
    count: int = 300,
    least: float | None = None,
) -> list[Any]:
    """Boxes round the bright spots of each image, the strongest first.

    images: (B, C, *S) with two or three axes; the mean of the channels is looked at. sizes: of the boxes, voxels: one
    number, or one for each axis, for each size. count: at most so many boxes an image. least: strength below which a
    spot is left out, in the unit of the image (the contrast of a ball); by default all above rounding.
    Returns one (P, 2D) float32 array of boxes in voxel edges for each image; tensors on the same device for a tensor.
    The same image gives the same boxes. Raises ValueError for images or sizes of another form.
    """
    if isinstance(images, np.ndarray):
        return [find_blobs(image.mean(axis=0), sizes=sizes, count=count, least=least)[0] for image in images]
    import torch

    arrays = images.detach().float().mean(dim=1).cpu().numpy()
    found = [find_blobs(array, sizes=sizes, count=count, least=least)[0] for array in arrays]
    return [torch.from_numpy(boxes).to(images.device) for boxes in found]


def find_blobs(
    image: np.ndarray,
    *,
    sizes: Sequence[float] | Sequence[Sequence[float]],
    count: int = 300,
    least: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (P, 2D) round the bright spots of an image (*S), voxel edges, and their strengths (P,), falling.

    sizes, count, least: as for ``blob_proposals``. A box is as large as the spot seems: its size lies between those
    that were looked for where the strength at the neighboring sizes says so. Raises ValueError.
    """
    image = np.asarray(image, dtype=np.float32)
    if image.ndim not in (2, 3):
        raise ValueError(f"an image has two or three axes, not the shape {image.shape}")
    # Counted from its darkest voxel, so that rounding is small beside the contrasts.
    image = image - image.min(initial=np.inf)
    sides = _sides(sizes, image.ndim)
    stack = np.stack([strength(image, side) for side in sides])
    floor = _LEAST * float(image.max(initial=0)) if least is None else least
    # Larger than all neighbors, those of the sizes next to it included. Beyond the smallest and the largest size
    # nothing is known, so a spot at either end counts.
    peaks = (stack == ndimage.maximum_filter(stack, size=3, mode="nearest")) & (stack > floor)
    places = np.argwhere(peaks)
    values = stack[peaks]
    order = np.argsort(-values, kind="stable")[:count]
    places, values = places[order], values[order]
    middles = places[:, 1:] + 0.5
    halves = sides[places[:, 0]] * _between(stack, sides, places)[:, None] / 2
    return np.concatenate([middles - halves, middles + halves], axis=1).astype(np.float32), values


def strength(image: np.ndarray, size: Sequence[float]) -> np.ndarray:
    """How much each voxel of an image (*S) is the middle of a bright spot of this size, in the unit of the image.

    size: for each axis, voxels. For a ball (or an ellipsoid) of that size, contrast 1, it is 1 in the middle.
    """
    dims = image.ndim
    deviations = [side / 2 / math.sqrt(dims) for side in size]
    total = np.zeros_like(image)
    for axis, deviation in enumerate(deviations):
        order = [2 if other == axis else 0 for other in range(dims)]
        total -= deviation**2 * ndimage.gaussian_filter(image, deviations, order=order, mode="nearest")
    return total / ball_response(dims)


def ball_response(dims: int) -> float:
    """The scale-normalized Laplacian in the middle of a ball of contrast 1, at the scale that fits it.

    The integral of the Laplacian over the ball is the flow of the Gaussian's gradient through its surface; at the
    deviation r / √D this is S (D / (2 π e))^(D/2) with S the surface of the unit sphere: 2/e for D = 2, 0.925 for 3.
    """
    surface = 2 * math.pi ** (dims / 2) / math.gamma(dims / 2)
    return surface * (dims / (2 * math.pi * math.e)) ** (dims / 2)


def sizes_around(anchors: Sequence[Sequence[float]], *, margin: float = 1.5) -> list[list[float]]:
    """A ladder of sizes, from the smallest of some boxes less a margin to the largest with a margin.

    anchors: sizes of boxes, voxels, one number for each axis. All sizes of the ladder have the mean proportions of the
    anchors, and each is half an octave larger than the one before.
    """
    logs = np.log(np.asarray(anchors, dtype=float))
    proportions = np.exp((logs - logs.mean(axis=1, keepdims=True)).mean(axis=0))
    means = np.exp(logs.mean(axis=1))
    # A spot smaller than two voxels cannot be told from noise.
    low = max(2.0, means.min() / margin)
    high = max(low, means.max() * margin)
    steps = math.ceil(math.log(high / low) / math.log(_STEP) - 1e-9)
    return [(low * _STEP**step * proportions).tolist() for step in range(steps + 1)]


def _sides(sizes: Sequence[Any], dims: int) -> np.ndarray:
    sides = np.asarray(sizes, dtype=float)
    if sides.ndim == 1:
        sides = np.repeat(sides[:, None], dims, axis=1)
    if sides.ndim != 2 or sides.shape[1] != dims or not len(sides) or not (sides > 0).all():
        raise ValueError(f"sizes are one number above zero, or {dims}, for each size, not {sizes!r}")
    # Neighbors in the stack have to be neighbors in size.
    return sides[np.argsort(sides.prod(axis=1), kind="stable")]


def _between(stack: np.ndarray, sides: np.ndarray, places: np.ndarray) -> np.ndarray:
    """For each place (P, 1 + D) by how much its spot is larger than the size of its level: (P,).

    The vertex of the parabola through the strengths at three neighboring sizes, over the logarithm of the size; 1 at
    the ends of the ladder.
    """
    factors = np.ones(len(places))
    level, where = places[:, 0], tuple(places[:, 1:].T)
    inner = (level > 0) & (level < len(stack) - 1)
    if not inner.any():
        return factors
    level, where = level[inner], tuple(w[inner] for w in where)
    scale = np.log(sides).mean(axis=1)
    before, here, after = (stack[(level + n, *where)].astype(float) for n in (-1, 0, 1))
    left, right = scale[level] - scale[level - 1], scale[level + 1] - scale[level]
    # Divided differences; sizes need not be evenly spaced.
    slope_left, slope_right = (here - before) / left, (after - here) / right
    curvature = (slope_right - slope_left) / (left + right)
    slope = slope_left + curvature * left
    shift = np.where(curvature < 0, -slope / (2 * np.where(curvature < 0, curvature, -1)), 0.0)
    factors[inner] = np.exp(np.clip(shift, -left / 2, right / 2))
    return factors
