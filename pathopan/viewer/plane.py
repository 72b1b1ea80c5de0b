"""Where the tiles of a zoomable picture lie. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pathopan.geometry import Window

TILE = 512
"""Side of a tile in pixels: that of a chunk of the label maps."""


@dataclass(frozen=True)
class Plane:
    """A slide as a pyramid of square tiles, like Deep Zoom's: each level is twice as wide as the one before.

    Parameters
    ----------
    mpp : float
        Micrometres per pixel of the finest level, along both axes.
    size : (int, int)
        Width and height of the slide in such pixels.

    Examples
    --------
    >>> plane = Plane(0.5, (2000, 600))
    >>> plane.levels, plane.tile(0, column=0, row=0), plane.tile(2, column=3, row=0)
    (3, (Window(x=0, y=0, width=500, height=150), 2.0), (Window(x=1536, y=0, width=464, height=512), 0.5))
    """

    mpp: float
    size: tuple[int, int]

    @property
    def levels(self) -> int:
        """Count the levels: the whole slide fits into one tile of the coarsest."""
        return 1 + max(0, math.ceil(math.log2(max(*self.size, 1) / TILE)))

    @property
    def padded(self) -> tuple[int, int]:
        """Width and height rounded up so that they are whole pixels on every level; nothing shifts between levels."""
        unit = 2 ** (self.levels - 1)
        width, height = (max(1, math.ceil(n / unit)) * unit for n in self.size)
        return width, height

    def tile(self, level: int, *, column: int, row: int) -> tuple[Window, float]:
        """Give the pixels that a tile shows, at the mpp of its level.

        Raises
        ------
        IndexError
            If there is no such tile.
        """
        if not 0 <= level < self.levels:
            msg = f"level {level} of {self.levels}"
            raise IndexError(msg)
        factor = 2 ** (self.levels - 1 - level)
        width, height = (n // factor for n in self.padded)
        if not (0 <= column * TILE < width and 0 <= row * TILE < height):
            msg = f"tile {column}, {row} of level {level}, which has {width} x {height} pixels"
            raise IndexError(msg)
        window = Window(column * TILE, row * TILE, TILE, TILE).intersect(Window(0, 0, width, height))
        return window, self.mpp * factor
