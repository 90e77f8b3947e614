"""How often is a familiar image called strange, and a strange one familiar? And do saliency maps pass their check?

A small ResNet learns PneumoniaMNIST (chest radiographs, 28 × 28) from 3,000 of its training images for a minute or
two; thresholds come from its other 882 training images. Familiar: the 524 validation images. Strange: LIDC-IDRI slices
around nodules (HU), LUNA16 candidates (8 bit), sagittal slices of hippocampus MR; each as it is, and brought to 28 × 28
pixels of 1 mm and to gray values from 0 to 255, so that neither size nor range gives it away.

With --model NAME it is the model of that name, as it ships, that judges the strange images, 300 of each kind, through
the predictor that the panel uses. Its thresholds come from its validation images, so false alarms are told by the
small network's unseen images only.

python Testing/benchmarks/familiarity.py [--epochs 4] [--threads 1] [--model pneumonia]
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT / "MedMapAI"))
from MedMapAILib import networks  # noqa: E402
from MedMapAILib.familiarity import fit_familiarity, image_statistics, judge  # noqa: E402
from MedMapAILib.framing import frame  # noqa: E402
from MedMapAILib.image import make_image, read_image  # noqa: E402
from MedMapAILib.plan import plan_from_dict  # noqa: E402
from MedMapAILib.saliency import METHODS, sanity  # noqa: E402
from MedMapAILib.saliency.score import log_odds  # noqa: E402

_DATA = _ROOT.parent / "shared" / "data"
_SIDE, _SPACING = 28, 1.0
_TRAINING = 3000
_OF_EACH = 300
_PLAN = {
    "spacing": [1.0, 1.0, 0.0],
    "patch": [_SIDE, _SIDE, 1],
    "batch": 64,
    "normalization": {"kind": "zscore"},
    "interpolation": "linear",
    "axes": "image",
    "framing": "resize",
    "reasons": {},
}


def picture(pixels: np.ndarray, spacing: float = _SPACING):
    """An image (1, columns, rows, 1) of pixels (rows, columns), as Slicer shows a picture."""
    return make_image(pixels.T[None, :, :, None].astype(np.float32), np.diag([-spacing, -spacing, 1.0, 1.0]))


def lidc() -> Iterator:
    """Slices of CT around nodules, HU, with their pixel spacing."""
    pixels = np.load(_DATA / "lidc_slices" / "slices.npz")["image"]
    with (_DATA / "lidc_slices" / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    return (picture(each, float(row["pixel_spacing_mm"])) for each, row in zip(pixels, rows, strict=True))


def luna16() -> Iterator:
    """Crops of CT, 8 bit."""
    return map(picture, np.load(_DATA / "luna16_candidates" / "candidates.npz")["image"])


def hippocampus() -> Iterator:
    """Three slices of each MR crop, seen as pictures."""
    for path in sorted((_DATA / "hippocampus" / "images").iterdir()):
        volume = read_image(path)[0].numpy()
        for part in (0.35, 0.5, 0.65):
            yield picture(volume[int(part * len(volume))].T)


def disguised(images: Iterable) -> Iterator:
    """The same at the size and in the range of the familiar ones."""
    plan = plan_from_dict({**_PLAN, "normalization": {"kind": "none"}}, where="the benchmark")
    for image in images:
        pixels = frame(image, plan)[0, :, :, 0].numpy().T
        low, high = pixels.min(), pixels.max()
        if high > low:
            yield picture(np.round((pixels - low) * (255 / (high - low))))


def train(x: torch.Tensor, truth: torch.Tensor, epochs: int) -> torch.nn.Module:
    """ResNet-18 of a quarter of its width, AdamW, one cycle, shifted by up to two pixels."""
    torch.manual_seed(0)
    network = networks.build(
        "resnet18", spatial_dims=2, in_channels=1, out_channels=2, width=0.25, image_size=[_SIDE, _SIDE]
    )
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    steps = epochs * (len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(x), (64,))
        shift = [int(n) for n in torch.randint(-2, 3, (2,))]
        loss = torch.nn.functional.cross_entropy(network(x[chosen].roll(shift, (2, 3))), truth[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def seen(network: torch.nn.Module, images: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, E) and statistics (N, D) of images."""
    plan = plan_from_dict(_PLAN, where="the benchmark")
    inputs, statistics = [], []
    for image in images:
        if float(image.max()) > float(image.min()):
            inputs.append(frame(image, plan)[..., 0].as_tensor())
            statistics.append([*image_statistics(image).values()])
    with torch.inference_mode():
        parts = [network.embedding(network.features(part)) for part in torch.stack(inputs).split(256)]
    return torch.cat(parts).numpy(), np.array(statistics)


def judged(fitted: dict, embeddings: np.ndarray, statistics: np.ndarray) -> dict[str, float]:
    """Shares of images called strange: by anything, and by each part."""
    found = [judge(fitted, *pair) for pair in zip(embeddings, statistics, strict=True)]
    shares = {"strange": np.mean([not one.familiar for one in found])}
    return shares | {part: np.mean([one.scores[part] > 1 for one in found]) for part in found[0].scores}


def judged_by_model(name: str) -> None:
    """Print how many strange images a model takes for familiar."""
    from MedMapAILib.bundle import load_bundle
    from MedMapAILib.inference.opening import open_predictor

    predictor = open_predictor(load_bundle(name), device="cpu")
    for kind, images in (("LIDC slices", lidc), ("LUNA16 candidates", luna16), ("hippocampus slices", hippocampus)):
        for said, shown in ((kind, list(images())), (f"{kind}, disguised", list(disguised(images())))):
            chosen = [image for image in shown if float(image.max()) > float(image.min())]
            chosen = chosen[:: max(1, len(chosen) // _OF_EACH)][:_OF_EACH]
            found = [predictor.predict(image).familiarity for image in chosen]
            shares = {part: np.mean([one.scores[part] > 1 for one in found]) for part in found[0].scores}
            missed = np.mean([one.familiar for one in found])
            print(
                f"{said:32}{len(found):6} images: missed {100 * missed:.1f} %; strange by "
                + ", ".join(f"{part} {100 * share:.1f} %" for part, share in shares.items()),
                flush=True,
            )


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", help="judge by this model instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.model:
        judged_by_model(options.model)
        return
    data = np.load(_DATA / "pneumoniamnist" / "pneumoniamnist_trainval.npz")
    order = np.random.default_rng(0).permutation(len(data["train_images"]))
    plan = plan_from_dict(_PLAN, where="the benchmark")

    def network_inputs(pixels: np.ndarray) -> torch.Tensor:
        return torch.stack([frame(picture(each), plan)[..., 0].as_tensor() for each in pixels])

    began = time.monotonic()
    chosen = order[:_TRAINING]
    truth = torch.from_numpy(data["train_labels"][chosen, 0].astype(np.int64))
    network = train(network_inputs(data["train_images"][chosen]), truth, options.epochs)
    validation = network_inputs(data["val_images"])
    with torch.inference_mode():
        right = (network(validation).argmax(dim=1).numpy() == data["val_labels"][:, 0]).mean()
    print(f"trained in {time.monotonic() - began:.0f} s; accuracy on the validation part {right:.3f}")

    familiar = seen(network, map(picture, data["train_images"][chosen]))
    calibration = seen(network, map(picture, data["train_images"][order[_TRAINING:]]))
    began = time.monotonic()
    fitted = fit_familiarity(*familiar, held_out=calibration)
    print(f"fitted in {time.monotonic() - began:.1f} s, {len(json.dumps(fitted))} bytes; {fitted['thresholds']}")
    rows = {"PneumoniaMNIST validation": seen(network, map(picture, data["val_images"]))}
    for name, images in (("LIDC slices", lidc), ("LUNA16 candidates", luna16), ("hippocampus slices", hippocampus)):
        rows[name] = seen(network, images())
        rows[f"{name}, disguised"] = seen(network, disguised(images()))
    for name, row in rows.items():
        shares = judged(fitted, *row)
        print(f"{name:32}{len(row[0]):6} images: " + ", ".join(f"{key} {100 * n:.1f} %" for key, n in shares.items()))
    print("an example:", judge(fitted, *(part[0] for part in rows["LIDC slices"])).sentence)

    halves = []
    both = [np.concatenate(pair) for pair in zip(calibration, rows["PneumoniaMNIST validation"], strict=True)]
    for seed in range(10):
        mixed = np.random.default_rng(seed).permutation(len(both[0]))
        first, second = mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
        again = fit_familiarity(*familiar, held_out=tuple(part[first] for part in both))
        halves.append(judged(again, *(part[second] for part in both))["strange"])
    print(
        f"false alarms, 10 random halves of 1,406 unseen images: {100 * np.mean(halves):.2f} % on average, "
        f"{100 * min(halves):.2f} to {100 * max(halves):.2f} %"
    )

    print("rank correlation of saliency maps with those of randomized weights (above 0.8: warned of):")
    for method in ("grad-cam", "grad-cam++", "occlusion"):
        assert method in METHODS
        found = [
            sanity.changes_with_weights(network, validation[n : n + 1], log_odds("binary", 1, 2), method)[1]
            for n in range(30)
        ]
        print(
            f"{method:12} median {np.median(found):.2f}, {min(found):.2f} to {max(found):.2f}, "
            f"warned of {np.mean(np.array(found) >= sanity.SIMILAR):.0%}"
        )


if __name__ == "__main__":
    main()
