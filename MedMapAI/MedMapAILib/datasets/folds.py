"""Dealing patients into parts that hold the same share of every class."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence


def deal_cases(
    patients: Mapping[str, str],
    classes: Mapping[str, Sequence[int]],
    shares: Sequence[float],
    seed: int = 0,
) -> tuple[tuple[str, ...], ...]:
    """Names of cases in as many parts as there are shares, sorted; every case in exactly one, no patient in two.

    patients: case → patient. classes: case → indices of its classes; any number of them, none too, so that cases
    without classes are dealt evenly as well. shares: of the parts; their sum is 1. The draw depends on the seed and the
    patients' identifiers alone.

    This is iterative stratification (Sechidis, Tsoumakas, Vlahavas, ECML PKDD 2011,
    https://doi.org/10.1007/978-3-642-23808-6_10) with patients for examples: class by class, the rarest first, each
    patient goes where most cases of that class are wanted, the largest patients first. Where all cases of a patient are
    of one class, parts of the same share differ in no class by more than one patient's cases.
    """
    names_of: dict[str, list[str]] = {}
    counts: dict[str, Counter] = {}
    for name, patient in sorted(patients.items()):
        names_of.setdefault(patient, []).append(name)
        # -1 is the class of those that have none.
        counts.setdefault(patient, Counter()).update(classes.get(name) or (-1,))
    totals: Counter = Counter()
    for count in counts.values():
        totals.update(count)
    wanted = [{number: share * total for number, total in totals.items()} for share in shares]
    room = [share * len(patients) for share in shares]
    parts: list[list[str]] = [[] for _ in shares]
    left = set(names_of)
    while left:
        remaining = Counter()
        for patient in left:
            remaining.update(counts[patient])
        rarest = min(remaining, key=lambda number: (remaining[number], number))
        members = [patient for patient in left if counts[patient][rarest]]
        for patient in sorted(members, key=lambda name: (-counts[name][rarest], _hash(seed, name), name)):
            # Among parts that want it as much, the emptiest, and among those one by lot. Rounding makes equal wishes
            # comparable that were reached in different orders.
            part = max(
                range(len(shares)),
                key=lambda n: (round(wanted[n][rarest], 6), round(room[n], 6), _hash(seed, f"{patient} {n}")),
            )
            parts[part] += names_of[patient]
            room[part] -= len(names_of[patient])
            for number, count in counts[patient].items():
                wanted[part][number] -= count
        left.difference_update(members)
    return tuple(tuple(sorted(part)) for part in parts)


def given_folds(
    folds: Mapping[str, int], patients: Mapping[str, str], count: int
) -> tuple[tuple[str, ...], ...] | None:
    """Names of cases in the folds that a data set brings itself (``source["folds"]``: case → number of its fold),
    in the order of the numbers; None where those are not ``count`` folds.

    patients: case → patient, of the cases that take part. A patient with cases in two folds goes into the first.
    """
    first: dict[str, int] = {}
    for name, patient in patients.items():
        if name not in folds:
            return None
        first[patient] = min(first.get(patient, folds[name]), folds[name])
    numbers = sorted(set(first.values()))
    if len(numbers) != count:
        return None
    return tuple(
        tuple(sorted(name for name, patient in patients.items() if first[patient] == number)) for number in numbers
    )


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{int(seed)}:{name}".encode()).hexdigest()
