"""False-positive reduction for a trained detector: its classifiers, and how much each answer counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import find_bundle, load_bundle, read_info
from ..datasets import Case, Dataset
from ..datasets.loading import load_case
from ..errors import InputError
from ..inference.detection_predictor import DetectionPredictor
from ..inference.second_look import SecondLook, fit_weights, joint
from ..metrics.matching import FALSE, TRUE, match_findings
from ..results import Detections, FindingReference
from ..tasks import Task
from .candidates import collect_candidates, lacking_class
from .config import read_config

Event = Callable[[dict], None]


def check_stages(config: dict[str, dict[str, Any]]) -> None:
    """Raise InputError, before anything is trained, where a model or recipe of section [false_positives] will not
    do."""
    section = config["false_positives"]
    for name in section["models"]:
        info = read_info(name)
        if info.classes is None or info.classes.kind != "binary" or not info.path.is_dir():
            raise InputError(
                f"false_positives.models names {name}, which is no folder of a binary classifier; the second of its "
                "two classes says that it is a finding."
            )
    if section["recipe"]:
        recipe = read_config(section["recipe"], ["dataset.path=candidates.csv"])
        if recipe["task"]["name"] != "classification":
            raise InputError(f"false_positives.recipe, {section['recipe']}, is no recipe of a classification.")


def make_stages(
    config: dict[str, dict[str, Any]],
    bundle: Path,
    dataset: Dataset,
    parts: dict[str, Sequence[Case]],
    output: Path,
    train: Callable[..., Path | None],
    on_event: Event,
    should_stop: Callable[[], bool],
) -> list[Path] | None:
    """The bundle folders of the classifiers of section [false_positives]: those it names, and one that is trained here
    on what the detector finds in the training part, or in ``scans`` of its scans, and the validation part; None when
    stopped.

    bundle: of the detector, without stages. parts: "train" and "validation" → cases. output: of the training; gets
    candidates/ and false-positives/. train: ``training.run.train``.
    """
    section = config["false_positives"]
    stages = [find_bundle(name) for name in section["models"]]
    if not section["recipe"]:
        return stages
    # Every so many, so that all kinds of scans are among them.
    chosen = dict(parts)
    if section["scans"] and len(parts["train"]) > section["scans"]:
        places = np.linspace(0, len(parts["train"]) - 1, int(section["scans"])).round().astype(int)
        chosen["train"] = [parts["train"][place] for place in places]
    table = collect_candidates(
        DetectionPredictor(load_bundle(bundle), config["training"]["device"], second_look=False),
        dataset,
        chosen,
        output / "candidates",
        per_scan=int(section["per_scan"]),
        crop_mm=float(section["crop_mm"]),
        seed=int(config["training"]["seed"]),
        progress=lambda fraction, message: on_event({"event": "progress", "fraction": fraction, "message": message}),
        should_stop=should_stop,
    )
    if table is None:
        return None
    missing = lacking_class(table)
    if missing:
        said = f"No false-positive reduction was trained: {missing}."
        on_event({"event": "progress", "fraction": 1.0, "message": said})
        return stages
    recipe = read_config(
        section["recipe"], [f"dataset.path={str(table.resolve())!r}", f"training.seed={config['training']['seed']}"]
    )
    for key, value in (("class_column", "class"), ("patient_column", "patient"), ("classes", ["other", "finding"])):
        recipe["dataset"][key] = value

    def say(event: dict) -> None:
        if event["event"] in ("progress", "epoch"):
            said = event.get("message") or f"epoch {event['epoch']}"
            message = f"false-positive reduction: {said}"
            on_event({"event": "progress", "fraction": event["fraction"], "message": message})

    folder = output / "false-positives"
    trained = train(recipe, folder, resume=(folder / "config.json").exists(), on_event=say, should_stop=should_stop)
    return None if trained is None else [*stages, trained]


def calibrate(
    config: dict[str, dict[str, Any]],
    bundle: Path,
    task: Task,
    dataset: Dataset,
    cases: Sequence[Case],
    on_event: Event,
) -> dict[str, Any]:
    """What a detector needs from whole results on the validation part: how much each stage counts ("second_look"), and
    the operating point."""
    loaded = load_bundle(bundle)
    predictor = DetectionPredictor(loaded, config["training"]["device"], second_look=False)
    look = SecondLook(loaded, config["training"]["device"]) if loaded.stages else None
    results: list[Detections] = []
    references: list[FindingReference] = []
    odds, true = [], []
    for number, case in enumerate(cases):
        said = f"choosing the operating point: scan {number + 1} of {len(cases)}"
        on_event({"event": "progress", "fraction": number / len(cases), "message": said})
        image, reference = load_case(case, dataset)
        result = predictor.predict(image, proposals=reference.proposals)
        results.append(result)
        references.append(reference)
        if look is not None:
            kinds = np.array(match_findings(result, reference))
            decided = (kinds == TRUE) | (kinds == FALSE)
            odds.append(look.log_odds(result.findings, image))
            true.append(np.where(decided, kinds == TRUE, np.nan))
    concluded: dict[str, Any] = {}
    if look is not None and odds:
        every, kind = np.concatenate(odds), np.concatenate(true)
        concluded["second_look"] = fit_weights(every[~np.isnan(kind)], kind[~np.isnan(kind)])
        results = [joint(result, own, concluded["second_look"]) for result, own in zip(results, odds, strict=True)]
    return concluded | task.calibrate(results, references, config["evaluation"])
