"""A measurement with all that is needed to make an image of it. One class a modality."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..physics.attenuation import WATER_PER_MM
from ..physics.ct_geometry import Geometry


@dataclass(frozen=True)
class CtMeasurement:
    """Line integrals of the slices of a volume.

    line_integrals: float32 (S, A, D), slice, view, detector, without unit. geometry: of one slice, the same for all;
    its image_size (H, W) and pixel_mm say which image is to be made. affine: 4×4, index (column, row, slice) of that
    image → RAS mm. hounsfield: whether images are given in HU; else in 1/mm (an object that is no patient).
    water_per_mm: attenuation of water that makes HU. about: dose, seeds, what was repaired, as JSON takes it.
    notes: sentences for the user. Raises InputError where the numbers do not fit each other.
    """

    line_integrals: np.ndarray
    geometry: Geometry
    affine: np.ndarray
    hounsfield: bool = True
    water_per_mm: float = WATER_PER_MM
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    kind = "ct"

    def __post_init__(self) -> None:
        if self.line_integrals.ndim != 3:
            raise InputError(
                f"A sinogram has the axes slice, view, detector; this one has {self.line_integrals.ndim} axes "
                f"({'×'.join(str(n) for n in self.line_integrals.shape)})."
            )
        self.geometry.check_sinogram(self.line_integrals.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The image to be made: columns, rows, slices (I, J, K)."""
        rows, columns = self.geometry.image_size
        return columns, rows, len(self.line_integrals)


@dataclass(frozen=True)
class MrMeasurement:
    """K-space of the slices of a volume, Cartesian, centered.

    k_space: complex64 (S, C, H, W), slice, coil, row, column; 0 where nothing was measured. mask: bool (H, W), or
    (S, H, W), which samples were. affine: 4×4, index (column, row, slice) of the image → RAS mm. sensitivities: of the
    coils, complex64 (S, C, H, W), or None where they are to be estimated. crop: rows and columns of the middle of the
    image that are wanted, None for all of it. about, notes: as in CtMeasurement.
    """

    k_space: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    sensitivities: np.ndarray | None = None
    crop: tuple[int, int] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    kind = "mr"

    def __post_init__(self) -> None:
        if self.k_space.ndim != 4 or not np.iscomplexobj(self.k_space):
            raise InputError(
                "A k-space is complex with the axes slice, coil, row, column; this one has the shape "
                f"{'×'.join(str(n) for n in self.k_space.shape)} of {self.k_space.dtype}."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """The image to be made: columns, rows, slices (I, J, K)."""
        rows, columns = self.crop or self.k_space.shape[-2:]
        return columns, rows, len(self.k_space)

    def filled(self) -> np.ndarray:
        """Numbers of the slices of which something was measured that is not zero."""
        return np.flatnonzero(self.k_space.any(axis=(1, 2, 3)))

    def some(self, slices: np.ndarray) -> MrMeasurement:
        """Of these slices alone; the affine stays that of all."""
        return replace(
            self,
            k_space=self.k_space[slices],
            mask=self.mask if self.mask.ndim == 2 else self.mask[slices],
            sensitivities=None if self.sensitivities is None else self.sensitivities[slices],
        )

    def cropped(self, images: np.ndarray) -> np.ndarray:
        """The rows and columns that are wanted, of images (S, H, W) of the whole k-space."""
        if self.crop is None:
            return images
        top, left = ((n - c) // 2 for n, c in zip(images.shape[1:], self.crop, strict=True))
        return images[:, top : top + self.crop[0], left : left + self.crop[1]]


Measurement = CtMeasurement | MrMeasurement
