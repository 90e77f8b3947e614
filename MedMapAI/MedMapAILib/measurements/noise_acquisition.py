"""Noise added to images themselves, where nothing is known of how they were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .acquisition import Acquisition
from .settings import choice, draw_between, number, spread

if TYPE_CHECKING:
    from torch import Tensor


class NoiseAcquisition(Acquisition):
    """White noise. sd: its standard deviation in the image's unit, one number or [low, high] drawn evenly.

    distribution: "gaussian" adds it; "rician" adds it to the real part and to an imaginary one and takes the magnitude,
    as in MR images (Gudbjartsson and Patz, Magnetic Resonance in Medicine 34 (1995)).
    """

    kind = "noise"
    SETTINGS = {
        "sd": (20.0, spread(number(0))),
        "distribution": ("gaussian", choice("gaussian", "rician")),
    }

    def _draws(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"sd": draw_between(self["sd"], rng)}

    def _measured(self, slices: Tensor, spacing_mm: tuple[float, float], seeds: list[int], scale: float) -> Tensor:
        import torch

        noisy = []
        for one, seed in zip(slices.float(), seeds, strict=True):
            # Drawn on the processor, so that every device has the same.
            drawn = torch.randn((2, *one.shape), generator=torch.Generator().manual_seed(seed)).to(one) * self["sd"]
            noisy.append(
                one + drawn[0] if self["distribution"] == "gaussian" else torch.hypot(one + drawn[0], drawn[1])
            )
        return torch.stack(noisy)
