"""The Python that the worker runs in."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def python_program() -> str:
    """PythonSlicer, which lies beside Slicer's own program; elsewhere the Python that runs this."""
    name = "PythonSlicer.exe" if os.name == "nt" else "PythonSlicer"
    beside = Path(sys.executable).parent / name
    return str(beside if beside.is_file() else sys.executable)
