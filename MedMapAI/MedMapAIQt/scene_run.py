"""A run on a volume of the scene: what goes to the model, and where its result belongs, whatever happens meanwhile."""

from __future__ import annotations

import dataclasses

import slicer
from slicer.i18n import tr as _

#: How the table of a classification refers to the saliency map that belongs to it.
SALIENCY_ROLE = "saliencyMap"


class SceneRun:
    """A run that was asked for. Made before it, and asked to ``place`` the result after it.

    ``voxels``, ``affine``, ``notes``: see ``mrml.voxels_from_node``. ``roi``: center and size, RAS mm, or None.
    ``model``: BundleInfo. ``reference``: Segmentation on the volume's grid, for a model that detects the findings that
    a table node belongs to, for one that makes images an ImageReference, or None. ``saliency``: by which method a
    classifier shows where it looked; None otherwise.
    Raises InputError for what the model cannot be run on; nothing is changed then.
    """

    def __init__(self, volumeNode, modelName, roiNode, referenceNode, outputNode, saliency=None):
        from MedMapAILib import mrml
        from MedMapAILib.bundle import read_info
        from MedMapAILib.errors import InputError
        from MedMapAILib.image import check_not_constant

        if referenceNode is not None and referenceNode == outputNode:
            raise InputError(_("The output would replace the reference; choose another output."))
        self.voxels, self.affine, self.notes = mrml.voxels_from_node(volumeNode)
        check_not_constant(self.voxels, f"The volume {volumeNode.GetName()}")
        self.roi = mrml.roi_bounds(roiNode) if roiNode is not None else None
        self.model = read_info(modelName)
        self.classifies = self.model.task == "classification"
        self.detects = self.model.task == "detection"
        self.reconstructs = self.model.task == "reconstruction"
        self.saliency = saliency if self.classifies else None
        self.reference = None
        if referenceNode is not None and self.detects:
            if not mrml.findings_folder(referenceNode):
                raise InputError(
                    _("The reference {name} is no table of findings; choose one, or none.").format(
                        name=referenceNode.GetName()
                    )
                )
            self.reference = mrml.reference_from_nodes(mrml.findings_folder(referenceNode))
        elif referenceNode is not None and self.reconstructs:
            self.reference = mrml.image_reference_from_node(referenceNode, volumeNode)
        elif referenceNode is not None and not self.classifies:
            self.reference = mrml.segmentation_from_node(referenceNode, volumeNode, self.model.segments)
        wanted, kind = {
            "classification": ("vtkMRMLTableNode", _("a table")),
            "detection": ("vtkMRMLTableNode", _("a table")),
            "reconstruction": ("vtkMRMLScalarVolumeNode", _("a volume")),
        }.get(self.model.task, ("vtkMRMLSegmentationNode", _("a segmentation")))
        if outputNode is not None and not outputNode.IsA(wanted):
            raise InputError(
                _("The result of {model} needs {kind} as output; {name} is none.").format(
                    model=self.model.name, kind=kind, name=outputNode.GetName()
                )
            )
        if outputNode is not None and outputNode == volumeNode:
            raise InputError(_("The output would replace the input volume; choose another output."))
        self.volumeNode, self.volumeName, self.outputNode = volumeNode, volumeNode.GetName(), outputNode
        self._world, self._state = mrml.world_matrix(volumeNode), mrml.volume_state(volumeNode)

    def volumeIsGone(self):
        return self.volumeNode.GetScene() is None

    def place(self, result):
        """Put a result into the scene. Returns its node, and the result with notes on what changed meanwhile.

        A segmentation becomes a segmentation node; a classification a table node, which refers to the volume node of
        its saliency map (``saliency_node``); findings a folder of ROI nodes with a table node, which is returned
        (``mrml.findings_folder``); an image that was made a volume node, in one step that can be undone. A volume that
        was moved takes the result along. Of one with another grid, the result stays where the volume was in the world;
        an output node that was removed is replaced by a new one.
        """
        from MedMapAILib import mrml

        sameGrid, sameVoxels = (
            old == new for old, new in zip(self._state, mrml.volume_state(self.volumeNode), strict=True)
        )
        if not (sameGrid and sameVoxels):
            note = _("The volume was changed while the model ran; the result is that of the volume as it was.")
            result = dataclasses.replace(result, notes=(*result.notes, note))
        outputNode = self.outputNode
        if outputNode is not None and outputNode.GetScene() is None:
            outputNode = None
        name = outputNode.GetName() if outputNode is not None else f"{self.volumeName} {self.model.name}"
        where = {
            "referenceVolumeNode": self.volumeNode if sameGrid else None,
            "world": self._world if sameGrid else None,
        }
        if self.detects:
            return _place_findings(result, name, outputNode, where)
        if self.classifies:
            return _place_classification(result, name, outputNode, where), result
        if self.reconstructs:
            return place_image(result, name, outputNode, **where), result
        return mrml.node_from_segmentation(result, name=name, node=outputNode, **where), result


def saliency_node(tableNode):
    """The volume node with the saliency map of a classification's table, or None."""
    return tableNode.GetNodeReference(SALIENCY_ROLE) if tableNode is not None else None


def place_image(result, name, volumeNode=None, **where):
    """The volume node of a Reconstruction, in one step that can be undone where Slicer's undo is on."""
    from MedMapAILib import mrml

    slicer.mrmlScene.SaveStateForUndo()
    return mrml.node_from_reconstruction(result, name=name, node=volumeNode, **where)


def _place_classification(result, name, tableNode, where):
    """The table node of a classification; its saliency map replaces that of the result that the table held before."""
    from MedMapAILib import mrml

    old = saliency_node(tableNode)
    with mrml.unchanged_on_failure() as scene:
        new = None
        if result.saliency is not None:
            new = mrml.node_from_saliency(result.saliency, name=f"{name} saliency", node=old, **where)
        tableNode = mrml.node_from_classification(result, name=name, node=tableNode)
        tableNode.SetNodeReferenceID(SALIENCY_ROLE, new.GetID() if new is not None else None)
    if old is not None and new is None:
        scene.RemoveNode(old)
    return tableNode


def _place_findings(result, name, tableNode, where):
    """The table node of the findings, and the result; what a reader has reviewed already is kept beside it."""
    from MedMapAILib import mrml

    folder = mrml.findings_folder(tableNode)
    if folder and mrml.is_reviewed(folder):
        note = _("The findings that were reviewed before are kept in the folder {name}.")
        note = note.format(name=tableNode.GetName())
        result, folder = dataclasses.replace(result, notes=(*result.notes, note)), 0
        name = slicer.mrmlScene.GenerateUniqueName(name)
    volumeNode, world = where["referenceVolumeNode"], where["world"]
    folder = mrml.nodes_from_detections(result, volumeNode, name=name, folder=folder, world=world)
    return mrml.findings_table(folder), result
