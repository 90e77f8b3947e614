"""The plan of a generator: size and intensities of the images that it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .class_plan import make_class_plan
from .datasets import Case, Dataset
from .datasets.loading import load_case
from .errors import InputError
from .networks.generation import LARGEST_IMAGE
from .pictures import is_picture
from .plan import Plan

#: Cases that are measured.
_MEASURED = 300
#: No side of a volume that a generator makes is longer by default: it must learn every voxel of it at once.
_LONGEST = {2: 64, 3: 32}


def make_generation_plan(
    dataset: Dataset,
    cases: list[Case],
    changes: dict[str, Any] | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Plan:
    """Measure training cases and decide what a generator makes.

    As ``make_class_plan``, but for the normalization, which must be one that can be undone: fixed ends of the
    intensities, 0 and 255 for pictures of 8 bits, else the 0.5th and 99.5th percentile of the training images. Sides
    are at most 64 pixels of a slice and 32 voxels of a volume unless ``changes`` says otherwise. Raises as
    ``make_class_plan``, and InputError for another kind of normalization.
    """
    changes = dict(changes or {})
    given = "normalization" in changes
    if not given:
        changes["normalization"] = normalization(*_ends(dataset, cases))
    # Rules for a classifier's batch are too large for what is learned in small steps.
    plan = make_class_plan(dataset, cases, changes, progress)
    if "patch" not in changes:
        plan = _smaller(plan)
    if not given:
        reason = "One scale for all images, from -1 to 1, that can be undone in what is generated."
        plan = replace(plan, reasons=plan.reasons | {"normalization": reason})
    intensity_ends(plan)
    return plan


def normalization(low: float, high: float) -> dict[str, Any]:
    """The plan's normalization that takes ``low`` to -1 and ``high`` to 1, in the unit of the images."""
    return {"kind": "fixed", "clip": [low, high], "mean": (low + high) / 2, "sd": (high - low) / 2}


def intensity_ends(plan: Plan) -> tuple[float, float]:
    """The values (low, high), in the unit of the images, between which a generator's images lie. Raises InputError
    where the plan normalizes each image on its own, which cannot be undone."""
    if plan.normalization["kind"] not in ("fixed", "ct"):
        raise InputError(
            f"plan.normalization is of kind {plan.normalization['kind']!r}, which cannot be undone in images that are "
            "generated; leave it out, or give kind 'fixed' with clip, mean and sd."
        )
    low, high = plan.normalization["clip"]
    return float(low), float(high)


def _ends(dataset: Dataset, cases: list[Case]) -> tuple[float, float]:
    lows, highs, values = [], [], []
    pictures = True
    for case in cases[:: max(1, -(-len(cases) // _MEASURED))]:
        array = load_case(case, dataset)[0].numpy()
        pictures &= case.member is not None or all(is_picture(path) for path in case.images)
        lows.append(array.min())
        highs.append(array.max())
        values.append(array.ravel()[:: max(1, array.size // 2000)])
    if not values:
        raise InputError(f"There are no cases of {dataset.name} to measure.")
    if pictures and min(lows) >= 0 and max(highs) <= 255 and max(highs) > 1:
        return 0.0, 255.0
    low, high = (float(f"{end:.6g}") for end in np.percentile(np.concatenate(values), [0.5, 99.5]))
    if not high > low:
        low, high = float(min(lows)), float(max(highs))
    return low, high


def _smaller(plan: Plan) -> Plan:
    longest = max(plan.patch)
    factor = max(1.0, longest / _LONGEST[plan.spatial_dims])
    if factor == 1:
        return plan
    patch = tuple(n if n == 1 else max(2, round(n / factor)) for n in plan.patch)
    reason = (
        f"{plan.reasons['patch']} Made {factor:.1f} times smaller again (at most {LARGEST_IMAGE} can be asked for)."
    )
    return replace(plan, patch=patch, reasons=plan.reasons | {"patch": reason})
