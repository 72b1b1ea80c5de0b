"""Test-time augmentation: a network and its mirror images, averaged. A function of networks, not a flag in a loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pathopan.network.model import PanopticLogits

FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""Axes of (B, C, H, W) along which each look is mirrored: not at all, left-right, up-down, both."""


def look(net: nn.Module, image_B3HW: Tensor, axes: tuple[int, ...], *, swapped: bool = False) -> PanopticLogits:
    """Let a network look at a mirror image, and turn back what it says.

    Parameters
    ----------
    net : Module
        ``forward(image_B3HW) -> PanopticLogits``.
    image_B3HW : tensor
        The image, unmirrored.
    axes : tuple of int
        One of ``FLIPS``.
    swapped : bool
        Swap height and width first; so all eight ways to lay down a square can be had.
    """
    laid = image_B3HW.transpose(2, 3) if swapped else image_B3HW
    region, nucleus, shape = (maps.flip(axes) if axes else maps for maps in net(laid.flip(axes) if axes else laid))
    sign = [1.0, 1.0, -1.0 if 3 in axes else 1.0, -1.0 if 2 in axes else 1.0]  # centre, foreground, offset x and y
    shape = shape * shape.new_tensor(sign).view(1, 4, 1, 1)
    if swapped:
        region, nucleus, shape = (maps.transpose(2, 3) for maps in (region, nucleus, shape[:, [0, 1, 3, 2]]))
    return PanopticLogits(region, nucleus, shape)


class FlippedNet(nn.Module):
    """Look at an image four times, mirrored, and average the logits; four times the cost.

    Parameters
    ----------
    net : Module
        ``forward(image_B3HW) -> PanopticLogits``, in evaluation mode.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image_B3HW: Tensor) -> PanopticLogits:
        """Give the mean over the looks, each turned back."""
        looks = [look(self.net, image_B3HW, axes) for axes in FLIPS]
        return PanopticLogits(*(torch.stack(maps).mean(dim=0) for maps in zip(*looks, strict=True)))
