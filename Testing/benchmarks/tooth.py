"""A real scan, from all its views and from every sixth: filtered backprojection, SIRT, total variation, a network.

The tooth of the data README (TomoPy's sample data): 181 views, 2 rows, 640 detector pixels, corrected for flat and dark
field, its center of rotation found. There is no other truth than the scan itself: the 31 views that remain are scored
against the reconstruction from all 181 by filtered backprojection with the Hann filter, which is noisy and has rings of
its own, so no method can come arbitrarily close, and one that is smoother than the reference is not better for it.
Numbers are of the tooth and eight pixels round it, in a window from 0 to the 99.9th percentile of the reference, which
is the data range; attenuation is per detector pixel, whose size the file does not say.

The network is a small learned primal-dual that never saw the tooth: it learns from phantoms of random ellipses with
cracks and rings, drawn anew in each step, measured in the tooth's own geometry with the noise of its detector. (The
scan's other row is no honest training data: it is the same slice but for a few micrometers.) The weight of total
variation and the number of SIRT's iterations are those that are best on four such phantoms, too.

Writes Resources/Figures/tooth.png and the numbers in tooth.json. Takes about eight minutes on one core.

python Testing/benchmarks/tooth.py [--steps 600] [--seed 0]
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "MedMapAI")]
from MedMapAILib.files import atomic_file, write_atomically  # noqa: E402
from MedMapAILib.measurements.ct_methods import noise_deviation  # noqa: E402
from MedMapAILib.measurements.files import read_measurement  # noqa: E402
from MedMapAILib.measurements.measured import CtMeasurement  # noqa: E402
from MedMapAILib.measurements.methods import reconstruct_measurement  # noqa: E402
from MedMapAILib.metrics.image_quality import image_quality  # noqa: E402
from MedMapAILib.networks.reconstruction import learned_primal_dual  # noqa: E402
from MedMapAILib.physics.counts import noisy_line_integrals  # noqa: E402
from MedMapAILib.physics.ct_geometry import every_nth  # noqa: E402
from MedMapAILib.physics.ct_projector import CtProjector  # noqa: E402

_TOOTH = _ROOT.parent / "shared" / "data" / "xray_ct" / "tooth.h5"
_FIGURES = _ROOT / "Resources" / "Figures"
#: The image: 320 × 320 pixels as wide as a detector, which hold the tooth and air round it.
_SIZE, _EVERY = 320, 6
#: The phantoms' attenuation and the network's numbers, per detector pixel.
_SCALE = 0.01
_WEIGHTS = (3e-4, 1e-3, 3e-3)
_ITERATIONS = (30, 100, 200)


def phantom(rng: np.random.Generator) -> np.ndarray:
    """A body of random ellipses, layers within it, holes and cracks, (H, W), about 0 to 1, with soft edges."""
    y, x = np.mgrid[:_SIZE, :_SIZE] - (_SIZE - 1) / 2
    image = np.zeros((_SIZE, _SIZE), np.float32)

    def ellipse(middle, axes):
        angle = rng.uniform(0, np.pi)
        along = (x - middle[0]) * np.cos(angle) + (y - middle[1]) * np.sin(angle)
        across = (y - middle[1]) * np.cos(angle) - (x - middle[0]) * np.sin(angle)
        # Edges that bend as no ellipse's do.
        bend = 1 + 0.15 * np.sin(rng.integers(2, 6) * np.arctan2(across, along) + rng.uniform(0, 6.3))
        return (along / axes[0]) ** 2 + (across / axes[1]) ** 2 < bend

    middle, size = rng.uniform(-30, 30, 2), rng.uniform(50, 115)
    body = ellipse(middle, (size, size * rng.uniform(0.5, 1)))
    image[body] = rng.uniform(0.3, 1)
    for _ in range(rng.integers(3, 12)):
        place, axes = middle + rng.normal(0, size / 2, 2), size * rng.uniform(0.05, 0.6, 2)
        image[ellipse(place, axes) & body] = rng.choice([0, rng.uniform(0.3, 1)], p=[0.25, 0.75])
    for _ in range(rng.integers(0, 5)):
        angle, place = rng.uniform(0, np.pi), middle + rng.normal(0, size / 2, 2)
        distance = (x - place[0]) * np.cos(angle) + (y - place[1]) * np.sin(angle)
        distance = distance + rng.uniform(0, 6) * np.sin(y / rng.uniform(5, 30))
        image[(np.abs(distance) < rng.uniform(0.4, 2)) & ellipse(place, (60, 30))] *= rng.uniform(0, 0.6)
    return ndimage.gaussian_filter(image, rng.uniform(0.4, 0.9))


def phantom_scan(rng: np.random.Generator, projector: CtProjector, photons: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A phantom and its noisy line integrals, (1, 1, H, W) and (1, 1, A, D)."""
    true = torch.from_numpy(phantom(rng) * _SCALE)[None, None]
    lines = noisy_line_integrals(projector(true), photons, seed=int(rng.integers(2**31)))
    # What a flat field leaves of a detector's differences: a bias of each pixel, which makes rings.
    bias = rng.normal(0, rng.uniform(0, 0.5) * photons**-0.5, lines.shape[-1])
    return true, lines + torch.from_numpy(bias.astype(np.float32))


def train(projector: CtProjector, photons: float, steps: int, seed: int) -> torch.nn.Module:
    """A learned primal-dual for these views, from ``steps`` phantoms."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = learned_primal_dual.build(
        spatial_dims=2, in_channels=1, out_channels=1, iterations=4, width=16, memory=4, filter="hann", back="filtered"
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    mean = None
    for step in range(steps):
        true, lines = phantom_scan(rng, projector, photons)
        loss = (network(lines, projector, _SCALE) - true / _SCALE).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean = loss.item() if mean is None else 0.97 * mean + 0.03 * loss.item()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: mean error {mean:.4f} (1 is enamel)", flush=True)
    return network.eval()


def best_on_phantoms(scan: CtMeasurement, photons: float, seed: int) -> tuple[float, int]:
    """The weight of total variation and the iterations of SIRT that are best on four phantoms."""
    rng = np.random.default_rng(seed + 1)
    projector = CtProjector(scan.geometry)
    pairs = [phantom_scan(rng, projector, photons) for _ in range(4)]
    true = torch.cat([image for image, _ in pairs])[:, 0].numpy()
    lines = torch.cat([data for _, data in pairs])[:, 0].numpy()
    measured = replace(scan, line_integrals=lines)

    def error(method: str, **options) -> float:
        found = reconstruct_measurement(method, measured, options=options, device="cpu").values.transpose(2, 1, 0)
        return float(np.square(found - true).mean())

    weight = min(_WEIGHTS, key=lambda value: error("tv", weight=value))
    return weight, min(_ITERATIONS, key=lambda value: error("sirt", iterations=value, tolerance=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scan = read_measurement(_TOOTH, image_size=_SIZE)
    print(*scan.notes, sep="\n")
    few = replace(
        scan,
        geometry=every_nth(scan.geometry, _EVERY),
        line_integrals=np.ascontiguousarray(scan.line_integrals[:, ::_EVERY]),
    )
    # In air the deviation of a line integral is one over the root of the photons.
    photons = noise_deviation(torch.from_numpy(scan.line_integrals)) ** -2
    print(f"The detector's noise is that of {photons:.0f} photons.")
    weight, iterations = best_on_phantoms(few, photons, options.seed)
    print(f"Best on phantoms: TV weight {weight:g}, SIRT {iterations} iterations.", flush=True)
    projector = CtProjector(few.geometry)
    began = time.monotonic()
    network = train(projector, photons, options.steps, options.seed)
    trained = time.monotonic() - began

    def by_network() -> np.ndarray:
        lines = torch.from_numpy(few.line_integrals)[:, None]
        with torch.inference_mode():
            images = network(lines, projector, _SCALE) * _SCALE
        return images[:, 0].numpy().transpose(2, 1, 0)

    def by(method: str, measured: CtMeasurement = few, **settings) -> np.ndarray:
        return reconstruct_measurement(method, measured, options=settings, device="cpu").values

    reference = by("fbp", scan, filter="hann")
    ways = {
        "181 views: SIRT": lambda: by("sirt", scan, iterations=iterations, tolerance=0),
        "31 views: FBP": lambda: by("fbp"),
        "31 views: FBP, Hann": lambda: by("fbp", filter="hann"),
        "31 views: SIRT": lambda: by("sirt", iterations=iterations, tolerance=0),
        "31 views: TV": lambda: by("tv", weight=weight),
        "31 views: primal-dual": by_network,
    }
    window = (0.0, float(np.percentile(reference, 99.9)))
    tooth = ndimage.gaussian_filter(reference, (2, 2, 0)) > 0.2 * window[1]
    tooth = np.stack([ndimage.binary_dilation(tooth[..., k], iterations=8) for k in range(tooth.shape[2])], axis=-1)
    images, rows = {"181 views: FBP, Hann": reference}, {}
    for name, way in ways.items():
        began = time.monotonic()
        images[name] = way()
        seconds = time.monotonic() - began
        found = image_quality(reference, images[name], window=window, mask=tooth, slices=2)
        rows[name] = {"psnr_db": found.psnr, "ssim": found.ssim, "nrmse": found.nrmse, "seconds": seconds}
        print(
            f"{name:22} {found.psnr:6.2f} dB  SSIM {found.ssim:.4f}  NRMSE {found.nrmse:.4f}  {seconds:.1f} s",
            flush=True,
        )
    draw(images, rows, window)
    about = {
        "reference": "181 views, filtered backprojection, Hann",
        "region": "the tooth and 8 pixels round it, both rows",
        "data_range_per_pixel": window[1],
        "tv_weight": weight,
        "sirt_iterations": iterations,
        "photons": photons,
        "training": {
            "data": "random phantoms",
            "steps": options.steps,
            "seconds": round(trained),
            "seed": options.seed,
        },
        "notes": list(scan.notes),
        "methods": rows,
    }
    write_atomically(_FIGURES / "tooth.json", json.dumps(about, indent=1).encode())
    print(f"data range {window[1]:.4g} per detector pixel; TV weight {weight:g}, SIRT {iterations} iterations")


def draw(images: dict[str, np.ndarray], rows: dict[str, dict], window: tuple[float, float]) -> None:
    """The pictures side by side, and the crack enlarged below."""
    from matplotlib.figure import Figure

    shown = ["181 views: FBP, Hann", "181 views: SIRT", "31 views: FBP", "31 views: SIRT", "31 views: TV"]
    shown += ["31 views: primal-dual"]
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    grid = figure.subplots(2, len(shown))
    for column, name in enumerate(shown):
        picture = images[name][:, :, 0].T
        for row, (rows_, columns) in enumerate((((40, 290), (40, 290)), ((95, 185), (95, 185)))):
            axes = grid[row, column]
            part = picture[slice(*rows_), slice(*columns)]
            axes.imshow(part, cmap="gray", vmin=window[0], vmax=window[1], interpolation="nearest")
            axes.set_axis_off()
        number = f"{rows[name]['psnr_db']:.1f} dB, SSIM {rows[name]['ssim']:.2f}" if name in rows else "reference"
        grid[0, column].set_title(f"{name}\n{number}", fontsize=9)
    save_gray(figure, _FIGURES / "tooth.png")


def save_gray(figure, path: Path) -> None:
    """As a picture of grays: a third of the size of one in color."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90)
    with atomic_file(path) as temporary:
        Image.open(drawn).convert("L").save(temporary, optimize=True)


if __name__ == "__main__":
    main()
