"""Training on mixtures of images: mixup and cutmix."""

from __future__ import annotations

import numpy as np
import torch


def mix(
    batch: dict[str, torch.Tensor], *, mixup: float, cutmix: float, probability: float, seed: int
) -> dict[str, torch.Tensor]:
    """A batch in which each image is mixed with another one of it, and its target in the same proportion.

    batch: "image" (B, C, *S) and "target" (B, K), one-hot or flags; other entries are passed on. mixup: parameter α of
    the Beta(α, α) distribution of the share λ of the own image; λ x + (1 - λ) x' (Zhang et al. 2018,
    https://arxiv.org/abs/1710.09412). cutmix: the same for a box of share 1 - λ of the image, at a random place, that
    is put in from the other one; λ is then what is left after the box is cut off at the border (Yun et al. 2019,
    https://arxiv.org/abs/1905.04899; in three dimensions the side is the cube root). 0 turns one off; where both are
    on, each batch gets one of them at random. probability: share of batches that are mixed. seed: decides everything.
    One λ and one box a batch, as in both papers.
    """
    random = np.random.default_rng(seed)
    draw, turn = random.random(), random.random()
    if draw >= probability or (mixup <= 0 and cutmix <= 0):
        return batch
    image, target = batch["image"], batch["target"]
    cut = cutmix > 0 and (mixup <= 0 or turn < 0.5)
    alpha = cutmix if cut else mixup
    share = float(random.beta(alpha, alpha))
    other = torch.from_numpy(random.permutation(len(image))).to(image.device)
    if cut:
        size = image.shape[2:]
        box = _box(size, 1 - share, random)
        mixed = image.clone()
        mixed[(..., *box)] = image[(other, slice(None), *box)]
        share = 1 - float(np.prod([part.stop - part.start for part in box]) / np.prod(size))
    else:
        mixed = share * image + (1 - share) * image[other]
    return {**batch, "image": mixed, "target": share * target + (1 - share) * target[other]}


def _box(size: torch.Size, share: float, random: np.random.Generator) -> tuple[slice, ...]:
    """A box with the sides of the image times one factor, around a random pixel, cut off at the border."""
    factor = share ** (1 / len(size))
    box = []
    for side in size:
        center, length = int(random.integers(side)), int(side * factor)
        start = center - length // 2
        box.append(slice(max(start, 0), min(start + length, side)))
    return tuple(box)
