"""MRML nodes to images, and results to MRML nodes: the only part of this library that knows 3D Slicer.

Voxels cross by memory, never by a file. Arrays of Slicer come as (K, J, I) and are turned around in ``volumes`` and
``oriented_images`` alone. Everything is taken and put where it is in the world: linear parent transforms are part of an
image's affine, non-linear ones are refused.

Works in the Slicer desktop and with the ``slicer`` package of trame-slicer (see ``standalone_scene.py``).
"""

from __future__ import annotations

from .changes import unchanged_on_failure
from .classification import node_from_classification
from .curves import curve_nodes
from .finding_colors import score_color
from .finding_rois import emphasize, finding_from_roi, is_finding, let_edit, mark_finding, rank_of, reset_finding
from .findings import (
    add_finding,
    finding_nodes,
    findings_folder,
    findings_from_nodes,
    findings_table,
    findings_threshold,
    findings_volume,
    is_reviewed,
    nodes_from_detections,
    reference_from_nodes,
    remove_finding,
    set_findings_threshold,
    update_findings,
)
from .geometry import world_matrix
from .history import further_charts, further_columns, history_nodes, update_history
from .reconstructions import (
    composite_nodes,
    fade_compared,
    image_reference_from_node,
    node_from_reconstruction,
    node_from_scores,
    residual_nodes,
    show_compared,
)
from .rois import roi_bounds
from .saliency import node_from_saliency
from .segmentation_nodes import node_from_segmentation
from .segmentation_reading import segmentation_from_node
from .tables import node_from_volumes_table
from .volumes import image_from_node, volume_node_from_image, volume_state, voxels_from_node

__all__ = [
    "add_finding",
    "composite_nodes",
    "curve_nodes",
    "emphasize",
    "fade_compared",
    "finding_from_roi",
    "finding_nodes",
    "findings_folder",
    "findings_from_nodes",
    "findings_table",
    "findings_threshold",
    "findings_volume",
    "further_charts",
    "further_columns",
    "history_nodes",
    "image_from_node",
    "image_reference_from_node",
    "is_finding",
    "is_reviewed",
    "let_edit",
    "mark_finding",
    "node_from_classification",
    "node_from_reconstruction",
    "node_from_saliency",
    "node_from_scores",
    "node_from_segmentation",
    "node_from_volumes_table",
    "nodes_from_detections",
    "rank_of",
    "reference_from_nodes",
    "remove_finding",
    "reset_finding",
    "residual_nodes",
    "roi_bounds",
    "score_color",
    "segmentation_from_node",
    "set_findings_threshold",
    "show_compared",
    "unchanged_on_failure",
    "update_findings",
    "update_history",
    "volume_node_from_image",
    "volume_state",
    "voxels_from_node",
    "world_matrix",
]
