"""JPEG tiles of a TIFF, decoded straight into place.

OpenSlide blends every tile it decodes onto a canvas with alpha, which takes three times as long as decoding it. Where a
level is nothing but opaque JPEG tiles side by side, they are decoded here, by the same library to the same pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from pathopan.geometry import Window
from pathopan.slide.base import RgbImage

TIFF_DAMAGE = (
    OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError, AssertionError,
    SyntaxError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
"""What tifffile and its codecs raise on a damaged file (imagecodecs derives its errors from RuntimeError)."""


class JpegTiles:
    """The levels of a TIFF that consist of JPEG tiles.

    Parameters
    ----------
    path : Path
        The file.
    sizes : sequence of (int, int)
        Width and height of its levels, by which they are found in the file; others are not read here.
    """

    def __init__(self, path: Path, sizes: Sequence[tuple[int, int]]) -> None:
        """Find the levels."""
        self._file = tifffile.TiffFile(path)
        try:
            pages = [page for page in self._file.pages if isinstance(page, tifffile.TiffPage) and _is_plain(page)]
            found = [[page for page in pages if (page.imagewidth, page.imagelength) == size] for size in sizes]
        except TIFF_DAMAGE:
            self._file.close()
            raise
        self._levels = [same[0] if len(same) == 1 else None for same in found]

    def read(self, level: int, window: Window) -> RgbImage | None:
        """Read a window inside a level.

        Returns
        -------
        (height, width, 3) uint8, or None
            None where the level, or a tile that is missing or damaged, cannot be read here.
        """
        page = self._levels[level]
        if page is None:
            return None
        pixels = np.empty((window.height, window.width, 3), np.uint8)
        side_x, side_y = page.tilewidth, page.tilelength
        across = -(-page.imagewidth // side_x)
        for row in range(window.y // side_y, -(-window.y1 // side_y)):
            for column in range(window.x // side_x, -(-window.x1 // side_x)):
                stored = Window(column * side_x, row * side_y, side_x, side_y)
                tile = self._decoded(page, row * across + column)
                if tile is None:
                    return None
                seen = stored.intersect(window)
                pixels[seen.relative_to(window).slices] = tile[seen.relative_to(stored).slices]
        return pixels

    def _decoded(self, page: tifffile.TiffPage, index: int) -> RgbImage | None:
        """Give a whole tile."""
        try:
            self._file.filehandle.seek(page.dataoffsets[index])
            stored = self._file.filehandle.read(page.databytecounts[index])
            if len(stored) < page.databytecounts[index]:
                return None
            tile, *_ = page.decode(stored, index, jpegtables=page.jpegtables, _fullsize=True)
        except TIFF_DAMAGE:
            return None
        shape = (page.tilelength, page.tilewidth, 3)
        return tile.reshape(shape) if tile is not None and tile.size == np.prod(shape) else None

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Tell whether a page is JPEG tiles of 8-bit RGB, side by side."""
    return bool(
        page.is_tiled
        and page.compression == tifffile.COMPRESSION.JPEG
        and (page.samplesperpixel, page.bitspersample) == (3, 8)
        and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and page.imagedepth == page.tiledepth == 1
    )
