"""Bundles: whole or refused, data and never code, readable by MONAI."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from MedMapAILib import bundle as bundles
from MedMapAILib.bundle import code_in, list_bundles, load_bundle, read_info
from MedMapAILib.errors import InputError
from MedMapAILib.training.run import train
from synthetic import small_config, write_dataset


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    data = write_dataset(folder / "data", 8)
    return train(small_config(data, epochs=1, iterations_per_epoch=2), folder / "out")


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "ball-and-box")


def rewrite_checksums(folder):
    import hashlib

    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "checksums.sha256")
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / "checksums.sha256").write_text("".join(lines))


def test_what_was_written_is_read(trained):
    bundle = load_bundle(trained)
    assert bundle.info.name == "ball-and-box"
    assert [s.name for s in bundle.info.segments] == ["ball", "box"]
    assert bundle.plan.patch == (16, 16, 16)
    assert set(bundle.info.metrics) >= {"measured_on", "dice"}
    assert "Research use only" in bundle.info.card
    assert set(bundle.train["split"]) >= {"train", "validation", "test", "seed"}
    network = bundle.build_network()
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_monai_builds_the_same_network_and_takes_the_weights(trained):
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(trained / "configs" / "inference.json")
    parser.read_meta(trained / "configs" / "metadata.json")
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    image = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        np.testing.assert_allclose(network(image), load_bundle(trained).build_network()(image), rtol=1e-5, atol=1e-5)


def test_metadata_holds_what_monai_asks_for(trained):
    metadata = json.loads((trained / "configs" / "metadata.json").read_text())
    wanted = {"version", "changelog", "monai_version", "pytorch_version", "numpy_version", "task", "description"}
    wanted |= {"authors", "copyright", "network_data_format"}
    assert wanted <= set(metadata)
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert channels == {"0": "background", "1": "ball", "2": "box"}


def test_a_zip_of_the_folder_reads_the_same(trained, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "model"), "zip", trained.parent, trained.name)
    assert read_info(archive).name == read_info(trained).name
    assert load_bundle(archive).weights.keys() == load_bundle(trained).weights.keys()


def test_a_changed_file_is_refused(copy):
    path = copy / "models" / "model.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="checksum"):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["models/model.pt", "checksums.sha256", "docs/README.md"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        load_bundle(copy)


def test_a_pickle_that_runs_code_is_not_opened(copy, tmp_path):
    mark = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (open, (str(mark), "w"))

    (copy / "models" / "model.pt").write_bytes(pickle.dumps(Bomb()))
    rewrite_checksums(copy)
    with pytest.raises(InputError, match="other than weights"):
        load_bundle(copy)
    assert not mark.exists()


@pytest.mark.parametrize(
    "poison",
    [
        {"network_def": {"_target_": "os.system", "command": "true"}},
        {"network_def": {"_target_": "monai.networks.nets.UNet", "spatial_dims": "$__import__('os').getpid()"}},
    ],
)
def test_code_in_a_configuration_is_shown_and_refused(copy, poison):
    path = copy / "configs" / "inference.json"
    path.write_text(json.dumps(poison))
    rewrite_checksums(copy)
    with pytest.raises(InputError, match="holds code.*(os.system|getpid)"):
        load_bundle(copy)


def test_a_network_other_than_the_named_one_is_refused(copy):
    path = copy / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["network_def"]["filters"] = [8, 8, 8]
    path.write_text(json.dumps(config))
    rewrite_checksums(copy)
    with pytest.raises(InputError, match="not the 'unet'"):
        load_bundle(copy)


def test_code_in_finds_every_kind():
    config = {"a": "$1+1", "b": [{"_target_": "x.Y"}, "%other#key"], "c": "plain", "d": 3}
    assert code_in(config) == ["a: $1+1", "b[0]._target_: x.Y", "b[1]: %other#key"]


def test_a_folder_that_is_no_bundle_and_a_name_that_is_no_model(tmp_path):
    with pytest.raises(InputError, match="not a model bundle"):
        load_bundle(tmp_path)
    with pytest.raises(InputError, match="no model 'liver'"):
        load_bundle("liver")
    (tmp_path / "x.zip").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match="neither a bundle folder nor a readable zip"):
        load_bundle(tmp_path / "x.zip")


def test_models_of_a_named_folder_are_listed_and_broken_ones_reported(copy, monkeypatch):
    monkeypatch.setenv(bundles.MODELS_VARIABLE, str(copy.parent))
    (copy.parent / "broken").mkdir()
    problems = []
    assert "ball-and-box" in [info.name for info in list_bundles(problems)]
    assert len(problems) == 1 and "broken" in problems[0]


def test_no_path_of_the_machine_is_in_a_shared_bundle(trained):
    """A bundle is given to others: it may not tell where its maker keeps patients' data."""
    text = "".join(p.read_text() for p in trained.rglob("*") if p.suffix in (".json", ".md"))
    assert str(trained.parent.parent) not in text
