"""The optimisers that a recipe may name."""

from __future__ import annotations

import torch
from torch import nn

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
    from timm.optim import Muon

    dense = {id(weight) for weight in _dense_weights(net)}
    groups = [
        {"params": [weight for weight in net.parameters() if id(weight) in dense], "use_fallback": False},
        {"params": [weight for weight in net.parameters() if id(weight) not in dense], "use_fallback": True},
    ]
    optimiser: torch.optim.Optimizer = Muon(groups, weight_decay=weight_decay, nesterov=True, betas=(0.9, 0.999))
    return optimiser


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
