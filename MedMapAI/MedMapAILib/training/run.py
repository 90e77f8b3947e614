"""A whole training: data, split, plan, network, loop, held-out evaluation, bundle."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle import load_bundle, write_bundle
from ..class_plan import make_class_plan
from ..datasets import Case, Dataset, open_dataset
from ..datasets.duplicates import content_hash
from ..datasets.finding_statistics import finding_statistics
from ..datasets.findings_table import write_luna16_submission
from ..datasets.fingerprint import fingerprint
from ..datasets.generated import generated_cases, with_generated
from ..datasets.loading import load_cases
from ..datasets.split import Split, make_split, read_split, with_duplicates, write_split
from ..detection_plan import make_detection_plan
from ..errors import InputError, RunError
from ..generation_plan import make_generation_plan
from ..inference.evaluation import evaluate_cases
from ..inference.image_embedding import check_embedding
from ..inference.opening import open_predictor
from ..networks import domain_of
from ..plan import Plan, make_plan, plan_to_dict, read_plan, write_plan
from ..reconstruction_plan import image_kind, make_reconstruction_plan
from ..results import Classes, FindingClasses, ImageKind, Segment, terminology_entry
from ..tasks import task_class
from ..tasks.detection import results_of_rows
from ..tasks.generation import UNNAMED
from ..transfer import frozen_stages, load_pretrained
from .card import model_card
from .checkpoint import remove_unfinished
from .config import PLACES, complete_config, decisive_settings, network_options
from .generator_card import generator_card
from .loop import Stopped, Trainer, build_network, remove_cache, write_json
from .samples import PreparedCases
from .second_look import calibrate, check_stages, make_stages

if TYPE_CHECKING:
    import torch

Event = Callable[[dict], None]

#: What was taken over from other weights, in the output folder.
_TRANSFER = "transfer.json"
#: Keys of section [dataset] that some kinds of data sets ask for.
DATASET_OPTIONS = (
    "image_column",
    "image_folder",
    "class_column",
    "class_columns",
    "auxiliary_columns",
    "patient_column",
    "classes",
    "target",
    "annotations",
    "excluded",
    "seriesuids",
    "candidates",
    "subsets",
    "fold",
    "consensus",
    "frame",
    "proposals",
)

#: Colors for segments that name none: Okabe and Ito's, told apart by the color-blind too.
_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def train(
    config: dict[str, dict[str, Any]],
    output: str | Path,
    *,
    resume: bool = False,
    on_event: Event = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Train a model and write it as a bundle.

    config: as ``read_config`` gives it, or a dictionary of sections to be completed. output: a folder; it gets
    config.json, split.json, plan.json, checkpoint.pt, history.csv, events/ and at the end bundle/. resume: go on from
    the checkpoint there (or begin, where there is none yet). on_event: called with the events of the training (see
    README). should_stop: asked after each iteration; the run can be resumed afterwards.

    Returns the bundle's folder, or None when it was stopped. Raises InputError before anything is written for a
    mistake in the configuration or the data; RunError when the training fails, with the last good checkpoint kept.
    """
    output = Path(output)
    config = complete_config(config)
    _check_output(output, config, resume)
    dataset = open_configured(config)
    task_name = config["task"]["name"]
    _check_task(task_name, dataset)
    check_stages(config)
    if task_name == "generation":
        check_embedding(config["evaluation"]["embedding"])
    split = _split(dataset, config, output)
    by_name = {case.name: case for case in dataset.cases}
    train_cases, validation_cases = ([by_name[name] for name in names] for names in (split.train, split.validation))
    plan, plan_is_new = _plan(dataset, train_cases, config, output, on_event)
    real = len(train_cases)
    if config["dataset"]["generated"]:
        generated = generated_cases(config["dataset"]["generated"], dataset, split)
        dataset, train_cases = with_generated(dataset, generated), [*train_cases, *generated.cases]
    answers = answers_of(dataset, config, plan)
    beside = {"auxiliary": list(dataset.auxiliary), "auxiliary_weight": config["training"]["auxiliary_weight"]}
    options = config["inference"] | config["evaluation"] | (beside if dataset.auxiliary else {})
    options |= {"masks": config["network"]["name"] == "mask-rcnn", "chooses": config["network"]["name"] == "fast-rcnn"}
    task = task_class(task_name)(plan, answers, options)
    network = build_network(config, task, len(dataset.channels))
    notes = [*dataset.source.get("notes", ()), *split.notes, *_synthetic(dataset)]
    transferred = _transfer(network, config, len(dataset.channels), output, on_event)
    if transferred is not None:
        notes.append(transferred["sentence"])

    made = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    already = set(output.iterdir())
    remove_unfinished(output)
    write_json(output / "config.json", config)
    write_split(split, output / "split.json")
    if plan_is_new:
        write_plan(plan, output / "plan.json")
    if transferred is not None:
        write_json(output / _TRANSFER, transferred)
    cases, validation = (
        PreparedCases(output / "cache" / part, config["training"]["memory_gb"]) for part in ("train", "validation")
    )
    try:
        parts = {"training": (train_cases, cases), "validation": (validation_cases, validation)}
        _prepare(dataset, task, parts, on_event, should_stop)
        trainer = Trainer(config, task, network, cases, validation, output, on_event=on_event, should_stop=should_stop)
        on_event(
            {
                "event": "started",
                "epochs": config["training"]["epochs"],
                "train_cases": len(cases),
                "validation_cases": len(validation),
                "output": str(output),
                "device": trainer.device_description,
                "parameters": sum(p.numel() for p in network.parameters()),
                "notes": notes,
            }
        )
        trained = trainer.run()
        # What is familiar and how sure it is are told from real images alone.
        concluded = task.conclude(trained, [cases[n] for n in range(real)], validation, config)
    except Stopped:
        on_event({"event": "stopped", "reason": f"Stopped as asked; resume {output} to go on."})
        return None
    except InputError:
        # A mistake in the data, found while reading them: as if nothing had been begun.
        if not (output / "checkpoint.pt").exists():
            _take_back(output, already, made)
        raise
    finally:
        remove_cache(output)
    written = _write(config, dataset, split, task, answers, concluded, trained, trainer, output, on_event, should_stop)
    if written is None:
        on_event({"event": "stopped", "reason": f"Stopped as asked; resume {output} to go on."})
        return None
    bundle, metrics = written
    on_event({"event": "finished", "bundle": str(bundle), "metrics": metrics})
    return bundle


def _synthetic(dataset: Dataset) -> list[str]:
    """One sentence where findings of a data set were put into its scans, for the card."""
    found = finding_statistics(dataset)
    if not found.synthetic:
        return []
    return [f"{found.synthetic} of the {found.count} findings are synthetic: they were put into the scans."]


def _transfer(
    network: torch.nn.Module, config: dict, in_channels: int, output: Path, on_event: Event
) -> dict[str, Any] | None:
    """Fill a network with the weights of section [transfer]; what was taken over, or None where there are none.

    A run that is resumed has its weights in the checkpoint, and what was taken over in a file.
    """
    settings = config["transfer"]
    if settings["frozen"]:
        frozen_stages(network, settings["frozen"])
    if not settings["weights"]:
        return None
    if (output / "checkpoint.pt").exists() and (output / _TRANSFER).exists():
        return _read_json(output / _TRANSFER)

    def say(fraction: float, message: str) -> None:
        on_event({"event": "progress", "fraction": 0.0, "message": message})

    report = load_pretrained(
        network, settings["weights"], in_channels=in_channels, inflate=settings["inflate"], on_progress=say
    )
    return report.to_dict()


def open_configured(config: dict[str, dict[str, Any]]) -> Dataset:
    """The data set of a complete configuration. Raises as ``open_dataset``."""
    section = config["dataset"]
    return open_dataset(
        section["path"],
        kind=section["kind"],
        labels={int(k): v["name"] if isinstance(v, dict) else v for k, v in section["labels"].items()} or None,
        patient_pattern=section["patient_pattern"],
        # A folder of images is one thing to learn from for a reconstruction, and another for other tasks.
        options={key: section[key] for key in DATASET_OPTIONS} | {"task": config["task"]["name"]},
    )


def _check_task(name: str, dataset: Dataset) -> None:
    """Raise InputError where the data set does not answer the question that the model is to learn."""
    # A generator learns from images, with their classes or without.
    if dataset.task == name or name == "generation" and dataset.task in ("classification", "segmentation"):
        return
    held = {
        "segmentation": "label maps",
        "classification": "classes",
        "detection": "findings",
        "reconstruction": "images to be reconstructed",
    }
    raise InputError(
        f"{dataset.name} is a data set of {held[dataset.task]}, and task.name is {name!r}; set task.name to "
        f"{dataset.task!r}, or give {_WANTED[name]}."
    )


#: Task → data that it can be learned from.
_WANTED = {
    "segmentation": "images with label maps (images/ and labels/, dataset.json, a table with a column label)",
    "classification": "images with classes (a folder a class, a table with a column class, a MedMNIST .npz)",
    "detection": "scans with findings (LUNA16, LIDC-IDRI, a table of boxes or centers, COCO, nnDetection)",
    "generation": "images with classes (a folder a class, a table with a column class, a MedMNIST .npz), or without",
    "reconstruction": "pairs of images (inputs/ and targets/), or volumes of which measurements are simulated",
}


def answers_of(
    dataset: Dataset, config: dict, plan: Plan
) -> tuple[Segment, ...] | Classes | FindingClasses | ImageKind:
    """What a model of a data set answers, with the names and colors of the configuration.

    Raises InputError where a network for images is to learn from images that nothing is simulated of, or the other way
    round.
    """
    if config["task"]["name"] == "generation":
        told = dataset.task == "classification" and dataset.kind != "multi-label"
        return Classes(dataset.classes, dataset.kind) if told else UNNAMED
    if dataset.task == "reconstruction":
        _check_acquisition(dataset, config)
        return image_kind(plan, config, domain_of(config["network"]["name"]))
    if dataset.task == "classification":
        return Classes(dataset.classes, dataset.kind)
    if dataset.task == "detection":
        return FindingClasses(dataset.findings)
    return segments_of(dataset, config["dataset"]["labels"])


def _check_acquisition(dataset: Dataset, config: dict) -> None:
    views, batch = config["acquisition"].get("views"), config["training"]["batch"] or 1
    if domain_of(config["network"]["name"]) == "measurement" and isinstance(views, list) and batch > 1:
        raise InputError(
            f"Measurements of different numbers of views, {views}, do not fit into one batch; set training.batch to 1."
        )
    simulated = config["acquisition"]["kind"] != "none"
    if dataset.target == "clean" and not simulated:
        raise InputError(
            f"{dataset.name} holds true images alone, and nothing says how worse ones come about; set acquisition.kind "
            "to ct, mr or noise, or dataset.target to self, with the loss noise2void, where they are noisy themselves."
        )
    if dataset.target != "clean" and simulated:
        raise InputError(
            f"acquisition.kind is {config['acquisition']['kind']!r}, which simulates inputs from true images, and "
            f"{dataset.name} brings its own; set it to none."
        )
    if dataset.target == "self" and config["loss"]["name"] != "noise2void":
        raise InputError(
            f"{dataset.name} has no true images; only the loss noise2void learns from noisy images alone, and "
            f"loss.name is {config['loss']['name']!r}."
        )


def segments_of(dataset: Dataset, described: dict[str, Any]) -> tuple[Segment, ...]:
    """The data set's labels as segments, with the configuration's names, colors and SNOMED CT terminology.

    described: section [dataset.labels]: value → name, or value → {name, color "#rrggbb", terminology}. Terminology is a
    table of "category", "type" and optionally "modifier", each [scheme, code, meaning].
    """
    segments = []
    for number, (value, name) in enumerate(sorted(dataset.labels.items())):
        about = described.get(str(value), {})
        about = about if isinstance(about, dict) else {"name": about}
        color = about.get("color", _COLORS[number % len(_COLORS)])
        try:
            rgb = tuple(int(color[n : n + 2], 16) / 255 for n in (1, 3, 5))
        except (ValueError, TypeError):
            raise InputError(
                f"dataset.labels.{value}.color is {color!r}; write it as #rrggbb, such as #E69F00."
            ) from None
        words = about.get("terminology")
        if words is not None:
            words = terminology_entry(**{part: tuple(code) for part, code in words.items()})
        segments.append(Segment(int(value), about.get("name", name), rgb, words))
    return tuple(segments)


def _check_output(output: Path, config: dict, resume: bool) -> None:
    stored = output / "config.json"
    if output.exists() and not output.is_dir():
        raise InputError(f"The output {output} is a file; choose a folder.")
    parent = output
    while not parent.exists():
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(
            f"The output folder {output} cannot be written to ({error.strerror}); choose another."
        ) from None
    if stored.exists() and not resume:
        raise InputError(f"{output} already holds a training; resume it (--resume) or choose another folder.")
    if stored.exists():
        new, old = decisive_settings(config), decisive_settings(_read_json(stored))
        changed = [
            f"{section}.{key}"
            for section, values in new.items()
            for key in {**values, **old.get(section, {})}
            if values.get(key) != old.get(section, {}).get(key)
        ]
        if changed:
            raise InputError(
                f"The training in {output} was begun with other settings ({', '.join(changed[:5])}); resume it with "
                "those, "
                "or choose another folder."
            )


def _split(dataset: Dataset, config: dict, output: Path) -> Split:
    if (output / "split.json").exists():
        return read_split(output / "split.json", dataset)
    if config["split"]["file"]:
        return with_duplicates(read_split(config["split"]["file"], dataset), dataset)
    return make_split(
        dataset, validation=config["split"]["validation"], test=config["split"]["test"], seed=config["split"]["seed"]
    )


def _plan(dataset: Dataset, cases: list[Case], config: dict, output: Path, on_event: Event) -> tuple[Plan, bool]:
    """The plan that is stored, or named, or made from the training cases; and whether it is to be stored.

    Single values of section [plan] go over whatever the plan says.
    """
    if (output / "plan.json").exists():
        return read_plan(output / "plan.json"), False
    changes = {key: value for key, value in config["plan"].items() if key != "file"}
    if config["plan"]["file"]:
        return read_plan(config["plan"]["file"], changes), True
    on_event({"event": "progress", "fraction": 0.0, "message": "measuring the data"})
    if config["task"]["name"] == "classification":
        return make_class_plan(dataset, cases, changes), True
    if config["task"]["name"] == "generation":
        return make_generation_plan(dataset, cases, changes), True
    if config["task"]["name"] == "detection":
        return make_detection_plan(dataset, cases, changes), True
    if config["task"]["name"] == "reconstruction":
        return make_reconstruction_plan(dataset, cases, changes, domain=domain_of(config["network"]["name"])), True
    return make_plan(fingerprint(dataset, cases), changes), True


def _prepare(
    dataset: Dataset,
    task: Any,
    parts: dict[str, tuple[list[Case], PreparedCases]],
    on_event: Event,
    should_stop: Callable[[], bool],
) -> None:
    for part, (cases, prepared) in parts.items():

        def say(fraction: float, message: str, part: str = part) -> None:
            if should_stop():
                raise Stopped
            on_event({"event": "progress", "fraction": 0.0, "message": f"{part} part: {message}"})

        for case, image, reference in load_cases(dataset, cases, say):
            try:
                prepared.add(task.prepare(image, reference))
            except InputError as error:
                raise InputError(f"Case {case.name} of {dataset.name}: {error}") from None


def _take_back(output: Path, already: set[Path], made: bool) -> None:
    """Remove what a training wrote into its folder, and the folder if it made it."""
    remove_cache(output)
    for path in set(output.iterdir()) - already:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if made and not any(output.iterdir()):
        output.rmdir()


def _write(
    config, dataset, split, task, answers, concluded, trained, trainer, output, on_event, should_stop
) -> tuple[Path, dict] | None:
    """Write the bundle, score the very file that was written on cases it never saw, and write it again with the
    scores; None when stopped."""
    plan = task.plan
    evaluated = "test" if split.test else "validation"
    names = set(getattr(split, evaluated))
    cases = [case for case in dataset.usable if case.name in names]
    settings = config["network"]
    model = config["model"] | {"name": config["model"]["name"] or output.name}
    selected = config["training"]["select"] == "best" or config["training"]["early_stopping_epochs"]
    training = {
        "network": settings["name"],
        "parameters": sum(p.numel() for p in trained.parameters()),
        "epochs": trainer.progress["rows"][-1]["epoch"],
        "seed": config["training"]["seed"],
        "device": trainer.device_description,
        "minutes": sum(row["seconds"] for row in trainer.progress["rows"]) / 60,
        "selection": "The weights were chosen by their score on the validation part."
        if selected
        else "The weights are those of the last epoch; the validation part chose none of them.",
    }
    if concluded and split.validation:
        training["selection"] += " Temperature and operating point were fitted on the validation part."
    if task.calibrates and split.validation:
        training["selection"] += " The operating point was chosen on the validation part."
    notes = [*dataset.source.get("notes", ()), *split.notes, *_synthetic(dataset)]
    data = {
        "name": dataset.name,
        "train": len(split.train),
        "validation": len(split.validation),
        "test": len(split.test),
        "split": "as a file says" if config["split"]["file"] else "by patient",
        "evaluated": evaluated,
        "duplicates": " ".join(notes) or "No two cases have the same voxels.",
    }
    common = {
        "network": trained,
        "network_settings": {
            "name": settings["name"],
            # Heads for deep supervision are for training; the network that ships has none.
            "options": {
                key: value for key, value in network_options(config, plan).items() if key != "deep_supervision"
            },
            "in_channels": len(dataset.channels),
            "out_channels": task.output_channels,
        },
        "plan": plan,
        "task": task.name,
        "answers": answers,
        "model": model,
        "inference": {**config["inference"], **config["evaluation"], **concluded, "auxiliary": list(dataset.auxiliary)}
        | ({"domain": answers.domain} if isinstance(answers, ImageKind) else {}),
        "train": {
            "config": _without_paths(config),
            "plan": plan_to_dict(plan),
            "split": split.to_dict(),
            "training_images_sha256": sorted(
                content_hash(case) for case in dataset.cases if case.name in set(split.train)
            ),
            "history": trainer.progress["rows"],
        },
        "versions": {name: importlib.metadata.version(name) for name in ("monai", "torch", "numpy")},
    }
    path = output / "bundle"
    write_bundle(path, metrics={}, card="", **common)
    if task.calibrates:
        by_name = {case.name: case for case in dataset.cases}
        parts = {part: [by_name[name] for name in getattr(split, part)] for part in ("train", "validation")}
        stages = make_stages(config, path, dataset, parts, output, train, on_event, should_stop)
        if stages is None:
            # Without its operating point it is no model yet.
            shutil.rmtree(path, ignore_errors=True)
            return None
        common["stages"] = stages
        write_bundle(path, metrics={}, card="", **common)
        common["inference"] |= calibrate(config, path, task, dataset, parts["validation"], on_event)
        write_bundle(path, metrics={}, card="", **common)
    summary: dict[str, Any] = {}
    embedding = ""
    if cases:
        predictor = open_predictor(load_bundle(path), device=config["training"]["device"])
        result = evaluate_cases(
            predictor,
            dataset,
            cases,
            lambda fraction, message: on_event(
                {"event": "progress", "fraction": fraction, "message": f"evaluating: {message}"}
            ),
        )
        summary, embedding = result["summary"], result.get("embedding", "")
        write_json(output / "evaluation.json", result)
        _write_table(output / "evaluation.csv", result["cases"])
        if task.name == "detection":
            write_luna16_submission(results_of_rows(result["cases"], answers.names), output / "submission.csv")
    metrics = {"measured_on": f"{dataset.name}, {evaluated} part, {len(cases)} cases", **summary}
    about = {"answers": answers, "data": data, "training": training, "summary": summary}
    made = task.name == "generation"
    card = generator_card(model, embedding=embedding, **about) if made else model_card(model, **about)
    write_bundle(path, metrics=metrics, card=card, **common)
    return path, metrics


def _without_paths(config: dict) -> dict:
    """The configuration without the places where its maker keeps data: a bundle is given to others."""
    public = {section: dict(values) for section, values in config.items()}
    for section, key in PLACES:
        value = public[section][key]
        if isinstance(value, list):
            public[section][key] = [Path(each).name for each in value]
        elif isinstance(value, (str, Path)):
            public[section][key] = Path(value).name
    return public


def _write_table(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = [_flat(row) for row in rows]
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _flat(row: dict) -> dict:
    """A row with its probabilities in columns of their own, and without lists of findings."""
    probabilities = {f"probability: {name}": value for name, value in row.get("probabilities", {}).items()}
    plain = {key: value for key, value in row.items() if key != "probabilities" and not _is_list_of_findings(value)}
    return plain | probabilities


def _is_list_of_findings(value: Any) -> bool:
    return isinstance(value, list) and (not value or isinstance(value[0], dict))


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); choose a new output folder and train again.") from None
