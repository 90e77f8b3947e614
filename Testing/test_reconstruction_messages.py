"""Images that were made cross between two processes as they are, and are shown in rows and sentences."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from MedMapAILib.inference.messages import (
    PROTOCOL,
    ReconstructRequest,
    RunRequest,
    reconstruct_from_message,
    reconstruct_to_message,
    report_from_message,
    report_to_message,
    request_from_message,
    request_to_message,
    to_line,
)
from MedMapAILib.inference.report import RunReport
from MedMapAILib.inference.scoring import image_scores, score
from MedMapAILib.inference.shared_memory import SharedArrays
from MedMapAILib.results import ImageReference, Reconstruction

AFFINE = np.array([[0.6, -0.8, 0, 1 / 3], [0.8, 0.6, 0, 7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])


def values(seed=0, shape=(4, 3, 2)):
    return np.random.default_rng(seed).normal(0, 300, shape).astype(np.float32)


def across(message, arrays):
    """Through JSON and shared memory, as between host and worker."""
    sent = SharedArrays.create("medmapai-test-images", arrays, first_axis_fastest=True)
    try:
        received = SharedArrays.open(sent.description)
    finally:
        sent.unlink()
    return json.loads(to_line(message)), received.arrays


def made(**more):
    about = {"unit": "HU", "window": (-1000.0, 1000.0), "method": "sirt", "residuals": (0.5, 1 / 3), "notes": ("ä",)}
    return Reconstruction(values(), AFFINE, **{**about, **more})


def test_an_image_comes_out_as_it_went_in():
    scores = {"psnr_db": 31.25, "ssim": 0.9, "before": {"psnr_db": 22.5, "ssim": 0.5}}
    back = report_from_message(*across(*report_to_message(RunReport("low-dose-ct", made(), "cpu, fp32", 0.25, scores))))
    result = back.reconstruction
    assert PROTOCOL == 4 and back.segmentation is None and back.detections is None and back.classification is None
    np.testing.assert_array_equal(result.values, made().values)
    np.testing.assert_array_equal(result.affine, AFFINE)
    assert result.values.dtype == np.float32
    # As VTK has it: the first axis is the fastest.
    assert result.values.flags.f_contiguous
    for name in ("unit", "window", "method", "residuals", "notes"):
        assert getattr(result, name) == getattr(made(), name)
    assert back.scores == scores
    assert (
        report_from_message(*across(*report_to_message(RunReport("m", made(window=None), "cpu", 1.0)))).result.window
        is None
    )


def test_a_reference_image_crosses():
    reference = ImageReference(values(1), AFFINE)
    request = RunRequest("low-dose-ct", values()[None], AFFINE, reference=reference)
    back = request_from_message(*across(*request_to_message(request))).reference
    assert isinstance(back, ImageReference)
    np.testing.assert_array_equal(back.values, reference.values)
    np.testing.assert_array_equal(back.affine, AFFINE)


@pytest.mark.parametrize("scored", [True, False])
def test_a_measurement_crosses_by_its_path(scored):
    request = ReconstructRequest(
        "tv", "/data/tooth.h5", "/data/g.json", {"weight": 0.001, "nonnegative": True}, {"rows": [0, 1]},
        ImageReference(values(), AFFINE) if scored else None, "cpu",
    )  # fmt: skip
    back = reconstruct_from_message(*across(*reconstruct_to_message(request)))
    assert replace(back, reference=None) == replace(request, reference=None)
    assert (back.reference is not None) == scored


def test_rows_and_sentence_say_how_close_it_is():
    region = {"psnr_db": 28.0, "ssim": 0.8, "bias": -1.5, "before": {"psnr_db": 18.0, "ssim": 0.3, "bias": 4.0}}
    scores = {"psnr_db": 31.254, "ssim": 0.91234, "bias": -0.5, "before": {"psnr_db": 22.5}, "region": region}
    report = RunReport("low-dose-ct", made(method="low-dose-ct"), "cpu, fp32", 2.04, scores)
    assert [(row.name, row.unit) for row in report.rows] == [("PSNR", "dB"), ("SSIM", ""), ("Bias", "HU")]
    first = report.rows[0]
    assert (first.value, first.before, first.region, first.region_before) == (31.254, 22.5, 28.0, 18.0)
    assert report.rows[1].before is None
    assert report.sentence == (
        "An image of 4×3×2 voxels by low-dose-ct; 2.0 s on cpu, fp32; PSNR 31.25 dB, SSIM 0.9123."
    )
    alone = RunReport("low-dose-ct", made(), "cpu", 1.0)
    assert alone.rows == () and alone.sentence == "An image of 4×3×2 voxels by sirt; 1.0 s on cpu."
    assert alone.notes == ("ä",)


def test_input_and_region_are_scored_alike():
    """Mean squared differences that are known: 4 after and 100 before, 1 and 9 in one corner."""
    truth = np.zeros((4, 4, 2), np.float32)
    after, before = np.full_like(truth, 2), np.full_like(truth, 10)
    corner = (slice(0, 2), slice(0, 2), slice(0, 1))
    after[corner], before[corner] = 1, 3
    affine = np.diag([2.0, 2.0, 3.0, 1.0])

    def evaluate(result, reference):
        return {"mse": float(np.mean((result.values - reference.values) ** 2))}

    class Task:
        pass

    task = Task()
    task.evaluate = evaluate
    result, reference = Reconstruction(after, affine), ImageReference(truth, affine)
    # Voxel centers at 0 and 2 mm in the plane, and at 0 mm across.
    scores = score(task, result, reference, before[None], ((1.0, 1.0, 0.0), (3.0, 3.0, 1.0)))
    assert scores["region"] == {"mse": 1.0, "before": {"mse": 9.0}}
    assert scores["mse"] == pytest.approx((28 * 4 + 4 * 1) / 32)
    assert scores["before"]["mse"] == pytest.approx((28 * 100 + 4 * 9) / 32)
    assert "before" not in image_scores(evaluate, result, reference)
    assert score(task, result, None) is None and math.isfinite(scores["mse"])
