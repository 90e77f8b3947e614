"""Runs inside Slicer (slicer_add_python_unittest): the module MedMapAI Training, on cases made here."""

import importlib.util
import os
import shutil
import tempfile
import time
import unittest

import numpy as np
import slicer

HAVE_TORCH = all(importlib.util.find_spec(name) is not None for name in ("torch", "monai", "nibabel"))
NO_TORCH = "PyTorch, MONAI or nibabel is not installed in this Slicer: press Start in the module to install them"


def addCase(number, shape=(20, 24, 22)):
    """A volume node (K, J, I) with a bright ball somewhere, and a segmentation node with the ball."""
    random = np.random.default_rng(number)
    center = np.array(shape) / 2 + random.uniform(-3, 3, 3)
    distance = np.linalg.norm(np.indices(shape).transpose(1, 2, 3, 0) - center, axis=-1)
    inside = distance < 6
    volumeNode = slicer.util.addVolumeFromArray(
        (50.0 * inside + random.normal(0, 5, shape)).astype(np.float32), name=f"Scan {number}"
    )
    segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"Drawing {number}")
    segmentationNode.CreateDefaultDisplayNodes()
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    segmentId = segmentationNode.GetSegmentation().AddEmptySegment("ball", "ball")
    slicer.util.updateSegmentBinaryLabelmapFromArray(inside.astype(np.uint8), segmentationNode, segmentId, volumeNode)
    return volumeNode, segmentationNode


class MedMapAITrainingSelfTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear()
        self.folder = tempfile.mkdtemp(prefix="MedMapAI-")
        self.widget = slicer.util.getModuleWidget("MedMapAITraining")
        self.widget.enter()

    def tearDown(self):
        self.widget.logic.shutDown()
        self.widget.exit()
        slicer.mrmlScene.Clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def test_openPanelSaysWhatIsMissing(self):
        self.assertFalse(self.widget.ui.startButton.enabled)
        self.assertIn("folder", self.widget.ui.statusLabel.text)

    def test_casesAreKeptInTheParameterNode(self):
        pair = addCase(1)
        parameterNode = self.widget.logic.getParameterNode().parameterNode
        self.widget.logic.setPairs(parameterNode, [pair, (pair[0], None)])
        self.assertEqual(self.widget.logic.pairs(parameterNode), [pair, (pair[0], None)])

    def test_fieldsFollowTheTask(self):
        ui = self.widget.ui
        ui.taskSelector.currentText = "classification"
        self.assertEqual(self.widget.logic.getParameterNode().task, "classification")
        self.assertTrue(ui.classNetworkSelector.isVisibleTo(self.widget.parent))
        self.assertFalse(ui.networkSelector.isVisibleTo(self.widget.parent))
        ui.sourceSelector.currentText = "Nodes in the scene"
        self.assertIn("2 classes", ui.statusLabel.text)

    def test_regionsOfTheSceneAreSamples(self):
        volumeNode, _segmentationNode = addCase(1)
        bounds = [0.0] * 6
        volumeNode.GetRASBounds(bounds)
        for name in ("ball_1", "noise_1"):
            roiNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
            roiNode.SetCenterWorld([(bounds[n] + bounds[n + 1]) / 2 for n in (0, 2, 4)])
            roiNode.SetSizeWorld([6.0, 6.0, 6.0])
        ui = self.widget.ui
        ui.taskSelector.currentText = "classification"
        ui.sourceSelector.currentText = "Nodes in the scene"
        ui.addRoisButton.click()
        samples = self.widget.parameters().scene_samples
        self.assertEqual([sample[0] for sample in samples], [volumeNode.GetID()] * 2)
        self.assertEqual([sample[2] for sample in samples], ["ball", "noise"])

    def test_curvesAreDrawn(self):
        from MedMapAILib import mrml

        points = {"false_positive_rate": [0, 0.2, 1], "true_positive_rate": [0, 0.9, 1], "operating_point": [0.2, 0.9]}
        charts = mrml.curve_nodes("model", {"roc": {"malignant": points}})
        self.assertEqual(charts["roc"].GetNumberOfPlotSeriesNodes(), 3)
        owner = self.widget.logic.getParameterNode().parameterNode
        self.widget.charts.show([("ROC", charts["roc"])], owner)
        self.assertEqual(self.widget.charts.viewNode.GetPlotChartNode(), charts["roc"])

    def test_reload(self):
        self.widget.onReload()
        self.widget = slicer.util.getModuleWidget("MedMapAITraining")
        self.widget.enter()
        self.assertFalse(self.widget.ui.startButton.enabled)

    @unittest.skipUnless(HAVE_TORCH, NO_TORCH)
    def test_casesAreWrittenWithoutNames(self):
        self.widget.logic.exportPairs([addCase(1), addCase(2)], os.path.join(self.folder, "dataset"))
        for part in ("images", "labels"):
            self.assertEqual(
                sorted(os.listdir(os.path.join(self.folder, "dataset", part))), ["case_001.nrrd", "case_002.nrrd"]
            )

    @unittest.skipUnless(HAVE_TORCH, NO_TORCH)
    def test_trainInTheOtherProcess(self):
        pairs = [addCase(number) for number in range(4)]
        logic = self.widget.logic
        labels = logic.exportPairs(pairs, os.path.join(self.folder, "dataset"))
        config = {
            "dataset": {"path": os.path.join(self.folder, "dataset"), "labels": labels},
            "split": {"validation": 0.25},
            "plan": {"patch": [16, 16, 16], "batch": 1},
            "network": {"name": "unet", "filters": [4, 8, 8]},
            "training": {"epochs": 2, "device": "cpu", "workers": 0},
            "model": {"name": "self-test"},
        }
        events = []
        # The model of this test is not to be listed among the user's.
        logic._listed = lambda event: {**event, "model": "self-test"}
        logic.onEvent = events.append
        logic.start(config, os.path.join(self.folder, "output"))
        end = time.time() + 300
        while logic.running and time.time() < end:
            slicer.app.processEvents()
            time.sleep(0.01)
        self.assertEqual(events[-1]["event"], "finished", events[-3:])
        self.assertEqual(logic.tableNode.GetTable().GetNumberOfRows(), 2)
        self.assertEqual(logic.chartNode.GetNumberOfPlotSeriesNodes(), 3)


if __name__ == "__main__":
    unittest.main()
