"""Splits: by patient, the same everywhere and always, and never with a patient on both sides."""

import json
import random

import pytest
from MedMapAILib.datasets import Case, Dataset, open_dataset
from MedMapAILib.datasets.split import Split, _drawn_parts, make_split, read_split, write_split
from MedMapAILib.errors import InputError
from synthetic import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(write_dataset(tmp_path_factory.mktemp("data") / "balls", 10), labels={1: "ball", 2: "box"})


def with_patients(dataset, patients, count=None, **source):
    cases = tuple(
        Case(case.name, patient, case.images, case.label)
        for case, patient in zip(dataset.cases[:count], patients, strict=True)
    )
    return Dataset(dataset.name, cases, dataset.labels, dataset.channels, source)


def refused(*words, call=make_split, arguments=(), **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def test_every_case_is_in_one_part(dataset):
    split = make_split(dataset, validation=0.2, test=0.3, seed=1)
    assert (len(split.train), len(split.validation), len(split.test)) == (5, 2, 3)
    assert sorted(split.train + split.validation + split.test) == [case.name for case in dataset.cases]


def test_the_draw_is_the_one_that_was_stored_when_this_was_written(dataset):
    # SHA-256 is the same on every platform; a change here breaks the split of every model that was trained before.
    assert make_split(dataset, validation=0.2, seed=0).validation == EXPECTED_SEED_0


EXPECTED_SEED_0 = ("case_02", "case_04")


def test_the_order_of_the_listing_plays_no_part_and_the_seed_does(dataset):
    cases = list(dataset.cases)
    random.Random(3).shuffle(cases)
    shuffled = Dataset(dataset.name, tuple(cases), dataset.labels)
    assert make_split(shuffled, seed=5) == make_split(dataset, seed=5)
    assert len({make_split(dataset, seed=seed).validation for seed in range(8)}) > 4


def test_patients_stay_together(dataset):
    grouped = with_patients(dataset, "AABBCCDDEE")
    for seed in range(10):
        split = make_split(grouped, validation=0.2, test=0.2, seed=seed)
        part = {name: p for p in ("train", "validation", "test") for name in getattr(split, p)}
        patients = {patient: {part[c.name] for c in grouped.cases if c.patient == patient} for patient in "ABCDE"}
        assert all(len(parts) == 1 for parts in patients.values())
        assert (len(split.validation), len(split.test)) == (2, 2)


def test_sizes_come_near_to_the_shares_where_patients_differ():
    # 100 patients of 1 to 5 cases: no part is further from its share than the cases of one patient.
    generator = random.Random(0)
    patients = {f"{p}-{n}": f"patient {p}" for p in range(100) for n in range(generator.randint(1, 5))}
    for seed in range(20):
        parts = list(_drawn_parts(patients, 0.2, 0.1, seed, "here").values())
        assert abs(parts.count("validation") - 0.2 * len(patients)) <= 5
        assert abs(parts.count("test") - 0.1 * len(patients)) <= 5


@pytest.mark.parametrize("seed", range(5))
def test_one_giant_patient_does_not_empty_a_part(seed):
    patients = {f"{n}": "giant" for n in range(50)} | {"a": "A", "b": "B"}
    parts = _drawn_parts(patients, 0.2, 0.2, seed, "here")
    assert set(parts.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    "patients, options", [("A", {}), ("AA", {}), ("AB", {"test": 0.2}), ("A", {"validation": 0, "test": 0.1})]
)
def test_too_few_patients(dataset, patients, options):
    refused("patient(s), too few", arguments=[with_patients(dataset, patients, len(patients))], **options)


def test_the_fewest_that_work(dataset):
    split = make_split(with_patients(dataset, "ABC", 3), validation=0.2, test=0.2)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [1, 1, 1]
    alone = make_split(with_patients(dataset, "A", 1), validation=0)
    assert (len(alone.train), alone.validation, alone.test) == (1, (), ())


@pytest.mark.parametrize(
    "options",
    [{"validation": 1.0}, {"validation": -0.1}, {"test": 1}, {"validation": 0.6, "test": 0.4}, {"validation": "x"}],
)
def test_shares_that_are_none(dataset, options):
    refused("split.", arguments=[dataset], **options)


def test_stored_and_read(dataset, tmp_path):
    split = make_split(dataset, validation=0.3, test=0.1, seed=9)
    write_split(split, tmp_path / "split.json")
    assert read_split(tmp_path / "split.json", dataset) == split
    assert json.loads((tmp_path / "split.json").read_text()) == split.to_dict()
    assert split.to_dict()["seed"] == 9


def test_a_stored_split_that_no_longer_fits(dataset, tmp_path):
    path = tmp_path / "split.json"
    write_split(make_split(dataset, seed=0), path)
    fewer = Dataset(dataset.name, dataset.cases[2:], dataset.labels)
    refused("2 case(s)", "case_00, case_01", call=read_split, arguments=[path, fewer])
    write_split(Split(train=("case_00",), validation=("case_01",)), path)
    assert "8 case(s)" in read_split(path, dataset).notes[0]


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "not valid JSON"),
        ("[]", "train and validation"),
        ('{"train": ["case_00"]}', "train and validation"),
        ('{"train": [], "validation": ["case_00"]}', "no training cases"),
        ('{"train": "case_00", "validation": []}', "list of case names"),
        ('{"train": ["case_00"], "validation": ["case_00"]}', "twice"),
        ('{"train": ["case_00", "case_00"], "validation": []}', "twice"),
    ],
)
def test_a_stored_split_that_is_none(dataset, tmp_path, content, words):
    path = tmp_path / "split.json"
    path.write_text(content)
    refused(words, call=read_split, arguments=[path, dataset])


def test_a_stored_split_with_a_patient_on_both_sides(dataset, tmp_path):
    path = tmp_path / "split.json"
    write_split(make_split(dataset, seed=0), path)
    refused("1 patient(s)", "A", call=read_split, arguments=[path, with_patients(dataset, "AAAAAAAAAA")])


def test_missing_split_file(dataset, tmp_path):
    refused("cannot be read", call=read_split, arguments=[tmp_path / "no.json", dataset])


def test_parts_that_the_data_set_brings(dataset):
    given = {case.name: "test" if number < 3 else "train" for number, case in enumerate(dataset.cases)}
    split = make_split(with_patients(dataset, "ABCDEFGHIJ", split=given), validation=0.3)
    assert split.test == ("case_00", "case_01", "case_02")
    assert (len(split.train), len(split.validation)) == (5, 2)
    given["case_09"] = "validation"
    split = make_split(with_patients(dataset, "ABCDEFGHIJ", split=given), validation=0.3)
    assert split.validation == ("case_09",)
    refused("1 patient(s)", "column split", arguments=[with_patients(dataset, "AAAAAAAAAB", split=given)])
