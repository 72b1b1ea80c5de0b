"""Charts of an evaluation as pictures: confusion tables, reliability curves, figures image by image. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

Rgb = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
Curve = tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]
"""Claimed probability, observed share and number of claims, bin by bin."""

INK, SOFT, PAPER = (27, 36, 48), (91, 103, 118), (255, 255, 255)
_LINE, _BLUE, _RED = (217, 223, 230), (11, 92, 173), (200, 60, 70)
_CELL_W, _CELL_H, _PAD = 132, 62, 18


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Give the typeface that Pillow brings along, so that pictures look the same on every machine."""
    return ImageFont.load_default(size)


def draw_confusion(table: pd.DataFrame, *, title: str) -> Rgb:
    """Draw a table of counts: rows are the truth, each cell with its count and its share of the row.

    Parameters
    ----------
    table : DataFrame
        Counts; index true classes, columns found classes.
    title : str
        Above it.
    """
    counts = table.to_numpy(np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    left, top = _PAD + 150, _PAD + 90
    size = (left + counts.shape[1] * _CELL_W + _PAD, top + counts.shape[0] * _CELL_H + _PAD)
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((_PAD, _PAD), title, INK, font=font(22))
    pen.text((_PAD, top - 28), "truth", SOFT, font=font(15))
    pen.text((left, top - 52), "found as", SOFT, font=font(15))
    for column, name in enumerate(table.columns):
        place = (left + (column + 0.5) * _CELL_W, top - 10)
        pen.text(place, str(name), INK, font=font(17), anchor="ms")
    for row, name in enumerate(table.index):
        y = top + (row + 0.5) * _CELL_H
        pen.text((left - 12, y), str(name), INK, font=font(17), anchor="rm")
        for column in range(counts.shape[1]):
            corner = (left + column * _CELL_W, top + row * _CELL_H)
            _draw_cell(pen, corner, float(counts[row, column]), float(share[row, column]))
    return np.asarray(canvas, dtype=np.uint8)


def _draw_cell(pen: ImageDraw.ImageDraw, corner: tuple[int, int], count: float, share: float) -> None:
    x, y = corner
    fill = tuple(round(255 + (target - 255) * share) for target in _BLUE)
    ink = PAPER if share > 0.55 else INK
    pen.rectangle((x, y, x + _CELL_W - 2, y + _CELL_H - 2), fill=fill, outline=_LINE)
    middle = x + _CELL_W / 2
    pen.text((middle, y + 24), f"{count:,.0f}", ink, font=font(18), anchor="mm")
    pen.text((middle, y + 45), f"{share:.1%}", ink, font=font(14), anchor="mm")


def draw_reliability(curves: Mapping[str, Curve]) -> Rgb:
    """Draw reliability curves, one panel each: points on the diagonal mean that probabilities are honest.

    Parameters
    ----------
    curves : mapping of str to Curve
        Title -> curve; empty bins are NaN. The area of a point follows the number of claims.
    """
    side, gap, top = 320, 74, 64
    canvas = Image.new("RGB", (gap + len(curves) * (side + gap), top + side + 66), PAPER)
    pen = ImageDraw.Draw(canvas)
    for index, (title, (claimed, observed, count)) in enumerate(curves.items()):
        x = gap + index * (side + gap)
        pen.text((x, 18), title, INK, font=font(19))
        pen.rectangle((x, top, x + side, top + side), outline=_LINE)
        pen.line((x, top + side, x + side, top), fill=SOFT, width=1)
        filled = count > 0
        points = [(x + c * side, top + (1 - o) * side) for c, o in zip(claimed[filled], observed[filled], strict=True)]
        pen.line(points, fill=_BLUE, width=3)
        for (px, py), n in zip(points, count[filled].tolist(), strict=True):
            radius = 3 + 9 * np.sqrt(n / count.sum())
            pen.ellipse((px - radius, py - radius, px + radius, py + radius), fill=_BLUE)
        for share in (0.0, 0.5, 1.0):
            pen.text((x + share * side, top + side + 6), f"{share:g}", SOFT, font=font(15), anchor="ma")
            pen.text((x - 8, top + (1 - share) * side), f"{share:g}", SOFT, font=font(15), anchor="rm")
        pen.text((x, top + side + 30), "across: claimed; upward: came true", SOFT, font=font(14))
    return np.asarray(canvas, dtype=np.uint8)


def draw_spread(images: pd.DataFrame) -> Rgb:
    """Draw each figure of a table of images as a line of dots from 0 to 1, with its median.

    Parameters
    ----------
    images : DataFrame
        One row an image, one column a figure; columns that hold no number between 0 and 1 are left out.
    """
    kept = [name for name in images.columns if images[name].between(0, 1).any()]
    left, width, step = 300, 760, 40
    canvas = Image.new("RGB", (left + width + 130, _PAD * 2 + step * len(kept) + 24), PAPER)
    pen = ImageDraw.Draw(canvas)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + share * width
        pen.line((x, _PAD, x, _PAD + step * len(kept)), fill=_LINE)
        place = (x, _PAD + step * len(kept) + 6)
        pen.text(place, f"{share:g}", SOFT, font=font(15), anchor="ma")
    for index, name in enumerate(kept):
        values = images[name].dropna().to_numpy(np.float64)
        y = _PAD + (index + 0.5) * step
        pen.text((left - 14, y), name, INK, font=font(16), anchor="rm")
        jitter = (np.arange(len(values)) * 0.618 % 1 - 0.5) * step * 0.5
        for value, shift in zip(values.tolist(), jitter.tolist(), strict=True):
            x = left + value * width
            pen.ellipse((x - 3, y + shift - 3, x + 3, y + shift + 3), fill=(*_BLUE, 255), outline=PAPER)
        median = float(np.median(values))
        pen.line((left + median * width, y - step * 0.4, left + median * width, y + step * 0.4), fill=_RED, width=3)
        pen.text((left + width + 16, y), f"median {median:.2f}", _RED, font=font(15), anchor="lm")
    return np.asarray(canvas, dtype=np.uint8)
