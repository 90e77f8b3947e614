"""A classifier from pictures on a disk to a call: trained, resumed, calibrated, run, scored."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from MedMapAILib.bundle import load_bundle
from MedMapAILib.cli import main
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image, read_image, write_image
from MedMapAILib.inference.opening import open_predictor
from MedMapAILib.results import Classes, Classification, write_classification
from MedMapAILib.training.config import complete_config
from MedMapAILib.training.run import train
from PIL import Image


def disk(random, bright, size=24):
    """Noise with a disk somewhere, brighter than the rest or darker."""
    i, j = np.indices((size, size))
    x, y = random.uniform(8, size - 8, 2)
    inside = (i - x) ** 2 + (j - y) ** 2 < 5**2
    return (128 + 12 * random.normal(size=(size, size)) + (60 if bright else -60) * inside).clip(0, 255), inside


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disks")
    random = np.random.default_rng(0)
    for number in range(60):
        name = ("dark", "bright")[number % 2]
        (folder / name).mkdir(exist_ok=True)
        values, _ = disk(random, number % 2 == 1)
        Image.fromarray(values.astype(np.uint8)).save(folder / name / f"{number:02}.png")
    return folder


def config(data, **training):
    return {
        "task": {"name": "classification"},
        "dataset": {"path": str(data), "classes": ["dark", "bright"]},
        "split": {"validation": 0.3, "seed": 3},
        "network": {"name": "resnet18", "width": 0.125, "members": 2, "dropout": 0.1},
        "augmentation": {"mixup": 0.2, "cutmix": 0.5, "mix_probability": 0.3, "erase": 0.2, "translate": 0.1},
        "evaluation": {"operating_copies": 1},
        "training": {
            "epochs": 3,
            "iterations_per_epoch": 12,
            "batch": 12,
            "device": "cpu",
            "ema_decay": 0.9,
            **training,
        },
        "model": {"name": "disks", "title": "Disks", "modality": "synthetic"},
    }


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "disks"
    events = []
    train(config(pictures), output, on_event=events.append)
    return output, events


def test_it_learns_what_can_be_seen(trained):
    output, events = trained
    summary = json.loads((output / "evaluation.json").read_text())["summary"]
    assert summary["auc"]["mean"] == 1.0 and summary["accuracy"]["mean"] >= 0.9
    assert summary["auc"]["cases"] == 18
    assert events[-1]["event"] == "finished"
    with (output / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["target"] for row in rows} == {"dark", "bright"} and float(rows[0]["probability: dark"]) <= 1


def test_the_bundle_says_all_that_a_run_needs(trained):
    bundle = load_bundle(trained[0] / "bundle")
    assert bundle.info.classes == Classes(("dark", "bright"), "binary") and bundle.info.task == "classification"
    assert bundle.inference["temperature"] > 0 and bundle.inference["familiarity"]
    assert 0 < bundle.inference["thresholds"][1] < 1 and bundle.inference["thresholds"][0] is None
    card = bundle.info.card
    assert "1. dark" in card and "2. bright" in card and "Research use only" in card
    assert "operating point" in card and "were fitted on the validation part" in card
    assert not any("/" in str(v) for v in bundle.train["config"]["dataset"].values())


def test_the_call_follows_the_operating_point(trained):
    predictor = open_predictor(load_bundle(trained[0] / "bundle"), device="cpu")
    random = np.random.default_rng(5)
    for bright in (False, True):
        image = make_image(disk(random, bright)[0][None, :, :, None].astype(np.float32), np.diag([-1.0, -1, 1, 1]))
        result = predictor.predict(image)
        assert sum(result.probabilities) == pytest.approx(1)
        over = result.probabilities[1] >= result.thresholds[1]
        assert result.called == (("bright",) if over else ("dark",)) == (("dark", "bright")[bright],)


def test_the_answer_does_not_depend_on_how_the_picture_is_stored(trained):
    predictor = open_predictor(load_bundle(trained[0] / "bundle"), device="cpu")
    values = disk(np.random.default_rng(6), True)[0][None, :, :, None].astype(np.float32)
    expected = predictor.predict(make_image(values, np.diag([-1.0, -1, 1, 1]))).probabilities
    turned = np.diag([1.0, -1, 1, 1])
    turned[0, 3] = -23
    assert predictor.predict(make_image(values[:, ::-1].copy(), turned)).probabilities == expected
    swapped = np.eye(4)[[1, 0, 2, 3]] * [[-1.0], [-1], [1], [1]]
    assert predictor.predict(make_image(values.swapaxes(1, 2).copy(), swapped)).probabilities == expected


def test_the_map_lies_on_the_image_where_the_disk_is(trained):
    predictor = open_predictor(load_bundle(trained[0] / "bundle"), device="cpu")
    random = np.random.default_rng(7)
    inside_share, chance = [], []
    for _ in range(4):
        values, inside = disk(random, True)
        image = make_image(values[None, :, :, None].astype(np.float32), np.diag([-1.0, -1, 1, 1]))
        result = predictor.predict(image, saliency="occlusion", of_class="bright")
        shown = result.saliency.values[:, :, 0]
        assert shown.shape == values.shape and 0 <= shown.min() and shown.max() <= 1
        inside_share.append(shown[inside].mean() / max(shown.mean(), 1e-6))
        chance.append(1.0)
    assert np.mean(inside_share) > 1.5  # where the disk is, the map is brighter than on average


def test_a_killed_training_goes_on_to_the_same_weights(pictures, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = config(pictures, epochs=2, iterations_per_epoch=3)
    train(settings, whole)
    steps = 0

    def count_steps(event):
        nonlocal steps
        steps += "iteration" in event.get("message", "")

    assert train(settings, parts, on_event=count_steps, should_stop=lambda: steps == 2) is None
    train(settings, parts, resume=True)
    one, other = (torch.load(p / "checkpoint.pt", weights_only=True) for p in (whole, parts))
    for key in one["network"]:
        assert torch.equal(one["network"][key], other["network"][key]), key


def test_the_command_line_answers_in_tables_and_json(trained, tmp_path, capsys):
    picture, model = tmp_path / "new.png", str(trained[0] / "bundle")
    Image.fromarray(disk(np.random.default_rng(8), True)[0].astype(np.uint8)).save(picture)
    assert main(["run", model, str(picture), str(tmp_path / "a.csv"), "--saliency", str(tmp_path / "s.nii.gz")]) == 0
    assert "Research use only" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [row["class"] for row in rows] == ["dark", "bright"] and rows[1]["called"] == "1"
    assert read_image(tmp_path / "s.nii.gz").shape == read_image(picture).shape
    assert main(["run", model, str(picture), str(tmp_path / "a.json"), "--reference", "bright", "--json"]) == 0
    said, written = json.loads(capsys.readouterr().out), json.loads((tmp_path / "a.json").read_text())
    assert said["called"] == written["called"] == ["bright"] and said["metrics"]["correct"] == 1
    assert written["warning"].startswith("Research use only")


def test_evaluate_gives_probabilities_of_each_case(trained, pictures, tmp_path, capsys):
    model = str(trained[0] / "bundle")
    assert main(["evaluate", model, str(pictures), "--json", "--curves", str(tmp_path / "curves")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["cases"]) == 18 and report["summary"]["auc"]["mean"] == 1.0  # the held-out ones
    assert set(report["cases"][0]) >= {"case", "target", "prediction", "probabilities", "correct"}
    assert len(list((tmp_path / "curves").glob("*.png"))) >= 3
    assert main(["evaluate", model, str(pictures), "--split", "all", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["cases"]) == 60


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["OUT.nii.gz"], "a classification is written as .csv or .json"),
        (["OUT.csv", "--saliency", "map.png"], "must end in one of"),
        (["OUT.csv", "--reference", "gray"], "'gray' is none; the classes are dark, bright"),
        (["OUT.csv", "--overlap", "0.5"], "sees an image at once"),
        (["OUT.csv", "--backend", "openvino"], "computed by torch"),
        (["OUT.csv", "--saliency", "OUT.nii.gz", "--saliency-method", "attention"], "attention"),
        (["OUT.csv", "--saliency", "OUT.nii.gz", "--saliency-class", "gray"], "no class 'gray'"),
    ],
)
def test_wrong_calls_get_one_sentence_and_write_nothing(trained, tmp_path, capsys, arguments, sentence):
    picture = tmp_path / "new.png"
    Image.fromarray(disk(np.random.default_rng(8), True)[0].astype(np.uint8)).save(picture)
    arguments = [a.replace("OUT", str(tmp_path / "out")) for a in arguments]
    assert main(["run", str(trained[0] / "bundle"), str(picture), *arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert sentence in said[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["new.png"]


def test_images_that_the_model_cannot_take(trained, tmp_path):
    predictor = open_predictor(load_bundle(trained[0] / "bundle"), device="cpu")
    random = np.random.default_rng(9)
    with pytest.raises(InputError, match="1 channel.*has 3"):
        predictor.predict(make_image(random.normal(size=(3, 24, 24, 1)).astype(np.float32), np.eye(4)))
    with pytest.raises(InputError, match="same value"):
        predictor.predict(make_image(np.ones((1, 24, 24, 1), np.float32), np.eye(4)))
    volume = make_image(random.normal(size=(1, 24, 24, 9)).astype(np.float32), np.eye(4))
    with pytest.raises(InputError, match="one slice thick"):
        predictor.predict(volume)
    assert predictor.predict(volume, roi=((12, 12, 4), (20, 20, 1))).kind == "binary"


def test_task_and_data_must_go_together(pictures, tmp_path):
    with pytest.raises(InputError, match="set task.name to 'classification'"):
        train({"dataset": {"path": str(pictures)}}, tmp_path / "x")
    (tmp_path / "s" / "images").mkdir(parents=True)
    (tmp_path / "s" / "labels").mkdir()
    for part, values in (
        ("images", np.random.default_rng(0).normal(size=(1, 8, 8, 8))),
        ("labels", np.ones((1, 8, 8, 8))),
    ):
        write_image(make_image(values.astype(np.float32), np.eye(4)), tmp_path / "s" / part / "a.nii.gz")
    with pytest.raises(InputError, match="data set of label maps"):
        train(config(tmp_path / "s"), tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match="mixup and cutmix are for classification"):
        complete_config({"dataset": {"path": "x"}, "augmentation": {"mixup": 0.2}})


def test_results_are_checked_and_written_whole(tmp_path):
    result = Classification(("a", "b"), "binary", (0.25, 0.75), (None, 0.5), ("b",))
    write_classification(result, tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text() == "class,probability,threshold,called\na,0.25,,0\nb,0.75,0.5,1\n"
    with pytest.raises(ValueError):
        Classification(("a", "b"), "binary", (0.25, 1.75), (None, 0.5), ("b",))
    with pytest.raises(InputError, match="two classes"):
        Classes(("a", "b", "c"), "binary")
    with pytest.raises(InputError, match="different names"):
        Classes(("a", "a"), "single-label")


def test_listing_models_needs_no_torch(trained):
    code = (
        "import sys; sys.modules['torch'] = None; from MedMapAILib.bundle import read_info; "
        f"print(read_info({str(trained[0] / 'bundle')!r}).classes.names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "bright" in done.stdout, done.stderr


def test_numbers_beside_the_classes_are_learned_where_they_are_known(tmp_path):
    """Disks of three sizes; half of the rows lack the radius."""
    random = np.random.default_rng(4)
    lines = ["image,class,radius"]
    for number in range(24):
        radius = (3, 5, 7)[number % 3]
        i, j = np.indices((24, 24))
        values = 100 + 5 * random.normal(size=(24, 24)) + 80 * ((i - 12) ** 2 + (j - 12) ** 2 < radius**2)
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'big' if radius == 7 else 'not big'},{radius if number % 2 else ''}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    settings = config(tmp_path / "list.csv", epochs=12, iterations_per_epoch=4)
    settings["dataset"] |= {"classes": ["not big", "big"], "auxiliary_columns": ["log:radius"]}
    settings["network"] = {"name": "vgg11", "width": 0.125}
    settings["augmentation"] = dict.fromkeys(
        ("affine", "noise", "blur", "brightness", "contrast", "gamma", "bias_field"), 0.0
    ) | {"mixup": 0.2}
    bundle = load_bundle(train(settings, tmp_path / "out"))
    assert bundle.inference["auxiliary"] == ["log:radius"] and bundle.network["out_channels"] == 3
    predictor = open_predictor(bundle, device="cpu")
    told = {}
    for number in range(24):
        image = read_image(tmp_path / f"{number}.png")
        assert len(predictor.predict(image).probabilities) == 2
        x = predictor.task.network_input(predictor.task.inference_transform(image))
        with torch.inference_mode():
            told.setdefault((3, 5, 7)[number % 3], []).append(float(bundle.build_network()(x)[0, 2]))
    assert np.mean(told[3]) < np.mean(told[5]) < np.mean(told[7])
    (tmp_path / "list.csv").write_text("\n".join([*lines, "0.png,big,seven"]))
    with pytest.raises(InputError, match="something else than a number under an auxiliary column.*line 26"):
        train(settings, tmp_path / "other")


def test_a_training_starts_from_another_model(trained, pictures, tmp_path):
    source = trained[0] / "bundle"
    settings = config(pictures, epochs=1, iterations_per_epoch=3)
    settings["transfer"] = {"weights": str(source), "frozen": ["stem", "layer1"], "layer_decay": 0.5}
    notes = []
    out = tmp_path / "tuned"
    train(settings, out, on_event=lambda e: notes.extend(e.get("notes", ())))
    listed = json.loads((out / "transfer.json").read_text())
    assert "conv1.weight" in listed["taken"] and any("fc" in name for name in listed["left"])
    assert listed["sentence"] in notes
    old, new = load_bundle(source).build_network().state_dict(), torch.load(out / "checkpoint.pt", weights_only=True)
    for name, value in new["network"].items():
        if "conv1.weight" in name and "layer" not in name or "layer1" in name and "running_mean" in name:
            torch.testing.assert_close(value, old[name], atol=2e-3, rtol=2e-3)  # frozen; stored as float16
    assert not torch.allclose(new["network"]["members.0.layer4.1.conv2.weight"], old["members.0.layer4.1.conv2.weight"])
    assert "tuned" not in str(load_bundle(out / "bundle").train["config"]["transfer"]["weights"])
    # A network of another width does not fit, and nothing is begun.
    settings["network"]["width"] = 0.25
    with pytest.raises(InputError, match="conv1"):
        train(settings, tmp_path / "wider")
    assert not (tmp_path / "wider").exists()
    settings["network"]["width"], settings["transfer"]["frozen"] = 0.125, ["layer9"]
    with pytest.raises(InputError, match="layer9"):
        train(settings, tmp_path / "unknown")


def test_without_a_validation_part_nothing_is_claimed(pictures, tmp_path):
    settings = config(pictures, epochs=1, iterations_per_epoch=2) | {"split": {"validation": 0.0}}
    settings["network"] = {"name": "vgg11", "width": 0.125}
    bundle = load_bundle(train(settings, tmp_path / "all"))
    assert bundle.inference["thresholds"] == [None, None] and bundle.inference["temperature"] == 1
    assert "fitted on the validation part" not in bundle.info.card
    image = make_image(disk(np.random.default_rng(1), True)[0][None, :, :, None].astype(np.float32), np.eye(4))
    result = open_predictor(bundle, device="cpu").predict(image)
    assert result.familiarity is None and len(result.called) == 1
