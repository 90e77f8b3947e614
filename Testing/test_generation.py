"""A generator from pictures on a disk to synthetic ones that a classifier learns from: trained, resumed, checked."""

import json

import numpy as np
import pytest
import torch
from MedMapAILib.bundle import load_bundle
from MedMapAILib.cli import main
from MedMapAILib.datasets import open_dataset
from MedMapAILib.errors import InputError
from MedMapAILib.generate_command import generate_folder
from MedMapAILib.generation_plan import intensity_ends, make_generation_plan, normalization
from MedMapAILib.image import make_image, read_image, write_image
from MedMapAILib.inference.opening import open_predictor
from MedMapAILib.plan import Plan
from MedMapAILib.results import Classes
from MedMapAILib.tasks.generation import UNNAMED, GenerationTask
from MedMapAILib.training.config import complete_config
from MedMapAILib.training.run import train
from PIL import Image


def disk(random, bright, size=16):
    i, j = np.indices((size, size))
    x, y = random.uniform(6, size - 6, 2)
    inside = (i - x) ** 2 + (j - y) ** 2 < 4**2
    return (128 + 12 * random.normal(size=(size, size)) + (60 if bright else -60) * inside).clip(0, 255)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disks")
    random = np.random.default_rng(0)
    for number in range(40):
        name = ("dark", "bright")[number % 2]
        (folder / name).mkdir(exist_ok=True)
        values = disk(random, number % 2 == 1)
        Image.fromarray(values.astype(np.uint8)).save(folder / name / f"{number:02}.png")
    return folder


def config(data, **training):
    return {
        "task": {"name": "generation"},
        "dataset": {"path": str(data), "classes": ["dark", "bright"]},
        "split": {"validation": 0.25, "seed": 3},
        "plan": {"batch": 8},
        "network": {"width": 4, "noise": 8},
        "loss": {"critic_width": 4, "weight": "balanced"},
        "optimizer": {"learning_rate": 5e-4, "betas": [0.0, 0.9], "gradient_clipping": 0.0},
        "training": {"epochs": 2, "iterations_per_epoch": 3, "device": "cpu", "precision": "fp32", **training},
        "model": {"name": "disk-maker", "title": "Disks", "modality": "synthetic", "half_precision": False},
    }


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "disk-maker"
    events = []
    train(config(pictures), output, on_event=events.append)
    return output, events


@pytest.fixture(scope="module")
def generated(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "disks"
    generate_folder(trained[0] / "bundle", folder, count=3, seed=1)
    return folder


def test_training_shows_both_losses_and_samples(trained):
    output, events = trained
    epochs = [event for event in events if event["event"] == "epoch"]
    assert all(np.isfinite(event["opponent_loss"]) and 0 <= event["validation_coverage"] <= 1 for event in epochs)
    picture = np.asarray(Image.open(epochs[-1]["picture"]))
    # A row of real and a row of made images for either class, eight of 16 pixels and a line beside each.
    assert picture.shape == (4 * 17, 8 * 17) and picture.dtype == np.uint8
    assert "opponent_loss" in (output / "history.csv").read_text().splitlines()[0]


def test_a_stopped_training_goes_on_to_the_same_weights_of_both(pictures, trained, tmp_path):
    steps = []

    def count(event):
        steps.extend([event] if "iteration" in event.get("message", "") else [])

    assert train(config(pictures), tmp_path / "run", on_event=count, should_stop=lambda: len(steps) == 1) is None
    train(config(pictures), tmp_path / "run", resume=True)
    one, other = (torch.load(p / "checkpoint.pt", weights_only=True) for p in (trained[0], tmp_path / "run"))
    assert "opponent" in one
    for part in ("network", "average", "opponent"):
        for key in one[part]:
            assert torch.equal(one[part][key], other[part][key]), f"{part}.{key}"
    for row, twin in zip(one["progress"]["rows"], other["progress"]["rows"], strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in twin.items() if k != "seconds"}


def test_the_bundle_and_its_card_say_what_it_is(trained):
    bundle = load_bundle(trained[0] / "bundle")
    assert (bundle.info.task, bundle.info.classes) == ("generation", Classes(("dark", "bright"), "binary"))
    assert intensity_ends(bundle.plan) == (0, 255)
    card = bundle.info.card
    assert "synthetic images of no patient" in card and "1. dark" in card and "not Inception" in card
    assert "Temperature" not in card and "tells apart" not in card
    summary = json.loads((trained[0] / "evaluation.json").read_text())["summary"]
    assert {"kernel_distance", "frechet_distance", "copying_z_by_voxels", "nearer_by_embedding"} <= set(summary)
    # Real training images are nearer to the validation images than those of a generator that learned six steps.
    assert summary["kernel_distance_of_training_images"]["mean"] < summary["kernel_distance"]["mean"]


def test_generated_folders_say_that_they_are_synthetic(trained, generated):
    files = sorted(path.relative_to(generated).as_posix() for path in generated.rglob("*") if path.is_file())
    assert files == ["about.json"] + [f"{c}/generated_0000{n}.png" for c in ("bright", "dark") for n in range(3)]
    about = json.loads((generated / "about.json").read_text())
    assert about["synthetic"] is True and about["model"] == "disk-maker" and about["images"] == {"dark": 3, "bright": 3}
    assert (
        len(about["training_images_sha256"]) == 30
        and about["model_sha256"] == load_bundle(trained[0] / "bundle").digest
    )
    picture = Image.open(generated / "dark" / "generated_00000.png")
    assert picture.size == (16, 16) and picture.mode == "L" and "Synthetic" in picture.text["Comment"]


def test_a_picture_shows_rows_and_columns_as_the_network_made_them(trained, generated):
    predictor = open_predictor(load_bundle(trained[0] / "bundle"), device="cpu")
    (image,) = predictor.generate(1, of_class="dark", seed=1)
    assert predictor.task.network_images([image]).shape == (1, 1, 16, 16)
    stored = np.asarray(Image.open(generated / "dark" / "generated_00000.png")).astype(float)
    made = (predictor.task.network_images([image])[0, 0].numpy() + 1) * 127.5
    assert np.abs(stored - made).max() <= 0.5 + 1e-4
    # Read as any picture, the file is what was made.
    assert np.abs(read_image(generated / "dark" / "generated_00000.png").numpy().sum() - stored.sum()) < 1e-3
    again = predictor.task.network_images([read_image(generated / "dark" / "generated_00000.png")])[0, 0].numpy()
    assert np.abs((again + 1) * 127.5 - stored).max() < 1e-3


def test_the_same_seed_makes_the_same_images_and_more_begin_with_them(trained, generated, tmp_path, capsys):
    model = str(trained[0] / "bundle")
    command = ["generate", model, str(tmp_path / "more"), "--count", "5", "--class", "dark", "--seed", "1", "--json"]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["images"] == {"dark": 5} and "training_images_sha256" not in said
    assert not (tmp_path / "more" / "bright").exists()
    for number in range(3):
        name = f"dark/generated_0000{number}.png"
        assert (tmp_path / "more" / name).read_bytes() == (generated / name).read_bytes()
    generate_folder(model, tmp_path / "other", count=1, seed=2)
    name = "dark/generated_00000.png"
    assert (tmp_path / "other" / name).read_bytes() != (generated / name).read_bytes()


def test_mistakes_are_told_in_one_sentence_and_leave_nothing(trained, generated, pictures, tmp_path, capsys):
    model = str(trained[0] / "bundle")
    for command, words in (
        (["run", model, str(pictures / "dark" / "00.png"), str(tmp_path / "a.json")], "medmapai generate"),
        (["generate", "pneumonia", str(tmp_path / "b")], "is a model for classification"),
        (["generate", model, str(tmp_path / "b"), "--class", "striped"], "no class 'striped'"),
        (["generate", model, str(tmp_path / "b"), "--count", "0"], "--count 0"),
        (["generate", model, str(generated)], "there already"),
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="medmapai generate"):
        open_predictor(load_bundle(model)).predict(read_image(pictures / "dark" / "00.png"))


def classifier(data, generated, **split):
    return {
        "task": {"name": "classification"},
        "dataset": {"path": str(data), "classes": ["dark", "bright"], "generated": str(generated)},
        "split": {"validation": 0.25, "seed": 3, **split},
        "network": {"name": "resnet18", "width": 0.0625},
        "training": {"epochs": 1, "iterations_per_epoch": 2, "batch": 8, "device": "cpu"},
    }


def test_generated_images_join_the_training_part_alone(pictures, generated, tmp_path):
    events = []
    bundle = train(classifier(pictures, generated), tmp_path / "out", on_event=events.append)
    started = next(event for event in events if event["event"] == "started")
    assert (started["train_cases"], started["validation_cases"]) == (30 + 6, 10)
    loaded = load_bundle(bundle)
    assert "6 generated images (3 bright, 3 dark) of the model disk-maker" in loaded.info.card
    # Split, fingerprints of what was trained on and the place of the data tell of real images alone.
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    assert not [name for part in ("train", "validation", "test") for name in split[part] if "generated" in name]
    assert len(loaded.train["training_images_sha256"]) == 30
    assert loaded.train["config"]["dataset"]["generated"] == "disks"
    assert loaded.info.metrics["auc"]["cases"] == 10


def test_a_generator_that_saw_what_is_scored_is_refused(pictures, generated, tmp_path):
    with pytest.raises(InputError, match=r"learned from \d+ image\(s\) of the validation part"):
        train(classifier(pictures, generated, seed=4), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_generated_ones_are_refused(pictures, generated, tmp_path):
    with pytest.raises(InputError, match="no folder of generated images"):
        train(classifier(pictures, pictures), tmp_path / "out")
    renamed = config(pictures)["dataset"] | {"generated": str(generated)}
    with pytest.raises(InputError, match="is for classification"):
        complete_config(config(pictures) | {"dataset": renamed})
    other = tmp_path / "other"
    (other / "striped").mkdir(parents=True)
    (other / "about.json").write_bytes((generated / "about.json").read_bytes())
    (other / "striped" / "generated_0.png").write_bytes((generated / "dark" / "generated_00000.png").read_bytes())
    with pytest.raises(InputError, match="of a class that"):
        train(classifier(pictures, other), tmp_path / "out")


def test_an_embedding_that_there_is_not_is_told_before_the_training(pictures, tmp_path):
    for name, words in (("nothing", "no model"), ("hippocampus", "a model for segmentation")):
        with pytest.raises(InputError, match=words):
            train(config(pictures) | {"evaluation": {"embedding": name}}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_evaluate_compares_with_another_data_set(trained, pictures, capsys):
    assert main(["evaluate", str(trained[0] / "bundle"), str(pictures), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["summary"]["coverage"]["cases"] == 10 and "random weights" in report["embedding"]


@pytest.mark.parametrize(
    "patch, affine", [([20, 16, 1], np.diag([-2.0, -2, 1, 1])), ([16, 1, 20], np.diag([1.0, 3, 1, 1]))]
)
def test_images_go_to_the_network_and_back(patch, affine):
    random = np.random.default_rng(5)
    plan = Plan((0.0, 0.0, 0.0), tuple(patch), 4, normalization(-1000.0, 500.0), axes="image", framing="resize")
    task = GenerationTask(plan, UNNAMED, {})
    image = make_image(random.uniform(-1000, 500, (1, *patch)).astype(np.float32), affine)
    prepared = task.network_images([image])
    assert prepared.shape[1:] == (1, *[n for n in patch if n > 1][::-1]) and prepared.abs().max() <= 1
    back = task.acquired_image(prepared[0])
    assert torch.allclose(task.network_images([back]), prepared, atol=1e-5)
    # The patient's right and front are where they were: the canonical image of both is the same.
    flips = [axis for axis in range(3) if affine[axis, axis] < 0]
    assert np.allclose(np.flip(image.numpy()[0], flips), back.numpy()[0], atol=1e-2)


def test_volumes_without_classes_are_learned_too(tmp_path):
    random = np.random.default_rng(6)
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for number in range(6):
        values = 100 + 20 * random.normal(size=(20, 18, 16))
        affine = np.diag([2.0, 2, 2, 1])
        write_image(make_image(values[None].astype(np.float32), affine), tmp_path / "data/images" / f"{number}.nii.gz")
        label = (values > 110).astype(np.float32)
        write_image(make_image(label[None], affine), tmp_path / "data/labels" / f"{number}.nii.gz")
    settings = config(tmp_path / "data", epochs=1, iterations_per_epoch=2)
    settings["dataset"] = {"path": str(tmp_path / "data")}
    settings["plan"] = {"patch": [16, 16, 16], "batch": 2}
    bundle = train(settings, tmp_path / "run")
    assert load_bundle(bundle).info.classes == UNNAMED
    generate_folder(bundle, tmp_path / "made", count=2)
    made = read_image(tmp_path / "made" / "image" / "generated_00001.nii.gz")
    low, high = load_bundle(bundle).plan.normalization["clip"]
    assert made.shape == (1, 16, 16, 16) and low <= made.min() and made.max() <= high and 40 < low < 70


def test_a_normalization_that_cannot_be_undone_is_refused(pictures):
    dataset = open_dataset(pictures, options={"classes": ["dark", "bright"]})
    plan = make_generation_plan(dataset, list(dataset.cases))
    assert plan.normalization == {"kind": "fixed", "clip": [0.0, 255.0], "mean": 127.5, "sd": 127.5}
    assert plan.patch == (16, 16, 1) and "undone" in plan.reasons["normalization"]
    with pytest.raises(InputError, match="cannot be undone"):
        make_generation_plan(dataset, list(dataset.cases), {"normalization": {"kind": "zscore"}})
