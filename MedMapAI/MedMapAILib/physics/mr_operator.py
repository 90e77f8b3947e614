"""MR as a linear map: an image seen by several coils, Fourier transformed, of which some samples are taken."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError
from .fourier import image_of_k_space, k_space_of_image


class MrOperator(nn.Module):
    """``operator(image)``: complex image (B, 1, H, W) → k-space (B, C, H, W), zero where nothing was taken.

    mask: which samples are taken, (H, W), or (B, 1, H, W) for one mask an image. sensitivities: of the coils, complex
    (C, H, W) or (B, C, H, W), or None for one coil that sees everything alike. The transform is centered and unitary,
    so with all samples and sensitivities whose squares add up to one, ``adjoint(operator(x))`` is x.
    ``operator.adjoint(k_space)`` is the adjoint: the zero-filled image. Differentiable by autograd as it is.
    Raises InputError for shapes that do not fit.
    """

    def __init__(self, mask: Tensor, sensitivities: Tensor | None = None) -> None:
        super().__init__()
        if sensitivities is None:
            sensitivities = torch.ones(1, *mask.shape[-2:], dtype=torch.complex64)
        if not sensitivities.is_complex() or sensitivities.ndim not in (3, 4) or not sensitivities.shape[-3]:
            raise InputError(
                "Coil sensitivities are complex with the axes coil, row, column, and at least one coil; these have the "
                f"shape {tuple(sensitivities.shape)} of {sensitivities.dtype}."
            )
        if mask.shape[-2:] != sensitivities.shape[-2:]:
            raise InputError(
                f"The mask has {mask.shape[-2]} × {mask.shape[-1]} samples and the coil sensitivities "
                f"{sensitivities.shape[-2]} × {sensitivities.shape[-1]}."
            )
        if not (mask != 0).any():
            raise InputError("The mask takes no sample of k-space.")
        self.register_buffer("mask", mask != 0, persistent=False)
        self.register_buffer("sensitivities", sensitivities, persistent=False)

    @property
    def coils(self) -> int:
        """How many coils there are."""
        return self.sensitivities.shape[-3]

    def forward(self, image: Tensor) -> Tensor:
        """The k-space (B, C, H, W) of an image (B, 1, H, W)."""
        if image.shape[-2:] != self.mask.shape[-2:] or image.shape[-3] != 1:
            height, width = self.mask.shape[-2:]
            raise InputError(f"The image has the shape {tuple(image.shape)}; (B, 1, {height}, {width}) fits.")
        return self.mask * k_space_of_image(self.sensitivities * image)

    def adjoint(self, k_space: Tensor) -> Tensor:
        """The zero-filled image (B, 1, H, W) of a k-space (B, C, H, W), the coils combined by their sensitivities."""
        check_k_space(k_space, coils=self.coils, size=tuple(self.mask.shape[-2:]))
        coils = image_of_k_space(self.mask * k_space)
        return (self.sensitivities.conj() * coils).sum(dim=-3, keepdim=True)


def root_sum_of_squares(k_space: Tensor) -> Tensor:
    """The magnitude image (B, 1, H, W) of a k-space (B, C, H, W) without sensitivities, missing samples as zero."""
    return image_of_k_space(k_space).abs().square().sum(dim=-3, keepdim=True).sqrt()


def check_k_space(k_space: Tensor, *, coils: int | None = None, size: tuple[int, int] | None = None) -> None:
    """Raise InputError unless a k-space is complex (…, C, H, W), finite, and not zero in every sample.

    coils, size: what it should have, where that is known.
    """
    shape = tuple(k_space.shape)
    if not k_space.is_complex():
        raise InputError(f"A k-space is complex; this one holds {k_space.dtype}.")
    if len(shape) < 3 or 0 in shape:
        raise InputError(f"A k-space has the axes coil, row, column, and at least one coil; this one has {shape}.")
    if coils is not None and shape[-3] != coils:
        raise InputError(f"The k-space has {shape[-3]} coils and the sensitivities {coils}.")
    if size is not None and shape[-2:] != tuple(size):
        raise InputError(f"The k-space has {shape[-2]} × {shape[-1]} samples, not {size[0]} × {size[1]}.")
    if not torch.isfinite(torch.view_as_real(k_space)).all():
        raise InputError("The k-space holds values that are no numbers.")
    if not (k_space != 0).any():
        raise InputError("The k-space is zero in every sample.")


def axis_order_problem(k_space: Tensor) -> str:
    """One sentence where the axes of a k-space (…, C, H, W) seem to be in another order, or "".

    There are rarely more coils than rows or columns, and the strongest sample lies near the middle of k-space.
    """
    coils, height, width = k_space.shape[-3:]
    if coils > min(height, width):
        axes = f"{coils} coils of {height} × {width} samples"
        return f"The k-space would have {axes}; its coil axis seems to be another one. The order is coil, row, column."
    energy = k_space.reshape(-1, height, width).abs().square().sum(dim=0)
    for name, profile in (("row", energy.sum(dim=1)), ("column", energy.sum(dim=0))):
        place, count = int(profile.argmax()), len(profile)
        if min(place, count - 1 - place) < count // 8 and count > 8:
            return (
                f"The strongest sample of the k-space is in {name} {place} of {count}, not near the middle; its center "
                "seems to be at the corner (it wants an fftshift)."
            )
    return ""
