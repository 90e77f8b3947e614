"""Benign or malignant: several 3D networks on the nodules of LIDC-IDRI, and the diameter alone, in one table.

Each line is a patient-wise 5-fold cross-validation by ``medmapai crossvalidate`` of the recipe that ships, with the
changes that stand below. Area under the receiver operating characteristic (AUC) of the pooled out-of-fold answers with
a 95 % bootstrap interval over patients, mean and standard deviation over folds, and the difference to the diameter's
AUC on the same resamples. Finished folds are not repeated.

.venv/bin/python Testing/benchmarks/nodule_malignancy.py [--output runs/nodule-malignancy] [--only NAME,NAME]
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np

_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT / "MedMapAI"))
from MedMapAILib.metrics.bootstrap import resampled_weights  # noqa: E402
from MedMapAILib.terminal import ProgressBar  # noqa: E402
from MedMapAILib.training.config import read_config  # noqa: E402
from MedMapAILib.training.crossvalidation import crossvalidate  # noqa: E402

_DATA = _ROOT.parent / "shared" / "data" / "lidc_nodules"
_RECIPE = _ROOT / "MedMapAITraining" / "Resources" / "Recipes" / "nodule-malignancy.toml"
#: Name → settings that differ from the recipe's.
VARIANTS: dict[str, list[str]] = {
    "resnet18": [],
    "resnet18-cbam": ["network.attention=cbam"],
    "resnet18-classes-alone": ["dataset.auxiliary_columns=[]"],
    "densenet121": ["network.name=densenet121"],
    "vgg11": ["network.name=vgg11", "network.width=0.0625"],
    # Inflated from the 2D network of the model that ships: radiographs of other patients.
    "resnet18-from-pneumonia": [
        f"transfer.weights={_ROOT / 'MedMapAI' / 'Resources' / 'Models' / 'pneumonia'}",
        "transfer.layer_decay=0.8",
    ],
}


def weighted_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC of each row of weights (R, N): the share of pairs that are in order, ties counted half (Mann, Whitney)."""
    order = np.argsort(scores, kind="stable")
    _, tie = np.unique(scores[order], return_inverse=True)
    count = int(tie.max()) + 1
    at = np.zeros((len(order), count))
    at[np.arange(len(order)), tie] = 1
    yes = (weights[:, order] * positive[order]) @ at
    no = (weights[:, order] * ~positive[order]) @ at
    below = np.cumsum(no, axis=1) - no
    return ((below + no / 2) * yes).sum(axis=1) / (yes.sum(axis=1) * no.sum(axis=1))


def interval(draws: np.ndarray) -> str:
    """The central 95 % of bootstrap draws."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{low:.3f} to {high:.3f}"


def main() -> None:
    """Cross-validate what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=_ROOT / "runs" / "nodule-malignancy")
    parser.add_argument("--only", default="", help="names of variants, separated by commas")
    options = parser.parse_args()
    if not _DATA.exists():
        sys.exit(f"The nodules are not here: {_DATA}")
    chosen = [name for name in VARIANTS if not options.only or name in options.only.split(",")]
    reports = {}
    for name in chosen:
        config = read_config(_RECIPE, [f"dataset.path={_DATA / 'nodules.csv'}", *VARIANTS[name]])
        with ProgressBar() as bar:

            def say(event: dict, name: str = name, bar: ProgressBar = bar) -> None:
                if event["event"] == "progress":
                    bar(event["fraction"], f"{name}: {event['message']}")
                elif event["event"] == "fold":
                    bar.line(f"{name}, fold {event['fold']}: AUC {event['metrics']['auc']['mean']:.3f}")

            reports[name] = crossvalidate(config, options.output / name, on_event=say)
    with (_DATA / "nodules.csv").open(encoding="utf-8") as file:
        diameters = {Path(row["file"]).name.split(".")[0]: float(row["diameter_mm"]) for row in csv.DictReader(file)}
    print_table(reports, diameters, options.output / "table.json")


def print_table(reports: dict[str, dict], diameters: dict[str, float], path: Path) -> None:
    """One line for the diameter and one for each variant, printed and written as JSON."""
    rows = []
    first = next(iter(reports.values()))
    positive_class = first["classes"][1]
    for name, report in {"diameter alone": first, **reports}.items():
        cases = report["cases"]
        positive = np.array([case["target"] == positive_class for case in cases])
        size = np.array([diameters[case["case"]] for case in cases])
        alone = name == "diameter alone"
        scores = size if alone else np.array([case["probabilities"][positive_class] for case in cases])
        patients = [case["patient"] for case in cases]
        weights = np.concatenate(list(resampled_weights(len(cases), groups=patients, resamples=2000)))
        draws, of_size = weighted_auc(scores, positive, weights), weighted_auc(size, positive, weights)
        folds = np.array([case["fold"] for case in cases])
        each = [
            float(weighted_auc(scores[folds == n], positive[folds == n], np.ones((1, int((folds == n).sum()))))[0])
            for n in sorted(set(folds))
        ]
        whole = np.ones((1, len(cases)))
        auc = float(weighted_auc(scores, positive, whole)[0])
        gain = auc - float(weighted_auc(size, positive, whole)[0])
        rows.append(
            {
                "variant": name,
                "auc": round(auc, 4),
                "interval": interval(draws),
                "folds": f"{np.mean(each):.3f} ± {np.std(each, ddof=1):.3f}",
                "gain_over_diameter": "" if alone else f"{gain:+.3f} ({interval(draws - of_size)})",
                "accuracy": "" if alone else round(report["summary"]["accuracy"]["mean"], 3),
            }
        )
    heads = ("variant", "AUC", "95 % interval", "mean ± sd over folds", "more than the diameter", "accuracy")
    table = [heads, *[tuple(str(value) for value in row.values()) for row in rows]]
    widths = [max(len(line[column]) for line in table) for column in range(len(heads))]
    for line in table:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
