"""The plan: every decision about how a model sees data, in a file that a person can read and change.

The rules follow nnU-Net (Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image
segmentation, Nature Methods 18, 203-211, 2021, Online Methods, and its default planner of version 2): median spacing
with an exception for thick slices, patch from the median size within a memory budget, batch from what is left.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .files import write_atomically

if TYPE_CHECKING:
    from .datasets.fingerprint import Fingerprint

#: Thick slices: the largest spacing is this many times the others, and the volume that much flatter.
_ANISOTROPIC = 3.0
#: Axes are halved together while their spacings are within this factor of the finest.
_SAME_SPACING = 2.0
#: A feature map is halved along an axis only as long as this much is left.
_SMALLEST_MAP = 4
#: Patch of a 3D U-Net of usual width that trains in 8 GB with a batch of two: what nnU-Net's default comes out at.
_VOXELS, _SLICE_PIXELS, _MEMORY_GB, _BATCH = 128**3, 512**2, 8.0, 2
#: A batch shows at most this share of all voxels of the training data.
_BATCH_SHARE = 0.05
#: The usual networks halve three times, so a patch is a multiple of this along every axis that they halve.
_MULTIPLE = 8

INTERPOLATIONS = ("linear", "cubic")
AXES = ("patient", "image")
FRAMINGS = ("windows", "resize", "crop")
REGIONS = ("all", "lungs")
NORMALIZATIONS = {
    "zscore": "",
    "percentile": "lower and upper, percentiles of the volume from 0 to 100",
    "ct": "clip [low, high], mean and sd in HU",
    "fixed": "clip [low, high], mean and sd in the unit of the images",
    "none": "",
}


@dataclass(frozen=True)
class Plan:
    """How a model sees data.

    spacing: of the model grid in mm; patch: window in voxels; both in the order right, anterior, superior. A patch with
    one 1 makes the model two-dimensional across that axis, where a spacing of 0 keeps the slices of each volume; three
    zeros keep all of its voxels. batch: samples an iteration. normalization, interpolation: as in ``preprocessing``.
    axes: "patient" turns oblique volumes upright, "image" leaves them as they are. framing: how the network sees a
    volume: in "windows" of the patch's size; at once, "resize"d to the patch; or as the "crop" of the patch's size
    around its middle. region: what of a volume is looked at, "all" or the box of the "lungs". anchors: boxes that a
    detector begins from, sizes in voxels of the model grid, one number an axis of the network; empty for other tasks.
    reasons: field → sentence. measured: what the plan was made from.
    """

    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    batch: int
    normalization: dict[str, Any]
    interpolation: str = "linear"
    axes: str = "patient"
    framing: str = "windows"
    region: str = "all"
    anchors: tuple[tuple[float, ...], ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def spatial_dims(self) -> int:
        """2 where the patch is one voxel thick, else 3."""
        return 2 if 1 in self.patch else 3

    @property
    def pooling(self) -> tuple[int, ...]:
        """How often a network may halve the patch along each of its axes (two for a two-dimensional plan)."""
        kept = [axis for axis in range(3) if self.spatial_dims == 3 or axis != self.patch.index(1)]
        return poolings([self.spacing[axis] for axis in kept], [self.patch[axis] for axis in kept])


def make_plan(
    fingerprint: Fingerprint, changes: dict[str, Any] | None = None, *, memory_gb: float = _MEMORY_GB
) -> Plan:
    """Decide about everything from what the training data are like.

    changes: fields that are given and not decided; what depends on them follows (the patch follows the spacing, the
    batch the patch). memory_gb: of the device to train on; the patch grows and shrinks with it. The result depends on
    nothing else, so that it is the same on every machine. Raises InputError for a change that is no field or has a
    wrong value.
    """
    changes = checked_fields(dict(changes or {}), "section [plan]")
    measured = fingerprint.summary()
    sizes = np.array([case.size for case in fingerprint.cases], dtype=float)
    spacings = np.array([case.spacing for case in fingerprint.cases])
    reasons: dict[str, str] = {}
    flat = _flat_axis(sizes, changes)

    def decided(name: str, decide: Callable[[], tuple[Any, str]]) -> Any:
        if name in changes:
            reasons[name] = "Set by hand in the configuration."
            return changes[name]
        value, reasons[name] = decide()
        return value

    spacing = decided("spacing", lambda: _spacing(sizes, spacings, flat))
    # Where the spacing is 0 a volume keeps its own.
    extents = sizes * np.where(np.array(spacing) > 0, spacings / np.where(np.array(spacing) > 0, spacing, 1), 1)
    median = np.maximum(1, np.median(extents, axis=0).round())
    patch = decided("patch", lambda: _patch(median, np.array(spacing), flat, memory_gb))
    batch = decided("batch", lambda: _batch(median, patch, len(sizes), memory_gb))
    thick = _thick_axis(np.median(sizes, axis=0), np.median(spacings, axis=0)) is not None
    plan = Plan(
        spacing=spacing,
        patch=patch,
        batch=batch,
        normalization=decided("normalization", lambda: _normalization(fingerprint)),
        interpolation=decided("interpolation", lambda: _interpolation(thick)),
        axes=decided("axes", lambda: _axes(fingerprint, spacings)),
        reasons=reasons | changes.get("reasons", {}),
        measured=measured,
    )
    check_together(plan, "section [plan]")
    return plan


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """As JSON takes it."""
    return json.loads(json.dumps(asdict(plan)))


def plan_from_dict(content: Any, where: str = "the plan") -> Plan:
    """The plan in a dictionary, every field checked.

    where: for the message. Raises InputError that names the wrong field and what it must be.
    """
    if not isinstance(content, dict):
        raise InputError(f"The plan in {where} must be an object with the fields {', '.join(_CHECKS)}.")
    missing = [name for name in ("spacing", "patch", "batch", "normalization") if name not in content]
    if missing:
        raise InputError(f"The plan in {where} lacks {' and '.join(missing)}; add it, or let a new plan be made.")
    plan = Plan(**checked_fields(content, where))
    check_together(plan, where)
    return plan


def write_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as indented JSON, whole or not at all. Raises as ``files.atomic_file``."""
    text = json.dumps(plan_to_dict(plan), indent=2, ensure_ascii=False)
    # Lists of numbers in one line: three numbers are one thing to a reader.
    text = re.sub(r"\[\s+([-+.\deE,\s]+?)\s+\]", lambda match: f"[{' '.join(match.group(1).split())}]", text)
    write_atomically(path, (text + "\n").encode())


def read_plan(path: str | Path, changes: dict[str, Any] | None = None) -> Plan:
    """Read a plan, whether made or edited; ``changes`` go over its fields.

    Raises InputError that names the file, the wrong field and what it must be.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"The plan {path} cannot be read ({error.strerror}); check the path.") from None
    except ValueError as error:
        raise InputError(f"The plan {path} is not valid JSON ({error}); correct it.") from None
    plan = plan_from_dict(content, str(path))
    if changes:
        values = checked_fields(dict(changes), "section [plan]")
        reasons = (
            plan.reasons | {name: "Set by hand in the configuration." for name in values} | values.get("reasons", {})
        )
        plan = replace(plan, **{**values, "reasons": reasons})
        check_together(plan, "section [plan]")
    return plan


def poolings(spacing: Any, patch: Any) -> tuple[int, ...]:
    """How often to halve a patch (voxels) along each axis, given its spacing (mm; 0 where unknown).

    nnU-Net's rule: in each step those axes are halved whose spacing, grown by the halvings so far, is within a factor
    of two of the finest, and that have at least eight voxels left, so that no feature map gets smaller than four.
    """
    spacing, size = np.array(spacing, dtype=float), np.array(patch, dtype=float)
    spacing[spacing <= 0] = spacing.max() if spacing.max() > 0 else 1.0
    count = np.zeros(len(size), dtype=int)
    while True:
        large = size >= 2 * _SMALLEST_MAP
        if not large.any():
            return tuple(int(n) for n in count)
        now = large & (spacing < _SAME_SPACING * spacing[large].min())
        size[now] = np.ceil(size[now] / 2)
        spacing[now] *= 2
        count[now] += 1


# --------------------------------------------------------------------------------------------------------------------
# The decisions: each returns the value and its reason


def _flat_axis(sizes: np.ndarray, changes: dict[str, Any]) -> int | None:
    """The axis across which to go slice by slice, because every volume is one slice, or the given patch says so."""
    if "patch" in changes:
        return changes["patch"].index(1) if 1 in changes["patch"] else None
    flat = np.flatnonzero(sizes.max(axis=0) == 1)
    if len(flat) > 1:
        raise InputError("The images are lines of voxels, one voxel wide in two directions; give slices or volumes.")
    return int(flat[0]) if len(flat) else None


def _thick_axis(size: np.ndarray, spacing: np.ndarray) -> int | None:
    """The axis of thick slices, if there is one: nnU-Net's test on median size (voxels) and spacing (mm)."""
    axis = int(np.argmax(spacing))
    others = [other for other in range(3) if other != axis]
    coarse = spacing[axis] > _ANISOTROPIC * spacing[others].max()
    few = size[axis] * _ANISOTROPIC < size[others].min()
    return axis if coarse and few else None


def _spacing(sizes: np.ndarray, spacings: np.ndarray, flat: int | None) -> tuple[tuple[float, ...], str]:
    target = np.median(spacings, axis=0)
    reason = "The median spacing of the training cases along each axis."
    axis = _thick_axis(np.median(sizes, axis=0), target)
    if flat is not None:
        target[flat] = 0.0
        reason = "The median spacing in the slices; 0 across them, which keeps the slices that each volume has."
    elif axis is not None:
        others = max(target[other] for other in range(3) if other != axis)
        target[axis] = max(float(np.percentile(spacings[:, axis], 10)), others)
        reason = (
            f"The median spacing in the slices; across them (axis {axis + 1}) the 10th percentile, since slices are "
            f"more than {_ANISOTROPIC:g} times as thick as pixels are wide and the median would throw away what thin "
            "slices show."
        )
    return tuple(float(f"{value:.6g}") for value in target), reason


def _patch(median: np.ndarray, spacing: np.ndarray, flat: int | None, memory_gb: float) -> tuple[tuple[int, ...], str]:
    kept = [axis for axis in range(3) if axis != flat]
    full = median[kept]
    mm = np.where(spacing[kept] > 0, spacing[kept], 1.0)
    budget = (_VOXELS if flat is None else _SLICE_PIXELS) * memory_gb / _MEMORY_GB

    def fitted(size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = np.maximum(_MULTIPLE, 2 ** np.array(poolings(mm, size)))
        return (np.ceil(size / steps) * steps).astype(int), steps

    # The start is a box of equal lengths in mm, and no larger than the median case.
    wanted = (1 / mm) * (2 * budget ** (1 / len(kept))) / np.prod(1 / mm) ** (1 / len(kept))
    wanted = np.minimum(full, np.maximum(1, wanted.round()))
    size, steps = fitted(wanted)
    while size.prod() > budget and np.any(wanted > _MULTIPLE):
        # The axis that covers most of its volume gives way; of several the one that reaches furthest in mm.
        covered = np.where(wanted > _MULTIPLE, np.minimum(size / full, 1.0), -1)
        axis = int(np.argmax(np.where(covered >= covered.max() - 1e-9, size * mm, -1)))
        # Down to the next multiple; the loop ends because what is wanted only ever gets smaller.
        wanted[axis] = max(_MULTIPLE, min(wanted[axis] - 1, size[axis] - steps[axis]))
        size, steps = fitted(wanted)
    result = np.ones(3, dtype=int)
    result[kept] = size
    whole = bool(np.all(size >= full))
    reason = (
        f"The median case has {'×'.join(str(int(n)) for n in median)} voxels at this spacing; "
        + ("it fits as a whole" if whole else "this is the largest part of its proportions that fits")
        + f" into the {int(budget):,} voxels that a device of {memory_gb:g} GB takes, "
        f"rounded to multiples of {'×'.join(str(n) for n in steps)} so that a network can halve it {_words(steps)} "
        "times."
    )
    return tuple(int(n) for n in result), reason


def _words(steps: np.ndarray) -> str:
    halvings = [int(math.log2(step)) for step in steps]
    return str(halvings[0]) if len(set(halvings)) == 1 else " and ".join(str(n) for n in halvings)


def _batch(median: np.ndarray, patch: tuple[int, ...], cases: int, memory_gb: float) -> tuple[int, str]:
    voxels = math.prod(patch)
    budget = (_SLICE_PIXELS * 12 if 1 in patch else _VOXELS * _BATCH) * memory_gb / _MEMORY_GB
    fits = max(1, int(budget // voxels))
    share = round(float(median.prod()) * cases * _BATCH_SHARE / voxels)
    batch = max(_BATCH, min(fits, share))
    if batch == _BATCH:
        reason = "Two samples: one makes the gradient too noisy; more do not fit or show too much of the data at once."
    elif batch == share:
        reason = f"As many samples as show {_BATCH_SHARE:.0%} of all training voxels; the memory would take {fits}."
    else:
        reason = f"As many samples of this patch as a device of {memory_gb:g} GB takes."
    return batch, reason


def _normalization(fingerprint: Fingerprint) -> tuple[dict[str, Any], str]:
    if all(fingerprint.ct):
        values = fingerprint.foreground
        number = len(values)
        low, high, mean, sd = (
            sum(channel[key] for channel in values) / number
            for key in ("percentile 0.5", "percentile 99.5", "mean", "sd")
        )
        # A foreground of one value (a phantom) says nothing about the scale of intensities.
        if high > low and sd > 0:
            numbers = {"clip": [round(low, 2), round(high, 2)], "mean": round(mean, 4), "sd": round(sd, 4)}
            return {"kind": "ct", **numbers}, (
                "The values are Hounsfield units, the same in every scanner: clipped to the 0.5th and 99.5th "
                "percentile of the labelled voxels of all training cases, then their mean subtracted and divided by "
                "their standard deviation."
            )
    return {"kind": "zscore"}, (
        "The values have no fixed scale: each volume is brought to mean 0 and standard deviation 1 on its own."
        + (" (Some channels are CT, but not all of them.)" if any(fingerprint.ct) and not all(fingerprint.ct) else "")
    )


def _interpolation(thick: bool) -> tuple[str, str]:
    if thick:
        return "linear", "Slices are thick, and a cubic spline would overshoot between them."
    return (
        "cubic",
        "Voxels are about as long as wide, and a cubic spline keeps fine detail that linear interpolation blurs.",
    )


def _axes(fingerprint: Fingerprint, spacings: np.ndarray) -> tuple[str, str]:
    oblique = sum(case.oblique for case in fingerprint.cases)
    anisotropy = float(np.median(spacings.max(axis=1) / spacings.min(axis=1)))
    said = f"{oblique} of {len(fingerprint.cases)} volumes are oblique"
    if 2 * oblique > len(fingerprint.cases) and anisotropy > 2:
        return "image", (
            f"{said}, and their longest voxel edge is {anisotropy:.1f} times the shortest: they keep their own axes, "
            "since turning them would mix thick slices."
        )
    return (
        "patient",
        f"{said}; an oblique volume is resampled along the patient's axes, so that the anatomy stands upright.",
    )


# --------------------------------------------------------------------------------------------------------------------
# Checks of what a person wrote


def checked_fields(content: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields in the types of Plan. Raises InputError that names the wrong field and what it must be."""
    result = {}
    for name, value in content.items():
        if name not in _CHECKS:
            raise InputError(f"{name!r} in {where} is no field of a plan; there are {', '.join(_CHECKS)}.")
        check, meaning = _CHECKS[name]
        checked = check(value)
        if checked is None:
            raise InputError(f"{name!r} in {where} is {json.dumps(value, default=str)}; it must be {meaning}.")
        result[name] = checked
    return result


def check_together(plan: Plan, where: str) -> None:
    for axis, (mm, voxels) in enumerate(zip(plan.spacing, plan.patch, strict=True), start=1):
        # A detector for slices may see each of them as it was acquired, and a reconstruction keep all voxels.
        own = (plan.anchors and plan.spatial_dims == 2) or not any(plan.spacing)
        if mm == 0 and voxels != 1 and not own:
            raise InputError(
                f"'spacing' in {where} is 0 along axis {axis}; that is possible only across slices, where the patch "
                "is 1: give a length in mm."
            )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return _number(value) and value == int(value)


def _check_spacing(value: Any) -> tuple[float, ...] | None:
    good = isinstance(value, (list, tuple)) and len(value) == 3 and all(_number(v) and v >= 0 for v in value)
    return tuple(float(v) for v in value) if good else None


def _check_patch(value: Any) -> tuple[int, ...] | None:
    good = isinstance(value, (list, tuple)) and len(value) == 3 and all(_whole(v) and v >= 1 for v in value)
    return tuple(int(v) for v in value) if good and list(value).count(1) <= 1 else None


def _check_anchors(value: Any) -> tuple[tuple[float, ...], ...] | None:
    if not isinstance(value, (list, tuple)):
        return None
    good = all(
        isinstance(size, (list, tuple)) and len(size) in (2, 3) and all(_number(n) and n > 0 for n in size)
        for size in value
    )
    return tuple(tuple(float(n) for n in size) for size in value) if good else None


def _check_batch(value: Any) -> int | None:
    return int(value) if _whole(value) and value >= 1 else None


def _check_normalization(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or value.get("kind") not in NORMALIZATIONS:
        return None
    numbers = {key: number for key, number in value.items() if key != "kind"}
    if value["kind"] in ("zscore", "none"):
        good = not numbers
    elif value["kind"] == "percentile":
        good = set(numbers) == {"lower", "upper"} and all(map(_number, numbers.values()))
        good = good and 0 <= numbers["lower"] < numbers["upper"] <= 100
    else:
        clip = numbers.get("clip")
        good = set(numbers) == {"clip", "mean", "sd"} and _number(numbers["mean"]) and _number(numbers["sd"])
        good = good and numbers["sd"] > 0 and isinstance(clip, (list, tuple)) and len(clip) == 2
        good = good and all(map(_number, clip)) and clip[0] < clip[1]
    return json.loads(json.dumps(value)) if good else None


def _check_sentences(value: Any) -> dict[str, str] | None:
    good = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    return dict(value) if good else None


def _one_of(names: tuple[str, ...]) -> Callable[[Any], str | None]:
    return lambda value: value if value in names else None


_CHECKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "spacing": (_check_spacing, "three lengths in mm (right, anterior, superior), such as [1.0, 1.0, 2.5]"),
    "patch": (
        _check_patch,
        "three whole numbers of voxels, at least 1 and at most one of them 1, such as [96, 96, 64]",
    ),
    "batch": (_check_batch, "a whole number, at least 1"),
    "normalization": (
        _check_normalization,
        "an object with 'kind', one of "
        + ", ".join(f"{kind} ({needs})" if needs else kind for kind, needs in NORMALIZATIONS.items())
        + ", and with exactly these numbers",
    ),
    "interpolation": (_one_of(INTERPOLATIONS), " or ".join(INTERPOLATIONS)),
    "axes": (_one_of(AXES), " or ".join(AXES)),
    "framing": (_one_of(FRAMINGS), " or ".join(FRAMINGS)),
    "region": (_one_of(REGIONS), " or ".join(REGIONS)),
    "anchors": (_check_anchors, "a list of sizes in voxels, one number an axis, such as [[6, 6, 3], [12, 12, 6]]"),
    "reasons": (_check_sentences, "an object of field names and sentences"),
    "measured": (lambda value: dict(value) if isinstance(value, dict) else None, "an object"),
}
