"""Every network and every loss goes the whole way: training, bundle, prediction, in two and three dimensions."""

import numpy as np
import pytest
from MedMapAILib.bundle import load_bundle
from MedMapAILib.image import make_image
from MedMapAILib.inference.predictor import Predictor
from MedMapAILib.losses import LOSSES
from MedMapAILib.training.run import train
from synthetic import ball_and_box, small_config, write_dataset

SMALL = {
    "fcn": {"width": 4},
    "unet": {"filters": [4, 8, 8]},
    "attention-unet": {"filters": [4, 8, 8]},
    "residual-unet": {"filters": [4, 8, 8], "deep_supervision": True},
    "segresnet": {"filters": 8, "blocks": [1, 1, 1]},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "balls", 6)


@pytest.mark.parametrize("patch", [[32, 32, 32], [32, 32, 1], [1, 32, 32]], ids=["3D", "axial", "sagittal"])
@pytest.mark.parametrize("name", SMALL)
def test_network(data, tmp_path, name, patch):
    config = small_config(data, epochs=1, iterations_per_epoch=1)
    config["network"] = {"name": name, **SMALL[name]}
    config["plan"]["patch"] = patch
    bundle = load_bundle(train(config, tmp_path / "out"))
    voxels, _, affine = ball_and_box(9, shape=(20, 31, 9))
    result = Predictor(bundle).predict(make_image(voxels[None], affine))
    assert result.labels.shape == (20, 31, 9)
    assert set(np.unique(result.labels)) <= {0, 1, 2}


@pytest.mark.parametrize("loss", LOSSES)
def test_loss(data, tmp_path, loss):
    config = small_config(data, epochs=1, iterations_per_epoch=2)
    config["loss"] = {"name": loss}
    rows = []
    train(config, tmp_path / "out", on_event=lambda e: rows.append(e) if e["event"] == "epoch" else None)
    assert np.isfinite(rows[0]["train_loss"]) and np.isfinite(rows[0]["validation_loss"])


def test_label_values_need_not_be_consecutive(tmp_path):
    """A uint8 label map with the value 7 alone trains and gives back 7."""
    import SimpleITK

    folder = write_dataset(tmp_path / "data", 4)
    for path in (folder / "labels").iterdir():
        picture = SimpleITK.ReadImage(str(path))
        SimpleITK.WriteImage(SimpleITK.Cast((picture == 1) * 7, SimpleITK.sitkUInt8), str(path))
    config = small_config(folder, epochs=12, iterations_per_epoch=8, ema_decay=0.8)
    config["dataset"]["labels"] = {"7": "ball"}
    config["optimizer"] = {"learning_rate": 0.02}
    bundle = load_bundle(train(config, tmp_path / "out"))
    assert [s.value for s in bundle.info.segments] == [7]
    voxels, labels, affine = ball_and_box(0)
    result = Predictor(bundle).predict(make_image(voxels[None], affine))
    assert set(np.unique(result.labels)) == {0, 7}
    assert 2 * ((result.labels == 7) & (labels == 1)).sum() / ((result.labels == 7).sum() + (labels == 1).sum()) > 0.6


def test_several_channels(tmp_path):
    """A Decathlon set whose images are 4D files of two modalities."""
    import json

    import nibabel

    folder = tmp_path / "Task99_Two"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    training = []
    for number in range(4):
        voxels, labels, affine = ball_and_box(number)
        nibabel.save(
            nibabel.Nifti1Image(np.stack([voxels, -voxels], axis=-1), affine),
            folder / "imagesTr" / f"two_{number}.nii.gz",
        )
        nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "labelsTr" / f"two_{number}.nii.gz")
        training.append({"image": f"./imagesTr/two_{number}.nii.gz", "label": f"./labelsTr/two_{number}.nii.gz"})
    about = {
        "name": "Two",
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "ball", "2": "box"},
        "training": training,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(about))
    config = small_config(folder, epochs=1, iterations_per_epoch=1)
    bundle = load_bundle(train(config, tmp_path / "out"))
    assert bundle.network["in_channels"] == 2
