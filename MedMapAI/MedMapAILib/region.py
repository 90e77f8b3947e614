"""The part of a scan that a model looks at."""

from __future__ import annotations

import numpy as np
from monai.data import MetaTensor

from .errors import NotHounsfield
from .image import make_image
from .preprocessing import Grid

#: Around the lungs, mm: what lies on the pleura is seen with what is behind it.
_MARGIN_MM = 8.0


def crop_to_region(image: MetaTensor, region: str) -> MetaTensor:
    """The box of voxels of an image (C, I, J, K) that holds a region, "all" or "lungs", with its own affine.

    The lungs are found in the first channel, in HU. Raises NotHounsfield where the values do not look like HU, unless
    ``image.meta["assume_hounsfield"]`` says that they are, and InputError where there are no lungs.
    """
    if region == "all":
        return image
    from .lungs import hounsfield_problem, lung_mask

    problem = "" if image.meta.get("assume_hounsfield") else hounsfield_problem(image)
    if problem:
        raise NotHounsfield(problem)
    mask = lung_mask(image)
    margin = np.ceil(_MARGIN_MM / Grid.of(image).spacing).astype(int)
    slices = []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = inside[0] - margin[axis], inside[-1] + margin[axis]
        slices.append(slice(max(0, int(first)), min(mask.shape[axis], int(last) + 1)))
    affine = np.asarray(image.affine, dtype=np.float64).copy()
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in slices]
    return make_image(image.numpy()[(slice(None), *slices)], affine)
