import dataclasses

import pytest
import torch

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


def test_recipes_of_adamw_are_stored_as_they_were_before_there_was_a_choice() -> None:
    assert "optimiser" not in Recipe("mine").to_dict()
    assert dataclasses.replace(Recipe("mine"), optimiser="muon").to_dict()["optimiser"] == "muon"
