"""An array as a slide: fields, tests, notebooks, and plain PNG, JPEG or BMP images."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image, UnidentifiedImageError

from pathopan.errors import ShapeMismatch, UnreadableSlide
from pathopan.geometry import Window
from pathopan.slide.base import RgbImage, SlideInfo, settle_mpp
from pathopan.slide.resample import XY, read_window, white_canvas

_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, RuntimeError, MemoryError, struct.error)
_COLOR_MODES = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


class ArraySlide:
    """An image in memory, with an mpp, that reads like a slide.

    Parameters
    ----------
    pixels : (Y, X, 3) uint8
        Level 0.
    mpp : float
        Micrometres per pixel.
    slide_id : str
        Name of the slide in every output.
    path : Path, optional
        Where the pixels came from.

    Raises
    ------
    ShapeMismatch
        If the array is not (Y, X, 3) uint8.
    ConfigError
        If the mpp is not a positive number.

    Examples
    --------
    >>> slide = ArraySlide(np.zeros((4, 6, 3), np.uint8), mpp=0.5, slide_id="black")
    >>> slide.read(Window(-1, 0, 2, 1), 0.5).tolist()
    [[[255, 255, 255], [0, 0, 0]]]
    """

    def __init__(self, pixels: RgbImage, *, mpp: float, slide_id: str, path: Path | None = None) -> None:
        """Keep the array; it is not copied."""
        check_rgb(pixels)
        source = path or Path(slide_id)
        settled, notes = settle_mpp(source, None, mpp)
        size = (pixels.shape[1], pixels.shape[0])
        self._pixels = pixels
        self._info = SlideInfo(slide_id, source, size, settled, (1.0,), (0, 0, *size), "image", notes)

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""
        return self._info

    def read(self, window: Window, mpp: float) -> RgbImage:
        """Read pixels at an mpp; see :class:`pathopan.slide.base.Slide`."""
        return read_window(self._read_level, [(1.0, 1.0)], window, self._info.scale_l0(mpp))

    def _read_level(self, _level: int, window: Window) -> tuple[RgbImage, XY]:
        canvas, inside = white_canvas(window, Window(0, 0, *self._info.size_l0))
        canvas[inside.relative_to(window).slices] = self._pixels[inside.slices]
        return canvas, (float(window.x), float(window.y))

    def close(self) -> None:
        """Do nothing: there is no file."""

    def __enter__(self) -> Self:
        """Close at the end of a ``with`` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the slide."""
        self.close()


def check_rgb(pixels: object) -> None:
    """Refuse what is no picture.

    Raises
    ------
    ShapeMismatch
        If it is not a (Y, X, 3) uint8 array.
    """
    if not isinstance(pixels, np.ndarray):
        msg = f"an image needs a (Y, X, 3) uint8 array, found {type(pixels).__name__}; read the file first"
        raise ShapeMismatch(msg)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        msg = f"an image needs a (Y, X, 3) uint8 array, found {pixels.shape} {pixels.dtype}"
        raise ShapeMismatch(msg)


def open_image(path: Path, *, slide_id: str, slide_mpp: float | None) -> ArraySlide:
    """Open a plain image (PNG, JPEG, BMP) as a slide.

    Raises
    ------
    MissingMpp
        If no mpp is given: such files hold at best a resolution for printing.
    UnreadableSlide
        If the image is damaged, or not in color.
    """
    mpp, _ = settle_mpp(path, None, slide_mpp)
    return ArraySlide(_read_image(path), mpp=mpp[0], slide_id=slide_id, path=path)


def _read_image(path: Path) -> RgbImage:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.verify()  # of a PNG: its checksums, which reading its pixels passes over
            with Image.open(path) as image:
                image.load()
                return _in_color(path, image)
    except Image.DecompressionBombError as error:
        msg = f"{path}: too large for a plain image; convert it to a pyramidal TIFF, such as with vips tiffsave"
        raise UnreadableSlide(msg) from error
    except (UnidentifiedImageError, *_DAMAGE) as error:
        if isinstance(error, UnreadableSlide):
            raise
        msg = f"{path}: cannot be read as an image: {error}. Copy the file again"
        raise UnreadableSlide(msg) from error


def _in_color(path: Path, image: Image.Image) -> RgbImage:
    if image.mode not in _COLOR_MODES:
        msg = f"{path}: mode {image.mode} is not color; pathopan reads bright-field RGB images with 8 bits per channel"
        raise UnreadableSlide(msg)
    if image.mode in ("RGBA", "PA") or "transparency" in image.info:
        see_through = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(see_through, mask=see_through.getchannel("A"))
        return np.asarray(canvas)
    return np.asarray(image.convert("RGB"))
