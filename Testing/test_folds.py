"""Folds: by patient, with the same share of every class, and the same ones each time."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from MedMapAILib.datasets.folds import deal_cases
from MedMapAILib.errors import InputError
from MedMapAILib.training.crossvalidation import make_folds


def hospital(seed: int, patients: int = 60, most: int = 4, pure: bool = True) -> tuple[dict, dict]:
    """Case → patient and case → classes: three classes, 10, 30 and 60 %, up to ``most`` cases a patient."""
    draw = random.Random(seed)
    patient_of, classes_of = {}, {}
    for patient in range(patients):
        number = draw.choices(range(3), (10, 30, 60))[0]
        for case in range(draw.randint(1, most)):
            name = f"scan-{patient}-{case}"
            patient_of[name] = f"patient-{patient}"
            classes_of[name] = (number if pure else draw.choices(range(3), (10, 30, 60))[0],)
    return patient_of, classes_of


def counts_of(folds: tuple[tuple[str, ...], ...], classes: dict) -> list[Counter]:
    return [Counter(number for name in fold for number in classes[name]) for fold in folds]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pure", [True, False])
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_every_case_is_in_one_fold_and_no_patient_in_two(seed, pure, folds):
    patients, classes = hospital(seed, pure=pure)
    made = make_folds(patients, classes, folds, seed)
    assert len(made) == folds
    assert sorted(name for fold in made for name in fold) == sorted(patients)
    where = [{patients[name] for name in fold} for fold in made]
    assert sum(map(len, where)) == len(set(patients.values()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_classes_are_shared_out_within_one_patient_of_equal(seed, most, folds):
    patients, classes = hospital(seed, patients=80, most=most)
    made = counts_of(make_folds(patients, classes, folds, seed), classes)
    for number in range(3):
        values = [fold[number] for fold in made]
        largest = max(Counter(patients[name] for name, own in classes.items() if number in own).values(), default=0)
        assert max(values) - min(values) <= largest
        assert all(abs(value - sum(values) / folds) < largest for value in values)


def test_folds_of_single_cases_are_of_equal_size():
    patients, classes = hospital(3, patients=97, most=1)
    sizes = [len(fold) for fold in make_folds(patients, classes, 5, 1)]
    assert max(sizes) - min(sizes) <= 1


def test_several_classes_a_case_are_shared_out_too():
    draw = random.Random(1)
    patients = {f"scan-{number}": f"patient-{number}" for number in range(400)}
    classes = {name: tuple(k for k, p in enumerate((0.02, 0.1, 0.5)) if draw.random() < p) for name in patients}
    folds = make_folds(patients, classes, 5, 0)
    made = counts_of(folds, classes)
    for number in range(3):
        total = sum(fold[number] for fold in made)
        # A fifth each; the rarest, which comes first, within one.
        assert all(abs(fold[number] - total / 5) <= (1 if number == 0 else 3) for fold in made)
    without = [sum(not classes[name] for name in fold) for fold in folds]
    assert max(without) - min(without) <= 3


def test_label_maps_have_no_classes_and_are_dealt_evenly():
    patients, _ = hospital(2, patients=31, most=1)
    assert sorted(len(fold) for fold in make_folds(patients, {}, 5)) == [6, 6, 6, 6, 7]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_two_parts_of_different_size(share):
    patients, classes = hospital(4, patients=80, most=3)
    parts = deal_cases(patients, classes, (share, 1 - share), 5)
    for number in range(3):
        total = sum(number in own for own in classes.values())
        assert abs(counts_of(parts, classes)[0][number] - share * total) <= 3


def test_the_seed_and_the_names_decide_and_nothing_else():
    patients, classes = hospital(5)
    made = make_folds(patients, classes, 5, 7)
    shuffled = list(patients)
    random.Random(9).shuffle(shuffled)
    assert make_folds({name: patients[name] for name in shuffled}, classes, 5, 7) == made
    assert make_folds(patients, classes, 5, 8) != made


def test_they_are_the_same_on_every_machine():
    # Written down once: sets of names come in another order in each process.
    names = [f"scan-{number}" for number in range(10)]
    classes = {name: (number % 2,) for number, name in enumerate(names)}
    assert make_folds({name: name for name in names}, classes, 3, 7) == (
        ("scan-1", "scan-4", "scan-9"),
        ("scan-6", "scan-7", "scan-8"),
        ("scan-0", "scan-2", "scan-3", "scan-5"),
    )


def test_many_cases_are_dealt_quickly():
    patients, classes = hospital(6, patients=5_000, most=2)
    began = time.monotonic()
    make_folds(patients, classes, 5)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("folds", "words"),
    [(1, "Cross-validation in 1 folds makes no sense"), (2.5, "2.5 folds"), (61, "There are 60 patients for 61 folds")],
)
def test_mistakes_are_said(folds, words):
    with pytest.raises(InputError, match=words):
        make_folds(*hospital(0), folds)
