"""The color of a finding, from its score."""

from __future__ import annotations

import numpy as np

#: Viridis (Smith and van der Walt 2015, public domain) at 0.30, 0.40 … 1.00: lighter with every step, also to eyes that
#: see no red or no green. Its darkest third is left out, which is not seen on a dark scan.
_VIRIDIS = np.array(
    [
        (0.2068, 0.3718, 0.5531), (0.1636, 0.4711, 0.5581), (0.1276, 0.5669, 0.5506), (0.1347, 0.6586, 0.5176),
        (0.2669, 0.7488, 0.4406), (0.4775, 0.8214, 0.3182), (0.7414, 0.8734, 0.1496), (0.9932, 0.9062, 0.1439),
    ]
)  # fmt: skip
#: Of what a reader added, which has no score.
_ADDED = (1.0, 1.0, 1.0)


def score_color(score: float | None) -> tuple[float, float, float]:
    """Red, green, blue from 0 to 1: from blue (score 0) over green to yellow (score 1), and white without a score.

    Scores beyond 0 and 1 have the color of the nearest one.
    """
    if score is None:
        return _ADDED
    steps = np.linspace(0, 1, len(_VIRIDIS))
    return tuple(float(np.interp(score, steps, part)) for part in _VIRIDIS.T)
