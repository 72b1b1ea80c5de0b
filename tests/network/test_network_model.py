import pytest
import torch
from oracle import TINY, tiny_net

from pathopan.network.flips import FlippedNet
from pathopan.network.model import InferenceNet, PanopticLogits, PanopticNet


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    return tiny_net()


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_every_map_has_the_size_of_the_input(net, size):
    with torch.inference_mode():
        region, nucleus, shape = net(noise(*size))
    assert [tuple(part.shape) for part in (region, nucleus, shape)] == [(1, n, *size) for n in (5, 4, 4)]


@pytest.mark.parametrize("shift", [(32, 0), (0, 64), (32, 96)])
def test_where_a_tile_is_cut_changes_nothing_inside(net, shift):
    """No global pooling, no normalisation over space: shifted by a multiple of 32 the interior is the same."""
    y, x = shift
    image = noise(448, 448)
    with torch.inference_mode():
        whole = net(image[..., :352, :352])
        moved = net(image[..., y : y + 352, x : x + 352])
    halo = 128
    for first, second in zip(whole, moved, strict=True):
        inner = first[..., halo + y : 352 - halo, halo + x : 352 - halo]
        assert inner.numel() == 0 or inner.abs().sum() > 0
        torch.testing.assert_close(inner, second[..., halo : 352 - halo - y, halo : 352 - halo - x], atol=1e-4, rtol=0)


def test_an_image_does_not_see_the_others_of_its_batch(net):
    both = torch.cat([noise(64, 64), noise(64, 64, seed=1)])
    with torch.inference_mode():
        together, alone = net(both), net(both[:1])
    for first, second in zip(together, alone, strict=True):
        torch.testing.assert_close(first[:1], second, atol=1e-5, rtol=0)


def test_a_fresh_network_sees_few_nuclei():
    torch.manual_seed(0)
    fresh = PanopticNet(5, 4, **TINY).eval()
    with torch.inference_mode():
        shape = fresh(noise(64, 64)).shape_BKHW
    assert shape[:, :2].sigmoid().mean() < 0.3


def test_training_sees_the_answer_before_the_prior_too(net):
    with torch.inference_mode():
        logits, free = net.forward_unconstrained(noise(64, 64))
        torch.testing.assert_close(net.compatibility(logits.region_BRHW, free), logits.nucleus_BNHW)


def test_the_inference_network_takes_bytes_and_gives_probabilities(net):
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (0.2, 0.4, 0.6), (0.1, 0.2, 0.3)
    with torch.inference_mode():
        region, nucleus, shape = InferenceNet(net, mean, std).eval()(image)
        by_hand = (image.permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(
            1, 3, 1, 1
        )
        logits = net(by_hand)
    assert region.dtype == torch.uint8
    assert (region == logits.region_BRHW.argmax(dim=1)).float().mean() > 0.999
    torch.testing.assert_close(nucleus.sum(dim=1), torch.ones(2, 64, 64))
    torch.testing.assert_close(shape[:, :2], logits.shape_BKHW[:, :2].sigmoid(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shape[:, 2:], logits.shape_BKHW[:, 2:], atol=1e-3, rtol=1e-3)


def test_the_four_pixels_of_a_position_start_alike():
    """Sub-pixel heads make no checkerboard of their own."""
    torch.manual_seed(0)
    with torch.inference_mode():
        shape = PanopticNet(5, 4, **TINY).eval()(noise(64, 64)).shape_BKHW
    corners = [shape[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    for corner in corners[1:]:
        torch.testing.assert_close(corner, corners[0])


class Compass(torch.nn.Module):
    """A network whose answers turn with the image: bright pixels are nuclei, offsets point up the gradient."""

    def forward(self, image: torch.Tensor) -> PanopticLogits:
        gray = image.mean(dim=1, keepdim=True)
        dx = (gray.roll(-1, 3) - gray.roll(1, 3)) / 2
        dy = (gray.roll(-1, 2) - gray.roll(1, 2)) / 2
        return PanopticLogits(gray.repeat(1, 5, 1, 1), gray.repeat(1, 4, 1, 1), torch.cat([gray, gray, dx, dy], dim=1))


def test_flips_are_turned_back():
    image = noise(64, 96)
    for alone, averaged in zip(Compass()(image), FlippedNet(Compass())(image), strict=True):
        torch.testing.assert_close(averaged, alone)
