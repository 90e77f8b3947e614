"""What host and worker tell each other of a run, as JSON-able dictionaries beside arrays. No pickle, no torch.

The arrays cross in shared memory; a dictionary says everything else. Numbers come out of JSON as they went in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..results import Classification, Familiarity, Saliency, Segment, Segmentation
from .report import RunReport

#: Raised with every change after which an older worker would misunderstand.
PROTOCOL = 2

Box = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class RunRequest:
    """One image for one model.

    model: path of a bundle, or its name. image: voxels (C, I, J, K) of any number type, in any memory order. affine:
    4x4, voxel index → RAS mm. notes: about the image, shown with the result. roi: (center, size) of a box, RAS mm.
    reference: what to score the result against, on the image's grid. saliency: by which method to show where a
    classifier looked, or None. The rest: as ``Predictor`` takes them.
    """

    model: str
    image: np.ndarray
    affine: np.ndarray
    notes: tuple[str, ...] = ()
    roi: Box | None = None
    reference: Segmentation | None = None
    device: str = "auto"
    precision: str = "auto"
    backend: str = "auto"
    overlap: float | None = None
    mirror: bool | None = None
    saliency: str | None = None


#: What crosses as it is.
_PLAIN = ("device", "precision", "backend", "overlap", "mirror", "saliency")


def request_to_message(request: RunRequest) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The request as a dictionary and the arrays [image, labels of the reference if there is one]."""
    message = {
        "model": str(request.model),
        "affine": _matrix(request.affine),
        "notes": list(request.notes),
        "roi": None if request.roi is None else [[float(x) for x in part] for part in request.roi],
        "reference": None if request.reference is None else _segmentation_to_dict(request.reference),
        **{key: getattr(request, key) for key in _PLAIN},
    }
    arrays = [np.asarray(request.image)]
    if request.reference is not None:
        arrays.append(request.reference.labels)
    return message, arrays


def request_from_message(message: dict[str, Any], arrays: list[np.ndarray]) -> RunRequest:
    """The inverse of ``request_to_message``; the arrays are taken as they are, not copied."""
    reference, roi = message["reference"], message["roi"]
    return RunRequest(
        model=message["model"],
        image=arrays[0],
        affine=np.array(message["affine"], dtype=np.float64),
        notes=tuple(message["notes"]),
        roi=None if roi is None else (tuple(roi[0]), tuple(roi[1])),
        reference=None if reference is None else _segmentation_from_dict(reference, arrays[1]),
        **{key: message[key] for key in _PLAIN},
    )


def report_to_message(report: RunReport) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The report as a dictionary, and the arrays of its result: [labels], or [saliency map] if there is one."""
    result, counts = report.result, report.counts
    if isinstance(result, Classification):
        about, arrays = {"classification": _classification_to_dict(result)}, []
        if result.saliency is not None:
            arrays.append(result.saliency.values)
    else:
        about, arrays = {"segmentation": _segmentation_to_dict(result)}, [result.labels]
        counts = result.voxel_counts() if counts is None else counts
    message = {
        "model": report.model,
        **about,
        "device": report.device,
        "seconds": float(report.seconds),
        "scores": report.scores,
        "counts": counts,
    }
    return message, arrays


def report_from_message(message: dict[str, Any], arrays: list[np.ndarray]) -> RunReport:
    """The inverse of ``report_to_message``; the arrays are taken as they are, not copied."""
    if "classification" in message:
        result = _classification_from_dict(message["classification"], arrays)
    else:
        result = _segmentation_from_dict(message["segmentation"], arrays[0])
    return RunReport(
        model=message["model"],
        result=result,
        device=message["device"],
        seconds=message["seconds"],
        scores=message["scores"],
        counts=message["counts"],
    )


def to_line(message: dict[str, Any]) -> bytes:
    """One line of UTF-8 JSON, its end included. Numbers of numpy and torch become plain ones, other things text."""
    return (json.dumps(message, ensure_ascii=False, default=_plain) + "\n").encode("utf-8", "surrogateescape")


def from_line(line: bytes) -> dict[str, Any] | None:
    """The JSON object in a line; None where there is something else in it."""
    try:
        message = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        return None
    return message if isinstance(message, dict) else None


def _segmentation_to_dict(segmentation: Segmentation) -> dict[str, Any]:
    return {
        "affine": _matrix(segmentation.affine),
        "segments": [
            {"value": int(s.value), "name": s.name, "color": [float(c) for c in s.color], "terminology": s.terminology}
            for s in segmentation.segments
        ],
        "notes": list(segmentation.notes),
    }


def _segmentation_from_dict(about: dict[str, Any], labels: np.ndarray) -> Segmentation:
    segments = tuple(Segment(s["value"], s["name"], tuple(s["color"]), s["terminology"]) for s in about["segments"])
    return Segmentation(labels, np.array(about["affine"], dtype=np.float64), segments, tuple(about["notes"]))


def _classification_to_dict(result: Classification) -> dict[str, Any]:
    familiarity, saliency = result.familiarity, result.saliency
    return {
        "classes": list(result.classes),
        "kind": result.kind,
        "probabilities": [float(p) for p in result.probabilities],
        "thresholds": [None if t is None else float(t) for t in result.thresholds],
        "called": list(result.called),
        "familiarity": familiarity
        and {
            "familiar": bool(familiarity.familiar),
            "scores": {name: float(score) for name, score in familiarity.scores.items()},
            "sentence": familiarity.sentence,
        },
        "saliency": saliency
        and {
            "affine": _matrix(saliency.affine),
            "method": saliency.method,
            "of_class": saliency.of_class,
            "warning": saliency.warning,
        },
        "notes": list(result.notes),
    }


def _classification_from_dict(about: dict[str, Any], arrays: list[np.ndarray]) -> Classification:
    familiarity, saliency = about["familiarity"], about["saliency"]
    return Classification(
        **{key: tuple(about[key]) for key in ("classes", "probabilities", "thresholds", "called", "notes")},
        kind=about["kind"],
        familiarity=None if familiarity is None else Familiarity(**familiarity),
        saliency=None
        if saliency is None
        else Saliency(arrays[0], **{**saliency, "affine": np.array(saliency["affine"], dtype=np.float64)}),
    )


def _matrix(affine: np.ndarray) -> list[list[float]]:
    return np.asarray(affine, dtype=np.float64).tolist()


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
