"""Does a classifier learn more from few labels when it starts from what another model has learned?

Data: LIDC-IDRI slices around lung nodules (CT, HU) of 699 patients. Nodules rated malignant (4, 5) against benign
(1, 2); 3 is left out. 30 % of the patients are the test part, drawn once. There are two sources, which learn from the
nodules' masks of all other patients and are not shown a rating: a small U-Net that segments, and its encoder as a
classifier that tells four sizes (the diameter of a circle of the mask's area). The classifier is that encoder with a
new head, from a source's weights or from random ones, all else equal, with 5, 20 and 100 % of the training patients
whose nodules are rated; five seeds each, which draw these patients too. All is trained and scored by
``training.run.train``, as ``medmapai train`` does.

Each mean over seeds has a 95 % t interval: other patients to learn from, other random numbers, the same test part. So
has the difference to learning from scratch, seed by seed; its mean has a bootstrap interval over the test patients
too, of the same networks. There is one model of each source, so no interval tells how much another would change.

python Testing/benchmarks/transfer_learning.py [--work FOLDER] [--quick] [--tune]

--work: keeps data and runs; what is finished there is not repeated. --tune: the same without the test patients, 30 % of
the others in their place, to choose a recipe by; like --quick it leaves the figure of the docs alone.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT / "MedMapAI"))
from MedMapAILib.figures import COLORS  # noqa: E402
from MedMapAILib.files import atomic_file, write_atomically  # noqa: E402
from MedMapAILib.image import write_array  # noqa: E402
from MedMapAILib.metrics.bootstrap import resampled_weights  # noqa: E402
from MedMapAILib.metrics.ranking import Ranking  # noqa: E402

_DATA = _ROOT.parent / "shared" / "data" / "lidc_slices"
_FIGURES = _ROOT / "Resources" / "Figures"
_NAME = "transfer_learning"
_TEST = 0.3
_FRACTIONS = (0.05, 0.2, 1.0)
_SEEDS = 5
#: Arm → what it is called.
ARMS = {"scratch": "from scratch", "masks": "from a model that segments", "sizes": "from one that tells sizes"}
#: Diameters between the sizes that are told apart, mm.
_SIZES = (6.0, 9.0, 15.0)

_ENCODER = {"filters": [8, 16, 32, 64]}
#: 33.6 mm, which every slice has.
_SEEN = {"spacing": [0.7, 0.7, 0.0], "patch": [48, 48, 1], "batch": 16, "axes": "image", "interpolation": "linear"}
#: Nodules have no side that is up, and a CT has a fixed scale of gray values. Size tells of malignancy: it stays.
_AUGMENTATION = {
    "flip_axes": [0, 1],
    "affine": 0.5,
    "rotate_degrees": [180.0, 0.0, 0.0],
    "scale": 0.0,
    **dict.fromkeys(("noise", "blur", "brightness", "contrast", "gamma", "bias_field"), 0.0),
}
_TRAINING = {"device": "cpu", "precision": "fp32", "checkpoint_minutes": 60.0, "ema_decay": 0.99}
_MASKS: dict[str, dict[str, Any]] = {
    "task": {"name": "segmentation"},
    "split": {"validation": 0.0},
    "plan": _SEEN,
    "network": {"name": "unet"} | _ENCODER,
    "loss": {"name": "dice-ce"},
    "optimizer": {"learning_rate": 3e-3, "weight_decay": 1e-2},
    "schedule": {"warmup_epochs": 1},
    "training": _TRAINING | {"epochs": 12, "iterations_per_epoch": 100},
    "augmentation": _AUGMENTATION,
}
_CLASSIFIER: dict[str, dict[str, Any]] = {
    "task": {"name": "classification"},
    "dataset": {"classes": ["benign", "malignant"], "target": "binary"},
    "split": {"validation": 0.0},
    "plan": _SEEN | {"framing": "crop"},
    "network": {"name": "unet-encoder", "encoder": "unet", "encoder_options": _ENCODER},
    "loss": {"name": "cross-entropy"},
    # Between 1e-3 and 3e-3, which were tried without the test patients, one seed each. All layers learn at this rate in
    # both arms, warmed up so that the new head does not spoil the encoder below it.
    "optimizer": {"learning_rate": 2e-3, "weight_decay": 1e-2},
    "schedule": {"warmup_epochs": 2},
    "training": _TRAINING | {"epochs": 16, "iterations_per_epoch": 25},
    "augmentation": _AUGMENTATION,
}
#: The same classifier and settings, for longer: there are more labels.
_TELLS_SIZES = _CLASSIFIER | {
    "dataset": {"classes": [f"size{number}" for number in range(len(_SIZES) + 1)], "target": "ordinal"},
    "training": _TRAINING | {"epochs": 24, "iterations_per_epoch": 50},
}


# --------------------------------------------------------------------------------------------------------------------
# The data: who is in which part, and files as the product reads them


def read_nodules() -> list[dict[str, Any]]:
    """One a slice: name, patient, spacing (mm), rating, and its image (int16 HU) and mask, (rows, columns)."""
    with (_DATA / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    arrays = np.load(_DATA / "slices.npz")
    return [
        {
            "name": f"nodule-{row['nodule_id']}",
            "patient": row["patient_id"],
            "spacing": float(row["pixel_spacing_mm"]),
            "rating": int(row["malignancy"]),
            "image": image,
            "mask": mask,
        }
        for row, image, mask in zip(rows, arrays["image"], arrays["mask"], strict=True)
    ]


def held_out(patients: Sequence[str], share: float, seed: int) -> set[str]:
    """A share of the patients, drawn."""
    names = sorted(set(patients))
    return set(np.random.default_rng(seed).permutation(names)[: round(share * len(names))].tolist())


def labelled_patients(ratings: Mapping[str, Sequence[int]], fraction: float, seed: int) -> set[str]:
    """A fraction of the patients, of those with and those without a malignant nodule alike.

    ratings: patient → of the nodules. With one seed smaller fractions lie in larger ones.
    """
    random, chosen = np.random.default_rng([seed, 1]), set()
    for malignant in (False, True):
        names = sorted(p for p, of in ratings.items() if (max(of) > 3) == malignant)
        chosen |= set(random.permutation(names)[: max(1, round(fraction * len(names)))].tolist())
    return chosen


def write_images(nodules: Sequence[dict], folder: Path) -> None:
    """Images and masks as NIfTI, (columns, rows, 1), each pixel where it is on a screen; what is there stays."""
    for kind, number in (("image", np.int16), ("mask", np.uint8)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for one in nodules:
            path = folder / kind / f"{one['name']}.nii"
            if not path.exists():
                affine = np.diag([-one["spacing"], -one["spacing"], 1.0, 1.0])
                write_array(one[kind].T[:, :, None].astype(number), affine, path)


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """A data set for ``open_dataset``."""
    with atomic_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def diameter(one: Mapping[str, Any]) -> float:
    """Of a circle that has the area inside the reader's contour, mm."""
    return 2 * float(np.sqrt(one["mask"].sum() / np.pi)) * one["spacing"]


def source_rows(nodules: Sequence[dict], test: set[str], most: int = 100) -> list[dict[str, str]]:
    """Masks and sizes of all nodules but the test patients'; ``most`` of theirs, to say how well a source learned."""
    rows = [
        {
            "name": one["name"],
            "patient": one["patient"],
            "image": f"image/{one['name']}.nii",
            "label": f"mask/{one['name']}.nii",
            "class": f"size{int(np.searchsorted(_SIZES, diameter(one)))}",
            "split": "test" if one["patient"] in test else "train",
        }
        for one in nodules
    ]
    return [r for r in rows if r["split"] == "train"] + [r for r in rows if r["split"] == "test"][:most]


def class_rows(nodules: Sequence[dict], test: set[str], training: set[str]) -> list[dict[str, str]]:
    """Classes of the nodules that have one, of some patients to learn from and of all test patients."""
    return [
        {
            "name": one["name"],
            "patient": one["patient"],
            "image": f"image/{one['name']}.nii",
            "class": "malignant" if one["rating"] > 3 else "benign",
            "split": "test" if one["patient"] in test else "train",
        }
        for one in nodules
        if one["rating"] != 3 and one["patient"] in test | training
    ]


# --------------------------------------------------------------------------------------------------------------------
# The runs


def train_once(config: dict, table: Path, output: Path) -> dict[str, Any]:
    """Train by the product, unless it was done: what it found on the test part, and how long it computed.

    An interrupted run goes on from its checkpoint. Returns {"summary", "cases", "cpu_seconds", "loss"}.
    """
    from MedMapAILib.training.run import train

    done = output / "result.json"
    if not done.exists():
        began = time.process_time()
        config = copy.deepcopy(config)
        config.setdefault("dataset", {})["path"] = str(table)
        train(config, output, resume=output.exists())
        evaluation = json.loads((output / "evaluation.json").read_text())
        with (output / "history.csv").open() as file:
            loss = float(list(csv.DictReader(file))[-1]["train_loss"])
        result = {**evaluation, "cpu_seconds": time.process_time() - began, "loss": loss}
        write_atomically(done, json.dumps(result).encode())
    return json.loads(done.read_text())


def run_all(nodules: Sequence[dict], work: Path, settings: dict[str, Any], say: Callable[[str], None]) -> dict:
    """All trainings, one after the other. settings: of ``settings_for``. Returns what ``summarize`` takes."""
    test = held_out([one["patient"] for one in nodules], _TEST, seed=0)
    ratings: dict[str, list[int]] = defaultdict(list)
    for one in nodules:
        if one["patient"] not in test and one["rating"] != 3:
            ratings[one["patient"]].append(one["rating"])
    write_images(nodules, work)
    rows = source_rows(nodules, test)
    kept = {"masks": "label", "sizes": "class"}
    sources, spent, runs = {}, 0.0, []
    for arm, column in kept.items():
        others = set(kept.values()) - {column}
        table = write_table([{k: v for k, v in r.items() if k not in others} for r in rows], work / f"{arm}.csv")
        config = copy.deepcopy(settings[arm])
        if arm != "masks":
            config["plan"]["normalization"] = normalization_of(work)
        found = train_once(config, table, work / f"source-{arm}")
        metric = {"masks": "dice", "sizes": "accuracy"}[arm]
        sources[arm] = {metric: found["summary"][metric]["mean"]}
        spent += found["cpu_seconds"]
        say(f"source of {arm}: {sources[arm]} on test patients, {found['cpu_seconds']:.0f} s of one core")
    normalization = normalization_of(work)
    patient_of = {one["name"]: one["patient"] for one in nodules}
    for seed in range(settings["seeds"]):
        for fraction in settings["fractions"]:
            patients = labelled_patients(ratings, fraction, seed)
            rows = class_rows(nodules, test, patients)
            table = write_table(rows, work / f"classes-{fraction:g}-{seed}.csv")
            for arm in ARMS:
                config = copy.deepcopy(settings["classifier"])
                config["plan"]["normalization"] = normalization
                config["training"]["seed"] = seed
                if arm in sources:
                    config["transfer"] = {"weights": str(work / f"source-{arm}" / "bundle")}
                found = train_once(config, table, work / f"{arm}-{fraction:g}-{seed}")
                spent += found["cpu_seconds"]
                cases = sorted(found["cases"], key=lambda row: row["case"])
                runs.append(
                    {
                        "arm": arm,
                        "fraction": fraction,
                        "seed": seed,
                        "patients": len(patients),
                        "nodules": sum(row["split"] == "train" for row in rows),
                        "auc": found["summary"]["auc"]["mean"],
                        "scores": np.array([row["probabilities"]["malignant"] for row in cases]),
                        "true": np.array([row["target"] == "malignant" for row in cases]),
                        "groups": [patient_of[row["case"]] for row in cases],
                    }
                )
                say(
                    f"{arm:9}{100 * fraction:4.0f} % ({len(patients)} patients, {runs[-1]['nodules']} nodules), seed "
                    f"{seed}: AUC {runs[-1]['auc']:.3f}, loss {found['loss']:.3f}, {found['cpu_seconds']:.0f} s"
                )
    return {"runs": runs, "sources": sources, "cpu_minutes": spent / 60, "size_auc": size_alone(nodules, test)}


def normalization_of(work: Path) -> dict[str, Any]:
    """That of the source that segments: all others must see images as it did."""
    return json.loads((work / "source-masks" / "plan.json").read_text())["normalization"]


def size_alone(nodules: Sequence[dict], test: set[str]) -> float:
    """AUC on the test part of the area inside the reader's contour: how far size alone goes."""
    some = [one for one in nodules if one["patient"] in test and one["rating"] != 3]
    size = np.array([diameter(one) for one in some])
    return float(Ranking(size, np.array([one["rating"] > 3 for one in some])).scores(np.ones((1, len(some))))[0][0])


# --------------------------------------------------------------------------------------------------------------------
# The table and the figure


def t_interval(values: Sequence[float], confidence: float = 0.95) -> dict[str, float]:
    """Mean and interval of Student's t distribution, n − 1 degrees of freedom: {"mean", "low", "high"}."""
    values = np.asarray(values, dtype=np.float64)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return {"mean": float(values.mean()), "low": float(values.mean() - half), "high": float(values.mean() + half)}


def patient_interval(pairs: Sequence[tuple[dict, dict]], resamples: int = 2000) -> dict[str, float]:
    """Percentile bootstrap interval, over test patients, of the mean difference in AUC of pairs of runs."""
    groups, drawn = pairs[0][0]["groups"], []
    for weights in resampled_weights(len(groups), groups=groups, resamples=resamples, seed=0):
        areas = [[Ranking(run["scores"], run["true"]).scores(weights)[0] for run in pair] for pair in pairs]
        drawn.append(np.mean([after - before for before, after in areas], axis=0))
    low, high = np.nanquantile(np.concatenate(drawn), [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def summarize(runs: Sequence[dict]) -> list[dict[str, Any]]:
    """One row a fraction. runs: arm, fraction, seed, patients, nodules, auc; and for the interval over patients scores,
    true and groups, one a test nodule in one order."""
    rows = []
    for fraction in sorted({run["fraction"] for run in runs}):
        arms = {
            arm: sorted((r for r in runs if (r["fraction"], r["arm"]) == (fraction, arm)), key=lambda r: r["seed"])
            for arm in ARMS
        }
        row: dict[str, Any] = {
            "fraction": fraction,
            "patients": arms["scratch"][0]["patients"],
            "nodules": [run["nodules"] for run in arms["scratch"]],
        }
        for arm, some in arms.items():
            row[arm] = {"auc": [round(run["auc"], 4) for run in some]} | t_interval([run["auc"] for run in some])
            if arm != "scratch":
                pairs = list(zip(arms["scratch"], some, strict=True))
                row[arm]["difference"] = t_interval([after["auc"] - before["auc"] for before, after in pairs])
                row[arm]["difference_over_patients"] = patient_interval(pairs)
        rows.append(row)
    return rows


def table_of(rows: Sequence[dict]) -> str:
    """As Markdown."""
    others = [arm for arm in ARMS if arm != "scratch"]
    heads = [f"{ARMS[arm]} | difference, over seeds | over test patients" for arm in others]
    lines = [
        f"| labels | patients | nodules | {ARMS['scratch']} | {' | '.join(heads)} |",
        "|" + "---|" * (4 + 3 * len(others)),
    ]
    for row in rows:
        cells = [f"{100 * row['fraction']:g} %", str(row["patients"]), f"{np.mean(row['nodules']):.0f}"]
        cells.append(f"{row['scratch']['mean']:.3f} ({_between(row['scratch'])})")
        for arm in others:
            difference = row[arm]["difference"]
            cells.append(f"{row[arm]['mean']:.3f} ({_between(row[arm])})")
            cells.append(f"{difference['mean']:+.3f} ({_between(difference, '+')})")
            cells.append(f"({_between(row[arm]['difference_over_patients'], '+')})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines[:2], *(line.replace("-", "−") for line in lines[2:])])


def _between(interval: Mapping[str, float], sign: str = "") -> str:
    return f"{interval['low']:{sign}.3f} to {interval['high']:{sign}.3f}"


def draw(rows: Sequence[dict], path: Path) -> None:
    """Area under the curve by labels, and the difference below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    places = np.arange(len(rows))
    looks = {"scratch": ("o", -0.1), "masks": ("s", 0.0), "sizes": ("D", 0.1)}
    for (arm, name), color in zip(ARMS.items(), COLORS, strict=False):
        marker, shift = looks[arm]
        mean, low, high = (np.array([row[arm][key] for row in rows]) for key in ("mean", "low", "high"))
        above.errorbar(
            places + shift,
            mean,
            (mean - low, high - mean),
            color=color,
            marker=marker,
            markersize=6,
            capsize=4,
            label=name,
        )
        seeds = [(place, auc) for place, row in zip(places, rows, strict=True) for auc in row[arm]["auc"]]
        above.scatter(
            *(np.array(seeds).T + [[shift + 0.04], [0]]), s=14, marker=marker, facecolors="none", edgecolors=color
        )
    above.set_ylabel("AUC on the test patients")
    above.legend(loc="lower right", frameon=False, title="mean and 95 % t interval; open: each seed", title_fontsize=9)
    above.set_title("Is a lung nodule rated malignant or benign? (LIDC-IDRI slices)", fontsize=11)
    below.axhline(0, color="0.5", linewidth=0.8)
    intervals = (("difference", "-", 0.0), ("difference_over_patients", ":", 0.06))
    for arm, color in list(zip(ARMS, COLORS, strict=False))[1:]:
        marker, shift = looks[arm]
        mean = np.array([row[arm]["difference"]["mean"] for row in rows])
        for key, style, further in intervals:
            low, high = (np.array([row[arm][key][end] for row in rows]) for end in ("low", "high"))
            at = places + 2 * shift - 0.1 + further
            bars = below.errorbar(at, (low + high) / 2, (high - low) / 2, linestyle="", color=color, capsize=4)
            bars[2][0].set_linestyle(style)
            below.plot(at, mean, linestyle="", marker=marker, markersize=5, color=color)
    below.set_ylabel("Difference in AUC")
    below.set_title("solid: t interval over seeds; dotted: bootstrap over test patients", fontsize=8)
    said = (
        "{:g} %\n{} patients\n{:.0f} nodules".format(100 * r["fraction"], r["patients"], np.mean(r["nodules"]))
        for r in rows
    )
    below.set_xticks(places, list(said))
    below.set_xlim(-0.5, len(rows) - 0.5)
    below.set_xlabel("Share of the training patients whose ratings are used")
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, dpi=150)


# --------------------------------------------------------------------------------------------------------------------


def settings_for(options: argparse.Namespace) -> dict[str, Any]:
    """All that decides about the numbers."""
    settings: dict[str, Any] = {
        "masks": copy.deepcopy(_MASKS),
        "sizes": copy.deepcopy(_TELLS_SIZES),
        "classifier": copy.deepcopy(_CLASSIFIER),
        "fractions": list(_FRACTIONS),
        "seeds": _SEEDS,
        "part": "tune" if options.tune else "quick" if options.quick else "test",
    }
    if options.quick:
        settings |= {"fractions": [0.2, 1.0], "seeds": 2}
        for part in ("masks", "sizes", "classifier"):
            settings[part]["training"] |= {"epochs": 2, "iterations_per_epoch": 5}
    return settings


def run(settings: dict[str, Any], work: Path, output: Path) -> None:
    """The experiment in one folder, its table to the screen, its figure and numbers into another."""
    os.environ.setdefault("MEDMAPAI_CACHE", str(work / "cache"))
    work.mkdir(parents=True, exist_ok=True)
    stored = work / "settings.json"
    if stored.exists() and json.loads(stored.read_text()) != settings:
        raise SystemExit(f"{work} holds runs with other settings; choose another folder for --work, or empty it.")
    write_atomically(stored, json.dumps(settings, indent=1).encode())
    nodules = read_nodules()
    if settings["part"] == "tune":
        away = held_out([one["patient"] for one in nodules], _TEST, seed=0)
        nodules = [one for one in nodules if one["patient"] not in away]
    if settings["part"] == "quick":
        some = set(sorted({one["patient"] for one in nodules})[:60])
        nodules = [one for one in nodules if one["patient"] in some]
    found = run_all(nodules, work, settings, lambda text: print(text, flush=True))
    rows = summarize(found["runs"])
    print(table_of(rows))
    print(
        f"AUC of the area inside the reader's contour alone: {found['size_auc']:.3f}. "
        f"{found['cpu_minutes']:.1f} minutes of one core."
    )
    output.mkdir(parents=True, exist_ok=True)
    last = found["runs"][-1]
    numbers = {
        "data": "LIDC-IDRI slices, rated malignant (4, 5) against benign (1, 2)",
        "test": {
            "patients": len(set(last["groups"])),
            "nodules": len(last["true"]),
            "malignant": int(last["true"].sum()),
        },
        "sources": found["sources"],
        "auc_of_size_alone": found["size_auc"],
        "cpu_minutes": found["cpu_minutes"],
        "intervals": "95 %: Student's t over seeds; difference_over_patients: bootstrap, 2,000 draws of test patients",
        "rows": rows,
        "settings": settings,
    }
    write_atomically(output / f"{_NAME}.json", (json.dumps(numbers, indent=1) + "\n").encode())
    draw(rows, output / f"{_NAME}.png")
    print(output / f"{_NAME}.png")


def main() -> None:
    """Parse, run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for data and runs; default: a temporary one")
    parser.add_argument("--output", type=Path, help="folder for figure and numbers; default: that of the docs")
    parser.add_argument("--quick", action="store_true", help="a smoke run of a minute: few patients, few iterations")
    parser.add_argument("--tune", action="store_true", help="without the test patients")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not _DATA.is_dir():
        raise SystemExit(f"This needs the development data in {_DATA}, which is not here.")
    import torch

    torch.set_num_threads(options.threads)
    settings = settings_for(options)
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        of_docs = _FIGURES if settings["part"] == "test" else work
        run(settings, work, options.output or of_docs)


if __name__ == "__main__":
    main()
