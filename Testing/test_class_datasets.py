"""Data sets of classes: MedMNIST files, a folder a class, tables; their splits, their duplicates, and what is wrong."""

import hashlib
import http.server
import threading
import time
import warnings
from collections import Counter

import numpy as np
import pytest
from dicom_series import write_series
from MedMapAILib.datasets import Case, Dataset, medmnist_sets, open_dataset
from MedMapAILib.datasets.duplicates import content_hash, find_duplicates
from MedMapAILib.datasets.loading import load_case
from MedMapAILib.datasets.medmnist import downloaded, read_member
from MedMapAILib.datasets.scene import crop, write_class_cases
from MedMapAILib.datasets.split import Split, make_split, read_split, with_duplicates, write_split
from MedMapAILib.datasets.targets import ordered_classes
from MedMapAILib.errors import InputError
from MedMapAILib.image import affine_of, make_image, read_image, write_image
from PIL import Image


def refused(*words, call=open_dataset, arguments=(), **options):
    """The call raises InputError, one line that holds the words; returns the sentence."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence
    return sentence


def noise(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def write_npz(path, counts=(12, 6, 4), shape=(28, 28), classes=2, **changes):
    """A file as MedMNIST's, labels 0, 1, 2 … in turn. changes: arrays instead, or None for one that is not there."""
    arrays = {}
    for seed, (part, count) in enumerate(zip(("train", "val", "test"), counts, strict=True)):
        if count:
            arrays[f"{part}_images"] = noise(count, *shape, seed=seed)
            arrays[f"{part}_labels"] = (np.arange(count, dtype=np.uint8) % classes)[:, None]
    arrays = {name: array for name, array in (arrays | changes).items() if array is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def write_folders(folder, count=4, classes=("normal", "pneumonia"), size=(20, 16), ending=".png"):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            Image.fromarray(noise(*size, seed=100 * number + n)).save(folder / name / f"{name}_{n}{ending}")
    return folder


def write_table(path, rows, header=("image", "class")):
    path.write_text("\n".join(",".join(map(str, row)) for row in (header, *rows)) + "\n", encoding="utf-8")
    return path


# -------------------------------------------------------------------------------------------------------- MedMNIST


def test_a_file_of_the_collection_is_known_by_its_name(tmp_path):
    dataset = open_dataset(write_npz(tmp_path / "pneumoniamnist.npz"))
    assert (dataset.classes, dataset.kind, dataset.channels) == (("normal", "pneumonia"), "binary", ("image",))
    assert len(dataset.cases) == 22 and dataset.labels == {}
    case = next(case for case in dataset.cases if case.name == "train_07")
    assert (case.classes, case.member, case.patient) == ((1,), "train_images/7", "train_07")
    assert Counter(dataset.source["split"].values()) == {"train": 12, "validation": 6, "test": 4}
    assert dataset.source["license"] == "CC BY 4.0"
    image, reference = load_case(case, dataset)
    stored = noise(12, 28, 28)[7]
    assert image.shape == (1, 28, 28, 1)
    np.testing.assert_array_equal(image.numpy()[0, ..., 0], stored.T)
    np.testing.assert_array_equal(affine_of(image), np.diag([-1, -1, 1, 1]))
    assert reference.true == (1,) and reference.classes == dataset.classes
    # The same picture as a file lies in the same place.
    Image.fromarray(stored).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").numpy(), image.numpy())
    split = make_split(dataset)
    assert (len(split.train), len(split.validation), len(split.test)) == (12, 6, 4)


def test_color_images_and_volumes(tmp_path):
    dataset = open_dataset(write_npz(tmp_path / "bloodmnist_64.npz", (16, 8, 8), (9, 7, 3), classes=8))
    assert (dataset.kind, len(dataset.classes)) == ("single-label", 8)
    assert dataset.channels == ("red", "green", "blue")
    image = read_member(dataset.cases[0].images[0], "val_images/3")
    np.testing.assert_array_equal(image.numpy()[..., 0], noise(8, 9, 7, 3, seed=1)[3].T)
    dataset = open_dataset(write_npz(tmp_path / "nodulemnist3d.npz", shape=(5, 6, 7)))
    assert (dataset.classes, dataset.channels) == (("benign", "malignant"), ("image",))
    image, _ = load_case(dataset.cases[0], dataset)
    assert image.shape == (1, 7, 6, 5)  # slices, rows, columns → i along columns, j down rows, k through slices
    np.testing.assert_array_equal(image.numpy()[0], noise(4, 5, 6, 7, seed=2)[0].T)


def test_kinds_of_target(tmp_path):
    flags = noise(20, 14, seed=5) % 2
    path = write_npz(tmp_path / "chestmnist.npz", (20, 0, 0), train_labels=flags, train_images=noise(20, 28, 28))
    dataset = open_dataset(path)
    assert (dataset.kind, dataset.classes[6]) == ("multi-label", "pneumonia")
    for number, case in enumerate(dataset.cases):
        assert case.classes == tuple(np.flatnonzero(flags[number]))
    assert load_case(dataset.cases[3], dataset)[1].vector.tolist() == flags[3].tolist()
    dataset = open_dataset(write_npz(tmp_path / "retinamnist.npz", shape=(28, 28, 3), classes=4))
    assert (dataset.kind, dataset.classes) == ("ordinal", ("0", "1", "2", "3", "4"))
    refused("training part", "no case of 4", call=make_split, arguments=[dataset])
    path = write_npz(tmp_path / "fracturemnist3d.npz", shape=(4, 4, 4), classes=3)
    assert open_dataset(path).kind == "single-label"
    assert open_dataset(path, options={"target": "ordinal"}).kind == "ordinal"
    refused("binary", "3 classes", arguments=[path], options={"target": "binary"})
    refused("'regression'", "binary, single-label", arguments=[path], options={"target": "regression"})


def test_a_file_that_is_nobodys(tmp_path):
    path = write_npz(tmp_path / "mine.npz", (9, 0, 0), classes=3)
    dataset = open_dataset(path)
    assert (dataset.classes, dataset.kind) == (("0", "1", "2"), "single-label")
    assert open_dataset(path, options={"classes": ["a", "b", "c"], "target": "ordinal"}).classes == ("a", "b", "c")
    refused("names 2 classes", arguments=[path], options={"classes": ["a", "b"]})
    shifted = write_npz(tmp_path / "shifted.npz", (4, 0, 0), train_labels=np.array([1, 2, 2, 1]))
    dataset = open_dataset(shifted, options={"classes": ["good", "bad"]})
    assert [case.classes for case in dataset.cases] == [(0,), (1,), (1,), (0,)]
    split = make_split(dataset, validation=0.5)
    assert len(split.validation) == 2


def test_names_of_published_classes_are_not_exchanged(tmp_path):
    path = write_npz(tmp_path / "pneumoniamnist.npz")
    refused("benign, malignant", "normal, pneumonia", arguments=[path], options={"classes": ["benign", "malignant"]})
    turned = open_dataset(path, options={"classes": ["pneumonia", "normal"]})
    straight = open_dataset(path)
    assert turned.classes == ("pneumonia", "normal")
    assert all(a.classes[0] == 1 - b.classes[0] for a, b in zip(turned.cases, straight.cases, strict=True))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"train_labels": np.full(12, 0.5)}, ["12 labels", "not whole numbers", "0.5"]),
        ({"train_labels": np.full(12, np.nan)}, ["not whole numbers"]),
        ({"train_labels": np.array(["a", "b"] * 6)}, ["not whole numbers"]),
        ({"train_labels": np.array(["a", None] * 6, dtype=object)}, ["train_labels", "not opened"]),
        ({"train_labels": np.zeros(11)}, ["12 train_images", "(11, 1)"]),
        ({"train_labels": np.full(12, 2)}, ["are 2", "2 classes"]),
        ({"train_labels": np.zeros((12, 2), int)}, ["columns"]),
        ({"train_labels": None}, ["no train_labels"]),
        ({"train_images": noise(12, 14, 14)}, ["different sizes"]),
        (dict.fromkeys(("val_images", "val_labels", "test_images", "test_labels")) | {"train_labels": np.ones(12)},
         ["one class only (pneumonia)"]),
    ],
)  # fmt: skip
def test_files_that_are_wrong(tmp_path, changes, words):
    refused("pneumoniamnist.npz", *words, arguments=[write_npz(tmp_path / "pneumoniamnist.npz", **changes)])


def test_files_that_are_none(tmp_path):
    path = write_npz(tmp_path / "pneumoniamnist.npz")
    data = path.read_bytes()
    for part in (0, 10, len(data) // 2, len(data) - 10):
        path.write_bytes(data[:part])
        refused("truncated or damaged", arguments=[path])
    np.savez(path, a=np.zeros(3))
    refused("no arrays train_images", "it has a", arguments=[path])
    damaged = bytearray(data)
    damaged[len(data) // 3] ^= 1
    path.write_bytes(damaged)
    dataset = open_dataset(path)
    case = next(case for case in dataset.cases if case.name == "train_00")
    refused("damaged", call=load_case, arguments=[case, dataset])
    refused("names no patients", arguments=[path], patient_pattern="(a)")


@pytest.fixture
def zenodo(tmp_path, monkeypatch):
    """A server with the folder tmp_path/record, known to the library as the place of the collection."""
    (tmp_path / "record").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "record"))

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(medmnist_sets, "FILES", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MEDMAPAI_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "record"
    server.shutdown()
    server.server_close()


def test_a_set_is_downloaded_once_and_checked(zenodo, tmp_path, monkeypatch):
    path = write_npz(zenodo / "breastmnist_64.npz", shape=(64, 64))
    sentence = refused("MD5", "breastmnist_64.npz", call=downloaded, arguments=["breastmnist_64"])
    assert "published" in sentence and not list((tmp_path / "cache").rglob("*.npz"))
    sums = {64: hashlib.md5(path.read_bytes()).hexdigest()}
    known = medmnist_sets.SETS["breastmnist"]
    monkeypatch.setitem(medmnist_sets.SETS, "breastmnist", medmnist_sets.PublishedSet(known.kind, known.classes, sums))
    dataset = open_dataset("medmnist:breastmnist_64")
    assert dataset.classes == ("malignant", "normal, benign")
    assert dataset.cases[0].images[0] == tmp_path / "cache" / "medmnist" / "breastmnist_64.npz"
    path.unlink()
    assert open_dataset("medmnist:breastmnist_64").cases == dataset.cases
    # What is not there: the sentence says what to put where.
    refused("pneumoniamnist.npz", str(tmp_path / "cache"), "not found", arguments=["medmnist:pneumoniamnist"])
    refused("no set 'nonsense'", "pneumoniamnist", arguments=["medmnist:nonsense"])
    refused("28, 64", "not 224", arguments=["medmnist:organmnist3d_224"])


def test_the_table_of_the_collection():
    assert len(medmnist_sets.SETS) == 18
    for name, known in medmnist_sets.SETS.items():
        assert set(known.md5) == ({28, 64} if name.endswith("3d") else {28, 64, 128, 224})
        assert all(len(md5) == 32 for md5 in known.md5.values())
        assert len(set(known.classes)) == len(known.classes) >= 2
    assert len({md5 for known in medmnist_sets.SETS.values() for md5 in known.md5.values()}) == 12 * 4 + 6 * 2


def test_pneumoniamnist_is_opened_read_and_searched_in_no_time(shared_data):
    path = shared_data("pneumoniamnist/pneumoniamnist_trainval.npz")
    start = time.process_time()
    dataset = open_dataset(path)
    for case in dataset.cases:
        read_member(case.images[0], case.member)
    groups = find_duplicates(dataset.cases)
    assert time.process_time() - start < 3  # 0.8 s when this was written
    assert (len(dataset.cases), dataset.kind, dataset.classes) == (4406, "binary", ("normal", "pneumonia"))
    # Counted by hand, with the bytes of the images as keys of a dictionary.
    assert len(groups) == 23 and ("train_0221", "train_2327", "val_172") in groups
    split = make_split(dataset)
    part = {name: p for p in ("train", "validation", "test") for name in getattr(split, p)}
    assert all(len({part[name] for name in group}) == 1 for group in groups)
    counts = Counter(case.classes for case in dataset.cases if part[case.name] == "validation")
    assert counts[(0,)] + counts[(1,)] == len(split.validation)


# --------------------------------------------------------------------------------------------------- a folder a class


def test_a_folder_a_class(tmp_path):
    write_folders(tmp_path / "Thorax")
    (tmp_path / "Thorax" / "__MACOSX" / "normal").mkdir(parents=True)
    (tmp_path / "Thorax" / "normal" / "._normal_0.png").write_bytes(b"\0")
    (tmp_path / "Thorax" / "normal" / "Thumbs.db").write_bytes(b"\0")
    dataset = open_dataset(tmp_path / "Thorax")
    assert (dataset.name, dataset.classes, dataset.kind) == ("Thorax", ("normal", "pneumonia"), "binary")
    assert [case.name for case in dataset.cases] == [f"{c}_{n}" for c in dataset.classes for n in range(4)]
    image, reference = load_case(dataset.cases[5], dataset)
    np.testing.assert_array_equal(image.numpy()[0, ..., 0], noise(20, 16, seed=101).T)
    assert reference.true == (1,)
    turned = open_dataset(tmp_path / "Thorax", options={"classes": ["pneumonia", "normal"]})
    assert turned.classes == ("pneumonia", "normal") and turned.cases[0].classes == (1,)
    refused(
        "dataset.classes does not list (pneumonia)",
        arguments=[tmp_path / "Thorax"],
        options={"classes": ["normal", "covid"]},
    )
    refused("multi-label", "one class a case", arguments=[tmp_path / "Thorax"], options={"target": "multi-label"})


def test_folders_of_parts(tmp_path):
    for number, part in enumerate(("train", "val", "test")):
        write_folders(tmp_path / part, 3 + number)
    dataset = open_dataset(tmp_path)
    # The same file name in each part: the names tell them apart.
    assert dataset.cases[0].name == "test_normal_normal_0"
    assert Counter(dataset.source["split"].values()) == {"train": 6, "validation": 8, "test": 10}
    (tmp_path / "extra").mkdir()
    (tmp_path / "train" / "covid").mkdir()
    refused("beside those of the parts (extra)", "without images (train/covid)", arguments=[tmp_path])


def test_patients_and_dicom_series_in_class_folders(tmp_path):
    write_folders(tmp_path, 1)
    for number in range(2):
        for patient in ("anna", "bert"):
            (tmp_path / "normal" / patient).mkdir(exist_ok=True)
            Image.fromarray(noise(9, 9, seed=number)).save(tmp_path / "normal" / patient / f"{number}.png")
    write_series(tmp_path / "pneumonia" / "series", [(0, 0, 2.0 * k) for k in range(3)])
    dataset = open_dataset(tmp_path)
    patients = {case.name: case.patient for case in dataset.cases}
    assert patients["normal_anna_1"] == "anna" and patients["normal_normal_0"] == "normal_normal_0"
    assert len(dataset.cases) == 2 + 4 + 1
    series = next(case for case in dataset.cases if case.images[0].is_dir())
    assert load_case(series, dataset)[0].shape == (1, 6, 5, 3)
    dataset = open_dataset(write_folders(tmp_path / "b"), patient_pattern=r"_(\d)")
    assert [case.patient for case in dataset.cases] == list("01230123")
    refused("does not match", "normal_3", arguments=[tmp_path / "b"], patient_pattern=r"_([012])")


def test_folders_that_are_wrong(tmp_path):
    refused("one class only (normal)", arguments=[write_folders(tmp_path / "a", classes=["normal"])])
    (tmp_path / "b" / "normal").mkdir(parents=True)
    (tmp_path / "b" / "pneumonia").mkdir()
    refused("no images", arguments=[tmp_path / "b"])
    folder = write_folders(tmp_path / "c", classes=["mild", "none", "severe"])
    assert open_dataset(folder).kind == "single-label"
    refused("order of the classes", "mild, none, severe", arguments=[folder], options={"target": "ordinal"})
    graded = open_dataset(folder, options={"target": "ordinal", "classes": ["none", "mild", "severe"]})
    assert graded.kind == "ordinal" and graded.cases[0].classes == (1,)
    (folder / "mild" / "x.png").write_bytes(b"no picture")
    (folder / "none" / "y.jpg").write_bytes(b"")
    refused("2 picture(s) that cannot be read", "x.png", "y.jpg", arguments=[folder])


def test_sizes_and_bits_may_be_mixed(tmp_path):
    folder = write_folders(tmp_path)
    Image.fromarray(noise(50, 30, seed=7, dtype=np.uint16)).save(folder / "normal" / "large.png")
    dataset = open_dataset(folder)
    assert "8 and of 16 bits" in dataset.source["notes"][0]
    sizes = {load_case(case, dataset)[0].shape for case in dataset.cases}
    assert sizes == {(1, 16, 20, 1), (1, 30, 50, 1)}
    large = next(case for case in dataset.cases if case.name == "large")
    assert load_case(large, dataset)[0].max() > 255


def test_rgba_pictures(tmp_path):
    folder = write_folders(tmp_path)
    values = np.dstack([noise(20, 16, 3, seed=7), np.full((20, 16), 255, np.uint8)])
    for name in ("normal", "pneumonia"):
        for path in (folder / name).iterdir():
            Image.fromarray(values).save(path)
            values = values[::-1].copy()
    dataset = open_dataset(folder)
    assert dataset.channels == ("red", "green", "blue")
    assert load_case(dataset.cases[0], dataset)[0].shape == (3, 16, 20, 1)
    values[0, 0, 3] = 9
    Image.fromarray(values).save(folder / "normal" / "normal_0.png")
    refused("normal_0.png", "transparent", call=load_case, arguments=[dataset.cases[0], dataset])


def test_gray_and_color_in_one_data_set(tmp_path):
    folder = write_folders(tmp_path)
    Image.fromarray(np.dstack([noise(20, 16, seed=7)] * 3)).save(folder / "normal" / "gray.png")
    dataset = open_dataset(folder)
    assert dataset.channels == ("image",)
    assert "1 of its 9 images are gray and saved in color" in dataset.source["notes"][0]
    assert {load_case(case, dataset)[0].shape for case in dataset.cases} == {(1, 16, 20, 1)}
    Image.fromarray(noise(20, 16, 3, seed=8)).save(folder / "normal" / "color.png")
    dataset = open_dataset(folder)
    assert dataset.channels == ("red", "green", "blue")
    assert "8 of its 10 images are gray and the others in color" in dataset.source["notes"][0]
    assert {load_case(case, dataset)[0].shape for case in dataset.cases} == {(3, 16, 20, 1)}


# ------------------------------------------------------------------------------------------------------------- tables


def test_a_table_of_classes(tmp_path):
    write_folders(tmp_path / "Pictures")
    rows = [
        (f"{c}\\{c}_{n}.png", c, f"P{n}", "train" if n else "test") for c in ("normal", "pneumonia") for n in range(4)
    ]
    path = write_table(tmp_path / "list.csv", rows, ("Image", "Class", "Patient", "Split"))
    dataset = open_dataset(path, options={"image_folder": "Pictures"})
    assert (dataset.classes, dataset.kind, dataset.labels) == (("normal", "pneumonia"), "binary", {})
    assert [(c.name, c.patient, c.classes) for c in dataset.cases[3:5]] == [
        ("normal_3", "P3", (0,)),
        ("pneumonia_0", "P0", (1,)),
    ]
    assert dataset.source["split"]["normal_0"] == "test"
    assert load_case(dataset.cases[4], dataset)[1].true == (1,)
    refused("no folder", "image_folder", arguments=[path], options={"image_folder": "gone"})
    refused("no column 'Scan'", "Image, Class, Patient, Split", arguments=[path], options={"image_column": "Scan"})
    # A column label that names no files holds classes, one that does label maps.
    path = write_table(tmp_path / "Pictures" / "b.csv", [row[:2] for row in rows], ("image", "label"))
    assert open_dataset(path).classes == ("normal", "pneumonia")
    path = write_table(tmp_path / "c.csv", [("a.nii.gz", "b.nii.gz")], ("image", "label"))
    refused("2 missing file(s) (a.nii.gz, b.nii.gz)", arguments=[path])


def test_several_columns_of_classes(tmp_path):
    write_folders(tmp_path)
    flags = [(1, 0, 0), ("yes", "Yes", "no"), (0, 0, 0), ("True", "false", 1)]
    rows = [(f"normal/normal_{n}.png", *flag) for n, flag in enumerate(flags)]
    path = write_table(tmp_path / "list.csv", rows, ("image", "Mass", "Edema", "Nodule"))
    options = {"class_columns": ["Mass", "Edema", "Nodule"]}
    dataset = open_dataset(path, options=options)
    assert (dataset.classes, dataset.kind) == (("Mass", "Edema", "Nodule"), "multi-label")
    assert [case.classes for case in dataset.cases] == [(0,), (0, 1), (), (0, 2)]
    refused("choose multi-label", arguments=[path], options=options | {"target": "single-label"})
    refused("one column", arguments=[path], options={"class_columns": ["Mass"]})
    refused("class_columns", "list of names", arguments=[path], options={"class_columns": "Mass"})
    rows[1] = (rows[1][0], -1, 0, 0)
    refused(
        "0 and 1",
        "line 3, Mass",
        arguments=[write_table(path, rows, ("image", "Mass", "Edema", "Nodule"))],
        options=options,
    )


def test_all_files_that_are_missing_are_listed(tmp_path):
    write_folders(tmp_path)
    rows = [(f"gone_{n}.png", n % 2) for n in range(25)] + [("normal/normal_0.png", 1)]
    sentence = refused("25 missing file(s)", arguments=[write_table(tmp_path / "list.csv", rows)])
    assert all(f"gone_{n}.png" in sentence for n in range(25)) and "normal_0" not in sentence


@pytest.mark.parametrize(
    "texts, options, words",
    [
        (["a", "a", "a"], {}, ["one class only (a)"]),
        (["0.5", "1", "2"], {}, ["not whole numbers", "0.5"]),
        (["a", "", "b"], {}, ["nothing under class", "line 3"]),
        (["a", "b", "c"], {"classes": ["a", "b"]}, ["does not list (c)"]),
        (["a", "b", "c"], {"classes": ["a", "b", "b", "c"]}, ["each once"]),
        (["a", "b", "c"], {"target": "ordinal"}, ["order"]),
        (["a", "b", "c"], {"class_column": "kind"}, ["no column 'kind'"]),
        (["a", "b", "c"], {"class_column": "class", "class_columns": ["image", "class"]}, ["both set"]),
    ],
)
def test_tables_of_classes_that_are_wrong(tmp_path, texts, options, words):
    write_folders(tmp_path)
    rows = [(f"normal/normal_{n}.png", text) for n, text in enumerate(texts)]
    refused(*words, arguments=[write_table(tmp_path / "list.csv", rows)], options=options)


def test_numbers_as_classes(tmp_path):
    write_folders(tmp_path)
    rows = [(f"normal/normal_{n}.png", grade) for n, grade in enumerate(("10", "2.0", "0", "2"))]
    path = write_table(tmp_path / "list.csv", rows)
    dataset = open_dataset(path, options={"target": "ordinal"})
    assert dataset.classes == ("0", "2", "10")
    assert [case.classes for case in dataset.cases] == [(2,), (1,), (0,), (1,)]
    rows = [(f"normal/normal_{n}.png", n % 2) for n in range(4)]
    named = open_dataset(write_table(path, rows), options={"classes": ["well", "ill"]})
    assert named.classes == ("well", "ill") and [case.classes for case in named.cases] == [(0,), (1,), (0,), (1,)]


def test_of_two_classes_the_finding_is_the_positive_one():
    assert ordered_classes({"Abnormal", "Normal"}, None, "") == ("Normal", "Abnormal")
    assert ordered_classes({"cat", "dog"}, None, "") == ("cat", "dog")
    assert ordered_classes({"Abnormal", "Normal"}, ["Abnormal", "Normal"], "") == ("Abnormal", "Normal")
    assert ordered_classes({"normal", "a", "b"}, None, "") == ("a", "b", "normal")


def test_lidc_nodules(shared_data):
    path = shared_data("lidc_nodules/nodules.csv")
    options = {"image_column": "file", "image_folder": "image", "class_column": "Diagnosis"}
    dataset = open_dataset(path, options=options)
    assert (dataset.classes, dataset.kind) == (("Benign", "Malign"), "binary")
    assert Counter(case.classes[0] for case in dataset.cases) == {0: 531, 1: 277}  # as its README says
    assert len({case.patient for case in dataset.cases}) == 444
    image, reference = load_case(dataset.cases[0], dataset)
    assert image.ndim == 4 and image.min() < -300 and reference.true == (0,)
    graded = open_dataset(path, options=options | {"class_column": "Malignancy_value", "target": "ordinal"})
    assert graded.classes == ("1", "2", "3", "4", "5")


# ------------------------------------------------------------------------------------------------- splits, duplicates


def made(labels, patients=None, classes=("a", "b", "c"), kind="single-label", folder=None, split=None):
    """A data set of pictures that do not exist unless there is a folder."""
    cases = []
    for number, true in enumerate(labels):
        name = f"case_{number:04}"
        path = (folder / f"{name}.png") if folder else None
        if path is not None:
            Image.fromarray(noise(6, 6, seed=number)).save(path)
        true = true if isinstance(true, tuple) else (true,)
        cases.append(Case(name, patients[number] if patients else name, (path,), None, true))
    return Dataset("made", tuple(cases), {}, ("image",), {"split": split} if split else {}, classes, kind)


@pytest.fixture
def unread(monkeypatch):
    """Splits of data sets without files: the search for duplicates finds nothing."""
    monkeypatch.setattr("MedMapAILib.datasets.split.find_duplicates", lambda *arguments: ())


def shares(dataset, split):
    part = {name: p for p in ("train", "validation", "test") for name in getattr(split, p)}
    return Counter((part[case.name], number) for case in dataset.cases for number in case.classes)


@pytest.mark.parametrize("seed", range(5))
def test_every_part_has_its_share_of_every_class(unread, seed):
    labels = [0] * 300 + [1] * 60 + [2] * 10
    dataset = made(labels)
    counts = shares(dataset, make_split(dataset, 0.2, 0.3, seed))
    for number, total in ((0, 300), (1, 60), (2, 10)):
        for part, share in (("train", 0.5), ("validation", 0.2), ("test", 0.3)):
            assert abs(counts[part, number] - share * total) <= 1
    drawn = [make_split(dataset, 0.2, 0.3, seed) for _ in range(2)]
    assert drawn[0] == drawn[1] != make_split(dataset, 0.2, 0.3, seed + 1)
    turned = Dataset(**{**dataset.__dict__, "cases": dataset.cases[::-1]})
    assert make_split(turned, 0.2, 0.3, seed) == drawn[0]


@pytest.mark.parametrize("seed", range(5))
def test_patients_stay_together_and_classes_in_proportion(unread, seed):
    random = np.random.default_rng(seed)
    patients = [f"P{p}" for p in range(150) for _ in range(random.integers(1, 6))]
    dataset = made([int(n) for n in random.choice(3, len(patients), p=[0.6, 0.3, 0.1])], patients)
    split = make_split(dataset, 0.2, 0.2, seed)
    part = {name: p for p in ("train", "validation", "test") for name in getattr(split, p)}
    for patient in set(patients):
        assert len({part[case.name] for case in dataset.cases if case.patient == patient}) == 1
    counts, totals = shares(dataset, split), Counter(number for case in dataset.cases for number in case.classes)
    for number, total in totals.items():
        assert counts["validation", number] == pytest.approx(0.2 * total, abs=0.06 * total + 2)


def test_training_goes_without_no_class(unread):
    dataset = made([0] * 20 + [1] * 20 + [2])
    for seed in range(10):
        split = make_split(dataset, 0.6, 0.3, seed)
        assert "case_0040" in split.train
        assert "The test part has no case of c, so nothing is said about it there." in split.notes
    # Two of each class and a fifth for validation: each class alone would give nothing.
    dataset = made([0, 0, 1, 1, 2, 2])
    for seed in range(10):
        split = make_split(dataset, 0.2, 0, seed)
        assert len(split.validation) >= 1 and {n for (p, n) in shares(dataset, split) if p == "train"} == {0, 1, 2}
    refused("too few patients of each class", call=make_split, arguments=[made([0, 1, 2])])


def test_a_class_that_training_lacks_is_refused(unread, tmp_path):
    given = {f"case_{n:04}": "test" if n > 7 else "train" for n in range(12)}
    dataset = made([0, 1] * 4 + [2] * 4, split=given)
    refused("training part of made", "no case of c", call=make_split, arguments=[dataset])
    names = [case.name for case in dataset.cases]
    write_split(Split(tuple(names[:8]), tuple(names[8:])), tmp_path / "split.json")
    refused("no case of c", call=read_split, arguments=[tmp_path / "split.json", dataset])
    refused("no case of b, d", call=make_split, arguments=[made([0, 2] * 5, classes=tuple("abcd"))])


def test_several_classes_at_once(unread):
    random = np.random.default_rng(0)
    labels = [tuple(int(n) for n in np.flatnonzero(random.random(3) < (0.5, 0.2, 0.05))) for _ in range(400)]
    dataset = made(labels, kind="multi-label")
    split = make_split(dataset, 0.25, 0, 1)
    counts, totals = shares(dataset, split), Counter(number for true in labels for number in true)
    for number, total in totals.items():
        assert counts["validation", number] == pytest.approx(0.25 * total, abs=0.03 * total + 1)
    without = {case.name for case in dataset.cases if not case.classes}
    assert len(without & set(split.validation)) == pytest.approx(0.25 * len(without), abs=2)


def test_duplicates_across_files_members_and_parts(tmp_path):
    folder = write_folders(tmp_path / "a")
    Image.fromarray(np.dstack([noise(20, 16, seed=2)] * 3)).save(folder / "normal" / "again in color.png")
    write_image(read_image(folder / "normal" / "normal_1.png"), folder / "normal" / "again.nii.gz")
    dataset = open_dataset(folder)
    groups = (("again", "normal_1"), ("again in color", "normal_2"))
    assert find_duplicates(dataset.cases) == groups
    split = make_split(dataset, 0.4)
    assert all(len({name in split.train for name in group}) == 1 for group in groups)
    images = noise(12, 20, 16)
    images[3] = noise(20, 16, seed=2)
    archive = open_dataset(write_npz(tmp_path / "pneumoniamnist.npz", (12, 0, 0), train_images=images))
    assert content_hash(archive.cases[3]) == content_hash(next(c for c in dataset.cases if c.name == "normal_2"))
    assert content_hash(archive.cases[4]) != content_hash(archive.cases[3])


def test_equal_images_with_different_labels_are_listed(tmp_path):
    folder = write_folders(tmp_path / "a", 14)
    for number in range(12):
        (folder / "pneumonia" / f"copy_{number:02}.png").write_bytes(
            (folder / "normal" / f"normal_{number}.png").read_bytes()
        )
    dataset = open_dataset(folder)
    sentence = refused("12 image(s)", "different labels", "correct the labels", call=make_split, arguments=[dataset])
    for number in range(12):
        assert f"copy_{number:02} (pneumonia) = normal_{number} (normal)" in sentence
    names = [case.name for case in dataset.cases]
    refused("different labels", call=with_duplicates, arguments=[Split(tuple(names[:-1]), (names[-1],)), dataset])
    images = noise(12, 28, 28)
    images[5] = images[2]
    path = write_npz(
        tmp_path / "chestmnist.npz", (12, 0, 0), train_images=images, train_labels=np.eye(12, 14, dtype=int)
    )
    refused("train_02 (effusion) = train_05 (nodule)", call=make_split, arguments=[open_dataset(path)])


# ------------------------------------------------------------------------------------------------- samples of a scene

AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0, 2.0, 20], [0, 1.5, 0, 30], [0, 0, 0, 1]])


def place_of(image, index):
    return (affine_of(image) @ [*index, 1])[:3]


def test_a_crop_holds_the_voxels_of_its_box():
    image = make_image(noise(2, 12, 10, 8), AFFINE)
    center = place_of(image, (5, 4, 3))
    # 2 voxels to each side along i (0.5 mm), 1 along j (1.5 mm), 1 along k (2 mm).
    part = crop(image, center, (2.0, 4.0, 3.0))
    assert part.shape == (2, 5, 3, 3)
    np.testing.assert_array_equal(part.numpy(), image.numpy()[:, 3:8, 3:6, 2:5])
    np.testing.assert_allclose(place_of(part, (0, 0, 0)), place_of(image, (3, 3, 2)))
    assert crop(image, center, (2.0, 4.0, 3.0), margin=0.5).shape == (2, 7, 3, 3)
    assert crop(image, center, (0.1, 0.1, 0.1)).shape == (2, 1, 1, 1)
    assert crop(image, center, (900, 900, 900)).shape == image.shape
    refused("outside", call=crop, arguments=[image, center + [900, 0, 0], (2, 2, 2)])


def test_an_oblique_crop_holds_its_box():
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    image = make_image(noise(1, 40, 40, 10), turn)
    center = place_of(image, (20, 20, 5))
    part = crop(image, center, (8, 8, 4))
    inside = {
        tuple(np.round(place_of(image, index), 6))
        for index in np.ndindex(40, 40, 10)
        if (np.abs(place_of(image, index) - center) <= (4, 4, 2)).all()
    }
    kept = {tuple(np.round(place_of(part, index), 6)) for index in np.ndindex(*part.shape[1:])}
    assert inside <= kept and len(kept) < 3 * len(inside)


def test_samples_come_back_as_a_data_set(tmp_path):
    first, second = (make_image(noise(1, 12, 10, 8, seed=seed), AFFINE) for seed in (1, 2))
    roi = (place_of(first, (5, 4, 3)), (2.0, 4.0, 3.0))
    samples = [
        (first, roi, "benign"),
        (first, None, "malignant"),
        (second, roi, "benign"),
        (second.clone(), None, "benign"),
    ]
    assert write_class_cases(iter(samples), tmp_path / "data") == ("benign", "malignant")
    dataset = open_dataset(tmp_path / "data")
    assert dataset.classes == ("benign", "malignant")
    assert {case.name: case.patient for case in dataset.cases} == {
        "case_001": "patient_001",
        "case_002": "patient_001",
        "case_003": "patient_002",
        "case_004": "patient_002",
    }
    image, reference = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(image.numpy(), first.numpy()[:, 3:8, 3:6, 2:5])
    np.testing.assert_allclose(place_of(image, (0, 0, 0)), place_of(first, (3, 3, 2)))
    assert reference.true == (0,)


def test_color_samples(tmp_path):
    images = [make_image(noise(3, 12, 10, 1, seed=seed), np.diag([-1.0, -1, 1, 1])) for seed in range(2)]
    write_class_cases([(image, None, name) for image, name in zip(images, "ab", strict=True)], tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    assert dataset.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(load_case(dataset.cases[1], dataset)[0].numpy(), images[1].numpy())


def test_nothing_is_left_of_samples_that_fail(tmp_path):
    image = make_image(noise(1, 12, 10, 8), AFFINE)
    write_class_cases([(image, None, "a")], tmp_path / "data")
    for name in ("", "a/b", "..", ".a", "a:b", "__a"):
        refused(
            "sample 2",
            "folder",
            call=write_class_cases,
            arguments=[[(image, None, "b"), (image, None, name)], tmp_path / "data"],
        )
    refused(
        "sample 1",
        "outside",
        call=write_class_cases,
        arguments=[[(image, ((900, 0, 0), (1, 1, 1)), "b")], tmp_path / "data"],
    )
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["a"]


def test_xrays_of_a_class_folder(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, name in enumerate(("normal", "pneumonia")):
            write_series(
                tmp_path / name, [(0, 0, 0)], seed=number, prefix=f"{name}_", Modality="CR",
                ImagePositionPatient=None, ImageOrientationPatient=None, SliceThickness=None,
            )  # fmt: skip
        dataset = open_dataset(tmp_path)
        assert len(dataset.cases) == 2 and dataset.channels == ("image",)
        assert load_case(dataset.cases[1], dataset)[0].shape == (1, 6, 5, 1)
