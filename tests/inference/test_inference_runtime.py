import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bench.one import memory_mib
from oracle import tiny_bundle, tiny_net

from pathopan.errors import RuntimeUnavailable
from pathopan.inference.runtime import TileMaps, TorchRuntime, open_runtime


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def reference(images) -> list[TileMaps]:
    return open_runtime(tiny_net(), tiny_bundle(), device="cpu", runtime="torch", precision="float32").run(images)


def test_maps_have_the_documented_shapes(reference):
    assert len(reference) == 3
    region, nucleus, shape = reference[0]
    assert (region.shape, region.dtype) == ((128, 128), np.uint8)
    assert (nucleus.shape, nucleus.dtype) == ((4, 128, 128), np.float32)
    assert (shape.shape, shape.dtype) == ((4, 128, 128), np.float32)
    np.testing.assert_allclose(nucleus.sum(axis=0), 1, atol=1e-5)
    assert ((shape[:2] >= 0) & (shape[:2] <= 1)).all()


def test_the_batch_size_changes_no_bit_on_a_cpu(images, reference):
    runtime = open_runtime(tiny_net(), tiny_bundle(), device="cpu", runtime="torch", precision="float32")
    for image, expected in zip(images, reference, strict=True):
        for found, known in zip(runtime.run(image[None])[0], expected, strict=True):
            np.testing.assert_array_equal(found, known)


def test_bfloat16_agrees_roughly(images, reference):
    found = open_runtime(tiny_net(), tiny_bundle(), device="cpu", runtime="torch", precision="bfloat16").run(images[:1])
    assert found[0].nucleus.dtype == np.float32
    assert np.abs(found[0].shape - reference[0].shape).mean() < 0.03
    assert np.abs(found[0].nucleus - reference[0].nucleus).mean() < 0.03


def test_openvino_agrees_with_torch(images, reference):
    pytest.importorskip("openvino")
    runtime = open_runtime(tiny_net(), tiny_bundle(), device="cpu", runtime="openvino", precision="float32")
    assert (runtime.name, runtime.device, runtime.precision, runtime.streams) == ("openvino", "cpu", "float32", 2)
    found = runtime.run(images)
    runtime.run(images[::-1])  # what was returned before must not be overwritten
    for one, other in zip(found, reference, strict=True):
        assert one.region.dtype == np.uint8
        assert (one.region == other.region).mean() > 0.999
        np.testing.assert_allclose(one.nucleus, other.nucleus, atol=2e-3)
        np.testing.assert_allclose(one.shape, other.shape, atol=5e-3)


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_maps_of_the_middle_are_those_of_the_whole_without_its_rim(images, reference, runtime):
    pytest.importorskip("openvino")
    bundle = tiny_bundle(step=64, halo=32)
    opened = open_runtime(tiny_net(), bundle, device="cpu", runtime=runtime, precision="float32", crop=12)
    for middle, whole in zip(opened.run(images)[0], reference[0], strict=True):
        assert middle.shape[-2:] == (104, 104)
        tolerance = {"atol": 5e-3} if middle.dtype == np.float32 else {"atol": 4}
        np.testing.assert_allclose(middle, whole[..., 12:-12, 12:-12], **tolerance)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_a_runtime_that_gave_back_its_memory_goes_on_alike(images, name):
    pytest.importorskip("openvino")
    runtime = open_runtime(tiny_net(), tiny_bundle(), device="cpu", runtime=name, precision="float32")
    first = runtime.run(images[:1])[0]
    kept = [part.copy() for part in first]
    runtime.release()
    again = runtime.run(images[:1])[0]
    for before, known, after in zip(first, kept, again, strict=True):
        np.testing.assert_array_equal(before, known)
        np.testing.assert_array_equal(after, known)


def test_openvino_gives_back_what_it_computed_with(images):
    pytest.importorskip("openvino")
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    bundle = tiny_bundle(step=1024, halo=32)
    runtime = open_runtime(tiny_net(bundle), bundle, device="cpu", runtime="openvino", precision="float32")
    runtime.run(np.zeros((1, 1088, 1088, 3), np.uint8))
    held = memory_mib("VmRSS")
    runtime.release()
    assert held - memory_mib("VmRSS") > 50


def test_the_choice_is_told():
    runtime = open_runtime(tiny_net(), tiny_bundle(), device="cpu", runtime="torch", precision="auto")
    assert isinstance(runtime, TorchRuntime)
    assert runtime.precision in ("float32", "bfloat16")
    assert runtime.streams == 1


def test_cuda_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeUnavailable, match="'cuda' was asked for, but torch sees none; use --device cpu"):
        open_runtime(tiny_net(), tiny_bundle(), device="cuda")


def test_openvino_does_not_run_on_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeUnavailable, match="'openvino' runs on a CPU only; use --device cpu"):
        open_runtime(tiny_net(), tiny_bundle(), device="cuda", runtime="openvino")


def test_openvino_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeUnavailable, match="'openvino' was asked for and is not installed: pip install openvino"):
        open_runtime(tiny_net(), tiny_bundle(), device="cpu", runtime="openvino")
    assert open_runtime(tiny_net(), tiny_bundle(), device="cpu").name == "torch", "auto falls back"


_WATCHED = """
import sys
sys.path.insert(0, {tests!r})
told = []

def hook(event, arguments):
    if event in ("os.fork", "socket.connect", "socket.getaddrinfo"):
        told.append(event)

import numpy as np
from oracle import tiny_bundle, tiny_net
from pathopan.inference.runtime import OpenVinoRuntime
sys.addaudithook(hook)
bundle = tiny_bundle(step=64, halo=32)
OpenVinoRuntime(tiny_net(bundle), bundle, precision="float32").run(np.zeros((1, 128, 128, 3), np.uint8))
print(told, "openvino_telemetry" in sys.modules)
"""


def test_a_network_is_converted_without_a_word_to_anybody():
    pytest.importorskip("openvino")
    script = _WATCHED.format(tests=str(Path(__file__).resolve().parents[1]))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.splitlines()[-1] == "[] False", done.stdout + done.stderr
