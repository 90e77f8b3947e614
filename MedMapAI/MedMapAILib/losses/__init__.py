"""What training makes small; one task a file."""

from __future__ import annotations

from .classification import (
    CLASSIFICATION,
    ClassificationLoss,
    build_classification_loss,
    class_weights,
    classification_options,
    probabilities,
)
from .fidelity import ReconstructionLoss
from .reconstruction import RECONSTRUCTION, build_reconstruction_loss, reconstruction_options
from .segmentation import LOSSES, Loss, build_loss, deep_supervision, options_of

#: Name → builder, of the losses of a segmentation.
SEGMENTATION = LOSSES

__all__ = [
    "CLASSIFICATION",
    "LOSSES",
    "RECONSTRUCTION",
    "SEGMENTATION",
    "ClassificationLoss",
    "Loss",
    "ReconstructionLoss",
    "build_classification_loss",
    "build_loss",
    "build_reconstruction_loss",
    "class_weights",
    "classification_options",
    "deep_supervision",
    "options_of",
    "probabilities",
    "reconstruction_options",
]
