"""The shipped split keeps the two hippocampi of one person together."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT.parent / "shared" / "data" / "hippocampus" / "images"
SPLIT = ROOT / "MedMapAITraining" / "Resources" / "Recipes" / "hippocampus.split.json"

pytestmark = pytest.mark.skipif(not IMAGES.is_dir(), reason="../shared/data/hippocampus is not here.")


def quantization_step(path: Path) -> float:
    """Images of one acquisition were scaled by one number, so their intensities are multiples of it."""
    values = np.unique(np.asarray(nibabel.load(path).dataobj, dtype=np.float64))
    return float(np.median(np.diff(values)[:20]))


def test_neighboring_cases_with_the_same_quantization_lie_in_one_part():
    split = json.loads(SPLIT.read_text())
    part = {name: key for key in ("train", "validation") for name in split[key]}
    steps = {}
    for path in IMAGES.glob("*.nii.gz"):
        if nibabel.load(path).get_data_dtype() != np.uint8:
            steps[int(path.name[12:15])] = quantization_step(path)
    pairs = [(n, n + 1) for n in steps if n + 1 in steps and abs(steps[n] - steps[n + 1]) < 1e-4 * steps[n]]
    assert len(pairs) > 20, "the property that tells pairs apart is no longer found"
    for pair in pairs:
        one, other = (part[f"hippocampus_{n:03}"] for n in pair)
        assert one == other, pair


def test_every_case_is_in_exactly_one_part():
    split = json.loads(SPLIT.read_text())
    names = [*split["train"], *split["validation"]]
    assert len(names) == len(set(names)) == 200
    assert len(split["validation"]) == 40
