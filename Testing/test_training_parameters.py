"""Settings of a training: what is wrong with them, how they become a configuration, what a process says."""

from __future__ import annotations

import math

import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.inference.output_tail import Tail
from MedMapAILib.training.config import complete_config, read_config
from MedMapAILib.training.history import read_history
from MedMapAILib.training.parameters import (
    TrainingParameters,
    can_resume,
    label_names,
    labels_text,
    parse_labels,
    to_toml,
    write_config,
)


@pytest.fixture
def good(tmp_path):
    (tmp_path / "data").mkdir()
    return {"dataset": str(tmp_path / "data"), "output": str(tmp_path / "output")}


def test_good_settings_are_valid(good):
    assert TrainingParameters(**good).is_valid() == (True, "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dataset": ""}, "Choose the folder or file with the training cases"),
        ({"dataset": "/no/such/folder"}, "There is no /no/such/folder"),
        ({"dataset": None}, "Add at least 2 cases"),
        ({"dataset": None, "scene_cases": (("a", "b"), ("c", None))}, "Case 2 has no segmentation"),
        ({"dataset": None, "scene_cases": ((None, "b"), ("c", "d"))}, "Case 1 has no volume"),
        ({"dataset": None, "scene_cases": (("a", "b"), ("a", "b"))}, "Two rows hold the same case"),
        ({"name": "../up"}, "Give the model a name"),
        ({"epochs": 0}, "at least 1 epoch"),
        ({"learning_rate": 0.0}, "learning rate greater than 0"),
        ({"validation": 1.0}, "between 0 and 1"),
        ({"recipe": "/no/recipe.toml"}, "There is no recipe"),
        ({"output": ""}, "Choose an output folder"),
    ],
)
def test_each_mistake_has_its_reason(good, change, reason):
    valid, said = TrainingParameters(**(good | change)).is_valid()
    assert not valid
    assert reason in said


def test_output_folder_must_be_new(good, tmp_path):
    output = tmp_path / "output"
    assert not can_resume(output)[0]
    output.mkdir()
    (output / "config.toml").write_text("")
    # A configuration alone is a training that never began.
    assert TrainingParameters(**good).is_valid()[0] and not can_resume(output)[0]
    (output / "config.json").write_text("{}")
    assert "resume it" in TrainingParameters(**good).is_valid()[1] and can_resume(output) == (True, "")
    assert "data folder" in TrainingParameters(**(good | {"output": good["dataset"]})).is_valid()[1]


def test_config_is_what_the_training_takes(good):
    config = TrainingParameters(
        **good,
        name="m",
        network="segresnet",
        loss="focal",
        optimizer="sgd",
        learning_rate=0.01,
        epochs=7,
        validation=0.25,
        device="cpu",
        labels={"2": {"name": "ball"}},
    ).config()
    complete = complete_config(config)
    assert complete["dataset"]["path"] == good["dataset"]
    assert complete["dataset"]["labels"] == {"2": {"name": "ball"}}
    assert (complete["network"]["name"], complete["loss"]["name"]) == ("segresnet", "focal")
    assert (complete["optimizer"]["name"], complete["optimizer"]["learning_rate"]) == ("sgd", 0.01)
    assert (complete["training"]["epochs"], complete["training"]["device"]) == (7, "cpu")
    assert (complete["split"]["validation"], complete["model"]["name"]) == (0.25, "m")


RECIPE = """
[dataset]
path = "elsewhere"
kind = "decathlon"
[dataset.labels."1"]
name = "anterior"
color = "#56b4e9"
terminology = { category = ["SCT", "123037004", "Anatomical Structure"], type = ["SCT", "1", "x"] }
[network]
name = "residual-unet"
filters = [8, 16]
[augmentation]
noise = 0.4
[training]
epochs = 30
[split]
file = "split.json"
[model]
description = "Finds what elsewhere has."
"""


def test_recipe_keeps_what_is_not_set_here(good, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    config = TrainingParameters(
        **good, recipe=str(recipe), network="residual-unet", epochs=3, labels=parse_labels("1 anterior, 2 posterior")
    ).config()
    assert config["network"] == {"name": "residual-unet", "filters": [8, 16]}
    assert config["augmentation"]["noise"] == 0.4
    assert config["training"]["epochs"] == 3
    assert config["dataset"]["path"] == good["dataset"] and "kind" not in config["dataset"]
    assert config["dataset"]["labels"]["1"]["color"] == "#56b4e9"
    assert config["dataset"]["labels"]["2"] == {"name": "posterior"}
    assert not config["split"].get("file") and not config["model"].get("description"), "those are of other data"
    (tmp_path / "elsewhere").mkdir()
    same = TrainingParameters(**(good | {"dataset": str(tmp_path / "elsewhere")}), recipe=str(recipe)).config()
    assert same["split"]["file"].endswith("split.json") and same["model"]["description"] == "Finds what elsewhere has."
    # Filters were meant for another network.
    assert TrainingParameters(**good, recipe=str(recipe), network="fcn").config()["network"] == {"name": "fcn"}


def test_toml_comes_back_as_it_was(good, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    config = TrainingParameters(**good, recipe=str(recipe), name="näme-1".replace("ä", "a")).config()
    config["model"]["description"] = 'He said "ä", \\ and a tab\t, then\na new line'
    write_config(config, tmp_path / "config.toml")
    back = read_config(tmp_path / "config.toml")
    assert back == complete_config(config)
    assert to_toml({"a": {"b c": {"d": [1, 2.5, True, "x"]}}}) == '[a."b c"]\nd = [1, 2.5, true, "x"]\n'


def test_labels_are_read_and_written():
    assert parse_labels("") == {}
    labels = parse_labels("1 anterior, 2: posterior horn; 10 = CA1")
    assert label_names(labels) == {1: "anterior", 2: "posterior horn", 10: "CA1"}
    assert labels_text(labels) == "1 anterior, 2 posterior horn, 10 CA1"
    for wrong in ("anterior", "0 background", "1", "1 a, 1 b", "1 a, 2 a"):
        with pytest.raises(InputError):
            parse_labels(wrong)


def test_tail_keeps_the_end_of_stderr():
    tail = Tail(lines=2)
    tail.feed(b"one\ntwo\n 10%\r 20%\r 30%\nthr")
    assert tail.text == "two\n30%\nthr"


def test_history_is_read_back(tmp_path):
    assert read_history(tmp_path) == []
    (tmp_path / "history.csv").write_text("epoch,train_loss,validation_dice\n1,0.5,\n2,0.25,0.75\n")
    assert read_history(tmp_path) == [
        {"epoch": 1, "train_loss": 0.5, "validation_dice": None},
        {"epoch": 2, "train_loss": 0.25, "validation_dice": 0.75},
    ]
    assert math.isfinite(read_history(tmp_path)[1]["train_loss"])
