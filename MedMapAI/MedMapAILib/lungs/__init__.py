"""Lungs in chest CT: where they are, and nodules put into them."""

from __future__ import annotations

from .hounsfield import hounsfield_problem
from .mask import lung_mask

__all__ = ["hounsfield_problem", "lung_mask"]
