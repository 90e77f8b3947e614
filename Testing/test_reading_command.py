"""``medmapai reading``: studies of files, the checks of their images, and the report."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from MedMapAILib.cli import main
from MedMapAILib.errors import InputError
from MedMapAILib.image import read_volume, write_array
from MedMapAILib.reading import ReadingSession
from MedMapAILib.reading.images import check_images_there, make_study, shown_image
from MedMapAILib.reading.sources import images_of
from MedMapAILib.reading.study import load_key, load_study

CASES, METHODS = ("p1", "p2"), ("fbp", "tv", "net")


def voxels(case, method):
    seed = 10 * CASES.index(case) + METHODS.index(method)
    return np.random.default_rng(seed).normal(50, 10, (7, 6, 5)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Images in folders of the methods."""
    for method in METHODS:
        (tmp_path / "images" / method).mkdir(parents=True)
        for case in CASES:
            write_array(voxels(case, method), np.diag([1.0, 2, 3, 1]), tmp_path / "images" / method / f"{case}.nrrd")
    return tmp_path / "images"


def table(folder, *lines, header="case,method,file"):
    path = folder / "list.csv"
    every = lines or [f"{case},{method},{method}/{case}.nrrd" for case in CASES for method in METHODS]
    path.write_text("\n".join([header, *every]))
    return path


def read_all(study, reader, scores):
    session, key = ReadingSession(study, reader), load_key(study)
    while (position := session.next_open()) is not None:
        for code in session.go_to(position):
            for criterion in session.study.criteria:
                session.score(code, criterion, scores[key.entries[code].method])
    session.finish()


def run(capsys, *arguments):
    status = main(["reading", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_create_read_report(folder, tmp_path, capsys):
    study = tmp_path / "study"
    status, out, _err = run(capsys, "create", table(folder), study, "--window=0,100", "--layout", "side-by-side")
    assert status == 0 and out.strip() == f"{study}: 6 images, 2 cases by 3 methods"
    assert load_study(study).layout == "side-by-side"
    assert load_key(study).windows == dict.fromkeys(CASES, (0.0, 100.0))
    read_all(study, "R1", {"fbp": 2, "tv": 3, "net": 5})
    read_all(study, "R2", {"fbp": 1, "tv": 3, "net": 4})
    status, out, _err = run(capsys, "report", study, "--resamples", 100)
    assert status == 0 and "scored: R1 6 of 6, R2 6 of 6" in out
    lines = [line.split() for line in out.splitlines()]
    assert next(line for line in lines if line[:2] == ["noise", "net"])[2] == "4.5"
    assert any("ICC(2,1)" in line for line in out.splitlines()) and "kappa, quadratic" in out and "p (Holm)" in out
    status, out, _err = run(
        capsys, "report", study, "--json", "--output", tmp_path / "a.csv", "--output", tmp_path / "b.json"
    )
    assert status == 0 and json.loads(out) == json.loads((tmp_path / "b.json").read_text())
    assert len(list(csv.DictReader((tmp_path / "a.csv").open()))) == 12


def test_folder_and_table_are_the_same(folder, tmp_path, capsys):
    assert images_of(folder) == images_of(table(folder))
    status, out, _err = run(capsys, "create", folder, tmp_path / "s", "--key", tmp_path / "key.json", "--json")
    assert status == 0 and json.loads(out)["methods"] == sorted(METHODS)
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["study.json"]


def test_a_window_spans_all_images_of_the_case(folder, tmp_path):
    make_study(tmp_path / "s", images_of(folder))
    windows = load_key(tmp_path / "s").windows
    for case in CASES:
        both = np.concatenate([voxels(case, method).ravel() for method in METHODS])
        assert windows[case] == pytest.approx(tuple(np.percentile(both, [1, 99])))
    # What is the same everywhere has a window, too.
    (tmp_path / "flat" / "a").mkdir(parents=True)
    write_array(np.full((3, 3, 3), 7, np.int16), np.eye(4), tmp_path / "flat" / "a" / "p.nrrd")
    make_study(tmp_path / "t", images_of(tmp_path / "flat"))
    assert load_key(tmp_path / "t").windows == {"p": (7.0, 8.0)}


def test_the_image_that_is_shown(folder, tmp_path):
    make_study(tmp_path / "s", images_of(folder))
    session, key = ReadingSession(tmp_path / "s", "R1"), load_key(tmp_path / "s")
    for code, entry in key.entries.items():
        volume = shown_image(tmp_path / "s", session, code)
        np.testing.assert_array_equal(volume.array, voxels(entry.case, entry.method))
    check_images_there(tmp_path / "s")
    code, entry = next(iter(key.entries.items()))
    path = folder / entry.method / f"{entry.case}.nrrd"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"image {code} of this study") as caught:
        shown_image(tmp_path / "s", session, code)
    assert not any(method in str(caught.value) for method in METHODS)
    path.unlink()
    with pytest.raises(InputError, match=f"image {code} of this study") as caught:
        check_images_there(tmp_path / "s")
    assert not any(method in str(caught.value) for method in METHODS)


def test_images_beside_the_study_are_found_after_a_move(folder, tmp_path):
    (tmp_path / "s").mkdir()
    write_array(voxels("p1", "fbp"), np.eye(4), tmp_path / "s" / "x.nrrd")
    make_study(tmp_path / "s", {"p1": {"fbp": "x.nrrd"}})
    (tmp_path / "s").rename(tmp_path / "t")
    session = ReadingSession(tmp_path / "t", "R1")
    assert shown_image(tmp_path / "t", session, session.codes[0]).array.shape == (7, 6, 5)


# -- bad input ---------------------------------------------------------------------------------------------------------


def other_grid(folder):
    write_array(voxels("p2", "tv"), np.diag([1.0, 2, 2.5, 1]), folder / "tv" / "p2.nrrd")


def other_size(folder):
    write_array(voxels("p2", "tv")[:-1], np.diag([1.0, 2, 3, 1]), folder / "tv" / "p2.nrrd")


def nan(folder):
    values = voxels("p2", "tv")
    values[1, 2, 3] = np.nan
    write_array(values, np.diag([1.0, 2, 3, 1]), folder / "tv" / "p2.nrrd")


def half(folder):
    path = folder / "tv" / "p2.nrrd"
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (other_grid, "Case p2: the image of fbp and that of tv are not in the same place: the spacing is"),
        (other_size, "Case p2: the image of fbp has 7×6×5 voxels and that of tv has 6×6×5"),
        (nan, "Case p2: the image of tv has 1 voxel that is NaN"),
        (half, "tv/p2.nrrd cannot be read as an image"),
    ],
)
def test_images_that_cannot_be_compared(folder, tmp_path, capsys, damage, sentence):
    path = table(folder)
    damage(folder)
    status, out, err = run(capsys, "create", path, tmp_path / "s")
    assert (status, out) == (2, "") and err.count("\n") == 1 and sentence in err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("lines", "header", "sentence"),
    [
        (
            ["p1,fbp,fbp/p1.nrrd", "p1,fbp,tv/p1.nrrd"],
            "case,method,file",
            "line 3: case p1 has an image of fbp",
        ),
        (["p1,fbp,gone.nrrd"], "case,method,file", "line 2: there is no file"),
        (["p1,,fbp/p1.nrrd"], "case,method,file", "line 2: there is no method"),
        (["p1,fbp/p1.nrrd"], "case,file", "no column method"),
        (["p1,fbp,fbp/p1.nrrd", "p2,tv,tv/p2.nrrd"], "case,method,file", "Case p1 has no image of tv"),
    ],
)
def test_tables_with_mistakes(folder, tmp_path, capsys, lines, header, sentence):
    status, _out, err = run(capsys, "create", table(folder, *lines, header=header), tmp_path / "s")
    assert status == 2 and sentence in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("create", "{t}/none", "{t}/s"), "There is no file or folder"),
        (("create", "{t}", "{t}/s"), "holds no images to read"),
        (("create", "{t}/images", "{t}/s", "--window=5"), "is no window"),
        (("create", "{t}/images", "{t}/s", "--window=5,a"), "is no window"),
        (("create", "{t}/images", "{t}/s", "--seed=-1"), "--seed -1 makes no sense"),
        (("create", "{t}/images", "{t}/half"), "is there already"),
        (("create", "{t}/images", "{t}/s", "--key", "{t}/none/key.json"), "there is no folder"),
        (("report", "{t}/none"), "There is no file"),
        (("report", "{t}/half"), "There is no file"),
        (("report", "{t}/done"), "Nobody has begun"),
        (("report", "{t}/done", "--output", "{t}/a.xlsx"), "neither .csv nor .json"),
        (("report", "{t}/done", "--resamples", "0"), "--resamples 0 makes no sense"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, capsys, arguments, sentence):
    make_study(tmp_path / "done", images_of(folder))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "key.json").write_bytes((tmp_path / "done" / "key.json").read_bytes())
    # images/ and done/ aside, there is nothing in the folder that could be a method.
    status, out, err = run(capsys, *(argument.format(t=tmp_path) for argument in arguments))
    assert (status, out) == (2, "") and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_voxels_keep_their_type(tmp_path):
    (tmp_path / "a").mkdir()
    write_array(np.arange(27, dtype=np.int16).reshape(3, 3, 3), np.eye(4), tmp_path / "a" / "p.nrrd")
    make_study(tmp_path / "s", images_of(tmp_path))
    session = ReadingSession(tmp_path / "s", "R1")
    assert shown_image(tmp_path / "s", session, session.codes[0]).array.dtype == np.int16
    assert read_volume(tmp_path / "a" / "p.nrrd").array.dtype == np.int16
