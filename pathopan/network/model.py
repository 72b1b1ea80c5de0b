"""PanopticNet: one encoder, a region decoder and a nucleus decoder, three heads, one forward pass.

Axes: B batch, R regions, N nucleus classes, K shape channels (centre, foreground, offset x, offset y), H, W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pathopan.network.constrain import Compatibility
from pathopan.network.encoder import build_encoder, unet_decoder

SHAPE_CHANNELS = 4
"""Centre heat map (logit), nucleus foreground (logit), and the offset to the centre along x and y in units of
``targets.OFFSET_PX``."""


class PanopticLogits(NamedTuple):
    """What the network says of each pixel, at the input's size."""

    region_BRHW: Tensor
    nucleus_BNHW: Tensor
    shape_BKHW: Tensor


class SubpixelHead(nn.Module):
    """Features at stride 2 to maps at stride 1: one convolution answers for the 2 x 2 pixels of each position.

    The four pixels of a position start out alike, so that nothing but the data makes them differ (Aitken et al. 2017:
    no checkerboard).
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, 4 * channels, kernel_size=3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        with torch.no_grad():
            self.conv.weight.copy_(self.conv.weight[::4].repeat_interleave(4, dim=0))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Double height and width."""
        answers: Tensor = self.conv(features_BCHW)
        if self.training and answers.requires_grad:  # the shuffle's gradient has another layout, slow from there on
            answers.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
        maps: Tensor = self.shuffle(answers)
        return maps


def build_head(decoder_channels: Sequence[int], channels: int, *, bias: Sequence[float] | None = None) -> nn.Module:
    """Build what turns a decoder's features into maps at stride 1.

    Parameters
    ----------
    decoder_channels : sequence of int
        Widths of the decoder's stages from stride 16 on; five end at stride 1, four at stride 2.
    channels : int
        Maps.
    bias : sequence of float, optional
        What each map says to begin with; 0 unless given. Most pixels are neither centre nor nucleus.
    """
    start = torch.tensor(bias if bias is not None else [0.0] * channels)
    if len(decoder_channels) == 5:
        conv = nn.Conv2d(decoder_channels[-1], channels, kernel_size=3, padding=1)
        head: nn.Module = conv
    else:
        head = SubpixelHead(decoder_channels[-1], channels)
        conv, start = head.conv, start.repeat_interleave(4)
    with torch.no_grad():
        conv.bias.copy_(start)  # type: ignore[union-attr]
    return head


class PanopticNet(nn.Module):
    """The joint network.

    There is no normalisation over space and no global pooling, so a pixel's answer depends on its surroundings
    only, never on where the tile around it was cut.

    Parameters
    ----------
    regions, nuclei : int
        Numbers of classes.
    encoder : str
        A segmentation-models-pytorch encoder name.
    weights : str, optional
        See :func:`pathopan.network.encoder.build_encoder`.
    nucleus_channels : sequence of 4 or 5 int
        Widths of the nucleus decoder from stride 16 on. With four it ends at stride 2, and its heads answer for the
        2 x 2 pixels of each position at once (sub-pixel convolution, Shi et al., CVPR 2016): the encoder has no
        features at stride 1, so that a fifth stage only smooths what is known at stride 2. ``breast-he-1`` has five.
    region_channels : sequence of 3 int
        Widths of the region decoder from stride 16 to stride 4.
    """

    def __init__(
        self,
        regions: int,
        nuclei: int,
        *,
        encoder: str = "tu-tf_efficientnet_lite0",
        weights: str | None = None,
        nucleus_channels: Sequence[int] = (192, 96, 64, 48),
        region_channels: Sequence[int] = (128, 64, 48),
    ) -> None:
        super().__init__()
        self.encoder = build_encoder(encoder, weights=weights)
        decoder = unet_decoder()
        self.nucleus_decoder = decoder(
            self.encoder.out_channels, tuple(nucleus_channels), n_blocks=len(nucleus_channels), use_norm="batchnorm"
        )
        self.region_decoder = decoder(
            self.encoder.out_channels, tuple(region_channels), n_blocks=len(region_channels), use_norm="batchnorm"
        )
        self.region_head = nn.Conv2d(region_channels[-1], regions, kernel_size=3, padding=1)
        self.nucleus_head = build_head(nucleus_channels, nuclei)
        self.shape_head = build_head(nucleus_channels, SHAPE_CHANNELS, bias=[-3.0, -3.0, 0.0, 0.0])
        self.compatibility = Compatibility(regions, nuclei)

    def forward(self, image_B3HW: Tensor) -> PanopticLogits:
        """Look at normalised RGB; height and width must be multiples of 32."""
        logits, _ = self.forward_unconstrained(image_B3HW)
        return logits

    def forward_unconstrained(self, image_B3HW: Tensor) -> tuple[PanopticLogits, Tensor]:
        """Give also the nucleus logits before the tissue's prior, which training supervises too."""
        features = self.encoder(image_B3HW)
        nucleus_features = self.nucleus_decoder(features)
        coarse = self.region_head(self.region_decoder(features))
        region = functional.interpolate(coarse, size=image_B3HW.shape[2:], mode="bilinear", align_corners=False)
        free = self.nucleus_head(nucleus_features)
        constrained = self.compatibility(region, free)
        return PanopticLogits(region, constrained, self.shape_head(nucleus_features)), free


class InferenceNet(nn.Module):
    """A network as the runtimes execute it: uint8 pixels in, compact probabilities out.

    Parameters
    ----------
    net : Module
        ``forward(image_B3HW) -> PanopticLogits``, in evaluation mode.
    mean, std : sequence of 3 float
        Normalisation of RGB in 0..1.
    """

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (1 / (255 * torch.tensor(std))).view(1, 3, 1, 1))
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1))

    def forward(self, image_BHW3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn (B, H, W, 3) uint8 RGB into region channels, nucleus probabilities and shape maps.

        Returns
        -------
        region_BHW : uint8
            Channel of the most probable region.
        nucleus_BNHW : float
            Probability of each class, given that there is a nucleus.
        shape_BKHW : float
            Centre and foreground as probabilities, offsets in grid pixels / ``OFFSET_PX``.
        """
        image = image_BHW3.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale - self.shift
        region, nucleus, shape = self.net(image)
        shape = torch.cat([shape[:, :2].sigmoid(), shape[:, 2:]], dim=1)
        return region.argmax(dim=1).to(torch.uint8), nucleus.softmax(dim=1), shape


ARCHITECTURES = {"PanopticNet": PanopticNet}
"""Names that a bundle may carry. A new architecture is a new entry with ``forward(image_B3HW) -> PanopticLogits``."""
