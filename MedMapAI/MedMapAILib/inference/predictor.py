"""A model that sees a volume in windows, ready to be run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from monai.data import MetaTensor

from ..bundle import Bundle
from ..decoding import Answer
from ..errors import InputError
from ..image import check_not_constant
from ..preprocessing import crop_to_roi
from ..results import Reconstruction, Segmentation
from ..tasks import task_class
from .air import Air, find_air
from .backends import Choice, OutOfMemory, choose, open_backend
from .estimate import Estimate
from .memory import usable_memory
from .sliding_window import Layout, SlidingWindow, planes_at_once
from .tiling import axes_divisor, smaller_window

Roi = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class _Way:
    """How a run is tried: where, in what windows, and what to say about it."""

    choice: Choice
    patch: tuple[int, int, int]
    batch: int
    notes: tuple[str, ...] = ()


class Predictor:
    """Runs one model. Building it loads the network to the device; ``predict`` may then be called again and again.

    bundle: from ``load_bundle``. device: "auto", "cpu", "cuda:0", "mps". precision: "auto", "fp32", "bf16", "fp16".
    backend: "auto", "torch", "openvino". overlap: of neighboring windows, 0 to <1, and mirror: whether the answers for
    mirrored images are averaged; None takes what the model says. memory_bytes: what a run may take; None takes what is
    free when it begins. skip_air: leave out windows that hold only the air around the patient.
    Raises InputError when there is no such device, or it cannot compute in that precision.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
        *,
        overlap: float | None = None,
        mirror: bool | None = None,
        memory_bytes: int | None = None,
        skip_air: bool = True,
    ):
        self.bundle = bundle
        inference = bundle.inference
        self._overlap = inference["overlap"] if overlap is None else overlap
        if not 0 <= self._overlap < 1:
            raise InputError(f"The overlap of windows is {overlap}; it must be at least 0 and less than 1.")
        mirror_axes = tuple(inference["mirror_axes"])
        if mirror and not mirror_axes:
            raise InputError(
                f"The model {bundle.info.name} was not trained on mirrored images, so mirroring would not help; leave "
                "it out."
            )
        self._mirror_axes = () if mirror is False else mirror_axes
        self._memory_bytes, self._skip_air = memory_bytes, skip_air
        self.task = task_class(bundle.info.task)(bundle.plan, bundle.info.answers, inference)
        self._divisor = bundle.size_divisor()
        self._choice = choose(backend, device, precision)
        # A function, because a compiled network on the disk makes building it unnecessary.
        self._backend = open_backend(self._choice, bundle.build_network, key=bundle.digest)
        #: Seconds of one pass through the network, by shape: what an estimate is made from.
        self._measured: dict[tuple, float] = {}
        #: Seconds that the last prediction took, reading and writing left out.
        self.seconds = 0.0

    @property
    def device_description(self) -> str:
        """Where and in which number format it computes, such as "OpenVINO on Intel Core i7, bf16"."""
        return self._backend.description

    @property
    def passes(self) -> int:
        """How often each window goes through the network: 1, or 2ⁿ where n axes are mirrored."""
        return 2 ** len(self._mirror_axes)

    def close(self) -> None:
        """Give back what the network holds; it can be run no more."""
        self._backend.close()

    def predict(
        self,
        image: MetaTensor,
        *,
        roi: Roi | None = None,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_estimate: Callable[[Estimate], None] | None = None,
    ) -> Segmentation | Reconstruction:
        """The model's answer for an image (C, I, J, K).

        roi: (center, size) of a box along the patient's axes, RAS mm; the model then sees that part alone, and the
        result, still on the whole image's grid, is empty outside, or the image as it was. progress: called with a
        fraction and a message. cancelled: asked before each window. on_estimate: called before the windows start, and
        again when the first was measured. When memory runs out, smaller windows are tried, then the CPU; the result's
        notes say so. Raises InputError for an image that the model cannot take, RunError when memory does not do,
        Cancelled.
        """
        began = time.monotonic()
        channels = self.bundle.network["in_channels"]
        if image.shape[0] != channels:
            raise InputError(
                f"The model {self.bundle.info.name} takes images of {channels} channel(s) and this one has "
                f"{image.shape[0]}; choose one of its channels or another model."
            )
        part, slices = (image, None) if roi is None else crop_to_roi(image, *roi)
        if roi is not None:
            part.meta |= {"is_region": True, "assume_hounsfield": image.meta.get("assume_hounsfield", False)}
        check_not_constant(part, "The image" if roi is None else "The image in the ROI")
        way: _Way | None = self._first_way()
        while True:
            run = _Run(self, way, progress, cancelled, on_estimate)
            try:
                result = self.task.predict(run, part)
                break
            except OutOfMemory:
                way = self._next_way(run.way)
                if way is None:
                    raise
        if slices is not None:
            result = self.task.uncropped(result, image, slices)
        self.seconds = time.monotonic() - began
        notes = (*image.meta.get("notes", ()), *result.notes, *run.notes, f"Computed on {run.backend.description}.")
        return replace(result, notes=notes)

    def _first_way(self) -> _Way:
        batch = 1 if self._choice.device == "cpu" else self.bundle.plan.batch
        patch = self.bundle.inference.get("window") or self.bundle.plan.patch
        return _Way(self._choice, tuple(patch), batch)

    def _next_way(self, way: _Way) -> _Way | None:
        """What to try when memory ran out: fewer windows at once, smaller ones, and then the CPU."""
        where = "the GPU" if way.choice.device != "cpu" else "this machine"
        if way.batch > 1:
            return replace(way, batch=1)
        smaller = self._smaller(way.patch)
        # A quarter of the length the network was trained for: less would no longer show it what it knows.
        first = self._first_way().patch
        if smaller is not None and all(4 * n >= p for n, p in zip(smaller, first, strict=True)):
            note = f"The memory of {where} ran out, so smaller windows were used ({_size(smaller)})."
            return replace(way, patch=smaller, notes=(note,))
        if way.choice.device != "cpu":
            note = "The memory of the GPU ran out, so the model was run on the CPU."
            return replace(self._first_way(), choice=choose("auto", "cpu", "auto"), batch=1, notes=(note,))
        return None

    def _smaller(self, window: tuple[int, int, int]) -> tuple[int, int, int] | None:
        return smaller_window(window, axes_divisor(self._divisor, self.bundle.plan.patch))

    def _sliding_window(self, way: _Way, network: Callable[[torch.Tensor], torch.Tensor]) -> SlidingWindow:
        # Of the back ends only torch computes with torch's threads.
        own_threads = way.choice.backend != "torch"
        return SlidingWindow(
            network,
            patch=way.patch,
            divisor=self._divisor,
            overlap=self._overlap,
            mirror_axes=self._mirror_axes,
            batch=way.batch,
            own_threads=own_threads,
            # Models made before there was a choice say nothing.
            weighting=self.bundle.inference.get("weighting", "gaussian"),
        )


class _Run:
    """One way of running the model on one volume: the task calls it with the volume on the model grid."""

    def __init__(self, predictor: Predictor, way: _Way, progress, cancelled, on_estimate):
        self._predictor, self.way = predictor, way
        self._progress, self._cancelled, self._on_estimate = progress, cancelled, on_estimate
        self.notes: tuple[str, ...] = way.notes
        same = way.choice == predictor._choice
        self.backend = (
            predictor._backend if same else open_backend(way.choice, predictor._network, key=predictor.bundle.digest)
        )
        self._forwards = 0

    def __call__(self, volume: torch.Tensor) -> Answer:
        skips = self._predictor._skip_air and self._predictor.task.skips_air
        air = find_air(volume[0]) if skips else None
        way, layout, memory = self._fitting(volume, air)
        self.way, self.notes = way, way.notes
        if layout.level is not None:
            share = 1 - np.prod([s.stop - s.start for s in layout.box]) / np.prod(volume.shape[2:])
            self.notes = (
                *self.notes,
                f"Air around the patient was left out ({100 * share:.0f} % of the volume, and {layout.air} windows "
                "more).",
            )
        self._forwards = -(-layout.count // way.batch) * self._predictor.passes
        self._estimate = Estimate(layout.count * self._predictor.passes, layout.window, None, memory, way.notes)
        self._say(self._predictor._measured.get(self._key(self._shape(way.batch, layout.window, volume))))
        sliding = self._predictor._sliding_window(way, self._forward)
        return sliding.answer(volume, layout, self._progress, self._cancelled)

    def _say(self, seconds_per_pass: float | None) -> None:
        if self._on_estimate is not None:
            seconds = None if seconds_per_pass is None else seconds_per_pass * self._forwards
            self._on_estimate(replace(self._estimate, seconds=seconds))

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        key = self._key(windows.shape)
        if key in self._predictor._measured:
            return self.backend(windows)
        self.backend.prepare(tuple(windows.shape))
        began = time.monotonic()
        logits = self.backend(windows)
        if logits.device.type == "cuda":
            torch.cuda.synchronize(logits.device)
        self._predictor._measured[key] = time.monotonic() - began
        self._say(self._predictor._measured[key])
        return logits

    def _key(self, shape: tuple) -> tuple:
        return (self.way.choice, *shape)

    def _shape(self, batch: int, window: tuple[int, int, int], volume: torch.Tensor) -> tuple[int, ...]:
        plan = self._predictor.bundle.plan
        spatial = window if plan.spatial_dims == 3 else tuple(n for a, n in enumerate(window) if plan.patch[a] > 1)
        return (batch, volume.shape[1], *spatial)

    def _fitting(self, volume: torch.Tensor, air: Air | None) -> tuple[_Way, Layout, int]:
        """The first way that the free memory allows, its windows, and the memory it will take, bytes."""
        predictor, way = self._predictor, self.way
        budget = predictor._memory_bytes
        if budget is None:
            budget = usable_memory(way.choice.device)
        notes = way.notes
        while True:
            layout = predictor._sliding_window(way, self._forward).lay(volume.shape[2:], air)
            needed = self._memory(way, layout, volume)
            if needed <= budget:
                return replace(way, notes=notes), layout, needed
            # Than the window laid, which is smaller than the patch where the volume is.
            smaller = predictor._smaller(layout.window)
            if way.batch > 1:
                way = replace(way, batch=1)
            elif smaller is not None:
                way = replace(way, patch=smaller)
                notes = (
                    *self.way.notes,
                    f"Smaller windows were used ({_size(smaller)}), because {budget / 2**30:.1f} GB of memory are "
                    "free; close other programs, or choose a region, for the full ones.",
                )
            else:
                notes = (
                    *self.way.notes,
                    f"About {needed / 2**30:.1f} GB of memory are needed and {budget / 2**30:.1f} GB are free.",
                )
                return replace(way, notes=notes), layout, needed

    def _memory(self, way: _Way, layout: Layout, volume: torch.Tensor) -> int:
        """Peak memory of a run beyond what is in use now, bytes: the network at work, the planes of the answer that
        are not done yet, the slab that is being read, and copies of the volume."""
        size = [s.stop - s.start for s in layout.box]
        cross = [n for a, n in enumerate(size) if a != layout.axis]
        channels = self._predictor.bundle.network["out_channels"]
        plane = 4 * channels * cross[0] * cross[1]
        buffer = plane * layout.window[layout.axis]
        slab = plane * min(layout.window[layout.axis], planes_at_once(channels, cross))
        window = self.backend.memory_bytes(self._shape(way.batch, layout.window, volume))
        # The answer for the windows at hand, and softmax, concatenation and classes of a slab.
        answers = 4 * channels * int(np.prod(layout.window)) * way.batch
        return int(window + answers + buffer + 4 * slab + 2 * volume.numel() * 4)


def _size(window: tuple[int, ...]) -> str:
    return "×".join(str(n) for n in window)
