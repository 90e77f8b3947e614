"""What the data are like: sizes, spacings, intensities and label frequencies, measured case by case.

After the data set fingerprint of nnU-Net (Isensee et al., Nature Methods 2021, Online Methods).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..preprocessing import Grid, canonical_grid, is_oblique
from .dataset import Case, Dataset, listed
from .instances import instances_of
from .loading import load_cases

#: Foreground voxels that each case gives to the pooled intensities, so that large cases do not speak for all.
_VOXELS_PER_CASE = 10_000
#: Hounsfield units reach from about −1024 (air) to 3071; scanners pad outside their field of view with down to −3024.
LOWEST_CT, HIGHEST_AIR = -3100, -500


@dataclass(frozen=True)
class CaseFingerprint:
    """One case. size (voxels) and spacing (mm) are in the order right, anterior, superior, whatever the order in the
    file.

    channels: for each, mean, sd, min, max and percentiles 0.5, 50 and 99.5 over the whole volume; and over its
    foreground. labels: name → number of voxels. Of a data set of findings these are the voxels of its label maps, or
    those of the ellipsoids in the boxes.
    """

    name: str
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    oblique: bool
    channels: tuple[dict[str, Any], ...]
    labels: dict[str, int]


@dataclass(frozen=True)
class Fingerprint:
    """All cases, and what can only be said of them together.

    foreground: for each channel mean, sd and percentiles 0.5 and 99.5 of labelled voxels of all cases, each case heard
    equally. ct: for each channel, whether its values are Hounsfield units.
    """

    dataset: str
    cases: tuple[CaseFingerprint, ...]
    channel_names: tuple[str, ...]
    foreground: tuple[dict[str, float], ...]
    ct: tuple[bool, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """The whole data set in a few numbers that a person can read, as JSON takes them."""
        sizes = np.array([case.size for case in self.cases])
        spacings = np.array([case.spacing for case in self.cases])
        voxels = float(sizes.prod(axis=1).sum())
        names = self.cases[0].labels
        return {
            "data set": self.dataset,
            "cases": len(self.cases),
            "axes": "right, anterior, superior",
            "size in voxels": {
                "median": _plain(np.median(sizes, axis=0)),
                "min": _plain(sizes.min(axis=0)),
                "max": _plain(sizes.max(axis=0)),
            },
            "spacing in mm": {
                "median": _plain(np.median(spacings, axis=0)),
                "min": _plain(spacings.min(axis=0)),
                "max": _plain(spacings.max(axis=0)),
            },
            "oblique cases": sum(case.oblique for case in self.cases),
            "intensity": {
                name: {
                    "median of case means": _plain(
                        np.median([case.channels[number]["whole"]["mean"] for case in self.cases])
                    ),
                    "median of case sds": _plain(
                        np.median([case.channels[number]["whole"]["sd"] for case in self.cases])
                    ),
                    "lowest": _plain(min(case.channels[number]["whole"]["min"] for case in self.cases)),
                    "highest": _plain(max(case.channels[number]["whole"]["max"] for case in self.cases)),
                    "labelled voxels": {key: _plain(value) for key, value in self.foreground[number].items()},
                    "Hounsfield units": self.ct[number],
                }
                for number, name in enumerate(self.channel_names)
            },
            "labels": {
                name: {
                    "share of all voxels": _plain(sum(case.labels[name] for case in self.cases) / voxels),
                    "median voxels a case": _plain(np.median([case.labels[name] for case in self.cases])),
                    "cases that have it": sum(case.labels[name] > 0 for case in self.cases),
                }
                for name in names
            },
        }


def fingerprint(
    dataset: Dataset, cases: Iterable[Case], progress: Callable[[float, str], None] | None = None
) -> Fingerprint:
    """Read and measure cases (the training cases: a plan must not know the others).

    Intensities are in the unit of the files. Raises InputError that names all cases that cannot be used, or where no
    case has a labelled voxel.
    """
    names = dict(enumerate(dataset.findings, start=1)) or dataset.labels
    measured: list[CaseFingerprint] = []
    pooled: list[list[np.ndarray]] = [[] for _ in dataset.channels]
    lows: list[list[bool]] = [[] for _ in dataset.channels]
    for case, image, reference in load_cases(dataset, cases, progress):
        array = image.numpy()
        labels = _labels(dataset, reference, image)
        inside = labels > 0
        channels = []
        for number, channel in enumerate(array):
            foreground = channel[inside]
            channels.append({"whole": _statistics(channel.ravel()), "foreground": _statistics(foreground)})
            pooled[number].append(foreground[:: max(1, len(foreground) // _VOXELS_PER_CASE)])
            lows[number].append(_may_be_ct(channel))
        counts = np.bincount(labels.ravel(), minlength=max(names) + 1)
        grid = canonical_grid(Grid.of(image))
        measured.append(
            CaseFingerprint(
                case.name,
                grid.shape,
                tuple(float(n) for n in grid.spacing),
                is_oblique(grid),
                tuple(channels),
                {name: int(counts[value]) for value, name in names.items()},
            )
        )
    if not measured:
        raise InputError(f"There are no cases of {dataset.name} to measure.")
    if not any(count for case in measured for count in case.labels.values()):
        raise InputError(
            f"None of the {len(measured)} cases of {dataset.name} has a voxel labelled "
            f"{listed(names.values())}; there is nothing to learn from them."
        )
    absent = [name for name in names.values() if not any(case.labels[name] for case in measured)]
    if absent:
        warnings.warn(
            f"No training case has a voxel labelled {listed(absent)}; a model cannot learn it.",
            stacklevel=2,
        )
    # A part of a scan need not hold air: most of the cases have to look like CT, not each of them.
    ct = tuple(
        name.strip().lower() == "ct" or float(np.mean(low)) >= 0.5
        for name, low in zip(dataset.channels, lows, strict=True)
    )
    foreground = tuple(_statistics(np.concatenate(values)) for values in pooled)
    return Fingerprint(dataset.name, tuple(measured), dataset.channels, foreground, ct)


def _labels(dataset: Dataset, reference: Any, image: Any) -> np.ndarray:
    """Label map (I, J, K) of a case; of findings, value n + 1 stands for class n."""
    shape = tuple(image.shape[1:])
    if reference is None:
        return np.zeros(shape, dtype=np.uint8)
    if not dataset.findings:
        return reference.labels
    values = [dataset.findings.index(finding.label) + 1 for finding in reference.findings]
    instances = instances_of(reference.findings, image) if reference.instances is None else reference.instances
    return np.array([0, *values], dtype=np.uint16)[instances]


def _statistics(values: np.ndarray) -> dict[str, float] | None:
    """mean, sd, min, max and percentiles of a flat array; None of an empty one."""
    if not values.size:
        return None
    low, middle, high = np.percentile(values, [0.5, 50, 99.5])
    numbers = {
        "mean": values.mean(dtype=np.float64),
        "sd": values.std(dtype=np.float64),
        "min": values.min(),
        "percentile 0.5": low,
        "median": middle,
        "percentile 99.5": high,
        "max": values.max(),
    }
    return {key: float(value) for key, value in numbers.items()}


def _may_be_ct(channel: np.ndarray) -> bool:
    """Whole numbers that reach down to air."""
    low = float(channel.min())
    return LOWEST_CT <= low <= HIGHEST_AIR and bool(np.all(channel == np.rint(channel)))


def _plain(values: Any) -> Any:
    """Numbers rounded to four digits, whole where they are whole, in lists."""
    if np.ndim(values):
        return [_plain(value) for value in values]
    rounded = float(f"{float(values):.4g}") if abs(values) < 1e4 else round(float(values))
    return int(rounded) if rounded == int(rounded) else rounded
