"""The card of a generator."""

from __future__ import annotations

from typing import Any

from ..results import Classes

_EXPLAINED = {
    "kernel_distance": "KID: squared maximum mean discrepancy, 0 for images of the same kind",
    "frechet_distance": "FID: smaller is nearer; depends on how many images there are",
    "coverage": "share of real images that have a generated one among their neighbors",
    "kernel_distance_of_training_images": "the same for real images, of the training part: what is possible",
    "frechet_distance_of_training_images": "the same for real images, of the training part: what is possible",
    "nearer_by_embedding": "share of generated images nearer to a training image than any held-out real one is",
    "nearer_by_voxels": "the same, distances between voxels",
    "copying_z_by_embedding": "below -3: nearer to training images than new real images are, which is copying",
    "copying_z_by_voxels": "the same, distances between voxels",
}


def generator_card(
    model: dict[str, Any],
    *,
    answers: Classes,
    data: dict[str, Any],
    training: dict[str, Any],
    summary: dict[str, Any],
    embedding: str,
) -> str:
    """Write the card of a trained generator as Markdown. Arguments as ``model_card``; embedding: a sentence."""
    told = answers.kind != "multi-label"
    measured = ["Not measured: too few cases were kept apart from training."]
    if summary:
        measured = [
            f"As many generated images as there are in the {data['evaluated']} part of {data['name']} were compared "
            f"with those ({data[data['evaluated']]} images that were not trained on). Embedding: {embedding} KID is "
            "the mean over random subsets of up to 100 images, with their 2.5th and 97.5th percentile.",
            "",
            "| number | value | subsets | what it says |",
            "|---|---|---|---|",
            *(
                f"| {name.replace('_', ' ')} | {v['mean']:.4g} "
                f"| {'' if v['low'] == v['high'] else format(v['low'], '.3g') + ' to ' + format(v['high'], '.3g')} "
                f"| {_EXPLAINED.get(name, '')} |"
                for name, v in summary.items()
            ),
        ]
    lines = [
        f"# {model['title'] or model['name']}",
        "",
        model["description"],
        "",
        "**Research use only. Not a medical device. What it makes are synthetic images of no patient.**",
        "",
        "## What it makes",
        "",
        *(
            ["Images of a class:", "", *(f"{n}. {name}" for n, name in enumerate(answers.names, start=1))]
            if told
            else ["Images; it is told no class."]
        ),
        "",
        f"`medmapai generate {model['name']} OUT_DIR --count N`",
        "",
        f"Modality: {model['modality'] or 'not stated'}. Anatomy: {model['anatomy'] or 'not stated'}.",
        "",
        "## Intended use and limits",
        "",
        model["intended_use"],
        "",
        model["limits"],
        "",
        "Generated images show what the training images showed, their biases included, and add no knowledge of a "
        "disease. Whether they help a classifier must be measured on real images; never test on them.",
        "",
        "## How good it is",
        "",
        *measured,
        "",
        "## How it was made",
        "",
        f"Data: {data['name']}; {data['train']} cases for training, {data['validation']} for validation, "
        f"{data['test']} for test, split {data['split']}. {data['duplicates']}",
        "",
        f"Network: {training['network']}, {training['parameters']:,} parameters, against a critic. "
        f"{training['epochs']} epochs, seed {training['seed']}, {training['minutes']:.0f} minutes on "
        f"{training['device']}. The whole configuration, the plan and the split are in configs/train.json.",
        "",
        f"License of the model: {model['license'] or 'not stated'}. Of the data: "
        f"{model['data_license'] or 'not stated'}.",
        "",
    ]
    return "\n".join(lines)
