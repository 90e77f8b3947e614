"""The package as a whole: CMake names every file, sizes stay small, requirements agree, the code is tidy."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("MedMapAI", "MedMapAITraining")
#: What git keeps out, and what is not the project's.
NOT_OURS = set(".git .venv demo bench runs artifacts build dist __pycache__ .pytest_cache .ruff_cache".split())


def files_below(folder):
    """The project's files in a folder, as paths relative to it."""
    found = []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        # Testing/demo is ours; demo/ at the top is what the demo leaves.
        ignored = set(parts[:1]) & NOT_OURS or set(parts) & (NOT_OURS - {"demo"})
        if path.is_file() and not ignored and not any(part.endswith(".egg-info") for part in parts):
            found.append(path.relative_to(folder).as_posix())
    return found


def cmake_list(text, name):
    """The entries of ``set(NAME …)``, with the module's name put in."""
    entries = re.search(rf"set\({name}\s([^)]*)\)", text).group(1).split()
    module = re.search(r"set\(MODULE_NAME (\w+)\)", text).group(1)
    return [entry.replace("${MODULE_NAME}", module) for entry in entries]


@pytest.mark.parametrize("module", MODULES)
def test_cmake_names_every_file_of_the_package(module):
    text = (ROOT / module / "CMakeLists.txt").read_text(encoding="utf-8")
    files = [f for f in files_below(ROOT / module) if not f.startswith("Testing/") and f != "CMakeLists.txt"]
    scripts, resources = cmake_list(text, "MODULE_PYTHON_SCRIPTS"), cmake_list(text, "MODULE_PYTHON_RESOURCES")
    assert sorted(scripts) == sorted(f for f in files if f.endswith(".py"))
    assert sorted(resources) == sorted(f for f in files if not f.endswith(".py"))


@pytest.mark.parametrize("module", MODULES)
def test_cmake_names_every_test_that_runs_in_slicer(module):
    folder = ROOT / module / "Testing" / "Python"
    named = re.findall(r"SCRIPT ([^\s)]+)", (folder / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(p.name for p in folder.glob("*.py"))


def test_the_two_modules_have_no_resource_in_common():
    # Both are installed to the same folder.
    first, second = ({f for f in files_below(ROOT / m) if f.startswith("Resources/")} for m in MODULES)
    assert first & second == set()


def test_the_top_names_both_modules_and_every_field():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.findall(r"add_subdirectory\((\w+)\)", text) == list(MODULES)
    fields = dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]+)"\)', text))
    assert set(fields) == {
        "HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS",
    }  # fmt: skip
    # The pictures are files of this repository, under its main branch.
    for url in [fields["ICONURL"], *fields["SCREENSHOTURLS"].split()]:
        assert (ROOT / url.partition("/main/")[2]).is_file(), url


def test_the_readme_points_to_files_that_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert len(links) >= 3
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_icons_are_128_pixels_square():
    for path in ("Resources/MedMapAI.png", *(f"{m}/Resources/Icons/{m}.png" for m in MODULES)):
        header = (ROOT / path).read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        assert [int.from_bytes(header[i : i + 4], "big") for i in (16, 20)] == [128, 128], path


def test_models_are_at_most_5_to_8_mb_and_files_at_most_10():
    large = {f: (ROOT / f).stat().st_size for f in files_below(ROOT) if (ROOT / f).stat().st_size > 10_000_000}
    assert large == {}
    models = ROOT / "MedMapAI" / "Resources" / "Models"
    sizes = {m.name: sum(p.stat().st_size for p in [m, *m.rglob("*")] if p.is_file()) for m in models.iterdir()}
    assert "hippocampus" in sizes
    # lung-nodule holds three networks.
    most = {"lung-nodule": 8_000_000}
    assert {name: size for name, size in sizes.items() if size > most.get(name, 5_000_000)} == {}


def test_constraints_satisfy_what_is_required():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {
        Requirement(line).name.lower().replace("_", "-"): next(iter(Requirement(line).specifier)).version
        for line in lines
        if line and not line.startswith("#")
    }
    requirements = [*project["dependencies"], *(r for e in project["optional-dependencies"].values() for r in e)]
    requirements += (ROOT / "MedMapAI/Resources/requirements.txt").read_text(encoding="utf-8").splitlines()
    for requirement in (Requirement(r) for r in requirements if not r.startswith("#")):
        if requirement.name != "medmapai" and not (requirement.marker and "python_version" in str(requirement.marker)):
            assert requirement.specifier.contains(pinned[requirement.name.lower().replace("_", "-")]), requirement


def test_ruff_has_nothing_to_say():
    pytest.importorskip("ruff", reason="ruff is not installed")
    run = subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "--output-format=concise", str(ROOT)],
                         capture_output=True, text=True)  # fmt: skip
    assert run.stdout == ""
