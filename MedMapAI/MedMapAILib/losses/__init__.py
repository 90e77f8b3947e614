"""What training makes small; one task a file."""

from __future__ import annotations

from .segmentation import LOSSES, Loss, build_loss, deep_supervision, options_of

#: Name → builder, of the losses of a segmentation.
SEGMENTATION = LOSSES

__all__ = ["LOSSES", "SEGMENTATION", "Loss", "build_loss", "deep_supervision", "options_of"]
