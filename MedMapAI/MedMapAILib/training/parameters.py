"""What a person sets to start a training: checked field by field, and turned into a training configuration."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_atomically
from ..networks import domain_of
from .config import complete_config, read_config

#: Made by a training that was begun in a folder.
_CONFIGURATIONS = ("config.toml", "config.json")


#: A case from the scene: (volume, ROI or None, class). None is for the whole volume in a classification, and for a scan
#: without findings in a detection.
Sample = tuple[str | None, str | None, str]

#: What the images of a reconstruction are: the truth, of which inputs are simulated; inputs with what they should be;
#: or noisy images without truth.
DATA_KINDS = ("clean", "pairs", "self")
#: The loss that learns from noisy images alone.
_SELF_SUPERVISED = "noise2void"
#: Of networks that are given measurements: of which kind.
_MEASURED = {"learned-primal-dual": "ct", "varnet": "mr"}


@dataclass(frozen=True)
class TrainingParameters:
    """Settings of one training.

    task: "segmentation", "classification", "detection", "reconstruction" or "generation". dataset: folder or file of
    the cases, or None when they come from the scene; then ``scene_cases`` has a pair of names for each case, (volume,
    segmentation), None where nothing is chosen yet, ``scene_samples`` what is to be classified or found, or
    ``scene_images`` pairs (volume, what it should be) of a reconstruction, whose second is None where there is none.
    output: folder for everything that is made.
    recipe: a configuration whose other settings are kept.
    """

    output: str
    dataset: str | None = None
    scene_cases: tuple[tuple[str | None, str | None], ...] = ()
    scene_samples: tuple[Sample, ...] = ()
    task: str = "segmentation"
    name: str = "my-model"
    network: str = "unet"
    loss: str = "dice-ce"
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    epochs: int = 100
    validation: float = 0.2
    device: str = "auto"
    recipe: str | None = None
    #: Section [dataset.labels]: value → {"name": …, "color": …}; empty where the data set names its labels itself.
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Of a classification: names of the classes in their order, and the column or columns of a table that have them;
    #: empty where the data set says so itself.
    classes: tuple[str, ...] = ()
    class_columns: tuple[str, ...] = ()
    #: Of a classification: kind of attention in the network, how many networks answer together, weights to start from
    #: ("imagenet", a file, a model), and strength of mixing images (0: none).
    attention: str = "none"
    members: int = 1
    weights: str = ""
    mixup: float = 0.0
    #: Of a detection: what looks at the image, where findings may lie, and the frame of a table that says none.
    backbone: str = "light"
    region: str = "all"
    frame: str = ""
    #: Of a reconstruction: what the images are, one of DATA_KINDS; settings of section [acquisition], for "clean".
    data_kind: str = "clean"
    acquisition: dict[str, Any] = field(default_factory=dict)
    scene_images: tuple[tuple[str | None, str | None], ...] = ()

    def is_valid(self) -> tuple[bool, str]:
        """Whether a training can start, and if not, what to do first: (True, "") or (False, sentence)."""
        reason = self._wrong_with_data() or self._wrong_with_settings() or self._wrong_with_output()
        return not reason, reason

    def config(self) -> dict[str, dict[str, Any]]:
        """The training configuration: the recipe's settings, and over them those set here.

        Raises InputError when the recipe cannot be read, is for another task, or a setting is out of its range.
        """
        config = read_recipe(self.recipe) if self.recipe else {}
        stated = config.get("task", {}).get("name") or self.task
        if stated != self.task:
            raise InputError(f"The recipe {self.recipe} is for {stated}; choose that task, or another recipe.")
        for section in ("task", "dataset", "split", "network", "loss", "optimizer", "training", "model"):
            config.setdefault(section, {})
        config["task"] = {"name": self.task}
        cases = self.dataset or str(dataset_folder(self.output))
        if Path(config["dataset"].get("path") or "").name != Path(cases).name:
            # Other data than the recipe was written for (a copy elsewhere has the same name): its split, and what it
            # tells of its model, would be wrong. The words on use and precision stay.
            config["split"].pop("file", None)
            config["model"] = {k: v for k, v in config["model"].items() if k in ("intended_use", "half_precision")}
        config["dataset"] = {k: v for k, v in config["dataset"].items() if k not in ("path", "kind")} | {"path": cases}
        for section, name in (("network", self.network), ("loss", self.loss)):
            # Options belong to the network or loss that they were written for.
            if config[section].get("name") != name:
                config[section] = {"name": name}
        if self.task == "classification":
            self._set_classification(config)
        elif self.task == "detection":
            self._set_detection(config)
        elif self.task == "reconstruction":
            self._set_reconstruction(config)
        elif self.task == "generation":
            self._set_classes(config)
        else:
            self._set_labels(config)
        config["optimizer"] |= {"name": self.optimizer, "learning_rate": self.learning_rate}
        alone = self.data_kind == "self" and len(self.scene_images) == 1
        config["split"]["validation"] = 0.0 if alone else self.validation
        config["training"] |= {"epochs": self.epochs, "device": self.device}
        config["model"] |= {"name": self.name}
        complete_config(config)
        return config

    @property
    def dataset_options(self) -> dict[str, Any]:
        """What ``open_dataset`` is told beside the labels: of section [dataset], for classes and findings."""
        if self.task == "segmentation":
            return {}
        data = self.config()["dataset"]
        options = {k: v for k, v in data.items() if k not in ("path", "kind", "labels", "patient_pattern")}
        return options | {"task": self.task}

    def _set_labels(self, config: dict[str, dict[str, Any]]) -> None:
        # Colors and terminology of the recipe stay with the segments that keep their names.
        described = [about for about in config["dataset"].get("labels", {}).values() if isinstance(about, dict)]
        known = {about["name"]: about for about in described}
        config["dataset"]["labels"] = {
            value: known[about["name"]] if set(about) == {"name"} and about["name"] in known else about
            for value, about in self.labels.items()
        }

    def _set_classification(self, config: dict[str, dict[str, Any]]) -> None:
        config["network"] |= {"attention": self.attention, "members": self.members}
        config["transfer"] = config.get("transfer", {}) | {"weights": self.weights or None}
        config["augmentation"] = config.get("augmentation", {}) | {"mixup": self.mixup}
        self._set_classes(config)

    def _set_classes(self, config: dict[str, dict[str, Any]]) -> None:
        data = config["dataset"]
        data["classes"] = list(self.classes)
        if self.class_columns:
            # One column says which class; several say of each whether it is there.
            several = len(self.class_columns) > 1
            data["class_column"] = None if several else self.class_columns[0]
            data["class_columns"] = list(self.class_columns) if several else []

    def _set_detection(self, config: dict[str, dict[str, Any]]) -> None:
        config["network"]["backbone"] = self.backbone
        config["plan"] = config.get("plan", {}) | {"region": self.region}
        config["dataset"]["classes"] = list(self.classes)
        config["dataset"]["frame"] = self.frame or None

    def _set_reconstruction(self, config: dict[str, dict[str, Any]]) -> None:
        config["dataset"]["target"] = {"clean": None, "pairs": None, "self": "self"}[self.data_kind]
        known = config.get("acquisition", {})
        if self.data_kind != "clean":
            config["acquisition"] = {"kind": "none"}
        elif known.get("kind") == self.acquisition.get("kind"):
            config["acquisition"] = {**known, **self.acquisition}
        else:
            # The other settings of the recipe are for another kind of measurement.
            config["acquisition"] = dict(self.acquisition)

    def _wrong_with_data(self) -> str:
        if self.task == "reconstruction" and self._wrong_with_learning():
            return self._wrong_with_learning()
        if self.dataset is not None:
            return self._wrong_with_dataset()
        if self.task == "detection":
            return self._wrong_with_boxes()
        if self.task == "reconstruction":
            return self._wrong_with_images()
        boxes = self.task in ("classification", "generation")
        return self._wrong_with_samples() if boxes else self._wrong_with_pairs()

    def _wrong_with_learning(self) -> str:
        """What does not fit each other in what a reconstruction learns, and from what."""
        alone, hides = self.data_kind == "self", self.loss == _SELF_SUPERVISED
        if alone and not hides:
            return f"From noisy images alone only the loss {_SELF_SUPERVISED} learns: choose it, or other data."
        if hides and not alone:
            return f"The loss {_SELF_SUPERVISED} is for noisy images alone: choose another loss, or such data."
        if domain_of(self.network) != "measurement":
            return ""
        if self.data_kind != "clean":
            return f"The network {self.network} learns from measurements of true images: choose true images."
        if self.acquisition.get("kind") != _MEASURED[self.network]:
            return f"The network {self.network} is for {_MEASURED[self.network].upper()}: choose that acquisition."
        return ""

    def _wrong_with_images(self) -> str:
        paired = self.data_kind == "pairs"
        for number, (volume, target) in enumerate(self.scene_images, start=1):
            if volume is None or paired and target is None:
                what = "volume" if volume is None else "target"
                return f"Image {number} has no {what}; choose one or remove the row."
            if paired and volume == target:
                return f"Image {number} is its own target; choose what it should be."
        images = [pair if paired else pair[0] for pair in self.scene_images]
        if self.data_kind == "self" and not images:
            return "Add a noisy image."
        if self.data_kind != "self" and len(images) < 2:
            return "Add at least 2 images: one to train on and one to check the model."
        if len(set(images)) < len(images):
            return "Two rows hold the same image; remove one of them."
        return ""

    def _wrong_with_dataset(self) -> str:
        if not self.dataset:
            return "Choose the folder or file with the training cases."
        if not Path(self.dataset).exists() and not self.dataset.startswith("medmnist:"):
            return f"There is no {self.dataset}; choose the folder or file with the training cases."
        return ""

    def _wrong_with_pairs(self) -> str:
        for number, (volume, segmentation) in enumerate(self.scene_cases, start=1):
            if volume is None or segmentation is None:
                what = "volume" if volume is None else "segmentation"
                return f"Case {number} has no {what}; choose one or remove the row."
        if len(self.scene_cases) < 2:
            return "Add at least 2 cases: one to train on and one to check the model."
        if len(set(self.scene_cases)) < len(self.scene_cases):
            return "Two rows hold the same case; remove one of them."
        return ""

    def _wrong_with_samples(self) -> str:
        volumes: dict[str, set[str]] = {}
        for number, (volume, _, name) in enumerate(self.scene_samples, start=1):
            if volume is None:
                return f"Sample {number} has no volume; choose one or remove the row."
            if not name.strip():
                return f"Sample {number} has no class; write the name of its class."
            volumes.setdefault(name.strip(), set()).add(volume)
        if len(volumes) < 2:
            return "Add samples of at least 2 classes."
        for name, some in volumes.items():
            if len(some) < 2:
                return f"Only one volume has samples of {name}; add one to train on and one to check the model."
        if len({sample[:2] for sample in self.scene_samples}) < len(self.scene_samples):
            return "Two rows hold the same sample; remove one of them."
        return ""

    def _wrong_with_boxes(self) -> str:
        for number, (volume, roi, name) in enumerate(self.scene_samples, start=1):
            if volume is None:
                return f"Row {number} has no volume; choose one or remove the row."
            if roi is not None and not name.strip():
                return f"Row {number} has no class; write what is in the box."
        if len({volume for volume, roi, _ in self.scene_samples if roi is not None}) < 2:
            return "Add boxes in at least 2 volumes: one to train on and one to check the model."
        boxes = [sample[:2] for sample in self.scene_samples]
        if len(set(boxes)) < len(boxes):
            return "Two rows hold the same box; remove one of them."
        return ""

    def _wrong_with_settings(self) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            return "Give the model a name of letters, digits and hyphens."
        if not self.epochs >= 1:
            return "Set at least 1 epoch."
        if not self.learning_rate > 0:
            return "Set a learning rate greater than 0."
        if not 0 < self.validation < 1:
            return "Set a validation part between 0 and 1."
        if self.recipe and not Path(self.recipe).is_file():
            return f"There is no recipe {self.recipe}; choose another."
        if not self.members >= 1:
            return "Set at least 1 member."
        least = 1 if self.task == "detection" else 2
        if self.classes and len(set(self.classes)) < max(least, len(self.classes)):
            at_least = f"at least {least} classes" if least > 1 else "the classes"
            return f"Name {at_least}, each once, or leave the names to the data set."
        return ""

    def _wrong_with_output(self) -> str:
        if not self.output:
            return "Choose an output folder."
        output = Path(self.output)
        if output.exists() and not output.is_dir():
            return f"The output {output} is a file; choose a folder."
        if self.dataset and output.resolve() in (Path(self.dataset).resolve(), Path(self.dataset).resolve() / "images"):
            return "The output folder is the data folder; choose another, so that the data stay as they are."
        if stored_config(output) is not None:
            return "The output folder already holds a training: resume it, or choose another folder."
        return ""


def parse_labels(text: str) -> dict[str, dict[str, str]]:
    """Section [dataset.labels] of a text such as "1 anterior, 2 posterior": value → {"name": …}.

    Empty for an empty text. Raises InputError that names the part that is wrong.
    """
    labels: dict[str, dict[str, str]] = {}
    for part in filter(None, (part.strip() for part in re.split(r"[,;\n]", text))):
        match = re.fullmatch(r"0*([1-9][0-9]*)\s*[:=]?\s*(\S.*)", part)
        if match is None:
            raise InputError(f'Write labels as numbers and names, such as "1 anterior, 2 posterior"; {part!r} is not.')
        value, name = match.groups()
        if value in labels or name in (about["name"] for about in labels.values()):
            raise InputError(f"The label {part!r} is there twice; give each number and each name once.")
        labels[value] = {"name": name}
    return labels


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a text such as "normal, pneumonia"."""
    return tuple(filter(None, (part.strip() for part in re.split(r"[,;\n]", text))))


def parse_range(text: str, name: str, *, whole: bool = False) -> Any:
    """What a person wrote for a setting of an acquisition: one number, or several, of which one is drawn, or between
    which one is drawn. A number, or a list of numbers. Raises InputError, which begins with ``name``."""
    try:
        numbers = [float(part) for part in re.split(r"\s*(?:,|;|\bto\b|–|(?<=\d)-(?=\d)|\s)\s*", text.strip()) if part]
        if whole and any(number != int(number) for number in numbers) or not numbers:
            raise ValueError
    except (ValueError, OverflowError):
        kind = "a whole number, such as 180" if whole else "a number, such as 10000"
        raise InputError(f"{name}: write {kind}, or several; {text!r} is not.") from None
    values = [int(number) if number == int(number) else number for number in numbers]
    return values[0] if len(values) == 1 else values


def range_text(value: Any) -> str:
    """The inverse of ``parse_range``."""
    return ", ".join(f"{number:g}" if number < 1e6 else str(number) for number in _listed_numbers(value))


def _listed_numbers(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def labels_text(labels: dict[str, Any]) -> str:
    """The inverse of ``parse_labels`` for section [dataset.labels] of a configuration; colors are left out."""
    return ", ".join(f"{value} {name}" for value, name in label_names(labels).items())


def label_names(labels: dict[str, Any]) -> dict[int, str]:
    """Value → name of section [dataset.labels], whose entries are names or tables with a name."""
    return {int(value): about["name"] if isinstance(about, dict) else str(about) for value, about in labels.items()}


def dataset_folder(output: str | Path) -> Path:
    """Where cases from the scene are written, under the output folder."""
    return Path(output) / "dataset"


def stored_config(output: str | Path) -> Path | None:
    """The configuration of the training that was begun in a folder, or None where none was."""
    output = Path(output)
    # config.json is written by the training itself once it has begun; config.toml alone is one that never did.
    if not (output / "config.json").is_file():
        return None
    return next(output / name for name in _CONFIGURATIONS if (output / name).is_file())


def can_resume(output: str | Path) -> tuple[bool, str]:
    """Whether there is a training to resume in a folder, and if not, why: (True, "") or (False, sentence)."""
    if not output or stored_config(output) is None:
        return False, "There is no training to resume in the output folder."
    if (Path(output) / "bundle" / "configs" / "metadata.json").is_file():
        return False, "The training in the output folder is finished."
    return True, ""


def read_recipe(path: str | Path) -> dict[str, dict[str, Any]]:
    """The settings of a recipe: all sections of a configuration, complete. Raises InputError."""
    return read_config(path)


def write_config(config: dict[str, dict[str, Any]], path: str | Path) -> None:
    """Write a configuration as TOML, whole or not at all; None is left out. Raises InputError, RunError."""
    write_atomically(path, to_toml(config).encode())


def to_toml(table: dict[str, Any], name: str = "") -> str:
    """TOML text of nested dictionaries of texts, numbers, truth values and lists of them.

    JSON's notation of these is TOML's as well, so json writes them.
    """
    plain = {k: v for k, v in table.items() if not isinstance(v, dict) and v is not None}
    tables = {k: v for k, v in table.items() if isinstance(v, dict)}
    lines = [f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    text = "\n".join([*([f"[{name}]"] if name and (plain or not tables) else []), *lines])
    parts = [text] if text else []
    for key, value in tables.items():
        parts.append(to_toml(value, f"{name}.{_key(key)}" if name else _key(key)).rstrip("\n"))
    return "\n\n".join(parts) + "\n"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
