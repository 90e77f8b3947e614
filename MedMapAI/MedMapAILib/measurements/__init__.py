"""What a scanner measured before there was an image: sinograms and k-space, from files or simulated."""

from __future__ import annotations
