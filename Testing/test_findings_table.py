"""Files of findings: what is written is read back, says its frame, and is what LUNA16's evaluation and Slicer read."""

import csv
import json

import numpy as np
import pytest
from MedMapAILib.datasets.findings_table import (
    COLUMNS,
    check_writable_findings,
    read_findings,
    write_finding_table,
    write_findings,
    write_luna16_submission,
)
from MedMapAILib.errors import InputError
from MedMapAILib.results import Detections, Finding, FindingMask, FindingReference, finding_of_sphere

SERIES = "1.3.6.1.4.1.14519.5.2.1.6279.6001.100225287222365663678666836860"


def refused(*words, call, arguments=(), **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def detections(**about):
    mask = FindingMask(np.random.default_rng(0).random((5, 4, 3)) > 0.5, np.diag([-0.7, 0.7, 1.25, 1]))
    return Detections(
        ("nodule", "mass"),
        (
            Finding((10.5, -20.25, 30), (4, 5, 6), "nodule", 0.9, mask=mask, synthetic=True, about={"kind": "solid"}),
            finding_of_sphere((9, 19.2, -30), 5, "nodule", score=0.2),
            Finding((0, 0, 0), (30, 32, 34), "mass", 0.7, state="rejected"),
            Finding((-1, -2, -3), (7, 8, 9), "mass", state="added"),
        ),
        0.4,
        ("Said of the run.",),
    )


@pytest.mark.parametrize("ending", [".csv", ".json", ".mrk.json"])
def test_what_was_called_comes_back_as_a_reference(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write_findings(detections(), path, scan="scan", about={"model": "lung-nodule"})
    reference = read_findings(path)
    # Rejected and below the operating point: not called.
    assert {f.label for f in reference.findings} == {"nodule", "mass"} and len(reference.findings) == 2
    nodule = next(f for f in reference.findings if f.label == "nodule")
    mass = next(f for f in reference.findings if f.label == "mass")
    np.testing.assert_allclose(nodule.center, (10.5, -20.25, 30))
    np.testing.assert_allclose(nodule.size, (4, 5, 6))
    assert (nodule.state, nodule.score, nodule.synthetic, mass.synthetic) == ("reference", 0.9, True, False)
    assert mass.score is None and mass.center == (-1, -2, -3)
    refused("mass", "nodule", call=read_findings, arguments=[path, ("nodule",)])


def test_the_json_file_holds_everything_and_says_its_frame(tmp_path):
    result = detections()
    write_findings(result, tmp_path / "a.json", scan="scan_1", about={"model": "lung-nodule"})
    content = json.loads((tmp_path / "a.json").read_text())
    assert (content["frame"], content["model"], content["scan"]) == ("RAS mm", "lung-nodule", "scan_1")
    assert (content["threshold"], content["notes"]) == (0.4, ["Said of the run."])
    # What a reader says comes first, then by falling score.
    assert [entry["called"] for entry in content["findings"]] == [True, True, False, False]
    assert [entry["synthetic"] for entry in content["findings"]] == [False, True, False, False]
    assert content["findings"][1]["center"] == [10.5, -20.25, 30.0]
    nodule = read_findings(tmp_path / "a.json").findings[1]
    np.testing.assert_array_equal(nodule.mask.values, result.findings[1].mask.values)
    np.testing.assert_array_equal(nodule.mask.affine, result.findings[1].mask.affine)
    assert nodule.about == {"kind": "solid"} and nodule.measured_diameter_mm is None


def test_json_in_lps_is_turned_around(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"frame": "LPS", "findings": [{"center": [1, 2, 3], "size": [4, 5, 6]}]}))
    assert read_findings(path, ["nodule", "finding"]).findings[0].center == (-1, -2, 3)
    path.write_text(json.dumps({"findings": [{"center": [1, 2, 3], "size": [4, 5, 6]}]}))
    refused("frame", call=read_findings, arguments=[path])
    path.write_text(json.dumps({"frame": "voxel", "findings": []}))
    refused("voxels", call=read_findings, arguments=[path])
    path.write_text(json.dumps({"frame": "RAS", "findings": [{"center": [1, 2], "size": [4, 5, 6]}]}))
    refused("Finding 1", call=read_findings, arguments=[path])


def test_the_table_says_frame_and_whether_synthetic(tmp_path):
    write_findings(detections(), tmp_path / "a.csv", scan="scan_1")
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert tuple(rows[0]) == COLUMNS and {row["frame"] for row in rows} == {"RAS"}
    assert [row["synthetic"] for row in rows] == ["0", "1", "0", "0"]
    assert [row["called"] for row in rows] == ["1", "1", "0", "0"]
    assert [row["state"] for row in rows] == ["added", "found", "rejected", "found"]
    # The ellipsoid in 7 × 8 × 9 mm, and the geometric mean of its sides.
    assert float(rows[0]["volume_ml"]) == pytest.approx(np.pi / 6 * 504 / 1000, rel=1e-3)
    assert float(rows[0]["diameter_mm"]) == pytest.approx(504 ** (1 / 3), rel=1e-3)


def test_a_reference_is_written_with_what_is_ignored(tmp_path):
    reference = FindingReference(
        ("nodule",),
        (finding_of_sphere((1, 2, 3), 6, "nodule", state="reference"),),
        (finding_of_sphere((4, 5, 6), 10, "nodule", state="reference"),),
    )
    for ending in (".csv", ".json"):
        write_findings(reference, tmp_path / f"a{ending}")
        assert read_findings(tmp_path / f"a{ending}") == reference


def test_several_scans_in_one_table(tmp_path):
    path = tmp_path / "findings.csv"
    write_finding_table({"a.nrrd": detections(), "b.nrrd": FindingReference(("nodule",), ())}, path)
    rows = list(csv.DictReader(path.open()))
    assert [row["image"] for row in rows] == ["a.nrrd"] * 4 + ["b.nrrd"] and rows[-1]["x"] == ""
    refused("2 scans", "a.nrrd, b.nrrd", call=read_findings, arguments=[path])
    assert len(read_findings(path, scan="a").findings) == 2
    assert read_findings(path, scan="b.nrrd").findings == ()
    refused("no row of the scan c", call=read_findings, arguments=[path], scan="c")
    refused(".csv", call=write_finding_table, arguments=[{}, tmp_path / "findings.json"])


def test_submission_to_luna16(tmp_path):
    path = tmp_path / "submission.csv"
    write_luna16_submission({SERIES: detections()}, path)
    rows = list(csv.reader(path.open()))
    assert rows[0] == ["seriesuid", "coordX", "coordY", "coordZ", "probability"]
    # LPS; every candidate whatever the operating point, but what the reader rejected; a reader's own is certain.
    assert [[row[0], *map(float, row[1:])] for row in rows[1:]] == [
        [SERIES, 1, 2, -3, 1],
        [SERIES, -10.5, 20.25, 30, 0.9],
        [SERIES, -9, -19.2, -30, 0.2],
    ]


def test_luna16_annotations_are_a_reference_in_lps(tmp_path):
    path = tmp_path / "annotations.csv"
    path.write_text(f"seriesuid,coordX,coordY,coordZ,diameter_mm\n{SERIES},-128.7,-175.3,-298.4,5.65\n")
    (finding,) = read_findings(path).findings
    assert (finding.center, finding.diameter_mm, finding.label) == ((128.7, 175.3, -298.4), 5.65, "nodule")


def test_slicer_reads_the_markups_and_what_it_saves_is_read(slicer_app, scene, tmp_path):
    path = tmp_path / "a.mrk.json"
    write_findings(detections(), path)
    assert {markup["coordinateSystem"] for markup in json.loads(path.read_text())["markups"]} == {"LPS"}
    slicer_app.markups_logic.LoadMarkups(str(path), "")
    nodes = list(scene.GetNodesByClass("vtkMRMLMarkupsROINode"))
    assert [node.GetName() for node in nodes][:2] == ["1 mass 8.0 mm", "2 nodule 0.90 4.9 mm synthetic"]
    assert [node.GetDisplayNode().GetVisibility() for node in nodes] == [1, 1, 0, 0]
    node, center = nodes[1], [0.0] * 3
    node.GetCenterWorld(center)  # Slicer's world is RAS
    assert center == [10.5, -20.25, 30] and node.GetSize() == (4, 5, 6)
    node.SetSize(8, 8, 8)
    storage = node.GetStorageNode() or node.CreateDefaultStorageNode()
    storage.SetFileName(str(tmp_path / "saved.mrk.json"))
    assert storage.WriteData(node)
    (finding,) = read_findings(tmp_path / "saved.mrk.json").findings
    np.testing.assert_allclose((finding.center, finding.size), ((10.5, -20.25, 30), (8, 8, 8)))
    assert finding.label == "nodule" and finding.synthetic and finding.about == {"kind": "solid"}


def test_a_box_drawn_by_hand_and_turned(slicer_app, scene, tmp_path):
    import vtk

    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "my nodule")
    node.SetCenter(1, 2, 3)
    node.SetSize(10, 10, 20)
    turned = vtk.vtkTransform()
    turned.RotateX(90)
    matrix = turned.GetMatrix()
    for row, value in enumerate((1, 2, 3)):
        matrix.SetElement(row, 3, value)
    node.GetObjectToNodeMatrix().DeepCopy(matrix)
    node.UpdateControlPointsFromROI()
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(tmp_path / "a.mrk.json"))
    assert storage.WriteData(node)
    (finding,) = read_findings(tmp_path / "a.mrk.json", ("nodule",)).findings
    np.testing.assert_allclose(finding.center, (1, 2, 3), atol=1e-6)
    np.testing.assert_allclose(finding.size, (10, 20, 10), atol=1e-6)
    assert finding.label == "nodule" and finding.score is None


def test_other_files_are_refused(tmp_path):
    refused(".txt", ".csv or .json or .mrk.json", call=check_writable_findings, arguments=[tmp_path / "a.txt"])
    refused("no folder", call=check_writable_findings, arguments=[tmp_path / "no" / "a.csv"])
    (tmp_path / "a.json").write_text("{")
    refused("JSON", call=read_findings, arguments=[tmp_path / "a.json"])
    (tmp_path / "a.json").write_text('{"frame": "RAS", "findings": [3]}')
    refused("Finding 1", call=read_findings, arguments=[tmp_path / "a.json"])
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": [{"type": "Fiducial"}]}))
    refused("no ROI", call=read_findings, arguments=[tmp_path / "a.mrk.json"])
    (tmp_path / "a.csv").write_text("x,y,z,diameter_mm\n1,2,3,4\n")
    refused("frame", "LPS", call=read_findings, arguments=[tmp_path / "a.csv"])
    (tmp_path / "a.csv").write_text("x,y,z,diameter_mm,frame\n1,2,3,4,RAS\n")
    assert read_findings(tmp_path / "a.csv", ["nodule"]).findings[0].label == "nodule"
