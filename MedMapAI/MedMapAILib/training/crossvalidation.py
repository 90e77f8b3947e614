"""How good is a recipe: every case answered by a model that saw neither it nor its patient."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from ..datasets import Dataset
from ..datasets.dataset import listed
from ..datasets.findings_table import write_luna16_submission
from ..datasets.folds import deal_cases, given_folds
from ..datasets.split import Split, make_split, merged_patients, read_split, with_duplicates, write_split
from ..errors import InputError, RunError
from ..metrics.classification import classification_metrics, confusion_matrix
from ..metrics.curves import classification_curves
from ..plan import read_plan
from ..results import Classes
from ..tasks import task_class
from ..tasks.classification import ClassificationTask
from ..tasks.detection import results_of_rows
from .config import complete_config, decisive_settings
from .loop import write_json
from .run import answers_of, open_configured, train

Event = Callable[[dict], None]

#: Metrics (of all, or after "NAME: ") of what was called; the others are of the probabilities.
_OF_PROBABILITIES = {"auc", "average_precision", "brier", "ece", "log_loss"}


def crossvalidate(
    config: dict[str, dict[str, Any]],
    output: str | Path,
    *,
    folds: int = 5,
    seed: int = 0,
    on_event: Event = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Train one model a fold on the other folds, and pool what they say of the cases that they did not see.

    config: as ``training.run.train`` takes it. Its test part (given by the data set, drawn by split.test or named in
    split.file) takes no part, so that it stays untouched; the other cases are dealt into folds by patient, with the
    same share of each class. In each fold the held-out cases are the test part of an ordinary training, and the share
    split.validation of the rest is its validation part: what picks weights, calibration and operating point never sees
    a held-out case. output: a folder; it gets crossvalidation.json (what was asked, and the folds), for each fold a
    training in fold-N/ and its answers in fold-N.json, and report.json; of a detection also submission.csv, which
    ``medmapai froc`` scores. A data set that comes with as many folds as asked for, as LUNA16 does, keeps them. Asked
    again for the same output it goes on where it stopped; a finished fold is not repeated. on_event: gets the events of
    the trainings with "fold" and "folds" added and "fraction" of the whole, "fold" with its metrics after each, and
    "finished" once. should_stop: asked after each iteration.

    Returns the report, or None when stopped: "summary" of the pooled out-of-fold answers, each called at the operating
    point of its own fold's model, with 95 % bootstrap intervals over patients (segmentation: over cases); "folds" with
    each fold's own; "between_folds" with mean and standard deviation over the folds; "cases", one row each, with
    patient and fold; "notes"; and for classification "kind", "classes", "confusion" and "curves", which is what
    ``figures.draw_curves`` draws. Beware that the pooled "auc" compares answers of different models with each other;
    where it lies well below the one in "between_folds", their probabilities do not mean the same.
    Raises InputError before anything is written for a mistake in the configuration or the data, or where the output
    holds something else; RunError when a training fails, as ``train``.
    """
    output = Path(output)
    config = complete_config(config)
    if config["task"]["name"] == "generation":
        raise InputError("A generator gives no answers to cross-validate; train one and look at its card.")
    asked = {"folds": folds, "seed": seed, "settings": _settings(config)}
    stored = _stored(output, asked)
    dataset = open_configured(config)
    state = _folds(dataset, config, folds, seed) if stored is None else stored
    _check_same_cases(state, dataset, output)
    output.mkdir(parents=True, exist_ok=True)
    if stored is None:
        write_json(output / "crossvalidation.json", {**asked, **state})
    on_event({"event": "started", "folds": folds, "cases": len(state["patients"]), "notes": state["notes"]})

    answered = []
    for number in range(folds):
        path = output / f"fold-{number + 1}.json"
        if not path.exists() and not _train_fold(config, state, number, output, on_event, should_stop):
            on_event({"event": "stopped", "reason": f"Stopped as asked; cross-validate into {output} again to go on."})
            return None
        answered.append(_read_json(path))
        on_event({"event": "fold", "fold": number + 1, "folds": folds, "metrics": answered[-1]["summary"]})

    report = {
        "model": config["model"]["name"] or output.name,
        "dataset": dataset.name,
        "task": config["task"]["name"],
        **_pooled(dataset, config, answered, state["patients"], output),
        "folds": [
            {
                "fold": number,
                "cases": len(fold["cases"]),
                "patients": len({state["patients"][row["case"]] for row in fold["cases"]}),
                "summary": fold["summary"],
            }
            for number, fold in enumerate(answered, start=1)
        ],
        "between_folds": _between([fold["summary"] for fold in answered]),
        "cases": [
            {"case": row["case"], "patient": state["patients"][row["case"]], "fold": number, **row}
            for number, fold in enumerate(answered, start=1)
            for row in fold["cases"]
        ],
        "notes": state["notes"],
    }
    write_json(output / "report.json", report)
    if config["task"]["name"] == "detection":
        write_luna16_submission(results_of_rows(report["cases"], dataset.findings), output / "submission.csv")
    on_event({"event": "finished", "report": str(output / "report.json"), "metrics": report["summary"]})
    return report


def make_folds(
    patients: dict[str, str], classes: dict[str, Sequence[int]], folds: int, seed: int = 0
) -> tuple[tuple[str, ...], ...]:
    """Names of the cases of each fold; see ``deal_cases``, whose parts they are.

    Raises InputError where there are fewer patients than folds, or all cases of a class are one patient's: the fold
    that has them would be answered by a model that never saw the class.
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise InputError(f"Cross-validation in {folds!r} folds makes no sense; give a whole number from 2, such as 5.")
    there_are = len(set(patients.values()))
    if there_are < folds:
        raise InputError(f"There are {there_are} patients for {folds} folds; give {there_are} folds or fewer.")
    return deal_cases(patients, classes, [1 / folds] * folds, seed)


def _settings(config: dict) -> dict:
    """What must be the same for folds to belong together."""
    sections = decisive_settings(config) | {name: config[name] for name in ("inference", "evaluation")}
    return json.loads(json.dumps(sections, default=str))


def _stored(output: Path, asked: dict) -> dict | None:
    """The cross-validation that the output holds; None where it holds none. InputError where it is another one."""
    if output.exists() and not output.is_dir():
        raise InputError(f"The output {output} is a file; choose a folder.")
    if (output / "config.json").exists():
        raise InputError(f"{output} already holds a training; choose another folder.")
    path = output / "crossvalidation.json"
    if not path.exists():
        return None
    stored = _read_json(path)
    changed = [key for key in ("folds", "seed") if stored[key] != asked[key]]
    for section, values in asked["settings"].items():
        old = stored["settings"].get(section, {})
        changed += [f"{section}.{key}" for key in {**values, **old} if values.get(key) != old.get(key)]
    if changed:
        raise InputError(
            f"The cross-validation in {output} was begun with other settings ({listed(changed)}); go on with those, or "
            "choose another folder."
        )
    return stored


def _folds(dataset: Dataset, config: dict, folds: int, seed: int) -> dict[str, Any]:
    """Which case is held out when: {"parts": names of each fold, "patients": case → patient, "validation": names of
    each fold's validation part, "notes": sentences}. Patients who share a scan under two names count as one.
    """
    settings = config["split"]
    if settings["file"]:
        split = with_duplicates(read_split(settings["file"], dataset), dataset)
    else:
        split = make_split(dataset, validation=settings["validation"], test=settings["test"], seed=settings["seed"])
    taking_part = {*split.train, *split.validation}
    cases = [case for case in dataset.usable if case.name in taking_part]
    patients = merged_patients(
        {case.name: case.patient for case in dataset.cases}, [group["cases"] for group in split.duplicates]
    )
    patients = {case.name: patients[case.name] for case in cases}
    classes = {case.name: dataset.strata_of(case) for case in cases}
    notes = list(split.notes)
    if split.test:
        notes.append(f"{len(split.test)} case(s) of the test part take no part in the cross-validation.")
    notes += _few_patients(dataset, patients, classes, folds)
    parts = given_folds(dataset.source.get("folds") or {}, patients, folds) or make_folds(
        patients, classes, folds, seed
    )
    validation = []
    for held_out in parts:
        rest = {name: patient for name, patient in patients.items() if name not in set(held_out)}
        share = settings["validation"]
        validation.append(deal_cases(rest, classes, (share, 1 - share), seed)[0] if share > 0 else ())
    return {"parts": parts, "validation": validation, "patients": patients, "notes": notes}


def _few_patients(dataset: Dataset, patients: dict, classes: dict, folds: int) -> list[str]:
    """Sentences about classes of too few patients. InputError where a fold's model would never see a class."""
    notes = []
    for number, name in enumerate(dataset.classes):
        having = len({patients[case] for case, own in classes.items() if number in own})
        if having < 2:
            raise InputError(
                f"Class {name!r} of {dataset.name} has cases of {having} patient(s); for cross-validation each class "
                "needs at least 2, and better as many as there are folds: add cases or leave the class out."
            )
        if having < folds:
            notes.append(f"Class {name!r} has cases of {having} patients only: some of the {folds} folds hold none.")
    return notes


def _check_same_cases(state: dict, dataset: Dataset, output: Path) -> None:
    gone = sorted(set(state["patients"]) - {case.name for case in dataset.cases})
    if gone:
        raise InputError(
            f"The cross-validation in {output} was begun with cases that {dataset.name} does not have any more "
            f"({listed(gone)}); bring them back, or choose another folder."
        )


def _train_fold(
    config: dict, state: dict, number: int, output: Path, on_event: Event, should_stop: Callable[[], bool]
) -> bool:
    """Train one fold and write its fold-N.json; False when stopped."""
    folds, folder = len(state["parts"]), output / f"fold-{number + 1}"
    held_out, validation = state["parts"][number], state["validation"][number]
    folder.mkdir(exist_ok=True)
    # A training takes the split that is in its folder already.
    write_split(
        Split(
            train=tuple(sorted(set(state["patients"]) - set(held_out) - set(validation))),
            validation=tuple(validation),
            test=tuple(held_out),
            seed=config["split"]["seed"],
            notes=(f"Fold {number + 1} of {folds} of a cross-validation.",),
        ),
        folder / "split.json",
    )

    def forward(event: dict) -> None:
        if event["event"] in ("progress", "epoch"):
            changed = {"fold": number + 1, "folds": folds, "fraction": (number + event["fraction"]) / folds}
            if "message" in event:
                changed["message"] = f"fold {number + 1} of {folds}, {event['message']}"
            on_event(event | changed)

    if should_stop() or train(config, folder, resume=True, on_event=forward, should_stop=should_stop) is None:
        return False
    # Written last: it says that the fold is finished.
    write_json(output / f"fold-{number + 1}.json", _read_json(folder / "evaluation.json"))
    return True


def _pooled(dataset: Dataset, config: dict, answered: list[dict], patients: dict, output: Path) -> dict[str, Any]:
    rows = [row for fold in answered for row in fold["cases"]]
    groups = [patients[row["case"]] for row in rows]
    plan = read_plan(output / "fold-1" / "plan.json")
    if config["task"]["name"] != "classification":
        task = task_class(config["task"]["name"])(plan, answers_of(dataset, config, plan), {})
        return {"summary": task.summarize(rows, groups), **task.details(rows, groups)}
    task = ClassificationTask(plan, Classes(dataset.classes, dataset.kind), {})
    chances, target = task.arrays(rows)
    called = np.array([_flags(row["prediction"], dataset.classes) for row in rows])
    common = {"kind": dataset.kind, "classes": dataset.classes}
    # Each fold has its own operating point, so what was called cannot be found again from the pooled probabilities:
    # those metrics are of the calls, taken for probabilities of 0 and 1, which any threshold leaves as they are.
    of_chances, of_calls = (classification_metrics(some, target, **common, groups=groups) for some in (chances, called))
    names = dict.fromkeys([*of_chances, *of_calls])
    return {
        "kind": dataset.kind,
        "classes": list(dataset.classes),
        "summary": {
            name: source[name]
            for name in names
            if name in (source := of_chances if name.split(": ")[-1] in _OF_PROBABILITIES else of_calls)
        },
        "confusion": confusion_matrix(called, target, **common, groups=groups),
        "curves": _curves(chances, called, target, **common),
    }


def _curves(chances: np.ndarray, called: np.ndarray, target: np.ndarray, **common: Any) -> dict[str, Any]:
    """Curves of the probabilities, with the point that the calls made."""
    curves, made = (classification_curves(some, target, **common) for some in (chances, called))
    for which in ("roc", "precision_recall"):
        for name, points in curves[which].items():
            points.pop("operating_point", None)
            if "operating_point" in made[which][name]:
                points["operating_point"] = made[which][name]["operating_point"]
    return curves


def _flags(prediction: str | list[str] | None, classes: Sequence[str]) -> list[float]:
    called = prediction if isinstance(prediction, list) else [prediction]
    return [float(name in called) for name in classes]


def _between(summaries: list[dict]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over folds of every metric that all folds have."""
    shared = [name for name in summaries[0] if all(name in summary for summary in summaries)]
    values = {name: [summary[name]["mean"] for summary in summaries] for name in shared}
    return {name: {"mean": mean(some), "sd": stdev(some), "folds": len(some)} for name, some in values.items()}


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); choose a new output folder and begin again.") from None
