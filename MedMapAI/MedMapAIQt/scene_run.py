"""A run on a volume of the scene: what goes to the model, and where its result belongs, whatever happens meanwhile."""

from __future__ import annotations

import dataclasses

from slicer.i18n import tr as _


class SceneRun:
    """A run that was asked for. Made before it, and asked to ``place`` the result after it.

    ``voxels``, ``affine``, ``notes``: see ``mrml.voxels_from_node``. ``roi``: center and size, RAS mm, or None.
    ``model``: BundleInfo. ``reference``: Segmentation on the volume's grid, or None.
    Raises InputError for what the model cannot be run on; nothing is changed then.
    """

    def __init__(self, volumeNode, modelName, roiNode, referenceNode, outputNode):
        from MedMapAILib import mrml
        from MedMapAILib.bundle import read_info
        from MedMapAILib.errors import InputError
        from MedMapAILib.image import check_not_constant

        if referenceNode is not None and referenceNode == outputNode:
            raise InputError(_("The output would replace the reference; choose another output segmentation."))
        self.voxels, self.affine, self.notes = mrml.voxels_from_node(volumeNode)
        check_not_constant(self.voxels, f"The volume {volumeNode.GetName()}")
        self.roi = mrml.roi_bounds(roiNode) if roiNode is not None else None
        self.model = read_info(modelName)
        self.reference = None
        if referenceNode is not None:
            self.reference = mrml.segmentation_from_node(referenceNode, volumeNode, self.model.segments)
        self.volumeNode, self.volumeName, self.outputNode = volumeNode, volumeNode.GetName(), outputNode
        self._world, self._state = mrml.world_matrix(volumeNode), mrml.volume_state(volumeNode)

    def volumeIsGone(self):
        return self.volumeNode.GetScene() is None

    def place(self, segmentation):
        """Put a result into the scene. Returns its node, and the segmentation with notes on what changed meanwhile.

        A volume that was moved takes the result along. Of one with another grid, the result stays where the volume was
        in the world; an output segmentation that was removed is replaced by a new one.
        """
        from MedMapAILib import mrml

        sameGrid, sameVoxels = (
            old == new for old, new in zip(self._state, mrml.volume_state(self.volumeNode), strict=True)
        )
        if not (sameGrid and sameVoxels):
            note = _("The volume was changed while the model ran; the result is that of the volume as it was.")
            segmentation = dataclasses.replace(segmentation, notes=(*segmentation.notes, note))
        outputNode = self.outputNode
        if outputNode is not None and outputNode.GetScene() is None:
            outputNode = None
        node = mrml.node_from_segmentation(
            segmentation,
            name=outputNode.GetName() if outputNode is not None else f"{self.volumeName} {self.model.name}",
            referenceVolumeNode=self.volumeNode if sameGrid else None,
            node=outputNode,
            world=self._world if sameGrid else None,
        )
        return node, segmentation
