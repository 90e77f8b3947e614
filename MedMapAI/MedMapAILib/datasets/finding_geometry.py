"""Findings and the voxels of their scan: one turned into the other, cut off at the edge, never thinner than a voxel.

Coordinates of voxels are those of edges here: voxel n of an axis reaches from n to n + 1, and its center is n + 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..results import Finding
from .dataset import listed

#: Voxels; far below what matters, far above what six decimals of a position lose.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Fitted:
    """Findings in their scan. findings: those that are in it. clipped, widened, outside: numbers, from 1, of those that
    reached out of it, were thinner than a voxel, and lie wholly beside it.
    """

    findings: tuple[Finding, ...]
    clipped: tuple[int, ...] = ()
    widened: tuple[int, ...] = ()
    outside: tuple[int, ...] = ()


def box_after(center: Sequence[float], size: Sequence[float], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Center and size, along the new axes, of the ellipsoid that fills a box, after a 4x4 matrix.

    Half of the size along axis i is √(Σⱼ (Mᵢⱼ hⱼ)²), h being half of the sides of the box: what the box holds decides
    and not its corners, so that a sphere keeps its diameter in an oblique scan. Where the axes of both are the same
    this is the box itself.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    half = np.asarray(size, dtype=np.float64) / 2
    moved = matrix[:3, :3] @ np.asarray(center, dtype=np.float64) + matrix[:3, 3]
    return moved, 2 * np.sqrt(((matrix[:3, :3] * half) ** 2).sum(axis=1))


def voxel_edges(finding: Finding, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high edges (3,) of a finding on a grid with the matrix ``affine`` (voxel index → RAS mm)."""
    center, size = box_after(finding.center, finding.size, np.linalg.inv(affine))
    return center + 0.5 - size / 2, center + 0.5 + size / 2


def fit_findings(findings: Iterable[Finding], shape: Sequence[int], affine: np.ndarray) -> Fitted:
    """Findings brought into a scan of ``shape`` (I, J, K) with the matrix ``affine`` (voxel index → RAS mm).

    What reaches out of it is cut off at its edge; what is thinner than a voxel along an axis of the scan gets one voxel
    there; what lies wholly outside is left out. The measured diameter stays. Findings that fit are the same objects.
    """
    affine = np.asarray(affine, dtype=np.float64)
    inside, clipped, widened, outside = [], [], [], []
    for number, finding in enumerate(findings, start=1):
        low, high = voxel_edges(finding, affine)
        if (high <= _TOLERANCE).any() or (low >= np.asarray(shape) - _TOLERANCE).any():
            outside.append(number)
            continue
        cut_low, cut_high = np.maximum(low, 0), np.minimum(high, shape)
        if (cut_low - low > _TOLERANCE).any() or (high - cut_high > _TOLERANCE).any():
            clipped.append(number)
        thin = cut_high - cut_low < 1 - _TOLERANCE
        if (thin & (high - low < 1 - _TOLERANCE)).any():
            widened.append(number)
        start = np.clip((cut_low + cut_high) / 2 - 0.5, 0, np.asarray(shape) - 1)
        cut_low, cut_high = np.where(thin, start, cut_low), np.where(thin, start + 1, cut_high)
        changed = (np.abs(cut_low - low) > _TOLERANCE).any() or (np.abs(cut_high - high) > _TOLERANCE).any()
        if not changed:
            inside.append(finding)
            continue
        center, size = box_after((cut_low + cut_high) / 2 - 0.5, cut_high - cut_low, affine)
        inside.append(replace(finding, center=tuple(center), size=tuple(size)))
    return Fitted(tuple(inside), tuple(clipped), tuple(widened), tuple(outside))


class FitNotes:
    """What fitting the findings of many scans changed, for one sentence of each kind."""

    def __init__(self) -> None:
        self._clipped: list[str] = []
        self._widened: list[str] = []
        self._outside: list[str] = []

    def add(self, name: str, fitted: Fitted) -> None:
        """name: of the scan."""
        for numbers, found in (
            (fitted.clipped, self._clipped),
            (fitted.widened, self._widened),
            (fitted.outside, self._outside),
        ):
            found += [f"{name} finding {number}" for number in numbers]

    def raise_if_outside(self, where: str | Path) -> None:
        """InputError that lists the findings that are not in their scans at all."""
        if self._outside:
            raise InputError(
                f"{len(self._outside)} finding(s) of {where} lie wholly outside of their scans "
                f"({listed(self._outside)}): check that they belong to these scans and that their coordinates are in "
                "the frame that dataset.frame (LPS, RAS or voxel) says, or leave them out."
            )

    @property
    def sentences(self) -> tuple[str, ...]:
        """For the user."""
        said = []
        if self._clipped:
            said.append(
                f"{len(self._clipped)} finding(s) reach out of their scan and are cut off at its edge "
                f"({listed(self._clipped)})."
            )
        if self._widened:
            said.append(
                f"{len(self._widened)} finding(s) are thinner than a voxel of their scan and get a box of one voxel "
                f"there ({listed(self._widened)})."
            )
        return tuple(said)
