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

    The lungs are found in the first channel, in HU. An image whose ``meta["is_region"]`` is true is a part that
    somebody chose, and stays as it is: lungs are known by what is around them. Raises NotHounsfield as
    ``check_values``, and InputError where there are no lungs.
    """
    if region == "all" or image.meta.get("is_region"):
        return image
    from .lungs import lung_mask

    check_values(image, region)
    mask = lung_mask(_first_channel(image))
    margin = np.ceil(_MARGIN_MM / Grid.of(image).spacing).astype(int)
    slices = []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = inside[0] - margin[axis], inside[-1] + margin[axis]
        slices.append(slice(max(0, int(first)), min(mask.shape[axis], int(last) + 1)))
    affine = np.asarray(image.affine, dtype=np.float64).copy()
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in slices]
    return make_image(image.numpy()[(slice(None), *slices)], affine)


def check_values(image: MetaTensor, region: str = "lungs") -> None:
    """Raise NotHounsfield where a region is found by HU and the values of a whole scan (C, I, J, K) do not look like
    it, unless ``image.meta["assume_hounsfield"]`` says that they are."""
    if region == "all" or image.meta.get("assume_hounsfield"):
        return
    from .lungs import hounsfield_problem

    problem = hounsfield_problem(_first_channel(image))
    if problem:
        raise NotHounsfield(problem)


def _first_channel(image: MetaTensor) -> MetaTensor:
    return image if image.shape[0] == 1 else make_image(image.numpy()[:1], image.affine)
