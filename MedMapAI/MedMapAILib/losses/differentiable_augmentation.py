"""Random changes of images that gradients go through, for training a critic on few images.

Zhao, Liu, Lin, Zhu, Han, "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020,
https://arxiv.org/abs/2006.10738: a critic that sees few images soon knows them by heart. Real and generated images are
changed alike before the critic sees them, when the generator learns, too; so the generator does not learn to make
changed images, as it would from augmented training images alone. The changes are theirs in kind and size: brightness
and contrast, translation by up to an eighth of the size, a cut-out box of half the size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..errors import InputError


def brightness(images: torch.Tensor) -> torch.Tensor:
    """Add a number from -0.5 to 0.5 to each image (B, C, *S), whose values lie from -1 to 1."""
    return images + (_uniform(images) - 0.5)


def contrast(images: torch.Tensor) -> torch.Tensor:
    """Multiply each image's differences from its mean by 0.5 to 1.5."""
    mean = images.mean(dim=tuple(range(1, images.ndim)), keepdim=True)
    return (images - mean) * (_uniform(images) + 0.5) + mean


def translation(images: torch.Tensor) -> torch.Tensor:
    """Move each image by whole voxels, up to an eighth of its size along each axis; -1 (black) moves in."""
    result = images + 1
    for axis in range(2, images.ndim):
        size = images.shape[axis]
        most = int(size / 8 + 0.5)
        steps = torch.randint(-most, most + 1, (len(images), 1)).to(images.device)
        sources = torch.arange(size, device=images.device)[None] - steps
        shape = [len(images), *(1,) * (images.ndim - 1)]
        shape[axis] = size
        inside = ((sources >= 0) & (sources < size)).view(shape)
        index = sources.clamp(0, size - 1).view(shape).expand(result.shape)
        result = result.gather(axis, index) * inside
    return result - 1


def cutout(images: torch.Tensor) -> torch.Tensor:
    """Make a box of half the size 0 (middle gray) in each image; it may reach beyond the border."""
    kept: torch.Tensor | None = None
    for axis in range(2, images.ndim):
        size = images.shape[axis]
        center = torch.randint(0, size + 1, (len(images), 1)).to(images.device)
        distance = torch.arange(size, device=images.device)[None] - center
        shape = [len(images), *(1,) * (images.ndim - 1)]
        shape[axis] = size
        inside = ((distance >= -(size // 4)) & (distance < size // 4)).view(shape)
        kept = inside if kept is None else kept & inside
    return images * ~kept


#: Name → change, in the order in which they are made.
CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "translation": translation,
    "cutout": cutout,
}


def change(images: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """Images (B, C, *S), from about -1 to 1, each changed in its own way; draws from torch's global generator."""
    for name, function in CHANGES.items():
        if name in names:
            images = function(images)
    return images


def check_changes(names: object) -> tuple[str, ...]:
    """Names of changes. Raises InputError that lists those there are."""
    if not isinstance(names, (list, tuple)) or not all(name in CHANGES for name in names):
        raise InputError(f"loss.augmentation is {names!r}; give a list of {', '.join(CHANGES)}, or [] for none.")
    return tuple(names)


def _uniform(images: torch.Tensor) -> torch.Tensor:
    """One number from 0 to 1 an image, drawn on the CPU so that every device has the same."""
    return torch.rand(len(images), *(1,) * (images.ndim - 1)).to(images.device, images.dtype)
