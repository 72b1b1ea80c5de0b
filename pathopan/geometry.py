"""Windows, tiles and grids, and the few conversions between their frames.

Frames are told by suffix: ``_l0`` level-0 pixels of the slide as it is shown (the scanned bounds start at 0, 0),
``_px`` grid pixels at the grid's mpp, ``_t`` pixels inside a tile's read window, ``_um`` micrometres.
Points, sizes and windows are **xy**; array axes are **yx** (``array[y, x]``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
LabelT = TypeVar("LabelT", np.uint8, np.int32)


@dataclass(frozen=True, order=True)
class Window:
    """A half-open rectangle of integer pixels: ``x <= column < x + width``.

    Examples
    --------
    >>> Window(2, 3, 10, 20).grow(1)
    Window(x=1, y=2, width=12, height=22)
    """

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        """Refuse negative sizes."""
        if self.width < 0 or self.height < 0:
            msg = f"a window cannot be {self.width} x {self.height} pixels"
            raise ValueError(msg)

    @property
    def x1(self) -> int:
        """First column to the right of the window."""
        return self.x + self.width

    @property
    def y1(self) -> int:
        """First row below the window."""
        return self.y + self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array whose origin is the frame's origin."""
        return slice(self.y, self.y1), slice(self.x, self.x1)

    def grow(self, margin: int) -> Window:
        """Widen by a margin on every side (a negative margin shrinks)."""
        return Window(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)

    def intersect(self, other: Window) -> Window:
        """Keep what both windows cover; an empty result has width or height 0."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        return Window(x, y, max(0, min(self.x1, other.x1) - x), max(0, min(self.y1, other.y1) - y))

    def relative_to(self, other: Window) -> Window:
        """Express this window in the frame whose origin is the other's corner."""
        return Window(self.x - other.x, self.y - other.y, self.width, self.height)


@dataclass(frozen=True)
class Tile:
    """One unit of work: what it sees (``read``) and what it may decide (``write``), in grid pixels."""

    index: int  # position in the full grid, row by row; stable whichever tiles are selected
    write: Window
    read: Window


@dataclass(frozen=True)
class Grid:
    """All tiles of a slide at one mpp; their write windows cover the plane exactly once.

    Parameters
    ----------
    mpp : float
        Micrometres per grid pixel.
    step, halo : int
        Side of a write window, and the margin read around it, in grid pixels.
    size : (int, int)
        Width and height of the plane in grid pixels.
    scale_l0 : (float, float)
        Level-0 pixels per grid pixel along x and y.
    offset : (int, int)
        How far the first tile starts left of and above the plane; 0 <= offset < step.
    """

    mpp: float
    step: int
    halo: int
    size: tuple[int, int]
    scale_l0: tuple[float, float]
    offset: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Check what the arithmetic relies on."""
        if self.mpp <= 0 or self.step <= 0 or self.halo < 0 or min(self.size) < 0:
            msg = f"impossible grid: mpp {self.mpp}, step {self.step}, halo {self.halo}, size {self.size}"
            raise ValueError(msg)
        if not all(0 <= shift < self.step for shift in self.offset):
            msg = f"grid offset {self.offset} must lie in [0, step={self.step})"
            raise ValueError(msg)

    @property
    def plane(self) -> Window:
        """The whole slide as a window."""
        return Window(0, 0, *self.size)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        if min(self.size) == 0:
            return 0, 0
        columns, rows = (math.ceil((n + o) / self.step) for n, o in zip(self.size, self.offset, strict=True))
        return rows, columns

    def __len__(self) -> int:
        """Count the tiles."""
        rows, columns = self.shape
        return rows * columns

    def __iter__(self) -> Iterator[Tile]:
        """Yield the tiles row by row."""
        return (self.tile(index) for index in range(len(self)))

    def tile(self, index: int) -> Tile:
        """Build the tile at a position; windows have constant size and may reach over the plane's border.

        Raises
        ------
        IndexError
            If the grid has no such tile.
        """
        if not 0 <= index < len(self):
            msg = f"tile {index} of a grid with {len(self)} tiles"
            raise IndexError(msg)
        row, column = divmod(index, self.shape[1])
        write = Window(column * self.step - self.offset[0], row * self.step - self.offset[1], self.step, self.step)
        return Tile(index, write, write.grow(self.halo))


def l0_from_px(points_px: npt.ArrayLike, grid: Grid) -> FloatArray:
    """Convert (N, 2) xy points from grid pixels to level-0 pixels (both with pixel corners at integers)."""
    return np.asarray(points_px, dtype=np.float64) * np.asarray(grid.scale_l0)


def px_from_l0(points_l0: npt.ArrayLike, grid: Grid) -> FloatArray:
    """Convert (N, 2) xy points from level-0 pixels to grid pixels."""
    return np.asarray(points_l0, dtype=np.float64) / np.asarray(grid.scale_l0)


def um_from_px(points_px: npt.ArrayLike, grid: Grid) -> FloatArray:
    """Convert (N, 2) xy points from grid pixels to micrometres from the slide's corner."""
    return np.asarray(points_px, dtype=np.float64) * grid.mpp


def resize_labels(labels: npt.NDArray[LabelT], size: tuple[int, int]) -> npt.NDArray[LabelT]:
    """Resample classes or ids: each new pixel takes what lies under its middle.

    OpenCV's plain nearest neighbour takes what lies under the upper left corner instead: half a new pixel off, which
    blurs the outlines that a network learns.

    Parameters
    ----------
    labels : (Y, X) uint8 or int32
        Ids below 2**24.
    size : (int, int)
        Width and height to resample to.
    """
    values = labels if labels.dtype == np.uint8 else labels.astype(np.float32)  # OpenCV resizes no int32
    resized = cv2.resize(values, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.ascontiguousarray(resized, dtype=labels.dtype)


def nearest_pixels(
    window: Window, mpp: float, stored_mpp: float, shape: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give the rows and columns of a stored map (Y, X) that are nearest to the pixel centres of a window at an mpp."""
    rows = np.floor((window.y + np.arange(window.height) + 0.5) * mpp / stored_mpp).astype(np.int64)
    columns = np.floor((window.x + np.arange(window.width) + 0.5) * mpp / stored_mpp).astype(np.int64)
    return np.clip(rows, 0, shape[0] - 1), np.clip(columns, 0, shape[1] - 1)


def centres_within(start: int, count: int, end: float) -> npt.NDArray[np.bool_]:
    """Say which of ``count`` pixels from ``start`` on have their centre in 0..end."""
    centres = start + np.arange(count) + 0.5
    return (centres >= 0) & (centres < end)
