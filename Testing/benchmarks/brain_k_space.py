"""A real undersampled k-space of eight coils: zero-filled against CG-SENSE, total variation and wavelets.

The brain of the data README (SigPy's tutorial): 8 coils, 230 × 180 samples, of which 12 % were taken. There is no fully
sampled scan and so no truth; what can be measured is how well an image foretells samples that it was not made of. A
twentieth of the samples outside the fully sampled center is left out to choose weights with, another twentieth to
score with: the number is |A x - y| / |y| over those left out; 1 is to foretell nothing, as the zero-filled image does.
What noise they hold nobody can foretell. The pictures are made of all samples, with the weights that were chosen.
Sensitivities are estimated by ESPIRiT from the 24 × 24 center.

Writes Resources/Figures/brain_k_space.png and the numbers in brain_k_space.json. Takes about four minutes on one core.

python Testing/benchmarks/brain_k_space.py [--iterations 50] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "MedMapAI")]
from MedMapAILib.files import write_atomically  # noqa: E402
from MedMapAILib.measurements import mr_methods  # noqa: E402
from MedMapAILib.measurements.files import read_measurement  # noqa: E402
from MedMapAILib.measurements.measured import MrMeasurement  # noqa: E402
from MedMapAILib.measurements.methods import check_method, reconstruct_measurement  # noqa: E402
from MedMapAILib.physics.coil_sensitivities import espirit  # noqa: E402
from MedMapAILib.physics.fourier import k_space_of_image  # noqa: E402
from tooth import save_gray  # noqa: E402

_BRAIN = _ROOT.parent / "shared" / "data" / "mr_kspace" / "cartesian_ksp.npy"
_FIGURES = _ROOT / "Resources" / "Figures"
_PART = 0.05
#: What each method may choose: option → values.
_CHOICES = {
    "cg-sense": ("damping", (1e-3, 1e-2, 1e-1)),
    "tv": ("weight", (1e-3, 3e-3, 1e-2)),
    "wavelet": ("weight", (1e-3, 3e-3, 1e-2)),
}
_TITLES = {"zero-filled": "zero-filled", "cg-sense": "CG-SENSE", "tv": "total variation", "wavelet": "wavelets"}


def without(scan: MrMeasurement, left_out: np.ndarray) -> MrMeasurement:
    """The measurement without these samples (H, W)."""
    return replace(scan, mask=scan.mask & ~left_out, k_space=scan.k_space * ~left_out)


def foretold(method: str, scan: MrMeasurement, left_out: np.ndarray, options: dict) -> float:
    """|A x - y| / |y| over samples that the image x was not made of."""
    rest = mr_methods.Scan(without(scan, left_out), torch.device("cpu"))
    run = getattr(mr_methods, method.replace("-", "_"))
    solution = run(rest, 0, 1, check_method(method, "mr", options), lambda *_: None)
    coils = k_space_of_image(torch.from_numpy(scan.sensitivities) * solution.image)[0].numpy()
    true = scan.k_space[0][:, left_out]
    return float(np.linalg.norm(coils[:, left_out] - true) / np.linalg.norm(true))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scan = read_measurement(_BRAIN)
    # From the center, which is never left out; so once is enough.
    scan = replace(scan, sensitivities=espirit(torch.from_numpy(scan.k_space[0]))[None].numpy())
    height, width = scan.mask.shape
    outside = scan.mask.copy()
    outside[height // 2 - 12 : height // 2 + 12, width // 2 - 12 : width // 2 + 12] = False
    places = np.random.default_rng(options.seed).permutation(np.flatnonzero(outside))
    count = round(_PART * scan.mask.sum())
    parts = []
    for n in range(2):
        parts.append(np.zeros(scan.mask.size, bool))
        parts[n][places[n * count : (n + 1) * count]] = True
    choosing, scoring = (part.reshape(height, width) for part in parts)

    images = {"zero-filled": reconstruct_measurement("zero-filled", scan, device="cpu").values}
    rows = {"zero-filled": {"left_out_error": 1.0}}
    for method, (option, values) in _CHOICES.items():
        common = {"iterations": options.iterations}
        errors = {value: foretold(method, scan, choosing, {option: value, **common}) for value in values}
        best = min(errors, key=errors.get)
        # Those that weights were chosen with stay left out.
        score = foretold(method, without(scan, choosing), scoring, {option: best, **common})
        began = time.monotonic()
        result = reconstruct_measurement(method, scan, options={option: best, **common}, device="cpu")
        images[method] = result.values
        rows[method] = {
            "left_out_error": score,
            option: best,
            "choices": {f"{value:g}": error for value, error in errors.items()},
            "seconds": round(time.monotonic() - began, 1),
            "residuals": list(result.residuals),
        }
        print(f"{method:12} {option} {best:g}: left-out samples {score:.4f}; {rows[method]['seconds']} s", flush=True)
    draw(images, rows)
    about = {
        "samples": f"{int(scan.mask.sum())} of {scan.mask.size}, 8 coils",
        "left_out": count,
        "iterations": options.iterations,
        "methods": rows,
    }
    write_atomically(_FIGURES / "brain_k_space.json", json.dumps(about, indent=1).encode())


def draw(images: dict[str, np.ndarray], rows: dict[str, dict]) -> None:
    """The four images, and a part of them enlarged below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.subplots(2, len(images), height_ratios=(1.28, 1))
    for column, (name, image) in enumerate(images.items()):
        picture = image[:, :, 0].T
        # Brightness alike: the methods differ in how they combine coils.
        picture = picture / np.percentile(picture, 99.7)
        for row, (part, white) in enumerate(((picture, 1.0), (picture[70:150, 50:130], 0.7))):
            axes = grid[row, column]
            axes.imshow(part, cmap="gray", vmin=0, vmax=white, interpolation="nearest")
            axes.set_axis_off()
        error = rows[name]["left_out_error"]
        grid[0, column].set_title(f"{_TITLES[name]}\nleft-out samples: error {error:.2f}", fontsize=10)
    save_gray(figure, _FIGURES / "brain_k_space.png")


if __name__ == "__main__":
    main()
