"""The optimisers that a recipe may name."""

from __future__ import annotations

import functools
from types import ModuleType

import torch
from torch import nn

from pathopan.network.precision import FLOAT32, fast_precision
from pathopan.network.vision_ops import declare_missing_operators

OPTIMISERS = ("adamw", "muon")


def build_optimiser(name: str, net: nn.Module, *, weight_decay: float) -> torch.optim.Optimizer:
    """Build an optimiser over all weights of a network; the learning rate is set at every step.

    ``adamw`` is AdamW (Loshchilov & Hutter 2019). ``muon`` (Jordan et al. 2024, timm's implementation) makes the
    momentum of each dense convolution orthogonal before it steps along it, scaled so that AdamW's learning rate fits
    (Liu et al. 2025); depthwise convolutions, the heads, the first convolution, biases and normalisation are left to
    NAdamW.

    Parameters
    ----------
    name : str
        One of ``OPTIMISERS``.
    net : Module
        Any network; heads are what its children named ``*_head`` hold.
    weight_decay : float
        Decoupled, of all weights.
    """
    if name == "adamw":
        return torch.optim.AdamW(net.parameters(), weight_decay=weight_decay)
    declare_missing_operators()
    from timm.optim import Muon, muon

    if fast_precision(next(net.parameters()).device.type) == FLOAT32:
        _orthogonalise_in_float32(muon)
    dense = {id(weight) for weight in _dense_weights(net)}
    groups = [
        {"params": [weight for weight in net.parameters() if id(weight) in dense], "use_fallback": False},
        {"params": [weight for weight in net.parameters() if id(weight) not in dense], "use_fallback": True},
    ]
    optimiser: torch.optim.Optimizer = Muon(groups, weight_decay=weight_decay, nesterov=True, betas=(0.9, 0.999))
    return optimiser


def _orthogonalise_in_float32(muon: ModuleType) -> None:
    """Make timm's Muon compute in float32: it does in bfloat16, cannot be told otherwise, and knows no slow hardware.

    On a CPU without AVX512-BF16 that was 6.0 of the 8.5 s of a step; in float32 it is 0.5 s.
    """
    made = muon.zeropower_via_newtonschulz
    if not isinstance(made, functools.partial):
        muon.zeropower_via_newtonschulz = functools.partial(made, dtype=torch.float32)  # type: ignore[attr-defined]


def _dense_weights(net: nn.Module) -> list[torch.Tensor]:
    """List the weights of convolutions that mix channels, but for those that read the image or give the answer."""
    return [
        module.weight
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.in_channels > 3
        and not name.partition(".")[0].endswith("_head")
    ]
