"""The measurements of low_dose_ct.py: slices of whole chest CTs, measured on their own pixels, made on coarser ones."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT / "Testing" / "demo"))
from demo_data import PYRADIOMICS, cache_folder, extract, fetch  # noqa: E402
from MedMapAILib.image import affine_of, read_image, spacing  # noqa: E402
from MedMapAILib.measurements.acquisition import acquisition_of  # noqa: E402
from MedMapAILib.measurements.measured import CtMeasurement  # noqa: E402
from MedMapAILib.physics.attenuation import without_padding  # noqa: E402
from MedMapAILib.physics.ct_projector import CtProjector  # noqa: E402

#: Never trained on, nor used to choose anything: other scanners, other patients.
TEST = ("lung1", "lung2")
#: What was trained on; weights of TV are chosen on slices of it that were kept for validation.
TRAINED = "CPTAC-LSCC-C3N-00247"
VALIDATION = (20, 50, 80)
#: An image is made on pixels twice as large as those that are measured.
FINER = 2
#: Photons for each detector and view. Both are a quarter of a dose: of 200 000 photons in each of 60 views, and of
#: 400 000 in each of 360, which after filtered backprojection is noise of about 50 HU in the soft tissue of a broad
#: chest.
SETTINGS = {
    "sparse": {"views": 60, "photons": 50_000, "title": "60 views, 50 000 photons"},
    "full": {"views": 360, "photons": 100_000, "title": "360 views, 100 000 photons"},
}
#: Parts of a scan's slices at either end that are left out.
_ENDS = 0.1


@dataclass(frozen=True)
class Measured:
    """Slices of one scan and what was measured of them. truth: float32 (S, H, W), HU; measurement: of all of them;
    projector: of the image that is to be made."""

    scan: str
    setting: str
    slices: tuple[int, ...]
    truth: np.ndarray
    measurement: CtMeasurement
    projector: CtProjector

    @property
    def line_integrals(self) -> torch.Tensor:
        """(S, 1, A, D)."""
        return torch.from_numpy(self.measurement.line_integrals)[:, None]


def read_scan(name: str, data: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Slices (S, H, W) in HU, air where a scanner left it out; the affine (column, row, slice) → RAS; the pixel, mm."""
    if name == TRAINED:
        image = read_image(data / "chest_ct" / TRAINED)
    else:
        wheel, cache = PYRADIOMICS[f"{name}_image"], cache_folder()
        image = read_image(extract(wheel, fetch(wheel, cache), cache))
    values = without_padding(image.numpy()[0].transpose(2, 1, 0)).astype(np.float32)
    return np.ascontiguousarray(values), affine_of(image), float(spacing(image)[0])


def spread(slices: int, count: int) -> tuple[int, ...]:
    """``count`` numbers of slices, evenly spread, the ends of the scan left out."""
    places = np.linspace(_ENDS * (slices - 1), (1 - _ENDS) * (slices - 1), count)
    return tuple(dict.fromkeys(int(round(place)) for place in places))


def some_slices(values: np.ndarray, chosen: tuple[int, ...], *, thick: bool = False) -> np.ndarray:
    """Slices of a scan (S, H, W); thick: each averaged with the next."""
    first = values[list(chosen)]
    return (first + values[[number + 1 for number in chosen]]) / 2 if thick else first


def measure(
    scan: str,
    setting: str,
    data: Path,
    *,
    count: int = 8,
    slices: tuple[int, ...] = (),
    thick: bool = False,
    seed: int = 1,
) -> Measured:
    """Measure slices of a scan: those that are named, or ``count`` that are spread over it. thick: each averaged with
    the next."""
    values, affine, pixel = read_scan(scan, data)
    chosen = slices or spread(len(values), count)
    fine = torch.from_numpy(some_slices(values, chosen, thick=thick))[:, None]
    acquisition = acquisition_of(
        {"kind": "ct", "oversampling": FINER, **{key: SETTINGS[setting][key] for key in ("views", "photons")}}
    ).drawn(seed)
    integrals = acquisition.measure(fine, (pixel, pixel), seed)
    truth = F.avg_pool2d(fine, FINER)
    size, coarse = tuple(truth.shape[-2:]), (FINER * pixel, FINER * pixel)
    projector = acquisition.operator(size, coarse)
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :2].sum(axis=1) * (FINER - 1) / 2
    affine[:3, :2] *= FINER
    measurement = CtMeasurement(integrals[:, 0].numpy(), projector.geometry, affine, about=acquisition.about)
    return Measured(scan, setting, chosen, truth[:, 0].numpy(), measurement, projector)
