"""A chest of a few geometric bodies, in HU, along the patient's axes (right, front, head)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LUNG, TISSUE, AIR = -850.0, 40.0, -1000.0


@dataclass(frozen=True)
class Chest:
    """voxels: (I, J, K) HU. affine: → RAS mm. lungs, trachea, gas: bool (I, J, K), as they were drawn."""

    voxels: np.ndarray
    affine: np.ndarray
    lungs: np.ndarray
    trachea: np.ndarray
    gas: np.ndarray


def chest(
    spacing: tuple[float, float, float] = (2.5, 2.5, 4.0),
    height_mm: float = 120.0,
    noise: float = 15.0,
    seed: int = 0,
    lesion: tuple[float, float, float, float] | None = None,
) -> Chest:
    """Two lungs, trachea, a vessel in each lung, gas in the belly, and a table.

    lesion: center (mm from the middle of the chest, RAS) and radius of a ball of tissue.
    """
    size = np.array([330.0, 250.0, height_mm])
    shape = tuple(np.round(size / spacing).astype(int))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    x, y, z = (g * step + o for g, step, o in zip(np.indices(shape, np.float32), spacing, affine[:3, 3], strict=True))
    voxels = np.full(shape, AIR, np.float32)
    body = (x / 150) ** 2 + ((y - 10) / 100) ** 2 < 1
    voxels[body] = TISSUE
    voxels[np.abs(y + 112) < 4] = -100  # the table, with air between it and the back
    above = z > -0.2 * height_mm
    lungs = (((np.abs(x) - 75) / 52) ** 2 + ((y - 10) / 75) ** 2 < 1) & above
    voxels[lungs] = LUNG
    vessels = ((np.abs(x) - 70) ** 2 + (y - 5) ** 2 < 5**2) & lungs
    voxels[vessels] = TISSUE
    trachea = (x**2 + (y - 0) ** 2 < 9**2) & (z > 0)
    voxels[trachea] = AIR
    gas = (x - 40) ** 2 + (y - 40) ** 2 + (z + 0.45 * height_mm) ** 2 < 12**2
    voxels[gas] = AIR
    if lesion is not None:
        ball = (x - lesion[0]) ** 2 + (y - lesion[1]) ** 2 + (z - lesion[2]) ** 2 < lesion[3] ** 2
        voxels[ball] = TISSUE
    voxels += np.random.default_rng(seed).normal(0, noise, shape)
    return Chest(np.maximum(voxels, -1024).astype(np.float32), affine, lungs, trachea, gas & ~lungs)


def nodule_voxels(
    radius: float, spacing: tuple[float, float, float], noise: float = 10.0, seed: int = 0, density: float = TISSUE
) -> tuple[np.ndarray, np.ndarray]:
    """A ball in lung as a scanner sees it (a blur of 0.6 mm in the slice, means across it): HU and mask."""
    shape = tuple(int(np.ceil((2 * radius + 16) / step)) | 1 for step in spacing)
    fine = 4
    x, y, z = (((np.arange(n * fine) + 0.5) / fine - n / 2) * step for n, step in zip(shape, spacing, strict=True))
    ball = (x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2 < radius**2).astype(np.float32)
    filled = ball.reshape(shape[0], fine, shape[1], fine, shape[2], fine).mean(axis=(1, 3, 5))
    from scipy import ndimage

    seen = ndimage.gaussian_filter(filled, (0.6 / spacing[0], 0.6 / spacing[1], 0))
    voxels = LUNG + (density - LUNG) * seen + np.random.default_rng(seed).normal(0, noise, shape)
    return voxels.astype(np.float32), filled > 0.5


def write_nodules(folder: Path, count: int = 4) -> Path:
    """A folder as lidc_nodules: ``count`` balls, each of a patient of its own."""
    import nibabel

    (folder / "image").mkdir(parents=True)
    (folder / "mask").mkdir()
    rows = []
    for number in range(count):
        radius, spacing = 3.0 + number, (0.7, 0.7, 1.25)
        voxels, mask = nodule_voxels(radius, spacing, seed=number)
        name = f"P{number:02d}_R_1.nii.gz"
        affine = np.diag([*spacing, 1.0])
        nibabel.save(nibabel.Nifti1Image(np.rint(voxels).astype(np.int16), affine), folder / "image" / name)
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.int16), affine), folder / "mask" / name)
        rows.append(
            {
                "patient_id": f"P{number:02d}",
                "diameter_mm": 2 * radius,
                "Texture_value": 5,
                "Malignancy_value": 3,
                "file": name,
            }
        )
    with (folder / "nodules.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder
