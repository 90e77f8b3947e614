"""The questions that MedMapAI answers; one file each, one line each in this table."""

from __future__ import annotations

from ..errors import InputError
from .classification import ClassificationTask
from .detection import DetectionTask
from .generation import GenerationTask
from .reconstruction import ReconstructionTask
from .segmentation import SegmentationTask
from .task import Task

TASKS: dict[str, type[Task]] = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "generation": GenerationTask,
    "reconstruction": ReconstructionTask,
    "segmentation": SegmentationTask,
}


def task_class(name: str) -> type[Task]:
    """The task of that name. Raises InputError that lists the tasks there are."""
    if name not in TASKS:
        raise InputError(f"There is no task {name!r}; choose one of {', '.join(TASKS)}.")
    return TASKS[name]


__all__ = ["TASKS", "Task", "task_class"]
