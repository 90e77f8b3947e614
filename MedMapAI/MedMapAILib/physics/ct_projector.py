"""CT as a linear map: line integrals of an image along the rays of a geometry, with the matched adjoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .ct_geometry import FanBeam, Geometry
from .fan_beam import FanProjection
from .linear_operator import LinearOperator
from .parallel_beam import ParallelProjection


class CtProjector(LinearOperator):
    """``projector(image)``: image (B, 1, H, W) of attenuation in 1/mm → sinogram (B, 1, A, D) of line integrals.

    ``projector.adjoint(sinogram)`` is its transpose, exactly (see ``linear_operator.dot_product_error``); both are
    differentiable and run where the module is (``.to("cuda")``). Each detector sees the mean over its width. Nothing
    of a projector is in a state dictionary: it is made again from its geometry.
    Raises InputError for images and sinograms that do not fit the geometry.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.projection = (FanProjection if isinstance(geometry, FanBeam) else ParallelProjection)(geometry)

    def backproject(self, sinogram: Tensor) -> Tensor:
        """The sum over the views of the value on the ray through each pixel: (B, 1, H, W), for filtered backprojection.

        Linear interpolation between detectors; a fan's views are weighted with (source to center / depth)².
        """
        self.geometry.check_sinogram(sinogram.shape)
        return _batched(self.projection.backproject, sinogram, self.geometry.image_size)

    def subset(self, views: Sequence[int]) -> CtProjector:
        """The projector of these views alone, on the same device."""
        device = next((buffer.device for buffer in self.buffers()), torch.device("cpu"))
        return CtProjector(self.geometry.subset(views)).to(device)

    def _apply_forward(self, image: Tensor) -> Tensor:
        self.geometry.check_image(image.shape)
        return _batched(self.projection, image, self.geometry.sinogram_size)

    def _apply_adjoint(self, sinogram: Tensor) -> Tensor:
        self.geometry.check_sinogram(sinogram.shape)
        return _batched(self.projection.adjoint, sinogram, self.geometry.image_size)


def _batched(apply, values: Tensor, size: tuple[int, int]) -> Tensor:
    """(…, a, b) → (…, *size), all leading axes as one batch."""
    lead = values.shape[:-2]
    return apply(values.reshape(-1, *values.shape[-2:])).reshape(*lead, *size)
