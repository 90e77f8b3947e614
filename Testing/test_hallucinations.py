"""The lesion check of reconstructions, on a phantom: what is in the measurements is found, what is not is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from MedMapAILib.measurements.acquisition import acquisition_of

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))
import hallucinations  # noqa: E402


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Many views without noise, and few views with much."""
    folder = tmp_path_factory.mktemp("hallucinations")
    found = []
    for views, photons in ((360, 0), (24, 2000)):
        call = ["fbp", "fbp:filter=hann", "--phantom", "--slices", "1", "--output", str(folder / "report.json")]
        report = hallucinations.main([*call, "--views", str(views), "--photons", str(photons)])
        assert json.loads((folder / "report.json").read_text()) == report
        found.append(report["methods"])
    return found


def test_all_is_found_in_a_good_scan(reports):
    for name in ("soft tissue", "lung"):
        part = reports[0]["fbp"][name]
        assert part["inserted"] >= 2 and part["detected"] == part["inserted"]
        assert part["mean_recovery"] == pytest.approx(1, abs=0.1)
        assert part["false_structures"] == part["lost_structures"] == 0
    # A filter that blurs takes contrast away.
    assert reports[0]["fbp:filter=hann"]["lung"]["mean_recovery"] < reports[0]["fbp"]["lung"]["mean_recovery"]


def test_a_bad_scan_has_structures_that_are_none(reports):
    good, bad = (report["fbp"] for report in reports)
    assert bad["soft tissue"]["false_structures"] > 10
    assert bad["soft tissue"]["detected"] < bad["soft tissue"]["inserted"]
    assert bad["psnr_db"] < good["psnr_db"] - 10 and bad["ssim"] < good["ssim"]


def test_both_measurements_have_the_same_noise():
    _, values, pixel = hallucinations._phantom()
    settings = {"kind": "ct", "views": 12, "oversampling": hallucinations.FINER, "electronic_noise": 0}
    noisy, clean = (
        hallucinations.measured_slice(values[4], pixel, acquisition_of({**settings, "photons": n}).drawn(0), 1)
        for n in (5000, 0)
    )
    drawn = [
        getattr(noisy, name).line_integrals - getattr(clean, name).line_integrals
        for name in ("without", "with_lesions")
    ]
    assert np.corrcoef(drawn[0].ravel(), drawn[1].ravel())[0, 1] > 0.99
    # Its variance is 1 / counts behind the lesions, too.
    counts = 5000 * np.exp(-clean.with_lesions.line_integrals)
    assert (drawn[1] ** 2 * counts)[counts > 50].mean() == pytest.approx(1, abs=0.1)
