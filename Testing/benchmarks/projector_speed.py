r"""How fast the CT projector is beside scikit-image's, and how right both are, in one run.

    OMP_NUM_THREADS=1 python Testing/benchmarks/projector_speed.py

One slice of 512 × 512 pixels and 720 views over half a turn; a disc whose sinogram is known in closed form. Times are
processor seconds, the best of several runs; the others are given a part of the views, and their times scaled. deepinv
is no dependency; where it is installed (0.5.0 was tried), its operator and exact adjoint are timed, too.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from MedMapAILib.physics.ct_geometry import FanBeam, ParallelBeam, full_angles
from MedMapAILib.physics.ct_projector import CtProjector
from MedMapAILib.physics.filtered_backprojection import filtered_backprojection
from skimage.transform import iradon, radon

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ct_phantoms import disc_image, disc_sinogram  # noqa: E402

DISC = [(21.0, -14.0, 170.0, 0.02)]
#: scikit-image's middle is pixel 256, ours lies between 255 and 256.
SHIFTED = [(21.0 + 0.5, -14.0 - 0.5, 170.0, 0.02)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--views", type=int, default=720)
    parser.add_argument("--part", type=int, default=12, help="scikit-image gets every so-manieth view")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--fan", action="store_true", help="time the fan beam too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, angles = options.size, full_angles(options.views)
    geometry = ParallelBeam(angles, size, 1.0, size, 1.0)
    image, true = disc_image(size, 1.0, DISC), disc_sinogram(geometry, DISC)
    took, projector = best(lambda: CtProjector(geometry), 1)
    print(f"made once: {took:.2f} s, {sum(b.numel() * b.element_size() for b in projector.buffers()) / 1e6:.0f} MB")
    part = np.degrees(angles)[:: options.part]
    shifted = disc_image(size, 1.0, SHIFTED)[0, 0].numpy()
    theirs, their_sinogram = best(lambda: radon(shifted, part, circle=True), 1)
    theirs *= options.views / len(part)
    ours, sinogram = best(lambda: projector(image), options.runs)
    report("radon", theirs, ours)
    print(f"  against the closed form: {error(sinogram, true):.2%}, scikit-image "
          f"{error(torch.from_numpy(their_sinogram.T), true[0, 0, :: options.part]):.2%}")  # fmt: skip
    again, _ = best(lambda: projector.adjoint(true), options.runs)
    data = true[0, 0].numpy().T[:, :: options.part]
    theirs, _ = best(lambda: iradon(data, part, circle=True, output_size=size), 1)
    theirs *= options.views / len(part)
    report("iradon", theirs, best(lambda: filtered_backprojection(projector, true), options.runs)[0])
    report("iradon, the adjoint", theirs, again)
    against_deepinv(image, true, options, projector, ours, again)
    if options.fan:
        far = {"source_to_center_mm": 2.0 * size, "source_to_detector_mm": 3.6 * size}
        fan = CtProjector(FanBeam(full_angles(options.views, beam="fan"), size, 2.0, size, 1.0, **far))
        print(
            f"fan beam: {best(lambda: fan(image), 1)[0]:.2f} s, adjoint {best(lambda: fan.adjoint(true), 1)[0]:.2f} s"
        )


def against_deepinv(image, true, options, projector, ours: float, adjoint: float) -> None:
    """Beside deepinv's operator, whose pixels have no size and whose rays have no spacing but the pixels'."""
    try:
        from deepinv.physics import Tomography
    except ImportError:
        print("deepinv is not installed.")
        return
    angles = torch.from_numpy(np.degrees(projector.geometry.angles_rad)[:: options.part].copy()).float()
    for together in (False, True):
        operator = Tomography(
            angles, options.size, circle=True, normalize=False, parallel_computation=together, adjoint_via_backprop=True
        )
        theirs, data = best(lambda operator=operator: operator.A(image), 1)
        back, _ = best(lambda operator=operator, data=data: operator.A_adjoint(data), 1)
        name = f"deepinv, views {'together' if together else 'one by one'}"
        report(f"{name}, radon", theirs * options.part, ours, whose="it")
        report(f"{name}, the adjoint", back * options.part, adjoint, whose="it")
        print(f"  against the closed form: {error(data[0, 0].T, true[0, 0, :: options.part]):.2%}")


def best(call, runs):
    """The least processor time of some runs, s, and the last result."""
    took = []
    for _ in range(runs):
        start = time.process_time()
        result = call()
        took.append(time.process_time() - start)
    return min(took), result


def report(name: str, theirs: float, ours: float, whose: str = "scikit-image") -> None:
    print(f"{name}: {whose} {theirs:.2f} s, ours {ours:.3f} s, {theirs / ours:.1f} times as fast")


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found - true).norm() / true.norm())


if __name__ == "__main__":
    main()
