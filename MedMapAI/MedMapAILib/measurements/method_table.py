"""The methods that make an image of a measurement without being trained to: names, options, and what they do in words.

Without torch, which takes seconds to import: a panel lists them, and ``methods`` runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .options import Option, words, yes_no
from .settings import choice, number, optional, whole

#: The filters of filtered backprojection; see ``physics.filters``.
FILTERS = ("ramp", "shepp-logan", "cosine", "hann")


@dataclass(frozen=True)
class Method:
    """A method. kinds: of measurements that it takes, "ct" and "mr". sentence: what it does. options: name → Option for
    each kind. The function of its name in ``ct_methods`` and ``mr_methods`` does it."""

    kinds: tuple[str, ...]
    sentence: str
    options: Mapping[str, Mapping[str, Option]]


def _iterative(iterations: int, tolerance: float) -> dict[str, Option]:
    return {
        "iterations": Option(iterations, whole(), "at most so many"),
        "tolerance": Option(tolerance, number(0), "converged where an iteration changes less than this part; 0: never"),
        "discrepancy": Option(
            None, optional(number(0)), "fitted where |A x - y| / |y| is no more: the part of the data that is noise"
        ),
    }


_NONNEGATIVE = {"nonnegative": Option(True, yes_no, "no attenuation below zero")}
_RELAXATION = {"relaxation": Option(1.0, number(above=0, below=2), "length of the steps, between 0 and 2")}
_COILS = {
    "sensitivities": Option(
        "espirit", choice("espirit", "walsh"), "how the coils' sensitivities are estimated, where they are not known"
    )
}


def _weight(default: float) -> dict[str, Option]:
    return {"weight": Option(default, number(0), "of the penalty, as a part of the largest value of Aᴴ y")}


#: Name → method.
METHODS: dict[str, Method] = {
    "fbp": Method(
        ("ct",),
        "filtered backprojection, in one pass",
        {
            "ct": {
                "filter": Option("ramp", choice(*FILTERS), f"one of {', '.join(FILTERS)}"),
                "cutoff": Option(1.0, number(above=0, below=1.0000001), "part of the Nyquist frequency that passes"),
            }
        },
    ),
    "sirt": Method(
        ("ct",),
        "simultaneous iterative reconstruction: all rays at once",
        {"ct": {**_iterative(200, 1e-4), **_NONNEGATIVE, **_RELAXATION}},
    ),
    "sart": Method(
        ("ct",),
        "the same from a few views at a time (ordered subsets), many times faster at the begin",
        {
            "ct": {
                **_iterative(20, 1e-4),
                "subsets": Option(10, whole(), "parts that the views are taken in; as many as views: SART proper"),
                **_NONNEGATIVE,
                **_RELAXATION,
            }
        },
    ),
    "cgls": Method(
        ("ct",),
        "least squares by conjugate gradients; fits noise when it goes on for long",
        {"ct": {**_iterative(20, 1e-5), "damping": Option(0.0, number(0), "of |x|², against noise")}},
    ),
    "mlem": Method(
        ("ct",),
        "the likeliest image of Poisson data, never negative",
        {"ct": _iterative(100, 1e-4)},
    ),
    "tv": Method(
        ("ct", "mr"),
        "total variation: flat in pieces, for few views or an undersampled k-space",
        {
            "ct": {**_iterative(200, 1e-4), **_weight(1e-3), **_NONNEGATIVE},
            "mr": {**_iterative(100, 1e-4), **_weight(2e-3), **_COILS},
        },
    ),
    "plug-and-play": Method(
        ("ct",),
        "a model that denoises images, by turns with fitting the measurement",
        {
            "ct": {
                "denoiser": Option(None, words, "a model of the image domain: its name, or a bundle's path"),
                "iterations": Option(6, whole(), "so many turns"),
                "first": Option(0.10, number(above=0), "how far from the denoised image the fit may go at first"),
                "last": Option(0.02, number(above=0), "and at last; both in water's attenuation"),
                "trust": Option(None, optional(number(above=0)), "deviation of the data's noise; measured if not said"),
            }
        },
    ),
    "zero-filled": Method(
        ("mr",),
        "the coils' images of the samples as they are, combined by root sum of squares",
        {"mr": {}},
    ),
    "cg-sense": Method(
        ("mr",),
        "least squares through the coils' sensitivities",
        {"mr": {**_iterative(30, 1e-4), "damping": Option(1e-2, number(0), "of |x|², against noise"), **_COILS}},
    ),
    "wavelet": Method(
        ("mr",),
        "compressed sensing: few large wavelet coefficients",
        {
            "mr": {
                **_iterative(100, 1e-4),
                **_weight(3e-3),
                "moments": Option(4, whole(), "vanishing moments of the Daubechies wavelet, 1 to 8"),
                **_COILS,
            }
        },
    ),
}
