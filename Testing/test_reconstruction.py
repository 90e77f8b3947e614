"""Reconstruction from images or measurements to a bundle that makes them better, on any grid."""

import json

import numpy as np
import pytest
from MedMapAILib.bundle import load_bundle
from MedMapAILib.cli import main
from MedMapAILib.datasets import open_dataset
from MedMapAILib.errors import InputError, NotHounsfield
from MedMapAILib.image import make_image, read_image, write_array
from MedMapAILib.inference.evaluation import evaluate_cases
from MedMapAILib.inference.measurement_predictor import MeasurementPredictor
from MedMapAILib.inference.opening import open_predictor
from MedMapAILib.inference.predictor import Predictor
from MedMapAILib.measurements.acquisition import acquisition_of
from MedMapAILib.measurements.methods import reconstruct_measurement
from MedMapAILib.training.run import train
from orders import every_axis_order
from reconstruction_data import body, reconstruction_config, write_bodies

CT = {"kind": "ct", "views": 40, "photons": 2e4}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    return write_bodies(tmp_path_factory.mktemp("reconstruction") / "data", 8)


@pytest.fixture(scope="module")
def denoiser(bodies, tmp_path_factory):
    events = []
    config = reconstruction_config(bodies, epochs=4, iterations=40)
    return train(config, tmp_path_factory.mktemp("denoiser") / "out", on_event=events.append), events


@pytest.fixture(scope="module")
def primal_dual(bodies, tmp_path_factory):
    events = []
    network = {"name": "learned-primal-dual", "iterations": 2, "width": 8}
    config = reconstruction_config(bodies, network=network, epochs=3, iterations=80)
    config["optimizer"]["learning_rate"] = 5e-3
    config["plan"] = {"patch": [48, 48, 1], "spacing": [2.0, 2.0, 0.0]}
    return train(config, tmp_path_factory.mktemp("primal-dual") / "out", on_event=events.append), events


def root_mean_square(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_it_takes_noise_from_images_that_it_never_saw(denoiser):
    predictor = open_predictor(load_bundle(denoiser[0]))
    assert isinstance(predictor, Predictor)
    truth, affine = body(100)
    noisy = acquisition_of(CT).degraded(make_image(truth[None], affine), 5)
    result = predictor.predict(noisy)
    assert result.unit == "HU" and result.window == (-1000.0, 1000.0)
    assert root_mean_square(result.values - truth) < 0.8 * root_mean_square(noisy.numpy()[0] - truth)


def test_the_bundle_says_what_it_makes_and_how_good_it_is(denoiser):
    bundle = load_bundle(denoiser[0])
    assert bundle.info.task == "reconstruction" and bundle.info.images.unit == "HU"
    assert bundle.info.images.acquisition["views"] == 40
    assert bundle.info.metrics["psnr_db"]["mean"] > 15 and 0 < bundle.info.metrics["ssim"]["mean"] <= 1
    assert "from -1000 to 1000 HU" in bundle.info.card
    rows = [event for event in denoiser[1] if event["event"] == "epoch"]
    assert rows[-1]["validation_psnr_db"] > rows[0]["validation_psnr_db"] - 0.5


def test_pictures_show_what_it_can_do(denoiser):
    from PIL import Image

    pictures = [event["picture"] for event in denoiser[1] if "picture" in event]
    assert len(pictures) == 4
    assert Image.open(pictures[-1]).size == (3 * 48, 48)


def test_the_physical_result_does_not_depend_on_the_order_of_voxels(denoiser):
    predictor = open_predictor(load_bundle(denoiser[0]))
    truth, affine = body(101)
    noisy = acquisition_of(CT).degraded(make_image(truth[None], affine), 5).numpy()[0]
    expected = predictor.predict(make_image(noisy[None], affine)).values
    for array, matrix, back in every_axis_order(noisy[None], affine):
        result = predictor.predict(make_image(np.ascontiguousarray(array), matrix))
        np.testing.assert_allclose(back(result.values), expected, atol=0.05)


def test_outside_of_a_region_the_image_stays_as_it_was(denoiser):
    predictor = open_predictor(load_bundle(denoiser[0]))
    truth, affine = body(102)
    noisy = acquisition_of(CT).degraded(make_image(truth[None], affine), 5)
    result = predictor.predict(noisy, roi=((40.0, 40.0, 10.0), (30.0, 30.0, 11.0)))
    changed = result.values != noisy.numpy()[0]
    where = np.argwhere(changed)
    assert changed.any() and where.min(axis=0)[0] >= 12 and where.max(axis=0)[0] <= 28


def test_padding_stays_and_leaves_what_is_beside_it_alone(denoiser):
    """The image with padding of -3024 round it is made what the one with air there is."""
    truth, affine = body(104)
    noisy = acquisition_of(CT).degraded(make_image(truth[None], affine), 5).numpy()
    outside = np.hypot(*(np.indices(truth.shape[:2]) - 23.5))[..., None].repeat(truth.shape[2], 2) > 22
    results = []
    for value in (-1000, -3024):
        image = noisy.copy()
        image[0][outside] = value
        results.append(open_predictor(load_bundle(denoiser[0])).predict(make_image(image, affine)))
    air, padded = results
    assert (padded.values[outside] == -3024).all()
    np.testing.assert_allclose(padded.values[~outside], air.values[~outside], atol=1e-3)
    assert any("padding" in note for note in padded.notes) and not any("padding" in note for note in air.notes)


def test_what_is_read_is_not_overwritten(denoiser, tmp_path, capsys):
    truth, affine = body(3)
    write_array(truth, affine, tmp_path / "scan.nrrd")
    before, scan = (tmp_path / "scan.nrrd").read_bytes(), str(tmp_path / "scan.nrrd")
    for call in (
        ["run", str(denoiser[0]), scan, scan],
        ["run", str(denoiser[0]), scan, str(tmp_path / "out.nrrd"), "--reference", str(tmp_path / "out.nrrd")],
        ["simulate", scan, scan, "--views", "20"],
        ["reconstruct", "fbp", scan, scan],
    ):
        (tmp_path / "out.nrrd").write_bytes(before)
        assert main(call) == 2
        assert "would be lost" in capsys.readouterr().err
        assert (tmp_path / "scan.nrrd").read_bytes() == before


def test_what_is_no_ct_is_refused_with_a_way_on(denoiser):
    predictor = open_predictor(load_bundle(denoiser[0]))
    truth, affine = body(103)
    stored = make_image(truth[None] + 1024, affine)
    with pytest.raises(NotHounsfield, match="1024"):
        predictor.predict(stored)
    stored.meta["assume_hounsfield"] = True
    assert predictor.predict(stored).values.shape == truth.shape


def test_a_network_with_the_physics_in_it_beats_filtered_backprojection(primal_dual):
    predictor = open_predictor(load_bundle(primal_dual[0]))
    assert isinstance(predictor, MeasurementPredictor)
    truth, affine = body(104)
    image = make_image(truth[None], affine)
    measured = acquisition_of(CT).simulate_volume(image, 3)
    fbp = acquisition_of(CT).degraded(image, 3).numpy()[0]
    result = predictor.predict(measured)
    assert result.values.shape == truth.shape
    np.testing.assert_allclose(result.affine, affine)
    assert root_mean_square(result.values - truth) < 0.8 * root_mean_square(fbp - truth)


def test_evaluation_simulates_the_measurement_and_the_same_one_each_time(primal_dual, bodies):
    predictor = open_predictor(load_bundle(primal_dual[0]))
    dataset = open_dataset(bodies, options={"task": "reconstruction"})
    first, second = (evaluate_cases(predictor, dataset, dataset.cases[:2]) for _ in range(2))
    assert first == second
    assert first["summary"]["psnr_db"]["cases"] == 2 and first["window"] == [-1000.0, 1000.0]


def test_run_writes_the_image_and_scores_it(denoiser, tmp_path, capsys):
    truth, affine = body(105)
    noisy = acquisition_of(CT).degraded(make_image(truth[None], affine), 5)
    write_array(noisy.numpy()[0], affine, tmp_path / "noisy.nrrd")
    write_array(truth, affine, tmp_path / "truth.nrrd")
    command = ["run", str(denoiser[0]), str(tmp_path / "noisy.nrrd"), str(tmp_path / "out.nii.gz")]
    assert main([*command, "--reference", str(tmp_path / "truth.nrrd"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["unit"] == "HU" and report["metrics"]["psnr_db"] > 20
    assert abs(report["metrics"]["bias_air"]) < 60 and "bias_bone" in report["metrics"]
    written = read_image(tmp_path / "out.nii.gz")
    assert root_mean_square(written.numpy()[0] - truth) < root_mean_square(noisy.numpy()[0] - truth)
    region = ["--roi", "40,40,10,30,30,11", "--reference", str(tmp_path / "truth.nrrd"), "--json"]
    assert main([*command, *region]) == 0
    scores = json.loads(capsys.readouterr().out)["metrics"]
    # Elsewhere nothing changed, so the whole has more noise than the region.
    assert scores["roi_psnr_db"] != scores["psnr_db"] and scores["psnr_db"] < report["metrics"]["psnr_db"]
    assert main([*command[:3], str(tmp_path / "out.seg.nrrd")]) == 2
    assert main([*command, "--saliency", str(tmp_path / "map.nrrd")]) == 2


def test_an_image_is_not_a_measurement(primal_dual, tmp_path, capsys):
    truth, affine = body(106)
    write_array(truth, affine, tmp_path / "truth.nrrd")
    assert main(["run", str(primal_dual[0]), str(tmp_path / "truth.nrrd"), str(tmp_path / "out.nrrd")]) == 2
    assert "medmapai reconstruct" in capsys.readouterr().err
    with pytest.raises(InputError, match="sinogram"):
        open_predictor(load_bundle(primal_dual[0])).predict(make_image(truth[None], affine))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"acquisition": {"kind": "none"}}, "acquisition.kind"),
        ({"acquisition": {"kind": "pet"}}, "pet"),
        ({"acquisition": {"kind": "ct", "views": 0}}, "views"),
        (
            {
                "acquisition": {"kind": "mr", "coils": 4, "center_fraction": 0.01},
                "network": {"name": "varnet", "iterations": 1, "width": 4},
                "plan": {"patch": [48, 48, 1], "spacing": [2.0, 2.0, 0.0]},
            },
            "acquisition.center_fraction",
        ),
        ({"reconstruction": {"window": [5, 1]}}, "window"),
        ({"loss": {"name": "dice"}}, "dice"),
        ({"augmentation": {"gamma": 1.0}}, "augmentation.gamma"),
        (
            {
                "loss": {"name": "noise2void"},
                "network": {"name": "learned-primal-dual", "iterations": 1, "width": 4},
                "plan": {"patch": [48, 48, 1], "spacing": [2.0, 2.0, 0.0]},
            },
            "noise2void",
        ),
        (
            {
                "acquisition": {"kind": "ct", "views": [20, 40]},
                "network": {"name": "learned-primal-dual", "iterations": 1, "width": 4},
                "training": {"batch": 4, "device": "cpu"},
            },
            "training.batch",
        ),
        ({"network": {"name": "unet"}}, "unet"),
    ],
)
def test_mistakes_in_a_configuration_are_one_sentence(bodies, tmp_path, changes, said):
    config = reconstruction_config(bodies) | changes
    with pytest.raises(InputError, match=said):
        train(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_learns_from_noisy_images_alone(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for number in range(5):
        clean, affine = body(200 + number, slices=3)
        noisy = (clean + random.normal(0, 80, clean.shape)).astype(np.float32)
        write_array(noisy, affine, tmp_path / "data" / f"scan{number}.nrrd")
    config = reconstruction_config(
        tmp_path / "data", acquisition={"kind": "none"}, loss={"name": "noise2void"}, epochs=3, iterations=70
    )
    config["dataset"]["target"] = "self"
    bundle = train(config, tmp_path / "out")
    result = open_predictor(load_bundle(bundle)).predict(make_image(noisy[None], affine))
    # In the corners there is air alone, so that what varies there is noise.
    assert result.values[:5, :5].std() < 0.6 * noisy[:5, :5].std()
    assert abs(result.values[:5, :5].mean() + 1000) < 40


@pytest.mark.parametrize("name", ["conditional-gan", "wasserstein-gan"])
def test_a_gan_that_was_stopped_ends_with_the_same_weights_of_both_networks(bodies, tmp_path, name):
    import torch

    config = reconstruction_config(bodies, loss={"name": name}, epochs=2, iterations=3)
    config["plan"] = {"patch": [32, 32, 1], "batch": 2}
    events, asked = [], []

    def stop():
        asked.append(None)
        return len(asked) == 12  # in the second epoch; the first eight questions come while cases are read

    train(config, tmp_path / "whole", on_event=events.append)
    assert train(config, tmp_path / "stopped", should_stop=stop) is None
    reached = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["progress"]["iteration"]
    assert 0 < reached < 6
    train(config, tmp_path / "stopped", resume=True)
    one, other = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "stopped"))
    for part in ("network", "average", "opponent"):
        assert one[part].keys() == other[part].keys() and len(one[part]) > 0
        assert all(torch.equal(one[part][key], other[part][key]) for key in one[part]), part
    for mine, twin in zip(*(run["opponent_optimizer"]["state"].values() for run in (one, other)), strict=True):
        assert torch.equal(mine["exp_avg"], twin["exp_avg"])
    rows = [event for event in events if event["event"] == "epoch"]
    assert all(np.isfinite(row[key]) for row in rows for key in ("opponent_loss", "loss_adversarial", "loss_fidelity"))
    header = (tmp_path / "whole" / "history.csv").read_text().splitlines()[0].split(",")
    assert {"opponent_loss", "loss_adversarial", "loss_fidelity"} <= set(header)


def test_evaluate_scores_held_out_volumes_by_measurements_of_them(denoiser, primal_dual, bodies, capsys):
    for model in (denoiser[0], primal_dual[0]):
        assert main(["evaluate", str(model), str(bodies), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert len(report["cases"]) == 2 and report["summary"]["psnr_db"]["mean"] > 15
    assert main(["evaluate", str(model), str(bodies), "--curves", "curves"]) == 2
    assert "reconstruction" in capsys.readouterr().err


def test_a_training_goes_on_where_another_model_ended(denoiser, bodies, tmp_path):
    config = reconstruction_config(bodies, epochs=1, iterations=1)
    config["transfer"] = {"weights": str(denoiser[0])}
    # So small a step changes nothing that shows.
    config["optimizer"] = {"learning_rate": 1e-9}
    bundle = load_bundle(train(config, tmp_path / "out"))
    for name, weights in load_bundle(denoiser[0]).weights.items():
        np.testing.assert_allclose(bundle.weights[name], weights, atol=1e-4)
    config["network"] = {"name": "fbpconvnet", "width": 4, "levels": 2}
    with pytest.raises(InputError, match="has"):
        train(config, tmp_path / "other")


def test_every_input_is_compared_with_a_target_in_its_own_numbers():
    """Of images whose own mean and deviation normalize them, copies with more noise have others."""
    from MedMapAILib.plan import Plan
    from MedMapAILib.results import ImageKind, ImageReference
    from MedMapAILib.tasks.reconstruction import ReconstructionTask
    from MedMapAILib.training.config import DEFAULTS

    truth, affine = body(3, slices=1)
    plan = Plan((0.0, 0.0, 0.0), (48, 48, 1), 1, {"kind": "zscore"})
    acquisition = acquisition_of({"kind": "noise", "sd": [5, 400], "copies": 4}).about
    task = ReconstructionTask(plan, ImageKind("", (-1000.0, 1000.0), "image", acquisition), {})
    prepared = task.prepare(make_image(truth[None], affine), ImageReference(truth, affine))
    sample = task.training_transform(DEFAULTS["augmentation"], 0.0)
    for seed in range(12):
        one = {key: value.numpy()[0] for key, value in sample(prepared, seed).items()}
        assert np.polyfit(one["target"].ravel(), one["image"].ravel(), 1)[0] == pytest.approx(1.0, abs=0.03)


def test_padding_is_no_air():
    from MedMapAILib.plan import Plan
    from MedMapAILib.results import ImageKind, ImageReference, Reconstruction
    from MedMapAILib.tasks.reconstruction import ReconstructionTask

    plan = Plan((0.0, 0.0, 0.0), (16, 16, 1), 1, {"kind": "none"})
    task = ReconstructionTask(plan, ImageKind("HU", (-1000.0, 1000.0)), {})
    truth, affine = body(0, slices=2)
    truth[:4] = -2000  # what some scanners write outside of their field of view
    result = np.where(truth < -1500, -1000, truth + 3).astype(np.float32)
    scores = task.evaluate(Reconstruction(result, affine), ImageReference(truth, affine))
    for name in ("bias", "bias_air", "bias_water", "bias_bone"):
        assert scores[name] == pytest.approx(3.0)


def test_an_unrolled_network_makes_images_of_k_space(tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(5):
        volume, affine = body(number)
        volume[..., 0] = -1000  # nothing there, as where a brain was cut out
        write_array(volume + 1000, affine, tmp_path / "data" / f"scan{number}.nrrd")
    about = {"kind": "mr", "sampling": "random", "acceleration": 3, "center_fraction": 0.2, "coils": 4, "noise": 0.01}
    network = {"name": "varnet", "iterations": 2, "width": 6}
    config = reconstruction_config(tmp_path / "data", network=network, acquisition=about, epochs=2, iterations=130)
    config["optimizer"]["learning_rate"] = 5e-3
    config["plan"] = {"patch": [48, 48, 1], "spacing": [2.0, 2.0, 0.0]}
    bundle = load_bundle(train(config, tmp_path / "out"))
    assert bundle.info.images.unit == "" and bundle.info.metrics["psnr_db"]["mean"] > 15
    volume, affine = body(50)
    image = make_image(volume[None] + 1000, affine)
    predictor = open_predictor(bundle)
    measured, truth = predictor.task.given(image, "somebody")
    zero_filled = reconstruct_measurement("zero-filled", measured).values
    worst = root_mean_square(zero_filled - truth.values)
    # It learned with sensitivities that were estimated from nine lines, as they are here.
    assert measured.sensitivities is None
    assert root_mean_square(predictor.predict(measured).values - truth.values) < 0.6 * worst


@pytest.mark.parametrize("network", [{"name": "red-cnn", "width": 8}, {"name": "fbpconvnet", "width": 4, "levels": 2}])
def test_volumes_of_thin_slices_are_denoised_in_three_dimensions(tmp_path, network):
    (tmp_path / "data").mkdir()
    for number in range(4):
        volume, _ = body(number, size=32, slices=32)
        write_array(volume, np.diag([2.0, 2.0, 2.0, 1.0]), tmp_path / "data" / f"scan{number}.nrrd")
    noise = {"kind": "noise", "sd": 80.0}
    config = reconstruction_config(tmp_path / "data", network=network, acquisition=noise, epochs=1, iterations=4)
    bundle = load_bundle(train(config, tmp_path / "out"))
    assert bundle.plan.patch == (32, 32, 32)
    # Noise of 80 in a range of 2000, and hardly anything learned: 20 log10(2000 / 80) = 27.96 dB, more where clipped.
    assert 26 < bundle.info.metrics["psnr_db"]["mean"] < 33
