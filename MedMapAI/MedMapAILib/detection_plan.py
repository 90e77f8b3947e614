"""The plan of a detection: the grid on which a network looks for findings, and the boxes that it begins from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .datasets import Case, Dataset
from .datasets.finding_statistics import finding_statistics
from .datasets.fingerprint import HIGHEST_AIR, LOWEST_CT
from .datasets.loading import load_case
from .errors import InputError
from .plan import Plan, check_together, checked_fields
from .preprocessing import Grid, canonical_grid

#: Scans that are measured: more would not change a median.
_MEASURED = 50
#: Voxels of a patch, in all and along its longest side.
_VOXELS, _LONGEST = 128 * 128 * 64, 160
#: No model grid is finer than this share of the typical finding's diameter: a finding of 16 voxels across is enough.
_VOXELS_ACROSS = 16
#: Anchors: the findings' sizes in so many groups.
_ANCHORS = 4
#: Window of a chest, HU, where findings say nothing better.
_CT = {"kind": "ct", "clip": [-1000.0, 400.0], "mean": -300.0, "sd": 700.0}


def make_detection_plan(
    dataset: Dataset,
    cases: list[Case],
    changes: dict[str, Any] | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Plan:
    """Measure training scans and their findings, and decide how a network sees them.

    changes: fields that are given and not decided. Raises InputError for a change that is no field or has a wrong
    value, and where no training scan has a finding.
    """
    changes = checked_fields(dict(changes or {}), "section [plan]")
    statistics = finding_statistics(dataset, cases)
    if not statistics.count:
        raise InputError(f"No scan of the training part of {dataset.name} has a finding; there is nothing to learn.")
    diameters = np.prod(statistics.sizes, axis=1) ** (1 / 3)
    sizes, spacings, lowest = [], [], []
    chosen = cases[:: max(1, -(-len(cases) // _MEASURED))]
    for number, case in enumerate(chosen):
        if progress is not None:
            progress(number / len(chosen), f"measuring scan {number + 1} of {len(chosen)}")
        image, _ = load_case(case, dataset)
        grid = canonical_grid(Grid.of(image))
        sizes.append(grid.shape)
        spacings.append(grid.spacing)
        lowest.append(float(image.numpy().min()))
    size, spacing = np.median(sizes, axis=0), np.median(spacings, axis=0)
    flat = _flat_axis(np.array(sizes), changes)
    reasons: dict[str, str] = {}

    def decided(name: str, value: Any, reason: str) -> Any:
        reasons[name] = "Set by hand in the configuration." if name in changes else reason
        return changes.get(name, value)

    coarsest = float(np.median(diameters)) / _VOXELS_ACROSS
    own = tuple(0.0 if axis == flat else float(f"{max(mm, coarsest):.4g}") for axis, mm in enumerate(spacing))
    grid_spacing = decided(
        "spacing",
        own,
        f"The median spacing, and not finer than gives the median finding ({np.median(diameters):.1f} mm) "
        f"{_VOXELS_ACROSS} voxels across.",
    )
    used = np.where(np.array(grid_spacing) > 0, grid_spacing, spacing)
    extent = np.maximum(1, np.round(size * spacing / used)).astype(int)
    patch = decided("patch", _patch(extent, used, flat), "As much of a scan as trains in 8 GB, cubic in mm.")
    axes = [axis for axis in range(3) if patch[axis] > 1]
    sides = statistics.sizes[:, axes] / used[axes]
    is_ct = float(np.mean([LOWEST_CT <= low <= HIGHEST_AIR for low in lowest])) >= 0.5
    plan = Plan(
        spacing=grid_spacing,
        patch=patch,
        batch=decided("batch", 2, "Two samples: one makes the gradient too noisy."),
        normalization=decided(
            "normalization",
            dict(_CT) if is_ct else {"kind": "zscore"},
            "The values are Hounsfield units: from air to soft tissue, brought to -1 to 1."
            if is_ct
            else "The values have no fixed scale: each scan is brought to mean 0 and standard deviation 1 on its own.",
        ),
        interpolation=decided("interpolation", "linear", "It does not overshoot at the border of a finding."),
        axes=decided("axes", "patient", "Boxes lie along the patient's axes."),
        framing=decided("framing", "windows", "A scan is seen window after window."),
        region=decided("region", "all", "Findings may lie anywhere."),
        anchors=decided("anchors", _anchors(sides), f"The sizes of the {len(sides)} training findings, in groups."),
        reasons=reasons | changes.get("reasons", {}),
        measured={
            "data set": dataset.name,
            "scans": len(cases),
            "findings": statistics.count,
            "diameter in mm, percentiles 5, 50, 95": [
                round(float(p), 2) for p in np.percentile(diameters, [5, 50, 95])
            ],
            "size in voxels, median": [round(float(n), 1) for n in size],
            "spacing in mm, median": [round(float(n), 3) for n in spacing],
        },
    )
    if plan.framing != "windows":
        raise InputError(f"plan.framing is {plan.framing!r}; a detection sees scans in windows.")
    check_together(plan, "section [plan]")
    return plan


def _anchors(sides: np.ndarray) -> tuple[tuple[float, ...], ...]:
    from .networks.detection.anchors import fit_anchors

    return tuple(tuple(round(float(n), 2) for n in size) for size in fit_anchors(sides, min(_ANCHORS, len(sides))))


def _flat_axis(sizes: np.ndarray, changes: dict[str, Any]) -> int | None:
    if "patch" in changes:
        return changes["patch"].index(1) if 1 in changes["patch"] else None
    flat = np.flatnonzero(sizes.max(axis=0) == 1)
    return int(flat[0]) if len(flat) else None


def _patch(extent: np.ndarray, spacing: np.ndarray, flat: int | None) -> tuple[int, ...]:
    """Voxels: a cube in mm of the volume that fits, no larger than a scan, in multiples of 16."""
    axes = [axis for axis in range(3) if axis != flat]
    if flat is not None:
        return tuple(1 if axis == flat else int(min(512, -(-extent[axis] // 32) * 32)) for axis in range(3))
    side = (_VOXELS * np.prod(spacing[axes])) ** (1 / len(axes))
    voxels = np.minimum(np.minimum(side / spacing, _LONGEST), extent)
    return tuple(int(max(16, round(n / 16) * 16)) for n in voxels)
