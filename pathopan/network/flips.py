"""Test-time augmentation: a network and its mirror images, averaged. A function of networks, not a flag in a loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pathopan.network.model import PanopticLogits

FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""Axes of (B, C, H, W) along which each look is mirrored: not at all, left-right, up-down, both."""


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
        looks = [self._look(image_B3HW, axes) for axes in FLIPS]
        return PanopticLogits(*(torch.stack(maps).mean(dim=0) for maps in zip(*looks, strict=True)))

    def _look(self, image_B3HW: Tensor, axes: tuple[int, ...]) -> PanopticLogits:
        region, nucleus, shape = (maps.flip(axes) if axes else maps for maps in self.net(self._turn(image_B3HW, axes)))
        sign = [1.0, 1.0, -1.0 if 3 in axes else 1.0, -1.0 if 2 in axes else 1.0]  # centre, foreground, offset x and y
        return PanopticLogits(region, nucleus, shape * shape.new_tensor(sign).view(1, 4, 1, 1))

    @staticmethod
    def _turn(image_B3HW: Tensor, axes: tuple[int, ...]) -> Tensor:
        return image_B3HW.flip(axes) if axes else image_B3HW
