"""A plain vision transformer as an encoder: features at strides 2 to 32 from its one map at stride 16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

TOKEN_PX = 16
"""Pixels of the image to a token; what a transformer with patches of another size is shown is resized to that."""

_STEM = 32
"""Features at stride 2, which a transformer has no trace of."""


class VitPyramid(nn.Module):
    """Features at strides 1, 2, ... 32 as U-Net decoders take them.

    The last map is taken to strides 4, 8 and 32 by convolutions of its own (the simple feature pyramid of Li et al.,
    Exploring plain vision transformer backbones for object detection, ECCV 2022); a small convolutional stem looks at
    the image itself for stride 2.

    Attention is global: unlike convolutions, a pixel's answer depends on the whole tile around it, so tiles need the
    halo that the grid's figures ask for (``tests/bench/seams.py``).

    Parameters
    ----------
    body : Module
        timm's transformer, made with ``features_only``, its last map, and images of any size.
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        (width,), (token_px,) = body.feature_info.channels(), body.feature_info.reduction()
        self.body = body
        self.token_px = int(token_px)
        self.out_channels = [3, _STEM, width // 4, width // 2, width, width]
        self.stem = nn.Sequential(
            nn.Conv2d(3, _STEM, 3, stride=2, padding=1), nn.BatchNorm2d(_STEM), nn.ReLU(),
            nn.Conv2d(_STEM, _STEM, 3, padding=1), nn.BatchNorm2d(_STEM), nn.ReLU(),
        )  # fmt: skip
        self.to_8 = nn.Sequential(nn.ConvTranspose2d(width, width // 2, 2, stride=2), nn.GELU())
        self.to_4 = nn.Sequential(nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2), nn.GELU())

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Look at an image whose height and width are multiples of 32."""
        height, width = (size // TOKEN_PX * self.token_px for size in image_B3HW.shape[2:])
        shown = image_B3HW
        if self.token_px != TOKEN_PX:
            shown = functional.interpolate(image_B3HW, size=(height, width), mode="bilinear", align_corners=False)
        (at_16,) = self.body(shown)
        at_8 = self.to_8(at_16)
        return [image_B3HW, self.stem(image_B3HW), self.to_4(at_8), at_8, at_16, torch.max_pool2d(at_16, 2)]
