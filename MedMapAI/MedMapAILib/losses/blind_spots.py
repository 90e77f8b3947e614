"""Noise2Void: learning to denoise from noisy images alone, by guessing pixels from their neighbors.

Krull, Buchholz, Jug, "Noise2Void - learning denoising from single noisy images", CVPR 2019,
https://arxiv.org/abs/1811.10980. Some pixels are given the value of another one near them, and the network is to say
what was there, which is counted at these pixels alone. What it cannot know is the noise, as far as that is independent
from pixel to pixel; so it learns the mean. Noise with a texture (a reconstructed CT, a resampled image) can be guessed
from the neighbors: there ``correlation`` says how far it reaches, and pixels up to that distance from one that is to be
guessed are hidden as well, as in Broaddus and others, "Removing structured noise with self-supervised blind-spot
networks", ISBI 2020.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional

from .fidelity import ReconstructionLoss, precise

#: Pixels are replaced by others up to this far away along each axis, beyond the correlation; 5 × 5 as published.
_REACH = 2


class BlindSpots(ReconstructionLoss):
    """``loss(network(blind(x)[0]), x, mask)``: the mean squared error at the pixels that were hidden.

    side: one pixel of each box of so many along each axis is to be guessed; boxes lie anew in each batch. correlation:
    how far the noise of a pixel reaches, pixels along each axis.
    """

    blind_spots = True

    def __init__(self, spatial_dims: int, side: int, correlation: int) -> None:
        super().__init__()
        self.spatial_dims, self.side, self.correlation = spatial_dims, side, correlation

    @torch.no_grad()
    def blind(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, C, *S) → (x with pixels hidden, mask (B, 1, *S) of those to be guessed, bool).

        A hidden pixel gets the value of one that is not hidden, drawn from those near it, in all channels; so nothing
        of what was there is left. From torch's global generator on the CPU.
        """
        size = tuple(x.shape[2:])
        masks = torch.stack([_one_in_each_box(size, self.side) for _ in range(len(x))])[:, None]
        hidden = _grown(masks, self.correlation)
        source = _sources(hidden[:, 0], _REACH + self.correlation)
        flat = x.flatten(2)
        blinded = torch.gather(flat, 2, source.to(x.device)[:, None].expand_as(flat)).view_as(x)
        return blinded, masks.to(x.device)

    def forward(self, output: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
        """target: what was not blinded; condition: the mask of ``blind``."""
        if condition is None:
            raise ValueError("the loss of blind spots needs the mask that blind gave")
        with precise(output):
            squares = (output.float() - target.float()).square() * condition
            value = squares.sum() / (condition.sum().clamp(min=1) * output.shape[1])
        self._parts = {"fidelity": value.detach()}
        return value


def _one_in_each_box(size: tuple[int, ...], side: int) -> Tensor:
    """A mask (*size) with one random pixel in each whole box of ``side``, the boxes beginning at a random place."""
    sides = [min(side, n) for n in size]
    counts = [n // s for n, s in zip(size, sides, strict=True)]
    places = []
    for axis, (n, s, count) in enumerate(zip(size, sides, counts, strict=True)):
        first = int(torch.randint(0, n - count * s + 1, ()))
        along = torch.arange(count).reshape([-1 if other == axis else 1 for other in range(len(size))])
        places.append(first + along * s + torch.randint(0, s, counts))
    mask = torch.zeros(size, dtype=torch.bool)
    mask[tuple(places)] = True
    return mask


def _grown(masks: Tensor, reach: int) -> Tensor:
    """Masks (B, 1, *S) with all pixels up to ``reach`` away along each axis."""
    if not reach:
        return masks
    pool = (functional.max_pool2d, functional.max_pool3d)[masks.ndim - 4]
    return pool(masks.float(), 2 * reach + 1, stride=1, padding=reach) > 0


def _sources(hidden: Tensor, reach: int) -> Tensor:
    """(B, N): for each pixel of the images whose value it gets, itself where it is not hidden.

    hidden: (B, *S). Drawn evenly from the pixels up to ``reach`` away along each axis that are not hidden; where all
    are, from all of the image that are not.
    """
    size = torch.tensor(hidden.shape[1:])
    source = torch.arange(hidden[0].numel()).repeat(len(hidden), 1)
    spots = hidden.nonzero()
    offsets = torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=len(size))))
    near = spots[:, None, 1:] + offsets
    allowed = ((near >= 0) & (near < size)).all(dim=2)
    near = near.minimum(size - 1).clamp(min=0)
    allowed &= ~hidden[(spots[:, :1].expand(-1, len(offsets)), *near.unbind(2))]
    # The largest of independent random numbers is equally likely to be any of them.
    drawn = (torch.rand(allowed.shape) * allowed).argmax(dim=1)
    found = _flat_index(near[torch.arange(len(near)), drawn], size)
    for spot in (~allowed.any(dim=1)).nonzero()[:, 0].tolist():
        free = (~hidden[spots[spot, 0]]).flatten().nonzero()[:, 0]
        if len(free):
            found[spot] = free[torch.randint(0, len(free), ())]
    source[spots[:, 0], _flat_index(spots[:, 1:], size)] = found
    return source


def _flat_index(places: Tensor, size: Tensor) -> Tensor:
    steps = torch.cat([size[1:].flip(0).cumprod(0).flip(0), torch.ones(1, dtype=size.dtype)])
    return (places * steps).sum(dim=-1)
