"""Which Python packages MedMapAI needs inside Slicer, which of them are missing, and in what order they are installed.

Nothing here knows Slicer or Qt: the module passes functions that ask and that install. Packages that Slicer itself is
built on are pinned to what is there, so that an installation adds and never moves them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from .errors import RunError

#: One requirement a line, as pip reads them.
REQUIREMENTS_FILE = Path(__file__).resolve().parent.parent / "Resources" / "requirements.txt"

#: Slicer's own packages, and torch once it is there: whatever else is installed, these keep their versions.
PINNED = ("numpy", "scipy", "SimpleITK", "vtk", "torch", "torchvision")


def read_requirements(path: Path = REQUIREMENTS_FILE) -> list[str]:
    """The requirements in a file, without comments and empty lines."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def missing_requirements(requirements: Iterable[str] | None = None) -> list[str]:
    """Those requirements that are not installed in a version that will do, in their order.

    requirements: PEP 508 strings; by default what MedMapAI needs. A requirement whose marker does not apply to this
    Python is not missing.
    """
    # Slicer carries packaging; it is imported here to keep the module importable where it is not.
    from packaging.requirements import Requirement

    missing = []
    for text in read_requirements() if requirements is None else requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = _installed_version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            missing.append(text)
    return missing


def question(missing: list[str]) -> str:
    """What to ask before anything is installed."""
    names = ", ".join(_name(text) for text in missing)
    torch = any(_name(text) == "torch" for text in missing)
    size = " PyTorch is large: 200 MB to 3 GB are downloaded, depending on the graphics card." if torch else ""
    return (
        f"MedMapAI needs Python packages that are not installed yet: {names}.{size}\n\n"
        "They are added to Slicer's own Python; numpy and scipy stay as they are. Install them now?"
    )


def pins() -> list[str]:
    """Constraint lines that hold the packages of ``PINNED`` where they are."""
    versions = {name: _installed_version(name) for name in PINNED}
    return [f"{name}=={version}" for name, version in versions.items() if version is not None]


def ensure_requirements(
    *,
    ask: Callable[[str], bool],
    install_torch: Callable[[str], None],
    install_packages: Callable[[list[str], Path], None],
    requirements: Iterable[str] | None = None,
) -> bool:
    """Install what is missing, after a question. Returns whether everything is there now; False when the answer was no.

    ask: shows a question, returns the answer. install_torch: takes a version specifier such as ">=2.4"; called first,
    because the right build of torch depends on the graphics card. install_packages: takes the other requirements and
    the path of a constraints file that exists while it runs. Asks nothing when nothing is missing.
    Raises RunError when a package is still missing afterwards, or when an installation fails.
    """
    missing = missing_requirements(requirements)
    if not missing:
        return True
    if not ask(question(missing)):
        return False
    try:
        for text in missing:
            if _name(text) == "torch":
                install_torch(_specifier(text))
        importlib.invalidate_caches()
        # torchvision comes with torch, in the build that belongs to it.
        others = [text for text in missing_requirements(requirements) if _name(text) != "torch"]
        if others:
            with tempfile.TemporaryDirectory() as folder:
                constraints = Path(folder) / "constraints.txt"
                constraints.write_text("\n".join([*pins(), ""]), encoding="utf-8")
                install_packages(others, constraints)
    except RunError:
        raise
    except Exception as error:
        raise RunError(
            f"The packages could not be installed ({' '.join(str(error).split()) or type(error).__name__}); check the "
            "network connection and see the Python console for pip's messages."
        ) from error
    importlib.invalidate_caches()
    still = missing_requirements(requirements)
    if still:
        raise RunError(
            f"After the installation these packages are still missing: {', '.join(still)}; restart Slicer and try "
            "again."
        )
    return True


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _name(text: str) -> str:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    return canonicalize_name(Requirement(text).name)


def _specifier(text: str) -> str:
    from packaging.requirements import Requirement

    return str(Requirement(text).specifier)
