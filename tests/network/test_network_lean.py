"""The network as inference runs it answers as the one that was trained, and does less."""

import pytest
import torch
from oracle import TINY
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pathopan.network.flips import FlippedNet
from pathopan.network.lean import lean_net
from pathopan.network.model import PanopticNet

FIVE = TINY | {"nucleus_channels": [16, 12, 8, 8, 6]}


def trained(**arguments):
    """A network whose normalisation has seen something."""
    torch.manual_seed(0)
    net = PanopticNet(5, 4, **arguments)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net.eval()


def noise(height, width):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def middle(maps, crop):
    return maps[:, :, crop : maps.shape[2] - crop, crop : maps.shape[3] - crop]


@pytest.mark.parametrize("arguments", [TINY, FIVE], ids=["to stride 2", "to stride 1"])
@pytest.mark.parametrize("crop", [0, 1, 5, 12, 30, 31, 64, 80, 110])
def test_the_middle_is_answered_for_alike(arguments, crop):
    net, image = trained(**arguments), noise(256, 320)
    with torch.inference_mode():
        for whole, lean in zip(net(image), lean_net(net, crop)(image), strict=True):
            torch.testing.assert_close(lean, middle(whole, crop), atol=1e-5, rtol=1e-5)


def test_the_network_that_was_given_stays_as_it_was():
    net, image = trained(**TINY), noise(64, 64)
    with torch.inference_mode():
        before = net(image)
        lean_net(net, 0)(image)
        for first, again in zip(before, net(image), strict=True):
            assert torch.equal(first, again)


class Other(PanopticNet):
    """Another architecture, of which nothing is known."""


def test_any_other_network_has_its_rim_cut_off():
    net, image = Other(5, 4, **TINY), noise(64, 96)
    lean = lean_net(net, 10)
    with torch.inference_mode():
        for whole, inner in zip(net(image), lean(image), strict=True):
            assert torch.equal(inner, middle(whole, 10))


def test_mirror_images_are_looked_at_for_less_too():
    net, image = FlippedNet(trained(**TINY)), noise(256, 320)
    lean = lean_net(net, 80)
    with torch.inference_mode():
        for whole, inner in zip(net(image), lean(image), strict=True):
            torch.testing.assert_close(inner, middle(whole, 80), atol=1e-5, rtol=1e-5)
    assert counted(lean, image) < 0.9 * counted(net, image)


def counted(net, image):
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(image)
    return counter.get_total_flops()


def test_it_does_less():
    arguments = {"nucleus_channels": [192, 96, 64, 48], "region_channels": [128, 64, 48]}
    net, image = PanopticNet(5, 4, encoder="tu-tf_efficientnet_lite2", **arguments).eval(), torch.zeros(1, 3, 448, 448)
    whole, folded, tile = (counted(n, image) for n in (net, lean_net(net), lean_net(net, 96)))
    assert folded < 0.85 * whole
    assert tile < 0.75 * folded
