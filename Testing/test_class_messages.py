"""A classification crosses between two processes as it is, and is shown in rows and sentences."""

from __future__ import annotations

import json

import numpy as np
import pytest
from MedMapAILib.inference.messages import (
    RunRequest,
    report_from_message,
    report_to_message,
    request_from_message,
    request_to_message,
    to_line,
)
from MedMapAILib.inference.report import RunReport
from MedMapAILib.inference.shared_memory import SharedArrays
from MedMapAILib.results import Classification, Familiarity, Saliency

AFFINE = np.array([[0.6, -0.8, 0, 1 / 3], [0.8, 0.6, 0, 7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])


def classification(**more):
    return Classification(
        **{
            "classes": ("normal", "Lungenentzündung"), "kind": "binary", "probabilities": (np.float32(0.1), 1 / 3),
            "thresholds": (None, 0.3), "called": ("Lungenentzündung",), "notes": ("Computed on cpu, fp32.",), **more,
        }
    )  # fmt: skip


def there_and_back(report):
    """Through JSON and shared memory, as between host and worker."""
    message, arrays = report_to_message(report)
    sent = SharedArrays.create("medmapai-test-classes", arrays, first_axis_fastest=True)
    try:
        received = SharedArrays.open(sent.description)
    finally:
        sent.unlink()
    return report_from_message(json.loads(to_line(message)), received.arrays)


@pytest.mark.parametrize("whole", [True, False])
def test_a_classification_comes_out_as_it_went_in(whole):
    values = np.random.default_rng(0).uniform(0, 1, (2, 3, 4)).astype(np.float32)
    far = Familiarity(False, {"size": 2.5, "embedding": 0.1}, "This is not the kind of image …")
    shown = Saliency(values, AFFINE, "occlusion", "normal", "The map hardly depends on the weights.")
    result = classification(**({"familiarity": far, "saliency": shown} if whole else {}))
    back = there_and_back(RunReport("pneumonia", result, "cpu, fp32", 0.25))
    assert (back.model, back.device, back.seconds, back.scores) == ("pneumonia", "cpu, fp32", 0.25, None)
    assert back.segmentation is None
    assert back.classification.to_dict() == result.to_dict()
    if whole:
        assert back.classification.familiarity == far
        np.testing.assert_array_equal(back.classification.saliency.values, values)
        np.testing.assert_array_equal(back.classification.saliency.affine, AFFINE)
        assert back.classification.saliency.warning == shown.warning
        assert back.classification.saliency.values.T.flags.c_contiguous, "as VTK has it"
    else:
        assert back.classification.saliency is None and back.classification.familiarity is None


def test_the_method_of_the_map_goes_with_the_request():
    request = RunRequest("m", np.zeros((3, 2, 2, 1), np.uint8), np.eye(4), saliency="grad-cam++")
    message, arrays = request_to_message(request)
    assert request_from_message(json.loads(to_line(message)), arrays).saliency == "grad-cam++"


def test_rows_and_sentences():
    report = RunReport("pneumonia", classification(), "cpu, fp32", 0.25)
    assert [(row.name, row.threshold, row.called) for row in report.rows] == [
        ("normal", None, False), ("Lungenentzündung", 0.3, True),
    ]  # fmt: skip
    assert report.sentence == "Lungenentzündung (probability 0.333); 0.2 s on cpu, fp32."
    assert report.notes == () and report.warning == "", "where it was computed is said already"
    nothing = RunReport("chest", classification(kind="multi-label", called=()), "cpu", 1.0)
    assert nothing.sentence.startswith("None of the classes reaches its operating point; 1.0 s")
    near = Familiarity(True, {"size": 0.5})
    far = Familiarity(False, {"size": 2.0}, "Not this kind.")
    assert RunReport("m", classification(familiarity=near), "cpu", 1.0).warning == ""
    assert RunReport("m", classification(familiarity=far), "cpu", 1.0).warning == "Not this kind."
    shown = Saliency(np.zeros((1, 1, 1)), np.eye(4), "grad-cam", "normal", "The map is doubtful.")
    assert RunReport("m", classification(saliency=shown), "cpu", 1.0).notes[-1] == "The map is doubtful."
