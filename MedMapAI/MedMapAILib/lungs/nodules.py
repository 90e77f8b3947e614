"""Real nodules, cut out of the scans of their patients, as donors."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..image import read_volume
from .axes import to_patient_axes
from .noise import denoised, edge_width, robust_noise

#: Kinds by LIDC's rating of texture: 1 ground-glass, 2 to 4 in between, 5 solid.
KINDS = ("solid", "part-solid", "ground-glass")
#: What a nodule is made of when no air is left in it, HU.
TISSUE = 40.0
#: Healthy lung, HU.
HEALTHY = -860.0
#: Lung around a nodule is below (HU); above the second there is chest wall, mediastinum or a vessel.
_LUNG, _DENSE = -500.0, -300.0


@dataclass(frozen=True)
class NoduleEntry:
    """A row of the table of nodules: what is known before its voxels are read."""

    name: str
    patient: str
    image: Path
    mask: Path
    diameter_mm: float
    kind: str
    malignancy: str


@dataclass(frozen=True)
class Nodule:
    """A donor along its patient's axes (right, front, head).

    opacity: float32 (I, J, K), how far its voxels are on the way from the lung around it (0) to tissue (1), without
    the noise of its scan, slightly below 0 where it is darker than lung. excess: HU beyond tissue (calcium). inside:
    bool (I, J, K). spacing: mm. touches: "pleura", "vessel" or "nothing". outward: unit vector to the pleura or vessel
    it sits on, or None. reach: how far it goes from its center of mass in that direction, mm. sharpness: standard
    deviation of the blur of its sharpest edges, mm.
    """

    entry: NoduleEntry
    opacity: np.ndarray
    excess: np.ndarray
    inside: np.ndarray
    spacing: tuple[float, float, float]
    touches: str
    outward: tuple[float, float, float] | None
    reach: float
    sharpness: float


def list_nodules(folder: str | Path, patients: Collection[str] | None = None) -> list[NoduleEntry]:
    """The nodules of a folder with nodules.csv, image/ and mask/ (as cut out of LIDC-IDRI), in the order of the table.

    patients: only of these. Raises InputError where the folder is none, where a patient has no nodule, or a file is
    missing.
    """
    folder = Path(folder)
    table = folder / "nodules.csv"
    if not table.is_file():
        raise InputError(
            f"{folder} is no folder of nodules: it has no nodules.csv; give the one with image/ and mask/."
        )
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    needed = ("patient_id", "diameter_mm", "file", "Texture_value")
    missing = [name for name in needed if not rows or name not in rows[0]]
    if missing:
        raise InputError(f"{table} has no column {', '.join(missing)}; give the table as it came with the nodules.")
    if patients is not None:
        unknown = sorted(set(patients) - {row["patient_id"] for row in rows})
        if unknown:
            raise InputError(f"{table} has no nodules of {', '.join(unknown)}; correct the list of patients.")
        rows = [row for row in rows if row["patient_id"] in patients]
    entries = []
    for row in rows:
        texture = int(row["Texture_value"])
        entries.append(
            NoduleEntry(
                row["file"].removesuffix(".nii.gz"),
                row["patient_id"],
                folder / "image" / row["file"],
                folder / "mask" / row["file"],
                float(row["diameter_mm"]),
                "solid" if texture >= 5 else "part-solid" if texture >= 2 else "ground-glass",
                row.get("Malignancy_value", ""),
            )
        )
    absent = [str(path) for entry in entries for path in (entry.image, entry.mask) if not path.is_file()]
    if absent:
        raise InputError(f"{folder} lacks {len(absent)} of the files in its nodules.csv, such as {absent[0]}.")
    return entries


def read_nodule(entry: NoduleEntry) -> Nodule | None:
    """A donor, or None where there is too little lung around it to tell it from its surroundings."""
    image, mask = read_volume(entry.image), read_volume(entry.mask)
    voxels, spacing, _ = to_patient_axes(image.array.astype(np.float32), image.affine)
    inside, _, _ = to_patient_axes(mask.array > 0, mask.affine)
    return make_nodule(entry, voxels, inside, spacing)


def make_nodule(
    entry: NoduleEntry, voxels: np.ndarray, inside: np.ndarray, spacing: tuple[float, float, float]
) -> Nodule | None:
    """A donor from its voxels (I, J, K; HU) and mask along the patient's axes; None as :func:`read_nodule`."""
    if not inside.any() or inside.shape != voxels.shape:
        return None
    away = ndimage.distance_transform_edt(~inside, spacing)
    lung = (away > 1.5) & (away < 10) & (voxels < _LUNG)
    if lung.sum() < 100 or lung.sum() < 0.15 * ((away > 1.5) & (away < 10)).sum():
        return None
    background = float(np.median(voxels[lung]))
    clean = denoised(voxels, robust_noise(voxels, lung))
    opacity = (np.minimum(clean, TISSUE) - background) / (TISSUE - background)
    touches, outward = _attachment(voxels, inside, away, spacing)
    return Nodule(
        entry,
        np.clip(opacity, -0.15, 1.0).astype(np.float32),
        np.maximum(clean - TISSUE, 0).astype(np.float32),
        inside,
        spacing,
        touches,
        outward,
        _reach(inside, outward, spacing),
        edge_width(voxels, spacing),
    )


def _attachment(
    voxels: np.ndarray, inside: np.ndarray, away: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[str, tuple[float, float, float] | None]:
    """What a nodule touches, and in which direction it lies."""
    shell = (away > 1.0) & (away < 4.0)
    dense = shell & (voxels > _DENSE)
    share = float(dense.sum() / max(1, shell.sum()))
    if share < 0.02:
        return "nothing", None
    center = np.array(ndimage.center_of_mass(inside))
    direction = (np.argwhere(dense).mean(axis=0) - center) * spacing
    length = float(np.linalg.norm(direction))
    outward = tuple(float(x) for x in direction / length) if length > 0.5 else None
    # Beyond the shell a wall goes on in a broad front, a vessel in a narrow one.
    far = (away > 5.0) & (away < 9.0)
    wall = float((far & (voxels > _DENSE)).sum() / max(1, far.sum()))
    if outward is not None and (share > 0.15 or (share > 0.06 and wall > 0.2)):
        return "pleura", outward
    return "vessel", outward


def _reach(inside: np.ndarray, outward: Sequence[float] | None, spacing: Sequence[float]) -> float:
    """How far a mask goes from its center of mass in a direction, mm; the farthest twentieth of it does not count."""
    if outward is None:
        return 0.0
    along = (np.argwhere(inside) - np.array(ndimage.center_of_mass(inside))) * spacing @ np.array(outward)
    return float(np.quantile(along, 0.95))
