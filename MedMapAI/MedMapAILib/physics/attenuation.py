"""Hounsfield units and linear attenuation.

HU = 1000 (μ - μ of water) / μ of water: water is 0, nothing at all is -1000. A CT's X-rays have many energies; here
one effective energy stands for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError

#: Mass attenuation of liquid water with coherent scattering, cm²/g, at energies in keV: Hubbell and Seltzer, "Tables of
#: X-Ray Mass Attenuation Coefficients", NIST Standard Reference Database 126 (2004), table 4. Density 1 g/cm³.
WATER = {50: 0.2269, 60: 0.2059, 80: 0.1837, 100: 0.1707}

#: The effective energy that is meant where none is said, keV: about that of a filtered 120 kV beam behind a body.
EFFECTIVE_ENERGY_KEV = 60

#: Linear attenuation of water at that energy, 1/mm.
WATER_PER_MM = WATER[EFFECTIVE_ENERGY_KEV] / 10


def water_attenuation(energy_kev: int = EFFECTIVE_ENERGY_KEV) -> float:
    """Linear attenuation of water, 1/mm, at 50, 60, 80 or 100 keV. Raises InputError for another energy."""
    if energy_kev not in WATER:
        raise InputError(f"Water's attenuation is known at {', '.join(map(str, WATER))} keV, not at {energy_kev}.")
    return WATER[energy_kev] / 10


#: What is less than this is a scanner's padding (-2000, -2048, -3024), HU. Noise in air is not: without its lower half
#: air would not be air.
PADDING = -1500.0


def attenuation_of_hounsfield(values: Any, *, water_per_mm: float = WATER_PER_MM) -> Any:
    """Linear attenuation, 1/mm, of Hounsfield units; an array or a tensor of any shape. Of noise in air it is negative
    where that is below -1000 HU; take a scanner's padding out first."""
    return (values / 1000 + 1) * water_per_mm


def without_padding(values: Any) -> Any:
    """Hounsfield units with air where there is a scanner's padding; an array or a tensor of any shape."""
    padding = values < PADDING
    return values.masked_fill(padding, -1000) if hasattr(values, "masked_fill") else np.where(padding, -1000, values)


def hounsfield_of_attenuation(values: Any, *, water_per_mm: float = WATER_PER_MM) -> Any:
    """Hounsfield units of linear attenuation in 1/mm; an array or a tensor of any shape."""
    return (values / water_per_mm - 1) * 1000
