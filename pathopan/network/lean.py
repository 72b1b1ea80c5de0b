"""A network as inference runs it: the same answers for less.

Two things are left out. First, what only the context around a tile would need: the encoder sees all of it, but a
decoder computes no more of each stage than the answers in the middle depend on. Second, multiplications of copies: a
3 x 3 convolution of a map that was doubled by nearest neighbours meets each value up to four times, so the weights
that meet one value are added up first, and doubling and convolution become one transposed convolution of kernel 4 and
stride 2, with 4 multiplications in place of 9 (the converse of Shi et al. 2016, arXiv:1609.07009).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pathopan.network.flips import FlippedNet
from pathopan.network.model import PanopticLogits, PanopticNet

_DEEPEST = 32
"""Stride of the encoder's last map, from which decoders start."""


def lean_net(net: nn.Module, crop: int = 0, *, add_up: bool = True) -> nn.Module:
    """Give a network that says of the middle of an image what another one says there, for less where it can.

    Parameters
    ----------
    net : Module
        ``forward(image_B3HW) -> PanopticLogits``; it is put into evaluation mode. Its weights are copied where they
        are added up, so it must not be trained after that.
    crop : int
        Pixels at each side that are context only: the maps are smaller by twice this.
    add_up : bool
        Whether to add weights up. In 8 bits that gains nothing: transposed convolutions are not everywhere made in it.
    """
    net = net.eval()
    if isinstance(net, FlippedNet):
        return FlippedNet(lean_net(net.net, crop, add_up=add_up))
    return _LeanPanopticNet(net, crop, add_up=add_up) if type(net) is PanopticNet else _Middle(net, crop)


class _Middle(nn.Module):
    """Any other architecture: it answers for all, and what is not asked for is cut off."""

    def __init__(self, net: nn.Module, crop: int) -> None:
        super().__init__()
        self.net, self.crop = net, crop

    def forward(self, image_B3HW: Tensor) -> PanopticLogits:
        return PanopticLogits(*(_inner(maps, self.crop) for maps in self.net(image_B3HW)))


class _LeanPanopticNet(nn.Module):
    def __init__(self, net: PanopticNet, crop: int, *, add_up: bool) -> None:
        super().__init__()
        self.crop = crop
        self.encoder, self.compatibility = net.encoder, net.compatibility
        self.region_head, self.nucleus_head, self.shape_head = net.region_head, net.nucleus_head, net.shape_head
        encoder: Any = net.encoder
        width = int(encoder.out_channels[-1]) if add_up else None
        self.region_decoder = _LeanDecoder(net.region_decoder, width, crop, reach=2)  # a convolution, and bilinear
        self.nucleus_decoder = _LeanDecoder(net.nucleus_decoder, width, crop, reach=1)  # a convolution

    def forward(self, image_B3HW: Tensor) -> PanopticLogits:
        features = self.encoder(image_B3HW)
        coarse = self.region_head(self.region_decoder(features))
        scale = float(self.region_decoder.stride)
        region = functional.interpolate(coarse, scale_factor=scale, mode="bilinear", align_corners=False)
        region = _inner(region, self.crop - self.region_decoder.cut_px)
        nucleus_features = self.nucleus_decoder(features)
        heads = (self.nucleus_head, self.shape_head)
        free, shape = (_inner(head(nucleus_features), self.crop - self.nucleus_decoder.cut_px) for head in heads)
        return PanopticLogits(region, self.compatibility(region, free), shape)


class _LeanDecoder(nn.Module):
    """A U-Net decoder whose stages leave out what the middle does not depend on.

    Parameters
    ----------
    decoder : Module
        Of segmentation-models-pytorch, with batch normalisation and without attention.
    width : int or None
        Channels of the encoder's last map; None to leave the weights as they are.
    crop : int
        Pixels of the image at each side that are context only.
    reach : int
        How far what follows the decoder looks, in pixels of the decoder's last map.
    """

    def __init__(self, decoder: Any, width: int | None, crop: int, *, reach: int) -> None:
        super().__init__()
        blocks = list(decoder.blocks)
        self.stride = _DEEPEST >> len(blocks)
        cuts = _cuts(len(blocks), crop // self.stride - reach)
        self.cut_px = 2 * cuts[-1] * self.stride
        self.cuts = list(zip(cuts, [0, *(2 * cut for cut in cuts)], strict=False))
        self.blocks = nn.ModuleList()
        for block in blocks:
            self.blocks.append(_PlainBlock(block) if width is None else _AddedUpBlock(block, width))
            width = width and int(block.conv1[0].out_channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x, *skips = features[:0:-1]
        for number, (block, (cut, done)) in enumerate(zip(self.blocks, self.cuts, strict=True)):
            skip = _inner(skips[number], 2 * cut) if number < len(skips) else None
            x = block(_inner(x, cut - done), skip)
        return x


def _cuts(blocks: int, context: int) -> list[int]:
    """Say how many pixels at each side each block's smaller map can do without.

    Two 3 x 3 convolutions look two pixels far.

    Examples
    --------
    >>> _cuts(4, 79)
    [3, 8, 18, 38]
    """
    found = []
    for _ in range(blocks):
        context = max(0, (context - 2) // 2)
        found.append(context)
    return found[::-1]


class _PlainBlock(nn.Module):
    """Doubling, joining with the encoder's map of that size, and two convolutions."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BCHW: Tensor, skip_BCHW: Tensor | None) -> Tensor:
        found: Tensor = self.block(x_BCHW, 2 * x_BCHW.shape[2], 2 * x_BCHW.shape[3], skip_connection=skip_BCHW)
        return found


class _AddedUpBlock(nn.Module):
    """The same, with the first convolution in two parts: a transposed one of what was doubled, and one of the rest."""

    def __init__(self, block: Any, width: int) -> None:
        super().__init__()
        first, norm, self.activation = block.conv1
        self.conv2 = block.conv2
        conv: nn.Conv2d = fuse_conv_bn_eval(first, norm)
        with torch.no_grad():
            self.up = nn.ConvTranspose2d(width, conv.out_channels, kernel_size=4, stride=2, padding=1)
            self.up.weight.copy_(_added_up(conv.weight[:, :width]))
            self.up.bias.copy_(conv.bias)  # type: ignore[union-attr, arg-type]
            self.skip = None
            if conv.in_channels > width:
                rest = conv.in_channels - width
                self.skip = nn.Conv2d(rest, conv.out_channels, kernel_size=3, padding=1, bias=False)
                self.skip.weight.copy_(conv.weight[:, width:])

    def forward(self, x_BCHW: Tensor, skip_BCHW: Tensor | None) -> Tensor:
        x = self.up(x_BCHW)
        if self.skip is not None:
            x = x + self.skip(skip_BCHW)
        found: Tensor = self.conv2(self.activation(x))
        return found


def _added_up(weight_OI33: Tensor) -> Tensor:
    """Turn the weights of a convolution after doubling into those of a transposed one, (I, O, 4, 4).

    Value i of the smaller map lies at 2i and 2i + 1 of the doubled one, so output 2i - 1 + t meets it by each weight k
    for which t + k is 2 or 3.
    """
    meets = torch.tensor([[float(t + k in (2, 3)) for k in range(3)] for t in range(4)])
    return torch.einsum("oikl,sk,tl->iost", weight_OI33, meets, meets)


def _inner(maps_BCHW: Tensor, cut: int) -> Tensor:
    return maps_BCHW[:, :, cut:-cut, cut:-cut] if cut else maps_BCHW
