"""Installing missing Python packages in Slicer, after a question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import slicer
from slicer.i18n import tr as _


def ensure_dependencies(ask: Callable[[str], bool] | None = None) -> bool:
    """Install what MedMapAI needs and is missing. Returns False when the answer was no; raises RunError.

    ask: shows a question and returns the answer; by default a dialog.
    """
    from MedMapAILib.dependencies import ensure_requirements

    return ensure_requirements(
        ask=ask or (lambda question: slicer.util.confirmOkCancelDisplay(question, _("MedMapAI"))),
        install_torch=_install_torch,
        install_packages=_install_packages,
    )


def _install_torch(specifier: str) -> None:
    from MedMapAILib.errors import RunError

    try:
        import PyTorchUtils
    except ImportError:
        raise RunError(
            _(
                "PyTorch is installed by the extension PyTorch, which is not there; install it with the Extensions "
                "Manager, restart Slicer and try again."
            )
        ) from None
    logic = PyTorchUtils.PyTorchUtilsLogic()
    if logic.installTorch(askConfirmation=False, torchVersionRequirement=specifier) is None:
        raise RunError(_("PyTorch was not installed; see the Python console, and try again."))


def _install_packages(requirements: list[str], constraints: Path) -> None:
    try:
        from slicer.packaging import pip_ensure  # Slicer 5.12
    except ImportError:
        slicer.util.pip_install([*requirements, "-c", str(constraints)])
    else:
        pip_ensure(requirements, constraints=str(constraints), prompt_install=False, requester="MedMapAI")
