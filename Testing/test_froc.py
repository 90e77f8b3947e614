"""The FROC evaluation against LUNA16's own, and against counts that can be made by hand."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from MedMapAILib.cli import main
from MedMapAILib.errors import InputError
from MedMapAILib.metrics.froc import RATES, FrocScan, evaluate_luna16, froc, match_marks
from PIL import Image

# What noduleCADEvaluationLUNA16.py answers on the submission dpn26bs32.csv of DeepLung (github.com/uci-cbcl/DeepLung,
# folder evaluationScript, ported to Python 3 outside this repository; the ids of the submission padded to five digits,
# as those of the truth are). The counts are of its CADAnalysis.txt; the sensitivities are np.interp of the curve that
# its computeFROC returns; for the bootstrap it was given the draws of default_rng(0).integers(888, size=(1000, 888)) in
# place of its unseeded ones, and the numbers are its float32 columns at 1/8, 1 and 8, which are points of its grid.
SUBMITTED = {
    "findings": 1186,
    "candidates": 52708,
    "true_positives": 1136,
    "false_negatives": 50,
    "false_positives": 46078,
    "ignored_on_excluded": 5308,
    "double_hits": 186,
}
SENSITIVITIES = (
    0.6922428330522765,
    0.7689713322091062,
    0.8237774030354131,
    0.8650927487352446,
    0.8929173693086003,
    0.9173693086003373,
    0.9333895446880269,
)
SCORE = 0.8419657913755723
#: Rate: (mean, low, high).
BOOTSTRAP = {
    0.125: (0.69013673, 0.6392252, 0.73716277),
    1.0: (0.8646587, 0.835209, 0.88907707),
    8.0: (0.9339336, 0.911939, 0.95242),
}


@pytest.fixture
def published(shared_data):
    folder = shared_data("luna16/deeplung_submission")
    names = ("newannotations.csv", "newannotations_excluded.csv", "newseriesuids.csv", "dpn26bs32.csv")
    return [folder / name for name in names]


def test_the_published_submission_is_judged_as_luna16_judges_it(published):
    result = evaluate_luna16(*published)
    counts = result["counts"]
    assert {name: counts[name] for name in SUBMITTED} == SUBMITTED
    assert counts["candidates"] + counts["candidates_left_out"] == 55677
    assert result["scans"] == 888 and result["rates"] == list(RATES)
    assert result["sensitivities"] == pytest.approx(SENSITIVITIES, abs=1e-12)
    assert result["score"] == pytest.approx(SCORE, abs=1e-12)
    for rate, (mean, low, high) in BOOTSTRAP.items():
        at = RATES.index(rate)
        assert result["bootstrap_means"]["sensitivities"][at] == pytest.approx(mean, abs=2e-5)  # sums of float32
        assert result["intervals"]["sensitivities"][at] == pytest.approx((low, high), abs=1e-6)
    low, high = result["intervals"]["score"]
    assert low < SCORE < high
    assert any("leading zeros" in note for note in result["notes"])
    json.dumps(result, allow_nan=False)


def scan(marks=(), scores=(), truth=(), radii=(), ignored=(), ignored_radii=()) -> FrocScan:
    """Everything on the x axis."""
    on_axis = [[(x, 0.0, 0.0) for x in part] for part in (marks, truth, ignored)]
    return FrocScan(on_axis[0], scores, on_axis[1], radii, on_axis[2], ignored_radii)


def test_a_hit_lies_nearer_than_the_radius():
    found = match_marks(scan([4.999, 15.0], [0.9, 0.8], [0, 10], [5, 5]))
    assert found.truth_scores.tolist() == [0.9, -np.inf]  # 5 mm away from a radius of 5 mm is no hit
    assert found.false_scores.tolist() == [0.8]


def test_double_hits_count_neither_way_and_the_surest_counts():
    found = match_marks(scan([1, 2, 3, 50], [0.2, 0.9, 0.5, 0.4], [0], [5]))
    assert found.truth_scores.tolist() == [0.9] and found.doubles == 2
    assert found.false_scores.tolist() == [0.4] and found.marks == 4


def test_a_mark_may_hit_two_findings():
    found = match_marks(scan([5], [0.7], [2, 8], [4, 4]))
    assert found.truth_scores.tolist() == [0.7, 0.7] and found.doubles == 0 and not len(found.false_scores)


def test_a_mark_on_an_excluded_finding_is_ignored_unless_it_hits_one_that_counts():
    found = match_marks(scan([1, 30, 60], [0.9, 0.8, 0.7], [0], [5], [2, 31], [5, 5]))
    assert found.truth_scores.tolist() == [0.9]
    assert found.ignored == 1 and found.false_scores.tolist() == [0.7]


def test_the_hundred_highest_marks_count_and_ties_at_the_end_do_not():
    scores = np.arange(150) / 150
    found = match_marks(scan(np.arange(150) * 10.0 + 100, scores))
    assert sorted(found.false_scores) == sorted(scores[50:])
    # The 100th scores as the 101st, so that both stay out.
    scores[49:51] = scores[50]
    assert len(match_marks(scan(np.arange(150) * 10.0 + 100, scores)).false_scores) == 99
    assert len(match_marks(scan(np.arange(150) * 10.0 + 100, scores), at_most=None).false_scores) == 150


def test_the_curve_of_a_few_marks_by_hand():
    # Four scans, four findings. By falling score: hit, false, hit, hit and false alike, false; one finding is missed.
    scans = [
        scan([0, 100], [0.9, 0.8], [0], [5]),
        scan([0, 50], [0.7, 0.5], [0, 50], [5, 5]),
        scan([0, 50], [0.5, 0.4], [200], [5]),
        scan(),
    ]
    result = froc(scans, resamples=20)
    points = result["curves"]["froc"]["finding"]
    assert points["false_positives_per_scan"] == [0, 0, 0.25, 0.25, 0.5, 0.75]
    assert points["sensitivity"] == [0, 0.25, 0.25, 0.5, 0.75, 0.75]
    assert points["threshold"][1:] == [0.9, 0.8, 0.7, 0.5, 0.4]
    # A straight line to the first false positive; at a step its upper end, as rounding has it here; flat at the end.
    assert result["sensitivities"] == pytest.approx([0.25, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75])
    assert result["score"] == pytest.approx(4.5 / 7)
    assert result["counts"] == {
        "findings": 4,
        "candidates": 6,
        "candidates_left_out": 0,
        "true_positives": 3,
        "false_negatives": 1,
        "false_positives": 3,
        "ignored_on_excluded": 0,
        "double_hits": 0,
    }
    precision = result["curves"]["precision_recall"]["finding"]
    assert precision["recall"] == [0, 0.25, 0.5, 0.75]
    assert precision["precision"] == pytest.approx([1, 1, 2 / 3, 3 / 5])


def test_scans_without_marks_thin_the_false_positives():
    one = scan([0, 100], [0.5, 0.9], [0], [5])
    assert froc([one], resamples=5)["sensitivities"] == [0, 0, 0, 1, 1, 1, 1]
    assert froc([one, *[scan()] * 7], resamples=5)["sensitivities"] == [1] * 7


def test_findings_without_any_mark_or_false_positive():
    nothing = froc([scan((), (), [0], [5])], resamples=5)
    assert nothing["score"] == 0 and nothing["curves"]["precision_recall"] == {}
    perfect = froc([scan([0], [0.3], [0], [5]), scan()], resamples=5)
    assert perfect["score"] == 1 and perfect["intervals"]["score"] == [1, 1]
    json.dumps([nothing, perfect], allow_nan=False)


def test_scans_of_a_patient_are_drawn_together():
    good, bad = scan([0], [0.9], [0], [5]), scan((), (), [0], [5])
    alone = froc([good, bad] * 20, resamples=200)["intervals"]["score"]
    together = froc([good] * 20 + [bad] * 20, groups=["a"] * 20 + ["b"] * 20, resamples=200)["intervals"]["score"]
    assert together == [0, 1] and 0.25 < alone[0] < alone[1] < 0.75
    with pytest.raises(InputError, match="groups"):
        froc([good, bad], groups=["a"])


def test_the_interval_is_that_of_scans_drawn_one_by_one():
    random = np.random.default_rng(4)
    scans = []
    for n in range(24):
        marks, scores = random.uniform(0, 60, 6), random.random(6).round(1)
        scans.append(scan(marks, scores, random.uniform(0, 60, n % 3), [5] * (n % 3)))
    result = froc(scans, resamples=30, seed=7)
    draws = np.random.default_rng(7).integers(len(scans), size=(30, len(scans)))
    each = np.array([froc([scans[i] for i in draw], resamples=1)["sensitivities"] for draw in draws])
    assert result["bootstrap_means"]["sensitivities"] == pytest.approx(each.mean(axis=0).tolist())
    # Of 30 sorted ones those at ⌊30·0.025⌋ = 0 and ⌊30·0.975⌋ = 29.
    assert [low for low, _ in result["intervals"]["sensitivities"]] == pytest.approx(each.min(axis=0).tolist())
    assert [high for _, high in result["intervals"]["sensitivities"]] == pytest.approx(each.max(axis=0).tolist())


def test_what_cannot_be_judged():
    with pytest.raises(InputError, match="None of the scans holds a finding"):
        froc([scan([0], [0.5])])
    with pytest.raises(InputError, match="not finite"):
        scan([0], [np.nan], [0], [5])
    with pytest.raises(InputError, match="confidence 2"):
        froc([scan([0], [0.9], [0], [5])], confidence=2)


HEADER, MARKS_HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm", "seriesuid,coordX,coordY,coordZ,probability"
GOOD = {
    "annotations.csv": f"{HEADER}\n001,0,0,0,10\n002,50,0,0,6\n",
    "excluded.csv": f"{HEADER}\n001,30,0,0,-1\n",
    "seriesuids.csv": "001\n002\n003\n004\n",
    "submission.csv": f"{MARKS_HEADER}\n001,1,0,0,0.9\n001,34.9,0,0,0.8\n002,0,0,0,0.7\n",
}


@pytest.fixture
def tables(tmp_path):
    """The four files; change(name, text) writes one anew."""

    def change(**texts: str) -> list:
        for name, text in {**GOOD, **{f"{name}.csv": text for name, text in texts.items()}}.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        return [tmp_path / name for name in GOOD]

    return change


def test_files_are_read_as_luna16_has_them(tables):
    result = evaluate_luna16(*tables(), resamples=5)
    counts = result["counts"]
    # An excluded finding of diameter −1 takes marks within 5 mm.
    assert (counts["true_positives"], counts["ignored_on_excluded"], counts["false_positives"]) == (1, 1, 1)
    assert result["sensitivities"] == [0.5] * 7
    assert result["notes"] == ["2 of 4 scans have no candidate."]


@pytest.mark.parametrize("between", ["\t", ";"])
def test_tabs_semicolons_windows_line_ends_and_bare_ids(tables, between):
    marks = GOOD["submission.csv"].replace(",", between).replace("00", "").replace("\n", "\r\n")
    paths = tables(submission="\ufeff" + marks, seriesuids="seriesuid\n" + GOOD["seriesuids.csv"])
    result, plain = evaluate_luna16(*paths, resamples=5), evaluate_luna16(*tables(), resamples=5)
    assert result["sensitivities"] == plain["sensitivities"] and result["counts"] == plain["counts"]
    assert (
        result["notes"][0] == "Ids of scans in submission.csv have lost their leading zeros; they were matched without."
    )


def test_scans_that_are_not_listed_do_not_count_and_are_named(tables):
    more = tables(submission=GOOD["submission.csv"] + "777,0,0,0,1\n777,1,0,0,1\n", annotations=GOOD["annotations.csv"])
    result = evaluate_luna16(*more, resamples=5)
    assert result["counts"] == evaluate_luna16(*tables(), resamples=5)["counts"]
    assert result["notes"][0] == "Of submission.csv 2 rows do not count: the list of scans has none of that name (777)."


BAD = {
    "decimal commas between tabs": (
        {"submission": GOOD["submission.csv"].replace(",", "\t").replace("0.9", "0,9")},
        r"probability in line 2 of .*'0,9', has a comma for its decimals; write a point",
    ),
    "decimal commas between commas": (
        {"submission": GOOD["submission.csv"].replace("0.9", "0,9")},
        r"Line 2 of .* has 6 values where the first line has 5",
    ),
    "a column is missing": (
        {"submission": GOOD["submission.csv"].replace("probability", "score")},
        "no column probability; its first line must name seriesuid, coordX, coordY, coordZ, probability",
    ),
    "no header": ({"annotations": "001,0,0,0,10\n"}, "no column seriesuid and no coordX"),
    "NaN": ({"submission": GOOD["submission.csv"].replace("0.9", "nan")}, "probability in line 2 .* is nan"),
    "infinite": ({"annotations": GOOD["annotations.csv"].replace("10", "inf")}, "diameter_mm in line 2 .* is inf"),
    "a word": ({"submission": GOOD["submission.csv"].replace("0.9", "high")}, "'high', is no number"),
    "other scans": (
        {"submission": f"{MARKS_HEADER}\nabc,1,0,0,0.9\n"},
        r"None of the scans in .* \(such as abc\) is in .*seriesuids.csv",
    ),
    "no truth": ({"seriesuids": "003\n"}, "No row of .*annotations.csv is of a scan in"),
    "a scan twice": ({"seriesuids": "001\n002\n001\n"}, "lists the scan 001 twice"),
    "no scan": ({"seriesuids": "\n"}, "lists no scan"),
    "empty": ({"excluded": "\n"}, "is empty"),
}


@pytest.mark.parametrize("texts, message", BAD.values(), ids=BAD)
def test_bad_tables_are_refused_in_one_sentence(tables, capsys, texts, message):
    paths = [str(path) for path in tables(**texts)]
    with pytest.raises(InputError, match=message):
        evaluate_luna16(*paths)
    assert main(["froc", *paths, "--json"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1


def test_files_that_are_no_tables(tables, tmp_path):
    paths = tables()
    paths[3].write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="no text file"):
        evaluate_luna16(*paths)
    with pytest.raises(InputError, match="cannot be read"):
        evaluate_luna16(tmp_path / "absent.csv", *paths[1:])


def test_a_submission_without_candidates_misses_everything(tables):
    result = evaluate_luna16(*tables(submission=MARKS_HEADER + "\n"), resamples=5)
    assert result["score"] == 0 and result["counts"]["false_negatives"] == 2


def test_the_command_says_it_and_draws_it(tables, tmp_path, capsys):
    paths = [str(path) for path in tables()]
    assert main(["froc", *paths, "--resamples", "10", "--curve", str(tmp_path / "curve.png")]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "4 scans, 2 nodules, 3 candidates"
    assert lines[1] == "1 true positives, 1 missed, 1 false positives, 1 ignored on excluded findings, 0 double hits"
    assert len(lines) == 11 and lines[-1].split()[:2] == ["mean", "0.5000"]
    assert "2 of 4 scans have no candidate." in err
    with Image.open(tmp_path / "curve.png") as picture:
        assert min(picture.size) > 500
    assert main(["froc", *paths, "--resamples", "10", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["score"] == 0.5 and report["intervals"]["resamples"] == 10


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--curve", "curve.jpg"], "must end in .png"),
        (["--curve", "absent/curve.png"], "no folder"),
        (["--resamples", "0"], "--resamples 0"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_wrong_calls(tables, tmp_path, capsys, monkeypatch, extra, message):
    monkeypatch.chdir(tmp_path)
    assert main(["froc", *map(str, tables()), *extra]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(GOOD)


def test_the_same_from_a_table_in_another_order(tables):
    marks = list(csv.reader(GOOD["submission.csv"].splitlines()))
    turned = "\n".join(",".join(reversed(row)) for row in [marks[0], *reversed(marks[1:])])
    assert (
        evaluate_luna16(*tables(submission=turned), resamples=5)["counts"]
        == (evaluate_luna16(*tables(), resamples=5)["counts"])
    )
