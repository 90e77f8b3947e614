"""Back ends: the same logits as plain torch, everywhere; the compile cache; memory; what is chosen and refused."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from MedMapAILib import devices
from MedMapAILib.errors import InputError
from MedMapAILib.inference import backends
from MedMapAILib.inference.backends import Choice, OutOfMemory, allocator, bfloat16, choose, open_backend
from MedMapAILib.inference.backends.backend import is_memory_error, memory_errors
from MedMapAILib.inference.backends.compile_cache import CompileCache
from MedMapAILib.inference.backends.network_memory import forward_bytes, weight_bytes
from MedMapAILib.networks import SEGMENTATION, build, size_divisor
from test_networks import SMALL
from torch import nn
from torch.nn.functional import cross_entropy

openvino = pytest.importorskip("openvino", reason="the OpenVINO back end is optional")

KINDS = [(name, dims) for name in SEGMENTATION for dims in (2, 3)]
BOTH = ("torch", "openvino")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of each test's own."""
    monkeypatch.setenv("MEDMAPAI_CACHE", str(tmp_path / "cache é"))
    bfloat16.is_faster.cache_clear()
    return tmp_path / "cache é" / "compiled"


def choice(backend, precision="fp32"):
    return Choice(backend, "cpu", precision, "")


def make(name, dims):
    """A small uneven network, and windows that it takes."""
    torch.manual_seed(0)
    options = {**SMALL[name][dims - 2], "dropout": 0.0}
    network = build(name, spatial_dims=dims, in_channels=2, out_channels=3, **options).eval()
    divisor = size_divisor(name, spatial_dims=dims, **options)
    return network, torch.randn(2, 2, *(max(2 * d, 16 // d * d) for d in divisor))


def plain(network, windows):
    with torch.inference_mode():
        return network(windows)


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_float32_is_what_plain_torch_computes(backend, name, dims):
    network, windows = make(name, dims)
    expected = plain(network, windows)
    opened = open_backend(choice(backend), network, key="", threads=1)
    # Batches of one and of two take different ways through torch.
    for part in (windows, windows[:1]):
        logits = opened(part)
        assert logits.dtype == torch.float32 and logits.device == opened.device
        assert (logits - expected[: len(part)]).abs().max() < 1e-3 * expected.std()
    opened.close()


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_bfloat16_gives_the_same_labels(backend, name, dims):
    """Of networks that have learned to find a bright ball, as far as some steps go."""
    if backend == "openvino" and not devices.has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    torch.manual_seed(0)
    options = {**SMALL[name][dims - 2], "dropout": 0.0}
    network = build(name, spatial_dims=dims, in_channels=1, out_channels=2, **options)
    divisor = size_divisor(name, spatial_dims=dims, **options)
    size = [-(-32 // d) * d for d in divisor]
    grid = torch.stack(torch.meshgrid(*(torch.arange(float(s)) for s in size), indexing="ij"))
    centers = torch.tensor([[12.0] * dims, [18.0] * dims])
    distance = (grid - centers.reshape(2, dims, *[1] * dims)).norm(dim=1)
    label, image = (distance < 9).long(), torch.sigmoid((9 - distance) / 1.5)[:, None] * 2 - 1
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        cross_entropy(network(image), label).backward()
        optimizer.step()
    network.eval()
    opened = open_backend(choice(backend, "bf16"), network, key="", threads=1)
    logits = opened(image)
    assert logits.dtype == torch.float32
    assert (logits.argmax(1) == plain(network, image).argmax(1)).float().mean() >= 0.99
    # The caller's network keeps its float32 weights.
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_bfloat16_normalizes_with_float32_sums():
    """A mean far from zero: sums in bfloat16, which has 8 bits, would lose the deviations altogether."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 1, 1, bias=False), nn.InstanceNorm3d(1, affine=True)).eval()
    nn.init.ones_(network[0].weight)
    x = (100 + torch.randn(1, 1, 24, 24, 24)).bfloat16().float()
    logits = open_backend(choice("torch", "bf16"), network, key="", threads=1)(x)
    # Values up to 4 in bfloat16 are rounded by up to 2⁻⁷.
    assert (logits - plain(network, x)).abs().max() < 0.02


@pytest.mark.parametrize("backend", BOTH)
def test_the_first_of_several_outputs_is_taken(backend):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 3, 3, padding=1)

        def forward(self, x):
            y = self.layer(x)
            return [y, y[..., ::2, ::2]]

    network, x = Two().eval(), torch.randn(1, 1, 16, 16)
    logits = open_backend(choice(backend), network, key="", threads=1)(x)
    torch.testing.assert_close(logits, network(x)[0].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BOTH)
def test_several_shapes_stay_prepared(backend, caplog):
    network, windows = make("unet", 3)
    opened = open_backend(choice(backend), network, key="", threads=1)
    small = windows[..., : windows.shape[-1] // 2]
    caplog.set_level(logging.DEBUG, "MedMapAILib")
    for part in (windows, small, windows, small):
        opened.prepare(part.shape)
        assert (opened(part) - plain(network, part)).abs().max() < 1e-3
    if backend == "openvino":
        assert [r.message for r in caplog.records] == ["compiling a network"] * 2


@pytest.mark.parametrize("backend", BOTH)
def test_windows_that_are_views_are_read_rightly(backend):
    network, windows = make("unet", 3)
    view = windows.flip(2).transpose(0, 0)[:1, :, :, :, : windows.shape[4]]
    opened = open_backend(choice(backend), network, key="", threads=1)
    assert (opened(view) - plain(network, view)).abs().max() < 1e-3


def test_small_images_in_batches_of_one_go_to_onednn(tmp_path):
    """torch's own kernel would be 2 to 4 times slower; oneDNN says on stdout what it is asked to run."""
    script = """
import sys, torch
from torch import nn
from MedMapAILib.inference.backends import Choice, open_backend
network = nn.Conv3d(48, 48, 3, padding=1).eval()
open_backend(Choice("torch", "cpu", "fp32", ""), network, key="", threads=1)(torch.zeros(1, 48, 8, 8, 8))
"""
    done = run(script, ONEDNN_VERBOSE="1")
    if "onednn_verbose" not in done.stdout:
        pytest.skip("torch is built without oneDNN here")
    assert "exec,cpu,convolution" in done.stdout


# --- compile cache ---


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_the_second_start_does_not_compile(cache, caplog):
    caplog.set_level(logging.DEBUG, "MedMapAILib")
    network, windows = make("unet", 3)
    first = open_backend(choice("openvino"), network, key="ab", threads=1)
    expected = first(windows).clone()
    memory = first.memory_bytes(windows.shape)
    assert len(entries(cache)) == 1

    def never():
        raise AssertionError("the network was asked for")

    caplog.clear()
    second = open_backend(choice("openvino"), never, key="ab", threads=1)
    assert torch.equal(second(windows), expected)
    assert second.memory_bytes(windows.shape) == memory
    assert [r.message for r in caplog.records] == ["compiled network taken from the disk"]


def test_another_key_shape_precision_or_thread_count_is_another_entry(cache):
    network, windows = make("unet", 3)
    open_backend(choice("openvino"), network, key="ab", threads=1)(windows)
    open_backend(choice("openvino"), network, key="cd", threads=1)(windows)
    open_backend(choice("openvino"), network, key="ab", threads=2)(windows)
    open_backend(choice("openvino"), network, key="ab", threads=1)(windows[:1])
    assert len(entries(cache)) == 4
    open_backend(choice("openvino"), network, key="", threads=1)(windows)
    assert len(entries(cache)) == 4


@pytest.mark.parametrize(
    "harm",
    [
        lambda e: (e / "model.blob").write_bytes((e / "model.blob").read_bytes()[:-100]),
        lambda e: (e / "model.blob").unlink(),
        lambda e: (e / "entry.json").write_text("{"),
        lambda e: (e / "entry.json").write_text("[]"),
        lambda e: (e / "entry.json").unlink(),
        lambda e: (e / "entry.json").write_text(
            json.dumps({**json.loads((e / "entry.json").read_text()), "identity": {"key": "other"}})
        ),
    ],
)
def test_a_broken_or_foreign_entry_is_made_anew(cache, harm):
    network, windows = make("unet", 2)
    expected = open_backend(choice("openvino"), network, key="ab", threads=1)(windows).clone()
    harm(entries(cache)[0])
    torch.testing.assert_close(open_backend(choice("openvino"), network, key="ab", threads=1)(windows), expected)
    said = json.loads((entries(cache)[0] / "entry.json").read_text())
    assert said["identity"]["key"] == "ab"


def test_a_blob_that_openvino_refuses_is_made_anew(cache):
    network, windows = make("unet", 2)
    backend = open_backend(choice("openvino"), network, key="ab", threads=1)
    expected = backend(windows).clone()
    identity = json.loads((entries(cache)[0] / "entry.json").read_text())["identity"]
    CompileCache().store(identity, b"of another build", {"memory_bytes": 1})
    torch.testing.assert_close(open_backend(choice("openvino"), network, key="ab", threads=1)(windows), expected)
    assert (entries(cache)[0] / "model.blob").stat().st_size > 100


def test_where_nothing_can_be_written_it_works_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDMAPAI_CACHE", str(tmp_path / "file"))
    network, windows = make("unet", 2)
    logits = open_backend(choice("openvino"), network, key="ab", threads=1)(windows)
    assert (logits - plain(network, windows)).abs().max() < 1e-3


def test_the_least_recently_used_entries_go_first(tmp_path):
    store = CompileCache(tmp_path, most_bytes=250)
    for n in range(2):
        assert store.store({"key": n}, bytes(100), {})
        os.utime(store._place({"key": n}) / "entry.json", (1000 + n, 1000 + n))
    assert store.load({"key": 0}) is not None  # used just now
    assert store.store({"key": 2}, bytes(100), {"memory_bytes": 3})
    assert [store.holds({"key": n}) for n in range(3)] == [True, False, True]
    assert store.load({"key": 2}).notes == {"memory_bytes": 3}
    assert not store.store({"key": 3}, bytes(300), {})


def test_many_writers_at_once_leave_one_whole_entry(tmp_path):
    store = CompileCache(tmp_path)
    blobs = [bytes([n]) * 100_000 for n in range(4)]

    def write(blob):
        for _ in range(10):
            store.store({"key": 1}, blob, {})

    threads = [threading.Thread(target=write, args=[blob]) for blob in blobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.store({"key": 1}, blobs[0], {})
    assert store.load({"key": 1}).blob in blobs
    assert len(entries(tmp_path)) == 1


# --- memory ---


def test_memory_of_a_small_network_is_what_paper_says():
    voxels = 16 * 12 * 8
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 4, 3, padding=1)).eval()
    # The image (1 channel) is held by the caller, 8 channels come from the first layer and 8 from ReLU.
    assert forward_bytes(network, (2, 1, 16, 12, 8)) == 2 * voxels * 4 * (1 + 8 + 8)
    assert forward_bytes(network, (2, 1, 16, 12, 8), torch.bfloat16) == 2 * voxels * 2 * (1 + 8 + 8)
    assert weight_bytes(network) == 4 * (8 * 27 + 8 + 4 * 8 * 27 + 4)


def test_looking_at_memory_leaves_the_network_alone():
    network, windows = make("unet", 3)
    expected = plain(network, windows)
    forward_bytes(network, windows.shape)
    assert torch.equal(plain(network, windows), expected)


@pytest.mark.parametrize("backend", BOTH)
def test_memory_grows_with_the_windows_and_counts_the_weights(backend):
    network, windows = make("unet", 3)
    opened = open_backend(choice(backend), network, key="", threads=1)
    one, two = opened.memory_bytes(windows[:1].shape), opened.memory_bytes(windows.shape)
    assert weight_bytes(network) < one < two < 2.01 * one


def run(script: str, **environment: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join(["MedMapAI", "Testing"])
    root = Path(__file__).resolve().parent.parent
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("backend", BOTH)
def test_the_estimate_is_near_what_a_process_takes(backend):
    script = f"""
import torch
from MedMapAILib.networks import build
from MedMapAILib.inference.backends import Choice, open_backend, openvino_quietly
def rss(what):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(what))
network = build("unet", spatial_dims=3, in_channels=1, out_channels=8, filters=[16, 32, 64]).eval()
choice, shape = Choice("{backend}", "cpu", "fp32", ""), (1, 1, 96, 96, 96)
opened = open_backend(choice, lambda: network, key="ab", threads=1)
warm = open_backend(choice, lambda: network, key="ab", threads=1)
warm(torch.zeros(1, 1, 16, 16, 16))
before = rss("VmRSS")
estimate = opened.memory_bytes(shape)
opened(torch.zeros(shape))
print(estimate, rss("VmHWM") - before)
"""
    done = run(script)
    assert done.returncode == 0, done.stderr
    estimate, measured = (int(n) for n in done.stdout.split())
    print(f"{backend}: estimated {estimate / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")
    assert 0.6 < measured / estimate < 1.4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of the address space are Linux's")
@pytest.mark.parametrize("backend", BOTH)
def test_too_little_memory_is_said_so(backend):
    script = f"""
import resource, torch
from torch import nn
from MedMapAILib.inference.backends import Choice, OutOfMemory, open_backend
network = nn.Sequential(nn.Conv3d(1, 32, 3, padding=1), nn.Conv3d(32, 2, 3, padding=1)).eval()
opened = open_backend(Choice("{backend}", "cpu", "fp32", ""), network, key="", threads=1)
opened(torch.zeros(1, 1, 16, 16, 16))
now = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (now + 300 * 2**20,) * 2)
try:
    opened(torch.zeros(1, 1, 160, 160, 160))
except OutOfMemory as error:
    print("said:", error)
print(opened(torch.zeros(1, 1, 16, 16, 16)).shape)
"""
    done = run(script)
    assert "said: The memory of this computer is too small for 1 window(s) of 160×160×160 voxels;" in done.stdout, (
        done.stderr
    )
    assert "torch.Size([1, 2, 16, 16, 16])" in done.stdout


def test_what_memory_errors_look_like():
    assert is_memory_error(MemoryError())
    assert is_memory_error(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert is_memory_error(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert not is_memory_error(RuntimeError("size mismatch"))
    with pytest.raises(OutOfMemory), memory_errors("the GPU", (1, 1, 8, 8)):
        raise RuntimeError("std::bad_alloc")
    with pytest.raises(RuntimeError, match="size mismatch"), memory_errors("the GPU", (1, 1, 8, 8)):
        raise RuntimeError("size mismatch")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_stays_and_is_given_back():
    """Without it, glibc maps and unmaps each large block."""
    script = """
import ctypes
from MedMapAILib.inference.backends import allocator
rss = lambda: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmRSS"))
granted = allocator.keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
before, block = rss(), library.malloc(200 * 2**20)
ctypes.memset(block, 1, 200 * 2**20)
library.free(block)
kept = rss() - before
allocator.return_freed_memory()
print(granted, kept, rss() - before)
"""
    granted, kept, returned = run(script).stdout.split()
    if granted == "False":
        pytest.skip("not glibc")
    assert int(kept) > 190 * 1024 and int(returned) < 20 * 1024
    assert allocator.keep_freed_memory()


# --- what is chosen ---


def test_automatic_choice_on_a_cpu():
    made = choose(device="cpu")
    assert (made.backend, made.device) == ("openvino", "cpu")
    assert made.precision == ("bf16" if bfloat16.is_faster("openvino") else "fp32")
    assert choose("torch", "cpu", "fp32").backend == "torch"


def test_without_openvino_torch_serves(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "MedMapAILib.inference.backends.openvino_quietly", raising=False)
    made = choose(device="cpu", precision="fp32")
    assert made.backend == "torch" and "not installed" in made.reason
    with pytest.raises(InputError, match="pip install openvino"):
        choose("openvino", "cpu")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("onnx", "auto", "auto"), "choose auto, torch or openvino"),
        (("auto", "cpu", "fp16"), "fp16 needs a GPU"),
        (("auto", "cpu", "int8"), "choose auto, fp32, bf16, fp16"),
        (("auto", "cuda:99", "auto"), "no device cuda:99"),
        (("openvino", "cuda:99", "auto"), "no device cuda:99"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(asked, says):
    with pytest.raises(InputError, match=says):
        choose(*asked)


def test_descriptions_name_the_processor():
    network, _ = make("unet", 2)
    for backend, name in (("torch", "PyTorch"), ("openvino", "OpenVINO")):
        said = open_backend(choice(backend), network, key="", threads=1).description
        assert said == f"{name} on {devices.processor_name()}, fp32"


def test_whether_bfloat16_is_faster_is_measured_once_and_kept(cache):
    if not devices.has_bfloat16() or devices.has_amx():
        pytest.skip("known without measuring on this processor")
    answer = bfloat16.is_faster("torch")
    path = cache.parent / "bfloat16.json"
    kept = json.loads(path.read_text())
    assert list(kept.values()) == [answer]
    path.write_text(json.dumps({name: not value for name, value in kept.items()}))
    bfloat16.is_faster.cache_clear()
    assert bfloat16.is_faster("torch") is not answer


def test_importing_the_back_ends_is_light():
    done = run("import sys, MedMapAILib.inference.backends; print('torch' in sys.modules, 'openvino' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_entries_are_readable_by_their_owner(cache):
    network, windows = make("unet", 2)
    open_backend(choice("openvino"), network, key="ab", threads=1)(windows)
    assert entries(cache)[0].stat().st_mode & stat.S_IRWXU == stat.S_IRWXU
    assert set(backends.BACKENDS) == set(BOTH)


def test_nothing_is_told_to_anyone(tmp_path):
    """OpenVINO would report that it was imported and what it converted; here no process is started, no address looked
    up and no file left for that."""
    code = """
import os, socket, sys
tried = []
def refused(*arguments, **options):
    tried.append(arguments)
    raise OSError("no network here")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refused
forked = []
os.register_at_fork(before=lambda: forked.append(1))
import torch
from MedMapAILib.inference.backends import choose, open_backend
backend = open_backend(choose("openvino", "cpu", "fp32"), torch.nn.Conv3d(1, 2, 3, padding=1).eval(), key="ab")
backend(torch.zeros(1, 1, 8, 8, 8))
assert sys.modules["openvino_telemetry"] is None
assert not tried and not forked, (tried, forked)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "CI": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()
