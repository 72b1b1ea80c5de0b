"""Slides that OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, VMS, Philips and generic TIFF, DICOM."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import openslide
from PIL import Image

from pathopan.errors import UnreadableSlide
from pathopan.geometry import Window
from pathopan.slide.base import RgbImage, SlideInfo, check_chunk, settle_mpp
from pathopan.slide.jpeg_tiles import TIFF_DAMAGE, JpegTiles
from pathopan.slide.resample import WHITE, XY, is_whole, level_downsample, read_window

RESOLUTION_MPP = (0.02, 30.0)
"""Micrometres per pixel that a resolution in a TIFF header can mean on a microscope; 72 dpi would be 353."""

_PLAIN_TIFF = ("aperio", "generic-tiff")
"""Vendors whose levels are pages of a TIFF, whole and in place, as OpenSlide reads them."""

_ROUNDING = 1e-6  # of a pixel


class _Span(NamedTuple):
    """One axis of a read: where, and how many pixels lie before, on and after the level."""

    start: int  # level coordinate of the first pixel on the level
    corner: float  # where OpenSlide finds the first pixel, with those before the level, in level coordinates
    before: int
    length: int
    after: int


class OpenSlideSlide:
    """A slide read through OpenSlide; white where nothing was scanned.

    Parameters
    ----------
    path : Path
        The file.
    slide_id : str
        Name of the slide in every output.
    slide_mpp : float, optional
        Micrometres per level-0 pixel, in place of the file's.

    Raises
    ------
    UnreadableSlide
        If OpenSlide cannot open the file.
    MissingMpp
        If neither the file nor the caller knows the mpp.
    """

    def __init__(self, path: Path, *, slide_id: str, slide_mpp: float | None = None) -> None:
        """Open the file."""
        try:
            self._handle = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            msg = f"{path}: unknown format, or damaged beyond recognition; name a whole-slide image, or copy it again"
            raise UnreadableSlide(msg) from error
        except openslide.OpenSlideError as error:
            msg = f"{path}: OpenSlide cannot open it: {error}. Copy the file again"
            raise UnreadableSlide(msg) from error
        try:
            self._downsamples = [level_downsample(self._handle.dimensions, s) for s in self._handle.level_dimensions]
            self._info = self._describe(path, slide_id, slide_mpp)
        except BaseException:
            self._handle.close()
            raise
        self._tiles: JpegTiles | None = None
        if self._info.vendor in _PLAIN_TIFF and self._info.bounds_l0[:2] == (0, 0):
            with contextlib.suppress(*TIFF_DAMAGE):  # then OpenSlide reads it
                self._tiles = JpegTiles(path, self._handle.level_dimensions)

    def _describe(self, path: Path, slide_id: str, slide_mpp: float | None) -> SlideInfo:
        properties = self._handle.properties
        check_chunk(
            path, max((_tile_pixels(properties, level) for level in range(self._handle.level_count)), default=0)
        )
        bounds = _bounds(properties, self._handle.dimensions)
        mpp, warnings = settle_mpp(path, header_mpp(properties), slide_mpp)
        return SlideInfo(
            slide_id=slide_id,
            path=path,
            size_l0=bounds[2:],
            mpp_l0=mpp,
            downsamples=tuple(math.sqrt(x * y) for x, y in self._downsamples),
            bounds_l0=bounds,
            vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
            warnings=warnings,
        )

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""
        return self._info

    def read(self, window: Window, mpp: float) -> RgbImage:
        """Read pixels at an mpp; see :class:`pathopan.slide.base.Slide`.

        Raises
        ------
        UnreadableSlide
            If the file is damaged there; OpenSlide then refuses every later read of this handle, too.
        """
        return read_window(self._read_level, self._downsamples, window, self._info.scale_l0(mpp))

    def _read_level(self, level: int, window: Window) -> tuple[RgbImage, XY]:
        """Read level pixels around a window, and say where exactly their corner lies."""
        x, y = self._locate(level, window.x, window.x1, axis=0), self._locate(level, window.y, window.y1, axis=1)
        size = (y.before + y.length + y.after, x.before + x.length + x.after, 3)
        if not (x.length and y.length):
            return np.full(size, WHITE, np.uint8), (x.corner, y.corner)
        inside = Window(x.start, y.start, x.length, y.length)
        pixels, corner = self._tiles.read(level, inside) if self._tiles else None, (float(window.x), float(window.y))
        if pixels is None:
            pixels, corner = self._read_blended(level, inside), (x.corner, y.corner)
        if pixels.shape == size:
            return pixels, corner
        canvas = np.full(size, WHITE, np.uint8)
        canvas[y.before : y.before + y.length, x.before : x.before + x.length] = pixels
        return canvas, corner

    def _read_blended(self, level: int, inside: Window) -> RgbImage:
        """Read level pixels through OpenSlide."""
        factor = self._handle.level_downsamples[level]
        place = round(inside.x * factor), round(inside.y * factor)
        try:
            return _on_white(self._handle.read_region(place, level, (inside.width, inside.height)))
        except openslide.OpenSlideError as error:
            msg = f"{self._info.path}: cannot be read at level-0 pixel {place}: {error}. Copy the file again"
            raise UnreadableSlide(msg) from error

    def _locate(self, level: int, start: int, stop: int, *, axis: int) -> _Span:
        """Find what to ask OpenSlide for along one axis, to see a span of level pixels.

        OpenSlide takes level-0 positions and divides them by the level's downsample, as it computes it from the sizes
        of the levels. A position between two level pixels is interpolated, so the nearest whole one is asked for and
        what remains is told; negative ones are cut to whole pixels, so none is asked for.
        """
        factor = self._handle.level_downsamples[level]
        shift = self._info.bounds_l0[axis] / self._downsamples[level][axis]
        first = math.floor(start + shift + _ROUNDING)
        last = math.ceil(stop + shift - _ROUNDING) + (0 if is_whole(shift) and is_whole(factor) else 1)
        inside = max(0, first)
        length = max(0, min(last, self._handle.level_dimensions[level][axis]) - inside)
        before = min(inside, last) - first
        corner = round(inside * factor) / factor - shift - (inside - first)
        return _Span(inside, corner, before, length, last - first - before - length)

    def close(self) -> None:
        """Release the file."""
        self._handle.close()
        if self._tiles:
            self._tiles.close()

    def __enter__(self) -> Self:
        """Close at the end of a ``with`` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()


def _on_white(read: Image.Image) -> RgbImage:
    """Put an image with alpha on white: transparent is what no scanner saw."""
    pixels = np.asarray(read)
    if pixels.shape[2] == 3 or pixels[..., 3].min(initial=255) == 255:
        return np.ascontiguousarray(pixels[..., :3])
    canvas = Image.new("RGB", read.size, "white")
    canvas.paste(read, mask=read.getchannel("A"))
    return np.asarray(canvas)


def header_mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """Take the mpp from OpenSlide's properties.

    OpenSlide turns the resolution of a generic TIFF into an mpp without asking what it means. A resolution for
    printing is no mpp, so there only values that a microscope can have are taken.
    """
    try:
        x = float(properties[openslide.PROPERTY_NAME_MPP_X])
        y = float(properties[openslide.PROPERTY_NAME_MPP_Y])
    except (KeyError, ValueError):
        return None
    if properties.get(openslide.PROPERTY_NAME_VENDOR) == "generic-tiff":
        low, high = RESOLUTION_MPP
        return (x, y) if low <= x <= high and low <= y <= high else None
    return (x, y) if x > 0 and y > 0 else None


def _tile_pixels(properties: Mapping[str, str], level: int) -> int:
    """Pixels of a stored tile; 0 where the format does not tell."""
    try:
        width, height = (int(properties[f"openslide.level[{level}].tile-{side}"]) for side in ("width", "height"))
    except (KeyError, ValueError):
        return 0
    return width * height


def _bounds(properties: Mapping[str, str], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Take the scanned bounds, which QuPath crops to when all four numbers are there; else the whole file."""
    names = ("x", "y", "width", "height")
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{name}"]) for name in names)
    except (KeyError, ValueError):
        return 0, 0, *size
    return (x, y, width, height) if width > 0 and height > 0 else (0, 0, *size)
