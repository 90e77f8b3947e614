"""Training cases that are nodes of the scene, as a data set in a folder. Nothing that names a patient is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from .case_table import class_of_name

Progress = Callable[[float, str], None]


def export_pairs(pairs: Sequence[tuple], folder: str | Path, progress: Progress | None = None) -> dict[str, dict]:
    """Write (volume node, segmentation or label map node) pairs as an anonymous data set. Returns its labels.

    The folder gets images/case_001.nrrd …, labels/case_001.nrrd …; whole or not at all. Raises InputError.
    """
    from MedMapAILib import mrml
    from MedMapAILib.datasets.scene import write_cases

    def cases():
        for volumeNode, segmentationNode in _told(pairs, progress):
            image = mrml.image_from_node(volumeNode)
            yield image, mrml.segmentation_from_node(segmentationNode, volumeNode)

    return write_cases(cases(), folder)


def export_samples(samples: Sequence[tuple], folder: str | Path, progress: Progress | None = None) -> None:
    """Write (volume node, ROI node or None, class) samples as an anonymous data set with one folder a class.

    Whole or not at all. Raises InputError.
    """
    from MedMapAILib import mrml
    from MedMapAILib.datasets.scene import write_class_cases
    from MedMapAILib.errors import InputError

    def cases():
        for volumeNode, roiNode, name in _told(samples, progress):
            if roiNode is not None and roiNode.IsA("vtkMRMLSegmentationNode"):
                raise InputError(f"{roiNode.GetName()} is a segmentation; for a classification choose an ROI.")
            box = mrml.roi_bounds(roiNode) if roiNode is not None else None
            yield mrml.image_from_node(volumeNode), box, name.strip()

    write_class_cases(cases(), folder)


def export_findings(samples: Sequence[tuple], folder: str | Path, progress: Progress | None = None) -> None:
    """Write (volume node, ROI or segmentation node or None, class) as an anonymous data set, one case a volume.

    Each part of a segmentation is a finding. A volume without any is one in which there is nothing to find. Whole or
    not at all. Raises InputError.
    """
    from MedMapAILib import mrml
    from MedMapAILib.datasets.instances import findings_of_segmentation
    from MedMapAILib.datasets.scene import write_detection_cases
    from MedMapAILib.results import FindingReference

    volumes: dict = {}
    for volumeNode, roiNode, name in samples:
        volumes.setdefault(volumeNode, []).extend([(roiNode, name.strip())] if roiNode is not None else [])
    classes = tuple(dict.fromkeys(name for rois in volumes.values() for _roi, name in rois))

    def cases():
        for volumeNode, rois in _told(list(volumes.items()), progress):
            findings = []
            for node, name in rois:
                if node.IsA("vtkMRMLSegmentationNode"):
                    drawn = mrml.segmentation_from_node(node, volumeNode)
                    findings += findings_of_segmentation(drawn, name, state="reference")
                else:
                    finding = mrml.finding_from_roi(node, (name,))
                    findings.append(dataclasses.replace(finding, label=name, score=None, state="reference"))
            yield mrml.image_from_node(volumeNode), FindingReference(classes, tuple(findings))

    write_detection_cases(cases(), folder)


def export_images(pairs: Sequence[tuple], folder: str | Path, paired: bool, progress: Progress | None = None) -> None:
    """Write (volume node, volume node that it should become or None) as an anonymous data set of a reconstruction.

    paired: with what they should become. Whole or not at all. Raises InputError.
    """
    from MedMapAILib import mrml
    from MedMapAILib.datasets.scene import write_image_cases

    def cases():
        for volumeNode, targetNode in _told(pairs, progress):
            yield mrml.image_from_node(volumeNode), mrml.image_from_node(targetNode) if paired else None

    write_image_cases(cases(), folder)


def new_samples(samples: Sequence[tuple]) -> list[tuple]:
    """Samples for the ROI nodes of the scene that are in none of these (volume node, ROI node, class) yet.

    Their volume is one that they lie in: the one that is shown, else that of the last sample, else any of the scene.
    Their class is the ROI's name without its number, or that of a finding of a model; findings that are hidden
    (rejected, or of too low a score) are left out.
    """
    from MedMapAILib import mrml

    known = {roi for _volume, roi, _name in samples if roi is not None}
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    volumes = [
        *[slicer.mrmlScene.GetNodeByID(view.GetBackgroundVolumeID() or "") for view in views],
        *[volume for volume, _roi, _name in samples][:-2:-1],
        *slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"),
    ]
    rois = [roi for roi in slicer.util.getNodesByClass("vtkMRMLMarkupsROINode") if roi not in known]
    samples = []
    for roi in rois:
        name = class_of_name(roi.GetName())
        if mrml.is_finding(roi):
            if not roi.GetDisplayNode().GetVisibility():
                continue
            name = mrml.finding_from_roi(roi).label
        samples.append((next((volume for volume in volumes if _lies_in(roi, volume)), None), roi, name))
    return samples


def _lies_in(roiNode, volumeNode) -> bool:
    if volumeNode is None or volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        return False
    bounds, center = [0.0] * 6, [0.0] * 3
    volumeNode.GetRASBounds(bounds)
    roiNode.GetCenterWorld(center)
    return all(bounds[2 * axis] <= center[axis] <= bounds[2 * axis + 1] for axis in range(3))


def _told(cases: Sequence[tuple], progress: Progress | None):
    for number, case in enumerate(cases):
        if progress is not None:
            progress(
                number / len(cases),
                _("Reading case {number} of {count}").format(number=number + 1, count=len(cases)),
            )
        yield case
