"""Stand-ins for ``slicer.packaging`` (5.12) and ``slicer.i18n``."""

from __future__ import annotations

import types

from . import util


def pip_ensure(requirements, **kwargs):
    """Recorded; asks first, as Slicer does, unless prompt_install is False."""
    import slicer

    util._check_arguments("slicer.packaging", "pip_ensure", kwargs)
    needed = [requirements] if isinstance(requirements, str) else list(requirements)
    missing = [r for r in needed if not pip_check(r)]
    if not missing:
        return []
    if kwargs.get("prompt_install", True):
        question = f"{kwargs.get('requester') or 'This module'} needs Python packages: {', '.join(map(str, missing))}."
        if not slicer.util.confirmOkCancelDisplay(question):
            raise RuntimeError("Installation was cancelled by the user.")
    return util._record("pip_ensure", missing, kwargs)


def pip_check(req) -> bool:
    """Whether requirements are met by what is installed here (no network)."""
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    if isinstance(req, list):
        return all(pip_check(r) for r in req)
    req = req if isinstance(req, Requirement) else Requirement(req)
    if req.marker is not None and not req.marker.evaluate():
        return True
    try:
        return req.specifier.contains(version(req.name), prereleases=True)
    except PackageNotFoundError:
        return False


def load_requirements(path) -> list:
    """The requirements of a file, without comments and options."""
    from pathlib import Path

    from packaging.requirements import Requirement

    lines = (line.split("#")[0].strip() for line in Path(path).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def make_packaging() -> types.ModuleType:
    module = types.ModuleType("slicer.packaging", __doc__)
    for function in (pip_ensure, pip_check, load_requirements):
        setattr(module, function.__name__, function)
    module.pip_install = util.pip_install
    module.pip_uninstall = util.pip_uninstall
    module.isPipInstallInProgress = lambda: False
    return module


def make_i18n() -> types.ModuleType:
    module = types.ModuleType("slicer.i18n", __doc__)
    module.tr = lambda text: text
    module.translate = lambda context, text: text
    module.getContext = lambda sourceFile: str(sourceFile).rsplit("/", 1)[-1].removesuffix(".py")
    return module
