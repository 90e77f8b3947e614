"""Do generated images help a classifier that has few real ones?

Data: PneumoniaMNIST, chest radiographs of children, 28×28 pixels, normal or pneumonia. Of its training part (3,882) 5 %
of the images have labels, drawn anew for each seed with the share of either class kept: 19 normal and 175 with
pneumonia; a fifth of them chooses operating points, and the rest trains. The same images train a class-conditional
generator, which sees no other. The classifier learns from the real images alone, or from these and as many again of
each class as the larger class has real ones, made by that generator. All else is equal: recipe, seed, number of
updates, and a loss in which both classes count the same, so that what differs is the images and not the balance; with
generated images beside them the real ones are shown less often in those updates.
Scored on the validation part of PneumoniaMNIST, which takes no part in anything else: 516 of its 524 images, since the
training part holds the other 8 as well. All is trained and scored by ``training.run.train``, as by ``medmapai train``.

Each mean has a 95 % t interval over seeds (other labels, generator and classifier, the same scored images), the
difference is taken seed by seed, and its mean has a bootstrap interval over the scored images too, networks held.

OMP_NUM_THREADS=1 nice -n 19 python Testing/benchmarks/generated_augmentation.py [--work FOLDER] [--quick] [--tune]

--work: keeps data and runs; what is finished there is not repeated. --tune: scored on images of the training part that
have no label here instead, to choose recipes by; like --quick it leaves the figure of the docs alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT / "MedMapAI"))
from MedMapAILib.figures import COLORS  # noqa: E402
from MedMapAILib.files import atomic_file, write_atomically  # noqa: E402
from MedMapAILib.metrics.bootstrap import resampled_weights  # noqa: E402
from MedMapAILib.metrics.ranking import Ranking  # noqa: E402

_DATA = _ROOT.parent / "shared" / "data" / "pneumoniamnist" / "pneumoniamnist_trainval.npz"
_RECIPE = _ROOT / "MedMapAITraining" / "Resources" / "Recipes" / "pneumonia-generator.toml"
_FIGURES = _ROOT / "Resources" / "Figures"
_NAME = "generated_augmentation"
_SHARE, _SEEDS = 0.05, 5
#: Images that are scored while recipes are chosen.
_TUNED_ON = 524
#: Of the labelled images, what chooses operating points.
_VALIDATION = 0.2
CLASSES = ("normal", "pneumonia")
#: Arm → what it is called.
ARMS = {"real": "real images alone", "generated": "with generated images"}
#: Metric → what it is called.
METRICS = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}

#: What the recipe of the generator is changed in: five of them train in minutes of one core.
_GENERATOR = {"training": {"epochs": 4, "iterations_per_epoch": 200, "validate_every": 4, "checkpoint_minutes": 60.0}}
#: The recipe of the model "pneumonia", made small: one narrow network and fewer, shorter epochs.
_CLASSIFIER: dict[str, dict[str, Any]] = {
    "task": {"name": "classification"},
    "plan": {"patch": [28, 28, 1], "batch": 16, "normalization": {"kind": "zscore"}},
    "network": {"name": "resnet18", "width": 0.125},
    "loss": {"name": "cross-entropy", "weight": "balanced", "label_smoothing": 0.05},
    "optimizer": {"learning_rate": 2e-3, "weight_decay": 5e-2, "gradient_clipping": 5.0},
    "schedule": {"warmup_epochs": 1},
    "training": {
        "epochs": 8,
        "iterations_per_epoch": 50,
        "validate_every": 8,
        "ema_decay": 0.98,
        "device": "cpu",
        "precision": "fp32",
        "checkpoint_minutes": 60.0,
    },
    "augmentation": {
        "affine": 0.9,
        "rotate_degrees": [15.0, 15.0, 15.0],
        "scale": 0.2,
        "translate": 0.1,
        "noise": 0.3,
        "noise_sd": 0.2,
        "blur": 0.3,
        "blur_sigma": [0.3, 1.0],
        "brightness": 0.5,
        "brightness_shift": 0.5,
        "contrast": 0.5,
        "contrast_factor": 0.4,
        "gamma": 0.5,
        "gamma_range": [0.6, 1.6],
        "bias_field": 0.0,
    },
    "evaluation": {"operating_point": "youden-plateau"},
}


# --------------------------------------------------------------------------------------------------------------------
# Who is in which part


def draw_split(labels: Sequence[int], seed: int, *, share: float = _SHARE) -> dict[str, list[int]]:
    """Indices of training images: "train" and "validation" are the labelled ones, "rest" has no label.

    labels: of the training part. Each class is drawn from on its own, so its share stays. The same seed gives the same.
    """
    random = np.random.default_rng(seed)
    parts: dict[str, list[int]] = {"train": [], "validation": [], "rest": []}
    for label in sorted(set(labels)):
        places = random.permutation(np.flatnonzero(np.asarray(labels) == label))
        labelled = max(2, round(share * len(places)))
        apart = max(1, round(_VALIDATION * labelled))
        parts["validation"] += places[:apart].tolist()
        parts["train"] += places[apart:labelled].tolist()
        parts["rest"] += places[labelled:].tolist()
    parts["rest"] = random.permutation(parts["rest"]).tolist()
    return {part: sorted(numbers) if part != "rest" else numbers for part, numbers in parts.items()}


def unlike(images: np.ndarray, others: np.ndarray) -> list[int]:
    """Indices of images (N, rows, columns) that have not the same voxels as any of the others (M, rows, columns)."""
    known = {other.tobytes() for other in others}
    return [number for number, image in enumerate(images) if image.tobytes() not in known]


def write_splits(stored: Mapping[str, np.ndarray], seed: int, tune: bool, work: Path) -> dict[str, Path]:
    """Files for section [split]: of the generator and of the classifiers, which differ in what they are scored on.

    stored: the arrays of PneumoniaMNIST. Images of its validation part that its training part holds as well are not
    scored: the official split has some.
    """
    images, labels = stored["train_images"], stored["train_labels"].ravel()
    parts = draw_split(labels, seed)
    names = {part: [f"train_{number:04}" for number in numbers] for part, numbers in parts.items()}
    if tune:
        new = unlike(images[parts["rest"]], images[parts["train"] + parts["validation"]])
        scored_on = [names["rest"][number] for number in new][:_TUNED_ON]
    else:
        scored_on = [f"val_{number:03}" for number in unlike(stored["val_images"], images)]
    files = {}
    for which, test in (("generator", []), ("classifier", sorted(scored_on))):
        files[which] = work / f"{which}-{seed}.split.json"
        content = {"train": names["train"], "validation": names["validation"], "test": test, "seed": seed}
        write_atomically(files[which], json.dumps(content).encode())
    return files


# --------------------------------------------------------------------------------------------------------------------
# The runs


def train_once(config: dict, output: Path) -> dict[str, Any]:
    """Train by the product, unless it was done: {"summary", "cases", "cpu_seconds"}."""
    from MedMapAILib.training.run import train

    done = output / "result.json"
    if not done.exists():
        began = time.process_time()
        train(config, output, resume=output.exists())
        evaluation = json.loads((output / "evaluation.json").read_text())
        write_atomically(done, json.dumps({**evaluation, "cpu_seconds": time.process_time() - began}).encode())
    return json.loads(done.read_text())


def run_all(work: Path, settings: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """All trainings, one after the other. settings: of ``settings_for``. Returns what ``summarize`` takes."""
    from MedMapAILib.generate_command import generate_folder
    from MedMapAILib.training.config import read_config

    with np.load(_DATA) as file:
        stored = dict(file)
    labels = stored["train_labels"].ravel()
    spent, runs, quality = 0.0, [], []
    for seed in settings["seeds"]:
        files = write_splits(stored, seed, settings["part"] == "tune", work)
        recipe = read_config(_RECIPE)
        for section, values in settings["generator"].items():
            recipe[section] |= values
        recipe["dataset"]["path"] = str(_DATA)
        recipe["split"]["file"], recipe["training"]["seed"] = str(files["generator"]), seed
        generator = train_once(recipe, work / f"generator-{seed}")
        spent += generator["cpu_seconds"]
        quality.append({name: value["mean"] for name, value in generator["summary"].items()})
        say(f"seed {seed}: generator, {generator['cpu_seconds']:.0f} s, " + ", ".join(_short(quality[-1])))
        train_part = json.loads(files["classifier"].read_text())["train"]
        made = work / f"images-{seed}"
        if not made.exists():
            began = time.process_time()
            real = np.bincount([labels[int(name.removeprefix("train_"))] for name in train_part])
            generate_folder(work / f"generator-{seed}" / "bundle", made, count=int(real.max()), seed=seed)
            spent += time.process_time() - began
        for arm in ARMS:
            config = copy.deepcopy(settings["classifier"])
            config["dataset"] = {"path": str(_DATA)} | ({"generated": str(made)} if arm == "generated" else {})
            config["split"] = {"file": str(files["classifier"])}
            config["training"]["seed"] = seed
            found = train_once(config, work / f"{arm}-{seed}")
            spent += found["cpu_seconds"]
            cases = sorted(found["cases"], key=lambda row: row["case"])
            run = {
                "arm": arm,
                "seed": seed,
                **{metric: found["summary"][metric]["mean"] for metric in METRICS},
                "scores": np.array([row["probabilities"]["pneumonia"] for row in cases]),
                "true": np.array([row["target"] == "pneumonia" for row in cases]),
            }
            runs.append(run)
            shown = ", ".join(f"{title} {run[metric]:.3f}" for metric, title in METRICS.items())
            say(f"seed {seed}: {ARMS[arm]}: {shown}, {found['cpu_seconds']:.0f} s")
    return {"runs": runs, "quality": quality, "cpu_minutes": spent / 60}


def _short(quality: Mapping[str, float]) -> list[str]:
    return [f"{name.replace('_', ' ')} {value:.3g}" for name, value in quality.items()]


# --------------------------------------------------------------------------------------------------------------------
# The table and the figure


def t_interval(values: Sequence[float], confidence: float = 0.95) -> dict[str, float]:
    """Mean and interval of Student's t distribution, n − 1 degrees of freedom: {"mean", "low", "high"}."""
    values = np.asarray(values, dtype=np.float64)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return {"mean": float(values.mean()), "low": float(values.mean() - half), "high": float(values.mean() + half)}


def image_interval(pairs: Sequence[tuple[dict, dict]], resamples: int = 2000) -> dict[str, float]:
    """Percentile bootstrap interval, over scored images, of the mean difference in AUC of pairs of runs.

    pairs: (real, generated) of runs with "scores" and "true", all of the same images in the same order.
    """
    drawn = []
    for weights in resampled_weights(len(pairs[0][0]["true"]), resamples=resamples, seed=0):
        areas = [[Ranking(run["scores"], run["true"]).scores(weights)[0] for run in pair] for pair in pairs]
        drawn.append(np.mean([after - before for before, after in areas], axis=0))
    low, high = np.nanquantile(np.concatenate(drawn), [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def summarize(runs: Sequence[dict]) -> dict[str, Any]:
    """Metric → {"real", "generated", "difference"}: values of all seeds with mean and interval; and
    "auc_difference_over_images". runs: arm, seed, the METRICS, scores, true."""
    arms = {arm: sorted((r for r in runs if r["arm"] == arm), key=lambda r: r["seed"]) for arm in ARMS}
    pairs = list(zip(*arms.values(), strict=True))
    found: dict[str, Any] = {}
    for metric in METRICS:
        values = {arm: [run[metric] for run in some] for arm, some in arms.items()}
        values["difference"] = [after[metric] - before[metric] for before, after in pairs]
        found[metric] = {
            name: {"seeds": [round(value, 4) for value in some]} | t_interval(some) for name, some in values.items()
        }
    return found | {"auc_difference_over_images": image_interval(pairs)}


def table_of(summary: Mapping[str, Any]) -> str:
    """As Markdown."""
    lines = [
        "| metric | real images alone | with generated images | difference, over seeds | over scored images |",
        "|---|---|---|---|---|",
    ]
    for metric, title in METRICS.items():
        row = summary[metric]
        arms = (f"{row[arm]['mean']:.3f} ({_between(row[arm])})" for arm in ARMS)
        over_images = _between(summary["auc_difference_over_images"], "+") if metric == "auc" else ""
        difference = f"{row['difference']['mean']:+.3f} ({_between(row['difference'], '+')})"
        lines.append("| " + " | ".join([title, *arms, difference, over_images]).replace("-", "−") + " |")
    return "\n".join(lines)


def _between(interval: Mapping[str, float], sign: str = "") -> str:
    return f"{interval['low']:{sign}.3f} to {interval['high']:{sign}.3f}"


def draw(summary: Mapping[str, Any], samples: Mapping[str, Sequence[np.ndarray]], path: Path) -> None:
    """Real and generated images of either class above, and below the differences.

    samples: "real normal", "generated normal" and so on → images (rows, columns) of 0 to 255, one row each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, height_ratios=[1.35, 1])
    columns = max(len(images) for images in samples.values())
    grid = above.subplots(len(samples), columns, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
    for places, (name, images) in zip(grid, samples.items(), strict=True):
        for number, place in enumerate(places):
            place.set_xticks([])
            place.set_yticks([])
            if number < len(images):
                place.imshow(images[number], cmap="gray", vmin=0, vmax=255)
        places[0].set_ylabel(name.replace(" ", "\n"), rotation=0, ha="right", va="center", fontsize=8)
    above.suptitle("PneumoniaMNIST with 5 % of its labels: real images, and images generated from them", fontsize=10)
    axes = below.subplots()
    axes.axvline(0, color="0.5", linewidth=0.8)
    for place, metric in enumerate(METRICS):
        row = summary[metric]["difference"]
        axes.errorbar(
            row["mean"], -place, xerr=[[row["mean"] - row["low"]], [row["high"] - row["mean"]]],
            color=COLORS[0], marker="D", markersize=5, capsize=4,
            label="mean and 95 % t interval over seeds" if not place else None,
        )  # fmt: skip
        axes.scatter(
            row["seeds"], [-place - 0.18] * len(row["seeds"]), s=16, facecolors="none", edgecolors=COLORS[0],
            label="each seed" if not place else None,
        )  # fmt: skip
    over = summary["auc_difference_over_images"]
    axes.plot(
        [over["low"], over["high"]], [0.18, 0.18], color=COLORS[2], linewidth=2,
        label="95 % bootstrap interval over scored images",
    )  # fmt: skip
    axes.set_yticks([-n for n in range(len(METRICS))], list(METRICS.values()))
    axes.set_ylim(-len(METRICS) + 0.4, 1.5)
    axes.set_xlabel("Difference on 516 other images: with generated images, minus without")
    axes.legend(loc="upper left", frameon=False, fontsize=7, ncols=2, columnspacing=1)
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, dpi=150)


def samples_of(work: Path, seed: int = 0, columns: int = 10) -> dict[str, list[np.ndarray]]:
    """Images for the figure: the first of either class, as they come."""
    from PIL import Image

    with np.load(_DATA) as stored:
        images, labels = stored["train_images"], stored["train_labels"].ravel()
    numbers = [
        int(n.removeprefix("train_")) for n in json.loads((work / f"classifier-{seed}.split.json").read_text())["train"]
    ]
    samples = {}
    for label, name in enumerate(CLASSES):
        samples[f"real {name}"] = [images[n] for n in numbers if labels[n] == label][:columns]
        made = sorted((work / f"images-{seed}" / name).glob("*.png"))[:columns]
        samples[f"generated {name}"] = [np.asarray(Image.open(file)) for file in made]
    return samples


# --------------------------------------------------------------------------------------------------------------------


def settings_for(options: argparse.Namespace) -> dict[str, Any]:
    """All that decides about the numbers."""
    settings: dict[str, Any] = {
        "generator": copy.deepcopy(_GENERATOR),
        "classifier": copy.deepcopy(_CLASSIFIER),
        "seeds": list(range(_SEEDS)),
        "part": "tune" if options.tune else "quick" if options.quick else "validation",
    }
    if options.quick:
        settings["seeds"] = [0, 1]
        for part in ("generator", "classifier"):
            settings[part]["training"] |= {"epochs": 2, "iterations_per_epoch": 5}
    if options.seeds:
        settings["seeds"] = list(range(options.seeds))
    return settings


def run(settings: dict[str, Any], work: Path, output: Path) -> None:
    """The experiment in one folder, its table to the screen, its figure and numbers into another."""
    work.mkdir(parents=True, exist_ok=True)
    stored = work / "settings.json"
    if stored.exists() and json.loads(stored.read_text()) != settings:
        raise SystemExit(f"{work} holds runs with other settings; choose another folder for --work, or empty it.")
    write_atomically(stored, json.dumps(settings, indent=1).encode())
    found = run_all(work, settings, lambda text: print(text, flush=True))
    summary = summarize(found["runs"])
    print(table_of(summary))
    print(f"{found['cpu_minutes']:.1f} minutes of one core.")
    output.mkdir(parents=True, exist_ok=True)
    numbers = {
        "data": "PneumoniaMNIST, 5 % of the labels of its training part",
        "scored_on": "images of the training part without a label"
        if settings["part"] == "tune"
        else "its validation part",
        "images": len(found["runs"][0]["true"]),
        "cpu_minutes": found["cpu_minutes"],
        "intervals": "95 %: Student's t over seeds; over images: bootstrap, 2,000 draws of scored images",
        "generators": found["quality"],
        "summary": summary,
        "settings": settings,
    }
    write_atomically(output / f"{_NAME}.json", (json.dumps(numbers, indent=1) + "\n").encode())
    draw(summary, samples_of(work), output / f"{_NAME}.png")
    print(output / f"{_NAME}.png")


def main() -> None:
    """Parse, run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for data and runs; default: a temporary one")
    parser.add_argument("--output", type=Path, help="folder for figure and numbers; default: that of the docs")
    parser.add_argument("--quick", action="store_true", help="a smoke run of a minute: few seeds, few iterations")
    parser.add_argument("--tune", action="store_true", help="scored on other images, to choose recipes by")
    parser.add_argument("--seeds", type=int, help=f"how many (default: {_SEEDS})")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not _DATA.is_file():
        raise SystemExit(f"This needs the development data in {_DATA}, which is not here.")
    import torch

    torch.set_num_threads(options.threads)
    settings = settings_for(options)
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        of_docs = _FIGURES if settings["part"] == "validation" and not options.seeds else work
        run(settings, work, options.output or of_docs)


if __name__ == "__main__":
    main()
