"""Training configurations: completed, overridden, and refused with the name of what is wrong."""

import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.training.config import complete_config, read_config

GOOD = '[dataset]\npath = "data"\n[training]\nepochs = 3\n'


@pytest.fixture
def written(tmp_path):
    def write(text, name="c.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_defaults_are_filled_in_and_values_kept(written):
    config = read_config(written(GOOD))
    assert config["training"]["epochs"] == 3
    assert config["optimizer"]["name"] == "adamw"


def test_json_is_read_too(written):
    assert read_config(written('{"dataset": {"path": "d"}}', "c.json"))["dataset"]["path"] == "d"


def test_set_overrides_with_toml_values_and_bare_words(written):
    config = read_config(
        written(GOOD),
        ["training.epochs=7", "optimizer.name=sgd", "augmentation.flip_axes=[0, 1]", "dataset.labels.2=tumor"],
    )
    assert config["training"]["epochs"] == 7
    assert config["optimizer"]["name"] == "sgd"
    assert config["augmentation"]["flip_axes"] == [0, 1]
    assert config["dataset"]["labels"] == {"2": "tumor"}


def test_paths_are_found_beside_the_file(written, tmp_path):
    (tmp_path / "data").mkdir()
    assert read_config(written(GOOD))["dataset"]["path"] == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("[training]\nepochs = 3", [], "dataset.path"),
        (GOOD + "epoch = 4", [], r"training\.epoch .*epochs"),
        (GOOD + "[trainning]\nepochs = 4", [], r"\[trainning\]"),
        (GOOD, ["training.epochs=0"], "greater than 0"),
        (GOOD, ["training.epochs=2.5"], "whole number"),
        (GOOD, ["training.epochs=many"], "must be a number"),
        (GOOD, ["optimizer.name=adam"], "adamw, sgd"),
        (GOOD, ["split.validation=1.5"], "between 0 and 1"),
        (GOOD, ["augmentation.flip_axes=0"], "must be a list"),
        (GOOD, ["inference.overlap=1.0"], "less than 1"),
        (GOOD, ["inference.weighting=flat"], "choose one of gaussian, constant"),
        (GOOD, ["epochs=3"], "section.key=value"),
        ("[dataset\npath=1", [], "not valid TOML"),
    ],
)
def test_mistakes_are_named(written, text, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        read_config(written(text), settings)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_the_given_dictionary_is_left_alone():
    given = {"dataset": {"path": "d"}}
    complete_config(given)
    assert given == {"dataset": {"path": "d"}}
