"""The command line: what it prints, its exit status, and that bad input costs one sentence and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from MedMapAILib import cli
from MedMapAILib.image import in_voxel_order, make_image, read_image, write_image
from MedMapAILib.results import Segmentation, read_segmentation, write_segmentation
from MedMapAILib.training.run import train
from synthetic import SEGMENTS, ball_and_box, small_config, write_dataset

LIBRARY = Path(__file__).resolve().parent.parent / "MedMapAI"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data set, a model trained on it and an image with its reference."""
    folder = tmp_path_factory.mktemp("world")
    data = write_dataset(folder / "data", 8)
    model = train(small_config(data, epochs=1, iterations_per_epoch=2), folder / "out")
    voxels, labels, affine = ball_and_box(50)
    write_image(make_image(voxels[None], affine), folder / "image.nii.gz")
    write_segmentation(Segmentation(labels, affine, SEGMENTS), folder / "reference.nii.gz")
    return folder, data, model


def call(capsys, *arguments):
    """Run a command in this process. Returns exit status, standard output and standard error."""
    try:
        status = cli.main([str(a) for a in arguments])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    return status, out, err


def refused(capsys, words, *arguments):
    """The call ends with 2 and one line that holds the words."""
    status, out, err = call(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("medmapai: ")]
    assert status == 2, err
    assert out == ""
    assert len(lines) == 1 and "Traceback" not in err
    for word in [words] if isinstance(words, str) else words:
        assert word in lines[0], lines[0]


def test_run_writes_a_segmentation_and_prints_one_json_object(world, tmp_path, capsys):
    folder, _, model = world
    output = tmp_path / "out.seg.nrrd"
    status, out, _ = call(
        capsys, "run", model, folder / "image.nii.gz", output, "--reference", folder / "reference.nii.gz", "--json"
    )
    report = json.loads(out)
    assert status == 0
    assert report["output"] == str(output)
    assert set(report["volumes_ml"]) == {"ball", "box"}
    assert {"dice", "iou", "hd95_mm", "hausdorff_mm", "surface_dice"} <= set(report["metrics"]["mean"])
    assert set(report["metrics"]["labels"]) == {"ball", "box"}
    written = read_segmentation(output)
    assert [s.name for s in written.segments] == ["ball", "box"]
    assert written.volumes_ml() == pytest.approx(report["volumes_ml"], abs=1e-4)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_label_maps_lie_on_the_input_grid(world, tmp_path, capsys, ending):
    folder, _, model = world
    status, out, _ = call(capsys, "run", model, folder / "image.nii.gz", tmp_path / f"o{ending}")
    assert status == 0 and "Research use only" in out
    image, labels = read_image(folder / "image.nii.gz"), read_segmentation(tmp_path / f"o{ending}")
    np.testing.assert_allclose(labels.affine, np.asarray(image.affine), atol=1e-5)
    assert labels.labels.shape == tuple(image.shape[1:])


def test_roi_limits_the_answer(world, tmp_path, capsys):
    folder, _, model = world
    status, _, _ = call(capsys, "run", model, folder / "image.nii.gz", tmp_path / "o.nrrd", "--roi=-2,30,15,10,10,10")
    assert status == 0
    result = read_segmentation(tmp_path / "o.nrrd")
    points = np.argwhere(result.labels > 0) @ result.affine[:3, :3].T + result.affine[:3, 3]
    assert np.all(np.abs(points - (-2, 30, 15)) <= 5)


def test_models_lists_a_named_folder(world, capsys, monkeypatch):
    _, _, model = world
    monkeypatch.setenv("MEDMAPAI_MODELS", str(model.parent))
    status, out, _ = call(capsys, "models", "--json")
    listed = {m["name"]: m for m in json.loads(out)["models"]}
    assert status == 0
    assert listed["ball-and-box"]["segments"] == ["ball", "box"]
    assert listed["ball-and-box"]["metrics"]["dice"]["mean"] >= 0
    status, out, _ = call(capsys, "models")
    assert "ball-and-box" in out


def test_evaluate_leaves_training_images_out_whatever_they_are_called(world, tmp_path, capsys):
    _, data, model = world
    renamed = tmp_path / "renamed"
    for part in ("images", "labels"):
        (renamed / part).mkdir(parents=True)
        for number, path in enumerate(sorted((data / part).iterdir())):
            shutil.copy(path, renamed / part / f"x{number}.nii.gz")
    status, out, _ = call(capsys, "evaluate", model, renamed, "--json")
    report = json.loads(out)
    assert status == 0
    assert len(report["cases"]) == 2  # a quarter of 8 was kept for validation
    assert all({"case", "dice", "hd95_mm", "ball: dice"} <= set(case) for case in report["cases"])
    assert report["summary"]["dice"]["low"] <= report["summary"]["dice"]["mean"] <= report["summary"]["dice"]["high"]
    mean = np.mean([case["dice"] for case in report["cases"]])
    assert report["summary"]["dice"]["mean"] == pytest.approx(mean)
    _, out, _ = call(capsys, "evaluate", model, renamed, "--split", "all", "--json")
    assert len(json.loads(out)["cases"]) == 8


def test_train_from_a_file_with_overrides(world, tmp_path, capsys):
    _, data, _ = world
    config = tmp_path / "c.json"
    config.write_text(json.dumps(small_config(data)))
    status, out, _ = call(
        capsys,
        "train",
        config,
        "--set",
        "training.epochs=1",
        "--set",
        "training.iterations_per_epoch=1",
        "--output",
        tmp_path / "out",
        "--json",
    )
    assert status == 0
    assert Path(json.loads(out)["bundle"]) == tmp_path / "out" / "bundle"


def bad_files(folder):
    """{name: (path, words of the sentence)} of images that are not to be taken."""
    good, _, affine = ball_and_box(1)
    image = make_image(good[None], affine)
    files = {}

    def add(name, words):
        files[name] = (folder / name, words)
        return folder / name

    add("text.nii.gz", "text.nii.gz").write_text("this is not an image")
    add("notes.pdf", "notes.pdf").write_text("neither")
    for ending in (".nrrd", ".nii", ".nii.gz"):
        path = add(f"cut{ending}", f"cut{ending}")
        write_image(image, path)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    add("empty folder", "empty folder").mkdir()
    add("missing.nrrd", "missing.nrrd")
    SimpleITK.WriteImage(
        SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(good)] * 3), str(add("four.nii.gz", ["3", "frame"]))
    )
    for name, value in (("nan.nii.gz", np.nan), ("inf.nrrd", np.inf)):
        broken = good.copy()
        broken[3, 4, 5] = value
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(broken), str(add(name, name)))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.full((9, 9, 9), 7.0)), str(add("flat.mha", "same value")))
    path = add("zero.nrrd", "zero.nrrd")
    header = "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
    header += "space directions: (0,0,0) (0,1,0) (0,0,1)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
    path.write_bytes((header + "space origin: (0,0,0)\n\n").encode() + np.arange(8, dtype="<i2").tobytes())
    return files


BAD = [
    "text.nii.gz",
    "notes.pdf",
    "cut.nrrd",
    "cut.nii",
    "cut.nii.gz",
    "empty folder",
    "missing.nrrd",
    "four.nii.gz",
    "nan.nii.gz",
    "inf.nrrd",
    "flat.mha",
    "zero.nrrd",
]


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_in_one_sentence_and_nothing_is_written(world, tmp_path, capsys, name):
    _, _, model = world
    path, words = bad_files(tmp_path)[name]
    target = tmp_path / "results"
    target.mkdir()
    refused(capsys, words, "run", model, path, target / "out.nii.gz")
    assert list(target.iterdir()) == []


def test_a_frame_of_a_4d_file_can_be_chosen(world, tmp_path, capsys):
    _, _, model = world
    path, _ = bad_files(tmp_path)["four.nii.gz"]
    status, _, err = call(capsys, "run", model, path, tmp_path / "o.nii.gz", "--frame", 1)
    assert status == 0, err


def test_a_reference_may_be_stored_in_another_order(world, tmp_path, capsys):
    folder, _, model = world
    reference = read_segmentation(folder / "reference.nii.gz", SEGMENTS)
    turned, affine = in_voxel_order(
        reference.labels, reference.affine, reference.affine @ np.diag([-1.0, 1, 1, 1])[[1, 0, 2, 3]]
    )
    write_segmentation(Segmentation(turned, affine, SEGMENTS), tmp_path / "turned.nii.gz")
    scores = []
    for path in (folder / "reference.nii.gz", tmp_path / "turned.nii.gz"):
        out = call(capsys, "run", model, folder / "image.nii.gz", tmp_path / "o.nrrd", "--reference", path, "--json")[1]
        scores.append(json.loads(out)["metrics"])
    assert turned.shape != reference.labels.shape or not np.array_equal(turned, reference.labels)
    assert scores[0] == scores[1]


def test_image_and_reference_of_different_geometry(world, tmp_path, capsys):
    folder, _, model = world
    voxels, labels, affine = ball_and_box(50)
    moved = affine.copy()
    moved[0, 3] += 5
    write_segmentation(Segmentation(labels, moved, SEGMENTS), tmp_path / "moved.nii.gz")
    refused(
        capsys,
        ["moved.nii.gz", "origin"],
        "run",
        model,
        folder / "image.nii.gz",
        tmp_path / "o.nrrd",
        "--reference",
        tmp_path / "moved.nii.gz",
    )
    assert not (tmp_path / "o.nrrd").exists()


def test_a_reference_with_undeclared_labels(world, tmp_path, capsys):
    folder, _, model = world
    _, labels, affine = ball_and_box(50)
    SimpleITK.WriteImage(
        SimpleITK.Cast(SimpleITK.ReadImage(str(folder / "reference.nii.gz")) * 3, SimpleITK.sitkUInt8),
        str(tmp_path / "three.nii.gz"),
    )
    refused(
        capsys,
        ["three.nii.gz", "3", "6"],
        "run",
        model,
        folder / "image.nii.gz",
        tmp_path / "o.nrrd",
        "--reference",
        tmp_path / "three.nii.gz",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nosuch", "image.nii.gz", "o.nrrd"], "nosuch"),
        (["run", "MODEL", "image.nii.gz", "o.jpg"], ".jpg"),
        (["run", "MODEL", "image.nii.gz", "no/such/folder/o.nrrd"], "folder"),
        (["run", "MODEL", "image.nii.gz", "o.nrrd", "--device", "cuda:7"], "cuda:7"),
        (["run", "MODEL", "image.nii.gz", "o.nrrd", "--roi=500,0,0,5,5,5"], "no voxel"),
        (["run", "MODEL", "image.nii.gz", "o.nrrd", "--roi=nan,0,0,5,5,5"], "six numbers"),
        (["run", "MODEL", "image.nii.gz", "o.nrrd", "--add-hu=nan"], "no finite number"),
        (["run", "MODEL", "image.nii.gz", "o.nrrd", "--memory=0"], "not above 0"),
        (["run", "MODEL", "image.nii.gz", "o.nrrd", "--scene", "o.xml"], ".mrb"),
        (["evaluate", "MODEL", "nosuch"], "nosuch"),
        (["train", "nosuch.toml", "--output", "out"], "nosuch.toml"),
        (["run", "MODEL"], "INPUT, OUTPUT"),
        (["segment"], "segment"),
    ],
)
def test_wrong_calls(world, tmp_path, capsys, monkeypatch, arguments, words):
    folder, _, model = world
    shutil.copy(folder / "image.nii.gz", tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    refused(capsys, words, *[str(model) if a == "MODEL" else a for a in arguments])
    assert sorted(tmp_path.rglob("*")) == before


def test_places_of_a_cross_validation_are_checked_first(world, tmp_path, capsys):
    folder, data, _ = world
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"dataset": {"path": str(data)}}))
    taken = tmp_path / "taken"
    taken.write_text("")
    refused(capsys, "cannot be written", "crossvalidate", config, "--output", taken / "out")
    refused(capsys, "is a file", "crossvalidate", config, "--output", taken)
    refused(capsys, "--curves", "crossvalidate", config, "--output", tmp_path / "o", "--curves", tmp_path / "curves")
    assert sorted(tmp_path.iterdir()) == [config, taken]


def test_a_box_of_five_numbers_is_explained(world, tmp_path, capsys):
    folder, _, model = world
    status, _, err = call(capsys, "run", model, folder / "image.nii.gz", tmp_path / "o.nrrd", "--roi=1,2,3,4,5")
    assert status == 2 and "six numbers" in err


def test_a_folder_that_cannot_be_written_to(world, capsys):
    folder, _, model = world
    refused(capsys, "/proc", "run", model, folder / "image.nii.gz", "/proc/o.nrrd")


def limited(world, tmp_path, size):
    """Run in a process that may write files of so many bytes: what a full disk looks like."""
    folder, _, model = world
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}));"
        "from MedMapAILib.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, "run", str(model), str(folder / "image.nii.gz"), str(tmp_path / "o.nrrd")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files.")
def test_a_full_disk_leaves_nothing_behind(world, tmp_path):
    ended = limited(world, tmp_path, 200)
    assert ended.returncode in (1, 2), ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith("medmapai: ")]
    assert len(lines) == 1 and "o.nrrd" in lines[0] and "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_bad_training_data_is_listed_before_anything_is_written(world, tmp_path, capsys):
    _, data, _ = world
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    (broken / "labels" / "case_03.nii.gz").unlink()
    (broken / "images" / "case_05.nii.gz").unlink()
    config = tmp_path / "c.json"
    config.write_text(json.dumps(small_config(broken)))
    refused(capsys, ["case_03", "case_05"], "train", config, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_outside_the_declared_set_stop_a_training(world, tmp_path, capsys):
    _, data, _ = world
    settings = small_config(data)
    settings["dataset"]["labels"] = {"1": "ball"}
    config = tmp_path / "c.json"
    config.write_text(json.dumps(settings))
    refused(capsys, ["2", "case_0"], "train", config, "--output", tmp_path / "out")
