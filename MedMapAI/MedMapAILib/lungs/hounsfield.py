"""Are the values of a chest CT Hounsfield units?"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Nothing in air or lung is denser than this (HU); an image of a chest that has no value below holds no HU.
_AIR = -300.0
#: Blood, muscle and fat lie in here (HU).
_SOFT_TISSUE = (-200.0, 200.0)
#: Share of all voxels that must lie there, in an image that is not a small piece of lung.
_SHARE = 0.005
#: What is added to HU where negative numbers cannot be stored.
OFFSET = 1024
_LOOKED_AT = 2_000_000


def hounsfield_problem(image: Any) -> str:
    """Empty where the voxels of a CT with air in it, (1, I, J, K), can be HU; otherwise one sentence that says what is
    wrong with them and what to do.

    Water is 0 and air -1000 HU by definition. Files in unsigned 16 bit whose intercept was lost hold HU + 1024 (air 24,
    soft tissue about 1060); pictures hold 0 to 255 or 0 to 1.
    """
    values = np.asarray(image).ravel()
    values = values[:: max(1, values.size // _LOOKED_AT)]
    low, high = float(values.min()), float(values.max())
    if low >= _AIR:
        if _soft_tissue(values - OFFSET) > _SHARE and low < 300 and high > OFFSET:
            return (
                f"The values of this CT go from {low:.0f} to {high:.0f} and look like Hounsfield units with {OFFSET} "
                f"added (unsigned 16 bit with an intercept of zero): subtract {OFFSET}, or go on knowing that the "
                "result may mean nothing."
            )
        return (
            f"The values of this image go from {low:g} to {high:g}, so they are no Hounsfield units of a chest, where "
            "air is -1000 and water 0: load the original CT, or go on knowing that the result may mean nothing."
        )
    if high > _SOFT_TISSUE[0] and _soft_tissue(values) < _SHARE and _soft_tissue(values + OFFSET) > 10 * _SHARE:
        return (
            f"Soft tissue in this CT lies near {-OFFSET} instead of 0, so its values are no Hounsfield units (an "
            f"intercept subtracted twice): add {OFFSET}, or go on knowing that the result may mean nothing."
        )
    return ""


def _soft_tissue(values: np.ndarray) -> float:
    """The share of values that could be soft tissue, 0 to 1."""
    low, high = _SOFT_TISSUE
    return float(((values >= low) & (values <= high)).mean())
