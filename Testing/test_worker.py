"""The worker process: what it does, how it ends, and what it leaves behind, whatever happens to it or to its host."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from MedMapAILib.errors import Cancelled, InputError, RunError
from MedMapAILib.inference.failures import failure_of_exception, failure_of_exit
from MedMapAILib.inference.messages import RunRequest
from MedMapAILib.inference.transport import SubprocessTransport
from MedMapAILib.inference.warm_models import WarmModels, bundle_state
from MedMapAILib.inference.worker_client import WorkerClient
from MedMapAILib.results import Segmentation
from synthetic import SEGMENTS, ball_and_box, small_config, write_dataset

TESTING = Path(__file__).resolve().parent
FOLDER = Path("/dev/shm")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at Linux's processes and shared memory")

#: A worker that is the real one but for what stands in front.
CHANGED_WORKER = "import sys\n{}\nfrom MedMapAILib.inference.worker import main\nmain(sys.argv[1:])\n"
#: The real one, with runs that end in another way.
CHANGED_RUN = CHANGED_WORKER.format(
    "from MedMapAILib.inference.worker import Worker\ndef run(*_):\n    {}\nWorker._run = run"
)
#: A program of whatever sort that says hello correctly and then does what it likes.
FOREIGN = (
    "import json, os, sys, time\nfrom MedMapAILib import __version__\n"
    "from MedMapAILib.inference.messages import PROTOCOL\n"
    "def say(**event): print(json.dumps(event), flush=True)\n"
    "def hello(**other):\n"
    "    say(**{{'event': 'hello', 'protocol': PROTOCOL, 'version': __version__, 'pid': os.getpid(), **other}})\n"
    "{}\n"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A bundle with a tiny network, in a folder whose name is not easy."""
    return write_model(tmp_path_factory.mktemp("models") / "Modelle für Ärzte 日本" / "ball and box", filters=[4, 8, 8])


@pytest.fixture(scope="module")
def large_model(tmp_path_factory):
    """A bundle whose one window takes a core many seconds."""
    folder = tmp_path_factory.mktemp("models") / "large"
    return write_model(folder, filters=[32, 64, 64], patch=(192, 192, 192))


def write_model(folder, *, filters, patch=(16, 16, 16)):
    from MedMapAILib.bundle import write_bundle
    from MedMapAILib.networks import build
    from MedMapAILib.plan import Plan
    from MedMapAILib.training.config import complete_config

    folder.parent.mkdir(parents=True, exist_ok=True)
    settings = {"name": "unet", "options": {"filters": filters}, "in_channels": 1, "out_channels": 3}
    write_bundle(
        folder,
        network=build("unet", spatial_dims=3, in_channels=1, out_channels=3, filters=filters),
        network_settings=settings,
        plan=Plan(spacing=(1.0, 1.0, 1.0), patch=patch, batch=1, normalization={"kind": "zscore"}),
        task="segmentation",
        answers=SEGMENTS,
        model=complete_config(small_config(folder))["model"],
        inference={"window": None, "overlap": 0.5, "mirror_axes": [], "keep_largest": False, "surface_tolerance_mm": 1},
        train={"split": {}, "history": []},
        metrics={},
        card="Research use only.",
        versions={"monai": "1", "torch": "2", "numpy": "2"},
    )
    return folder


def request(model, shape=(24, 26, 22), **options):
    voxels, labels, affine = ball_and_box(3, shape=shape)
    if options.pop("scored", False):
        options["reference"] = Segmentation(labels, affine, SEGMENTS)
    return RunRequest(str(model), voxels[None], affine, **options)


@pytest.fixture
def make_client():
    clients = []

    def make(code=None, **options):
        if code is not None:
            options["arguments"] = ("-c", code)
        # One core each: the machine that tests run on may be at work.
        environment = {"OMP_NUM_THREADS": "1", **options.pop("environment", {})}
        clients.append(WorkerClient(SubprocessTransport, environment=environment, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.shut_down()
    until(lambda: not left_over(clients), clients, seconds=5)
    assert not left_over(clients)
    assert not blocks(os.getpid())


def left_over(clients):
    return [child for client in clients for child in client._leaving]


@pytest.fixture(scope="module")
def client(request):
    """One worker for all tests that leave it as it was: it takes seconds to import torch."""
    client = WorkerClient(SubprocessTransport, environment={"OMP_NUM_THREADS": "1"})
    yield client
    client.shut_down()


def until(condition, clients=(), seconds=120.0):
    """Poll until something is so. Returns whether it came to be in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        for client in clients:
            client.poll()
        time.sleep(0.002)
    return True


def blocks(pid):
    return list(FOLDER.glob(f"medmapai-{pid}-*")) if FOLDER.is_dir() else []


class Heard:
    """What a client calls, kept."""

    def __init__(self):
        self.events, self.results, self.failures = [], [], []

    def __call__(self, event):
        self.events.append(event)

    @property
    def done(self):
        return len(self.results) + len(self.failures)

    def kinds(self, but=("log",)):
        return [event["event"] for event in self.events if event["event"] not in but]

    def run(self, client, request):
        client.run(request, on_event=self, on_result=self.results.append, on_failure=self.failures.append)
        return self

    def train(self, client, *arguments, **options):
        options |= dict(on_event=self, on_finished=self.results.append, on_failure=self.failures.append)
        client.train(*arguments, **options)
        return self


def failure(client, what):
    """The one failure that a request ends in."""
    heard = Heard().run(client, what)
    assert until(lambda: heard.done, [client])
    assert not heard.results
    assert len(heard.failures) == 1
    assert not client.busy
    assert heard.failures[0].reason.endswith(".") and "\n" not in heard.failures[0].reason
    return heard.failures[0]


def family(client):
    """The worker and everything it has started."""
    worker = psutil.Process(client.pid)
    return [worker, *worker.children(recursive=True)]


def gone(processes):
    return all(not one.is_running() or one.status() == psutil.STATUS_ZOMBIE for one in processes)


# -- what it does -----------------------------------------------------------------------------------------------------


def test_it_answers_as_the_predictor_does(client, model):
    from MedMapAILib.bundle import load_bundle
    from MedMapAILib.image import make_image
    from MedMapAILib.inference.predictor import Predictor

    heard = Heard().run(client, request(model, notes=("A note.",), scored=True))
    assert client.busy and client.alive
    assert until(lambda: heard.done, [client])
    assert not heard.failures
    report = heard.results[0]
    what = request(model)
    predictor = Predictor(load_bundle(model))
    expected = predictor.predict(make_image(what.image, what.affine))
    np.testing.assert_array_equal(report.segmentation.labels, expected.labels)
    np.testing.assert_array_equal(report.segmentation.affine, expected.affine)
    assert report.segmentation.labels.dtype == expected.labels.dtype
    assert report.segmentation.labels.T.flags.c_contiguous
    assert report.segmentation.segments == SEGMENTS
    assert report.model == "ball-and-box"
    assert report.device == predictor.device_description
    assert report.notes[0] == "A note."
    assert set(report.scores["labels"]) == {"ball", "box"}
    fractions = [event["fraction"] for event in heard.events if event["event"] == "progress"]
    assert fractions[0] == 0 and fractions[-1] == 1 and fractions == sorted(fractions)
    assert not client.busy and client.alive
    assert not blocks(os.getpid())


def test_the_voxels_may_be_whole_numbers_in_any_memory_order(client, model):
    what = request(model)
    expected = client.run_and_wait(RunRequest(str(model), np.rint(what.image), what.affine))
    turned = np.ascontiguousarray(np.rint(what.image).astype(np.int16).T).T
    report = client.run_and_wait(RunRequest(str(model), turned, what.affine))
    np.testing.assert_array_equal(report.segmentation.labels, expected.segmentation.labels)


def test_the_second_run_is_by_the_same_process(client, model):
    client.run_and_wait(request(model))
    pid = client.pid
    client.run_and_wait(request(model, roi=((0, 30, 15), (12, 12, 12))))
    assert client.pid == pid


def test_one_request_at_a_time(client, model):
    heard = Heard().run(client, request(model))
    with pytest.raises(RunError, match="busy"):
        client.run(request(model), on_result=print, on_failure=print)
    with pytest.raises(RunError, match="busy"):
        client.train({}, "somewhere", on_finished=print, on_failure=print)
    assert until(lambda: heard.done, [client])
    assert len(heard.results) == 1


def test_mistakes_are_told_in_the_librarys_own_words(client, model):
    client.run_and_wait(request(model))
    pid = client.pid
    wrong = request(model)
    found = failure(client, RunRequest(wrong.model, np.repeat(wrong.image, 2, axis=0), wrong.affine))
    assert found.kind == "input" and "1 channel(s) and this one has 2" in found.reason
    found = failure(client, request("no such model"))
    assert found.kind == "input" and "no such model" in found.reason
    found = failure(client, request(model, device="cuda:99"))
    assert found.kind == "input" and "cuda:99" in found.reason
    with pytest.raises(InputError, match="no such model"):
        client.run_and_wait(request("no such model"))
    # A mistake costs nobody the loaded models.
    assert client.pid == pid


def test_what_libraries_print_goes_to_standard_error(make_client, model):
    said = "print('said by Python'); import os; os.write(1, b'{\"event\": \"said by C\"}\\n')\n    "
    client = make_client(CHANGED_RUN.format(said + "raise ValueError('a thing')"))
    heard = Heard().run(client, request(model))
    assert until(lambda: heard.done, [client])
    assert heard.failures[0].kind == "error"
    assert "said by C" not in heard.kinds()
    # Standard error has a pipe of its own, and may be later.
    for words in ("said by Python", "said by C"):
        assert until(lambda words=words: words in client.tail, [client], seconds=5)


def test_nothing_heavy_is_imported_by_the_host():
    code = """
import sys
from MedMapAILib.inference import worker_client, transport, messages, shared_memory
heavy = {"torch", "monai", "openvino", "scipy", "SimpleITK"} & set(sys.modules)
assert not heavy, heavy
"""
    import subprocess

    environment = {**os.environ, "PYTHONPATH": str(TESTING.parent / "MedMapAI")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@linux
def test_the_host_goes_first(client):
    """Where there is too little time or memory for both, it is the worker that waits or ends."""
    assert failure(client, request("no such model")).kind == "input"
    host = psutil.Process()
    assert psutil.Process(client.pid).nice() > host.nice() or host.nice() >= 15
    score = {pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (client.pid, host.pid)}
    assert score[client.pid] >= max(500, score[host.pid])


# -- cancelling -------------------------------------------------------------------------------------------------------


@linux
def test_cancel_ends_a_long_convolution_within_a_second(make_client, large_model, model):
    client = make_client()
    heard = Heard().run(client, request(large_model, shape=(192, 192, 192), backend="torch"))
    assert until(lambda: "progress" in heard.kinds(), [client])
    assert until(lambda: computing(client.pid), [client])
    processes = family(client)
    began = time.monotonic()
    client.cancel()
    assert heard.failures and heard.failures[0].kind == "cancelled"
    assert not client.busy
    assert until(lambda: gone(processes), seconds=1.0)
    assert time.monotonic() - began < 1.0
    assert not blocks(os.getpid())
    # Ready at once, and nothing more is heard of what was cancelled.
    assert client.run_and_wait(request(model)).segmentation.labels.shape == (24, 26, 22)
    assert heard.done == 1


def computing(pid, megabytes=600):
    """Whether the process holds more memory than torch alone takes: feature maps."""
    try:
        return psutil.Process(pid).memory_info().rss > megabytes * 2**20
    except psutil.Error:
        return False


@linux
@pytest.mark.parametrize("moment", ["at once", "hello"])
def test_cancel_while_it_starts(make_client, model, moment):
    client = make_client()
    heard = Heard().run(client, request(model))
    if moment == "hello":
        assert until(lambda: client.pid is not None, [client])
    processes = [psutil.Process(client._child.transport.pid)]
    client.cancel()
    assert heard.failures[0].kind == "cancelled"
    assert until(lambda: gone(processes), [client], seconds=1.0)
    assert not blocks(os.getpid())
    client.cancel()
    assert heard.done == 1


def test_an_interrupted_script_cancels(make_client, model):
    client = make_client()

    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.run_and_wait(request(model), on_event=interrupt)
    assert not client.busy and not client.alive


def test_cancelled_by_somebody_else(make_client, model):
    client = make_client()
    with pytest.raises(Cancelled):
        client.run_and_wait(request(model), on_event=lambda event: client.cancel())


def test_shutting_down_is_silent_and_not_for_ever(make_client, model):
    client = make_client()
    heard = Heard().run(client, request(model))
    client.shut_down()
    assert not client.busy and not client.alive
    assert not until(lambda: heard.done, [client], seconds=0.3)
    client.shut_down()
    failed = failure(client, request("no such model"))
    assert failed.kind == "input"


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("Daten für alle") / "data", 8)


def test_training_tells_what_the_command_line_tells(make_client, data, tmp_path):
    client = make_client()
    heard = Heard().train(client, small_config(data, epochs=2, iterations_per_epoch=2), tmp_path / "aus gabe ü")
    assert until(lambda: heard.done, [client])
    assert not heard.failures, heard.failures
    assert heard.results[0]["event"] == "finished"
    assert Path(heard.results[0]["bundle"], "configs", "metadata.json").is_file()
    assert "dice" in heard.results[0]["metrics"]
    kinds = heard.kinds()
    assert kinds.count("started") == 1 and kinds.count("epoch") == 2
    assert all("id" not in event for event in heard.events)
    # The process ends, and with it what a training held.
    assert not client.alive
    assert until(lambda: not client._leaving, [client], seconds=10)


@pytest.mark.slow
def test_a_training_that_is_stopped_can_be_resumed(make_client, data, tmp_path):
    client, output = make_client(), tmp_path / "out"
    heard = Heard().train(client, small_config(data, epochs=500, iterations_per_epoch=2), output)
    assert until(lambda: "epoch" in heard.kinds(), [client])
    client.stop_training()
    assert until(lambda: heard.done, [client])
    assert heard.results[0]["event"] == "stopped" and "resume" in heard.results[0]["reason"]
    assert (output / "checkpoint.pt").is_file()
    failed = Heard().train(client, small_config(data, epochs=500), output, resume=False)
    assert until(lambda: failed.done, [client])
    assert failed.failures[0].kind == "input" and "already holds a training" in failed.failures[0].reason
    again = Heard().train(client, str(output / "config.json"), output, resume=True)
    assert until(lambda: "epoch" in again.kinds(), [client])
    assert next(event for event in again.events if event["event"] == "epoch")["epoch"] > 1


def test_a_training_can_be_stopped_before_it_has_begun(make_client, data, tmp_path):
    client = make_client()
    heard = Heard().train(client, small_config(data, epochs=500), tmp_path / "out")
    client.stop_training()
    assert until(lambda: heard.done, [client])
    assert heard.results[0]["event"] == "stopped"


@linux
def test_cancel_takes_the_data_loaders_with_it(make_client, data, tmp_path):
    client = make_client()
    heard = Heard().train(client, small_config(data, epochs=500, iterations_per_epoch=50, workers=2), tmp_path / "out")
    assert until(lambda: client.pid is not None and len(family(client)) >= 3 and "started" in heard.kinds(), [client])
    processes = family(client)
    client.cancel()
    assert until(lambda: gone(processes), [client], seconds=1.0)
    assert heard.failures[0].kind == "cancelled"


# -- how it can end ---------------------------------------------------------------------------------------------------


@linux
def test_killed_from_outside(make_client, model):
    client = make_client()
    heard = Heard().run(client, request(model))
    assert until(lambda: client.pid is not None, [client])
    os.kill(client.pid, signal.SIGKILL)
    assert until(lambda: heard.done, [client], seconds=10)
    assert heard.failures[0].kind == "killed"
    assert "lack of memory" in heard.failures[0].reason
    assert not client.alive and not client.busy
    assert not blocks(os.getpid())
    # Ready again.
    assert failure(client, request("no such model")).kind == "input"


@linux
def test_killed_while_nobody_asks_anything(make_client, model):
    client = make_client()
    assert failure(client, request("no such model")).kind == "input"
    os.kill(client.pid, signal.SIGKILL)
    assert until(lambda: not client.alive, [client], seconds=10)
    assert failure(client, request("no such model")).kind == "input"


@linux
def test_its_children_go_when_it_is_killed(make_client, data, tmp_path):
    client = make_client()
    heard = Heard().train(client, small_config(data, epochs=500, iterations_per_epoch=50, workers=2), tmp_path / "out")
    assert until(lambda: client.pid is not None and len(family(client)) >= 3, [client])
    processes = family(client)
    os.kill(client.pid, signal.SIGKILL)
    assert until(lambda: heard.done, [client], seconds=10)
    assert until(lambda: gone(processes), [client], seconds=1.0)


@linux
@pytest.mark.slow
def test_too_little_memory(make_client, large_model, model):
    # The limit comes once torch is there: what it takes to start is another matter. It leaves room for a small image,
    # and not for the 125 MiB of the large one, their copies and the feature maps, in windows of whatever size.
    limit = (
        "import resource, MedMapAILib.inference.predictor, psutil\n"
        "size = psutil.Process().memory_info().vms + 240 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size))"
    )
    client = make_client(CHANGED_WORKER.format(limit))
    found = failure(client, request(large_model, shape=(320, 320, 320), backend="torch"))
    assert found.kind == "memory", found
    assert "memory" in found.reason and "region of interest" in found.reason
    assert client.run_and_wait(request(model, backend="torch")).segmentation.labels.shape == (24, 26, 22)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("raise RuntimeError('the\\nmodel is broken')", "error", "RuntimeError: the model is broken"),
        ("raise MemoryError", "memory", "memory"),
        ("import os; os.abort()", "error", "abort"),
        ("import os, sys; sys.stderr.write('what():  std::bad_alloc\\n'); os.abort()", "memory", "memory"),
        ("import os; os._exit(3)", "error", "exit status 3"),
        ("raise ImportError(name='monai')", "start", "package monai is missing; press Apply"),
    ],
)
@linux
def test_the_model_fails(make_client, model, code, kind, says):
    client = make_client(CHANGED_RUN.format(code))
    found = failure(client, request(model))
    assert found.kind == kind
    assert says in found.reason
    if "broken" in code:
        assert "Traceback" in found.tail and "in run" in found.tail
    assert not blocks(os.getpid())


def test_a_package_is_missing(make_client, model):
    client = make_client(CHANGED_WORKER.format("sys.modules['torch'] = None"))
    found = failure(client, request(model))
    assert (found.kind, "torch is missing; press Apply" in found.reason) == ("start", True)


def test_a_package_is_missing_before_the_worker_can_say_so(make_client, model):
    found = failure(make_client("import a_package_that_is_not_there"), request(model))
    assert found.kind == "start" and "a_package_that_is_not_there is missing" in found.reason


def test_the_program_is_not_there(make_client, model, tmp_path):
    found = failure(make_client(program=tmp_path / "kein Python"), request(model))
    assert found.kind == "start" and "kein Python" in found.reason
    with pytest.raises(RunError, match="kein Python"):
        make_client(program=tmp_path / "kein Python").start()


@linux
@pytest.mark.parametrize(
    "code",
    [
        "hello(); print('PROGRESS 3 %', flush=True); time.sleep(60)",
        "hello(); print('[1, 2]', flush=True); time.sleep(60)",
        "hello(); sys.stdout.buffer.write(bytes(range(256)) + b'\\n'); sys.stdout.flush(); time.sleep(60)",
        "hello(); sys.stdin.readline(); say(event='result', id=1); time.sleep(60)",
        "hello(); sys.stdin.readline(); say(event='result', id=1, output={'name': 'x', 'size': 1, 'arrays': []})\n"
        "time.sleep(60)",
        "while True: print(100 * 'x', flush=True)",
        "while True: sys.stdout.write(1000 * 'x')",
        "print('I am another program.', flush=True)",
    ],
)
def test_garbage_on_the_channel(make_client, model, code):
    client = make_client(FOREIGN.format(code))
    found = failure(client, request(model))
    assert found.kind == "protocol"
    assert not client.alive
    assert until(lambda: not client._leaving, [client], seconds=5)
    assert not blocks(os.getpid())


@linux
def test_what_a_python_prints_before_it_starts_does_no_harm(make_client):
    client = make_client(CHANGED_WORKER.format("print('Slicer says hello')"))
    assert failure(client, request("no such model")).kind == "input"


@linux
@pytest.mark.parametrize("other", ["version='0.0.1'", "protocol=99", "version=None"])
def test_another_version(make_client, model, other):
    client = make_client(FOREIGN.format(f"hello({other}); time.sleep(60)"))
    found = failure(client, request(model))
    assert found.kind == "version" and "restart Slicer" in found.reason
    assert not client.alive


@linux
def test_a_process_number_that_is_not_its_own_is_not_believed(make_client):
    """Else a foreign program could have any process killed."""
    client = make_client(FOREIGN.format(f"hello(pid={os.getppid()}); time.sleep(60)"))
    client.start()
    assert until(lambda: client._child.greeted, [client])
    assert client.pid is None


# -- without work, and without a host ---------------------------------------------------------------------------------


def test_it_ends_when_idle_and_comes_back(make_client):
    client = make_client(idle_minutes=0.3 / 60)
    assert failure(client, request("no such model")).kind == "input"
    pid = client.pid
    assert until(lambda: not client.alive, [client], seconds=10)
    assert failure(client, request("no such model")).kind == "input"
    assert client.pid != pid


@linux
def test_asked_in_the_moment_in_which_it_goes(make_client):
    """The second worker gets the request of the first, voxels and all."""
    leave = "'leaving'); sys.exit(0)"
    code = FOREIGN.format(
        f"import pathlib; first = pathlib.Path(os.environ['FIRST']); fresh = not first.exists(); first.touch()\n"
        f"if fresh: hello(); sys.stdin.readline(); say(event={leave}\n"
        "from MedMapAILib.inference.worker import main\nmain(sys.argv[1:])"
    )
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        client = make_client(code, environment={"FIRST": str(Path(folder) / "first")})
        found = failure(client, request("no such model"))
    assert found.kind == "input"


HOST = """
import os, sys, time
import numpy as np
from MedMapAILib.inference.messages import RunRequest
from MedMapAILib.inference.transport import SubprocessTransport
from MedMapAILib.inference.worker_client import WorkerClient

client = WorkerClient(SubprocessTransport)
image = np.random.default_rng(0).normal(size=(1, 192, 192, 192)).astype(np.float32)
ready = []
client.run(RunRequest(sys.argv[1], image, np.eye(4), backend="torch"), on_event=ready.append, on_result=print,
           on_failure=lambda failure: print(failure, flush=True))
moment = sys.argv[2]
while not (client.pid and (moment == "started" or any(event["event"] == "progress" for event in ready))):
    client.poll()
print(client.pid, flush=True)
while True:
    client.poll()
"""


@linux
@pytest.mark.parametrize("moment", ["started", "running"])
def test_nothing_is_left_when_the_host_is_killed(large_model, moment):
    import subprocess

    environment = {**os.environ, "PYTHONPATH": str(TESTING.parent / "MedMapAI"), "OMP_NUM_THREADS": "1"}
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(large_model), moment], stdout=subprocess.PIPE, env=environment
    )
    try:
        worker = psutil.Process(int(host.stdout.readline()))
        if moment == "running":
            assert until(lambda: computing(worker.pid), seconds=60)
        processes = [worker, *worker.children(recursive=True)]
    finally:
        host.kill()
        host.wait()
    assert until(lambda: gone(processes), seconds=5)
    assert not blocks(host.pid)


# -- models that stay loaded ------------------------------------------------------------------------------------------


class Memory:
    """A process in which each model takes what it weighs once it was used."""

    def __init__(self, weights):
        self.weights, self.in_use = weights, 100
        self.loaded = []

    def use(self, models, name):
        def load():
            self.loaded.append(name)
            return name

        assert models.get(name, load) == name
        if self.loaded[-1] == name:
            self.in_use += self.weights[name]
        models.settle(name)


def test_the_model_not_used_for_longest_goes_first():
    memory = Memory({"a": 40, "b": 40, "c": 40})
    models = WarmModels(100, used=lambda: memory.in_use)
    for name in ("a", "b", "a", "c", "a"):
        memory.use(models, name)
    assert memory.loaded == ["a", "b", "c"]
    assert "a" in models and "c" in models and "b" not in models


def test_a_model_larger_than_the_budget_is_not_kept():
    memory = Memory({"a": 40, "huge": 101})
    models = WarmModels(100, used=lambda: memory.in_use)
    memory.use(models, "huge")
    assert len(models) == 0
    memory.use(models, "a")
    assert "a" in models


def test_a_model_that_failed_is_loaded_anew():
    memory = Memory({"a": 1})
    models = WarmModels(100, used=lambda: memory.in_use)
    memory.use(models, "a")
    models.drop("a")
    models.drop("a")
    memory.use(models, "a")
    assert memory.loaded == ["a", "a"]


def test_a_model_that_was_replaced_is_another(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.pt").write_bytes(b"123")
    before = bundle_state(folder)
    assert bundle_state(folder) == before and before[2] == 3
    os.utime(folder / "model.pt", ns=(1, 1))
    assert bundle_state(folder) != before
    assert bundle_state(folder / "model.pt") == (str((folder / "model.pt").resolve()), 1, 3)


# -- words ------------------------------------------------------------------------------------------------------------


def test_how_running_out_of_memory_is_said_elsewhere():
    """Messages of torch, CUDA, numpy, the C++ library and OpenMP, as they come."""
    texts = [
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 99999 bytes. Error code 12 (Cannot allocate memory)",
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.95 GiB",
        "std::bad_alloc",
        "could not create a memory object: not enough memory",
        "can't start new thread",
    ]
    for text in texts:
        assert failure_of_exception(RuntimeError(text)).kind == "memory", text
    assert "GPU" in failure_of_exception(RuntimeError(texts[1])).reason
    assert failure_of_exception(MemoryError()).kind == "memory"
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**62, dtype=np.uint8)
    assert failure_of_exception(numpys.value).kind == "memory"
    assert failure_of_exception(RuntimeError("the weights do not fit")).kind == "error"
    assert failure_of_exception(ValueError("out of memory")).kind == "error"
    assert (
        failure_of_exit(1, None, "libgomp: Thread creation failed: Resource temporarily unavailable").kind == "memory"
    )


def test_how_a_process_can_end():
    assert failure_of_exit(None, None, "").kind == "start"
    assert failure_of_exit(None, 9, "").kind == "killed"
    assert failure_of_exit(137, None, "").kind == "killed"  # as a launcher in between says it
    assert failure_of_exit(None, 15, "").kind == "killed"
    assert "segmentation fault" in failure_of_exit(None, 11, "").reason
    assert "0xC0000005" in failure_of_exit(0xC0000005, None, "").reason
    assert failure_of_exit(1, None, "", greeted=False).kind == "start"
    assert failure_of_exit(None, 6, "terminate called after throwing an instance of 'std::bad_alloc'").kind == "memory"
