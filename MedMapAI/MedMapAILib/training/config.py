"""The training configuration: what a person writes in TOML (or JSON), checked and completed before anything starts."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..networks import domain_of, options_of
from ..plan import Plan

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

#: Every section and key that there is, with its default. ``None`` means that the plan or the network decides.
DEFAULTS: dict[str, dict[str, Any]] = {
    "task": {"name": "segmentation"},
    "dataset": {
        "path": None,
        "kind": None,
        "labels": {},
        "patient_pattern": None,
        "image_column": None,
        "image_folder": None,
        "class_column": None,
        "class_columns": [],
        "auxiliary_columns": [],
        "patient_column": None,
        "classes": [],
        "target": None,
        "annotations": None,
        "excluded": None,
        "seriesuids": None,
        "candidates": None,
        "subsets": [],
        "fold": None,
        "consensus": 0.5,
        "frame": None,
        "proposals": None,
        "generated": None,
    },
    "split": {"file": None, "validation": 0.2, "test": 0.0, "seed": 0},
    "plan": {"file": None},
    "acquisition": {"kind": "none"},
    "reconstruction": {"unit": None, "window": []},
    "network": {"name": None},
    "loss": {"name": None},
    "transfer": {
        "weights": None,
        "inflate": "mean",
        "frozen": [],
        "unfreeze_every": 0.0,
        "layer_decay": 1.0,
    },
    "optimizer": {
        "name": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "momentum": 0.99,
        "betas": None,
        "gradient_clipping": 1.0,
    },
    "schedule": {"name": "cosine", "warmup_epochs": 0.0, "final_fraction": 0.0, "power": 0.9},
    "training": {
        "epochs": 100,
        "iterations_per_epoch": None,
        "batch": None,
        "seed": 0,
        "device": "auto",
        "precision": "auto",
        "ema_decay": 0.999,
        "validate_every": 1,
        "early_stopping_epochs": 0,
        "select": "last",
        "checkpoint_minutes": 5.0,
        "workers": None,
        "foreground_fraction": 0.33,
        "auxiliary_weight": 1.0,
        "memory_gb": 4.0,
    },
    "augmentation": {
        "flip_axes": [],
        "flip": 0.5,
        "quarter_turns": 0.0,
        "affine": 0.5,
        "rotate_degrees": [15.0, 15.0, 15.0],
        "scale": 0.15,
        "translate_mm": 0.0,
        "translate": 0.0,
        "elastic": 0.0,
        "elastic_sigma": [4.0, 7.0],
        "elastic_magnitude": [20.0, 60.0],
        "noise": 0.15,
        "noise_sd": 0.1,
        "blur": 0.1,
        "blur_sigma": [0.5, 1.0],
        "brightness": 0.15,
        "brightness_shift": 0.25,
        "contrast": 0.15,
        "contrast_factor": 0.25,
        "low_resolution": 0.0,
        "low_resolution_zoom": [0.5, 1.0],
        "gamma": 0.3,
        "gamma_range": [0.7, 1.5],
        "bias_field": 0.1,
        "bias_field_coefficient": [0.0, 0.3],
        "erase": 0.0,
        "erase_size": [0.1, 0.4],
        "mixup": 0.0,
        "cutmix": 0.0,
        "mix_probability": 1.0,
    },
    "inference": {
        "window": None,
        "overlap": 0.5,
        "weighting": "gaussian",
        "mirror_axes": [],
        "keep_largest": False,
        "keep_means": 0.0,
        "nms": 0.2,
        "candidates": 100,
    },
    "false_positives": {
        "models": [],
        "recipe": None,
        "scans": None,
        "per_scan": 20,
        "crop_mm": 64.0,
    },
    "evaluation": {
        "surface_tolerance_mm": 1.0,
        "operating_point": None,
        "sensitivity": 0.95,
        "operating_copies": 0,
        "false_positives_per_scan": 1.0,
        "embedding": "random",
    },
    "model": {
        "name": None,
        "title": None,
        "version": "0.1.0",
        "description": "",
        "modality": "",
        "anatomy": "",
        "authors": "",
        "license": "",
        "data_license": "",
        "intended_use": "Research use only; not a medical device.",
        "limits": "",
        "half_precision": True,
    },
}

#: Settings that name files.
PLACES = (
    ("dataset", "path"),
    ("dataset", "annotations"),
    ("dataset", "excluded"),
    ("dataset", "seriesuids"),
    ("dataset", "candidates"),
    ("dataset", "proposals"),
    ("dataset", "generated"),
    ("split", "file"),
    ("plan", "file"),
    ("transfer", "weights"),
    ("false_positives", "models"),
    ("false_positives", "recipe"),
)
#: What may differ between a run and its resumption without changing the result: keys of [training], whole sections.
_HARMLESS_KEYS = {"device", "workers", "checkpoint_minutes", "memory_gb"}
_HARMLESS_SECTIONS = {"model", "evaluation", "inference", "false_positives"}
#: What is chosen where a configuration says nothing, by task.
_TASK_DEFAULTS = {
    "segmentation": {"network": "unet", "loss": "dice-ce"},
    "classification": {"network": "resnet18", "loss": "cross-entropy"},
    "detection": {"network": "retinanet", "loss": "detector"},
    "reconstruction": {"network": "fbpconvnet", "loss": "l1"},
    "generation": {"network": "image-generator", "loss": "logistic"},
}
#: How an operating point can be chosen, by task; the first is the default.
_RULES = {"classification": ("youden", "youden-plateau", "sensitivity"), "detection": ("f1", "false-positives")}
#: Sections whose further keys belong to somebody else, who checks them: the network, the loss, the plan, the physics.
_OPEN_SECTIONS = {"network", "loss", "plan", "acquisition"}
_CHOICES = {
    ("task", "name"): tuple(_TASK_DEFAULTS),
    ("evaluation", "operating_point"): (None, "youden", "youden-plateau", "sensitivity", "f1", "false-positives"),
    ("transfer", "inflate"): ("mean", "center"),
    ("dataset", "target"): (None, "binary", "single-label", "multi-label", "ordinal", "clean", "self"),
    ("inference", "weighting"): ("gaussian", "constant"),
    ("optimizer", "name"): ("adamw", "sgd"),
    ("schedule", "name"): ("cosine", "polynomial", "constant"),
    ("training", "precision"): ("auto", "fp32", "bf16", "fp16"),
    ("training", "select"): ("last", "best"),
}
#: Settings of [augmentation] that a reconstruction knows: all else would change what the images should be.
_MOVES = {
    "image": ("flip_axes", "flip", "quarter_turns"),
    "measurement": (
        "flip_axes",
        "flip",
        "affine",
        "rotate_degrees",
        "scale",
        "translate",
        "contrast",
        "contrast_factor",
    ),
}
_POSITIVE = {
    ("optimizer", "learning_rate"),
    ("training", "epochs"),
    ("training", "iterations_per_epoch"),
    ("training", "batch"),
    ("training", "validate_every"),
    ("inference", "candidates"),
    ("evaluation", "false_positives_per_scan"),
    ("false_positives", "scans"),
    ("false_positives", "per_scan"),
    ("false_positives", "crop_mm"),
}
#: Numbers of [augmentation] that are no probabilities.
_UNBOUNDED = {"noise_sd", "translate_mm", "brightness_shift", "contrast_factor", "mixup", "cutmix"}
_FRACTIONS = {
    ("training", "foreground_fraction"),
    ("inference", "nms"),
    ("schedule", "final_fraction"),
    ("training", "ema_decay"),
}


def read_config(path: str | Path, settings: list[str] | None = None) -> dict[str, dict[str, Any]]:
    """Read, override, complete and check a training configuration.

    path: a .toml or .json file. settings: "section.key=value" each, value in TOML's notation (a bare word is text).
    Relative paths in the file are looked for from the working directory, then from the file's folder.
    Raises InputError that names the file and the key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"The configuration {path} cannot be read ({error.strerror}); check the path.") from None
    except UnicodeDecodeError:
        raise InputError(f"The configuration {path} is not text; give a .toml or .json file.") from None
    try:
        config = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except ValueError as error:  # both decoders' errors are ValueErrors with the line in their text
        raise InputError(f"The configuration {path} is not valid {path.suffix.lstrip('.').upper()}: {error}.") from None
    for setting in settings or []:
        _set(config, setting)
    config = complete_config(config, where=str(path))
    for section, key in PLACES:
        value = config[section][key]
        if isinstance(value, list):
            config[section][key] = [_locate(str(each), path.parent) for each in value]
        elif isinstance(value, str):
            config[section][key] = _locate(str(value), path.parent)
    return config


def complete_config(config: dict, where: str = "the configuration") -> dict[str, dict[str, Any]]:
    """Fill in defaults and check names and values; the given dictionary is left alone.

    Raises InputError that names what is wrong and what there is.
    """
    if not isinstance(config, dict):
        raise InputError(f"{where} must hold sections such as [dataset] and [network]; see the recipes for examples.")
    completed = copy.deepcopy(DEFAULTS)
    for section, values in config.items():
        if section not in DEFAULTS:
            raise InputError(f"[{section}] in {where} is no section; there are {', '.join(DEFAULTS)}.")
        if not isinstance(values, dict):
            raise InputError(f"{section} in {where} must be a section, [{section}], with keys under it.")
        for key, value in values.items():
            if key not in DEFAULTS[section] and section not in _OPEN_SECTIONS:
                raise InputError(f"{section}.{key} in {where} is no setting; there are {', '.join(DEFAULTS[section])}.")
            completed[section][key] = copy.deepcopy(value)
    _check(completed, where)
    task = completed["task"]["name"]
    for section, name in _TASK_DEFAULTS[task].items():
        completed[section]["name"] = completed[section]["name"] or name
    if task == "generation":
        # Against a critic that changes as fast, momentum overshoots.
        completed["optimizer"]["betas"] = completed["optimizer"]["betas"] or [0.0, 0.9]
    _check_images(completed, where)
    rules = _RULES.get(task, (None,))
    rule = completed["evaluation"]["operating_point"] or rules[0]
    if task in _RULES and rule not in rules:
        raise InputError(
            f"evaluation.operating_point in {where} is {rule!r}; for a {task} choose one of {', '.join(rules)}."
        )
    completed["evaluation"]["operating_point"] = rule
    return completed


def decisive_settings(config: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The part of a configuration that decides about the weights: a run is resumed only where it is the same."""
    return {
        section: {k: v for k, v in values.items() if section != "training" or k not in _HARMLESS_KEYS}
        for section, values in config.items()
        if section not in _HARMLESS_SECTIONS
    }


def network_options(config: dict[str, dict[str, Any]], plan: Plan) -> dict[str, Any]:
    """Section [network] without the name: the options of the network's ``build``.

    A network that can suit itself to the size of its images is told the plan's.
    """
    options = {key: value for key, value in config["network"].items() if key != "name"}
    known = options_of(config["network"]["name"])
    if "anchors" in known and plan.anchors:
        options.setdefault("anchors", [list(size) for size in plan.anchors])
    if "image_size" in known:
        size = [n for n in plan.patch if n > 1]
        # Slices go through a classifier as rows and columns.
        options.setdefault("image_size", size[::-1] if len(size) == 2 else size)
    return options


def _check(config: dict, where: str) -> None:
    if not config["dataset"]["path"]:
        raise InputError(
            f"{where} names no data; set dataset.path to a folder with images/ and labels/, or another dataset."
        )
    for section, values in config.items():
        for key, value in values.items():
            name, default = f"{section}.{key}", DEFAULTS[section].get(key)
            if (section, key) in _CHOICES and value not in _CHOICES[section, key]:
                raise InputError(
                    f"{name} in {where} is {value!r}; choose one of {', '.join(filter(None, _CHOICES[section, key]))}."
                )
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if isinstance(default, (int, float)) and not isinstance(default, bool) and not number:
                raise InputError(f"{name} in {where} is {value!r}; it must be a number, such as {default}.")
            if isinstance(default, list) and not isinstance(value, list) and (section, key) != ("transfer", "frozen"):
                raise InputError(f"{name} in {where} is {value!r}; it must be a list, such as {default}.")
            if (section, key) in _POSITIVE and value is not None and not (number and value > 0):
                raise InputError(f"{name} in {where} is {value!r}; it must be greater than 0.")
            fraction = (section, key) in _FRACTIONS or (
                section in ("augmentation", "split") and isinstance(default, float)
            )
            if fraction and key not in _UNBOUNDED and not 0 <= value <= 1:
                raise InputError(f"{name} in {where} is {value!r}; it must be between 0 and 1.")
    mixed = config["augmentation"]["mixup"] or config["augmentation"]["cutmix"]
    if mixed and config["task"]["name"] != "classification":
        raise InputError(f"augmentation.mixup and cutmix are for classification; set them to 0 in {where}.")
    if config["dataset"]["generated"] and config["task"]["name"] != "classification":
        raise InputError(f"dataset.generated in {where} is for classification; take it out.")
    betas = config["optimizer"]["betas"]
    if betas is not None and not (
        isinstance(betas, (list, tuple))
        and len(betas) == 2
        and all(isinstance(b, (int, float)) for b in betas)
        and all(0 <= b < 1 for b in betas)
    ):
        raise InputError(f"optimizer.betas in {where} is {betas!r}; give two numbers from 0 to below 1 for AdamW.")
    if not 0 <= config["inference"]["overlap"] < 1:
        raise InputError(f"inference.overlap in {where} must be at least 0 and less than 1.")
    if config["inference"]["keep_means"] < 0:
        raise InputError(f"inference.keep_means in {where} is a number of voxels; it must be at least 0 (0: off).")
    if config["inference"]["keep_means"] and config["task"]["name"] != "reconstruction":
        raise InputError(f"inference.keep_means in {where} is for reconstruction; take it out.")
    for key in ("epochs", "iterations_per_epoch", "batch", "validate_every", "seed"):
        value = config["training"][key]
        if value is not None and int(value) != value:
            raise InputError(f"training.{key} in {where} is {value!r}; it must be a whole number.")


def _check_images(config: dict, where: str) -> None:
    """What a reconstruction is told of its images and of how measurements of them come about."""
    from ..measurements.acquisition import acquisition_of

    window = config["reconstruction"]["window"]
    if window and not (len(window) == 2 and all(isinstance(x, (int, float)) for x in window) and window[0] < window[1]):
        raise InputError(
            f"reconstruction.window in {where} is {window!r}; give the lowest and the highest value that is shown, "
            "such as [-1000, 1000]."
        )
    if config["task"]["name"] == "reconstruction":
        config["acquisition"] = acquisition_of(config["acquisition"], where=where).about
        domain = domain_of(config["network"]["name"])
        idle = [
            key
            for key, value in config["augmentation"].items()
            if value != DEFAULTS["augmentation"][key] and key not in _MOVES[domain]
        ]
        if idle:
            raise InputError(
                f"augmentation.{idle[0]} in {where} plays no part in a reconstruction by {config['network']['name']}; "
                f"there are {', '.join(_MOVES[domain])}."
            )


def _set(config: dict, setting: str) -> None:
    """Apply one ``section.key=value`` of the command line."""
    match = re.fullmatch(r"([A-Za-z_]+)\.([\w.\-]+)\s*=(.*)", setting, flags=re.DOTALL)
    if match is None:
        raise InputError(f"--set {setting} is not of the form section.key=value, for example training.epochs=20.")
    section, keys, text = match.group(1), match.group(2).split("."), match.group(3).strip()
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    target = config.setdefault(section, {})
    for key in keys[:-1]:
        target = target.setdefault(key, {})
    target[keys[-1]] = value


def _locate(name: str, folder: Path) -> str:
    """The path from the working directory or, where it is not there, from the configuration's folder; as it is where it
    is in neither, such as the name of a model."""
    path = Path(name).expanduser()
    if path.is_absolute() or path.exists():
        return str(path)
    return str(folder / path) if (folder / path).exists() else name
