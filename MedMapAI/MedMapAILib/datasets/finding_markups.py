"""Findings as Slicer's markups: one ROI a finding, in a .mrk.json file, which is in LPS mm and says so.

The form is Slicer's markups schema 1.0.3
(https://github.com/Slicer/Slicer/blob/main/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..results import Detections, Finding, FindingReference
from .finding_geometry import box_after

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
_LPS = (-1.0, -1.0, 1.0)
#: Columns: the axes of the box in LPS; along the patient's right, anterior and superior.
_ALONG_RAS = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0]


def to_markups(result: Detections | FindingReference) -> dict[str, Any]:
    """The content of a .mrk.json file: one ROI a finding, named with rank, class, score, diameter and "synthetic".

    What else is known of a finding is JSON in the description of its control point, which Slicer keeps. ROIs of
    findings that were rejected or lie below the operating point are hidden.
    """
    called = set(map(id, result.called if isinstance(result, Detections) else result.findings))
    return {
        "@schema": _SCHEMA,
        "markups": [_roi(number, f, id(f) in called) for number, f in enumerate(result.findings, start=1)],
    }


def from_markups(content: Mapping[str, Any], path: Path, classes: Sequence[str] | None) -> FindingReference:
    """The boxes of a .mrk.json file, of ours or drawn by hand, as findings with state "reference".

    A ROI that does not say its class is of the only one of ``classes``, else a "finding". A turned box becomes the box
    along the patient's axes round the ellipsoid in it. What was rejected or not called is left out. Raises InputError
    where it holds something else than boxes.
    """
    findings = []
    for number, markup in enumerate(content["markups"], start=1):
        if not isinstance(markup, dict) or markup.get("type") != "ROI":
            raise InputError(f"Markup {number} of {path} is no ROI; save the findings as boxes (ROI).")
        try:
            about = _about(markup)
            turn = np.diag([*(_LPS if markup.get("coordinateSystem", "LPS") == "LPS" else (1.0,) * 3), 1.0])
            axes = np.eye(4)
            axes[:3, :3] = np.reshape(markup.get("orientation") or _ALONG_RAS, (3, 3))
            axes[:3, 3] = markup["center"]
            center, size = box_after((0, 0, 0), markup["size"], turn @ axes)
            if about.get("state") == "rejected" or not about.get("called", True):
                continue
            only = classes[0] if classes and len(classes) == 1 else "finding"
            findings.append(
                Finding(
                    tuple(center),
                    tuple(size),
                    str(about.get("class") or only),
                    about.get("score"),
                    "reference",
                    about.get("measured_diameter_mm"),
                    synthetic=bool(about.get("synthetic", False)),
                    about=about.get("about"),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"Markup {number} of {path} cannot be read ({error}); correct it.") from None
    names = tuple(classes or sorted({finding.label for finding in findings})) or ("finding",)
    return FindingReference(names, tuple(findings))


def finding_name(number: int, finding: Finding) -> str:
    """What a finding is called in the scene: "1 nodule 0.93 8.4 mm", with "synthetic" where it was put in."""
    score = "" if finding.score is None else f" {finding.score:.2f}"
    return f"{number} {finding.label}{score} {finding.diameter_mm:.1f} mm{' synthetic' if finding.synthetic else ''}"


def _roi(number: int, finding: Finding, called: bool) -> dict[str, Any]:
    center = [turn * value for turn, value in zip(_LPS, finding.center, strict=True)]
    name = finding_name(number, finding)
    about = {
        "class": finding.label,
        "score": finding.score,
        "diameter_mm": round(finding.diameter_mm, 3),
        "measured_diameter_mm": finding.measured_diameter_mm,
        "state": finding.state,
        "called": called,
        "synthetic": finding.synthetic,
    } | ({"about": finding.about} if finding.about else {})
    return {
        "type": "ROI",
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N",
        "roiType": "Box",
        "center": center,
        "orientation": _ALONG_RAS,
        "size": list(finding.size),
        "insideOut": False,
        "controlPoints": [
            {
                "id": "1",
                "label": name,
                "description": json.dumps(about, ensure_ascii=False),
                "associatedNodeID": "",
                "position": center,
                "orientation": _ALONG_RAS,
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "defined",
            }
        ],
        "display": {"visibility": called, "opacity": 1.0, "fillVisibility": False},
    }


def _about(markup: Mapping[str, Any]) -> dict[str, Any]:
    points = markup.get("controlPoints") or [{}]
    try:
        about = json.loads(points[0].get("description") or "{}")
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}
