"""An image as a network sees it at once: whole, or the part around its middle, brought to the plan's patch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage

from .errors import InputError
from .image import make_image
from .plan import Plan
from .preprocessing import Grid, canonical_grid, canonical_orientation, is_oblique, normalize, reorient, resample


def frame(image: MetaTensor, plan: Plan, center: Sequence[float] | None = None) -> MetaTensor:
    """Bring an image to the patch of a plan whose framing is "resize" or "crop", and normalize it.

    image: (C, I, J, K), RAS affine, values as acquired. center: RAS mm, of a crop; None takes the image's middle.
    Returns (C, *plan.patch). What is made coarser is smoothed before, with the deviation (factor − 1) / 2 voxels of
    scikit-image's ``resize``, so that fine texture does not turn into false patterns. Beyond the image its border is
    repeated. Raises InputError where a network for slices is given a volume, and for a constant image.
    """
    source = Grid.of(image)
    array = reorient(image.numpy(), canonical_orientation(source.affine))
    canonical = canonical_grid(source)
    target = framed_grid(canonical, plan, center)
    factors = target.spacing / canonical.spacing
    smoothing = np.where(factors > 1.01, (factors - 1) / 2, 0.0)
    if smoothing.any():
        array = np.stack([ndimage.gaussian_filter(channel, smoothing, mode="nearest") for channel in array])
    fill = float(array.min()) if is_oblique(canonical) and plan.axes == "patient" else None
    array = resample(array, canonical, target, plan.interpolation, fill)
    return make_image(normalize(array, plan.normalization), target.affine)


def framed_grid(grid: Grid, plan: Plan, center: Sequence[float] | None = None) -> Grid:
    """The grid of ``plan.patch`` voxels on which a network sees an image whose canonical grid is given.

    center: RAS mm, of a crop; across slices it is the slice's own. Slices keep their own axes; an oblique volume is
    turned upright where the plan's axes are the patient's. Raises InputError where the plan is for slices and the image
    has several.
    """
    patch = np.asarray(plan.patch)
    flat = plan.patch.index(1) if 1 in plan.patch else None
    if flat is None and plan.axes == "patient" and is_oblique(grid):
        corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape], indexing="ij")).reshape(3, -1)
        extent, directions = np.ptp(grid.affine[:3, :3] @ corners, axis=1), np.eye(3)
    else:
        extent, directions = np.asarray(grid.shape) * grid.spacing, grid.affine[:3, :3] / grid.spacing
    middle = grid.affine[:3, :3] @ ((np.asarray(grid.shape) - 1) / 2) + grid.affine[:3, 3]
    if plan.framing == "crop":
        spacing = np.where(np.asarray(plan.spacing) > 0, plan.spacing, grid.spacing)
        if center is not None:
            offset = np.linalg.inv(directions) @ (np.asarray(center, dtype=np.float64) - middle)
            offset[[] if flat is None else [flat]] = 0
            middle = middle + directions @ offset
    else:
        spacing = extent / patch
    if flat is not None:
        if grid.shape[flat] > 1:
            across = ("right-left", "anterior-posterior", "superior-inferior")[flat]
            raise InputError(
                f"This model looks at a single slice, and the image has {grid.shape[flat]} of them ({across}); choose "
                "a region (ROI) one slice thick."
            )
        spacing[flat] = grid.spacing[flat]
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = middle - affine[:3, :3] @ ((patch - 1) / 2)
    return Grid(tuple(int(n) for n in patch), affine)
