"""The benchmarks' own arithmetic, on cases whose answer is known beforehand, and their way to talk to a process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.convolution_peak import layers_of, predictor_speed
from benchmarks.measure import (
    cpu_seconds,
    equal_share,
    joint_counts,
    mean_dice,
    median_ratio,
    per_round,
)
from benchmarks.results import Results
from benchmarks.summary import summarize, table


def rows(contender, *values):
    """Rows of (round, scan, wall, peak_bytes)."""
    return [
        {"contender": contender, "round": number, "scan": scan, "wall": wall, "cpu": 2 * wall, "peak_bytes": peak}
        for number, scan, wall, peak in values
    ]


def test_ratio_is_of_the_same_scans_in_the_same_round():
    theirs = rows("nnunet", (1, "a", 6.0, 300), (1, "b", 30.0, 900), (2, "a", 8.0, 400), (3, "a", 100.0, 1))
    ours = rows("ours-fp32", (1, "a", 2.0, 100), (1, "c", 50.0, 1000), (2, "a", 2.0, 100))
    # Round 1: only scan a in both, 3. Round 2: 4. Round 3 is theirs alone.
    assert median_ratio(theirs, ours, "wall") == {"median": 3.5, "low": 3.0, "high": 4.0, "rounds": 2}
    assert median_ratio(theirs, [], "wall")["median"] is None


def test_memory_counts_the_largest_scan_of_a_round_and_may_be_unknown():
    theirs = rows("nnunet", (1, "a", 1.0, 300), (1, "b", 1.0, 900))
    ours = rows("ours-fp32", (1, "a", 1.0, 100), (1, "b", 1.0, 150))
    assert median_ratio(theirs, ours, "peak_bytes", largest=True)["median"] == 6.0
    for row in ours:
        row["peak_bytes"] = None
    assert median_ratio(theirs, ours, "peak_bytes", largest=True)["median"] is None


def test_time_of_a_round_is_the_mean_of_its_scans():
    assert per_round(rows("monai", (1, "a", 1.0, 0), (1, "b", 3.0, 0), (2, "a", 5.0, 0)), "wall") == {1: 2.0, 2: 5.0}


def test_agreement_of_label_maps():
    first = np.array([[[0, 0, 1, 1, 2, 2]]], dtype=np.uint8)
    second = np.array([[[0, 1, 1, 1, 0, 0]]], dtype=np.uint8)
    counts = joint_counts(first, second)
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [2, 0, 0]]
    assert equal_share(counts) == 0.5
    # Label 1: 2·2 / (2 + 3); label 2 is in one map only: 0.
    assert mean_dice(counts) == pytest.approx((0.8 + 0) / 2)
    assert mean_dice(joint_counts(np.zeros_like(first), np.zeros_like(first))) == 1.0
    with pytest.raises(ValueError, match="cannot be compared"):
        joint_counts(first, second[..., :3])


def test_agreement_is_that_of_the_metrics_of_the_product():
    from MedMapAILib.metrics import evaluate_labels

    random = np.random.default_rng(0)
    first, second = random.integers(0, 4, (2, 12, 13, 14)).astype(np.uint8)
    scores = evaluate_labels(first, second, labels={n: str(n) for n in (1, 2, 3)}, spacing=(1, 1, 1))
    assert mean_dice(joint_counts(first, second)) == pytest.approx(scores["mean"]["dice"], abs=1e-6)


def test_cpu_time_of_a_child_counts():
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    # Windows forgets the time of children that have ended. Clocks tick every 10 ms.
    if sys.platform != "win32":
        assert cpu_seconds() - before >= 0.45


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_peak_memory_is_of_the_block_alone():
    """In a process of its own: the one of the tests may keep memory that was freed, as the torch back end does."""
    code = """
import time
import numpy as np
from benchmarks.measure import measured
with measured() as large:
    block = np.ones(25_000_000)
    del block
with measured() as idle:
    time.sleep(0.05)
# 200 MB more than before; and afterwards the large one is forgotten.
assert large.peak_bytes - large.before_bytes > 180e6, large
assert idle.peak_bytes < large.peak_bytes - 150e6, (large, idle)
assert idle.wall >= 0.05 > idle.cpu, idle
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_operations_of_a_convolution():
    from torch import nn

    network = nn.Sequential(
        nn.Conv3d(2, 8, 3, stride=2, padding=1),
        nn.LeakyReLU(),
        nn.ConvTranspose3d(8, 4, 2, stride=2),
        nn.Conv3d(4, 4, 1),
    )
    layers = {layer.name: layer.operations * count for layer, count in layers_of(network, (1, 2, 16, 16, 16)).items()}
    assert layers == {
        "Conv3d 2→8 3×3×3 at 16×16×16": 2 * 8**3 * 2 * 8 * 27,
        "ConvTranspose3d 8→4 2×2×2 at 8×8×8": 2 * 8**3 * 8 * 4 * 8,
        "Conv3d 4→4 1×1×1 at 16×16×16": 2 * 16**3 * 4 * 4,
    }


def test_operations_are_those_that_torch_counts():
    import torch
    from MedMapAILib.networks import build
    from torch.utils.flop_counter import FlopCounterMode

    network = build("unet", spatial_dims=3, in_channels=1, out_channels=3, filters=[8, 16, 32]).eval()
    shape = (1, 1, 16, 24, 16)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(shape))
    counted = sum(layer.operations * count for layer, count in layers_of(network, shape).items())
    assert counted == counter.get_total_flops()


def test_speed_of_whole_runs():
    run = {"windows": 4, "window": [16, 16, 16], "wall": 2.0}
    # Windows of half the patch have half of its operations: 4 · 5e9 in 2 s.
    assert predictor_speed([run], int(10e9), (16, 16, 32)) == pytest.approx(10.0)
    assert predictor_speed([{"wall": 1.0}], 1, (1, 1, 1)) is None


def test_results_survive_being_killed_and_are_summed_up(tmp_path):
    path = tmp_path / "results.json"
    settings = {"cores": [0], "threads": 1, "rounds": 1, "quick": False}
    results = Results(path, settings)
    case = results.case("large", "a CT", "speed only")
    case["rows"] += rows("nnunet", (1, "chest", 40.0, 4 * 2**30)) + rows("ours-auto", (1, "chest", 10.0, 2**30))
    case["rows"] += rows("end-to-end-cold", (1, "chest", 8.0, 1)) + rows("end-to-end-warm", (1, "chest", 1.0, 1))
    case["agreement"] = {"nnunet | ours-auto": {"chest": {"equal": 0.98, "dice": 0.95}}}
    case["left_out"] = {"monai": "it ran out of memory"}
    results.save()

    again = Results(path, settings, keep=True)
    assert again.data == json.loads(path.read_text(encoding="utf-8"))
    with pytest.raises(SystemExit, match="threads"):
        Results(path, settings | {"threads": 2}, keep=True)

    case = again.data["cases"]["large"]
    case["summary"] = summarize(case)
    ratio = case["summary"]["ratios"]["nnunet / ours-auto"]
    assert (ratio["wall"]["median"], ratio["memory"]["median"], ratio["equal"]) == (4.0, 4.0, 0.98)
    assert case["summary"]["warm_over_cold"]["cold"]["median"] == 0.125
    text = table(again.data)
    assert "4.00 (4.00 to 4.00)" in text and "it ran out of memory" in text and "speed only" in text


def test_a_contender_that_cannot_start_is_left_out_with_its_reason(tmp_path, shared_data):
    from benchmarks.contenders.launch import ContenderProcess, Lost

    shared_data("hippocampus")
    with pytest.raises(Lost, match="KeyError"):
        ContenderProcess("no such contender", "small", tmp_path, 1, tmp_path / "log.txt")
    assert "Traceback" in (tmp_path / "log.txt").read_text(encoding="utf-8")
