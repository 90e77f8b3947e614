"""One finding as a markups ROI node: made, read back as the reader left it, and marked with what the reader says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..results import STATES, Finding
from .finding_colors import score_color
from .geometry import array_of_matrix, matrix_of_array, name_of, world_matrix
from .rois import roi_bounds

#: Node attributes, which are saved with the scene: what was found and where (JSON), what the reader says of it, its
#: class, and which segment has its voxels.
FINDING, STATE, CLASS, SEGMENT = (f"MedMapAI.{name}" for name in ("Finding", "State", "Class", "Segment"))
#: mm; by less no reader moves a box, and files round by less.
_MOVED = 1e-3
#: Of lines, as a part of the size of a glyph.
_BOLD_LINE, _LINE = 0.4, 0.2


def roi_from_finding(scene: Any, finding: Finding, rank: int, world: np.ndarray, parent: Any) -> Any:
    """A markups ROI node, locked, in the scene. rank: from 1. world: 4x4, of the transform node ``parent`` (or None).

    The box lies along the patient's axes where ``finding`` has it in the world.
    """
    matrix = np.linalg.inv(world)
    matrix[:3, 3] = (matrix @ [*finding.center, 1.0])[:3]
    # Scale is in the size: where a transform is hardened, Slicer takes the axes of the box for unit vectors.
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    matrix[:3, :3] /= lengths
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", finding_name(finding, rank))
    node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
    node.SetAndObserveObjectToNodeMatrix(matrix_of_array(matrix))
    node.SetSize(*(lengths * finding.size))
    _remember(node, finding, rank, world)
    display = node.GetDisplayNode()
    if display is None:
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
    _dress(display, finding)
    let_edit(node, False)
    return node


def is_finding(node: Any) -> bool:
    """Whether a node is an ROI that stands for a finding of a model, or that was added to those."""
    return node is not None and node.IsA("vtkMRMLMarkupsROINode") and node.GetAttribute(FINDING) is not None


def finding_from_roi(node: Any, classes: Sequence[str] = ()) -> Finding:
    """The finding that an ROI node stands for, as the reader left it and without its mask, RAS mm.

    Moved, resized or of another class it is "corrected" (unless rejected or added); resized, it has no measured
    diameter any more. An ROI that the reader drew is "added", of the class that is in its name, or of the first of
    ``classes``. Raises InputError for one without a size, and under a non-linear transform.
    """
    if not is_finding(node):
        center, size = roi_bounds(node)
        return Finding(center, size, _class_in(node.GetName() or "", classes), state="added")
    known = json.loads(node.GetAttribute(FINDING))
    moved, resized = _changes(node, known)
    # The numbers of the model to the last digit, where nothing was moved.
    same = not moved and np.allclose(known["world"], world_matrix(node), rtol=0, atol=1e-9)
    center, size = (known["center"], known["size"]) if same else roi_bounds(node)
    label = node.GetAttribute(CLASS) or known["label"]
    state = node.GetAttribute(STATE) or "found"
    if state not in STATES:
        raise InputError(f"{name_of(node)} has the unknown state {state!r}; mark the finding again.")
    if state in ("found", "accepted") and (moved or label != known["label"]):
        state = "corrected"
    return Finding(
        tuple(center),
        tuple(size),
        label,
        score=known["score"],
        state=state,
        measured_diameter_mm=None if resized else known["diameter"],
        synthetic=known["synthetic"],
        about=known["about"],
    )


def box_was_changed(node: Any) -> bool:
    """Whether a finding was moved or resized since it was put into the scene."""
    return is_finding(node) and _changes(node, json.loads(node.GetAttribute(FINDING)))[0]


def rank_of(node: Any) -> int:
    """The rank of a finding's node, from 1; 0 for one that the reader drew."""
    return int(json.loads(node.GetAttribute(FINDING))["rank"]) if is_finding(node) else 0


def mark_finding(node: Any, state: str | None = None, label: str | None = None) -> None:
    """Write what the reader says of a finding: "found" (nothing), "accepted" or "rejected"; and its class."""
    if state is not None:
        node.SetAttribute(STATE, state)
    if label is not None:
        node.SetAttribute(CLASS, label)


def adopt_roi(node: Any, finding: Finding, rank: int) -> None:
    """Make an ROI node that the reader drew or placed one of the findings."""
    _remember(node, finding, rank, world_matrix(node))
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    _dress(node.GetDisplayNode(), finding)
    node.SetName(finding_name(finding, rank))


def reset_finding(node: Any) -> None:
    """Put a finding back to where the model found it, of the model's class, with nothing said about it."""
    known = json.loads(node.GetAttribute(FINDING))
    placed = known["placed"]
    node.SetAndObserveObjectToNodeMatrix(matrix_of_array(np.array(placed["matrix"])))
    node.SetSize(*placed["size"])
    node.SetAttribute(STATE, known["state"])
    node.SetAttribute(CLASS, known["label"])


def let_edit(node: Any, on: bool) -> None:
    """Let a finding be moved and resized in the views, with handles; or keep it from being moved by accident."""
    node.SetLocked(not on)
    display = node.GetDisplayNode()
    if display is not None:
        display.SetHandlesInteractive(on)
        for part in ("Translation", "Scale"):
            getattr(display, f"Set{part}HandleVisibility")(on)
        display.SetRotationHandleVisibility(False)


def emphasize(node: Any, on: bool) -> None:
    """Draw the box of the chosen finding with a thicker line than the others."""
    display = node.GetDisplayNode()
    if display is not None:
        display.SetLineThickness(_BOLD_LINE if on else _LINE)


def finding_name(finding: Finding, rank: int) -> str:
    """ "1 nodule 0.93 8.4 mm", without a score where there is none, and with what has to be known of it."""
    score = [] if finding.score is None else [f"{finding.score:.2f}"]
    return " ".join(
        [
            str(rank), finding.label, *score, f"{finding.diameter_mm:.1f} mm",
            *(["transplanted"] if finding.synthetic else []),
        ]
    )  # fmt: skip


def rename(node: Any, finding: Finding) -> None:
    """Let a node's name say what is true now, unless somebody gave it another name."""
    known = json.loads(node.GetAttribute(FINDING))
    if node.GetName() == known["name"]:
        known["name"] = finding_name(finding, known["rank"])
        if known["name"] != node.GetName():
            node.SetName(known["name"])
            node.SetAttribute(FINDING, _text(known))


def _remember(node: Any, finding: Finding, rank: int, world: np.ndarray) -> None:
    known = {
        "rank": rank,
        "name": finding_name(finding, rank),
        "label": finding.label,
        "score": None if finding.score is None else float(finding.score),
        "state": finding.state,
        "diameter": finding.measured_diameter_mm,
        "synthetic": bool(finding.synthetic),
        "about": finding.about,
        "center": finding.center,
        "size": finding.size,
        "world": np.asarray(world).tolist(),
        "placed": {"matrix": _object_matrix(node).tolist(), "size": list(node.GetSize())},
    }
    node.SetAttribute(FINDING, _text(known))
    node.SetAttribute(STATE, finding.state)
    node.SetAttribute(CLASS, finding.label)


def _text(known: dict) -> str:
    # ASCII: attributes of a scene's file lose other characters on some systems.
    return json.dumps(known, ensure_ascii=True)


def _object_matrix(node: Any) -> np.ndarray:
    return array_of_matrix(node.GetObjectToNodeMatrix())


def _changes(node: Any, known: dict) -> tuple[bool, bool]:
    """Whether the box was moved, turned or resized since it was placed; and whether its size is another one.

    Under a transform it moves with the scan, which is no change. A transform that was hardened leaves the box where it
    is in the world, which is none either.
    """
    center, size = roi_bounds(node)
    if np.allclose(center, known["center"], rtol=0, atol=_MOVED) and np.allclose(
        size, known["size"], rtol=0, atol=_MOVED
    ):
        return False, False
    placed = known["placed"]
    then, now = np.array(placed["matrix"]), _object_matrix(node)
    sizes = np.abs(np.subtract(placed["size"], node.GetSize())).max()
    turned = np.abs(then[:3, :3] - now[:3, :3]).max() * max(placed["size"])
    shifted = np.abs(then[:3, 3] - now[:3, 3]).max()
    resized = bool(max(sizes, turned) > _MOVED)
    return resized or bool(shifted > _MOVED), resized


def _class_in(name: str, classes: Sequence[str]) -> str:
    words = name.lower()
    for each in sorted(classes, key=len, reverse=True):
        if each.lower() in words:
            return each
    return classes[0] if classes else "finding"


def _dress(display: Any, finding: Finding) -> None:
    """Color, and no filling: it would cover what is found."""
    color = score_color(finding.score)
    display.SetSelectedColor(*color)
    display.SetColor(*color)
    display.SetFillVisibility(False)
    display.SetFillOpacity(0.0)
    display.SetOutlineOpacity(1.0)
    # Names would begin in the middle of the box, on what is to be looked at; the table says which is which.
    display.SetPropertiesLabelVisibility(False)
    display.SetPointLabelsVisibility(False)
    display.SetGlyphScale(1.0)
    display.SetLineThickness(_LINE)
