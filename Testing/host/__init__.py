"""Slicer's Qt side, stood in for: see README.md beside this file."""

from .refcounts import guard

guard()

from .host import Host, start  # noqa: E402

__all__ = ["Host", "start"]
