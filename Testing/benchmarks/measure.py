"""What the benchmarks measure, and the arithmetic on it: time and memory of processes, ratios, agreement of labels.

Wall time is that of the thing itself. CPU time is user and system time of a process and all that it started. Peak
memory is the largest resident size since it was last reset, summed over the process and its children; it is known on
Linux only (None elsewhere), because only Linux can reset it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil


@dataclass
class Usage:
    """What something took. wall, cpu: seconds. before_bytes: resident before it; peak_bytes: the most while it ran."""

    wall: float = 0.0
    cpu: float = 0.0
    before_bytes: int | None = None
    peak_bytes: int | None = None


@contextmanager
def measured() -> Iterator[Usage]:
    """Gives a Usage that is filled when the block ends, for this process and all its children."""
    usage = Usage()
    reset_peak()
    usage.before_bytes = peak_bytes()
    cpu, began = cpu_seconds(), time.perf_counter()
    yield usage
    usage.wall = time.perf_counter() - began
    usage.cpu = cpu_seconds() - cpu
    usage.peak_bytes = peak_bytes()


def family(pid: int | None = None) -> list[psutil.Process]:
    """A process (None: this one) and its living descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(pid: int | None = None) -> float:
    """User and system seconds so far of a process, its living descendants, and those that have ended and were waited
    for."""
    total = 0.0
    for process in family(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        # Not on Windows, where the time of children that have ended is lost.
        total += times.user + times.system + getattr(times, "children_user", 0) + getattr(times, "children_system", 0)
    return total


def reset_peak(pid: int | None = None) -> None:
    """Let the peak of a process and its descendants begin at what they use now (proc(5), clear_refs)."""
    for process in family(pid):
        try:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        except OSError:
            continue


def peak_bytes(pid: int | None = None) -> int | None:
    """Sum of the largest resident sizes (VmHWM) of a process and its descendants since the reset; None off Linux.

    They need not have peaked together, so the sum is an upper bound; memory that they share counts for each.
    """
    total = None
    for process in family(pid):
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), None)
        if kib is not None:
            total = (total or 0) + int(kib) * 1024
    return total


# --------------------------------------------------------------------------------------------------------------------
# Summing up


def per_round(rows: Sequence[Mapping], quantity: str) -> dict[int, float]:
    """The mean over scans of a quantity in each round, {round: mean}. Rows have "round", "scan" and the quantity."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if row[quantity] is not None:
            values.setdefault(row["round"], []).append(row[quantity])
    return {number: sum(found) / len(found) for number, found in values.items()}


def median(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None


def median_ratio(theirs: Sequence[Mapping], ours: Sequence[Mapping], quantity: str, *, largest: bool = False) -> dict:
    """The median over rounds of theirs/ours, from scans that both have done in that round.

    Rows as in ``per_round``. The quantity is summed over the scans of a round; with ``largest`` its largest value
    counts (peak memory). Returns {"median", "low", "high", "rounds"}, of which the first three are None where there is
    no common round.
    """
    ratios = []
    for number in sorted({row["round"] for row in theirs} & {row["round"] for row in ours}):
        pair = [{r["scan"]: r[quantity] for r in rows if r["round"] == number} for rows in (theirs, ours)]
        scans = [s for s in pair[0] if s in pair[1] and pair[0][s] is not None and pair[1][s]]
        combine = max if largest else sum
        if scans:
            ratios.append(combine(pair[0][s] for s in scans) / combine(pair[1][s] for s in scans))
    return {
        "median": median(ratios),
        "low": min(ratios, default=None),
        "high": max(ratios, default=None),
        "rounds": len(ratios),
    }


# --------------------------------------------------------------------------------------------------------------------
# Agreement of label maps


def joint_counts(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How many voxels have label a in the first and b in the second map, at [a, b]; a square table of whole numbers.

    Raises ValueError where the maps are not of one shape.
    """
    if first.shape != second.shape:
        raise ValueError(f"label maps of shapes {first.shape} and {second.shape} cannot be compared")
    classes = 1 + int(max(first.max(initial=0), second.max(initial=0)))
    pairs = first.ravel().astype(np.int64) * classes + second.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def equal_share(counts: np.ndarray) -> float:
    """The share of voxels with the same label in both, from ``joint_counts``."""
    return float(np.trace(counts) / max(1, counts.sum()))


def mean_dice(counts: np.ndarray) -> float:
    """Dice, 2|A∩B|/(|A|+|B|), averaged over the labels but 0 that either map has; 1 where neither has any."""
    sizes = counts.sum(axis=0) + counts.sum(axis=1)
    scores = [2 * counts[n, n] / sizes[n] for n in range(1, len(counts)) if sizes[n]]
    return float(np.mean(scores)) if scores else 1.0
