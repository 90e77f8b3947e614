"""Detections as nodes: one ROI a finding in a folder beside the scan, with a table; and back, as the reader left them.

The folder is known by its item in the subject hierarchy, which is another number after a scene was saved and loaded;
the table node in it stays (``findings_folder``, ``findings_table``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..results import Detections, Finding, FindingReference
from .changes import unchanged_on_failure
from .finding_masks import mask_of, masks_node, remove_mask, show_mask
from .finding_rois import (
    STATE,
    adopt_roi,
    box_was_changed,
    finding_from_roi,
    is_finding,
    let_edit,
    rank_of,
    rename,
    roi_from_finding,
)
from .folders import folder_beside, folder_of, hierarchy, nodes_in, put_into, remove_node
from .geometry import world_matrix
from .tables import column, fill

_ROI, _TABLE, _SEGMENTATION = "vtkMRMLMarkupsROINode", "vtkMRMLTableNode", "vtkMRMLSegmentationNode"
#: On the table node: what the result says besides its findings (JSON), and the operating point.
_RESULT, _THRESHOLD = "MedMapAI.Findings", "MedMapAI.Threshold"
#: How the table node refers to the scan.
_SCAN = "findingsVolume"
#: Said by a reader.
_REVIEWED = ("accepted", "rejected", "corrected", "added")
#: What a reader adds is so large where nothing else is known, mm.
_ADDED_SIZE = 10.0


def nodes_from_detections(
    result: Detections, volumeNode: Any, *, name: str, folder: int = 0, world: np.ndarray | None = None
) -> int:
    """The findings as markups ROI nodes in a subject-hierarchy folder beside the scan. Returns the folder's item.

    Each ROI is named with rank, class, score and diameter ("1 nodule 0.93 8.4 mm"), colored by its score, locked, shown
    where it is called, and lies under the transform of ``volumeNode`` (None: under none), with the box where the result
    has it in the world. ``world``: the :func:`world_matrix` of that volume when the result was made, by default now. In
    the folder there is a table node with all findings, and a segmentation node where findings have masks. ``folder``:
    the item of an older result, whose nodes are replaced. Where it fails the scene is as before.
    """
    if volumeNode is None:
        parent, world = None, np.eye(4)
    else:
        parent = volumeNode.GetParentTransformNode()
        world = world_matrix(volumeNode) if world is None else world
    old = [node for node in nodes_in(folder, _ROI) if is_finding(node)] if folder else []
    table = findings_table(folder)
    old += [node for node in [_masks(table)] if node is not None]
    about = {"classes": result.classes, "notes": result.notes}
    with unchanged_on_failure() as scene:
        rois = [roi_from_finding(scene, one, n, world, parent) for n, one in enumerate(result.findings, start=1)]
        masks = masks_node(scene, result.findings, rois, f"{name} masks", volumeNode, world)
        if table is None:
            table = scene.AddNewNodeByClass(_TABLE, name)
        folder = folder or folder_beside(volumeNode, name)
        put_into(folder, [table, *rois, *([masks] if masks is not None else [])])
        found = list(zip(rois, result.findings, strict=True))
        _show_called(found, result.threshold, masks)
        _fill_table(table, found, result.threshold)
    # Nothing fails from here on.
    table.SetName(name)
    table.SetNodeReferenceID(_SCAN, volumeNode.GetID() if volumeNode is not None else None)
    table.SetAttribute(_RESULT, json.dumps(about, ensure_ascii=True))
    table.SetAttribute(_THRESHOLD, repr(float(result.threshold)))
    table.SetDescription(" ".join(["Research use only.", *result.notes]))
    for node in old:
        remove_node(node)
    hierarchy().SetItemName(folder, name)
    return folder


def findings_table(folder: int) -> Any:
    """The table node of a folder of findings; None where there is none."""
    tables = nodes_in(folder, _TABLE) if folder else []
    return next((node for node in tables if node.GetAttribute(_RESULT) is not None), None)


def findings_folder(tableNode: Any) -> int:
    """The item of the folder of findings that a table node belongs to; 0 where it belongs to none."""
    has_findings = tableNode is not None and tableNode.GetAttribute(_RESULT) is not None
    return folder_of(tableNode) if has_findings else 0


def findings_volume(folder: int) -> Any:
    """The volume node that findings are of; None where it is gone."""
    table = findings_table(folder)
    return table.GetNodeReference(_SCAN) if table is not None else None


def finding_nodes(folder: int) -> list[tuple[Any, Finding]]:
    """(ROI node, finding as the reader left it), by rank; ROI nodes that the reader put into the folder come last.

    Raises InputError where an ROI has no size, or is under a non-linear transform.
    """
    table = _table_of(folder)
    classes, masks = json.loads(table.GetAttribute(_RESULT))["classes"], _masks(table)
    found = []
    for node in sorted(nodes_in(folder, _ROI), key=lambda roi: rank_of(roi) or np.inf):
        finding = finding_from_roi(node, classes)
        mask = mask_of(masks, node)
        # A box that the reader moved is not the box of the network's voxels any more.
        if mask is not None and not box_was_changed(node):
            finding = replace(finding, mask=mask)
        found.append((node, finding))
    return found


def findings_from_nodes(folder: int) -> Detections:
    """All findings of a folder as the reader left them, at the operating point that is set.

    Their states: found, accepted, rejected, corrected (moved, resized, of another class) or added. Raises InputError
    for a folder without findings.
    """
    table = _table_of(folder)
    about = json.loads(table.GetAttribute(_RESULT))
    findings = tuple(finding for _, finding in finding_nodes(folder))
    return Detections(tuple(about["classes"]), findings, findings_threshold(folder), tuple(about["notes"]))


def reference_from_nodes(folder: int) -> FindingReference:
    """What is called in a folder of findings, as what the scan really holds; what was rejected is left out."""
    result = findings_from_nodes(folder)
    return FindingReference(result.classes, tuple(replace(one, state="reference") for one in result.called))


def findings_threshold(folder: int) -> float:
    """The operating point of a folder of findings."""
    return float(_table_of(folder).GetAttribute(_THRESHOLD))


def set_findings_threshold(folder: int, threshold: float) -> None:
    """Show what scores at least so much, and what the reader said is there; hide the rest. Nothing is run again."""
    _table_of(folder).SetAttribute(_THRESHOLD, repr(float(threshold)))
    update_findings(folder)


def is_reviewed(folder: int) -> bool:
    """Whether a reader said anything in a folder of findings, so that it must not be lost."""
    return any(finding.state in _REVIEWED for _, finding in finding_nodes(folder))


def add_finding(
    folder: int, center: Sequence[float], label: str | None = None, size: Sequence[float] | None = None
) -> Any:
    """Add an ROI node for what the reader sees and the model did not.

    center: RAS mm. label: its class, by default the first. size: its sides, mm, by default 10 each. It can be
    moved and resized at once. Returns the node.
    """
    table = _table_of(folder)
    classes = json.loads(table.GetAttribute(_RESULT))["classes"]
    size = (_ADDED_SIZE,) * 3 if size is None else size
    finding = Finding(tuple(center), tuple(size), label or classes[0], state="added")
    volume = findings_volume(folder)
    world = world_matrix(volume) if volume is not None else np.eye(4)
    with unchanged_on_failure() as scene:
        rank = 1 + max((rank_of(node) for node in nodes_in(folder, _ROI)), default=0)
        parent = volume.GetParentTransformNode() if volume is not None else None
        node = roi_from_finding(scene, finding, rank, world, parent)
        put_into(folder, [node])
        let_edit(node, True)
    update_findings(folder)
    return node


def remove_finding(folder: int, roiNode: Any) -> None:
    """Take a finding out of the scene, with its mask."""
    remove_mask(_masks(findings_table(folder)), roiNode)
    remove_node(roiNode)
    update_findings(folder)


def update_findings(folder: int) -> list[tuple[Any, Finding]]:
    """Bring names, states, what is shown, and the table to what the reader did. Returns :func:`finding_nodes`.

    ROI nodes that the reader put into the folder become findings of the state "added".
    """
    table, threshold = _table_of(folder), findings_threshold(folder)
    found = finding_nodes(folder)
    for node, finding in found:
        if not is_finding(node):
            adopt_roi(node, finding, 1 + max(rank_of(one) for one, _ in found))
        if node.GetAttribute(STATE) != finding.state:
            node.SetAttribute(STATE, finding.state)
        rename(node, finding)
    _show_called(found, threshold, _masks(table))
    _fill_table(table, found, threshold)
    return found


def _show_called(found: Sequence[tuple[Any, Finding]], threshold: float, masks: Any) -> None:
    for node, finding in found:
        shown = _is_called(finding, threshold)
        _show(node, shown)
        show_mask(masks, node, shown and finding.mask is not None)


def _is_called(finding: Finding, threshold: float) -> bool:
    return bool(Detections((finding.label,), (finding,), threshold).called)


def _show(node: Any, on: bool) -> None:
    display = node.GetDisplayNode()
    if display is not None and bool(display.GetVisibility()) != on:
        display.SetVisibility(on)


def _fill_table(table: Any, found: Sequence[tuple[Any, Finding]], threshold: float) -> None:
    findings = [finding for _, finding in found]
    fill(
        table,
        [
            column("whole", "Rank", [rank_of(node) for node, _ in found]),
            column("text", "Class", [one.label for one in findings]),
            column("text", "Score", ["" if one.score is None else f"{one.score:.4f}" for one in findings]),
            column("number", "Diameter (mm)", [round(one.diameter_mm, 2) for one in findings]),
            column("number", "Volume (mL)", [round(one.volume_ml, 4) for one in findings]),
            *[
                column("number", f"{axis} (RAS mm)", [round(one.center[n], 2) for one in findings])
                for n, axis in enumerate("RAS")
            ],
            column("text", "State", [one.state for one in findings]),
            column(
                "text", "Called",
                ["yes" if _is_called(one, threshold) else "no" for one in findings],
            ),
            column("text", "Transplanted", ["yes" if one.synthetic else "no" for one in findings]),
        ],
    )  # fmt: skip


def _masks(table: Any) -> Any:
    nodes = nodes_in(folder_of(table), _SEGMENTATION) if table is not None else []
    return nodes[0] if nodes else None


def _table_of(folder: int) -> Any:
    table = findings_table(folder)
    if table is None:
        raise InputError("This folder has no table of findings (it was deleted or moved out); run the model again.")
    return table
