"""Runs inside Slicer (slicer_add_python_unittest): the module MedMapAI, on volumes made here."""

import importlib.util
import time
import unittest

import numpy as np
import slicer
import vtk

HAVE_TORCH = all(importlib.util.find_spec(name) is not None for name in ("torch", "monai", "nibabel"))
NO_TORCH = "PyTorch, MONAI or nibabel is not installed in this Slicer: press Apply in the module to install them"


def blobVolume(name="Blob", shape=(34, 48, 36)):
    """A volume node (K, J, I) with a bright blob off its middle on a noisy ground, 1 mm."""
    k, j, i = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    noise = np.random.default_rng(0).normal(0, 3, shape)
    array = 100 * np.exp(-((i - 0.2) ** 2 + j**2 + k**2) / 0.3) + noise
    return slicer.util.addVolumeFromArray(array.astype(np.float32), name=name)


class MedMapAISelfTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear()
        self.widget = slicer.util.getModuleWidget("MedMapAI")
        self.widget.enter()

    def tearDown(self):
        self.widget.logic.shutDown()
        self.widget.exit()
        slicer.mrmlScene.Clear()

    def test_openPanelSaysWhatIsMissing(self):
        self.assertFalse(self.widget.ui.applyButton.enabled)
        self.assertIn("volume", self.widget.ui.statusLabel.text)

    def test_firstVolumeIsChosenAndKeptInTheParameterNode(self):
        volumeNode = blobVolume()
        self.widget.exit()
        self.widget.enter()
        self.assertEqual(self.widget.ui.inputSelector.currentNode(), volumeNode)
        self.assertEqual(self.widget.logic.getParameterNode().inputVolume, volumeNode)

    def test_panelOutlivesItsScene(self):
        blobVolume()
        slicer.mrmlScene.Clear()
        self.widget.enter()
        self.assertIsNone(self.widget.ui.inputSelector.currentNode())
        self.assertFalse(self.widget.ui.applyButton.enabled)

    def test_reload(self):
        self.widget.onReload()
        # The panel that is there now is another one.
        self.widget = slicer.util.getModuleWidget("MedMapAI")
        self.widget.enter()
        self.assertFalse(self.widget.ui.applyButton.enabled)

    def test_regionIsLaidRoundTheVolume(self):
        volumeNode = blobVolume()
        roiNode = self.widget.logic.fitRoi(volumeNode)
        bounds, wanted = [0.0] * 6, [0.0] * 6
        roiNode.GetRASBounds(bounds)
        volumeNode.GetRASBounds(wanted)
        np.testing.assert_allclose(bounds, wanted, atol=1e-6)

    def test_aColorPictureHasThreeChannels(self):
        from MedMapAILib import mrml

        colors = np.random.default_rng(0).integers(0, 255, (1, 6, 5, 3), dtype=np.uint8)
        pictureNode = slicer.util.addVolumeFromArray(
            colors, np.diag([-1.0, -1, 1, 1]), "Picture", "vtkMRMLVectorVolumeNode"
        )
        voxels, _affine, _notes = mrml.voxels_from_node(pictureNode)
        np.testing.assert_array_equal(voxels, colors.transpose(3, 2, 1, 0))
        parameterNode = self.widget.logic.getParameterNode()
        parameterNode.inputVolume = pictureNode
        self.assertEqual(self.widget.ui.inputSelector.currentNode(), pictureNode)

    def test_aClassificationIsShown(self):
        from MedMapAILib import mrml
        from MedMapAILib.inference.report import RunReport
        from MedMapAILib.results import Classification, Familiarity, Saliency
        from MedMapAIQt.saliency_view import show_saliency
        from MedMapAIQt.scene_run import SALIENCY_ROLE, saliency_node

        volumeNode = blobVolume()
        voxels, affine, _notes = mrml.voxels_from_node(volumeNode)
        values = (voxels[0] > 50).astype(np.float32)
        far = Familiarity(False, {"size": 2.0}, "This is not the kind of image that this model was trained on.")
        result = Classification(
            ("benign", "malignant"),
            "binary",
            (0.2, 0.8),
            (None, 0.4),
            ("malignant",),
            far,
            Saliency(values, affine, "grad-cam", "malignant"),
        )
        tableNode = mrml.node_from_classification(result, name="Call")
        mapNode = mrml.node_from_saliency(result.saliency, name="Looked", referenceVolumeNode=volumeNode)
        tableNode.SetNodeReferenceID(SALIENCY_ROLE, mapNode.GetID())
        self.assertEqual(saliency_node(tableNode), mapNode)
        self.assertEqual(tableNode.GetCellText(1, 3), "yes")
        self.assertIsNotNone(mapNode.GetDisplayNode().GetColorNode())
        show_saliency(volumeNode, mapNode, 0.4)
        for viewNode in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.assertEqual(viewNode.GetForegroundVolumeID(), mapNode.GetID())
        ui = self.widget.ui
        self.widget.resultView.show(RunReport("nodule", result, "cpu, fp32", 0.5))
        self.assertEqual(ui.classesTable.rowCount, 2)
        self.assertEqual(ui.classesTable.item(1, 1).text(), "0.800")
        self.assertIn("malignant", ui.callLabel.text)
        self.assertIn("not the kind", ui.familiarityLabel.text)

    def test_findingsAreReviewed(self):
        from MedMapAILib import mrml
        from MedMapAILib.inference.report import RunReport
        from MedMapAILib.mrml.folders import put_into
        from MedMapAILib.results import Detections, Finding

        volumeNode = blobVolume()
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        study = tree.CreateFolderItem(tree.GetSceneItemID(), "Study")
        put_into(study, [volumeNode])
        found = (
            Finding((20.0, 24.0, 17.0), (8.0, 8.0, 8.0), "nodule", 0.9),
            Finding((5.0, 6.0, 7.0), (4.0, 4.0, 4.0), "nodule", 0.3),
        )
        result = Detections(("nodule",), found, 0.5)
        folder = mrml.nodes_from_detections(result, volumeNode, name="Blob findings")
        self.assertEqual(tree.GetItemParent(folder), study)
        parameterNode = self.widget.logic.getParameterNode()
        parameterNode.inputVolume = volumeNode
        self.widget.logic.report = RunReport("nodule", result, "cpu, fp32", 0.5)
        self.widget.onFinished(mrml.findings_table(folder))
        review = self.widget.findingReview
        # Whatever model is chosen in this panel.
        review.show(folder)
        ui, nodes = review.ui, [node for node, _finding in mrml.finding_nodes(folder)]
        self.assertEqual(nodes[0].GetName(), "1 nodule 0.90 8.0 mm")
        self.assertEqual([ui.findingsTable.isRowHidden(row) for row in (0, 1)], [False, True])
        ui.thresholdSlider.value = 0.2
        self.assertEqual([node.GetDisplayNode().GetVisibility() for node in nodes], [1, 1])
        ui.findingsTable.setCurrentCell(1, 0)
        for viewNode in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            matrix = viewNode.GetSliceToRAS()
            np.testing.assert_allclose([matrix.GetElement(row, 3) for row in range(3)], (5, 6, 7), atol=1e-4)
        ui.rejectButton.click()
        ui.findingsTable.setCurrentCell(0, 0)
        nodes[0].SetCenterWorld([21.0, 24.0, 17.0])
        ui.addButton.click()
        states = [finding.state for _node, finding in mrml.finding_nodes(folder)]
        self.assertEqual(states, ["corrected", "rejected", "added"])
        self.assertEqual(ui.findingsTable.rowCount, 3)
        self.assertEqual(len(mrml.reference_from_nodes(folder).findings), 2)

    @unittest.skipUnless(HAVE_TORCH, NO_TORCH)
    def test_apply(self):
        volumeNode = blobVolume()
        transformNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 25)
        transformNode.SetMatrixTransformToParent(matrix)
        volumeNode.SetAndObserveTransformNodeID(transformNode.GetID())
        self.widget.refreshModels()
        names = [model.name for model in self.widget._models.values() if model.task == "segmentation"]
        if not names:
            self.skipTest("no model is at hand")
        parameterNode = self.widget.logic.getParameterNode()
        parameterNode.modelName = names[0]
        parameterNode.inputVolume = volumeNode
        parameterNode.device = "cpu"
        self.assertTrue(self.widget.ui.applyButton.enabled, self.widget.ui.statusLabel.text)
        self.widget.ui.applyButton.click()
        end = time.time() + 300
        while self.widget.logic.running and time.time() < end:
            slicer.app.processEvents()
            time.sleep(0.01)
        segmentationNode = parameterNode.outputSegmentation
        self.assertIsNotNone(segmentationNode, self.widget.ui.statusLabel.text)
        model = self.widget._models[parameterNode.modelName]
        self.assertEqual(self.widget.ui.resultsTable.rowCount, len(model.segments))
        self.assertEqual(segmentationNode.GetSegmentation().GetNumberOfSegments(), len(model.segments))
        self.assertEqual(segmentationNode.GetParentTransformNode(), transformNode)


if __name__ == "__main__":
    unittest.main()
