"""From stored levels to pixels at any mpp: which level, how much of it, and an exact, antialiased resize. Pure.

A window in pixels at an mpp covers a rectangle of level-0 pixels whose corners need not be integers; in a level it
covers that rectangle divided by the level's downsample. Both axes are treated apart, so pixels need not be square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image

from pathopan.geometry import Window
from pathopan.slide.base import RgbImage

LevelReader = Callable[[int, Window], tuple[RgbImage, tuple[float, float]]]
"""(level, window in level pixels) to pixels and the exact level coordinates of their corner."""

XY = tuple[float, float]

WHITE = 255
"""Value of all channels where there is no slide."""

_COARSER = 1.01  # a level this little coarser than asked is still taken: the blur is invisible, the time a quarter
_FILTER = Image.Resampling.BICUBIC  # scaled with the step, so it is a low-pass filter when pixels shrink
_SUPPORT = 2.0  # half the filter's width in output pixels
_EXACT = 1e-4  # of a pixel: windows this well aligned are copied, or averaged from whole pixels


def level_downsample(size_l0: tuple[int, int], size_level: tuple[int, int]) -> XY:
    """Find how many level-0 pixels a level's pixel spans along x and y.

    Scanners shrink by whole factors and cut or round up the last pixel, so the ratio of the sizes is off by up to
    one pixel over the slide. Where a whole factor explains both sizes, it is the factor.

    Examples
    --------
    >>> level_downsample((4443, 3567), (2221, 1783))
    (2.0, 2.0)
    >>> level_downsample((1000, 1000), (400, 400))
    (2.5, 2.5)
    """
    ratios = [whole / part for whole, part in zip(size_l0, size_level, strict=True)]
    factor = max(1, round(math.sqrt(ratios[0] * ratios[1])))
    if all(abs(whole / factor - part) < 1 for whole, part in zip(size_l0, size_level, strict=True)):
        return float(factor), float(factor)
    return ratios[0], ratios[1]


def pick_level(downsamples: Sequence[XY], scale_l0: XY) -> int:
    """Choose the coarsest level that is at most one per cent coarser than asked, else the finest.

    Parameters
    ----------
    downsamples : sequence of (float, float)
        Level-0 pixels per level pixel, finest level first.
    scale_l0 : (float, float)
        Level-0 pixels per wanted pixel.

    Examples
    --------
    >>> pick_level([(1, 1), (2, 2), (4, 4)], (3.9, 3.9)), pick_level([(1, 1), (2, 2), (4, 4)], (3.97, 3.97))
    (1, 2)
    """
    fine_enough = [
        level
        for level, downsample in enumerate(downsamples)
        if all(d <= s * _COARSER for d, s in zip(downsample, scale_l0, strict=True))
    ]
    return max(fine_enough, key=lambda level: downsamples[level], default=0)


def source_window(window: Window, step: XY) -> Window:
    """Find the level pixels that a window needs, with the border that the filter reaches into.

    Parameters
    ----------
    window : Window
        In pixels at the wanted mpp.
    step : (float, float)
        Level pixels per wanted pixel.
    """
    spans = []
    for start, stop, size in ((window.x, window.x1, step[0]), (window.y, window.y1, step[1])):
        if is_whole(start * size) and abs(size - 1) < _EXACT / max(1, stop - start):
            spans.append((round(start * size), round(start * size) + stop - start))
            continue
        border = math.ceil(_SUPPORT * max(1.0, size)) + 1
        spans.append((math.floor(start * size) - border, math.ceil(stop * size) + border))
    (x0, x1), (y0, y1) = spans
    return Window(x0, y0, x1 - x0, y1 - y0)


def _is_aligned(start: float, step: float, count: int) -> bool:
    """Tell whether a number of steps from a start all lie on pixel corners, within rounding."""
    return step > 0.5 and is_whole(start) and abs(step - round(step)) < _EXACT / max(1, count)


def is_whole(value: float) -> bool:
    """Tell whether a coordinate lies on a pixel corner, within rounding."""
    return abs(value - round(value)) < _EXACT


def resample(pixels: RgbImage, *, origin: XY, step: XY, size: tuple[int, int]) -> RgbImage:
    """Resize a rectangle of an image to a size, with sub-pixel alignment and without aliasing.

    Parameters
    ----------
    pixels : (Y, X, 3) uint8
        Holds the rectangle.
    origin : (float, float)
        x and y of the rectangle's corner, in its pixels.
    step : (float, float)
        Its pixels per output pixel.
    size : (int, int)
        Width and height of the result.

    Returns
    -------
    (height, width, 3) uint8
        Output pixel i averages around [origin + i * step, origin + (i + 1) * step).

    Notes
    -----
    Pillow's resize with a fractional box: a cubic (a = -0.5) stretched by the step, evaluated in pixel centers. Where
    output pixels are made of whole pixels, such as 2 x 2, their mean: as networks are trained, in a tenth of the time.
    """
    width, height = size
    if width == 0 or height == 0:
        return np.empty((height, width, 3), np.uint8)
    rows, columns = pixels.shape[:2]
    if all(_is_aligned(start, s, n) for start, s, n in zip(origin, step, size, strict=True)):
        across, down = round(step[0]), round(step[1])
        whole = Window(round(origin[0]), round(origin[1]), width * across, height * down)
        if whole.intersect(Window(0, 0, columns, rows)) == whole:
            return np.asarray(cv2.resize(pixels[whole.slices], size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    box = (
        max(0.0, origin[0]),
        max(0.0, origin[1]),
        min(float(columns), origin[0] + width * step[0]),
        min(float(rows), origin[1] + height * step[1]),
    )
    return np.array(Image.fromarray(pixels).resize(size, _FILTER, box=box))


def read_window(read_level: LevelReader, downsamples: Sequence[XY], window: Window, scale_l0: XY) -> RgbImage:
    """Read a window at an mpp from the level that suits it.

    Parameters
    ----------
    read_level : callable
        Reads level pixels, white where there are none.
    downsamples : sequence of (float, float)
        Of the levels, finest first.
    window : Window
        In pixels at the wanted mpp.
    scale_l0 : (float, float)
        Level-0 pixels per wanted pixel.

    Returns
    -------
    (height, width, 3) uint8
    """
    level = pick_level(downsamples, scale_l0)
    dx, dy = downsamples[level]
    step = (scale_l0[0] / dx, scale_l0[1] / dy)
    pixels, corner = read_level(level, source_window(window, step))
    origin = (window.x * step[0] - corner[0], window.y * step[1] - corner[1])
    return resample(pixels, origin=origin, step=step, size=(window.width, window.height))


def white_canvas(window: Window, image: Window) -> tuple[RgbImage, Window]:
    """Make a white picture of a window, and give the part of it that an image covers (in the image's frame)."""
    return np.full((window.height, window.width, 3), WHITE, np.uint8), window.intersect(image)
