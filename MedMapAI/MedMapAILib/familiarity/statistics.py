"""What an image is like before a model normalizes it: its intensities and its size.

Models bring intensities to one scale, so that the network itself may not see that a CT is no radiograph.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from monai.data import MetaTensor

#: Measured of each channel, and how far off each may be without a reason: parts of the usual range of the training
#: images for percentiles, else in the number's own unit.
INTENSITY = {
    "1st percentile": 0.01,
    "lower quartile": 0.01,
    "median": 0.01,
    "upper quartile": 0.01,
    "99th percentile": 0.01,
    "logarithm of the range": 0.1,
    "median in the range": 0.02,
    "part at the lowest value": 0.02,
    "part at the highest value": 0.02,
    "roughness": 0.02,
}
PERCENTILES = 5  # so many of them come first; the logarithm of the range follows
#: Logarithms, so that twice and half are equally far; 0.05 is 5 %.
SIZE = {
    **{f"logarithm of the voxels toward {axis}": 0.05 for axis in ("right", "anterior", "superior")},
    **{f"logarithm of the length in mm toward {axis}": 0.05 for axis in ("right", "anterior", "superior")},
}
#: Intensities are measured on about so many voxels.
_VOXELS = 2_000_000


def statistic_names(channels: int = 1) -> tuple[str, ...]:
    """The names of the statistics of images of so many channels, in order: intensities of each channel, then size."""
    intensity = [
        name if channels == 1 else f"{name} of channel {number}" for number in range(channels) for name in INTENSITY
    ]
    return (*intensity, *SIZE)


def image_statistics(image: MetaTensor) -> dict[str, float]:
    """Name → number, in the order of :func:`statistic_names`.

    image: (C, I, J, K), intensities as acquired, RAS affine; where a model sees only a ROI, the crop. The numbers do
    not depend on how the voxels are stored. Intensities: percentiles in the image's unit, the logarithm of the range
    (1st to 99th percentile), where in the range the median lies, the parts of voxels at the very lowest and the very
    highest value, and the roughness (mean difference of neighbors over the range). Size: logarithms of voxels and of mm
    along the patient's axes. Raises InputError where a voxel is not finite.
    """
    from ..image import check_finite
    from ..preprocessing import Grid, canonical_grid, canonical_orientation, reorient

    grid = Grid.of(image)
    voxels = reorient(np.asarray(image.detach().cpu()), canonical_orientation(grid.affine))
    check_finite(voxels, "The image")
    grid = canonical_grid(grid)
    numbers = [number for channel in voxels for number in _intensity_of(channel)]
    numbers += [*np.log(grid.shape), *np.log(np.asarray(grid.shape) * grid.spacing)]
    return dict(zip(statistic_names(len(voxels)), map(float, numbers), strict=True))


def _intensity_of(channel: np.ndarray) -> list[float]:
    """The numbers of INTENSITY of one channel (I, J, K)."""
    step = max(1, math.ceil((channel.size / _VOXELS) ** (1 / 3)))
    some = channel[::step, ::step, ::step].astype(np.float64)
    percentiles = np.percentile(some, [1, 25, 50, 75, 99])
    # A constant image has no range; 1e-6 stands for it wherever it is divided by.
    spread = max(float(percentiles[-1] - percentiles[0]), 1e-6)
    return [
        *percentiles,
        math.log(spread),
        (percentiles[2] - percentiles[0]) / spread,
        float((some == some.min()).mean()),
        float((some == some.max()).mean()),
        min(_difference_of_neighbors(channel, step) / spread, 1.0),
    ]


def _difference_of_neighbors(channel: np.ndarray, step: int) -> float:
    """The mean absolute difference along axes of more than one voxel, from every ``step``-th voxel and its neighbor."""
    means = []
    for axis in range(3):
        lines = np.moveaxis(channel, axis, 0)
        if len(lines) > 1:
            pairs = len(lines[1::step])
            here, there = lines[::step, ::step, ::step][:pairs], lines[1::step, ::step, ::step]
            means.append(np.abs(there.astype(np.float64) - here).mean())
    return float(np.mean(means)) if means else 0.0
