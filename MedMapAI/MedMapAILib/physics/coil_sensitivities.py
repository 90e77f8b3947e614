"""How each coil sees each place, estimated from the fully sampled center of k-space.

Two ways, both by the strongest direction of what the coils have in common:

- ``espirit``: Uecker and others, "ESPIRiT - an eigenvalue approach to autocalibrating parallel MRI", Magnetic Resonance
  in Medicine 71 (2014). Small stretches of k-space across all coils lie in a space of few dimensions; an image that
  stays in it is seen through the sensitivities. Tells where there is nothing, and makes no assumption on smoothness.
- ``adaptive_combine``: Walsh, Gmitro and Marcellin, "Adaptive reconstruction of phased array MR imagery", Magnetic
  Resonance in Medicine 43 (2000). The coils' covariance in a neighborhood of each pixel of the low-resolution images.
  Faster, and enough for few samples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from .fourier import image_of_k_space
from .mr_operator import check_k_space

#: Fewer samples than this on a side say nothing about sensitivities.
_LEAST_CENTER = 6


def calibration_size(mask: Tensor) -> tuple[int, int]:
    """Rows and columns of the largest block round the center of k-space that is fully taken; mask: (H, W).

    Grown by turns on the sides on which that is possible; (0, 0) where the center itself is missing.
    """
    taken = mask.bool().cpu()
    height, width = taken.shape
    half = [0, 0]
    center = (height // 2, width // 2)

    def block(rows: int, columns: int) -> Tensor:
        return taken[center[0] - rows : center[0] + rows, center[1] - columns : center[1] + columns]

    growing = [True, True]
    while any(growing):
        for axis in (0, 1):
            if not growing[axis]:
                continue
            larger = [half[n] + (n == axis) for n in (0, 1)]
            fits = larger[axis] <= center[axis]
            # Until both have begun, the other side counts as one sample.
            if fits and bool(block(max(larger[0], 1), max(larger[1], 1)).all()):
                half = larger
            else:
                growing[axis] = False
    return (2 * half[0], 2 * half[1]) if min(half) else (0, 0)


def calibration_block(k_space: Tensor, mask: Tensor | None = None, *, largest: int = 32) -> Tensor:
    """The fully sampled center (…, C, h, w) of a k-space (…, C, H, W), at most ``largest`` on a side.

    Raises InputError where it is smaller than 6 on a side.
    """
    from .mr_sampling import mask_of_k_space

    height, width = k_space.shape[-2:]
    rows, columns = calibration_size(mask_of_k_space(k_space) if mask is None else mask)
    if min(rows, columns) < _LEAST_CENTER:
        raise InputError(
            f"Only {rows} × {columns} samples in the center of k-space are all taken; estimating coil sensitivities "
            f"needs {_LEAST_CENTER} × {_LEAST_CENTER}."
        )
    rows, columns = min(rows, largest), min(columns, largest)
    top, left = height // 2 - rows // 2, width // 2 - columns // 2
    return k_space[..., top : top + rows, left : left + columns]


def adaptive_combine(k_space: Tensor, mask: Tensor | None = None, *, largest: int = 32, window: int = 5) -> Tensor:
    """Coil sensitivities (C, H, W), complex, their squares adding up to 1, of a k-space (C, H, W).

    mask: which samples were taken; by default those that are not zero. largest: side of the center that is used.
    window: side of the neighborhood, pixels of the low-resolution image's grid. The phase is that of the image seen by
    the first principal coil. Raises InputError.
    """
    check_k_space(k_space)
    images = _low_resolution(k_space, calibration_block(k_space, mask, largest=largest))
    coils, height, width = images.shape
    covariance = torch.einsum("chw,dhw->cdhw", images, images.conj()).reshape(1, -1, height, width)
    parts = [_box(part, window) for part in (covariance.real, covariance.imag)]
    covariance = torch.complex(*parts).reshape(coils, coils, height, width).permute(2, 3, 0, 1)
    _, vectors = torch.linalg.eigh(covariance)
    strongest = vectors[..., -1].permute(2, 0, 1)
    return _phase_of_principal_coil(strongest, images)


def espirit(
    k_space: Tensor,
    mask: Tensor | None = None,
    *,
    largest: int = 24,
    kernel: int = 6,
    threshold: float = 0.02,
    crop: float = 0.95,
) -> Tensor:
    """Coil sensitivities (C, H, W), complex, of a k-space (C, H, W).

    Their squares add up to 1, and are 0 outside the body. kernel: side of the stretches of k-space.
    threshold: singular values below this part of the largest are noise. crop: pixels whose eigenvalue is less are
    outside the body. largest: side of the center that is used. Raises InputError.
    """
    check_k_space(k_space)
    block = calibration_block(k_space, mask, largest=largest)
    coils, height, width = k_space.shape
    kernel = min(kernel, *(n - 1 for n in block.shape[-2:]))
    # All stretches: (number, C · kernel · kernel).
    patches = block.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(1, 2, 0, 3, 4).reshape(-1, coils * kernel**2)
    _, values, vectors = torch.linalg.svd(patches, full_matrices=False)
    kept = vectors[values > threshold * values[0]].reshape(-1, coils, kernel, kernel)
    # Keeping what fits the stretches is a convolution, in image space one matrix of coils by coils at each pixel; what
    # is seen through the sensitivities stays as it is, so they are its eigenvector of eigenvalue 1.
    values, vectors = torch.linalg.eigh(_gram(kept, (height, width)) / kernel**2)
    strongest = vectors[..., -1].permute(2, 0, 1)
    strongest = _phase_of_principal_coil(strongest, _low_resolution(k_space, block))
    return strongest * (values[..., -1] > crop)


def _gram(kernels: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W, C, C): at each pixel the inner products, over the kernels (N, C, k, k), of their images of two coils.

    The product of two images is the image of their kernels' correlation, which is small: it is summed over the kernels
    before there are images.
    """
    coils, side = kernels.shape[1:3]
    spectra = torch.fft.fft2(kernels, s=(2 * side, 2 * side))
    correlation = torch.fft.ifft2(torch.einsum("ncij,ndij->cdij", spectra, spectra.conj()))
    steps = torch.arange(1 - side, side, device=kernels.device)
    gram = correlation[..., steps[:, None] % (2 * side), steps % (2 * side)]
    for axis, length in ((2, size[0]), (3, size[1])):
        shape = [*gram.shape[:axis], length, *gram.shape[axis + 1 :]]
        gram = gram.new_zeros(shape).index_add_(axis, steps % length, gram)
    return torch.fft.fftshift(torch.fft.ifft2(gram, norm="forward"), (-2, -1)).permute(2, 3, 0, 1)


def _low_resolution(k_space: Tensor, block: Tensor) -> Tensor:
    """The coils' images (C, H, W) from the center alone, windowed so that its edges do not ring."""
    height, width = k_space.shape[-2:]
    rows, columns = block.shape[-2:]
    windows = [torch.hann_window(n + 2, periodic=False, device=block.device)[1:-1] for n in (rows, columns)]
    top, left = height // 2 - rows // 2, width // 2 - columns // 2
    tapered = block * windows[0][:, None] * windows[1]
    return image_of_k_space(functional.pad(tapered, (left, width - columns - left, top, height - rows - top)))


def _box(values: Tensor, side: int) -> Tensor:
    return functional.avg_pool2d(values, side, stride=1, padding=side // 2, count_include_pad=False)


def _phase_of_principal_coil(vectors: Tensor, images: Tensor) -> Tensor:
    """Unit vectors (C, H, W) turned so that the coils' strongest common combination of all pixels has phase 0.

    An eigenvector's phase is arbitrary in each pixel; relative to one virtual coil it is smooth wherever that coil
    sees anything. Zhang and others, "Coil compression for accelerated imaging", MRM 69 (2013).
    """
    flat = images.reshape(len(images), -1)
    _, basis = torch.linalg.eigh(flat @ flat.conj().T)
    principal = torch.einsum("c,chw->hw", basis[:, -1].conj(), vectors)
    return vectors * torch.exp(-1j * torch.angle(principal))
