"""Can nodules that were put into a scan be told from real ones, by eye and by a classifier?

Real: the nodules of lidc_nodules in their own scans. Transplanted: the same nodules, scaled and turned, put into the
chest CTs of the data README (CPTAC-LSCC, 3 mm; the LIDC-IDRI-0001 slab, 2.5 mm; with pyradiomics' source archive in the
cache of the demo also lung1 and lung2, 5 mm), with their own lesions left alone. Everything is seen as a slice through
the nodule's middle, 24 mm wide at 0.6 mm, of 3 mm or what the scan has. Patients of donors are split 70/30; the
classifiers learn from the nodules of the first and are tested on those of the others, both kinds of each nodule.

All real crops are of other scanners than the hosts, which alone tells them apart. So four things are learned:

whole         a small convolutional network sees the slice
surroundings  the same, with the nodule and 3 mm around it painted over: what the scanner alone gives away
nodule        the same, with everything else painted over
relation      a forest of trees sees numbers that compare a nodule with its own surroundings: noise, sharpness of the
              rim, brightness, seam; and the same for each host with real crops of like noise in the lung only

Writes Resources/Figures/transplanted_or_real.png (unmarked, in random order), and the key and the numbers in
transplanted_or_real.json. AUC 0.5 is "cannot be told apart"; intervals are bootstrapped over patients.

python Testing/benchmarks/transplanted_or_real.py [--only-gallery] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "MedMapAI"), str(_ROOT / "Testing" / "demo")]
from demo_data import cache_folder  # noqa: E402
from MedMapAILib.files import atomic_file, write_atomically  # noqa: E402
from MedMapAILib.image import read_image, read_volume  # noqa: E402
from MedMapAILib.lungs.axes import to_patient_axes  # noqa: E402
from MedMapAILib.lungs.host import prepare_host  # noqa: E402
from MedMapAILib.lungs.nodules import list_nodules, make_nodule  # noqa: E402
from MedMapAILib.lungs.noise import rough  # noqa: E402
from MedMapAILib.lungs.transplant import Transplants  # noqa: E402
from MedMapAILib.metrics.bootstrap import resampled_weights  # noqa: E402
from MedMapAILib.metrics.ranking import Ranking  # noqa: E402
from MedMapAILib.transplant_command import boxes_to_avoid  # noqa: E402

_DATA = _ROOT.parent / "shared" / "data"
_FIGURES = _ROOT / "Resources" / "Figures"
_NAME = "transplanted_or_real"
_SIDE, _PIXEL, _THICKNESS = 40, 0.6, 3.0
#: Larger nodules leave nothing of their surroundings in the picture, mm.
_LARGEST = 15.0
#: The patient's own nodule in the slab, RAS mm: lowest and highest corner, from annotations.xml with some mm around.
_SLAB_NODULE = (-75.0, -105.0, -128.0, -41.0, -65.0, -104.0)
_PER_SCAN = 12


@dataclass
class Tile:
    """A slice through a nodule. pixels: (S, S) HU, inside: (S, S) bool, transplanted: 1 or 0."""

    pixels: np.ndarray
    inside: np.ndarray
    name: str
    patient: str
    host: str
    transplanted: int


def tile(voxels: np.ndarray, inside: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray] | None:
    """The slice of a nodule's largest area, _THICKNESS thick, or None where the voxels do not hold it whole.

    voxels, inside: (I, J, K) along the patient's axes.
    """
    k = int(inside.sum(axis=(0, 1)).argmax())
    count = max(1, round(_THICKNESS / spacing[2]))
    first = int(np.clip(k - (count - 1) // 2, 0, max(0, voxels.shape[2] - count)))
    flat = voxels[:, :, first : first + count].mean(axis=2)
    center = ndimage.center_of_mass(inside[:, :, k])
    axis = (np.arange(_SIDE) - (_SIDE - 1) / 2) * _PIXEL
    lines = [c + axis / step for c, step in zip(center, spacing[:2], strict=True)]
    if any(line[0] < -0.6 or line[-1] > n - 0.4 for line, n in zip(lines, flat.shape, strict=True)):
        return None
    grid = np.meshgrid(*lines, indexing="ij")
    pixels = ndimage.map_coordinates(flat, grid, order=1, mode="nearest")
    mask = ndimage.map_coordinates(inside[:, :, k].astype(np.float32), grid, order=1, mode="nearest") > 0.5
    return (pixels.astype(np.float32), mask) if mask.any() else None


def hosts() -> dict[str, tuple[object, list]]:
    """Name → image and boxes to avoid."""
    found = {
        "CPTAC": (read_image(_DATA / "chest_ct" / "CPTAC-LSCC-C3N-00247"), []),
        "LIDC slab": (read_image(_DATA / "lidc" / "LIDC-IDRI-0001"), [_SLAB_NODULE]),
    }
    archive = cache_folder() / "pyradiomics-3.0.1.tar.gz"
    if archive.is_file():
        folder = cache_folder() / "pyradiomics-3.0.1"
        with tarfile.open(archive) as source:
            for name in ("lung1", "lung2"):
                for part in ("image", "label"):
                    target = folder / f"{name}_{part}.nrrd"
                    if not target.is_file():
                        folder.mkdir(exist_ok=True)
                        member = source.extractfile(f"pyradiomics-3.0.1/data/{target.name}")
                        write_atomically(target, member.read())
                found[name] = (read_image(folder / f"{name}_image.nrrd"), boxes_to_avoid(folder / f"{name}_label.nrrd"))
    return found


def tiles(seed: int) -> list[Tile]:
    """Real and transplanted slices of the same nodules."""
    rng = np.random.default_rng(seed)
    prepared = {name: prepare_host(image, avoid=avoid) for name, (image, avoid) in hosts().items()}
    names = list(prepared)
    states: dict[str, Transplants] = {}
    found: list[Tile] = []
    waiting: dict[str, list] = {name: [] for name in names}

    def harvest(name: str) -> None:
        state = states.pop(name, None)
        for number, (entry, real) in enumerate(waiting[name]):
            reach = [int(20 / step) for step in state.host.spacing[:2]] + [3]
            part = tuple(
                slice(max(0, w.start - r), w.stop + r) for w, r in zip(state.where[number], reach, strict=True)
            )
            seen = tile(np.rint(state.voxels[part]), state.instances[part] == number + 1, state.host.spacing)
            if seen is not None:
                found.append(Tile(*real, entry.name, entry.patient, "own", 0))
                found.append(Tile(*seen, entry.name, entry.patient, name, 1))
        waiting[name] = []

    entries = [entry for entry in list_nodules(_DATA / "lidc_nodules") if entry.diameter_mm <= _LARGEST]
    for count, number in enumerate(rng.permutation(len(entries))):
        entry = entries[number]
        image, mask = read_volume(entry.image), read_volume(entry.mask)
        voxels, spacing, _ = to_patient_axes(image.array.astype(np.float32), image.affine)
        inside, _, _ = to_patient_axes(mask.array > 0, mask.affine)
        real, nodule = tile(voxels, inside, spacing), make_nodule(entry, voxels, inside, spacing)
        if real is None or nodule is None:
            continue
        name = names[count % len(names)]
        state = states.setdefault(name, Transplants.begin(prepared[name]))
        place = {"nothing": "parenchyma"}.get(nodule.touches, nodule.touches)
        if state.add(nodule, place, rng):
            waiting[name].append((entry, real))
        if len(state.findings) >= _PER_SCAN:
            harvest(name)
    for name in list(states):
        harvest(name)
    return found


def gallery(found: Sequence[Tile], seed: int, rows: int = 6, columns: int = 10) -> list[dict]:
    """The picture; returns its key."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(seed)
    half = rows * columns // 2
    real, put = ([t for t in found if t.transplanted == kind] for kind in (0, 1))
    # No nodule twice, or the twins would tell.
    names = list(dict.fromkeys(t.name for t in rng.permutation(np.array(put, dtype=object))))[: 2 * half]
    chosen = [t for t in put if t.name in names[:half]] + [t for t in real if t.name in names[half:]]
    chosen = [chosen[n] for n in rng.permutation(len(chosen))]
    figure, axes = plt.subplots(rows, columns, figsize=(columns * 1.25, rows * 1.25))
    for place, shown in zip(axes.ravel(), chosen, strict=False):
        place.imshow(shown.pixels.T[::-1], cmap="gray", vmin=-1000, vmax=400, interpolation="bilinear")
    for place in axes.ravel():
        place.axis("off")
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.995, 0.03, 0.03)
    with atomic_file(_FIGURES / f"{_NAME}.png") as path:
        figure.savefig(path, dpi=110, format="png", facecolor="black")
    plt.close(figure)
    return [
        {
            "row": number // columns + 1,
            "column": number % columns + 1,
            "transplanted": bool(shown.transplanted),
            "nodule": shown.name,
            "scan": shown.host,
        }
        for number, shown in enumerate(chosen)
    ]


def network_scores(train: Sequence[Tile], test: Sequence[Tile], painted: str, seed: int) -> np.ndarray:
    """Scores of a small convolutional network for the test tiles. painted: "", "nodule" or "surroundings"."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)

    def seen(each: Sequence[Tile]) -> torch.Tensor:
        pictures = []
        for t in each:
            near = ndimage.distance_transform_edt(~t.inside) * _PIXEL <= 3.0
            pixels = np.clip(t.pixels, -1000, 400)
            if painted == "nodule":
                pixels = np.where(near, -850, pixels)
            elif painted == "surroundings":
                pixels = np.where(near, pixels, -850)
            pictures.append((pixels + 600) / 400)
        return torch.from_numpy(np.stack(pictures)[:, None].astype(np.float32))

    def block(a: int, b: int) -> list:
        return [torch.nn.Conv2d(a, b, 3, padding=1), torch.nn.BatchNorm2d(b), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]

    network = torch.nn.Sequential(
        *block(1, 12), *block(12, 24), *block(24, 48), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Dropout(0.3), torch.nn.Linear(48, 1),
    )  # fmt: skip
    x, y = seen(train), torch.tensor([float(t.transplanted) for t in train])
    epochs, batch = 24, 32
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-2)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            pick = order[start : start + batch]
            pictures = torch.rot90(x[pick], int(rng.integers(4)), (2, 3))
            if rng.random() < 0.5:
                pictures = pictures.flip(2)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(pictures)[:, 0], y[pick])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        return network(seen(test))[:, 0].numpy()


def lung_noise(t: Tile) -> float:
    """Fine detail in the lung around a nodule, HU."""
    away = ndimage.distance_transform_edt(~t.inside) * _PIXEL
    detail = np.abs(rough(t.pixels[:, :, None])[:, :, 0])[(away > 3) & (t.pixels < -600)]
    return float(np.median(detail)) if detail.size > 20 else float("nan")


def relation(t: Tile) -> list[float]:
    """How a nodule compares with its own surroundings."""
    away = ndimage.distance_transform_edt(~t.inside) * _PIXEL
    deep = ndimage.distance_transform_edt(t.inside) * _PIXEL
    pixels = t.pixels
    lung = (away > 3) & (pixels < -600)
    level = float(np.median(pixels[lung])) if lung.sum() > 20 else -850.0
    detail = np.abs(rough(pixels[:, :, None])[:, :, 0])
    slopes = np.hypot(*np.gradient(pixels, _PIXEL))
    core = deep > max(0.5, 0.6 * float(deep.max()))
    top = float(np.quantile(pixels[core], 0.7))
    rim, shell = (away <= 1.2) & (deep <= 1.2), (away > 0.6) & (away <= 2.4)

    def middle(values: np.ndarray, where: np.ndarray, q: float = 0.5) -> float:
        return float(np.quantile(values[where], q)) if where.any() else 0.0

    noise = max(middle(detail, lung), 1.0)
    return [
        np.log(max(middle(detail, core), 0.5) / noise),
        np.log(max(middle(detail, t.inside), 0.5) / noise),
        np.log(max(middle(detail, rim, 0.9), 0.5) / noise),
        middle(slopes, rim, 0.9) / max(top - level, 50),
        middle(slopes, rim, 0.5) / max(top - level, 50),
        top,
        middle(pixels, shell & (pixels < -400), 0.5) - level,
        middle(pixels, shell & (pixels < -400), 0.1) - middle(pixels, lung, 0.1),
        float(pixels[core].std()) / max(top - level, 50),
        float((pixels[shell] > -400).mean()),
        np.log(max(middle(detail, shell & (pixels < -600)), 0.5) / noise),
    ]


def forest_scores(train: Sequence[Tile], test: Sequence[Tile], seed: int) -> np.ndarray:
    """Scores of a random forest that sees only those numbers."""
    forest = RandomForestClassifier(400, min_samples_leaf=5, random_state=seed)
    forest.fit([relation(t) for t in train], [t.transplanted for t in train])
    return forest.predict_proba([relation(t) for t in test])[:, 1]


def area(scores: np.ndarray, test: Sequence[Tile]) -> dict[str, float]:
    """AUC with its 95 % interval over patients."""
    ranking = Ranking(scores, np.array([bool(t.transplanted) for t in test]))
    whole = ranking.scores(np.ones((1, len(test))))[0][0]
    drawn = np.concatenate(
        [ranking.scores(w)[0] for w in resampled_weights(len(test), groups=[t.patient for t in test], resamples=1000)]
    )
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"auc": round(float(whole), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def main() -> None:
    """Make the gallery and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only-gallery", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.process_time()
    found = tiles(options.seed)
    print(f"{len(found)} slices, half of them transplanted ({time.process_time() - began:.0f} s)", flush=True)
    report = {"gallery": gallery(found, options.seed)}
    if not options.only_gallery:
        rng = np.random.default_rng(options.seed)
        patients = rng.permutation(sorted({t.patient for t in found}))
        chosen = set(patients[: round(0.3 * len(patients))])
        train = [t for t in found if t.patient not in chosen]
        test = [t for t in found if t.patient in chosen]
        report["train"], report["test"] = len(train), len(test)
        for name, painted in (("whole", ""), ("surroundings", "nodule"), ("nodule", "surroundings")):
            report[name] = area(network_scores(train, test, painted, options.seed), test)
            print(name, report[name], f"{time.process_time() - began:.0f} s", flush=True)
        scores = forest_scores(train, test, options.seed)
        report["relation"] = area(scores, test)
        print("relation", report["relation"])
        report["relation, scans of like noise"] = {}
        for host in sorted({t.host for t in test} - {"own"}):
            low, high = np.nanquantile([lung_noise(t) for t in train if t.host == host], [0.05, 0.95])
            some, others = (
                [t for t in part if t.host == host or t.host == "own" and low <= lung_noise(t) <= high]
                for part in (train, test)
            )
            if len({t.transplanted for t in some}) == len({t.transplanted for t in others}) == 2:
                like = area(forest_scores(some, others, options.seed), others) | {"slices": len(others)}
                report["relation, scans of like noise"][host] = like
                print(f"relation, scans of a noise like {host}", like)
    text = json.dumps(report, indent=1) + "\n"
    write_atomically(_FIGURES / f"{_NAME}.json", text.encode())


if __name__ == "__main__":
    main()
