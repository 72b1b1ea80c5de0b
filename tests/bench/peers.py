"""Seconds per mm2 of the peers' networks on this machine: random weights, network time only, one CPU thread a core.

HoVer-Net is tiatoolbox's own model where that package is installed (``pip install tiatoolbox`` into an environment of
its own: its pins are not ours). The other two are built here after their descriptions: MuTILs runs one U-Net of 64 to
1,024 channels at 0.5 um/px and one at 1.0 um/px (Liu et al. 2024); InstanSeg is a U-Net of 32 to 256 channels at 0.5
um/px (Goldsborough et al. 2024). Only what a network returns for its central pixels counts as area.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


def _block(before: int, after: int) -> nn.Sequential:
    layers = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """The U-Net of Ronneberger et al. 2015, padded."""

    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(a, b) for a, b in zip((3, *widths), widths, strict=False))
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.join = nn.ModuleList(_block(2 * b, b) for _, b in pairs)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([up(x), skip], dim=1))
        return self.head(x)


def seconds_per_mm2(net: nn.Module, side: int, core: int, mpp: float, *, repeats: int = 2) -> float:
    """Time a network on windows of ``side`` pixels, of which the middle ``core`` pixels are kept."""
    net = net.eval().to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, side, side).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        net(image)
        start = time.process_time()
        for _ in range(repeats):
            net(image)
    return (time.process_time() - start) / repeats / torch.get_num_threads() / (core * mpp / 1000) ** 2


def hovernet() -> float | None:
    """HoVer-Net (fast) at 0.25 um/px: 256 pixels in, 164 out; None where tiatoolbox is not installed."""
    try:
        from tiatoolbox.models.architecture.hovernet import HoVerNet
    except ImportError:
        return None
    return seconds_per_mm2(HoVerNet(num_types=6, mode="fast"), 256, 164, 0.25, repeats=1)


def main() -> None:
    """Print one JSON object: seconds per mm2, of CPU time over threads."""
    torch.manual_seed(0)
    wide = (64, 128, 256, 512, 1024)
    peers: dict[str, Callable[[], float | None]] = {
        "HoVer-Net fast, 0.25 um/px (tiatoolbox)": hovernet,
        "MuTILs-like pair of U-Nets, 0.5 and 1.0 um/px": lambda: (
            seconds_per_mm2(UNet(wide, 8), 512, 448, 0.5) + seconds_per_mm2(UNet(wide, 8), 512, 448, 1.0)
        ),
        "InstanSeg-like U-Net, 0.5 um/px": lambda: seconds_per_mm2(UNet((32, 64, 128, 256), 8), 512, 448, 0.5),
    }
    sys.stdout.write(json.dumps({name: measure() for name, measure in peers.items()}) + "\n")


if __name__ == "__main__":
    main()
