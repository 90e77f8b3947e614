"""Plans: the decisions of nnU-Net where its plans are published, and every edited field checked."""

import json

import numpy as np
import pytest
from MedMapAILib.datasets.fingerprint import CaseFingerprint, Fingerprint
from MedMapAILib.errors import InputError
from MedMapAILib.plan import Plan, make_plan, plan_from_dict, plan_to_dict, poolings, read_plan, write_plan

GOOD = {"spacing": [1.0, 1.0, 2.5], "patch": [64, 64, 32], "batch": 2, "normalization": {"kind": "zscore"}}
NUMBERS = {
    "mean": 40.0,
    "sd": 20.0,
    "min": -50.0,
    "percentile 0.5": -30.0,
    "median": 42.0,
    "percentile 99.5": 110.0,
    "max": 300.0,
}


def measured(sizes, spacings, oblique=False, ct=False):
    """A fingerprint of cases with these sizes (voxels) and spacings (mm)."""
    channel = {"whole": NUMBERS, "foreground": NUMBERS}
    cases = tuple(
        CaseFingerprint(f"{n}", tuple(size), tuple(map(float, spacing)), oblique, (channel,), {"it": 100})
        for n, (size, spacing) in enumerate(zip(sizes, spacings, strict=True))
    )
    return Fingerprint("test", cases, ("image",), (NUMBERS,), (ct,))


# Median size, spacing and number of cases of Medical Segmentation Decathlon tasks, and patch and batch of nnU-Net's
# published plans for them (Isensee et al. 2021, supplementary note 6; 8 GB of memory).
@pytest.mark.parametrize(
    "size, spacing, cases, patch, batch",
    [
        ((36, 50, 35), (1, 1, 1), 260, (40, 56, 40), 9),  # hippocampus
        ((138, 170, 138), (1, 1, 1), 484, (128, 128, 128), 2),  # brain tumor
        ((482, 512, 512), (1, 0.767, 0.767), 131, (128, 128, 128), 2),  # liver
    ],
)
def test_patch_and_batch_are_those_of_nnunet(size, spacing, cases, patch, batch):
    plan = make_plan(measured([size] * cases, [spacing] * cases))
    assert (plan.patch, plan.batch) == (patch, batch)


@pytest.mark.parametrize(
    "size, spacing, published",
    [
        ((20, 320, 319), (3.6, 0.62, 0.62), (20, 320, 256)),  # prostate
        ((187, 512, 512), (1.6, 0.79, 0.79), (64, 192, 160)),  # spleen
        ((252, 512, 512), (1.24, 0.79, 0.79), (80, 192, 160)),  # lung
        ((93, 512, 512), (2.5, 0.8, 0.8), (40, 224, 224)),  # pancreas
    ],
)
def test_patches_of_other_tasks_are_near_to_those_of_nnunet(size, spacing, published):
    # The budget here counts voxels, nnU-Net's counts the memory of one architecture: they differ by a step at most.
    patch = make_plan(measured([size] * 50, [spacing] * 50)).patch
    assert np.prod(patch) == pytest.approx(np.prod(published), rel=0.25)
    assert all(0.7 <= a / b <= 1.3 for a, b in zip(sorted(patch), sorted(published), strict=True))


def test_spacing_is_the_median():
    spacings = [(1.0, 1.0, 1.0), (0.5, 0.5, 2.0), (0.8, 0.9, 1.5)]
    assert make_plan(measured([(100, 100, 100)] * 3, spacings)).spacing == (0.8, 0.9, 1.5)


def test_thick_slices_get_the_tenth_percentile():
    spacings = [(0.7, 0.7, 5.0)] * 9 + [(0.7, 0.7, 1.0), (0.7, 0.7, 2.0)]
    plan = make_plan(measured([(512, 512, 60)] * 11, spacings))
    assert plan.spacing == pytest.approx((0.7, 0.7, np.percentile([5.0] * 9 + [1.0, 2.0], 10)))
    assert "10th percentile" in plan.reasons["spacing"]
    assert plan.interpolation == "linear"
    # Many thick slices are no exception, nor are few slices of usual thickness.
    assert make_plan(measured([(100, 100, 400)] * 11, spacings)).spacing[2] == 5.0
    # Never finer than in the slices.
    fine = [(0.7, 0.7, 5.0)] * 9 + [(0.7, 0.7, 0.1)] * 2
    assert make_plan(measured([(512, 512, 60)] * 11, fine)).spacing[2] == 0.7


def test_the_patch_is_of_the_median_at_the_new_spacing():
    plan = make_plan(measured([(80, 80, 80)], [(1.0, 1.0, 1.0)]), {"spacing": [2.0, 2.0, 2.0]})
    assert plan.spacing == (2.0, 2.0, 2.0)
    assert plan.patch == (40, 40, 40)
    assert "by hand" in plan.reasons["spacing"]


def test_memory_scales_the_patch():
    data = measured([(300, 300, 300)] * 100, [(1, 1, 1)] * 100)
    sizes = [np.prod(make_plan(data, memory_gb=memory).patch) for memory in (2, 8, 32)]
    assert sizes[0] <= 128**3 / 4 and sizes[1] <= 128**3 and sizes[2] <= 4 * 128**3
    assert sizes[0] < sizes[1] < sizes[2]


def test_every_patch_can_be_halved_and_fits():
    generator = np.random.default_rng(0)
    for _ in range(300):
        size = generator.integers(2, 600, 3)
        spacing = np.exp(generator.uniform(-1.5, 2, 3)).round(3)
        plan = make_plan(measured([size], [spacing]))
        assert np.prod(plan.patch) <= 128**3
        assert all(voxels % 2**halvings == 0 for voxels, halvings in zip(plan.patch, plan.pooling, strict=True))
        assert all(voxels / 2**halvings >= 4 for voxels, halvings in zip(plan.patch, plan.pooling, strict=True))
        assert all(voxels % 8 == 0 for voxels in plan.patch)


def test_halvings_are_those_of_nnunet():
    # Prostate's published plan: patch 20×320×256 at 3.6×0.62×0.62 mm, halved 2, 6 and 6 times.
    assert poolings((3.6, 0.62, 0.62), (20, 320, 256)) == (2, 6, 6)
    assert poolings((1, 1, 1), (128, 128, 128)) == (5, 5, 5)
    assert poolings((1, 1, 1), (40, 56, 40)) == (3, 3, 3)


def test_single_slices_make_a_flat_plan():
    plan = make_plan(measured([(256, 300, 1)] * 20, [(1.0, 1.0, 5.0)] * 20))
    assert plan.patch == (256, 320, 1)
    assert plan.spatial_dims == 2
    assert plan.spacing == (1.0, 1.0, 0.0)
    assert len(plan.pooling) == 2
    with pytest.raises(InputError, match="lines of voxels"):
        make_plan(measured([(256, 1, 1)], [(1, 1, 1)]))


def test_a_flat_patch_may_be_asked_for():
    plan = make_plan(measured([(256, 256, 100)], [(1.0, 1.0, 5.0)]), {"patch": [128, 1, 128], "batch": 4})
    assert (plan.patch, plan.batch, plan.spatial_dims, plan.spacing[1]) == ((128, 1, 128), 4, 2, 0.0)


def test_normalization():
    assert make_plan(measured([(9, 9, 9)], [(1, 1, 1)])).normalization == {"kind": "zscore"}
    ct = make_plan(measured([(9, 9, 9)], [(1, 1, 1)], ct=True)).normalization
    assert ct == {"kind": "ct", "clip": [-30.0, 110.0], "mean": 40.0, "sd": 20.0}


@pytest.mark.parametrize(
    "oblique, spacing, axes", [(True, (1, 1, 4), "image"), (True, (1, 1, 1), "patient"), (False, (1, 1, 4), "patient")]
)
def test_axes(oblique, spacing, axes):
    assert make_plan(measured([(90, 90, 20)], [spacing], oblique=oblique)).axes == axes


def test_every_decision_has_its_reason_in_one_sentence():
    plan = make_plan(measured([(100, 100, 30)] * 5, [(0.7, 0.7, 3.0)] * 5, ct=True))
    assert set(plan.reasons) == {"spacing", "patch", "batch", "normalization", "interpolation", "axes"}
    assert all(reason.endswith(".") and "\n" not in reason for reason in plan.reasons.values())


def test_written_and_read(tmp_path):
    plan = make_plan(measured([(100, 100, 30)] * 5, [(0.7, 0.7, 3.0)] * 5, ct=True))
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    text = (tmp_path / "plan.json").read_text()
    assert '"spacing": [0.7, 0.7, 3.0],' in text
    assert json.loads(text) == plan_to_dict(plan)
    write_plan(read_plan(tmp_path / "plan.json"), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == text


def test_edits_and_changes_are_honored(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({**GOOD, "patch": [48, 48, 16], "interpolation": "cubic"}))
    plan = read_plan(tmp_path / "plan.json", {"batch": 7})
    assert (plan.patch, plan.interpolation, plan.batch, plan.axes) == ((48, 48, 16), "cubic", 7, "patient")
    assert "by hand" in plan.reasons["batch"]


def test_the_same_from_any_number_type():
    assert (
        plan_from_dict({**GOOD, "patch": [64.0, 64, 32]}, "x")
        == plan_from_dict(GOOD, "x")
        == Plan((1.0, 1.0, 2.5), (64, 64, 32), 2, {"kind": "zscore"})
    )


@pytest.mark.parametrize(
    "field, value, meaning",
    [
        ("spacing", [1, 1], "three lengths in mm"),
        ("spacing", [1, 1, -1], "three lengths in mm"),
        ("spacing", [1, 1, "1"], "three lengths in mm"),
        ("spacing", [1, 1, float("nan")], "three lengths in mm"),
        ("spacing", 1.0, "three lengths in mm"),
        ("spacing", [1, 1, 0], "only across slices"),
        ("patch", [64, 64.5, 32], "three whole numbers"),
        ("patch", [64, 0, 32], "three whole numbers"),
        ("patch", [64, 1, 1], "at most one of them 1"),
        ("patch", [True, 8, 8], "three whole numbers"),
        ("batch", 0, "at least 1"),
        ("batch", "two", "at least 1"),
        ("normalization", "zscore", "zscore, percentile"),
        ("normalization", {"kind": "minmax"}, "zscore, percentile"),
        ("normalization", {"kind": "ct", "clip": [1, 2], "mean": 0}, "sd in HU"),
        ("normalization", {"kind": "ct", "clip": [3, 2], "mean": 0, "sd": 1}, "clip [low, high]"),
        ("normalization", {"kind": "ct", "clip": [1, 2], "mean": 0, "sd": 0}, "sd in HU"),
        ("normalization", {"kind": "percentile", "lower": 99, "upper": 1}, "lower and upper"),
        ("normalization", {"kind": "zscore", "mean": 3}, "exactly"),
        ("interpolation", "spline", "linear or cubic"),
        ("axes", "RAS", "patient or image"),
        ("reasons", ["because"], "sentences"),
        ("measured", 3, "an object"),
        ("patchsize", [1, 2, 3], "no field"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, field, value, meaning):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**GOOD, field: value}))
    with pytest.raises(InputError) as caught:
        read_plan(path)
    assert repr(field) in str(caught.value) and meaning in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(InputError, match=field):
        make_plan(measured([(9, 9, 9)], [(1, 1, 1)]), {field: value})


def test_a_plan_that_is_none(tmp_path):
    path = tmp_path / "plan.json"
    for text, words in (("{", "not valid JSON"), ("[]", "object"), ('{"spacing": [1, 1, 1]}', "lacks patch")):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_plan(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_plan(tmp_path / "no.json")


@pytest.mark.parametrize("normalization", [{"kind": "none"}, {"kind": "percentile", "lower": 0.5, "upper": 99.5}])
def test_normalizations_that_may_be_chosen(normalization):
    assert plan_from_dict({**GOOD, "normalization": normalization}, "x").normalization == normalization
