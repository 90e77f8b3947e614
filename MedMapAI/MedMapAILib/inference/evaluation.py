"""How good is a model on a data set: every case, the mean, and how sure the mean is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..bundle import Bundle
from ..datasets import Case, Dataset
from ..datasets.duplicates import content_hash
from ..datasets.loading import load_case
from ..errors import InputError
from ..metrics import bootstrap_interval
from .predictor import Predictor


def evaluate_cases(
    predictor: Predictor,
    dataset: Dataset,
    cases: Iterable[Case],
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, Any]:
    """Run a model on cases and score it against their labels.

    Returns ``{"cases": [{"case": name, metric: value, …}, …], "summary": {metric: {"mean", "low", "high", "cases"},
    …}}``: mean over cases with its 95 % bootstrap interval. A metric per segment is named "segment: metric"; without a
    segment it is the mean over segments. Values that are not defined for a case (a distance to a segment that is
    absent) are null and left out of the mean; "cases" counts those that went in.
    """
    cases = list(cases)
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        if progress is not None:
            progress(number / len(cases), f"case {number + 1} of {len(cases)}")
        image, reference = load_case(case, dataset)
        result = predictor.predict(image)
        rows.append({"case": case.name, **flatten(predictor.task.evaluate(result, reference))})
    if progress is not None:
        progress(1.0, f"{len(cases)} cases done")
    return {"cases": rows, "summary": summarize(rows)}


def flatten(metrics: dict[str, Any]) -> dict[str, Any]:
    """{"mean": {m: v}, "labels": {segment: {m: v}}} → {m: v, "segment: m": v}."""
    flat = dict(metrics["mean"])
    for segment, values in metrics["labels"].items():
        flat |= {f"{segment}: {metric}": value for metric, value in values.items()}
    return flat


def summarize(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and 95 % bootstrap interval over cases of every number in the rows."""
    names = dict.fromkeys(key for row in rows for key in row if key != "case")
    summary = {}
    for name in names:
        values = [row[name] for row in rows if isinstance(row.get(name), (int, float))]
        if values:
            mean, low, high = bootstrap_interval(values)
            summary[name] = {"mean": mean, "low": low, "high": high, "cases": len(values)}
    return summary


def choose_cases(bundle: Bundle, dataset: Dataset, split: str) -> tuple[list[Case], str]:
    """The cases of a data set to evaluate a model on, and a sentence that says which they are.

    split: "all"; "train", "validation" or "test" as stored with the model, by case name; or "held-out": all whose
    voxels were not among the training images, whatever they are called. Raises InputError when none is left.
    """
    labelled = [case for case in dataset.cases if case.label is not None]
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
