"""The model card: what a person must know before running a model."""

from __future__ import annotations

from typing import Any

from ..results import Classes, FindingClasses, ImageKind


def model_card(
    model: dict[str, Any],
    *,
    answers: tuple | Classes | FindingClasses | ImageKind,
    data: dict[str, Any],
    training: dict[str, Any],
    summary: dict[str, Any],
) -> str:
    """Write the card of a trained model as Markdown.

    model: section [model] of the configuration. answers: segments, classes, classes of findings or the kind of
    images. data: "name", "train", "validation", "test" (numbers of cases), "split" (how they were parted),
    "evaluated" (which part the metrics are of), "duplicates" (a sentence). training: "network", "parameters",
    "epochs", "seed", "device", "minutes", "selection" (a sentence). summary: as ``evaluate_cases`` gives it.
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
        f"{data['test']} for test, split {data['split']}. {data['duplicates']}",
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


def _measured(
    answers: tuple | Classes | FindingClasses | ImageKind, data: dict, training: dict, summary: dict
) -> list[str]:
    if not summary:
        return ["Not measured: no case was kept apart from training."]
    return [
        f"Measured on the {data['evaluated']} part of {data['name']}: {data[data['evaluated']]} cases that were not "
        "trained on. "
        f"{training['selection']} {_what_numbers(answers)}",
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


def _what_numbers(answers: tuple | Classes | FindingClasses | ImageKind) -> str:
    if not isinstance(answers, ImageKind):
        return _WHAT_NUMBERS[type(answers)]
    low, high = answers.window
    regions = ", that of air, water and bone in regions drawn in the smoothed reference" if answers.unit == "HU" else ""
    return (
        f"Mean over cases with its 95 % bootstrap interval, over the display window from {low:g} to {high:g} "
        f"{answers.unit}".rstrip()
        + " (its width is the data range of PSNR and SSIM; SSIM slice by slice, windows of 7 pixels); bias is the mean "
        f"of the result minus that of the reference{regions}."
    )


def _answers(answers: tuple | Classes | FindingClasses | ImageKind) -> list[str]:
    if isinstance(answers, Classes):
        listed = [f"{number}. {name}" for number, name in enumerate(answers.names, start=1)]
        return ["## What it tells apart", "", f"A {answers.kind} classification:", "", *listed]
    if isinstance(answers, ImageKind):
        return ["## What it makes", "", *_images(answers)]
    if isinstance(answers, FindingClasses):
        return ["## What it finds", "", *(f"- {name}" for name in answers.names)]
    return ["## What it finds", "", "| label | segment |", "|---|---|", *(f"| {s.value} | {s.name} |" for s in answers)]


def _images(kind: ImageKind) -> list[str]:
    made = "of a measurement (a sinogram or k-space)" if kind.domain == "measurement" else "of an image"
    unit = f" in {kind.unit}" if kind.unit else ""
    lines = [f"An image{unit}, {made}."]
    if kind.acquisition.get("kind", "none") != "none":
        settings = ", ".join(f"{key} {value}" for key, value in kind.acquisition.items() if value is not None)
        lines += ["", f"The measurements that it learned from were simulated: {settings}."]
    return lines
