"""Where the image of a measurement lies in the patient, where its file does not say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..image import ras_from_lps


def centered_affine(shape: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """4×4, index (column, row, slice) → RAS mm, for an image (columns, rows, slices) whose middle is the origin.

    Columns run to the patient's left, rows to the back, slices to the head, as in a DICOM axial series: so a picture
    stands upright in an axial view. The middle of a CT image is its center of rotation. spacing_mm: of columns, rows,
    slices. Raises InputError for a spacing that is none.
    """
    spacing = np.asarray(spacing_mm, dtype=float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise InputError(f"The spacing of an image is three lengths above zero, not {list(spacing_mm)}.")
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.asarray(shape, dtype=float) - 1) / 2 * spacing
    return ras_from_lps(affine)
