"""Nodules put into scans: what physics, geometry and the promise to mark them demand."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from chest_phantom import LUNG, TISSUE, chest, nodule_voxels, write_nodules
from MedMapAILib.cli import main
from MedMapAILib.datasets import open_dataset
from MedMapAILib.datasets.loading import load_case
from MedMapAILib.errors import Cancelled, InputError
from MedMapAILib.image import make_image, read_volume, write_array
from MedMapAILib.lungs.graft import Pose, half_size, make_graft, random_pose
from MedMapAILib.lungs.host import local_noise, prepare_host
from MedMapAILib.lungs.nodules import NoduleEntry, list_nodules, make_nodule, read_nodule
from MedMapAILib.lungs.noise import NoiseTexture, denoised, edge_width, noise_texture, robust_noise, rough
from MedMapAILib.lungs.places import PLACES
from MedMapAILib.lungs.rare import ground_glass, part_solid
from MedMapAILib.lungs.transplant import Transplants, transplant
from MedMapAILib.lungs.transplanted_set import make_transplanted
from scipy import ndimage, special

SPACING = (0.7, 0.7, 1.25)
STRAIGHT = Pose(np.eye(3), 1.0)


def donor(radius=5.0, spacing=SPACING, noise=5.0, density=TISSUE, kind="solid"):
    entry = NoduleEntry("P00_R_1", "P00", None, None, 2 * radius, kind, "3")
    return make_nodule(entry, *nodule_voxels(radius, spacing, noise, density=density), spacing)


@pytest.fixture(scope="module")
def phantom():
    return chest((1.0, 1.0, 3.0), height_mm=90.0, noise=20.0)


@pytest.fixture(scope="module")
def host(phantom):
    return prepare_host(make_image(phantom.voxels[None], phantom.affine), lungs=phantom.lungs)


# Noise and sharpness


def test_white_noise_is_measured():
    rng = np.random.default_rng(0)
    voxels = rng.normal(-850, 25, (60, 60, 10)) + np.linspace(0, 300, 60)[:, None, None]  # a slope is no noise
    assert robust_noise(voxels, np.ones(voxels.shape, bool)) == pytest.approx(25, rel=0.05)
    assert rough(rng.normal(0, 1, (100, 100, 5))).std() == pytest.approx(6, rel=0.03)


def test_noise_texture_is_what_it_was_measured_from():
    rng = np.random.default_rng(1)
    white = rng.standard_normal((240, 240, 12))
    noise = ndimage.gaussian_filter(white, (1.2, 1.2, 0))
    for k in range(1, 12):
        noise[:, :, k] = 0.5 * noise[:, :, k - 1] + np.sqrt(0.75) * noise[:, :, k]
    noise *= 30 / noise.std()
    texture = noise_texture(50 + noise, np.ones(noise.shape, bool), rng)
    drawn = texture.draw((200, 200, 12), rng)
    assert drawn.std() == pytest.approx(1, rel=0.05)
    assert texture.between_slices == pytest.approx(0.5, abs=0.08)
    assert rough(drawn).std() == pytest.approx(texture.roughness, rel=0.05)

    def neighbors(values):
        return np.corrcoef(values[1:].ravel(), values[:-1].ravel())[0, 1]

    # exp(-1 / (4 σ²)) for white noise behind a Gaussian of σ.
    assert neighbors(noise) == pytest.approx(np.exp(-1 / (4 * 1.2**2)), abs=0.03)
    assert neighbors(drawn) == pytest.approx(neighbors(noise), abs=0.05)


def test_too_little_tissue_gives_white_noise():
    texture = noise_texture(np.zeros((30, 30, 3), np.float32), np.zeros((30, 30, 3), bool), np.random.default_rng(0))
    assert isinstance(texture, NoiseTexture) and texture.roughness == 6
    assert texture.draw((10, 12, 2), np.random.default_rng(0)).shape == (10, 12, 2)


@pytest.mark.parametrize("sigma", [0.6, 1.0])
def test_sharpness_of_a_known_edge(sigma):
    x = (np.arange(200) - 100.3) * 0.25
    edge = LUNG + (TISSUE - LUNG) * special.ndtr(x / sigma)
    voxels = np.broadcast_to(edge[:, None, None], (200, 40, 3))
    assert edge_width(voxels, (0.25, 0.25, 1.0)) == pytest.approx(sigma, rel=0.06)


def test_denoising_keeps_an_edge():
    rng = np.random.default_rng(0)
    clean = np.where(np.arange(60)[:, None, None] < 30, LUNG, TISSUE) * np.ones((60, 60, 3))
    seen = denoised(clean + rng.normal(0, 30, clean.shape), 30.0)
    assert (seen - clean)[5:20].std() < 12 and np.abs(seen - clean)[29:31].mean() < 40


# Grafts


def test_a_straight_graft_is_the_donor():
    nodule = donor(noise=0.0)
    center = np.array([30.0, 30.0, 12.0])
    graft = make_graft(nodule, STRAIGHT, center, SPACING, (61, 61, 25), sharpness=0.3)
    offset = np.array(graft.start) - (center - ndimage.center_of_mass(nodule.inside)).astype(int)
    own = tuple(slice(o, o + n) for o, n in zip(offset, graft.opacity.shape, strict=True))
    inside = nodule.inside[own]
    np.testing.assert_allclose(graft.opacity[inside], nodule.opacity[own][inside], atol=0.15)
    assert graft.opacity[inside].mean() == pytest.approx(nodule.opacity[own][inside].mean(), abs=0.03)
    assert graft.inside.sum() == pytest.approx(inside.sum(), rel=0.12)
    assert np.abs(graft.opacity[0]).max() < 0.03  # nothing at the border: no seam


@pytest.mark.parametrize("thickness", [1.25, 2.5, 5.0])
@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_a_graft_keeps_its_volume_in_thick_slices(thickness, scale):
    """A slice is a mean over its thickness, so what is filled stays 4/3 π (scale r)³, wherever it lies."""
    radius = 5.0
    nodule = donor(radius, noise=0.0)
    spacing = (0.6, 0.6, thickness)
    graft = make_graft(
        nodule, Pose(np.eye(3) * scale, scale), np.array([50.2, 50.7, 10.3]), spacing, (100, 100, 21), sharpness=0.3
    )
    volume = graft.opacity.sum() * np.prod(spacing)
    assert volume == pytest.approx(4 / 3 * np.pi * (scale * radius) ** 3, rel=0.08)
    if thickness == 5.0:
        # A ball of 8 or 12.5 mm across 5 mm slices: no slice but the middle one is full.
        assert graft.opacity.max() > 0.85 and (graft.opacity.max(axis=(0, 1)) > 0.85).sum() <= 3


def test_poses_stay_within_what_is_seen():
    rng = np.random.default_rng(0)
    for _ in range(200):
        pose = random_pose(rng)
        assert 0.8 <= pose.scale <= 1.25
        np.testing.assert_allclose(pose.matrix @ pose.matrix.T, np.eye(3) * pose.scale**2, atol=1e-9)
        # The long axis leans by at most two turns of 15 degrees.
        assert abs(pose.matrix[2, 2]) / pose.scale > np.cos(np.radians(22))
    assert half_size(donor(5.0), STRAIGHT) == pytest.approx([5, 5, 5], abs=0.8)


# Into a scan


def test_only_the_lung_is_filled(host, phantom):
    state = Transplants.begin(host)
    rng = np.random.default_rng(3)
    assert state.add(donor(6.0), "pleura", rng)
    (where,) = state.where
    changed = state.voxels != host.voxels
    outside = np.ones(changed.shape, bool)
    outside[where] = False
    assert not changed[outside].any()
    # Some voxels beyond the pleura nothing changed.
    assert not changed[~ndimage.binary_dilation(phantom.lungs, np.ones((9, 9, 1)))].any()
    label = state.instances == 1
    assert phantom.lungs[label].all()
    # It touches what is no lung.
    assert (ndimage.binary_dilation(label, iterations=2) & ~phantom.lungs).any()


@pytest.mark.parametrize("place", PLACES)
def test_places(host, phantom, place):
    state = Transplants.begin(host)
    rng = np.random.default_rng(5)
    for _ in range(4):
        assert state.add(donor(4.0), place, rng)
    vessels = (
        phantom.lungs & (phantom.voxels > -400) & (ndimage.distance_transform_edt(phantom.lungs, host.spacing) > 5)
    )
    to_vessel = ndimage.distance_transform_edt(~vessels, host.spacing)
    to_wall = ndimage.distance_transform_edt(phantom.lungs, host.spacing)
    for number, finding in enumerate(state.findings, start=1):
        label = state.instances == number
        assert finding.about["place"] == place and finding.synthetic and finding.state == "reference"
        assert label.any()
        if place == "parenchyma":
            assert to_wall[label].min() > 2 and to_vessel[label].min() > 0.5
        elif place == "vessel":
            assert to_vessel[label].min() < 4 and to_wall[label].min() > 1
        else:
            assert to_wall[label].min() <= 1.5


def test_findings_say_where_the_voxels_are(host):
    state = Transplants.begin(host)
    rng = np.random.default_rng(7)
    while len(state.findings) < 6:
        assert state.add(donor(4.0), PLACES[len(state.findings) % 3], rng)
    labels = state.labels()
    for number, finding in enumerate(state.findings, start=1):
        index = np.argwhere(labels == number)
        low = host.affine[:3, :3] @ (index.min(axis=0) - 0.5) + host.affine[:3, 3]
        high = host.affine[:3, :3] @ (index.max(axis=0) + 0.5) + host.affine[:3, 3]
        np.testing.assert_allclose(finding.bounds, [*low, *high], atol=1e-6)
        assert finding.mask.values.sum() == len(index)
        assert finding.diameter_mm == pytest.approx(8 * finding.about["scale"], abs=1e-3)
    centers = np.array([finding.center for finding in state.findings])
    apart = np.linalg.norm(centers[:, None] - centers[None], axis=-1)[np.triu_indices(6, 1)]
    assert apart.min() > 8 + 5 - 2.5  # two radii and 5 mm, to half a slice


def test_nothing_is_put_where_it_must_not(phantom):
    image = make_image(phantom.voxels[None], phantom.affine)
    # All of the right lung (its first axis runs to the right).
    state = Transplants.begin(prepare_host(image, lungs=phantom.lungs, avoid=[(0, -200, -200, 200, 200, 200)]))
    rng = np.random.default_rng(0)
    for number in range(6):
        assert state.add(donor(4.0), PLACES[number % 3], rng)
    assert max(finding.bounds[3] for finding in state.findings) < 0
    everywhere = prepare_host(image, lungs=phantom.lungs, avoid=[(-200, -200, -200, 200, 200, 200)])
    assert not Transplants.begin(everywhere).add(donor(4.0), "parenchyma", rng)


def test_the_noise_within_is_that_of_the_host(host):
    state = Transplants.begin(host)
    assert state.add(donor(10.0, noise=8.0), "parenchyma", np.random.default_rng(0))
    core = ndimage.binary_erosion(state.instances == 1, np.ones((7, 7, 1)))
    assert core.sum() > 100
    assert local_noise(host, state.where[0]) == pytest.approx(20, rel=0.15)
    detail = rough(state.voxels)[core].std() / rough(host.voxels)[core].std()
    assert detail == pytest.approx(1, abs=0.25)
    assert state.voxels[core].mean() == pytest.approx(TISSUE, abs=25)


def test_vessels_go_on_through_ground_glass(phantom):
    still = np.where(phantom.lungs, LUNG, TISSUE).astype(np.float32)
    still[:, :10] = -1000
    vessel = phantom.lungs & (np.indices(still.shape)[1] % 6 == 0)
    still[vessel] = 0.0
    # Every sixth row is a vessel; nothing is far from one, so it goes where it must.
    host = prepare_host(make_image(still[None], phantom.affine), lungs=phantom.lungs)
    glass = ground_glass(donor(8.0, noise=0.0), np.random.default_rng(0))
    assert glass.entry.kind == "ground-glass"
    state = Transplants.begin(host)
    assert state.add(glass, "pleura", np.random.default_rng(1))
    core = ndimage.binary_erosion(state.instances == 1, np.ones((3, 3, 1)))
    lung, seen = core & ~vessel, core & vessel
    assert -720 < state.voxels[lung].mean() < -350
    assert np.abs(state.voxels[seen]).mean() < 60
    assert state.voxels[seen].mean() - state.voxels[lung].mean() > 300


def test_a_part_solid_nodule_has_a_core():
    made = part_solid(donor(8.0, noise=0.0), np.random.default_rng(0))
    assert made.entry.kind == "part-solid"
    inside = made.opacity[made.inside]
    assert inside.max() > 0.8 and 0.04 < (inside > 0.75).mean() < 0.6 and np.median(inside) < 0.75


def test_the_answer_does_not_depend_on_how_a_scan_is_stored(phantom):
    plain = make_image(phantom.voxels[None], phantom.affine)
    flipped = phantom.affine.copy()
    flipped[:3, 3] += flipped[:3, 0] * (phantom.voxels.shape[0] - 1)
    flipped[:3, 0] *= -1
    order = (2, 0, 1)
    other = make_image(phantom.voxels[::-1].transpose(order)[None].copy(), flipped[:, [*order, 3]])
    one, first = transplant(plain, donor(), lungs=phantom.lungs, seed=4)
    two, second = transplant(other, donor(), lungs=phantom.lungs[::-1].transpose(order), seed=4)
    np.testing.assert_allclose(first.center, second.center, atol=1e-6)
    np.testing.assert_array_equal(one[0].numpy()[::-1].transpose(order), two[0].numpy())
    assert first.synthetic and one.meta["synthetic"]


def test_a_nodule_without_lung_around_it_is_no_donor():
    voxels, mask = nodule_voxels(4.0, SPACING)
    entry = NoduleEntry("n", "p", None, None, 8.0, "solid", "")
    assert make_nodule(entry, np.where(mask, voxels, 30.0), mask, SPACING) is None


def test_what_a_donor_touches():
    voxels, mask = nodule_voxels(4.0, SPACING)
    entry = NoduleEntry("n", "p", None, None, 8.0, "solid", "")
    assert make_nodule(entry, voxels, mask, SPACING).touches == "nothing"
    middle = voxels.shape[0] / 2 * SPACING[0]
    wall = (np.arange(voxels.shape[0]) * SPACING[0] > middle + 3.0)[:, None, None] & ~mask
    walled = make_nodule(entry, np.where(wall, TISSUE, voxels), mask, SPACING)
    assert walled.touches == "pleura" and walled.outward[0] > 0.95
    assert walled.reach == pytest.approx(3.5, abs=0.8)


# The data set


@pytest.fixture(scope="module")
def small_host(tmp_path_factory):
    """A file with a small chest."""
    whole = chest((2.0, 2.0, 4.0), height_mm=80.0, noise=15.0)
    path = tmp_path_factory.mktemp("host") / "host.nrrd"
    write_array(np.rint(whole.voxels).astype(np.int16), whole.affine, path)
    return path


@pytest.fixture(scope="module")
def nodules(tmp_path_factory):
    return write_nodules(tmp_path_factory.mktemp("donors") / "nodules")


def test_a_made_set_is_a_data_set(small_host, nodules, tmp_path):
    folder = make_transplanted(
        [small_host], nodules, tmp_path / "set", scans=2, per_scan=3, seed=1, patients={"P00", "P01", "P02"}
    )
    dataset = open_dataset(folder)
    assert dataset.task == "detection" and dataset.findings == ("nodule",) and len(dataset.cases) == 2
    about = json.loads((folder / "about.json").read_text())
    assert about["findings"] == 6 and set(about["source_patients"]) <= {"P00", "P01", "P02"}
    with (folder / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["synthetic"] for row in rows} == {"1"} and {row["frame"] for row in rows} == {"RAS"}
    # All three donors before one comes again.
    assert {row["source_patient"] for row in rows[:3]} == {"P00", "P01", "P02"}
    for case in dataset.cases:
        image, reference = load_case(case, dataset)
        assert "synthetic" in case.name and image.shape[1:] == reference.instances.shape
        for number, finding in enumerate(reference.findings, start=1):
            assert finding.synthetic
            index = np.argwhere(reference.instances == number)
            middle = np.asarray(image.affine) @ [*((index.min(axis=0) + index.max(axis=0)) / 2), 1.0]
            np.testing.assert_allclose(middle[:3], finding.center, atol=1e-3)
    volume = read_volume(case.images[0])
    assert volume.array.dtype == np.int16
    header = case.images[0].read_bytes()[:2000]
    assert b"synthetic:=nodules of other patients" in header


def test_the_seed_decides(small_host, nodules, tmp_path):
    def made(name, seed):
        folder = make_transplanted([small_host], nodules, tmp_path / name, scans=1, per_scan=2, seed=seed)
        return (folder / "findings.csv").read_text(), read_volume(folder / "images" / "synthetic_0000.nrrd").array

    first, again, other = made("a", 0), made("b", 0), made("c", 1)
    assert first[0] == again[0] and np.array_equal(first[1], again[1])
    assert first[0] != other[0]


def test_mistakes_are_said_and_nothing_is_left(small_host, nodules, tmp_path):
    def make(**changes):
        arguments = {"hosts": [small_host], "nodules_folder": nodules, "output": tmp_path / "out", "scans": 1}
        make_transplanted(**{**arguments, **changes})

    with pytest.raises(InputError, match="P77"):
        make(patients=["P77"])
    with pytest.raises(InputError, match="nodules.csv"):
        make(nodules_folder=tmp_path)
    with pytest.raises(InputError, match="at least 1"):
        make(scans=0)
    with pytest.raises(InputError, match="no scan"):
        make(hosts=[])
    with pytest.raises(InputError, match="one list a scan"):
        make(avoid=[[], []])
    with pytest.raises(InputError, match="No lungs"):
        make(hosts=[make_image(np.zeros((1, 9, 9, 9)) - [[[[500]]]], np.eye(4))])
    with pytest.raises(Cancelled):
        make(should_stop=lambda: True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="choose another folder"):
        make()


def test_command(small_host, nodules, tmp_path, capsys):
    label = np.zeros(read_volume(small_host).array.shape, np.uint8)
    label[: label.shape[0] // 2] = 1
    write_array(label, read_volume(small_host).affine, tmp_path / "own.nrrd")
    (tmp_path / "patients.txt").write_text("patient_id\nP01\nP02\n")
    call = ["transplant", str(small_host), str(nodules), str(tmp_path / "set"), "--scans", "1", "--per-scan", "2"]
    call += ["--avoid", str(tmp_path / "own.nrrd"), "--patients", str(tmp_path / "patients.txt"), "--json"]
    assert main(call) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["findings"] == 2 and set(said["source_patients"]) <= {"P01", "P02"}
    with (tmp_path / "set" / "findings.csv").open() as file:
        assert all(float(row["center_x"]) > 0 for row in csv.DictReader(file))
    assert main([*call[:3], str(tmp_path / "other"), "--avoid", "-", "--avoid", "-"]) == 2
    assert "once for each" in capsys.readouterr().err
    assert main([*call[:3], str(tmp_path / "other"), "--seed", "-1"]) == 2
    assert "--seed -1" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_real_nodules_become_donors(shared_data):
    entries = list_nodules(shared_data("lidc_nodules"))
    assert len(entries) == 808 and len({entry.patient for entry in entries}) == 444
    kinds = [entry.kind for entry in entries]
    assert (kinds.count("solid"), kinds.count("part-solid"), kinds.count("ground-glass")) == (664, 81, 63)
    some = [read_nodule(entry) for entry in entries[::40]]
    assert all(nodule is not None for nodule in some)
    solid = [n for n in some if n.entry.kind == "solid" and n.entry.diameter_mm > 6]
    assert np.mean([n.opacity[n.inside].mean() for n in solid]) > 0.6
    assert replace(solid[0]).entry.patient.startswith("LIDC-IDRI-")
