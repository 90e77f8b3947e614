"""The losses of a reconstruction: one table, one builder, every option checked."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from ..errors import InputError
from .adversarial import ConditionalGan, WassersteinGan
from .blind_spots import BlindSpots
from .fidelity import FIDELITIES, Fidelity, ReconstructionLoss

_ADVERSARIAL = {
    "fidelity": "l1",
    "fidelity_weight": 1.0,
    "adversarial_weight": 1.0,
    "perceptual": "",
    "perceptual_weight": 0.1,
    "width": 32,
}
#: Name → options and their defaults.
_OPTIONS: dict[str, dict[str, Any]] = {
    "mse": {},
    "l1": {},
    "charbonnier": {"epsilon": 1e-3},
    "ssim": {"weight": 0.84, "window": 11},
    "noise2void": {"side": 7, "correlation": 0},
    "conditional-gan": _ADVERSARIAL
    | {"fidelity_weight": 100.0, "layers": 3, "steps": 1, "learning_rate": 2e-4, "betas": [0.5, 0.999]},
    "wasserstein-gan": _ADVERSARIAL
    | {
        "adversarial_weight": 3e-3,
        "penalty": 10.0,
        "conditional": False,
        "steps": 4,
        "learning_rate": 1e-4,
        "betas": [0.5, 0.9],
    },
}
_COUNTS = ("window", "side", "layers", "steps", "width")
#: Options that are numbers: what is allowed, in words, and as a rule.
_NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "epsilon": ("a number above 0", lambda v: v > 0),
    "weight": ("a number from 0 to 1", lambda v: v <= 1),
    "penalty": ("a number from 0", lambda v: True),
    "fidelity_weight": ("a number from 0", lambda v: True),
    "adversarial_weight": ("a number from 0", lambda v: True),
    "perceptual_weight": ("a number from 0", lambda v: True),
    "learning_rate": ("a number above 0", lambda v: v > 0),
}


def build_reconstruction_loss(
    settings: dict[str, Any],
    *,
    channels: int,
    condition_channels: int,
    spatial_dims: int,
    data_range: float,
    low: float = 0.0,
) -> ReconstructionLoss:
    """The loss that ``settings`` name: {"name": …, option: value, …}.

    channels: of the images. condition_channels: of the network's input, 0 where that is no image. spatial_dims: 2 or 3.
    data_range: the span of values that counts, such as that of the display window, in the unit of the network; low:
    where it begins (only the perceptual term asks). A loss with an opponent has new random weights in it, from torch's
    global generator. Raises InputError for an unknown name or option, listing what there is, and for a value that makes
    no sense.

    Options: "charbonnier": epsilon, a part of the data range. "ssim": weight of 1 - SSIM beside the mean absolute
    error, and window. "noise2void": side, one pixel of each such box is hidden; correlation, how far noise reaches.
    "conditional-gan" and "wasserstein-gan": fidelity, one of "mse", "l1", "charbonnier", "ssim"; fidelity_weight,
    adversarial_weight, perceptual_weight; perceptual, "" or as ``perceptual.Perceptual`` takes it; width, of the
    critic; steps of the critic for one of the network; learning_rate and betas of its optimizer; layers (of the patch
    critic), penalty and conditional (of the Wasserstein one: whether it sees the network's input too).
    """
    settings = dict(settings)
    name = settings.pop("name", "mse")
    known = reconstruction_options(name)
    unknown = [option for option in settings if option not in known]
    if unknown:
        listed = f"there are {', '.join(known)}" if known else "it has none"
        raise InputError(f"Loss {name!r} has no option {unknown[0]!r}; {listed}.")
    options = {**known, **settings}
    for option, value in options.items():
        _check(name, option, value)
    if not (isinstance(data_range, (int, float)) and math.isfinite(data_range) and data_range > 0):
        raise InputError(f"The data range of a loss is {data_range!r}; give a number above 0.")
    if name in FIDELITIES:
        return Fidelity(name, spatial_dims, data_range, float(low), **options)
    if name == "noise2void":
        return BlindSpots(spatial_dims, **options)
    kind = ConditionalGan if name == "conditional-gan" else WassersteinGan
    return kind(
        options,
        channels=channels,
        condition_channels=condition_channels,
        spatial_dims=spatial_dims,
        data_range=float(data_range),
        low=float(low),
    )


def reconstruction_options(name: str) -> dict[str, Any]:
    """The options of a loss and their defaults. Raises InputError for an unknown name."""
    if name not in _OPTIONS:
        raise InputError(f"There is no loss {name!r} for reconstruction; choose one of {', '.join(_OPTIONS)}.")
    return dict(_OPTIONS[name])


def _build(name: str, **arguments: Any) -> ReconstructionLoss:
    shape = ("channels", "condition_channels", "spatial_dims", "data_range", "low")
    options = {option: value for option, value in arguments.items() if option not in shape}
    given = {option: value for option, value in arguments.items() if option in shape}
    return build_reconstruction_loss({"name": name, **options}, **given)


#: Name → builder, which takes the arguments of ``build_reconstruction_loss`` and the options.
RECONSTRUCTION: dict[str, Callable[..., ReconstructionLoss]] = {
    name: functools.partial(_build, name) for name in _OPTIONS
}


def _check(name: str, option: str, value: Any) -> None:
    """Raise InputError unless the value makes sense; the sentence names the option and what is allowed."""
    if option in _NUMBERS:
        allowed, rule = _NUMBERS[option]
        good = _is_number(value) and value >= 0 and rule(value)
    elif option in _COUNTS:
        allowed = "a whole number above 0"
        good = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if option == "side":
            allowed, good = "a whole number above 1", good and value > 1
    elif option == "correlation":
        allowed = "a whole number from 0"
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    elif option == "betas":
        allowed = "two numbers from 0 to below 1"
        good = isinstance(value, (list, tuple)) and len(value) == 2 and all(_is_number(v) and 0 <= v < 1 for v in value)
    elif option == "fidelity":
        allowed, good = f"one of {', '.join(FIDELITIES)}", value in FIDELITIES
    elif option == "conditional":
        allowed, good = "true or false", isinstance(value, bool)
    else:
        allowed, good = '"", "vgg16", "resnet18", a file of weights or a bundle', isinstance(value, str)
    if not good:
        raise InputError(f"Option {option} of loss {name!r} is {value!r}; give {allowed}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
