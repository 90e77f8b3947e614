"""The score from which on a detector calls what it found."""

import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.metrics.matching import match_findings
from MedMapAILib.results import Detections, FindingReference, finding_of_sphere
from MedMapAILib.tasks.operating_threshold import choose_threshold


def scan(scores, truths=((0, 0, 0), (50, 0, 0)), ignored=((100, 0, 0),)):
    """scores: (score, center) of marks."""
    found = [finding_of_sphere(center, 8, "nodule", score=score) for score, center in scores]
    reference = FindingReference(
        ("nodule",),
        tuple(finding_of_sphere(c, 10, "nodule") for c in truths),
        tuple(finding_of_sphere(c, 10, "nodule") for c in ignored),
    )
    return Detections(("nodule",), tuple(found), 0.5), reference


MARKS = [
    (0.9, (1, 0, 0)),  # on the first
    (0.8, (0, 2, 0)),  # again
    (0.7, (200, 0, 0)),  # nothing there
    (0.6, (100, 1, 0)),  # readers disagree
    (0.5, (50, 3, 0)),  # on the second
    (0.4, (300, 0, 0)),
    (0.3, (400, 0, 0)),
    (0.2, (50, 5.0, 0)),  # at the radius, not within it
]


def test_what_each_mark_is():
    result, reference = scan(MARKS)
    assert match_findings(result, reference) == [
        "true positive",
        "double hit",
        "false positive",
        "ignored",
        "true positive",
        "false positive",
        "false positive",
        "false positive",
    ]


def test_f1_is_highest_midway_below_the_last_useful_score():
    """Down to 0.5: 2 hits, 1 false alarm, F1 = 4/5; down to 0.9: 1 hit, none, F1 = 2/3."""
    result, reference = scan(MARKS)
    found = choose_threshold([result], [reference], rule="f1", false_positives_per_scan=1)
    assert found == pytest.approx((0.5 + 0.4) / 2)


@pytest.mark.parametrize(("rate", "expected"), [(0, 0.8), (1, 0.45), (2, 0.35), (3, 0.25), (10, 0.1)])
def test_the_lowest_threshold_of_so_many_false_alarms(rate, expected):
    """Doubles and what is ignored have no say: between 0.9 and 0.7 it lies at 0.8."""
    result, reference = scan(MARKS)
    found = choose_threshold([result], [reference], rule="false-positives", false_positives_per_scan=rate)
    assert found == pytest.approx(expected)


def test_a_rate_counts_scans_without_any_mark():
    result, reference = scan(MARKS)
    empty = scan([], truths=())
    found = choose_threshold(
        [result, empty[0]], [reference, empty[1]], rule="false-positives", false_positives_per_scan=1
    )
    assert found == pytest.approx(0.35)


def test_false_alarms_that_score_highest_leave_a_threshold_above_them():
    result, reference = scan([(0.9, (200, 0, 0)), (0.5, (0, 0, 0))])
    found = choose_threshold([result], [reference], rule="false-positives", false_positives_per_scan=0)
    assert 0.9 < found <= 1


def test_nothing_found_and_other_rules():
    result, reference = scan([])
    assert choose_threshold([result], [reference], rule="f1", false_positives_per_scan=1) == 0.5
    with pytest.raises(InputError, match="f1, false-positives"):
        choose_threshold([result], [reference], rule="youden", false_positives_per_scan=1)


def test_where_nothing_hits_no_f1_is_better_than_another():
    result, reference = scan([(0.9, (200, 0, 0)), (0.4, (300, 0, 0))])
    assert choose_threshold([result], [reference], rule="f1", false_positives_per_scan=1) == 0.5
