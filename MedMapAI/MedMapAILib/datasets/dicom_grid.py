"""Where the slices of a DICOM series lie, from their headers alone: no voxel is read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..image import ras_from_lps

_FIELDS = ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "Rows", "Columns", "PixelSpacing"]
_FIELDS += ["ImagePositionPatient", "ImageOrientationPatient"]
#: mm; scanners write two decimals.
_SAME_POSITION_MM = 0.01
#: A distance between slices that is this many times the usual one is a gap.
_GAP = 1.5


@dataclass(frozen=True)
class SeriesGrid:
    """The grid on which ``image.read_image`` places a series.

    shape: columns, rows, slices. affine: 4x4, voxel index → RAS mm, slices evenly spaced between the first and the
    last. slices: SOPInstanceUID → index of its slice. heights: (slices,) the third number of each slice's position in
    its header, mm. gaps: indices of slices with at least one missing between them and the next.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    slices: dict[str, int]
    heights: np.ndarray
    gaps: tuple[int, ...]

    @property
    def between(self) -> float:
        """mm from one slice to the next."""
        return float(np.linalg.norm(self.affine[:3, 2]))


@dataclass(frozen=True)
class Header:
    """What one file says of itself, nothing of the patient."""

    path: Path
    series: str
    study: str
    modality: str
    instance: str
    size: tuple[int, int]
    pixel: tuple[float, float]  # mm between rows, between columns
    position: tuple[float, float, float]
    orientation: tuple[float, ...]


def read_header(path: Path) -> Header | None:
    """The header of one slice; None for all that is no DICOM picture with a place in the patient."""
    import pydicom

    try:
        with path.open("rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                return None
        with warnings.catch_warnings():  # pydicom's warnings quote values of the header
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_FIELDS)
            return Header(
                path,
                str(header.SeriesInstanceUID),
                str(header.get("StudyInstanceUID", "")),
                str(header.get("Modality", "")),
                str(header.SOPInstanceUID),
                (int(header.Columns), int(header.Rows)),
                tuple(float(n) for n in header.PixelSpacing),
                tuple(float(n) for n in header.ImagePositionPatient),
                tuple(float(n) for n in header.ImageOrientationPatient),
            )
    except Exception:  # noqa: BLE001 - a damaged header fails in any way; what it is called says nothing to the user
        return None


def series_grid(headers: Iterable[Header], what: str) -> SeriesGrid:
    """The grid of the slices of one series. Raises InputError (it begins with ``what``) where they do not form one."""
    headers = list({header.instance: header for header in headers}.values())
    first = headers[0]
    if any(h.size != first.size or not np.allclose(h.orientation, first.orientation, atol=1e-3) for h in headers):
        raise InputError(f"{what} has slices of different sizes or directions; keep one scan in a folder.")
    along_i, along_j = (np.array(first.orientation[n : n + 3]) for n in (0, 3))
    along_i, along_j = along_i / np.linalg.norm(along_i), along_j / np.linalg.norm(along_j)
    normal = np.cross(along_i, along_j)
    headers.sort(key=lambda header: float(normal @ header.position))
    positions = np.array([header.position for header in headers])
    distances = np.diff(positions @ normal)
    if len(headers) < 2:
        raise InputError(f"{what} has one slice only.")
    if (distances < _SAME_POSITION_MM).any():
        raise InputError(f"{what} has several slices at one position; keep those of one acquisition.")
    affine = np.eye(4)
    affine[:3, 0] = along_i * first.pixel[1]
    affine[:3, 1] = along_j * first.pixel[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(headers) - 1)
    affine[:3, 3] = positions[0]
    return SeriesGrid(
        (*first.size, len(headers)),
        ras_from_lps(affine),
        {header.instance: index for index, header in enumerate(headers)},
        positions[:, 2],
        tuple(int(n) for n in np.flatnonzero(distances > _GAP * np.median(distances))),
    )
