"""Pytest fixtures: ``slicer_host``, the application with nothing open, and checked for errors in slots at the end of
each test.
"""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def _started_host(tmp_path_factory):
    pytest.importorskip("PySide6")
    import host

    return host.start(tmp_path_factory.mktemp("slicer-host"))


@pytest.fixture
def slicer_host(_started_host):
    """The host, reset before and after; the test fails when a slot raised or a queued answer was not asked for."""
    _started_host.reset()
    yield _started_host
    try:
        _started_host.check()
    finally:
        _started_host.reset()
