"""Make the data set that low-dose-ct, low-dose-ct-gan and sparse-view-ct are trained on, outside the project.

    python Testing/benchmarks/low_dose_ct_data.py ../shared/data /tmp/low-dose-ct

One patient, CPTAC-LSCC-C3N-00247, in slabs of a few slices: ``native/`` on its own pixels (0.56 mm), which measurements
are simulated from; ``image/`` the same, and on pixels twice as large, so that a network for images meets both. Every
slab comes twice, once with each slice averaged with the next: thicker slices hold less noise, and other scanners' are
thicker. ``split.json``: three places of two slices are for validation, with two slices on each side in neither part.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
from MedMapAILib.files import write_atomically
from MedMapAILib.image import affine_of, read_image, write_array

PATIENT = "CPTAC-LSCC-C3N-00247"
#: First and last slice, as Python counts, for training and for validation.
TRAINING = ((0, 18), (24, 48), (54, 78), (84, 99))
VALIDATION = ((20, 22), (50, 52), (80, 82))
#: Slices in a slab for training.
SLAB = 6


def slabs(ranges: tuple[tuple[int, int], ...], size: int) -> list[tuple[int, int]]:
    """The ranges in pieces of at most that many slices."""
    return [(first, min(first + size, end)) for begin, end in ranges for first in range(begin, end, size)]


def averaged(
    values: np.ndarray, affine: np.ndarray, factor: int, axes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Values (I, J, K) averaged over ``factor`` voxels along some axes, and the affine of the result."""
    affine = affine.copy()
    step = np.eye(4)
    for axis in axes:
        whole = values.shape[axis] // factor * factor
        parts = np.moveaxis(values, axis, 0)[:whole].reshape(whole // factor, factor, *np.delete(values.shape, axis))
        values = np.moveaxis(parts.mean(axis=1), 0, axis)
        step[axis, axis], step[axis, 3] = factor, (factor - 1) / 2
    return values, affine @ step


def thick(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each slice averaged with the next."""
    affine = affine.copy()
    affine[:3, 3] += affine[:3, 2] / 2
    return (values[..., 1:] + values[..., :-1]) / 2, affine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="folder of the data README")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    image = read_image(arguments.data / "chest_ct" / PATIENT)
    values, affine = image.numpy()[0].clip(-1000, 3071), affine_of(image)
    split: dict[str, dict[str, list[str]]] = {kind: {"train": [], "validation": []} for kind in ("native", "image")}
    for part, ranges, size in (("train", TRAINING, SLAB), ("validation", VALIDATION, SLAB)):
        for first, end in slabs(ranges, size):
            place = affine.copy()
            place[:3, 3] += first * affine[:3, 2]
            slab = values[..., first:end]
            kinds = {"": (slab, place)}
            if part == "train":
                kinds["-thick"] = thick(slab, place)
            for kind, (array, where) in kinds.items():
                name = f"slices-{first:02d}-{end - 1:02d}{kind}"
                write(arguments.output / "native" / f"{name}.nrrd", array, where)
                split["native"][part].append(name)
                target = arguments.output / "image" / f"{name}.nrrd"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                os.link(arguments.output / "native" / f"{name}.nrrd", target)
                write(arguments.output / "image" / f"{name}-half.nrrd", *averaged(array, where, 2, (0, 1)))
                split["image"][part] += [name, f"{name}-half"]
    for kind, names in split.items():
        write_atomically(arguments.output / f"{kind}.split.json", json.dumps(names, indent=1).encode())
    print(f"{arguments.output}: {len(split['native']['train'])} slabs for training")


def write(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """A volume (I, J, K) in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_array(np.round(values).astype(np.int16), affine, path)


if __name__ == "__main__":
    main()
