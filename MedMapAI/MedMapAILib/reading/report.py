"""What came of a study: the table of scores, means of the methods, agreement of the readers, tests between methods."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import check_place, write_atomically
from ..metrics.agreement import (
    Estimate,
    holm,
    intraclass_correlation,
    mean_over_readers,
    signed_rank,
    weighted_kappa,
)
from .session import load_reader, reader_file
from .study import Key, Study, load_key, load_study


def reading_table(folder: str | Path, *, key: str | Path | None = None) -> list[dict[str, Any]]:
    """All scores: one row a reader and image, ``{"reader", "case", "method", criterion: score or None, …}``.

    key: its file, if not in the folder. Sorted by reader, case and method. Raises InputError where there is no study or
    nobody has begun to read.
    """
    study, code_of, scores = _load(folder, key)
    rows = [
        {
            "reader": reader,
            "case": code_of.entries[code].case,
            "method": code_of.entries[code].method,
            **{criterion: of.get(code, {}).get(criterion) for criterion in study.criteria},
        }
        for reader, of in scores.items()
        for code in code_of.entries
    ]
    return sorted(rows, key=lambda row: (row["reader"], row["case"], row["method"]))


def reading_report(
    folder: str | Path,
    *,
    key: str | Path | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything about a study, as JSON takes it.

    ``{"readers", "cases", "methods", "images", "scored": {reader: images}, "criteria": {criterion: {
    "methods": {method: {"mean", "low", "high", "cases", "readers"}},
    "agreement": {"icc": {"value", "low", "high", "items", "readers"}, "kappa": [{"readers": [a, b], "linear",
    "quadratic", "items", "equal"}]},
    "comparisons": [{"methods": [a, b], "mean_difference", "statistic", "p", "p_holm", "pairs", "zeros", …}]}},
    "table"}``

    Means are over cases and readers, with their interval over both. The ICC takes images that all readers scored, kappa
    those that two readers scored; "equal" is the share of equal scores. Methods are compared by Wilcoxon's signed-rank
    test on the cases: the mean over those readers who scored both images; "p_holm" is adjusted for all pairs of methods
    by one criterion. A number that is not defined is None, and a sentence in "note" says why.
    Arguments and errors as ``reading_table``.
    """
    study, code_of, scores = _load(folder, key)
    readers = list(scores)
    cases = sorted({entry.case for entry in code_of.entries.values()})
    methods = list(dict.fromkeys(entry.method for entry in sorted(code_of.entries.values(), key=lambda e: e.method)))
    criteria = {}
    for criterion in study.criteria:
        cube = np.full((len(methods), len(cases), len(readers)), np.nan)
        for r, reader in enumerate(readers):
            for code, given in scores[reader].items():
                entry = code_of.entries[code]
                if criterion in given:
                    cube[methods.index(entry.method), cases.index(entry.case), r] = given[criterion]
        criteria[criterion] = {
            "methods": {method: _mean(cube[m], confidence, resamples, seed) for m, method in enumerate(methods)},
            "agreement": _agreement(cube.reshape(-1, len(readers)), readers, study.scale, confidence),
            "comparisons": _comparisons(cube, methods),
        }
    return {
        "readers": readers,
        "cases": len(cases),
        "methods": methods,
        "images": study.images,
        "confidence": confidence,
        "scored": {
            reader: sum(set(given) >= set(study.criteria) for given in scores[reader].values()) for reader in readers
        },
        "criteria": criteria,
        "table": reading_table(folder, key=key),
    }


def write_reading(report: dict[str, Any], path: str | Path) -> None:
    """Write the scores of a ``reading_report`` to a .csv, or all of it to a .json. Raises InputError, RunError."""
    path = Path(path)
    check_output(path)
    if path.suffix.lower() == ".json":
        write_atomically(path, (json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(report["table"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(report["table"])
    write_atomically(path, text.getvalue().encode())


def check_output(path: str | Path) -> None:
    """Raises InputError where a report cannot be written."""
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".json"):
        raise InputError(f"{path.name} is neither .csv nor .json; choose one of these endings.")
    check_place(path)


def _load(folder: str | Path, key: str | Path | None) -> tuple[Study, Key, dict[str, dict[str, dict[str, int]]]]:
    """(study, key, reader → code → criterion → score)."""
    study, code_of = load_study(folder), load_key(folder, key)
    scores = {}
    for path in sorted(Path(folder).glob(reader_file("*"))):
        stored = load_reader(path, study)
        unknown = sorted(set(stored["scores"]) - set(code_of.entries))
        if unknown:
            raise InputError(f"{path} scores an image {unknown[0]} that the key does not know; restore it from a copy.")
        if stored["reader"] in scores:
            raise InputError(f"{path} is a second file of reader {stored['reader']}; keep the one that counts.")
        scores[stored["reader"]] = stored["scores"]
    if not scores:
        raise InputError(f"Nobody has begun to read the study in {folder}; there is nothing to report.")
    return study, code_of, scores


def _mean(scores: np.ndarray, confidence: float, resamples: int, seed: int) -> dict[str, Any]:
    """Of one method. scores: (cases, readers), NaN where missing."""
    there = np.isfinite(scores)
    counts = {"cases": int(there.any(axis=1).sum()), "readers": int(there.any(axis=0).sum())}
    if not there.any():
        return {"mean": None, "low": None, "high": None, **counts, "note": "Nobody has scored an image of it yet."}
    found = mean_over_readers(scores, confidence=confidence, resamples=resamples, seed=seed)
    return {"mean": found.value, "low": found.low, "high": found.high, **counts}


def _agreement(scores: np.ndarray, readers: list[str], scale: tuple[int, ...], confidence: float) -> dict[str, Any]:
    """Of the readers. scores: (images, readers), NaN where missing."""
    if len(readers) < 2:
        return {"icc": None, "kappa": [], "note": "One reader has nobody to agree with."}
    both = scores[np.isfinite(scores).all(axis=1)]
    icc = _estimate(lambda: intraclass_correlation(both, confidence=confidence))
    kappas = []
    for a, b in itertools.combinations(range(len(readers)), 2):
        pair = scores[:, [a, b]]
        pair = pair[np.isfinite(pair).all(axis=1)]
        one: dict[str, Any] = {"readers": [readers[a], readers[b]], "items": len(pair)}
        one["equal"] = float((pair[:, 0] == pair[:, 1]).mean()) if len(pair) else None
        for weights in ("linear", "quadratic"):
            one[weights] = _estimate(
                lambda pair=pair, weights=weights: weighted_kappa(
                    pair[:, 0], pair[:, 1], weights=weights, scores=scale, confidence=confidence
                )
            )
        kappas.append(one)
    return {"icc": {**icc, "items": len(both), "readers": len(readers)}, "kappa": kappas}


def _estimate(compute: Any) -> dict[str, Any]:
    try:
        found: Estimate = compute()
    except InputError as error:
        return {"value": None, "low": None, "high": None, "note": str(error)}
    return {"value": found.value, "low": found.low, "high": found.high}


def _comparisons(cube: np.ndarray, methods: list[str]) -> list[dict[str, Any]]:
    """Of all pairs of methods. cube: (methods, cases, readers), NaN where missing."""
    found = []
    for a, b in itertools.combinations(range(len(methods)), 2):
        both = np.isfinite(cube[a]) & np.isfinite(cube[b])
        cases = both.any(axis=1)
        first, second = (np.where(both, cube[m], 0)[cases].sum(axis=1) / both[cases].sum(axis=1) for m in (a, b))
        one: dict[str, Any] = {"methods": [methods[a], methods[b]]}
        if cases.any():
            one |= {"mean_difference": float((first - second).mean()), **signed_rank(first, second).as_dict()}
        else:
            one |= {"p": None, "note": "No reader has scored images of both yet."}
        found.append(one)
    tested = [one for one in found if one["p"] is not None]
    for one, adjusted in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["p_holm"] = adjusted
    return found
