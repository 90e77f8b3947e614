"""Classification: what is it, how sure is the model, and where did it look."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import check_place, write_atomically
from ..image import check_affine

#: What there is to tell: one of two classes (the second is the positive one), one of several, any number of several,
#: one of several that have an order.
KINDS = ("binary", "single-label", "multi-label", "ordinal")
_ENDINGS = (".csv", ".json")


@dataclass(frozen=True)
class Classes:
    """What there is to tell apart. names: of the classes, in their order. kind: one of KINDS."""

    names: tuple[str, ...]
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"The target {self.kind!r} is none of {', '.join(KINDS)}.")
        least = 1 if self.kind == "multi-label" else 2
        if len(self.names) < least or len(set(self.names)) < len(self.names):
            raise InputError(
                f"A {self.kind} classification needs at least {least} classes of different names, not {self.names}."
            )
        if self.kind == "binary" and len(self.names) != 2:
            raise InputError(f"A binary classification has two classes, not {len(self.names)}.")

    @property
    def outputs(self) -> int:
        """How many numbers a network gives: one a class, and one a step between classes that have an order."""
        return len(self.names) - (self.kind == "ordinal")


@dataclass(frozen=True)
class ClassReference:
    """What a case really is.

    classes: all there are. kind: one of KINDS. true: indices of the classes that are true, in order; none is possible
    for "multi-label" only. auxiliary: numbers to learn beside, NaN where one is not known.
    """

    classes: tuple[str, ...]
    kind: str
    true: tuple[int, ...]
    auxiliary: tuple[float, ...] = ()

    @property
    def vector(self) -> np.ndarray:
        """1 for each true class, else 0: float32 (K,)."""
        vector = np.zeros(len(self.classes), dtype=np.float32)
        vector[list(self.true)] = 1
        return vector

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the true classes."""
        return tuple(self.classes[number] for number in self.true)


@dataclass(frozen=True)
class Saliency:
    """Where the network looked.

    values: float32 (I, J, K) on the image's grid, 0 (nothing) to 1 (most). affine: 4x4, voxel index → RAS mm. method:
    "grad-cam", "grad-cam++", "occlusion" or "attention". of_class: whose score it explains. warning: what the check
    against randomized weights found, or None.
    """

    values: np.ndarray
    affine: np.ndarray
    method: str
    of_class: str
    warning: str | None = None

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float32)
        if values.ndim != 3 or not np.isfinite(values).all():
            raise ValueError(f"a saliency map is (i, j, k) of finite numbers, not of shape {values.shape}")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "affine", check_affine(self.affine, "The saliency map"))


@dataclass(frozen=True)
class Familiarity:
    """Whether an image is of the kind that the model was trained on.

    scores: of "intensity", "size" and "embedding", the distance from the training data over the largest that counts as
    familiar, so that more than 1 is outside. sentence: for the user; empty when familiar.
    """

    familiar: bool
    scores: dict[str, float]
    sentence: str = ""


@dataclass(frozen=True)
class Classification:
    """What an image shows.

    probabilities: calibrated, one a class; their sum is 1 unless kind is "multi-label". thresholds: the operating
    point, one a class; None where the highest probability decides. called: names of the classes called there. notes:
    sentences that the user should read with the result.
    """

    classes: tuple[str, ...]
    kind: str
    probabilities: tuple[float, ...]
    thresholds: tuple[float | None, ...]
    called: tuple[str, ...]
    familiarity: Familiarity | None = None
    saliency: Saliency | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is none of {', '.join(KINDS)}")
        if not len(self.classes) == len(self.probabilities) == len(self.thresholds):
            raise ValueError("a classification needs one probability and one threshold (or None) a class")
        if not all(math.isfinite(p) and -1e-6 <= p <= 1 + 1e-6 for p in self.probabilities):
            raise ValueError(f"probabilities lie between 0 and 1, not {self.probabilities}")

    @property
    def sentence(self) -> str:
        """The call in one line, with the probability of what was called."""
        shown = dict(zip(self.classes, self.probabilities, strict=True))
        if not self.called:
            return "None of the classes reaches its operating point."
        return ", ".join(f"{name} (probability {shown[name]:.3f})" for name in self.called)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it, without the voxels of the saliency map."""
        familiarity, saliency = self.familiarity, self.saliency
        return {
            "called": list(self.called),
            "kind": self.kind,
            "probabilities": dict(zip(self.classes, map(float, self.probabilities), strict=True)),
            "thresholds": dict(zip(self.classes, self.thresholds, strict=True)),
            "familiarity": familiarity
            and {"familiar": familiarity.familiar, "scores": familiarity.scores, "sentence": familiarity.sentence},
            "saliency": saliency
            and {"method": saliency.method, "of_class": saliency.of_class, "warning": saliency.warning},
            "notes": list(self.notes),
        }


def write_classification(result: Classification, path: str | Path, about: dict[str, Any] | None = None) -> None:
    """Write ``.csv`` (class, probability, threshold, called) or ``.json`` (everything but the saliency map's voxels).

    about: further entries of the JSON, such as the model. The file appears whole or not at all. Raises InputError for
    another ending, RunError when the disk is full.
    """
    path = Path(path)
    check_writable_classification(path)
    if path.suffix.lower() == ".json":
        text = json.dumps({**(about or {}), **result.to_dict()}, indent=2, ensure_ascii=False) + "\n"
    else:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(("class", "probability", "threshold", "called"))
        for name, probability, threshold in zip(result.classes, result.probabilities, result.thresholds, strict=True):
            shown = "" if threshold is None else f"{threshold:.6g}"
            writer.writerow((name, f"{probability:.6g}", shown, int(name in result.called)))
        text = buffer.getvalue()
    write_atomically(path, text.encode())


def check_writable_classification(path: str | Path) -> None:
    """Find out, before any work is done, whether a classification can be written to ``path``. Raises InputError."""
    path = Path(path)
    if path.suffix.lower() not in _ENDINGS:
        raise InputError(f"{path} cannot be written: a classification is written as {' or '.join(_ENDINGS)}.")
    check_place(path)
