"""torchvision's ImageNet weights: downloaded once, verified by the checksum in their names, kept in the user's folder.

Of each network the first published weights are taken (IMAGENET1K_V1): all families have them, and they are the ones
that papers on transfer learning start from.
"""

from __future__ import annotations

import functools
import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from ..errors import InputError
from ..files import atomic_file

Progress = Callable[[float, str], None]

#: torchvision's names of the networks whose layers ours have.
ARCHITECTURES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
)
_HEADS = ("fc.", "classifier.")
_BLOCK = 2**20


def weights_folder() -> Path:
    """Where downloaded weights are kept."""
    return Path.home() / ".medmapai" / "weights"


@functools.cache
def backbone_names(architecture: str) -> frozenset[str]:
    """The names of all tensors of a torchvision network but those of its head and the counters of batches."""
    import torchvision

    with torch.device("meta"):
        names = getattr(torchvision.models, architecture)(weights=None).state_dict()
    return frozenset(n for n in names if not n.startswith(_HEADS) and not n.endswith("num_batches_tracked"))


def architecture_of(names: Iterable[str]) -> str | None:
    """The torchvision network whose convolutions are all among these names, the deepest such one; None for none."""
    names, found = set(names), None
    for architecture in ARCHITECTURES:
        # Normalizations may be others than torchvision's, and shortcuts without weights: neither tells depths apart.
        wanted = {n for n in backbone_names(architecture) if re.search(r"(conv\d*|features\.\d+)\.weight$", n)}
        if wanted <= names and (found is None or len(wanted) > len(found[1])):
            found = (architecture, wanted)
    return found[0] if found else None


def imagenet_url(architecture: str) -> str:
    """Where the weights are published; the file's name ends in the beginning of its SHA-256."""
    import torchvision

    return torchvision.models.get_model_weights(architecture).IMAGENET1K_V1.url


def imagenet_file(architecture: str, on_progress: Progress = lambda fraction, message: None) -> Path:
    """The file with a network's ImageNet weights: the user's own copy, torch's, or a new download.

    on_progress: told the fraction done, 0 to 1, and what is being done.
    Raises InputError when the file cannot be had, saying where to get it and where to put it, or is not the one
    published.
    """
    url = imagenet_url(architecture)
    name = url.rpartition("/")[2]
    path = weights_folder() / name
    for there in (path, Path(torch.hub.get_dir()) / "checkpoints" / name):
        if there.is_file():
            if not _is_published(name, _checksum(there)):
                raise InputError(
                    f"{there} is not the file that {url} gives (its checksum differs); remove it and start again."
                )
            return there
    download(url, path, on_progress)
    return path


def download(url: str, path: Path, on_progress: Progress = lambda fraction, message: None) -> None:
    """Fetch a file whose name holds the beginning of its checksum to ``path``, whole or not at all.

    Raises InputError when it cannot be reached or is not the file that was published.
    """
    name = url.rpartition("/")[2]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {path.parent} cannot be made ({error.strerror}); make it writable.") from None
    with atomic_file(path) as temporary:
        digest = hashlib.sha256()
        try:
            with urllib.request.urlopen(url, timeout=30) as response, open(temporary, "wb") as file:
                size, done = int(response.headers.get("Content-Length") or 0), 0
                while block := response.read(_BLOCK):
                    file.write(block)
                    digest.update(block)
                    done += len(block)
                    on_progress(min(1.0, done / size) if size else 0.0, f"downloading {name}, {done // _BLOCK} MB")
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise InputError(
                f"{url} cannot be reached ({reason}); download it on another computer and put it at {path}."
            ) from None
        if not _is_published(name, digest.hexdigest()):
            raise InputError(
                f"{url} gave another file than was published (its checksum differs); download it on another "
                f"computer and put it at {path}."
            )


def _is_published(name: str, checksum: str) -> bool:
    """Whether a SHA-256 begins as the file's name says, as in ``resnet18-f37072fd.pth``."""
    return checksum.startswith(re.search(r"-([0-9a-f]{8,})\.", name).group(1))


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
