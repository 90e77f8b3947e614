"""Where a classifier looked: one method a file, one line each in this table. Importing it imports no torch.

A method takes (network, x, output): a ``networks.classifier.Classifier`` or an ensemble of them, in evaluation mode;
one image (1, C, *S), as the network sees it; and what to explain, which makes of the logits (1, O) the score (a scalar
tensor), such as :func:`score.log_odds`. It gives a map (*S) of numbers from 0 up, which :func:`saliency_map` brings to
0 to 1.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..preprocessing import Grid
    from ..results import Saliency

_FUNCTIONS = {
    "grad-cam": ("gradcam", "grad_cam"),
    "grad-cam++": ("gradcam", "grad_cam_plus_plus"),
    "occlusion": ("occlusion", "occlusion"),
    "attention": ("attention", "attention"),
}


def _call(name: str, *arguments: Any, **options: Any) -> np.ndarray:
    file, function = _FUNCTIONS[name]
    return getattr(importlib.import_module(f".{file}", __package__), function)(*arguments, **options)


#: Name → method.
METHODS: dict[str, Callable[..., np.ndarray]] = {name: functools.partial(_call, name) for name in _FUNCTIONS}


def saliency_map(
    network: nn.Module,
    x: torch.Tensor,
    output: Callable[[torch.Tensor], torch.Tensor],
    method: str,
    **options: Any,
) -> np.ndarray:
    """Where the network looked for a score, on the model's own grid.

    network: a classifier or an ensemble; it is used in evaluation mode and left in the mode it was in. x: (1, C, *S),
    on the network's device. output: logits (1, O) → the scalar score to explain. method: one of METHODS; options: see
    the method's function. Returns float32 (*S): 0 where nothing speaks for the score, 1 where most does; zero
    everywhere where nothing speaks for it at all. Raises InputError for an unknown method, for more than one image,
    and for "attention" where the network has none.
    """
    if method not in METHODS:
        raise InputError(f"There is no saliency method {method!r}; choose one of {', '.join(METHODS)}.")
    if x.ndim not in (4, 5) or x.shape[0] != 1:
        raise InputError(f"A saliency map is of one image (1, channels, *size), not of shape {tuple(x.shape)}.")
    with _evaluating(network):
        values = METHODS[method](network, x, output, **options)
    values = np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    highest = values.max()
    return values / highest if highest > 0 else values


def on_image(values: np.ndarray, model_grid: Grid, image_grid: Grid) -> np.ndarray:
    """A map of the model's grid on the image's own voxels; see :func:`placing.on_image`."""
    from .placing import on_image as place

    return place(values, model_grid, image_grid)


def explain(
    network: nn.Module,
    x: torch.Tensor,
    output: Callable[[torch.Tensor], torch.Tensor],
    method: str,
    *,
    model_grid: Grid,
    image_grid: Grid,
    of_class: str,
    check: bool = True,
) -> Saliency:
    """The whole way: the map, what the check against randomized weights says of it, and its place in the patient.

    network, x, output, method: as in :func:`saliency_map`. model_grid: where x lies (its shape has a 1 where x lacks an
    axis). image_grid: of the image that the user gave. of_class: name of the class whose score it is. check: False
    leaves out the check, which costs two or three more maps.
    """
    from ..results import Saliency
    from . import sanity

    values = saliency_map(network, x, output, method)
    warning = sanity.warning_of(network, x, output, method, values) if check else None
    return Saliency(on_image(values, model_grid, image_grid), image_grid.affine, method, of_class, warning)


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for the network, and the mode of each of its parts as it was afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


__all__ = ["METHODS", "explain", "on_image", "saliency_map"]
