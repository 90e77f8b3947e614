"""An undersampled MR scan of the slices of a volume: coils that see it differently, k-space, noise, and a mask."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .acquisition import Acquisition, Progress
from .measured import MrMeasurement
from .settings import choice, draw_between, number, spread, whole

if TYPE_CHECKING:
    from torch import Tensor

    from ..physics.mr_operator import MrOperator

#: How far the coils stand from the middle of the image, in halves of its longer side: outside of its corners.
_COILS_AT = 1.5
#: The brightest tissue, which noise is measured by, is darker than this share of the voxels.
_BRIGHT = 0.99
#: Masks that are kept: a Poisson disc takes seconds to draw.
_KEPT = 16
#: Interpolation and bias correction leave values so far below zero, as a part of the brightest tissue.
_NEGATIVE = 0.05


class MrAcquisition(Acquisition):
    """Cartesian, centered.

    sampling: see ``physics.mr_sampling``; the same mask for all slices, drawn with the seed of the draw. acceleration:
    one number or [low, high], drawn evenly. center_fraction: of the lines (of each axis, for points) that are all
    taken. coils: 1 sees everything alike; more are ``ring_sensitivities``. noise: standard deviation of the real and of
    the imaginary part of each coil's k-space, as a part of the image's 99th percentile: the transform is unitary, so
    this is the noise of a fully sampled image of one coil, too.
    The image is real (a magnitude has lost its phase), so that a single coil's k-space is Hermitian, which that of a
    scanner is not: results on it are better than they will be in a hospital (Shimron and others, PNAS 119 (2022)).
    """

    kind = "mr"
    SETTINGS = {
        "sampling": (
            "random",
            choice("random", "equispaced", "variable-density", "variable-density-points", "poisson-disc"),
        ),
        "acceleration": (4.0, spread(number(1))),
        "center_fraction": (0.08, number(0, below=1)),
        "coils": (1, whole(1)),
        "noise": (0.01, number(0)),
    }

    def mask(self, size: tuple[int, int]) -> Tensor:
        """Which samples are taken, bool (H, W). Raises InputError where the center is more than may be taken."""
        self._check_drawn()
        mask = _mask(self["sampling"], tuple(size), self["acceleration"], self["center_fraction"], self["seed"])
        return mask.clone()

    def operator(self, size: tuple[int, int], spacing_mm: tuple[float, float], *, device: Any = None) -> MrOperator:
        """The map from an image to its k-space, with the mask and the sensitivities that it is measured with."""
        from ..physics.mr_operator import MrOperator

        return MrOperator(self.mask(tuple(size)), ring_sensitivities(self["coils"], size, spacing_mm)).to(device)

    def first_images(self, data: Tensor, size: tuple[int, int], spacing_mm: tuple[float, float]) -> Tensor:
        """Zero-filled magnitudes (S, 1, H, W) of k-space (S, C, H, W): root of the sum of the coils' squares."""
        from ..physics.mr_operator import root_sum_of_squares

        return root_sum_of_squares(data)

    def simulate_volume(
        self, image: Any, seed: int, *, device: Any = None, progress: Progress | None = None
    ) -> MrMeasurement:
        """The k-space of the slices across the last axis; its sensitivities are left to be estimated, as a scanner's.

        See ``Acquisition.simulate_volume``.
        """
        drawn, slicing = self.drawn(seed), self.slicing(image)
        parts = [data.cpu().numpy() for data in drawn._measured_parts(slicing, seed, device, progress)]
        return MrMeasurement(
            np.concatenate(parts),
            drawn.mask(slicing.size).numpy(),
            slicing.affine,
            about={"acquisition": drawn.about, "seed": int(seed)},
            notes=("Simulated from an image.",),
        )

    def scale_of(self, values: Any) -> float:
        """The 99th percentile of magnitudes, which the noise is a part of."""
        values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values).ravel()
        return float(np.quantile(np.abs(values[:: max(1, values.size // 1_000_000)]), _BRIGHT))

    def _draws(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"acceleration": draw_between(self["acceleration"], rng)}

    def _check_values(self, image: Any) -> None:
        lowest, scale = float(image.min()), self.scale_of(image)
        if lowest < -_NEGATIVE * scale:
            raise InputError(
                f"The values of the volume go down to {lowest:g}; those of an MR image, which is a magnitude, are not "
                "below zero: choose another volume, or CT."
            )

    def _measured(self, slices: Tensor, spacing_mm: tuple[float, float], seeds: list[int], scale: float) -> Tensor:
        import torch

        operator = self.operator(tuple(slices.shape[-2:]), spacing_mm, device=slices.device)
        k_space = operator(slices.float().to(torch.complex64))
        if not self["noise"]:
            return k_space
        noisy = []
        for one, seed in zip(k_space, seeds, strict=True):
            drawn = torch.randn((*one.shape, 2), generator=torch.Generator().manual_seed(seed))
            noise = torch.view_as_complex(drawn).to(one) * (self["noise"] * scale)
            noisy.append(one + operator.mask * noise)
        return torch.stack(noisy)


@functools.lru_cache(maxsize=_KEPT)
def _mask(sampling: str, size: tuple[int, int], acceleration: float, center: float, seed: int) -> Tensor:
    from ..physics.mr_sampling import sampling_mask

    return sampling_mask(sampling, size, acceleration, center=center, seed=seed)


def ring_sensitivities(count: int, size: tuple[int, int], spacing_mm: tuple[float, float]) -> Tensor:
    """Sensitivities of coils on a ring round the image: complex64 (C, H, W), the sum of squares 1 everywhere.

    Coil c is a long straight wire across the slice at w = 1.5 exp(2πi c / C), in halves of the image's longer side; by
    Biot and Savart's law its transverse field at z = x + iy is proportional to 1 / (z - w). Each is turned by its own
    direction, so that all look alike from their own place, and all are divided by the root of the sum of their squares.
    One coil sees everything alike: 1.
    """
    import torch

    height, width = size
    if count == 1:
        return torch.ones(1, height, width, dtype=torch.complex64)
    rows, columns = spacing_mm
    half = max(height * rows, width * columns) / 2
    y = -(torch.arange(height, dtype=torch.float64) - (height - 1) / 2) * rows / half
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) * columns / half
    direction = torch.exp(2j * torch.pi * torch.arange(count, dtype=torch.float64) / count)[:, None, None]
    fields = direction / (_COILS_AT * direction - torch.complex(*torch.broadcast_tensors(x[None], y[:, None])))
    return (fields / fields.abs().square().sum(dim=0, keepdim=True).sqrt()).to(torch.complex64)
