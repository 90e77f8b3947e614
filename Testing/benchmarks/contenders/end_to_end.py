"""From a volume node to a segmentation node, through the worker process, in Slicer's own scene: what a click costs.

The shipped hippocampus model as it is (with its mirroring), found by name. Three states of the worker:

``warm``   it has run this model before
``cold``   a new process; its model is compiled and lies in the cache on disk, the libraries lie in the system's cache
``first``  a new process and an empty cache: the first click after an installation
"""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

import numpy as np
from MedMapAILib import mrml, standalone_scene
from MedMapAILib.inference.messages import RunRequest
from MedMapAILib.inference.transport import SubprocessTransport
from MedMapAILib.inference.worker_client import WorkerClient

from .contender import Contender

_MODEL = "hippocampus"


class EndToEnd(Contender):
    """state: of the worker at the start of each run, "warm", "cold" or "first"."""

    def __init__(self, state: str):
        super().__init__()
        standalone_scene.start()
        self._state = state
        self._client: WorkerClient | None = None
        self._volume: Any = None
        self._caches: list[str] = []

    def get_ready(self, image: np.ndarray, affine: np.ndarray) -> None:
        """Load the scan into an empty scene, and put the worker into the state. Not measured."""
        import slicer
        from MedMapAILib.image import make_image

        slicer.mrmlScene.Clear(False)
        self._volume = mrml.volume_node_from_image(make_image(image[None], affine), name="scan")
        if self._client is None or self._state != "warm":
            self.close()
            environment = {}
            if self._state == "first":
                self._caches.append(tempfile.mkdtemp(prefix="medmapai-bench-"))
                environment["MEDMAPAI_CACHE"] = self._caches[-1]
            self._client = WorkerClient(SubprocessTransport, environment=environment)

    def run(self, image: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """See Contender."""
        voxels, place, notes = mrml.voxels_from_node(self._volume)
        report = self._client.run_and_wait(RunRequest(_MODEL, voxels, place, tuple(notes)))
        mrml.node_from_segmentation(report.segmentation, name="result", referenceVolumeNode=self._volume)
        self.facts = {"device": report.device, "phases": {"computing": report.seconds}}
        return report.segmentation.labels

    def close(self) -> None:
        """End the worker and throw away the caches that were made for it."""
        if self._client is not None:
            self._client.shut_down()
        for folder in self._caches:
            shutil.rmtree(folder, ignore_errors=True)
        self._caches.clear()
