"""Cases from the scene, written as a data set: names gone, voxels and places kept, one value for one segment name."""

from __future__ import annotations

import numpy as np
import pytest
from MedMapAILib.datasets.scene import terminology_codes, write_cases, write_detection_cases
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image, read_image
from MedMapAILib.results import (
    FindingReference,
    Segment,
    Segmentation,
    finding_of_sphere,
    read_segmentation,
    terminology_entry,
)

AFFINE = np.array([[-1.0, 0, 0, 10], [0, 0, 2.0, 20], [0, 1.5, 0, 30], [0, 0, 0, 1]])
ENTRY = terminology_entry(category=("SCT", "123037004", "Anatomical Structure"), type=("SCT", "10200004", "Liver"))


def case(names, affine=AFFINE, shape=(6, 7, 8), seed=0):
    """An image and a segmentation whose segment number n, of value n, is the slice I = n."""
    image = make_image(np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32), affine)
    labels = np.zeros(shape, dtype=np.uint8)
    for value in range(1, len(names) + 1):
        labels[value] = value
    segments = tuple(Segment(n, name, (1.0, 0.5, 0.0), ENTRY) for n, name in enumerate(names, start=1))
    return image, Segmentation(labels, affine, segments)


def test_cases_come_back_where_they_were(tmp_path):
    cases = [case(["liver", "spleen"], seed=1), case(["spleen", "liver"], seed=2), case(["spleen", "kidney"], seed=3)]
    labels = write_cases(iter(cases), tmp_path / "dataset")
    assert {value: about["name"] for value, about in labels.items()} == {"1": "liver", "2": "spleen", "3": "kidney"}
    assert labels["1"]["color"] == "#ff8000"
    assert labels["1"]["terminology"]["type"] == ["SCT", "10200004", "Liver"]
    names = sorted(p.name for p in (tmp_path / "dataset" / "images").iterdir())
    assert names == ["case_001.nrrd", "case_002.nrrd", "case_003.nrrd"]
    for number, (image, segmentation) in enumerate(cases, start=1):
        back = read_image(tmp_path / "dataset" / "images" / f"case_00{number}.nrrd")
        np.testing.assert_allclose(np.asarray(back.affine), AFFINE, atol=1e-9)
        np.testing.assert_array_equal(np.asarray(back), np.asarray(image))
        stored = read_segmentation(tmp_path / "dataset" / "labels" / f"case_00{number}.nrrd")
        for segment in segmentation.segments:
            value = next(int(v) for v, about in labels.items() if about["name"] == segment.name)
            np.testing.assert_array_equal(stored.labels == value, segmentation.labels == segment.value)


def test_nothing_is_left_of_a_failure_and_the_old_data_stay(tmp_path):
    write_cases([case(["liver"])], tmp_path / "dataset")
    image, segmentation = case(["liver"])
    shifted = AFFINE.copy()
    shifted[0, 3] += 5
    with pytest.raises(InputError, match="case 2"):
        write_cases(
            [(image, segmentation), (image, Segmentation(segmentation.labels, shifted, segmentation.segments))],
            tmp_path / "dataset",
        )
    empty = Segmentation(np.zeros_like(segmentation.labels), AFFINE, segmentation.segments)
    with pytest.raises(InputError, match="case 1 is empty"):
        write_cases([(image, empty)], tmp_path / "dataset")
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]
    assert [p.name for p in (tmp_path / "dataset" / "images").iterdir()] == ["case_001.nrrd"]


def test_terminology_codes_undo_the_entry():
    assert terminology_codes(ENTRY) == {
        "category": ["SCT", "123037004", "Anatomical Structure"],
        "type": ["SCT", "10200004", "Liver"],
    }
    assert terminology_codes(None) is None and terminology_codes("~~^^") is None


# -- findings ----------------------------------------------------------------------------------------------------------


def found(index, **about):
    """A finding of 3 mm at a voxel of AFFINE's grid."""
    return finding_of_sphere(tuple((AFFINE @ [*index, 1])[:3]), 3.0, "nodule", **about)


def test_findings_come_back_where_they_were(tmp_path):
    from MedMapAILib.datasets import open_dataset
    from MedMapAILib.datasets.loading import load_case

    image, _ = case(["liver"])
    with_two = FindingReference(("nodule",), (found((1, 2, 3)), found((4, 5, 6), synthetic=True, score=0.7)))
    count = write_detection_cases([(image, with_two), (image, FindingReference(("nodule",), ()))], tmp_path / "set")
    assert count == 2
    dataset = open_dataset(tmp_path / "set")
    assert dataset.task == "detection" and [len(one.findings) for one in dataset.cases] == [2, 0]
    back, reference = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(np.asarray(back), np.asarray(image))
    for one, other in zip(reference.findings, with_two.findings, strict=True):
        np.testing.assert_allclose(one.center, other.center, atol=1e-3)
        assert one.diameter_mm == pytest.approx(3) and one.synthetic == other.synthetic


@pytest.mark.parametrize(
    ("findings", "said"),
    [((found((1, 2, 3)), found((1, 2, 9))), "case 1 lies outside its image"), ((), "no finding in any of the scans")],
)
def test_findings_that_teach_nothing_leave_no_folder(tmp_path, findings, said):
    image, _ = case(["liver"])
    with pytest.raises(InputError, match=said):
        write_detection_cases([(image, FindingReference(("nodule",), findings))], tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
