"""The model card: what a person must know before running a model."""

from __future__ import annotations

from typing import Any

from ..results import Classes, FindingClasses


def model_card(
    model: dict[str, Any],
    *,
    answers: tuple | Classes | FindingClasses,
    data: dict[str, Any],
    training: dict[str, Any],
    summary: dict[str, Any],
) -> str:
    """Write the card of a trained model as Markdown.

    model: section [model] of the configuration. answers: segments, classes or classes of findings. data: "name",
    "train", "validation", "test" (numbers of cases), "evaluated" (which part the metrics are of), "duplicates" (a
    sentence). training: "network", "parameters", "epochs", "seed", "device", "minutes", "selection" (a sentence).
    summary: as ``evaluate_cases`` gives it.
    """
    lines = [
        f"# {model['title'] or model['name']}",
        "",
        model["description"],
        "",
        "**Research use only. Not a medical device; not for diagnosis or treatment.**",
        "",
        *_answers(answers),
        "",
        f"Modality: {model['modality'] or 'not stated'}. Anatomy: {model['anatomy'] or 'not stated'}.",
        "",
        "## Intended use and limits",
        "",
        model["intended_use"],
        "",
        model["limits"],
        "",
        "## How good it is",
        "",
        *_measured(answers, data, training, summary),
        "",
        "## How it was made",
        "",
        f"Data: {data['name']}; {data['train']} cases for training, {data['validation']} for validation, "
        f"{data['test']} for test, split by patient. {data['duplicates']}",
        "",
        f"Network: {training['network']}, {training['parameters']:,} parameters. {training['epochs']} epochs, "
        f"seed {training['seed']}, {training['minutes']:.0f} minutes on {training['device']}. "
        "The whole configuration, the plan and the split are in configs/train.json.",
        "",
        f"License of the model: {model['license'] or 'not stated'}. Of the data: "
        f"{model['data_license'] or 'not stated'}.",
        "",
    ]
    return "\n".join(lines)


def _measured(answers: tuple | Classes | FindingClasses, data: dict, training: dict, summary: dict) -> list[str]:
    if not summary:
        return ["Not measured: no case was kept apart from training."]
    return [
        f"Measured on the {data['evaluated']} part of {data['name']}: {data[data['evaluated']]} cases that were not "
        "trained on. "
        f"{training['selection']} {_WHAT_NUMBERS[type(answers)]}",
        "",
        "| metric | mean | 95 % interval | cases |",
        "|---|---|---|---|",
        *(
            f"| {name.replace('_', ' ')} | {v['mean']:.4g} | {v['low']:.4g} to {v['high']:.4g} | {v['cases']} |"
            for name, v in summary.items()
        ),
    ]


#: By what the answers are.
_WHAT_NUMBERS = {
    tuple: "Mean over cases with its 95 % bootstrap interval; distances in mm, volumes in mL.",
    Classes: "With 95 % bootstrap intervals over patients, at the operating point stored with the model.",
    FindingClasses: "With 95 % bootstrap intervals over patients; a finding is hit by a center nearer to its own than "
    "its radius, and froc is the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives a scan, as in "
    "LUNA16. Precision, recall, F1 and false positives per scan are those at the operating point stored with the "
    "model.",
}


def _answers(answers: tuple | Classes | FindingClasses) -> list[str]:
    if isinstance(answers, Classes):
        listed = [f"{number}. {name}" for number, name in enumerate(answers.names, start=1)]
        return ["## What it tells apart", "", f"A {answers.kind} classification:", "", *listed]
    if isinstance(answers, FindingClasses):
        return ["## What it finds", "", *(f"- {name}" for name in answers.names)]
    return ["## What it finds", "", "| label | segment |", "|---|---|", *(f"| {s.value} | {s.name} |" for s in answers)]
