import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from pathopan.errors import ConfigError
from pathopan.network.model import PanopticNet
from pathopan.training.optimiser import OPTIMISERS, build_optimiser
from pathopan.training.recipe import Recipe


@pytest.fixture(scope="module")
def net() -> PanopticNet:
    torch.manual_seed(0)
    return PanopticNet(5, 4, nucleus_channels=(16, 16, 8, 8), region_channels=(16, 8, 8))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_weight_is_trained_once(net: PanopticNet, name: str) -> None:
    optimiser = build_optimiser(name, net, weight_decay=0.01)
    held = [id(weight) for group in optimiser.param_groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in net.parameters())


def test_muon_turns_only_what_mixes_channels_inside_the_network(net: PanopticNet) -> None:
    turned, left = build_optimiser("muon", net, weight_decay=0.01).param_groups
    named = {id(weight): name for name, weight in net.named_parameters()}
    names = {named[id(weight)] for weight in turned["params"]}
    assert any(name.startswith("encoder.") for name in names)
    assert any(name.startswith("region_decoder.") for name in names)
    assert not any("head" in name.partition(".")[0] or name.startswith("compatibility") for name in names)
    assert all(weight.ndim == 4 and weight.shape[1] > 3 for weight in turned["params"])
    assert any(weight.ndim == 4 and weight.shape[1] == 1 for weight in left["params"])  # depthwise


def test_muon_steps_are_as_long_whatever_the_gradient() -> None:
    lengths = []
    for size in (1e-3, 1e3):
        torch.manual_seed(0)
        net = PanopticNet(5, 4, nucleus_channels=(16, 16, 8, 8), region_channels=(16, 8, 8))
        optimiser = build_optimiser("muon", net, weight_decay=0.0)
        weight = optimiser.param_groups[0]["params"][0]
        before = weight.detach().clone()
        weight.grad = torch.randn_like(weight) * size
        optimiser.step()
        lengths.append(float((weight.detach() - before).norm()))
    assert lengths[0] == pytest.approx(lengths[1], rel=0.02)


def test_a_recipe_with_an_unknown_optimiser_is_refused() -> None:
    with pytest.raises(ConfigError, match="no optimiser 'lion'; known: adamw, muon"):
        Recipe("mine", optimiser="lion")


@pytest.mark.parametrize("density", [[1.0], [0.0, 1.0], [2.0, 0.5], [1.0, float("inf")]])
def test_a_recipe_with_an_impossible_density_is_refused(density: list[float]) -> None:
    with pytest.raises(ConfigError, match="two factors above 0, the lower one first"):
        Recipe("mine", density=density)


@pytest.mark.parametrize("hue", [-0.1, 1.1, float("nan")])
def test_a_recipe_with_an_impossible_hue_is_refused(hue: float) -> None:
    with pytest.raises(ConfigError, match=r"stain_hue .* must be 0 \(none\) to 1"):
        Recipe("mine", stain_hue=hue)


def test_recipes_of_adamw_are_stored_as_they_were_before_there_was_a_choice() -> None:
    assert {"optimiser", "density"}.isdisjoint(Recipe("mine").to_dict())
    assert Recipe("mine", density=[0.5, 2.0]).to_dict()["density"] == [0.5, 2.0]
    assert dataclasses.replace(Recipe("mine"), optimiser="muon").to_dict()["optimiser"] == "muon"


@pytest.mark.parametrize("fast", [False, True])
def test_muon_computes_in_the_precision_that_is_fast_here(monkeypatch, fast):
    from timm.optim import muon  # after pathopan, which declares operators that torchvision may lack

    seen = set()
    made = muon.zeropower_via_newtonschulz

    def watched(gradient: torch.Tensor, *args: Any, dtype: torch.dtype = torch.bfloat16, **more: Any) -> Any:
        seen.add(dtype)
        return made(gradient, *args, dtype=dtype, **more)

    monkeypatch.setattr(muon, "zeropower_via_newtonschulz", watched)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    net = nn.Sequential(nn.Conv2d(4, 8, 3))
    for _ in range(2):
        optimiser = build_optimiser("muon", net, weight_decay=0.0)  # twice: it is changed once
    net(torch.ones(1, 4, 8, 8)).sum().backward()
    optimiser.step()
    assert seen == {torch.bfloat16 if fast else torch.float32}
