"""The plan of a reconstruction: the grid that images are made on, and the scale of their values."""

from __future__ import annotations

from typing import Any

import numpy as np

from .datasets import Case, Dataset
from .datasets.fingerprint import HIGHEST_AIR, LOWEST_CT
from .datasets.loading import load_case
from .errors import InputError
from .plan import Plan, check_together, checked_fields
from .preprocessing import Grid, canonical_grid
from .results import ImageKind

#: Images that are measured: more would not change a median.
_MEASURED = 20
#: Air becomes 0, as the borders of convolutions are, and water 2. The noise of a low dose and streaks reach far beyond
#: air and bone; where they were cut off, the mean of what is left would not be air's any more.
_CT = {"kind": "ct", "clip": [-4000.0, 8000.0], "mean": -1000.0, "sd": 500.0}
#: Display window where none is said, HU: all that is not metal or cortical bone.
_CT_WINDOW = (-1000.0, 1000.0)
#: Longest side of a patch, and of an image that is made of a measurement, pixels.
_PATCH, _IMAGE = 128, 256
#: Slices are thick, and seen one by one, where their distance is this many times the pixel's.
_THICK = 2.0


def make_reconstruction_plan(
    dataset: Dataset, cases: list[Case], changes: dict[str, Any] | None = None, *, domain: str
) -> Plan:
    """Measure training images, and decide how a network sees them.

    changes: fields that are given and not decided. domain: "image", where a network sees patches of images on their own
    voxels; or "measurement", where it makes images of one size and pixel. Raises InputError for a change that is no
    field or has a wrong value, and for what is no image.
    """
    changes = checked_fields(dict(changes or {}), "section [plan]")
    sizes, spacings, lowest, percentiles = [], [], [], []
    chosen = cases[:: max(1, -(-len(cases) // _MEASURED))]
    if not chosen:
        raise InputError(f"There are no cases of {dataset.name} to measure.")
    for case in chosen:
        image, reference = load_case(case, dataset)
        values = image.numpy()[0] if reference is None else reference.values
        affine = image.affine if reference is None else reference.affine
        grid = canonical_grid(Grid(tuple(values.shape), np.asarray(affine, dtype=np.float64)))
        sizes.append(grid.shape)
        spacings.append(grid.spacing)
        lowest.append(float(values.min()))
        percentiles.append(np.percentile(values, [0.5, 99.5]))
    size, spacing = np.median(sizes, axis=0), np.median(spacings, axis=0)
    is_ct = float(np.mean([LOWEST_CT <= low <= HIGHEST_AIR for low in lowest])) >= 0.5
    reasons: dict[str, str] = {}

    def decided(name: str, value: Any, reason: str) -> Any:
        reasons[name] = "Set by hand in the configuration." if name in changes else reason
        return changes.get(name, value)

    measured = domain == "measurement"
    own, patch, why = _image_grid(size, spacing) if measured else _patches(size, spacing)
    patch = decided("patch", patch, why)
    voxels = int(np.prod(patch))
    plan = Plan(
        spacing=decided(
            "spacing",
            own,
            "Pixels of the image that is made; slices stay as they are."
            if measured
            else "0: voxels stay as they are, since resampling would change the noise.",
        ),
        patch=patch,
        batch=decided("batch", 1 if measured else max(2, min(16, 2**18 // voxels)), "As many as train in 8 GB."),
        normalization=decided(
            "normalization",
            {"kind": "none"} if measured else dict(_CT) if is_ct else {"kind": "zscore"},
            "The network scales what it is given itself."
            if measured
            else "The values are Hounsfield units; air becomes 0, and 500 HU 1."
            if is_ct
            else "The values have no fixed scale: each image is brought to mean 0 and standard deviation 1 on its own.",
        ),
        interpolation=decided("interpolation", "linear", "It does not overshoot."),
        axes=decided("axes", "image", "Images keep their own axes, since turning them would change the noise."),
        framing=decided("framing", "windows", "An image is seen window after window, and a measurement at once."),
        reasons=reasons | changes.get("reasons", {}),
        measured={
            "data set": dataset.name,
            "cases": len(cases),
            "size in voxels, median": [round(float(n), 1) for n in size],
            "spacing in mm, median": [round(float(n), 3) for n in spacing],
            "Hounsfield units": is_ct,
            "values, percentiles 0.5 and 99.5, median": [float(f"{v:.4g}") for v in np.median(percentiles, axis=0)],
        },
    )
    if plan.framing != "windows":
        raise InputError(f"plan.framing is {plan.framing!r}; a reconstruction sees images in windows.")
    check_together(plan, "section [plan]")
    return plan


def image_kind(plan: Plan, config: dict[str, dict[str, Any]], domain: str) -> ImageKind:
    """Unit and window of the images, from section [reconstruction] or else from what was measured for the plan."""
    said = config["reconstruction"]
    is_ct = bool(plan.measured.get("Hounsfield units")) or plan.normalization["kind"] == "ct"
    is_ct = is_ct or config["acquisition"].get("kind") == "ct"
    unit = ("HU" if is_ct else "") if said["unit"] is None else str(said["unit"])
    measured = plan.measured.get("values, percentiles 0.5 and 99.5, median")
    window = said["window"] or (_CT_WINDOW if is_ct else measured)
    if not window or not window[0] < window[1]:
        raise InputError("The window of the images is not known; set reconstruction.window, such as [0, 1000].")
    return ImageKind(unit, (float(window[0]), float(window[1])), domain, dict(config["acquisition"]))


def _patches(size: np.ndarray, spacing: np.ndarray) -> tuple[tuple[float, ...], tuple[int, ...], str]:
    """Two-dimensional across thick slices, or where there is one slice; else a cube."""
    axis = int(np.argmax(spacing))
    flat = np.flatnonzero(size == 1)
    others = [n for n in range(3) if n != axis]
    if len(flat) or spacing[axis] > _THICK * spacing[others].max():
        axis = int(flat[0]) if len(flat) else axis
        side = int(min(_PATCH, max(16, min(size[n] for n in range(3) if n != axis) // 16 * 16)))
        patch = tuple(1 if n == axis else side for n in range(3))
        return (0.0, 0.0, 0.0), patch, "Slices are seen one by one; what noise looks like shows in a part of them."
    side = int(min(_PATCH // 2, max(16, size.min() // 16 * 16)))
    return (0.0, 0.0, 0.0), (side,) * 3, "A cube; what noise looks like shows in a part of a volume."


def _image_grid(size: np.ndarray, spacing: np.ndarray) -> tuple[tuple[float, ...], tuple[int, ...], str]:
    factor = max(1.0, float(size[:2].max()) / _IMAGE)
    pixel = float(f"{max(spacing[:2]) * factor:.6g}")
    side = int(min(_IMAGE, -(-size[:2].max() / factor // 16) * 16))
    return (pixel, pixel, 0.0), (side, side, 1), "The whole of the median slice in this many pixels."
