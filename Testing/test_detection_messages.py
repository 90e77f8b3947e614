"""Findings cross between two processes as they are, with their masks, and are shown in rows and sentences."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from MedMapAILib.inference.messages import (
    PROTOCOL,
    RunRequest,
    report_from_message,
    report_to_message,
    request_from_message,
    request_to_message,
    to_line,
)
from MedMapAILib.inference.report import RunReport
from MedMapAILib.inference.shared_memory import SharedArrays
from MedMapAILib.results import Detections, Finding, FindingMask, FindingReference, Segment, Segmentation

AFFINE = np.array([[0.6, -0.8, 0, 1 / 3], [0.8, 0.6, 0, 7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])


def mask(seed, shape=(3, 4, 2)):
    return FindingMask(np.random.default_rng(seed).random(shape) < 0.5, AFFINE * (1, 1, 1 / 3, 1))


def detections(**more):
    return Detections(
        ("nodule", "Rundherd"),
        (
            Finding((1 / 3, 2, -3), (8, 8.4, 9), "nodule", np.float32(0.9), measured_diameter_mm=np.float64(8.4)),
            Finding((3, 12, 25), (5, 5, 5), "Rundherd", 0.41, mask=mask(1), about={"rating": [1, None], "kind": "ä"}),
            Finding((0, 10, 15), (4, 4.5, 6), "nodule", state="added", synthetic=True, mask=mask(2, (1, 1, 5))),
        ),
        **{"threshold": 0.5, "notes": ("Computed on cpu, fp32.", "One note."), **more},
    )  # fmt: skip


def across(message, arrays):
    """Through JSON and shared memory, as between host and worker."""
    sent = SharedArrays.create("medmapai-test-findings", arrays, first_axis_fastest=True)
    try:
        received = SharedArrays.open(sent.description)
    finally:
        sent.unlink()
    return json.loads(to_line(message)), received.arrays


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for field in ("center", "size", "label", "score", "state", "measured_diameter_mm", "synthetic", "about"):
            assert getattr(one, field) == getattr(other, field), field
        assert (one.mask is None) == (other.mask is None)
        if one.mask is not None:
            np.testing.assert_array_equal(one.mask.values, other.mask.values)
            np.testing.assert_array_equal(one.mask.affine, other.mask.affine)


def test_detections_come_out_as_they_went_in():
    result = detections()
    scores = {"found": 1, "missed": 0}
    back = report_from_message(*across(*report_to_message(RunReport("lung-nodule", result, "cpu, fp32", 0.25, scores))))
    assert_same(back.result.findings, result.findings)
    assert (back.result.classes, back.result.threshold, back.result.notes) == (
        result.classes, result.threshold, result.notes,
    )  # fmt: skip
    assert back.scores == scores and back.model == "lung-nodule" and PROTOCOL == 4
    assert back.detections is not None and back.classification is None and back.segmentation is None


def test_nothing_found():
    result = Detections(("nodule",), (), 0.5)
    message, arrays = report_to_message(RunReport("lung-nodule", result, "cpu", 1.0))
    assert arrays == []
    back = report_from_message(json.loads(to_line(message)), arrays)
    assert back.result == result and back.rows == ()
    assert back.sentence == "No finding reaches the operating point of 0.50; 1.0 s on cpu."


@pytest.mark.parametrize("whole", [True, False])
def test_a_reference_of_findings_crosses(whole):
    found = detections().findings
    more = {"instances": np.arange(24, dtype=np.int16).reshape(2, 3, 4), "proposals": found[2:]} if whole else {}
    reference = FindingReference(("nodule", "Rundherd"), found[:1], found[1:2], **more)
    request = RunRequest("lung-nodule", np.zeros((1, 2, 3, 4), np.int16), AFFINE, reference=reference)
    assert not request_from_message(*across(*request_to_message(request))).assume_hounsfield
    assumed = dataclasses.replace(request, assume_hounsfield=True)
    assert request_from_message(*across(*request_to_message(assumed))).assume_hounsfield
    back = request_from_message(*across(*request_to_message(request))).reference
    assert_same(back.findings, reference.findings)
    assert_same(back.ignored, reference.ignored)
    if whole:
        assert_same(back.proposals, reference.proposals)
        np.testing.assert_array_equal(back.instances, reference.instances)
    else:
        assert back.proposals is None and back.instances is None


def test_a_reference_of_segments_crosses_as_before():
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 2
    reference = Segmentation(labels, AFFINE, (Segment(1, "lung", (1.0, 0, 0)),))
    request = RunRequest("lungs", np.zeros((1, 2, 3, 4), np.int16), AFFINE, reference=reference)
    back = request_from_message(*across(*request_to_message(request))).reference
    np.testing.assert_array_equal(back.labels, labels)
    assert back.segments == reference.segments


def test_rows_and_sentence_say_what_was_found():
    report = RunReport("lung-nodule", detections(), "cpu, fp32", 2.04)
    rows = report.rows
    assert [row.rank for row in rows] == [1, 2, 3]
    # What a reader added comes first; 0.41 is below the operating point.
    assert [(row.state, row.called) for row in rows] == [("added", True), ("found", True), ("found", False)]
    assert rows[0].synthetic and rows[0].score is None
    # 5 x 5 x 5 mm: a ball of 5 mm, but its volume is that of the mask's voxels.
    assert rows[2].diameter_mm == pytest.approx(5)
    assert rows[2].volume_ml == pytest.approx(mask(1).values.sum() * 2.5 / 3 / 1000)
    assert report.sentence.endswith("2.0 s on cpu, fp32.") and report.notes == ("One note.",)
