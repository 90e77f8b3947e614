"""What a task answers: frozen dataclasses in RAS mm, with no node, no tensor and no callback inside. One a file."""

from __future__ import annotations

from .classification import (
    KINDS,
    Classes,
    Classification,
    ClassReference,
    Familiarity,
    Saliency,
    check_writable_classification,
    write_classification,
)
from .detection import (
    STATES,
    Detections,
    Finding,
    FindingClasses,
    FindingMask,
    FindingReference,
    finding_of_sphere,
)
from .reconstruction import DOMAINS, ImageKind, ImageReference, Reconstruction
from .segmentation import (
    Segment,
    Segmentation,
    check_writable_segmentation,
    color_of,
    declared_labels,
    label_type,
    on_grid,
    read_segmentation,
    terminology_entry,
    unique_names,
    whole_labels,
    write_segmentation,
)

__all__ = [
    "DOMAINS",
    "KINDS",
    "STATES",
    "ClassReference",
    "Classes",
    "Classification",
    "Detections",
    "Familiarity",
    "Finding",
    "FindingClasses",
    "FindingMask",
    "FindingReference",
    "ImageKind",
    "ImageReference",
    "Reconstruction",
    "Saliency",
    "Segment",
    "Segmentation",
    "check_writable_classification",
    "check_writable_segmentation",
    "color_of",
    "declared_labels",
    "finding_of_sphere",
    "label_type",
    "on_grid",
    "read_segmentation",
    "terminology_entry",
    "unique_names",
    "whole_labels",
    "write_classification",
    "write_segmentation",
]
