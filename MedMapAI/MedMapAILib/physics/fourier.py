"""The Fourier transform between MR images and k-space, its origin in the middle of both, lengths kept."""

from __future__ import annotations

import torch
from torch import Tensor

_AXES = (-2, -1)


def k_space_of_image(image: Tensor) -> Tensor:
    """Centered, unitary transform over the last two axes: (…, H, W) complex, index (H // 2, W // 2) the center."""
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, _AXES), norm="ortho"), _AXES)


def image_of_k_space(k_space: Tensor) -> Tensor:
    """The inverse of ``k_space_of_image``, which is its adjoint too."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k_space, _AXES), norm="ortho"), _AXES)
