"""Where the memory of one run goes: the peak of each stage, so that one sees what would have to shrink.

    .venv/bin/python Testing/benchmarks/memory_profile.py large

Stages of a process that runs the case's first scan by the Predictor, float32: libraries imported, scan loaded, model
prepared for the window, one window through the network, the whole run. Linux only, as only Linux can reset a peak.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from benchmarks.cases import find_case  # noqa: E402
from benchmarks.measure import measured  # noqa: E402


def main() -> None:
    """Print one line a stage: peak, and by how much it is above what was in use before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", help="small, large or one-window")
    parser.add_argument("--work", type=Path, default=Path("bench"), help="folder of working files")
    options = parser.parse_args()
    case = find_case(options.case)
    options.work.mkdir(parents=True, exist_ok=True)
    case.prepare(options.work)

    with measured() as usage:
        import torch
        from MedMapAILib.image import make_image
        from MedMapAILib.inference.predictor import Predictor
    _say("libraries imported", usage)
    with measured() as usage:
        scan = case.load(options.work, case.scans[0])
        image = make_image(scan.image[None], scan.affine)
    _say("scan loaded", usage)
    with measured() as usage:
        predictor = Predictor(case.bundle(options.work), "cpu", "fp32")
        shape = (1, 1, *predictor.bundle.plan.patch)
        predictor._backend.prepare(shape)
    _say(f"model prepared for windows of {'×'.join(map(str, shape[2:]))}", usage)
    with measured() as usage:
        predictor._backend(torch.zeros(shape))
    _say("one window through the network", usage)
    estimates: list = []
    with measured() as usage:
        predictor.predict(image, on_estimate=estimates.append)
    _say(f"the run (it said {estimates[0].memory_bytes / 2**30:.2f} GB beforehand)", usage)


def _say(stage: str, usage) -> None:
    above = (usage.peak_bytes - usage.before_bytes) / 2**30
    print(f"{stage:70} {usage.peak_bytes / 2**30:6.2f} GB, {above:5.2f} more than before", flush=True)


if __name__ == "__main__":
    main()
