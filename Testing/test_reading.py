"""A blinded reading: orders, what readers can know, pause and resume, and the report against numbers known before."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import MedMapAILib
import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.metrics.agreement import intraclass_correlation
from MedMapAILib.reading import (
    CRITERIA,
    ReadingSession,
    check_reader_code,
    create_study,
)
from MedMapAILib.reading.report import reading_report, reading_table, write_reading
from MedMapAILib.reading.session import readers_of
from MedMapAILib.reading.study import load_key
from MedMapAILib.reading.tables import as_text, report_tables
from scipy import stats

CASES = [f"patient-{n}" for n in range(6)]
METHODS = ["filtered", "variation", "learned"]


def images(cases=CASES, methods=METHODS):
    return {case: {method: f"/data/{case}/{method}.nrrd" for method in methods} for case in cases}


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    create_study(folder, images(), seed=4)
    return folder


def read_all(folder, reader, score):
    """A reader who knows what nobody should: score(case, method, criterion) → 1 to 5."""
    session, key = ReadingSession(folder, reader), load_key(folder)
    while (position := session.next_open()) is not None:
        for code in session.go_to(position):
            entry = key.entries[code]
            for criterion in session.study.criteria:
                session.score(code, criterion, score(entry.case, entry.method, criterion))
    session.finish()


def test_nothing_that_a_reader_sees_names_a_case_or_a_method(study):
    session = ReadingSession(study, "R1")
    session.score(session.codes[0], "noise", 3)
    for path in (study / "study.json", study / "reader-R1.json"):
        text = path.read_text().lower()
        assert not any(name.lower() in text for name in (*CASES, *METHODS, "seed", "/data"))
    assert session.image(session.codes[0]) in {path for of in images().values() for path in of.values()}
    assert json.loads((study / "key.json").read_text())["seed"] == 4


def test_the_key_may_lie_elsewhere(tmp_path):
    folder, key = tmp_path / "study", tmp_path / "secret.json"
    create_study(folder, images(), key=key)
    assert sorted(path.name for path in folder.iterdir()) == ["study.json"]
    ReadingSession(folder, "R1", key=key)
    with pytest.raises(InputError, match="no file"):
        ReadingSession(folder, "R2")
    other = tmp_path / "other"
    create_study(other, images())
    with pytest.raises(InputError, match="key of another study"):
        ReadingSession(folder, "R1", key=other / "key.json")


def test_the_order_is_from_the_seed_and_the_readers_own(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        create_study(tmp_path / name, images(), seed=seed)
    orders = {
        (name, reader): ReadingSession(tmp_path / name, reader).screens for name in "abc" for reader in ("R1", "R2")
    }
    assert orders["a", "R1"] == orders["b", "R1"] != orders["a", "R2"]
    assert orders["a", "R1"] != orders["c", "R1"]
    assert sorted(orders["a", "R1"]) == sorted(orders["a", "R2"])
    # Without a seed nobody can work it out.
    create_study(tmp_path / "d", images())
    create_study(tmp_path / "e", images())
    assert load_key(tmp_path / "d").seed != load_key(tmp_path / "e").seed


def test_one_by_one_a_case_comes_again_as_late_as_possible(study):
    key = load_key(study)
    for reader in range(40):
        screens = ReadingSession(study, f"R{reader}").screens
        shown = [key.entries[code] for (code,) in screens]
        assert len({(entry.case, entry.method) for entry in shown}) == 18
        for start in (0, 6, 12):
            assert {entry.case for entry in shown[start : start + 6]} == set(CASES)
        assert all(a.case != b.case for a, b in zip(shown, shown[1:], strict=False))


def test_no_method_is_shown_earlier_than_another(tmp_path):
    create_study(tmp_path / "s", images(), seed=0)
    key = load_key(tmp_path / "s")
    places = {method: [] for method in METHODS}
    for reader in range(100):
        for place, (code,) in enumerate(ReadingSession(tmp_path / "s", f"R{reader}").screens):
            places[key.entries[code].method].append(place)
    assert stats.kruskal(*places.values()).pvalue > 0.01


def test_side_by_side_shows_all_methods_of_a_case(tmp_path):
    create_study(tmp_path / "s", images(), seed=0, layout="side-by-side")
    key = load_key(tmp_path / "s")
    left = []
    for reader in range(30):
        screens = ReadingSession(tmp_path / "s", f"R{reader}").screens
        assert len(screens) == 6
        for screen in screens:
            assert len({key.entries[code].case for code in screen}) == 1
            assert {key.entries[code].method for code in screen} == set(METHODS)
            left.append(key.entries[screen[0]].method)
    # Each method is as often on the left.
    assert stats.chisquare([left.count(method) for method in METHODS]).pvalue > 0.01


def test_a_reader_stops_and_goes_on(study):
    session = ReadingSession(study, "r1")
    for position in range(4):
        (code,) = session.go_to(position)
        for criterion in CRITERIA:
            session.score(code, criterion, position + 1)
    session.score(session.screens[4][0], "noise", 5)
    session.go_to(4)
    again = ReadingSession(study, " R1 ")
    assert again.reader == "R1" and again.screens == session.screens
    assert (again.position, again.progress) == (4, (4, 18))
    assert again.scores(again.codes[0]) == {"noise": 5} and not again.is_complete(again.codes[0])
    assert again.scores(again.screens[2][0]) == dict.fromkeys(CRITERIA, 3)
    # Screens left out are found again, first those that follow.
    assert again.next_open() == 5
    again.go_to(17)
    assert again.next_open() == 4
    # A score can be changed until the session is closed.
    again.score(again.screens[0][0], "noise", 2)
    assert ReadingSession(study, "R1").scores(again.screens[0][0])["noise"] == 2
    with pytest.raises(InputError, match="14 of 18 images"):
        again.finish()
    assert not ReadingSession(study, "R1").finished


def test_a_closed_session_stays_as_it_is(study):
    read_all(study, "R1", lambda case, method, criterion: 4)
    session = ReadingSession(study, "R1")
    assert session.finished and session.next_open() is None
    with pytest.raises(InputError, match="closed"):
        session.score(session.codes[0], "noise", 1)


def test_a_full_disk_changes_nothing(study, monkeypatch):
    session = ReadingSession(study, "R1")
    code = session.codes[0]
    session.score(code, "noise", 2)
    before = (study / "reader-R1.json").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(Exception, match="disk is full"):
            session.score(code, "noise", 5)
    assert session.scores(code) == {"noise": 2}
    assert (study / "reader-R1.json").read_bytes() == before
    assert sorted(path.name for path in study.iterdir()) == ["key.json", "reader-R1.json", "study.json"]


@pytest.mark.parametrize("code", ["Anna Berg", "anna@clinic.org", "Smith", "Anna-Lena", "", "R/1", "x1" * 9, "../R1"])
def test_names_are_no_codes(code):
    with pytest.raises(InputError, match="such as R1") as caught:
        check_reader_code(code)
    # What may be a name is not repeated, so that it comes into no log.
    assert not code or code not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kept"), [("R1", "R1"), ("r1", "R1"), ("AB", "AB"), ("reader-2", "READER-2"), ("7", "7")]
)
def test_codes(code, kept):
    assert check_reader_code(code) == kept


def test_readers_who_always_give_the_same_score_do_not_end_the_report(study, tmp_path):
    read_all(study, "R1", lambda *_: 5)
    read_all(study, "R2", lambda *_: 4)
    report = reading_report(study)
    assert report["readers"] == ["R1", "R2"]
    assert all("nan" not in as_text(table) for table in report_tables(report))
    write_reading(report, tmp_path / "report.json")
    json.loads((tmp_path / "report.json").read_text())


def test_the_report_holds_what_the_readers_meant(study):
    # The quality of the images; R2 is stricter by 1 in noise.
    base = {"filtered": 2, "variation": 3, "learned": 4}

    def first(case, method, criterion):
        return base[method] + (CASES.index(case) % 2)

    def second(case, method, criterion):
        return first(case, method, criterion) - (criterion == "noise")

    read_all(study, "R1", first)
    read_all(study, "R2", second)
    report = reading_report(study)
    assert (report["readers"], report["methods"]) == (["R1", "R2"], sorted(METHODS))
    assert (report["cases"], report["images"], report["scored"]) == (6, 18, {"R1": 18, "R2": 18})
    noise, sharp = report["criteria"]["noise"], report["criteria"]["sharpness"]
    assert noise["methods"]["learned"]["mean"] == 4 and sharp["methods"]["learned"]["mean"] == 4.5
    assert noise["methods"]["learned"]["low"] < 4 < noise["methods"]["learned"]["high"]
    assert sharp["agreement"]["icc"]["value"] == 1
    (kappa,) = sharp["agreement"]["kappa"]
    assert kappa["quadratic"]["value"] == pytest.approx(1) and kappa["equal"] == 1
    (kappa,) = noise["agreement"]["kappa"]
    assert kappa["equal"] == 0 and 0 < kappa["linear"]["value"] < kappa["quadratic"]["value"] < 1
    given = [[first(c, m, ""), first(c, m, "") - 1] for m in METHODS for c in CASES]
    assert noise["agreement"]["icc"]["value"] == pytest.approx(intraclass_correlation(given).value)
    # Six cases, all with the same difference: the smallest P that there is, thrice for three comparisons.
    (pair,) = [one for one in noise["comparisons"] if one["methods"] == ["filtered", "learned"]]
    assert (pair["mean_difference"], pair["pairs"], pair["statistic"]) == (-2, 6, 0)
    assert pair["p"] == pytest.approx(stats.wilcoxon([-2.0] * 6).pvalue)
    assert pair["p_holm"] == pytest.approx(3 * pair["p"])
    json.dumps(report, allow_nan=False)


def test_readings_that_are_not_done_can_be_looked_at(study):
    session = ReadingSession(study, "R1")
    report = reading_report(study, resamples=50)
    assert report["scored"] == {"R1": 0}
    assert report["criteria"]["noise"]["methods"]["learned"]["mean"] is None
    assert report["criteria"]["noise"]["comparisons"][0]["p"] is None
    session.score(session.codes[0], "noise", 5)
    read_all(study, "R2", lambda case, method, criterion: 3)
    report = reading_report(study, resamples=50)
    noise = report["criteria"]["noise"]
    assert noise["agreement"]["icc"]["value"] is None and noise["agreement"]["icc"]["items"] == 1
    assert noise["agreement"]["kappa"][0]["items"] == 1
    assert noise["comparisons"][0]["p"] == 1 and "nothing to test" in noise["comparisons"][0]["note"]
    json.dumps(report, allow_nan=False)


def test_the_table_as_a_file(study, tmp_path):
    read_all(study, "R1", lambda case, method, criterion: 1 + METHODS.index(method))
    report = reading_report(study, resamples=50)
    write_reading(report, tmp_path / "scores.csv")
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["reader", "case", "method", *CRITERIA]
    assert len(rows) == 18 and {row["noise"] for row in rows if row["method"] == "learned"} == {"3"}
    write_reading(report, tmp_path / "report.json")
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["table"] == reading_table(study)
    assert stored["criteria"]["noise"]["agreement"]["note"].startswith("One reader")
    with pytest.raises(InputError, match="neither .csv nor .json"):
        write_reading(report, tmp_path / "scores.xlsx")


def test_the_report_as_tables(study):
    read_all(study, "R1", lambda case, method, criterion: 1 + METHODS.index(method))
    read_all(study, "R2", lambda case, method, criterion: 2 + METHODS.index(method))
    report = reading_report(study, resamples=50)
    tables = {table.name: table for table in report_tables(report)}
    assert list(tables) == ["means", "agreement", "comparisons", "scores"]
    for table in tables.values():
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    assert len(tables["means"].rows) == 4 * 3 and len(tables["comparisons"].rows) == 4 * 3
    # The ICC, two kappas and the share of equal scores of the two readers.
    assert [row[1] for row in tables["agreement"].rows[:4]] == [
        "ICC(2,1)", "kappa, linear", "kappa, quadratic", "equal scores",
    ]  # fmt: skip
    assert tables["scores"].rows[0] == ("R1", "patient-0", "filtered", 1, 1, 1, 1)
    lines = as_text(tables["means"]).splitlines()
    # The column of notes is empty, and left out.
    assert lines[0].split() == ["criterion", "method", "mean", "low", "high", "cases", "readers"]
    assert lines[1].split()[:3] == ["noise", "filtered", "1.5"]
    one = reading_report(study, resamples=50) | {"readers": ["R1"]}
    assert json.dumps([table.rows for table in report_tables(one)], allow_nan=False)


def test_who_has_read(study):
    assert readers_of(study) == {}
    ReadingSession(study, "R2")
    read_all(study, "R1", lambda case, method, criterion: 4)
    assert readers_of(study) == {"R1": True, "R2": False}


def test_a_window_is_that_of_the_case(tmp_path):
    windows = {case: (-100 - n, 200 + n) for n, case in enumerate(CASES)}
    create_study(tmp_path / "s", images(), windows=windows)
    session, key = ReadingSession(tmp_path / "s", "R1"), load_key(tmp_path / "s")
    for code, entry in key.entries.items():
        assert session.window(code) == windows[entry.case]
    create_study(tmp_path / "without", images())
    session = ReadingSession(tmp_path / "without", "R1")
    assert session.window(session.codes[0]) is None
    for window in [(1, 1), (2, 1), (0, math.inf), (1,), ("a", "b"), None]:
        with pytest.raises(InputError, match="is no window"):
            create_study(tmp_path / "t", images(), windows={CASES[0]: window})
    assert not (tmp_path / "t").exists()


def test_a_panel_needs_numpy_alone():
    code = (
        "import sys, MedMapAILib.reading, MedMapAILib.reading.images, MedMapAILib.reading.sources; "
        "print([m for m in ('scipy', 'torch', 'monai') if m in sys.modules])"
    )
    path = Path(MedMapAILib.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_damaged_and_foreign_files_are_one_sentence(study, tmp_path):
    path = study / "reader-R1.json"
    session = ReadingSession(study, "R1")
    session.score(session.codes[0], "noise", 3)
    stored = json.loads(path.read_text())
    for change, sentence in [
        ({"study": "0"}, "another study"),
        ({"position": 99}, "damaged"),
        ({"scores": {session.codes[0]: {"noise": 7}}}, "damaged"),
        ({"scores": {session.codes[0]: {"beauty": 3}}}, "damaged"),
        ({"screens": stored["screens"][:-1]}, "images of this study"),
        ({"version": 9}, "another version"),
        ({"format": "x"}, "no reader of a reading"),
    ]:
        path.write_text(json.dumps({**stored, **change}))
        with pytest.raises(InputError, match=sentence):
            ReadingSession(study, "R1")
    path.write_text(path.read_text()[:50])
    with pytest.raises(InputError, match="cannot be read"):
        ReadingSession(study, "R1")
    (study / "study.json").write_text("{}")
    with pytest.raises(InputError, match="no study of a reading"):
        ReadingSession(study, "R2")
    with pytest.raises(InputError, match="no file"):
        ReadingSession(tmp_path, "R2")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda folder: create_study(folder, {}), "no cases"),
        (lambda folder: create_study(folder, {"a": {}}), "no images"),
        (lambda folder: create_study(folder, {"a": {"m": "1", "n": "2"}, "b": {"m": "3"}}), "Case b has no image of n"),
        (lambda folder: create_study(folder, images(), layout="stack"), "no layout"),
        (lambda folder: create_study(folder, images(), criteria={}), "nothing to score"),
        (lambda folder: [create_study(folder, images()) for _ in range(2)], "there already"),
        (lambda folder: create_study(folder, images(), key=folder.parent / "no" / "key.json"), "there is no folder"),
        (lambda folder: [create_study(folder, images()), reading_table(folder)], "Nobody has begun"),
        (
            lambda folder: [create_study(folder, images()), ReadingSession(folder, "R1").score("x", "noise", 1)],
            "no image x",
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, call, sentence):
    with pytest.raises(InputError, match=sentence):
        call(tmp_path / "study")


@pytest.mark.parametrize("value", [0, 6, 2.5, True, "3", None])
def test_scores_are_whole_numbers_from_1_to_5(study, value):
    session = ReadingSession(study, "R1")
    with pytest.raises(InputError, match="from 1 to 5"):
        session.score(session.codes[0], "noise", value)
    with pytest.raises(InputError, match="not scored here"):
        session.score(session.codes[0], "beauty", 3)
    session.score(session.codes[0], "noise", np.int64(3))
    assert session.scores(session.codes[0]) == {"noise": 3}
