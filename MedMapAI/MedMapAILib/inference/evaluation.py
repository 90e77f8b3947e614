"""How good is a model on a data set: every case, the mean, and how sure the mean is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..datasets import Case, Dataset
from ..datasets.duplicates import content_hash
from ..datasets.loading import load_case
from ..errors import InputError
from .opening import AnyPredictor


def evaluate_cases(
    predictor: AnyPredictor,
    dataset: Dataset,
    cases: Iterable[Case],
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, Any]:
    """Run a model on cases and score it against their labels.

    Returns ``{"cases": [{"case": name, metric: value, …}, …], "summary": {metric: {"mean", "low", "high", "cases"},
    …}}``: mean over cases with its 95 % bootstrap interval; of a classification the value over all cases, its interval
    over patients, and "confusion" and "curves" besides. A metric per segment is named "segment: metric"; without a
    segment it is the mean over segments. Values that are not defined for a case (a distance to a segment that is
    absent) are null and left out of the mean; "cases" counts those that went in. Of a detection likewise the values
    over all scans, their intervals over patients, and "curves". A generator is compared with all cases at once and has
    no rows.
    """
    if hasattr(predictor, "evaluate_set"):
        return predictor.evaluate_set(dataset, cases, progress)
    cases = list(cases)
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        if progress is not None:
            progress(number / len(cases), f"case {number + 1} of {len(cases)}")
        image, reference = load_case(case, dataset)
        if dataset.target == "clean":
            image, reference = predictor.task.given(image, case.name)
        proposals = getattr(reference, "proposals", None)
        result = predictor.predict(image) if proposals is None else predictor.predict(image, proposals=proposals)
        rows.append({"case": case.name, **predictor.task.row(result, reference)})
    if progress is not None:
        progress(1.0, f"{len(cases)} cases done")
    patients, task = [case.patient for case in cases], predictor.task
    return {"cases": rows, "summary": task.summarize(rows, patients), **task.details(rows, patients)}


def check_answers(bundle: Bundle, dataset: Dataset) -> None:
    """Raise InputError where a data set does not hold what the model answers."""
    unnamed = bundle.info.task == "generation" and len(bundle.info.classes.names) == 1
    if unnamed:
        return
    if dataset.task != bundle.info.task and (bundle.info.task, dataset.task) != ("generation", "classification"):
        raise InputError(
            f"{dataset.name} is a data set for {dataset.task}, and {bundle.info.name} is a model for "
            f"{bundle.info.task}."
        )
    classes, findings, images = bundle.info.classes, bundle.info.findings, bundle.info.images
    if images is not None and dataset.target == "clean" and images.acquisition.get("kind", "none") == "none":
        raise InputError(
            f"{dataset.name} holds true images alone, and {bundle.info.name} was trained on pairs and says nothing of "
            "how worse images come about; give pairs (inputs/ and targets/)."
        )
    if images is not None and dataset.target == "self":
        raise InputError(f"{dataset.name} has no true images to score against; give pairs (inputs/ and targets/).")
    if classes is not None and (classes.names, classes.kind) != (dataset.classes, dataset.kind):
        raise InputError(
            f"{dataset.name} has the classes {', '.join(dataset.classes)} ({dataset.kind}), and the model "
            f"{bundle.info.name} tells apart {', '.join(classes.names)} ({classes.kind}); name them in that order."
        )
    if findings is not None and findings.names != dataset.findings:
        raise InputError(
            f"{dataset.name} has findings of the classes {', '.join(dataset.findings)}, and the model "
            f"{bundle.info.name} finds {', '.join(findings.names)}; name them alike."
        )


def dataset_options(bundle: Bundle, path: str | Path, settings: Iterable[str] = ()) -> dict[str, Any]:
    """How to open a data set as the model's own was opened, for ``open_dataset``: its classes, and for a table its
    columns, as far as the table has them. settings: "key=value", over these; lists are separated by commas."""
    classes = bundle.info.classes
    if bundle.info.images is not None:
        return {"task": "reconstruction"}
    if bundle.info.findings is not None:
        return {"classes": list(bundle.info.findings.names)} | _settings_for_findings(settings)
    if classes is None:
        return {}
    stored = bundle.train["config"]["dataset"]
    options: dict[str, Any] = {"classes": list(classes.names), "target": classes.kind}
    if Path(path).suffix.lower() in (".csv", ".tsv"):
        header = Path(path).open(encoding="utf-8-sig", errors="replace").readline() if Path(path).is_file() else ""
        columns = {cell.strip().strip('"').lower() for cell in re.split(r"[,;\t]", header)}
        for key in ("image_column", "class_column", "patient_column"):
            if stored.get(key) and str(stored[key]).lower() in columns:
                options[key] = stored[key]
        if all(str(name).lower() in columns for name in stored.get("class_columns") or ()):
            options["class_columns"] = stored.get("class_columns")
        folder = stored.get("image_folder")
        if folder and (Path(path).parent / folder).is_dir():
            options["image_folder"] = folder
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or key not in ("image_column", "image_folder", "class_column", "class_columns", "patient_column"):
            raise InputError(f"--set {setting} is not of the form key=value with a key of section [dataset].")
        options[key] = value.split(",") if key == "class_columns" else value
    return options


#: Settings of section [dataset] in which a data set of findings may differ from the one that was trained on.
_OF_FINDINGS = ("annotations", "excluded", "seriesuids", "candidates", "proposals", "subsets", "consensus", "frame")


def _settings_for_findings(settings: Iterable[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or key not in _OF_FINDINGS:
            raise InputError(f"--set {setting} is not of the form key=value with one of {', '.join(_OF_FINDINGS)}.")
        try:
            options[key] = value.split(",") if key == "subsets" else float(value) if key == "consensus" else value
        except ValueError:
            raise InputError(f"--set {setting}: {key} is a share from 0 to 1, such as 0.5, not {value!r}.") from None
    return options


def choose_cases(bundle: Bundle, dataset: Dataset, split: str) -> tuple[list[Case], str]:
    """The cases of a data set to evaluate a model on, and a sentence that says which they are.

    split: "all"; "train", "validation" or "test" as stored with the model, by case name; or "held-out": all whose
    voxels were not among the training images, whatever they are called. Raises InputError when none is left.
    """
    labelled = list(dataset.usable)
    if split == "all":
        chosen, said = labelled, f"All {len(labelled)} labelled cases; some may have been trained on."
    elif split == "held-out":
        trained = set(bundle.train.get("training_images_sha256", ()))
        chosen = [case for case in labelled if content_hash(case) not in trained]
        left_out = len(labelled) - len(chosen)
        said = f"{len(chosen)} cases that the model was not trained on; {left_out} of its training images are left out."
    else:
        names = set(bundle.train["split"][split])
        chosen = [case for case in labelled if case.name in names]
        said = f"{len(chosen)} cases of the {split} part that is stored with the model."
    if not chosen:
        raise InputError(f"There is no case to evaluate in {dataset.name} for --split {split}; try --split all.")
    return chosen, said
