"""The training loop: from a configuration to a bundle, resumable at any moment."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import multiprocessing
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader

from ..devices import choose_device, choose_precision, describe
from ..errors import InputError, RunError
from ..files import write_atomically
from ..inference.box_windows import BoxWindows, box_ways
from ..inference.sliding_window import SlidingWindow
from ..networks import build, size_divisor
from ..tasks import Task
from ..transfer import set_frozen
from .averaging import update_average
from .checkpoint import load_checkpoint, save_checkpoint
from .config import decisive_settings, network_options
from .history import History
from .optimizers import build_optimizer
from .samples import PreparedCases, SampleStream
from .schedule import learning_rate_factor

Event = Callable[[dict], None]

#: An epoch's loss this many times the best so far (plus one) counts as divergence.
_DIVERGENCE = 3.0


class Stopped(Exception):
    """The user stopped the training; the checkpoint is written."""


class Trainer:
    """Trains one network on prepared cases, from wherever the checkpoint in ``output`` stands.

    config: complete (see config.py). task: says what loss and validation mean. network: on the CPU, freshly built.
    cases, validation: prepared by the task. output: an existing folder; gets checkpoint.pt, best.pt, history.csv,
    events/. on_event: called with JSON-able dictionaries. should_stop: asked after each iteration.
    """

    def __init__(
        self,
        config: dict[str, dict[str, Any]],
        task: Task,
        network: torch.nn.Module,
        cases: PreparedCases,
        validation: PreparedCases,
        output: Path,
        *,
        on_event: Event = lambda event: None,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        self._config, self._settings, self._task = config, config["training"], task
        self._output, self._on_event, self._should_stop = Path(output), on_event, should_stop
        self._device = choose_device(self._settings["device"])
        self._dtype = choose_precision(self._settings["precision"], self._device)
        self._network = network.to(self._device)
        self._average = copy.deepcopy(self._network).eval()
        # A critic begins with weights that depend on the seed alone.
        torch.manual_seed(int(self._settings["seed"]))
        self._loss = task.build_loss(config["loss"], cases)
        self._optimizer = build_optimizer(
            self._network, config["optimizer"], layer_decay=config["transfer"]["layer_decay"]
        )
        #: The critic of a GAN learns against the network, by an optimizer of its own.
        self._opponent: torch.nn.Module | None = getattr(self._loss, "opponent", None)
        self._opponent_optimizer: torch.optim.Optimizer | None = None
        if isinstance(self._loss, torch.nn.Module):
            self._loss.to(self._device)
        if self._opponent is not None:
            about = self._loss.opponent_optimizer
            self._opponent_optimizer = torch.optim.Adam(
                self._opponent.parameters(), lr=about["learning_rate"], betas=tuple(about["betas"])
            )
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._dtype == torch.float16)
        self._cases, self._validation = cases, validation
        self._batch = int(self._settings["batch"] or task.plan.batch)
        self._per_epoch = int(self._settings["iterations_per_epoch"] or math.ceil(len(cases) / self._batch))
        self._total = self._per_epoch * int(self._settings["epochs"])
        self._metric = f"validation_{task.key_metric}"
        self._columns = (
            "epoch",
            "train_loss",
            "validation_loss",
            self._metric,
            "learning_rate",
            "gradient_norm",
            "seconds",
        )
        # Everything that a resumed run must know, beside weights and optimizer.
        self._progress: dict[str, Any] = {
            "iteration": 0,
            "loss_sum": 0.0,
            "norm_sum": 0.0,
            "further_sums": {},
            "seconds": 0.0,
            "best_metric": -math.inf,
            "best_epoch": 0,
            "rows": [],
        }

    @property
    def device_description(self) -> str:
        """Where and in which number format it computes."""
        return describe(self._device, self._dtype)

    @property
    def progress(self) -> dict[str, Any]:
        """Iteration, history rows, best metric and epoch."""
        return self._progress

    def run(self) -> torch.nn.Module:
        """Train to the end and return the network to ship, on the CPU, in evaluation mode.

        Raises Stopped when asked to stop, RunError when the loss is not a number or diverges; in both cases the last
        good checkpoint is in ``output``.
        """
        path = self._output / "checkpoint.pt"
        if path.exists():
            self._restore(load_checkpoint(path))
        history = History(self._output, self._columns, self._progress["rows"])
        self._progress["rows"] = history.rows
        try:
            if self._progress["iteration"] < self._total and not self._finished_early():
                self._iterate(history)
        finally:
            history.close()
        return self._chosen()

    def _iterate(self, history: History) -> None:
        progress = self._progress
        stream = SampleStream(
            self._cases,
            self._task.training_transform(self._config["augmentation"], self._settings["foreground_fraction"]),
            int(self._settings["seed"]),
        )
        workers = self._settings["workers"]
        if workers is None:
            workers = 4 if self._device.type == "cuda" else 0
        if multiprocessing.get_start_method() != "fork":
            # Processes that are spawned, as on Windows and macOS, would have to be sent all cases.
            workers = 0
        loader = DataLoader(
            stream,
            batch_size=self._batch,
            sampler=range(progress["iteration"] * self._batch, self._total * self._batch),
            num_workers=int(workers),
            generator=torch.Generator(),
            pin_memory=self._device.type == "cuda",
        )
        saved = began = time.monotonic()
        for batch in loader:
            loss, norm = self._step(batch)
            progress["iteration"] += 1
            progress["loss_sum"] += loss
            progress["norm_sum"] += norm
            done = progress["iteration"]
            at_end = done % self._per_epoch == 0
            if at_end:
                progress["seconds"] += time.monotonic() - began
                self._end_epoch(history)
                began = time.monotonic()
            else:
                self._on_event(
                    {
                        "event": "progress",
                        "fraction": done / self._total,
                        "message": f"epoch {done // self._per_epoch + 1} of {self._settings['epochs']}, "
                        f"iteration {done % self._per_epoch} of {self._per_epoch}, loss {loss:.3f}",
                    }
                )
            stop = self._should_stop()
            late = time.monotonic() - saved > 60 * self._settings["checkpoint_minutes"]
            if at_end or stop or late:
                progress["seconds"] += time.monotonic() - began
                began = time.monotonic()
                save_checkpoint(self._state(), self._output / "checkpoint.pt")
                saved = time.monotonic()
            if stop and done < self._total:
                raise Stopped
            if at_end and self._finished_early():
                return

    def _step(self, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
        """One update of the weights. Returns the loss and the norm of the gradient before clipping."""
        progress, settings, optimizer = self._progress, self._config["optimizer"], self._optimizer
        schedule = self._config["schedule"]
        rate = settings["learning_rate"] * learning_rate_factor(
            progress["iteration"],
            self._total,
            name=schedule["name"],
            warmup=schedule["warmup_epochs"] * self._per_epoch,
            final_fraction=schedule["final_fraction"],
            power=schedule["power"],
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        # Dropout draws from torch's generator: seeding it by the iteration makes a resumed run draw the same.
        torch.manual_seed(int(settings_seed(self._settings["seed"], progress["iteration"])))
        batch = self._task.training_batch(
            batch, self._config["augmentation"], settings_seed(self._settings["seed"], -1 - progress["iteration"])
        )
        batch = {key: value.to(self._device, non_blocking=True) for key, value in batch.items()}
        self._network.train()
        transfer = self._config["transfer"]
        if transfer["frozen"]:
            set_frozen(
                self._network,
                frozen=transfer["frozen"],
                unfreeze_every=transfer["unfreeze_every"],
                epoch=progress["iteration"] / self._per_epoch,
            )
        if self._opponent is not None:
            self._train_opponent(batch)
        with torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            loss = self._task.training_loss(self._loss, self._network, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._failure(f"the loss became {value}")
        parts = getattr(self._loss, "parts", {})
        if len(parts) > 1:
            self._add({f"loss_{name}": part for name, part in parts.items()})
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(optimizer)
        clipping = settings["gradient_clipping"] or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self._network.parameters(), clipping))
        if not math.isfinite(norm) and not self._scaler.is_enabled():
            raise self._failure(f"the gradient became {norm}")
        self._scaler.step(optimizer)
        self._scaler.update()
        update_average(self._average, self._network, self._settings["ema_decay"], progress["iteration"])
        return value, norm if math.isfinite(norm) else 0.0

    def _train_opponent(self, batch: dict[str, torch.Tensor]) -> None:
        """Updates of the critic before one of the network."""
        self._opponent.train().requires_grad_(True)
        total = 0.0
        # In single precision: gradient penalties are gradients of gradients.
        for loss in self._task.opponent_losses(self._loss, self._network, batch):
            value = float(loss.detach())
            if not math.isfinite(value):
                raise self._failure(f"the loss of the critic became {value}")
            self._opponent_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._opponent_optimizer.step()
            total += value
        self._add({"opponent_loss": total / self._loss.opponent_steps})
        # While the network learns its gradient passes through the critic, which stays as it is.
        self._opponent.requires_grad_(False)

    def _add(self, numbers: dict[str, float]) -> None:
        """To the sums of the epoch."""
        sums = self._progress["further_sums"]
        for name, number in numbers.items():
            sums[name] = sums.get(name, 0.0) + float(number)

    def _end_epoch(self, history: History) -> None:
        progress = self._progress
        epoch = progress["iteration"] // self._per_epoch
        row: dict[str, Any] = {
            "epoch": epoch,
            "train_loss": progress["loss_sum"] / self._per_epoch,
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "gradient_norm": progress["norm_sum"] / self._per_epoch,
            "seconds": round(progress["seconds"], 1),
            **{name: total / self._per_epoch for name, total in progress["further_sums"].items()},
        }
        best_loss = min((r["train_loss"] for r in history.rows), default=math.inf)
        # Two that learn against each other do not agree on a loss that falls.
        if self._opponent is None and row["train_loss"] > _DIVERGENCE * abs(best_loss) + 1:
            raise self._failure(f"the loss rose from {best_loss:.3g} to {row['train_loss']:.3g}")
        last = progress["iteration"] == self._total
        if len(self._validation) and (epoch % int(self._settings["validate_every"]) == 0 or last):
            scores = self._validate()
            row |= {"validation_loss": scores.get("loss"), self._metric: scores[self._task.key_metric]}
            if scores[self._task.key_metric] > progress["best_metric"]:
                progress |= {"best_metric": scores[self._task.key_metric], "best_epoch": epoch}
                if self._settings["select"] == "best":
                    save_checkpoint({"epoch": epoch, "average": self._average.state_dict()}, self._output / "best.pt")
        progress |= {"loss_sum": 0.0, "norm_sum": 0.0, "further_sums": {}, "seconds": 0.0}
        history.add(row)
        event = {"event": "epoch", **row, "fraction": progress["iteration"] / self._total}
        picture = self._picture(epoch) if epoch % int(self._settings["validate_every"]) == 0 or last else None
        self._on_event(event if picture is None else {**event, "picture": str(picture)})

    def _picture(self, epoch: int) -> Path | None:
        """A file that shows what the network can do now, of a task that has something to show."""
        cases = self._validation if len(self._validation) else self._cases
        # What is drawn for the picture must not change what the training draws next, resumed or not.
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(int(self._settings["seed"]))
            pixels = self._task.picture(self._image_network(self._average), cases, self._device)
        if pixels is None:
            return None
        path = self._output / "samples" / f"epoch-{epoch:04d}.png"
        path.parent.mkdir(exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        write_atomically(path, file.getvalue())
        return path

    def _validate(self) -> dict[str, float]:
        """Mean loss and key metric of the averaged network over the validation cases."""
        with torch.inference_mode():
            return self._task.validate(self._image_network(self._average), self._loss, self._validation, self._device)

    def _image_network(self, network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """The network as something that takes whole images, in windows where the answer is one value a voxel."""
        network.eval()

        def forward(images: torch.Tensor, *others: Any) -> Any:
            with torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
                return network(images, *others)

        inference = self._config["inference"]
        if self._task.windows in ("none", "measured", "made"):
            return forward
        if self._task.windows == "joined":
            return BoxWindows(_choosing(forward), **box_ways(self._task.plan, inference))
        options = network_options(self._config, self._task.plan)
        return SlidingWindow(
            forward,
            patch=inference["window"] or self._task.plan.patch,
            divisor=size_divisor(self._config["network"]["name"], spatial_dims=self._task.plan.spatial_dims, **options),
            overlap=inference["overlap"],
            weighting=inference["weighting"],
            batch=self._batch,
        )

    def _finished_early(self) -> bool:
        patience = int(self._settings["early_stopping_epochs"] or 0)
        epoch = self._progress["iteration"] // self._per_epoch
        return bool(patience) and len(self._validation) > 0 and epoch - self._progress["best_epoch"] >= patience

    def _failure(self, what: str) -> RunError:
        path = self._output / "checkpoint.pt"
        kept = f"the last good checkpoint is {path}" if path.exists() else "there is no checkpoint yet"
        epoch = self._progress["iteration"] // self._per_epoch + 1
        return RunError(f"Training stopped in epoch {epoch}: {what}; {kept}. Try a lower optimizer.learning_rate.")

    def _chosen(self) -> torch.nn.Module:
        if self._settings["select"] == "best" and (self._output / "best.pt").exists():
            self._average.load_state_dict(load_checkpoint(self._output / "best.pt")["average"])
        return self._average.to("cpu").eval()

    def _state(self) -> dict[str, Any]:
        return {
            "config": config_digest(self._config),
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "progress": self._progress,
            **(
                {}
                if self._opponent is None
                else {
                    "opponent": self._opponent.state_dict(),
                    "opponent_optimizer": self._opponent_optimizer.state_dict(),
                }
            ),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        if state["config"] != config_digest(self._config):
            raise InputError(
                f"The checkpoint in {self._output} was made with another configuration; resume with the one stored "
                "there "
                "(config.json), or choose a new output folder."
            )
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._opponent is not None:
            self._opponent.load_state_dict(state["opponent"])
            self._opponent_optimizer.load_state_dict(state["opponent_optimizer"])
        self._progress = state["progress"]


def _choosing(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A detector's forward pass that takes proposals second; its own second argument is what it learns from."""
    return lambda images, proposals=None: forward(images, None, proposals)


def settings_seed(seed: int, iteration: int) -> int:
    """A seed for one iteration, far from those of its neighbors."""
    return int.from_bytes(hashlib.sha256(f"{seed} {iteration}".encode()).digest()[:7], "big")


def config_digest(config: dict[str, dict[str, Any]]) -> str:
    """A fingerprint of everything in a configuration that changes the result of a training."""
    return hashlib.sha256(json.dumps(decisive_settings(config), sort_keys=True, default=str).encode()).hexdigest()


def build_network(config: dict[str, dict[str, Any]], task: Task, in_channels: int) -> torch.nn.Module:
    """The configured network with random weights that depend on training.seed alone."""
    options = network_options(config, task.plan)
    torch.manual_seed(int(config["training"]["seed"]))
    return build(
        config["network"]["name"],
        spatial_dims=task.plan.spatial_dims,
        in_channels=in_channels,
        out_channels=task.output_channels,
        **options,
    )


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, whole or not at all."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def remove_cache(output: Path) -> None:
    """Drop prepared cases that did not fit into memory."""
    shutil.rmtree(Path(output) / "cache", ignore_errors=True)
