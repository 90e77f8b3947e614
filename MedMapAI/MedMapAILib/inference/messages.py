"""What host and worker tell each other of a run, as JSON-able dictionaries beside arrays. No pickle, no torch.

The arrays cross in shared memory; a dictionary says everything else. Numbers come out of JSON as they went in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..results import (
    Classification,
    Detections,
    Familiarity,
    Finding,
    FindingMask,
    FindingReference,
    ImageReference,
    Reconstruction,
    Saliency,
    Segment,
    Segmentation,
)
from .report import RunReport

#: Raised with every change after which an older worker would misunderstand.
PROTOCOL = 4

Box = tuple[tuple[float, float, float], tuple[float, float, float]]
#: What a result is scored against.
Reference = Segmentation | FindingReference | ImageReference


@dataclass(frozen=True)
class RunRequest:
    """One image for one model.

    model: path of a bundle, or its name. image: voxels (C, I, J, K) of any number type, in any memory order. affine:
    4x4, voxel index → RAS mm. notes: about the image, shown with the result. roi: (center, size) of a box, RAS mm.
    reference: what to score the result against, a segmentation or an image on the image's grid, or findings.
    saliency: by which method to show where a classifier looked, or None. assume_hounsfield: go on where the values of
    a CT do not look like Hounsfield units. The rest: as ``Predictor`` takes them.
    """

    model: str
    image: np.ndarray
    affine: np.ndarray
    notes: tuple[str, ...] = ()
    roi: Box | None = None
    reference: Reference | None = None
    device: str = "auto"
    precision: str = "auto"
    backend: str = "auto"
    overlap: float | None = None
    mirror: bool | None = None
    saliency: str | None = None
    assume_hounsfield: bool = False


@dataclass(frozen=True)
class ReconstructRequest:
    """One measurement for one method.

    method: a name in ``measurements.methods.METHODS``, or a model's name or path. measurement: path of its file.
    geometry: path of the file that describes how it was measured, or None. options: of the method. reading: options of
    ``measurements.files.read_measurement``. reference: to score the image against, on its grid, or None.
    """

    method: str
    measurement: str
    geometry: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    reference: ImageReference | None = None
    device: str = "auto"


#: What crosses as it is.
_PLAIN = ("device", "precision", "backend", "overlap", "mirror", "saliency", "assume_hounsfield")
_OF_MEASUREMENT = ("method", "measurement", "geometry", "options", "reading", "device")


def request_to_message(request: RunRequest) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The request as a dictionary and the arrays [image, those of the reference if there is one]."""
    about, further = _reference_to_dict(request.reference)
    message = {
        "model": str(request.model),
        "affine": _matrix(request.affine),
        "notes": list(request.notes),
        "roi": None if request.roi is None else [[float(x) for x in part] for part in request.roi],
        "reference": about,
        **{key: getattr(request, key) for key in _PLAIN},
    }
    return message, [np.asarray(request.image), *further]


def request_from_message(message: dict[str, Any], arrays: list[np.ndarray]) -> RunRequest:
    """The inverse of ``request_to_message``; the arrays are taken as they are, not copied."""
    reference, roi = message["reference"], message["roi"]
    return RunRequest(
        model=message["model"],
        image=arrays[0],
        affine=np.array(message["affine"], dtype=np.float64),
        notes=tuple(message["notes"]),
        roi=None if roi is None else (tuple(roi[0]), tuple(roi[1])),
        reference=_reference_from_dict(reference, arrays[1:]),
        **{key: message[key] for key in _PLAIN},
    )


def reconstruct_to_message(request: ReconstructRequest) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The request as a dictionary and the arrays of its reference."""
    about, arrays = _reference_to_dict(request.reference)
    return {**{key: getattr(request, key) for key in _OF_MEASUREMENT}, "reference": about}, arrays


def reconstruct_from_message(message: dict[str, Any], arrays: list[np.ndarray]) -> ReconstructRequest:
    """The inverse of ``reconstruct_to_message``; the arrays are taken as they are, not copied."""
    reference = _reference_from_dict(message["reference"], arrays)
    return ReconstructRequest(**{key: message[key] for key in _OF_MEASUREMENT}, reference=reference)


def report_to_message(report: RunReport) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The report as a dictionary, and the arrays of its result.

    Of a segmentation they are [labels], of a classification [saliency map] if there is one, of detections the masks, of
    a reconstruction [values].
    """
    result, counts = report.result, report.counts
    if isinstance(result, Classification):
        about, arrays = {"classification": _classification_to_dict(result)}, []
        if result.saliency is not None:
            arrays.append(result.saliency.values)
    elif isinstance(result, Detections):
        about, arrays = _detections_to_dict(result)
        about = {"detections": about}
    elif isinstance(result, Reconstruction):
        about, arrays = {"reconstruction": _reconstruction_to_dict(result)}, [np.asarray(result.values, np.float32)]
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
    elif "detections" in message:
        result = _detections_from_dict(message["detections"], arrays)
    elif "reconstruction" in message:
        result = _reconstruction_from_dict(message["reconstruction"], arrays[0])
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


def _detections_to_dict(result: Detections) -> tuple[dict[str, Any], list[np.ndarray]]:
    findings, masks = _findings_to_list(result.findings)
    about = {
        "classes": list(result.classes),
        "findings": findings,
        "threshold": float(result.threshold),
        "notes": list(result.notes),
    }
    return about, masks


def _detections_from_dict(about: dict[str, Any], arrays: list[np.ndarray]) -> Detections:
    findings, _ = _findings_from_list(about["findings"], arrays)
    return Detections(tuple(about["classes"]), findings, about["threshold"], tuple(about["notes"]))


def _reconstruction_to_dict(result: Reconstruction) -> dict[str, Any]:
    return {
        "affine": _matrix(result.affine),
        "unit": result.unit,
        "window": None if result.window is None else [float(edge) for edge in result.window],
        "method": result.method,
        "residuals": [float(residual) for residual in result.residuals],
        "notes": list(result.notes),
    }


def _reconstruction_from_dict(about: dict[str, Any], values: np.ndarray) -> Reconstruction:
    window = about["window"]
    return Reconstruction(
        values,
        np.array(about["affine"], dtype=np.float64),
        about["unit"],
        None if window is None else tuple(window),
        about["method"],
        tuple(about["residuals"]),
        tuple(about["notes"]),
    )


def _reference_to_dict(reference: Reference | None) -> tuple[dict[str, Any] | None, list[np.ndarray]]:
    if reference is None:
        return None, []
    if isinstance(reference, ImageReference):
        return {"image": {"affine": _matrix(reference.affine)}}, [np.asarray(reference.values, np.float32)]
    if isinstance(reference, Segmentation):
        return {"segmentation": _segmentation_to_dict(reference)}, [reference.labels]
    about: dict[str, Any] = {"classes": list(reference.classes), "instances": reference.instances is not None}
    arrays: list[np.ndarray] = []
    for name in ("findings", "ignored", "proposals"):
        some = getattr(reference, name)
        about[name], masks = (None, []) if some is None else _findings_to_list(some)
        arrays += masks
    if reference.instances is not None:
        arrays.append(np.asarray(reference.instances))
    return {"findings": about}, arrays


def _reference_from_dict(about: dict[str, Any] | None, arrays: list[np.ndarray]) -> Reference | None:
    if about is None:
        return None
    if "image" in about:
        return ImageReference(arrays[0], np.array(about["image"]["affine"], dtype=np.float64))
    if "segmentation" in about:
        return _segmentation_from_dict(about["segmentation"], arrays[0])
    about, parts = about["findings"], {}
    for name in ("findings", "ignored", "proposals"):
        some, arrays = (None, arrays) if about[name] is None else _findings_from_list(about[name], arrays)
        parts[name] = some
    return FindingReference(tuple(about["classes"]), **parts, instances=arrays[0] if about["instances"] else None)


def _findings_to_list(findings: Sequence[Finding]) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """One dictionary a finding, and the masks of those that have one, 0 or 1, in their order."""
    about = [
        {
            "center": [float(x) for x in one.center],
            "size": [float(x) for x in one.size],
            "label": one.label,
            "score": None if one.score is None else float(one.score),
            "state": one.state,
            "measured_diameter_mm": None if one.measured_diameter_mm is None else float(one.measured_diameter_mm),
            "mask": None if one.mask is None else _matrix(one.mask.affine),
            "synthetic": bool(one.synthetic),
            "about": one.about,
        }
        for one in findings
    ]
    return about, [one.mask.values.astype(np.uint8) for one in findings if one.mask is not None]


def _findings_from_list(
    about: Sequence[dict[str, Any]], arrays: list[np.ndarray]
) -> tuple[tuple[Finding, ...], list[np.ndarray]]:
    """The inverse of ``_findings_to_list``, and the arrays that are left."""
    found, left = [], list(arrays)
    for one in about:
        # Masks are small, and are kept without the memory that they came in.
        mask = None if one["mask"] is None else FindingMask(left.pop(0) != 0, np.array(one["mask"], dtype=np.float64))
        place = {key: tuple(one[key]) for key in ("center", "size")}
        found.append(Finding(**{**one, **place, "mask": mask}))
    return tuple(found), left


def _matrix(affine: np.ndarray) -> list[list[float]]:
    return np.asarray(affine, dtype=np.float64).tolist()


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
