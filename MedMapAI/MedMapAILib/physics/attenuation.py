"""Hounsfield units and linear attenuation.

HU = 1000 (μ - μ of water) / μ of water: water is 0, nothing at all is -1000. A CT's X-rays have many energies; here
one effective energy stands for them.
"""

from __future__ import annotations

from typing import Any

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


def attenuation_of_hounsfield(values: Any, *, water_per_mm: float = WATER_PER_MM, clip: bool = True) -> Any:
    """Linear attenuation, 1/mm, of Hounsfield units; an array or a tensor of any shape.

    clip: values below -1000 (a scanner's padding, noise in air) become 0, as nothing can have less; the way back is
    exact only where nothing was clipped.
    """
    attenuation = (values / 1000 + 1) * water_per_mm
    return attenuation.clip(min=0) if clip else attenuation


def hounsfield_of_attenuation(values: Any, *, water_per_mm: float = WATER_PER_MM) -> Any:
    """Hounsfield units of linear attenuation in 1/mm; an array or a tensor of any shape."""
    return (values / water_per_mm - 1) * 1000
