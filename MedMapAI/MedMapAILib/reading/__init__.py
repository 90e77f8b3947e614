"""Readers' visual scores: images of several methods, read blind and in random order. What comes of it is in ``report``.

The report needs scipy; what a panel needs to show images and take scores does not, and so is all that is here.
"""

from __future__ import annotations

from .session import ReadingSession
from .study import CRITERIA, SCALE, check_reader_code, create_study

__all__ = ["CRITERIA", "SCALE", "ReadingSession", "check_reader_code", "create_study"]
