"""What the training panel says about a data set before it is trained on."""

from __future__ import annotations

import shutil

import pytest
from MedMapAILib.datasets.report import describe_dataset, measure_dataset
from MedMapAILib.errors import InputError
from synthetic import ball_and_box, write_dataset


def test_measures_what_is_there(tmp_path):
    folder = write_dataset(tmp_path / "balls", 3, spacing=1.5)
    calls = []
    report = measure_dataset(folder, {1: "ball", 2: "box"}, lambda fraction, message: calls.append((fraction, message)))
    assert (report.cases, len(report.sizes), report.problems) == (3, 3, [])
    assert report.sizes[0] == (24, 26, 22)
    assert report.spacings[0] == pytest.approx((1.5, 1.5, 1.5), abs=1e-5)
    # The box has 5 × 5 × 5 voxels of 1.5³ mm³.
    assert report.volumes_ml["box"] == pytest.approx([125 * 1.5**3 / 1000] * 3, rel=1e-5)
    for number, volume in enumerate(report.volumes_ml["ball"]):
        assert volume == pytest.approx((ball_and_box(number)[1] == 1).sum() * 1.5**3 / 1000, rel=1e-5)
    assert calls[0] == (0, "reading case 1 of 3") and len(calls) == 3
    assert "3 of 3 cases can be trained on" in report.html and "No problems found" in report.html


def test_tells_every_problem_and_names_the_case(tmp_path):
    folder = write_dataset(tmp_path / "<balls>", 4)
    shutil.copy(folder / "images" / "case_00.nii.gz", folder / "images" / "case_01.nii.gz")
    (folder / "images" / "case_02.nii.gz").write_bytes(b"no image")
    html = describe_dataset(folder, {1: "ball", 2: "box"})
    assert "3 of 4 cases can be trained on" in html
    assert "case_02.nii.gz" in html and "case_00, case_01" in html
    assert "&lt;balls&gt;" in html, "names are text, not HTML"


def test_no_data_set_is_an_input_error(tmp_path):
    with pytest.raises(InputError):
        describe_dataset(tmp_path)
