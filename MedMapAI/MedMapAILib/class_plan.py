"""The plan of a classification: what a network that sees an image at once gets of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .datasets import Case, Dataset
from .datasets.fingerprint import HIGHEST_AIR, LOWEST_CT
from .datasets.loading import load_case
from .errors import InputError
from .plan import Plan, check_together, checked_fields
from .preprocessing import Grid, canonical_grid

#: Cases that are measured: more would not change a median.
_MEASURED = 300
#: No side is longer than this, pixels of a slice and voxels of a volume: what ImageNet's networks see, and what fits.
_LONGEST = {2: 224, 3: 64}
#: Values in each iteration, beyond which a batch gets smaller.
_BATCH_VALUES = {2: 32 * 64**2, 3: 16 * 32**3}


def make_class_plan(
    dataset: Dataset,
    cases: list[Case],
    changes: dict[str, Any] | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Plan:
    """Measure training cases and decide how a network sees them.

    changes: fields that are given and not decided. A crop needs a spacing; else images are resized to the median size.
    Raises InputError for a change that is no field or has a wrong value, and where slices and volumes are mixed.
    """
    changes = checked_fields(dict(changes or {}), "section [plan]")
    step = max(1, -(-len(cases) // _MEASURED))
    sizes, spacings, values, lowest = [], [], [], []
    chosen = cases[::step]
    for number, case in enumerate(chosen):
        if progress is not None and number % 20 == 0:
            progress(number / len(chosen), f"measuring case {number + 1} of {len(chosen)}")
        image, _ = load_case(case, dataset)
        grid = canonical_grid(Grid.of(image))
        sizes.append(grid.shape)
        spacings.append(grid.spacing)
        array = image.numpy()
        lowest.append(float(array.min()))
        values.append(array.ravel()[:: max(1, array.size // 2000)])
    if not sizes:
        raise InputError(f"There are no cases of {dataset.name} to measure.")
    size, spacing = np.median(sizes, axis=0), np.median(spacings, axis=0)
    flat = _flat_axis(np.array(sizes), changes, dataset.name)
    reasons: dict[str, str] = {}

    def decided(name: str, value: Any, reason: str) -> Any:
        reasons[name] = "Set by hand in the configuration." if name in changes else reason
        return changes.get(name, value)

    dimensions = 3 if flat is None else 2
    if changes.get("framing") == "crop" and "spacing" not in changes:
        raise InputError("plan.framing is 'crop', which needs plan.spacing: how many mm a voxel of the crop has.")
    own_spacing = tuple(0.0 if axis == flat else float(f"{mm:.6g}") for axis, mm in enumerate(spacing))
    factor = max(1.0, float(size.max()) / _LONGEST[dimensions])
    patch = tuple(1 if axis == flat else max(2, round(n / factor)) for axis, n in enumerate(size))
    patch = decided(
        "patch",
        patch,
        f"The median size is {'×'.join(str(round(n)) for n in size)} voxels"
        + (f", made {factor:.1f} times smaller." if factor > 1 else "."),
    )
    room = int(_BATCH_VALUES[dimensions] // np.prod(patch))
    plan = Plan(
        spacing=decided("spacing", own_spacing, "The median spacing; it plays no part where images are resized."),
        patch=patch,
        batch=decided(
            "batch", min(32, max(2, room), max(2, len(cases) // 4)), "As many images as fit, and no more than 32."
        ),
        normalization=decided("normalization", *_normalization(np.concatenate(values), np.array(lowest))),
        interpolation=decided("interpolation", "linear", "It does not overshoot."),
        axes=decided("axes", "patient" if flat is None else "image", "Slices keep their axes; volumes stand upright."),
        framing=decided("framing", "resize", "The network sees the whole image at once."),
        reasons=reasons | changes.get("reasons", {}),
        measured={
            "data set": dataset.name,
            "cases": len(cases),
            "size in voxels, median": [round(float(n), 1) for n in size],
            "spacing in mm, median": [round(float(n), 3) for n in spacing],
            "images a class": {
                name: sum(number in (case.classes or ()) for case in cases)
                for number, name in enumerate(dataset.classes)
            },
        },
    )
    if plan.framing == "windows":
        raise InputError("plan.framing is 'windows', which is for segmentation; choose resize or crop.")
    check_together(plan, "section [plan]")
    return plan


def _flat_axis(sizes: np.ndarray, changes: dict[str, Any], name: str) -> int | None:
    if "patch" in changes:
        return changes["patch"].index(1) if 1 in changes["patch"] else None
    flat = np.flatnonzero((sizes == 1).all(axis=0))
    if len(flat) > 1:
        raise InputError(f"The images of {name} are single lines of pixels; give slices or volumes.")
    if not len(flat) and (sizes == 1).any():
        some = int((sizes == 1).any(axis=1).sum())
        raise InputError(
            f"{some} of {len(sizes)} images of {name} are single slices and the others are not, or lie across another "
            "axis; use one kind."
        )
    return int(flat[0]) if len(flat) else None


def _normalization(values: np.ndarray, lowest: np.ndarray) -> tuple[dict[str, Any], str]:
    if np.mean((lowest >= LOWEST_CT) & (lowest <= HIGHEST_AIR)) >= 0.5:
        low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
        clipped = np.clip(values, low, high)
        if high > low and clipped.std() > 0:
            numbers = {"clip": [round(low, 2), round(high, 2)], "mean": round(float(clipped.mean()), 4)}
            return {"kind": "ct", **numbers, "sd": round(float(clipped.std()), 4)}, (
                "The values are Hounsfield units, the same in every scanner: clipped to the 0.5th and 99.5th "
                "percentile of the training images, then their mean subtracted and divided by their standard deviation."
            )
    return {"kind": "zscore"}, (
        "The values have no fixed scale: each image is brought to mean 0 and standard deviation 1 on its own."
    )
