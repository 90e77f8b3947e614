"""The one on-disk form of a model: a MONAI Bundle, as a folder or a zip, that is read as data.

::

    configs/metadata.json    what it is, its segments, its metrics; section "medmapai" holds what MONAI has no field for
    configs/inference.json   network_def, how windows are laid
    configs/train.json       the training configuration, the plan and the split
    models/model.pt          the state dict
    docs/README.md           the model card
    stages/1/…               whole bundles of classifiers that look again at what a detector found, where there are any
    checksums.sha256         of every other file, verified before any of them is opened

Specification: MONAI's "Bundle Specification" (https://docs.monai.io/en/stable/mb_specification.html).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .files import atomic_folder
from .networks import build, definition, size_divisor
from .plan import Plan, plan_from_dict, plan_to_dict
from .results import Classes, FindingClasses, ImageKind, Segment

if TYPE_CHECKING:
    # Models are listed without torch, which takes seconds to import and may not be installed yet.
    import torch

#: The models that ship with the extension.
SHIPPED_MODELS = Path(__file__).resolve().parent.parent / "Resources" / "Models"
#: A list of further folders with models, separated as PATH is.
MODELS_VARIABLE = "MEDMAPAI_MODELS"

_CHECKSUMS = "checksums.sha256"
_METADATA, _INFERENCE, _TRAIN = "configs/metadata.json", "configs/inference.json", "configs/train.json"
_WEIGHTS, _CARD = "models/model.pt", "docs/README.md"
_STAGES = "stages"
#: More than any honest bundle holds; a zip that unpacks to more is refused.
_MOST_BYTES = 4 * 2**30


@dataclass(frozen=True)
class BundleInfo:
    """What there is to know about a model without loading its weights."""

    name: str
    title: str
    task: str
    modality: str
    path: Path
    size_bytes: int
    #: Held-out metrics, {metric: {"mean": …, "low": …, "high": …}} or plain numbers, and what they were measured on.
    metrics: dict[str, Any]
    #: The model card, Markdown.
    card: str
    #: What a segmentation finds; empty for another task.
    segments: tuple[Segment, ...]
    metadata: dict[str, Any] = field(repr=False)
    #: What a classification tells apart; None for another task.
    classes: Classes | None = None
    #: What a detection finds; None for another task.
    findings: FindingClasses | None = None
    #: What images a reconstruction makes; None for another task.
    images: ImageKind | None = None

    @property
    def answers(self) -> tuple[Segment, ...] | Classes | FindingClasses | ImageKind:
        """What its task is built with."""
        return self.classes or self.findings or self.images or self.segments

    @property
    def answer_names(self) -> tuple[str, ...]:
        """Names of what it finds or tells apart; of a reconstruction that it makes an image."""
        if self.images is not None:
            return ("image",)
        named = self.classes or self.findings
        return tuple(s.name for s in self.segments) if named is None else named.names


@dataclass(frozen=True)
class Bundle:
    """A model that can be run."""

    info: BundleInfo
    plan: Plan
    #: {"name": of the network in our table, "options": {...}, "in_channels": n, "out_channels": n}
    network: dict[str, Any]
    #: {"overlap": …, "mirror_axes": […], "keep_largest": …}
    inference: dict[str, Any]
    train: dict[str, Any]
    weights: dict[str, torch.Tensor] = field(repr=False)
    #: Tells this network with these weights from every other, hexadecimal; empty for a network that is not on disk.
    digest: str = ""
    #: Classifiers that look again at what a detector found.
    stages: tuple[Bundle, ...] = ()

    def size_divisor(self) -> tuple[int, ...]:
        """What the size of the network's input must be a multiple of, voxels, one number for each spatial axis."""
        return size_divisor(self.network["name"], spatial_dims=self.plan.spatial_dims, **self.network["options"])

    def build_network(self) -> torch.nn.Module:
        """The network with its weights, float32, on the CPU, in evaluation mode."""
        network = _network(self.plan, self.network)
        missing = network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in self.weights.items()}, strict=False
        )
        if missing.missing_keys or missing.unexpected_keys:
            layer = [*missing.missing_keys, *missing.unexpected_keys][0]
            raise InputError(
                f"The weights in {self.info.path} do not fit the network {self.network['name']!r} they name "
                f"(first at {layer}); get the bundle again from where it came."
            )
        return network.eval()


def model_folders() -> list[Path]:
    """Where models are looked for: MEDMAPAI_MODELS, ~/.medmapai/models, and those that ship; the first found wins."""
    named = [Path(p) for p in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if p]
    return [*named, user_models(), SHIPPED_MODELS]


def user_models() -> Path:
    """The folder for a user's own models."""
    return Path.home() / ".medmapai" / "models"


def list_bundles(problems: list[str] | None = None) -> list[BundleInfo]:
    """The models at hand, by name. A broken bundle is left out, and its sentence added to ``problems``."""
    found: dict[str, BundleInfo] = {}
    for folder in model_folders():
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith(".") or not (path.is_dir() or path.suffix == ".zip"):
                continue
            try:
                info = read_info(path)
            except InputError as error:
                if problems is not None:
                    problems.append(str(error))
            else:
                found.setdefault(info.name, info)
    return [found[name] for name in sorted(found)]


def find_bundle(name_or_path: str | Path) -> Path:
    """The folder or zip of a model given by path or by name. Raises InputError that lists the models there are."""
    path = Path(name_or_path)
    if path.exists():
        return path
    for info in list_bundles():
        if info.name == str(name_or_path):
            return info.path
    names = ", ".join(info.name for info in list_bundles()) or "none yet"
    raise InputError(f"There is no model {str(name_or_path)!r}; give the path of a bundle or one of: {names}.")


def read_info(name_or_path: str | Path) -> BundleInfo:
    """Read metadata and card. Raises InputError when it is not a bundle or not whole."""
    return _info(_Files(find_bundle(name_or_path)))


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Read a model as data: every checksum is verified first, and nothing in it is executed.

    Raises InputError when a file is missing or changed, when the bundle holds code (``$`` expressions, or ``_target_``
    of anything but this library's networks), or when it was not made by MedMapAI and says too little to be run.
    """
    return _load(_Files(find_bundle(name_or_path)))


def _load(files: _Files) -> Bundle:
    info = _info(files)
    ours = info.metadata["medmapai"]
    inference = files.json(_INFERENCE)
    plan = plan_from_dict(ours["plan"], where=str(files.path))
    expected = definition(
        ours["network"]["name"],
        spatial_dims=plan.spatial_dims,
        in_channels=ours["network"]["in_channels"],
        out_channels=ours["network"]["out_channels"],
        **ours["network"]["options"],
    )
    if inference.get("network_def") != json.loads(json.dumps(expected)):
        raise InputError(
            f"The network in {files.path}/{_INFERENCE} is not the {ours['network']['name']!r} that its metadata names; "
            "get the bundle again from where it came."
        )
    import torch

    try:
        weights = torch.load(io.BytesIO(files.read(_WEIGHTS)), map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{files.path}/{_WEIGHTS} holds something other than weights ({str(error).splitlines()[0]}), so it was "
            "not opened."
        ) from None
    digest = hashlib.sha256(files.read(_WEIGHTS) + json.dumps(expected, sort_keys=True).encode()).hexdigest()
    stages = tuple(_load(part) for part in files.stages())
    return Bundle(info, plan, ours["network"], ours["inference"], files.json(_TRAIN), weights, digest, stages)


def write_bundle(
    path: Path,
    *,
    network: torch.nn.Module,
    network_settings: dict[str, Any],
    plan: Plan,
    task: str,
    answers: tuple[Segment, ...] | Classes | FindingClasses | ImageKind,
    model: dict[str, Any],
    inference: dict[str, Any],
    train: dict[str, Any],
    metrics: dict[str, Any],
    card: str,
    versions: dict[str, str],
    stages: Sequence[Path] = (),
) -> None:
    """Write a model as a MONAI Bundle folder; an older one of that name is replaced only by a whole new one.

    network: trained. network_settings: as ``Bundle.network``. answers: segments, classes, classes of findings, or the
    kind of images. model: section [model] of the training configuration. stages: bundle folders of classifiers that the
    bundle shall hold.
    """
    import torch

    half = bool(model.get("half_precision"))
    inference_network = _network(plan, network_settings)
    names = set(inference_network.state_dict())
    # Heads that only training uses (deep supervision) stay behind.
    # MONAI's networks name some tensors twice. Converted once, they are also stored once.
    converted: dict[int, torch.Tensor] = {}
    weights: dict[str, torch.Tensor] = {}
    for key, value in network.state_dict().items():
        if key in names:
            if value.data_ptr() not in converted:
                copy = value.detach().cpu().clone()
                converted[value.data_ptr()] = copy.half() if half and copy.is_floating_point() else copy
            weights[key] = converted[value.data_ptr()]
    classes = answers if isinstance(answers, Classes) else None
    findings = answers if isinstance(answers, FindingClasses) else None
    images = answers if isinstance(answers, ImageKind) else None
    segments = () if classes or findings or images else answers
    if images:
        labels = {"0": f"image in {images.unit}" if images.unit else "image"}
    elif classes or findings:
        labels = {str(n): name for n, name in enumerate((classes or findings).names)}
    else:
        labels = {"0": "background"} | {str(n): s.name for n, s in enumerate(segments, start=1)}
    channels = network_settings["in_channels"]
    metadata = {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": model["version"],
        "changelog": {model["version"]: "trained by medmapai"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {},
        "name": model["title"] or model["name"],
        "task": f"{model['anatomy']} {task}".strip(),
        "description": model["description"],
        "authors": model["authors"],
        "copyright": model["authors"],
        "license": model["license"],
        "data_license": model["data_license"],
        "intended_use": model["intended_use"],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": model["modality"],
                    "num_channels": channels,
                    "spatial_shape": list(plan.patch),
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": plan.framing == "windows",
                    "channel_def": {str(n): "image" for n in range(channels)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities" if classes and task != "generation" else "object" if findings else "image",
                    "format": task,
                    "num_channels": network_settings["out_channels"],
                    "spatial_shape": [1] if classes else list(plan.patch),
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": plan.framing == "windows",
                    "channel_def": labels,
                }
            },
        },
        "medmapai": {
            "name": model["name"],
            "task": task,
            "modality": model["modality"],
            "plan": plan_to_dict(plan),
            "network": network_settings,
            "inference": inference,
            "segments": [
                {"value": s.value, "name": s.name, "color": list(s.color), "terminology": s.terminology}
                for s in segments
            ],
            "classes": classes and {"names": list(classes.names), "kind": classes.kind},
            "findings": findings and list(findings.names),
            "images": images and json.loads(json.dumps(asdict(images))),
            "metrics": metrics,
        },
    }
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    files = {
        _METADATA: _json_bytes(metadata),
        _INFERENCE: _json_bytes(
            {
                "network_def": definition(
                    network_settings["name"],
                    spatial_dims=plan.spatial_dims,
                    in_channels=channels,
                    out_channels=network_settings["out_channels"],
                    **network_settings["options"],
                ),
                "inferer": _inferer(plan, inference),
            }
        ),
        _TRAIN: _json_bytes(train),
        _WEIGHTS: buffer.getvalue(),
        _CARD: card.encode(),
    }
    for number, stage in enumerate(stages, start=1):
        for file in sorted(path for path in Path(stage).rglob("*") if path.is_file()):
            files[f"{_STAGES}/{number}/{file.relative_to(stage).as_posix()}"] = file.read_bytes()
    checksums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    with atomic_folder(path) as folder:
        for name, data in {**files, _CHECKSUMS: checksums.encode()}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


def code_in(config: Any, where: str = "") -> list[str]:
    """Places in a MONAI configuration that would run code: ``$`` expressions, ``_target_`` and file references.

    Returns one line each, "place: what". Empty for plain data.
    """
    if isinstance(config, dict):
        return [
            line for key, value in config.items() for line in code_in(value, f"{where}.{key}" if where else str(key))
        ]
    if isinstance(config, list):
        return [line for n, value in enumerate(config) for line in code_in(value, f"{where}[{n}]")]
    if isinstance(config, str) and (config.startswith(("$", "%")) or where.endswith("_target_")):
        return [f"{where}: {config}"]
    return []


def _network(plan: Plan, settings: dict[str, Any]) -> torch.nn.Module:
    return build(
        settings["name"],
        spatial_dims=plan.spatial_dims,
        in_channels=settings["in_channels"],
        out_channels=settings["out_channels"],
        **settings["options"],
    )


def _inferer(plan: Plan, inference: dict[str, Any]) -> dict[str, Any]:
    """How MONAI runs the network: at once, or in windows."""
    if plan.framing != "windows" or plan.anchors or inference.get("domain") == "measurement":
        # Boxes of windows cannot be blended as values are; see inference.box_windows.
        return {"_target_": "SimpleInferer"}
    return {
        "_target_": "SlidingWindowInferer",
        "roi_size": [p for p in plan.patch if p > 1 or plan.spatial_dims == 3],
        "overlap": inference["overlap"],
        "mode": inference.get("weighting", "gaussian"),
    }


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _info(files: _Files) -> BundleInfo:
    metadata = files.json(_METADATA)
    files.refuse_code()
    ours = metadata.get("medmapai")
    if not isinstance(ours, dict):
        raise InputError(
            f"{files.path} is a MONAI bundle that MedMapAI did not make, and does not say how its images are prepared; "
            "only bundles trained with MedMapAI can be run."
        )
    files.require_checksums()
    try:
        return BundleInfo(
            name=ours["name"],
            title=metadata["name"],
            task=ours["task"],
            modality=ours["modality"],
            path=files.path,
            size_bytes=files.size,
            metrics=ours["metrics"],
            card=files.read(_CARD).decode(),
            segments=tuple(
                Segment(s["value"], s["name"], tuple(s["color"]), s["terminology"]) for s in ours["segments"]
            ),
            metadata=metadata,
            classes=_classes(ours.get("classes")),
            findings=FindingClasses(tuple(ours["findings"])) if ours.get("findings") else None,
            images=_images(ours.get("images")),
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{files.path}/{_METADATA} lacks {error}; get the bundle again from where it came.") from None


def _classes(about: dict[str, Any] | None) -> Classes | None:
    return None if about is None else Classes(tuple(about["names"]), about["kind"])


def _images(about: dict[str, Any] | None) -> ImageKind | None:
    return None if about is None else ImageKind(**{**about, "window": tuple(about["window"])})


class _Files:
    """The files of a bundle folder or zip, all of them verified by checksum before the first is used."""

    def __init__(self, path: Path, data: dict[str, bytes] | None = None):
        self.path = Path(path)
        if data is not None:
            self._data = data
        elif self.path.is_dir():
            self._data = {
                file.relative_to(self.path).as_posix(): file.read_bytes() for file in self._listed_in_folder()
            }
        else:
            self._data = self._unzip()
        self.size = sum(len(data) for data in self._data.values())
        self._verify()

    def _listed_in_folder(self) -> list[Path]:
        names = [_CHECKSUMS, _METADATA, _INFERENCE, _TRAIN, _WEIGHTS, _CARD]
        own = [self.path / name for name in names if (self.path / name).is_file()]
        return own + sorted(file for file in (self.path / _STAGES).rglob("*") if file.is_file())

    def stages(self) -> list[_Files]:
        """The bundles of its stages, in their order."""
        result = []
        while any(name.startswith(f"{_STAGES}/{len(result) + 1}/") for name in self._data):
            prefix = f"{_STAGES}/{len(result) + 1}/"
            part = {name[len(prefix) :]: data for name, data in self._data.items() if name.startswith(prefix)}
            result.append(_Files(self.path / prefix, part))
        return result

    def _unzip(self) -> dict[str, bytes]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                if sum(entry.file_size for entry in entries) > _MOST_BYTES:
                    raise InputError(
                        f"{self.path} unpacks to more than {_MOST_BYTES // 2**30} GB; it is not a model bundle."
                    )
                # A zip made of the folder holds everything under the folder's name.
                root = next((e.filename[: -len(_METADATA)] for e in entries if e.filename.endswith(_METADATA)), "")
                return {e.filename[len(root) :]: archive.read(e) for e in entries if e.filename.startswith(root)}
        except (OSError, zipfile.BadZipFile, RuntimeError) as error:
            raise InputError(f"{self.path} is neither a bundle folder nor a readable zip ({error}).") from None

    def _verify(self) -> None:
        if _METADATA not in self._data:
            raise InputError(
                f"{self.path} is not a model bundle: it has no {_METADATA}; choose the folder that holds configs/ and "
                "models/."
            )
        if _CHECKSUMS not in self._data:
            return
        for line in self._data[_CHECKSUMS].decode().splitlines():
            checksum, _, name = line.partition("  ")
            if name not in self._data:
                raise InputError(
                    f"{self.path} is not whole: {name} is missing; get the bundle again from where it came."
                )
            if hashlib.sha256(self._data[name]).hexdigest() != checksum:
                raise InputError(
                    f"{self.path}/{name} is not the file that was shipped (its checksum differs); get the bundle "
                    "again from where it came."
                )
        listed = {line.partition("  ")[2] for line in self._data[_CHECKSUMS].decode().splitlines()}
        self._data = {name: data for name, data in self._data.items() if name in listed or name == _CHECKSUMS}

    def refuse_code(self) -> None:
        """Raise InputError when a configuration would run anything but MONAI's classes that we name ourselves."""
        lines = [line for name in (_INFERENCE,) if name in self._data for line in code_in(self.json(name))]
        foreign = [line for line in lines if line.partition(": ")[2] not in _known_targets()]
        if foreign:
            raise InputError(
                f"{self.path} holds code, not only a model "
                f"({'; '.join(foreign[:3])}{' …' if len(foreign) > 3 else ''}); "
                "MedMapAI runs no code from bundles, so it was not loaded."
            )

    def require_checksums(self) -> None:
        """Raise InputError for a bundle that lost the file by which the others are verified."""
        if _CHECKSUMS not in self._data:
            raise InputError(
                f"{self.path} is not whole: {_CHECKSUMS} is missing; get the bundle again from where it came."
            )

    def read(self, name: str) -> bytes:
        """The content of a file of the bundle. Raises InputError when it is missing."""
        if name not in self._data:
            raise InputError(f"{self.path} is not whole: {name} is missing; get the bundle again from where it came.")
        return self._data[name]

    def json(self, name: str) -> Any:
        """The content of a JSON file of the bundle. Raises InputError when it cannot be read."""
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise InputError(
                f"{self.path}/{name} is not valid JSON ({error}); get the bundle again from where it came."
            ) from None


def _known_targets() -> set[str]:
    from .networks import TARGETS

    return {*TARGETS, "SimpleInferer", "SlidingWindowInferer"}
