"""The panel MedMapAI Training with the tasks reconstruction and generation: fields, data, losses of a GAN, samples."""

from __future__ import annotations

import numpy as np
import panel_data
import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401
from MedMapAILib import mrml
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image
from MedMapAILib.training.config import complete_config
from MedMapAILib.training.parameters import TrainingParameters, parse_range, range_text, write_config
from reconstruction_data import body, reconstruction_config, write_bodies

PATIENCE = 300


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    return write_bodies(tmp_path_factory.mktemp("data") / "bodies", 4)


@pytest.fixture
def panel(slicer_host, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return slicer_host.openModule("MedMapAITraining")


def visible(panel, *names):
    return [getattr(panel.ui, name).isVisibleTo(panel.parent) for name in names]


def wait(host, panel):
    host.process_events(lambda: not panel.logic.running, timeout_s=PATIENCE, message=panel.ui.logText.plainText)
    host.check()


# -- fields ------------------------------------------------------------------------------------------------------------


def test_fields_of_a_reconstruction(slicer_host, panel):  # noqa: F811
    ui = panel.ui
    own = ("imageNetworkSelector", "imageLossSelector", "dataKindSelector")
    ct, mr, noise = ("viewsEdit", "photonsEdit"), ("accelerationEdit", "coilsSpinBox"), ("noiseEdit",)
    others = ("networkSelector", "lossSelector", "labelsEdit", "classesEdit", "generatorSelector", "samplesWidget")
    assert visible(panel, *own, "acquisitionSelector", *ct) == [False] * 6
    ui.taskSelector.currentText = "reconstruction"
    assert visible(panel, *own) == [True] * 3 and visible(panel, *others) == [False] * 6
    assert visible(panel, "acquisitionSelector", *ct, *mr, *noise) == [True] * 3 + [False] * 3
    assert "count as the truth" in ui.datasetHint.text
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_reconstruction.png")
    ui.acquisitionSelector.currentText = "MR"
    assert visible(panel, *ct, *mr, *noise) == [False] * 2 + [True] * 2 + [False]
    ui.acquisitionSelector.currentText = "noise"
    assert visible(panel, *ct, *mr, *noise) == [False] * 4 + [True]
    ui.dataKindSelector.currentText = "Pairs of images"
    assert visible(panel, "acquisitionSelector", *ct, *mr, *noise) == [False] * 6
    assert "inputs/ and targets/" in ui.datasetHint.text
    ui.sourceSelector.currentText = "Nodes in the scene"
    assert visible(panel, "imagesWidget", "pairsWidget", "samplesWidget") == [True, False, False]
    assert not ui.imagesTable.isColumnHidden(1) and "at least 2 images" in ui.statusLabel.text
    ui.dataKindSelector.currentText = "Noisy images alone"
    assert ui.imagesTable.isColumnHidden(1) and "only the loss noise2void learns" in ui.statusLabel.text
    ui.imageLossSelector.currentText = "noise2void"
    assert ui.statusLabel.text == "Add a noisy image."
    ui.taskSelector.currentText = "generation"
    assert visible(panel, "generatorSelector", "generatorLossSelector", "classesEdit", "samplesWidget") == [True] * 4
    assert visible(panel, *own, "imagesWidget", "mixupSpinBox") == [False] * 5
    slicer_host.check()
    assert panel_data.widgets_without_tool_tip(panel) == []


def test_choices_are_those_of_the_library(panel):
    from MedMapAILib.losses import RECONSTRUCTION as LOSSES
    from MedMapAILib.losses.generation import GENERATION as GENERATOR_LOSSES
    from MedMapAILib.networks import GENERATION, RECONSTRUCTION
    from MedMapAILib.tasks import TASKS
    from MedMapAIQt import training_fields

    import MedMapAITraining as module

    assert sorted(module.IMAGE_NETWORKS) == sorted(RECONSTRUCTION)
    assert sorted(module.IMAGE_LOSSES) == sorted(LOSSES)
    assert sorted(module.GENERATORS) == sorted(GENERATION)
    assert sorted(module.GENERATOR_LOSSES) == sorted(GENERATOR_LOSSES)
    assert sorted(training_fields.TASKS) == sorted(TASKS)


def test_settings_become_a_configuration(panel, bodies, tmp_path):
    ui = panel.ui
    ui.taskSelector.currentText = "reconstruction"
    ui.datasetPath.currentPath = str(bodies)
    ui.outputPath.currentPath = str(tmp_path / "output")
    ui.viewsEdit.text = "60, 120"
    ui.photonsEdit.text = "10000 to 100000"
    ui.imageNetworkSelector.currentText = "red-cnn"
    ui.imageLossSelector.currentText = "wasserstein-gan"
    assert ui.startButton.enabled, ui.statusLabel.text
    config = complete_config(panel.parameters().config())
    assert config["task"] == {"name": "reconstruction"}
    assert config["acquisition"].items() >= {"kind": "ct", "views": [60, 120], "photons": [10000, 100000]}.items()
    assert (config["network"]["name"], config["loss"]["name"]) == ("red-cnn", "wasserstein-gan")
    ui.photonsEdit.text = "few"
    assert "Photons: write a number" in ui.statusLabel.text and not ui.startButton.enabled
    ui.photonsEdit.text = "20000"
    ui.imageNetworkSelector.currentText = "varnet"
    assert "varnet is for MR" in ui.statusLabel.text
    ui.acquisitionSelector.currentText = "MR"
    config = complete_config(panel.parameters().config())
    assert config["acquisition"].items() >= {"kind": "mr", "acceleration": 4, "coils": 1}.items()
    ui.imageNetworkSelector.currentText = "fbpconvnet"
    ui.imageLossSelector.currentText = "noise2void"
    ui.dataKindSelector.currentText = "Noisy images alone"
    config = complete_config(panel.parameters().config())
    assert config["acquisition"]["kind"] == "none" and config["dataset"]["target"] == "self"


def test_numbers_and_ranges():
    assert parse_range("60", "Views", whole=True) == 60
    assert parse_range("60, 120;360", "Views", whole=True) == [60, 120, 360]
    assert parse_range("1e4 to 1e5", "Photons") == [10000, 100000]
    assert parse_range("4-8", "Acceleration") == [4, 8] and parse_range("2.5", "Noise") == 2.5
    for value in (60, [10000, 1e5], 2.5, [1234567, 2000000]):
        assert parse_range(range_text(value), "x") == value
    for wrong in ("", "a few", "60 views"):
        with pytest.raises(InputError, match="Photons: write a number"):
            parse_range(wrong, "Photons")
    with pytest.raises(InputError, match="Views: write a whole number"):
        parse_range("2.5", "Views", whole=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"loss": "noise2void"}, "for noisy images alone"),
        ({"data_kind": "self"}, "only the loss noise2void"),
        ({"network": "learned-primal-dual", "data_kind": "pairs"}, "from measurements of true images"),
        ({"network": "learned-primal-dual", "acquisition": {"kind": "noise"}}, "is for CT"),
        ({"scene_images": (("a", None),)}, "at least 2 images"),
        ({"scene_images": (("a", None), ("a", None))}, "the same image"),
        ({"scene_images": (("a", None), (None, None))}, "Image 2 has no volume"),
        ({"scene_images": (("a", "b"), ("c", None)), "data_kind": "pairs"}, "Image 2 has no target"),
        ({"scene_images": (("a", "b"), ("c", "c")), "data_kind": "pairs"}, "its own target"),
        ({"scene_images": (("a", None),), "data_kind": "self", "loss": "noise2void"}, ""),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, change, said):
    settings = {
        "output": str(tmp_path / "output"), "task": "reconstruction", "network": "fbpconvnet", "loss": "mse",
        "acquisition": {"kind": "ct", "views": 60}, "scene_images": (("a", None), ("b", None)),
    }  # fmt: skip
    parameters = TrainingParameters(**(settings | change))
    valid, reason = parameters.is_valid()
    assert valid == (not said) and said in reason
    if change.get("data_kind") == "self" and valid:
        assert parameters.config()["split"]["validation"] == 0, "a single image has no part to check with"


# -- training ----------------------------------------------------------------------------------------------------------


def test_a_gan_shows_both_losses_and_samples(slicer_host, panel, bodies, tmp_path):  # noqa: F811
    loss = {"name": "conditional-gan", "width": 8}
    config = reconstruction_config(bodies, loss=loss, epochs=3, iterations=3)
    config["acquisition"] = {"kind": "ct", "views": 40, "photons": 2e4, "filter": "hann"}
    write_config(config, tmp_path / "gan.toml")
    ui = panel.ui
    ui.recipeSelector.addItem("gan", str(tmp_path / "gan.toml"))
    ui.recipeSelector.setCurrentIndex(ui.recipeSelector.count - 1)
    slicer_host.check()
    assert (ui.taskSelector.currentText, ui.imageLossSelector.currentText) == ("reconstruction", "conditional-gan")
    assert (ui.viewsEdit.text, ui.photonsEdit.text) == ("40", "20000")
    ui.outputPath.currentPath = str(tmp_path / "output")
    # What the panel has no field for is the recipe's.
    assert panel.parameters().config()["acquisition"]["filter"] == "hann"
    ui.checkButton.click()
    slicer_host.check()
    assert "4 of 4 cases can be trained on" in ui.dataReport.html
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_reconstruction_check.png")
    assert ui.startButton.enabled, ui.statusLabel.text
    assert not visible(panel, "sampleSection")[0]
    ui.startButton.click()
    wait(slicer_host, panel)
    assert "Finished" in ui.statusLabel.text, ui.logText.plainText
    assert "critic's loss" in ui.logText.plainText and "PSNR" in ui.logText.plainText

    table = panel.logic.tableNode
    names = [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())]
    assert {"Validation PSNR (dB)", "Critic's loss", "Part: adversarial", "Part: fidelity"} <= set(names)
    for name, key in (("Critic's loss", "opponent_loss"), ("Validation PSNR (dB)", "validation_psnr_db")):
        found = [table.GetTable().GetValueByName(row, name).ToDouble() for row in range(3)]
        assert found == pytest.approx([row[key] for row in panel.logic.rows]) and np.isfinite(found).all()
    titles = [ui.chartSelector.itemText(n) for n in range(ui.chartSelector.count)]
    assert titles == ["Learning curve", "PSNR", "Network and critic"]
    ui.chartSelector.setCurrentIndex(2)
    chart = panel.logic.furtherCharts["losses"]
    lines = [chart.GetNthPlotSeriesNode(n).GetName() for n in range(chart.GetNumberOfPlotSeriesNodes())]
    assert lines[:2] == ["Critic's loss", "Training loss"]
    assert visible(panel, "sampleSection", "sampleLabel") == [True, True]
    assert "After epoch 3" in ui.sampleCaption.text and ui.sampleLabel.pixmap is not None
    assert (tmp_path / "output" / "samples" / "epoch-0003.png").is_file()
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_gan.png")
    ui.chartSelector.setCurrentIndex(1)
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_psnr.png")


def test_a_generator_shows_what_it_makes(slicer_host, panel, tmp_path):  # noqa: F811
    config = {
        "task": {"name": "generation"},
        "dataset": {
            "path": str(panel_data.write_pictures(tmp_path / "pictures", 8)),
            "classes": ["dark", "bright spot"],
        },
        "split": {"validation": 0.25},
        "plan": {"batch": 8},
        "network": {"name": "image-generator", "width": 4, "noise": 8},
        "loss": {"name": "hinge", "critic_width": 4},
        "optimizer": {"learning_rate": 5e-4, "betas": [0.0, 0.9], "gradient_clipping": 0.0},
        "training": {"epochs": 2, "iterations_per_epoch": 3, "device": "cpu", "precision": "fp32"},
        "model": {"name": "spot-maker", "title": "Spots", "modality": "synthetic", "half_precision": False},
    }
    write_config(config, tmp_path / "spots.toml")
    ui = panel.ui
    ui.recipeSelector.addItem("spots", str(tmp_path / "spots.toml"))
    ui.recipeSelector.setCurrentIndex(ui.recipeSelector.count - 1)
    slicer_host.check()
    assert (ui.taskSelector.currentText, ui.generatorLossSelector.currentText) == ("generation", "hinge")
    assert ui.classesEdit.text == "dark, bright spot"
    ui.outputPath.currentPath = str(tmp_path / "output")
    assert ui.startButton.enabled, ui.statusLabel.text
    ui.startButton.click()
    wait(slicer_host, panel)
    assert "Finished" in ui.statusLabel.text, ui.logText.plainText
    assert "After epoch 2: of each class real images" in ui.sampleCaption.text
    titles = [ui.chartSelector.itemText(n) for n in range(ui.chartSelector.count)]
    assert titles == ["Learning curve", "Network and critic"]
    assert "coverage" in ui.logText.plainText and "critic's loss" in ui.logText.plainText
    slicer_host.screenshot(panel_data.ARTIFACTS / "panel_training_generation.png")


def test_images_of_the_scene_become_a_data_set(slicer_host, tmp_path):  # noqa: F811
    from MedMapAILib.datasets import open_dataset
    from MedMapAILib.datasets.loading import load_case
    from MedMapAIQt.scene_cases import export_images

    nodes = []
    for seed in range(2):
        values, affine = body(seed, 16, 3)
        for name, more in (("Mr Secret", 0), ("Mr Secret full dose", 5)):
            nodes.append(mrml.volume_node_from_image(make_image(values[None] + more, affine), name=f"{name} {seed}"))
    pairs = list(zip(nodes[::2], nodes[1::2], strict=True))
    export_images(pairs, tmp_path / "pairs", True)
    dataset = open_dataset(tmp_path / "pairs", options={"task": "reconstruction"})
    assert dataset.target == "pairs" and len(dataset.cases) == 2
    image, truth = load_case(dataset.cases[1], dataset)
    np.testing.assert_array_equal(truth.values - image.numpy()[0], np.full((16, 16, 3), 5, np.float32))
    export_images([(nodes[0], None)], tmp_path / "alone", False)
    alone = open_dataset(tmp_path / "alone", options={"task": "reconstruction", "target": "self"})
    assert alone.target == "self" and len(alone.cases) == 1
    assert not any("Secret" in path.name for path in tmp_path.rglob("*"))
    values, affine = body(9, 16, 4)
    other = mrml.volume_node_from_image(make_image(values[None], affine), name="Other")
    with pytest.raises(InputError, match="16×16×3 voxels and its target has 16×16×4"):
        export_images([(nodes[0], other)], tmp_path / "none", True)
    assert not (tmp_path / "none").exists()
