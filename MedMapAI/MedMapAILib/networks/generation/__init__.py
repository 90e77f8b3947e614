"""Networks that make images: a generator, which is what a bundle holds, and the critic that it is trained against."""

from __future__ import annotations

#: Voxels a side of the images that can be made.
SMALLEST_IMAGE, LARGEST_IMAGE = 16, 128
