"""What the model lung-nodule is reported with: real scans that it never saw, synthetic ones by diameter, and its cost.

    .venv/bin/python Testing/benchmarks/lung_nodule_data.py ../shared/data /tmp/lung-nodule/test --only test
    .venv/bin/python Testing/benchmarks/lung_nodule.py --set /tmp/lung-nodule/test [--model lung-nodule] [--json OUT]

Real, untouched, used in no training and for no threshold: the slab of LIDC-IDRI-0001 (truth: its readers' consensus)
and lung1 of pyradiomics (truth: the mask that comes with it). Synthetic: the test part of the set made by
lung_nodule_data.py, nodules of patients kept apart in the right lung of a patient whose left lung alone was trained on.
Cost: one run on CPTAC-LSCC-C3N-00247, 512×512×99, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT / "Testing" / "demo"))
from demo_data import PYRADIOMICS, cache_folder, extract, fetch  # noqa: E402
from MedMapAILib.bundle import load_bundle  # noqa: E402
from MedMapAILib.datasets import open_dataset  # noqa: E402
from MedMapAILib.datasets.instances import finding_of_mask  # noqa: E402
from MedMapAILib.datasets.loading import load_case  # noqa: E402
from MedMapAILib.image import affine_of, read_image  # noqa: E402
from MedMapAILib.inference.opening import open_predictor  # noqa: E402
from MedMapAILib.metrics.detection import detection_report  # noqa: E402
from MedMapAILib.metrics.matching import FALSE, TRUE, match_findings  # noqa: E402
from MedMapAILib.results import FindingReference  # noqa: E402
from MedMapAILib.terminal import ProgressBar  # noqa: E402

#: Diameters, mm, between which the sensitivity is told.
BINS = (3, 6, 10, 20, 40)
#: Of MONAI's RetinaNet for LUNA16, one patch of 192×192×80 voxels, by torch.utils.flop_counter.
MONAI_GFLOP = 3561


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lung-nodule", help="name or folder of the bundle")
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data")
    parser.add_argument("--set", type=Path, help="the set of lung_nodule_data.py, with a test part")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--only", choices=("real", "synthetic", "cost"), action="append")
    parser.add_argument("--cost", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cost:
        print(json.dumps(_flops(options.model, options.data)))
        return
    wanted = options.only or ["real", "synthetic", "cost"]
    numbers: dict[str, Any] = {"model": options.model, "machine": _machine()}
    print(f"{options.model} on {numbers['machine']}")
    if "real" in wanted or "synthetic" in wanted:
        predictor = open_predictor(load_bundle(options.model), device="cpu")
        if "real" in wanted:
            numbers["real"] = real_scans(predictor, options.data)
        if "synthetic" in wanted and options.set:
            numbers["synthetic"] = synthetic_scans(predictor, options.set)
    if "cost" in wanted:
        numbers["cost"] = cost(options.model, options.data)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")


def real_scans(predictor: Any, data: Path) -> list[dict[str, Any]]:
    """For each untouched scan the rank and score of its nodule, and the false positives at the operating point."""
    rows = []
    print("\nReal, untouched scans (rank of the nodule among the findings; false positives at the operating point)")
    for name, image, reference in (_lidc(data), _lung1()):
        result = predictor.predict(image)
        kinds = match_findings(result, reference)
        called = [finding.score >= result.threshold for finding in result.findings]
        for truth in reference.findings:
            own = match_findings(result, FindingReference(reference.classes, (truth,)))
            rank = own.index(TRUE) + 1 if TRUE in own else None
            row = {
                "scan": name,
                "diameter_mm": round(truth.diameter_mm, 1),
                "rank": rank,
                "score": round(result.findings[rank - 1].score, 4) if rank else None,
                "called": bool(rank and called[rank - 1]),
                "false_positives": sum(c and kind == FALSE for c, kind in zip(called, kinds, strict=True)),
                "threshold": round(result.threshold, 4),
                "scores": [round(finding.score, 3) for finding in result.findings[:6]],
                "kinds": kinds[:6],
                "seconds": round(predictor.seconds, 1),
            }
            rows.append(row)
            print("  " + ", ".join(f"{key} {value}" for key, value in row.items()))
    return rows


def _lidc(data: Path) -> tuple[str, Any, FindingReference]:
    dataset = open_dataset(data / "lidc")
    image, reference = load_case(dataset.cases[0], dataset)
    return "LIDC-IDRI-0001, 16 slices of 2.5 mm", image, reference


def _lung1() -> tuple[str, Any, FindingReference]:
    cache = cache_folder()
    image, label = (
        read_image(extract(PYRADIOMICS[name], fetch(PYRADIOMICS[name], cache), cache))
        for name in ("lung1_image", "lung1_label")
    )
    truth = finding_of_mask(label.numpy()[0] > 0, affine_of(label), "nodule", state="reference")
    return "pyradiomics lung1, 48 slices of 5 mm", image, FindingReference(("nodule",), (truth,))


def synthetic_scans(predictor: Any, folder: Path) -> dict[str, Any]:
    """Sensitivity by diameter and false positives on the test part."""
    dataset = open_dataset(folder / "findings.csv")
    cases = [case for case in dataset.cases if dataset.source["split"][case.name] == "test"]
    results, references = [], []
    with ProgressBar() as bar:
        for number, case in enumerate(cases):
            bar(number / len(cases), f"scan {number + 1} of {len(cases)}")
            image, reference = load_case(case, dataset)
            results.append(predictor.predict(image))
            references.append(reference)
    report = detection_report(results, references, [case.name for case in cases])
    found, diameters = [], []
    for result, reference in zip(results, references, strict=True):
        for truth in reference.findings:
            own = FindingReference(reference.classes, (truth,))
            best = [
                f.score for f, kind in zip(result.findings, match_findings(result, own), strict=True) if kind == TRUE
            ]
            found.append((bool(best), bool(best and best[0] >= result.threshold)))
            diameters.append(truth.diameter_mm)
    by_size = {}
    for low, high in zip(BINS, BINS[1:]):  # noqa: B905
        inside = [n for n, d in enumerate(diameters) if low <= d < high]
        if inside:
            by_size[f"{low}-{high} mm"] = {
                "nodules": len(inside),
                "called": round(float(np.mean([found[n][1] for n in inside])), 3),
                "among the candidates": round(float(np.mean([found[n][0] for n in inside])), 3),
            }
    print(f"\nSynthetic test scans: {len(cases)}, {len(found)} nodules of patients kept apart")
    for size, row in by_size.items():
        print(f"  {size:<9} " + ", ".join(f"{key} {value}" for key, value in row.items()))
    for key, value in report["summary"].items():
        print(f"  {key:<26}{value['mean']:.3f}  ({value['low']:.3f} to {value['high']:.3f})")
    return {"scans": len(cases), "by_diameter": by_size, "summary": report["summary"]}


def cost(model: str, data: Path) -> dict[str, Any]:
    """Seconds and peak memory of ``medmapai run`` on a whole chest CT, and GFLOP."""
    scan = data / "chest_ct" / "CPTAC-LSCC-C3N-00247"
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "MedMapAILib",
        "run",
        model,
        str(scan),
        "/tmp/lung-nodule-cost.json",
    ]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    if status:
        raise SystemExit(process.stderr.read().decode())
    own = [sys.executable, "-W", "ignore", __file__, "--cost", "--model", model, "--data", str(data)]
    counted = json.loads(subprocess.run(own, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    row = {
        "seconds of medmapai run, start to end": round(seconds, 1),
        "peak memory, GB": round(usage.ru_maxrss / 2**20, 2),
        "cores": len(os.sched_getaffinity(0)),
        "load before": round(os.getloadavg()[0], 1),
        **counted,
        "MONAI's LUNA16 RetinaNet, GFLOP a patch of 192x192x80": MONAI_GFLOP,
    }
    print("\nWhole chest CT, 512x512x99")
    for key, value in row.items():
        print(f"  {key:<56}{value}")
    return row


def _flops(model: str, data: Path) -> dict[str, Any]:
    from torch.utils.flop_counter import FlopCounterMode

    predictor = open_predictor(load_bundle(model), device="cpu")
    image = read_image(data / "chest_ct" / "CPTAC-LSCC-C3N-00247")
    with FlopCounterMode(display=False) as counter:
        predictor.predict(image)
    return {"GFLOP a scan": round(counter.get_total_flops() / 1e9)}


def _machine() -> str:
    with open("/proc/cpuinfo") as file:
        name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
