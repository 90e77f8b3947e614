"""Making a tensor of one network fit another: more or fewer input channels, 2D filters as 3D ones, a folded bias."""

from __future__ import annotations

import torch

from ..errors import InputError

INFLATIONS = ("mean", "center")


def check_inflation(inflate: str) -> str:
    """The name of a way to inflate. Raises InputError."""
    if inflate not in INFLATIONS:
        raise InputError(f"transfer.inflate is {inflate!r}; choose one of {', '.join(INFLATIONS)}.")
    return inflate


def adapt_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Filters (O, C, *k) for images of ``channels`` instead of C: (O, channels, *k).

    Each new channel gets the sum over the old ones divided by the number of new ones. So an image with the same values
    in all its channels gets the same answer from both: for one channel the filters are summed, and three channels
    share what was learned on one.
    """
    summed = weight.sum(dim=1, keepdim=True) / channels
    return summed.expand(-1, channels, *weight.shape[2:]).clone()


def inflate_kernel(weight: torch.Tensor, depth: int, how: str) -> torch.Tensor:
    """Filters (O, C, k, k) as (O, C, k, k, depth), so that a volume constant along depth gets the slice's answer.

    how: "mean" repeats the filter along depth and divides by it (Carreira and Zisserman, "Quo Vadis, Action
    Recognition?", CVPR 2017, https://arxiv.org/abs/1705.07750, section 2.4): away from the ends, where padding enters.
    "center" puts it into the middle and zeros elsewhere: everywhere, and each slice by itself until it is trained.
    """
    if check_inflation(how) == "mean":
        return (weight / depth)[..., None].expand(*weight.shape, depth).clone()
    inflated = weight.new_zeros(*weight.shape, depth)
    inflated[..., depth // 2] = weight
    return inflated
