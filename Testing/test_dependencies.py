"""Which packages are asked for, in what order they are installed, and what happens when the answer is no."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from MedMapAILib import dependencies
from MedMapAILib.errors import RunError
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parent.parent


class Installer:
    """Stands in for Slicer's installers: writes down what it was asked to do."""

    def __init__(self, answer=True, fail=None):
        self.answer, self.fail, self.done, self.question = answer, fail, [], None

    def ask(self, question):
        self.question = question
        return self.answer

    def install_torch(self, specifier):
        self.done.append(("torch", specifier))
        if self.fail:
            raise self.fail

    def install_packages(self, requirements, constraints):
        self.done.append(("packages", requirements, constraints.read_text().split()))
        self.constraints = constraints

    def ensure(self, requirements):
        return dependencies.ensure_requirements(
            ask=self.ask,
            install_torch=self.install_torch,
            install_packages=self.install_packages,
            requirements=requirements,
        )


def test_requirements_file_is_satisfied_here():
    """The development environment has everything that the panels ask for; so nothing is asked here."""
    assert dependencies.missing_requirements() == []
    installer = Installer()
    assert installer.ensure(None) is True
    assert installer.question is None and installer.done == []


def test_requirements_file_never_names_slicers_own_packages():
    names = {Requirement(line).name.lower() for line in dependencies.read_requirements()}
    assert names.isdisjoint({"numpy", "scipy", "simpleitk", "vtk", "pydicom"})
    assert {"torch", "monai"} <= names


def test_missing_is_told_by_name_version_and_marker():
    numpy = importlib.metadata.version("numpy")
    requirements = [
        "numpy",
        f"numpy=={numpy}",
        "numpy<1",
        "no-such-package-of-ours",
        "no-such-package; python_version < '3'",
    ]
    assert dependencies.missing_requirements(requirements) == ["numpy<1", "no-such-package-of-ours"]


def test_refusal_installs_nothing():
    installer = Installer(answer=False)
    assert installer.ensure(["no-such-package-of-ours"]) is False
    assert installer.done == []
    assert "no-such-package-of-ours" in installer.question


def test_torch_comes_first_and_numpy_and_scipy_are_pinned():
    installer = Installer()
    with pytest.raises(RunError, match="still missing: no-such-package-of-ours, torch>=99"):
        installer.ensure(["no-such-package-of-ours", "torch>=99"])
    assert installer.done[0] == ("torch", ">=99")
    kind, requirements, pins = installer.done[1]
    assert (kind, requirements) == ("packages", ["no-such-package-of-ours"])
    for name in ("numpy", "scipy", "SimpleITK", "torch"):
        assert f"{name}=={importlib.metadata.version(name)}" in pins
    assert not installer.constraints.exists(), "the constraints file is temporary"


def test_failed_installation_is_one_sentence():
    installer = Installer(fail=subprocess.CalledProcessError(1, "pip"))
    with pytest.raises(RunError, match="could not be installed .* check the network"):
        installer.ensure(["torch>=99"])
    own = RunError("Install the extension PyTorch.")
    with pytest.raises(RunError, match="^Install the extension PyTorch.$"):
        Installer(fail=own).ensure(["torch>=99"])


def test_nothing_heavy_is_imported_by_what_a_panel_imports_when_it_opens():
    """setup() works without torch and monai: here nobody may even look for them."""
    code = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "monai", "nibabel", "skimage", "tensorboard"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import MedMapAILib.dependencies, MedMapAILib.errors, MedMapAILib.training.parameters, MedMapAILib.training.history
import MedMapAILib.inference.worker_client, MedMapAILib.bundle
assert [info.name for info in MedMapAILib.bundle.list_bundles()], "models are listed without torch"
print(MedMapAILib.dependencies.missing_requirements(["torch>=99"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY / "MedMapAI", timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['torch>=99']"
