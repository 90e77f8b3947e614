"""Does bfloat16 train faster than float32 on this CPU? Prints seconds a sample of both, and their ratio, in one run.

python Testing/benchmarks/training_precision.py
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "MedMapAI"))
from MedMapAILib.networks import build  # noqa: E402


def seconds_per_sample(network: torch.nn.Module, batch: torch.Tensor, dtype: torch.dtype) -> float:
    """Forward and backward through the hippocampus network, once."""
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits = network(batch)
    logits.float().square().mean().backward()
    return (time.perf_counter() - began) / len(batch)


def main(rounds: int = 7) -> None:
    """Alternate both formats, after one round that does not count."""
    torch.manual_seed(0)
    network = build("unet", spatial_dims=3, in_channels=1, out_channels=3, filters=[16, 48, 96, 144])
    batch = torch.randn(2, 1, 32, 48, 32)
    times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for number in range(rounds + 1):
        for dtype, seconds in times.items():
            elapsed = seconds_per_sample(network, batch, dtype)
            if number:
                seconds.append(elapsed)
    medians = {dtype: statistics.median(seconds) for dtype, seconds in times.items()}
    for dtype, median in medians.items():
        print(f"{str(dtype).removeprefix('torch.')}: {median:.3f} s a sample (median of {rounds})")
    ratio = medians[torch.float32] / medians[torch.bfloat16]
    print(f"float32 over bfloat16: {ratio:.2f}, {torch.get_num_threads()} thread(s)")


if __name__ == "__main__":
    main()
