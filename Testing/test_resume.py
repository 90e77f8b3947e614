"""A training that was killed ends with the very weights of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from MedMapAILib.errors import InputError, RunError
from MedMapAILib.training.config import complete_config
from MedMapAILib.training.run import train
from synthetic import small_config, write_dataset

LIBRARY = Path(__file__).resolve().parent.parent / "MedMapAI"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "balls", 8)


def start(config_file, output, *more, stdin=subprocess.DEVNULL):
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "MedMapAILib", "train", config_file, "--output", output, "--events", *more],
        env=environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def weights(output):
    return torch.load(output / "checkpoint.pt", weights_only=True)


def assert_same(one, other):
    for part in ("network", "average"):
        assert one[part].keys() == other[part].keys()
        for key in one[part]:
            assert torch.equal(one[part][key], other[part][key]), f"{part}.{key}"
    for row, twin in zip(one["progress"]["rows"], other["progress"]["rows"], strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in twin.items() if k != "seconds"}


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_weights(data, tmp_path):
    # A checkpoint after every iteration makes as many different moments as there are.
    config = small_config(data, epochs=4, iterations_per_epoch=6, checkpoint_minutes=0.0)
    config_file = tmp_path / "config.json"
    config_file.write_text(json.dumps(config))
    whole = start(config_file, tmp_path / "whole")
    assert whole.communicate(timeout=300) and whole.returncode == 0

    broken = tmp_path / "broken"
    chance = random.Random(0)
    kills = 0
    while kills < 4:
        process = start(config_file, broken, "--resume")
        seen = 0
        wanted = chance.randrange(2, 8)
        for line in process.stdout:
            seen += json.loads(line)["event"] in ("progress", "epoch") and "preparing" not in line
            if seen >= wanted:
                time.sleep(chance.uniform(0, 0.05))
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
        process.communicate()
        if process.returncode == 0:
            break
    assert kills >= 2
    last = start(broken / "config.json", broken, "--resume")
    _, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    assert_same(weights(tmp_path / "whole"), weights(broken))
    assert not [p for p in broken.iterdir() if p.name.startswith(".")], "a temporary file was left behind"


@pytest.mark.slow
def test_a_process_whose_input_is_closed_saves_and_stops(data, tmp_path):
    """What the panel's Stop does, and what happens when Slicer dies."""
    config_file = tmp_path / "config.json"
    config_file.write_text(json.dumps(small_config(data, epochs=500)))
    process = start(config_file, tmp_path / "out", stdin=subprocess.PIPE)
    for line in process.stdout:
        if json.loads(line)["event"] == "epoch":
            process.stdin.close()
            break
    last = json.loads(process.stdout.readlines()[-1])
    assert process.wait(timeout=60) == 0
    assert last["event"] == "stopped"
    assert (tmp_path / "out" / "checkpoint.pt").exists()


def test_stopped_in_the_middle_of_an_epoch_it_goes_on_from_there(data, tmp_path):
    config = small_config(data, epochs=2, iterations_per_epoch=5)
    train(config, tmp_path / "whole")
    done = []

    def count(event):
        if "iteration" in event.get("message", ""):
            done.append(event)

    assert train(config, tmp_path / "two", on_event=count, should_stop=lambda: len(done) == 3) is None
    assert weights(tmp_path / "two")["progress"]["iteration"] == 3
    train(config, tmp_path / "two", resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "two"))


def test_resuming_with_other_settings_names_them(data, tmp_path):
    config = small_config(data, epochs=1, iterations_per_epoch=1)
    train(config, tmp_path / "out")
    config["optimizer"] = {"learning_rate": 0.5}
    with pytest.raises(InputError, match=r"optimizer\.learning_rate"):
        train(config, tmp_path / "out", resume=True)
    with pytest.raises(InputError, match="already holds a training"):
        train(config, tmp_path / "out")


def test_divergence_stops_with_a_reason_and_keeps_the_last_good_checkpoint(data, tmp_path):
    config = small_config(data, epochs=3, iterations_per_epoch=2, checkpoint_minutes=0.0)
    train({**config, "training": {**config["training"], "epochs": 3}}, tmp_path / "good")
    config["optimizer"] = {"name": "sgd", "learning_rate": 1e30, "gradient_clipping": 0}
    with pytest.raises(RunError, match="loss|gradient"):
        train(config, tmp_path / "out")
    path = tmp_path / "out" / "checkpoint.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        assert all(torch.isfinite(value).all() for value in state["network"].values())


def test_training_writes_history_and_events(data, tmp_path):
    events = []
    config = small_config(data, epochs=2, iterations_per_epoch=2)
    bundle = train(config, tmp_path / "out", on_event=events.append)
    lines = (tmp_path / "out" / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,train_loss,validation_loss,validation_dice,learning_rate")
    assert len(lines) == 3
    assert list((tmp_path / "out" / "events").glob("events.out.tfevents*"))
    assert [e["event"] for e in events if e["event"] != "progress"] == ["started", "epoch", "epoch", "finished"]
    assert json.dumps(events)
    assert bundle == tmp_path / "out" / "bundle"


def test_early_stopping_ends_before_the_last_epoch(data, tmp_path):
    # With a learning rate of almost nothing the averaged network does not improve.
    config = small_config(data, epochs=30, iterations_per_epoch=1, early_stopping_epochs=2)
    config["optimizer"] = {"learning_rate": 1e-12}
    train(config, tmp_path / "out")
    assert len(weights(tmp_path / "out")["progress"]["rows"]) < 30


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precisions_train(data, tmp_path, precision):
    config = small_config(data, epochs=1, iterations_per_epoch=2, precision=precision)
    assert train(config, tmp_path / "out").is_dir()


def test_sgd_polynomial_and_deep_supervision_train(data, tmp_path):
    config = small_config(data, epochs=1, iterations_per_epoch=2)
    config["optimizer"] = {"name": "sgd", "learning_rate": 0.01}
    config["schedule"] = {"name": "polynomial", "warmup_epochs": 1}
    config["network"]["deep_supervision"] = True
    assert train(config, tmp_path / "out").is_dir()


def test_a_plan_that_was_edited_is_honored(data, tmp_path):
    config = complete_config(small_config(data, epochs=1, iterations_per_epoch=1))
    train(config, tmp_path / "first")
    plan = json.loads((tmp_path / "first" / "plan.json").read_text())
    assert plan["spacing"] == [1.0, 1.0, 1.0]
    plan["spacing"] = [2.0, 2.0, 2.0]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    config["plan"] = {"file": str(tmp_path / "plan.json")}
    bundle = train(config, tmp_path / "second")
    assert json.loads((bundle / "configs" / "metadata.json").read_text())["medmapai"]["plan"]["spacing"] == [2.0] * 3
