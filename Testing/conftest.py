"""What many tests share: Slicer's scene, the Slicer host, and the way to the development data."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["host.fixtures"]

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def slicer_app():
    """The one SlicerApp of the test process."""
    pytest.importorskip("trame_slicer", reason="Slicer's scene needs trame-slicer[standalone]")
    from MedMapAILib import standalone_scene

    return standalone_scene.start()


@pytest.fixture
def scene(slicer_app):
    """Slicer's real MRML scene, empty at the start of each test."""
    slicer_app.scene.Clear(False)
    yield slicer_app.scene
    slicer_app.scene.Clear(False)


@pytest.fixture(scope="session")
def shared_data():
    """shared_data("chest_ct/...") is a path in the development data; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        path = _SHARED / name
        if not path.exists():
            pytest.skip(f"the development data {path} is not on this machine")
        return path

    return find
