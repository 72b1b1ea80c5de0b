"""Comparison sheets: an image, its truth, what was found and where they differ, side by side with a legend. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw

from pathopan.classes import Color, Taxonomy
from pathopan.export.charts import INK, PAPER, SOFT, font
from pathopan.export.overlay import blend_regions, color_table
from pathopan.geometry import resize_labels

Rgb = npt.NDArray[np.uint8]

PANEL = 720
"""Pixels along the longer side of a panel that sheets aim at; small images are enlarged at most ``MAX_ZOOM`` times."""
MAX_ZOOM = 2.0
_GAP = 14
_TITLE, _TEXT = 26, 18  # font sizes, pixels


@dataclass(frozen=True)
class Drawn:
    """What is drawn on one panel, in the image's pixels."""

    nuclei: pd.DataFrame  # x_px, y_px, class_id, instance_id
    instances: npt.NDArray[np.integer] | None = None  # (Y, X); points are drawn where there is none
    region: npt.NDArray[np.integer] | None = None  # (Y, X) class ids


@dataclass(frozen=True)
class Differences:
    """Where truth and prediction agree and part, one row a nucleus.

    ``x_px, y_px``, ``class_id`` of the truth, ``found_id`` of the prediction, and ``kind``: ``right``, ``confused``
    (found as another class), ``missed`` or ``extra`` (a false alarm).
    """

    table: pd.DataFrame


def draw_sheet(
    image: Rgb,
    truth: Drawn,
    found: Drawn,
    *,
    differences: Differences,
    taxonomy: Taxonomy,
    title: str,
    lines: Sequence[str] = (),
) -> Rgb:
    """Draw an image, its truth, what was found and the differences, in a row under a title, above a legend.

    Parameters
    ----------
    image : (Y, X, 3) uint8
        RGB.
    truth, found : Drawn
        Labels of the same pixels. Nuclei without outline are dots.
    differences : Differences
        Misses, false alarms and confused classes.
    taxonomy : Taxonomy
        Names and colors.
    title : str
        First line.
    lines : sequence of str
        Further lines, such as the image's figures.

    Returns
    -------
    (Y', X', 3) uint8
    """
    zoom = min(MAX_ZOOM, PANEL / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom)))
    picture = np.asarray(
        cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC), np.uint8
    )
    panels = {
        "image": picture,
        "truth": draw_labels(picture, truth, taxonomy=taxonomy, zoom=zoom),
        "found": draw_labels(picture, found, taxonomy=taxonomy, zoom=zoom),
        "differences": _draw_differences(picture, differences, taxonomy=taxonomy, zoom=zoom),
    }
    return _lay_out(panels, title, lines, taxonomy)


def draw_labels(picture: Rgb, labels: Drawn, *, taxonomy: Taxonomy, zoom: float) -> Rgb:
    """Tint regions and draw nuclei on a picture that is ``zoom`` times the labels' size.

    Parameters
    ----------
    picture : (Y, X, 3) uint8
        RGB; it is not changed.
    labels : Drawn
        In pixels of the unzoomed image.
    taxonomy : Taxonomy
        Colors.
    zoom : float
        Pixels of the picture per pixel of the labels.
    """
    size = (picture.shape[1], picture.shape[0])
    drawn = picture.copy()
    if labels.region is not None:
        region = resize_labels(labels.region.astype(np.uint8), size)
        tints = {kind.id: kind.color for kind in taxonomy.regions}
        drawn = blend_regions(drawn, region, colors=tints, opacity=0.28)
    colors = {kind.id: kind.color for kind in taxonomy.nuclei}
    if labels.instances is not None:
        _outline(drawn, labels, colors, size)
        return drawn
    for x, y, kind in labels.nuclei[["x_px", "y_px", "class_id"]].itertuples(index=False):
        _dot(drawn, (x * zoom, y * zoom), colors.get(int(kind), SOFT), radius=5)
    return drawn


def _outline(drawn: Rgb, labels: Drawn, colors: dict[int, Color], size: tuple[int, int]) -> None:
    """Color the inner rim of each instance by its class; two pixels, so that it is seen on any picture."""
    assert labels.instances is not None  # the caller has seen to it
    large = resize_labels(labels.instances.astype(np.int32), size).astype(np.float32)  # morphology takes no int32
    square = np.ones((5, 5), np.uint8)
    rim = (large > 0) & ((cv2.erode(large, square) != large) | (cv2.dilate(large, square) != large))
    rows = labels.nuclei[labels.nuclei["instance_id"] > 0]
    kind_of = np.zeros(int(labels.instances.max(initial=0)) + 1, dtype=np.uint8)
    kind_of[rows["instance_id"].to_numpy(np.int64)] = rows["class_id"].to_numpy(np.uint8)
    drawn[rim] = color_table(colors, default=SOFT)[kind_of[large[rim].astype(np.int64)]]


def _dot(drawn: Rgb, centre: tuple[float, float], color: Color, *, radius: int) -> None:
    at = (round(centre[0]), round(centre[1]))
    cv2.circle(drawn, at, radius + 1, PAPER, -1, cv2.LINE_AA)
    cv2.circle(drawn, at, radius, color, -1, cv2.LINE_AA)


def _draw_differences(picture: Rgb, differences: Differences, *, taxonomy: Taxonomy, zoom: float) -> Rgb:
    faded = np.asarray(picture // 2 + 127, np.uint8)
    colors = {kind.id: kind.color for kind in taxonomy.nuclei}
    rows = differences.table[["x_px", "y_px", "class_id", "found_id", "kind"]]
    for x, y, true, found, kind in rows.itertuples(index=False):
        _mark(
            faded, (round(x * zoom), round(y * zoom)), kind, colors.get(int(true), SOFT), colors.get(int(found), SOFT)
        )
    return faded


def _mark(drawn: Rgb, at: tuple[int, int], kind: str, true: Color, found: Color) -> None:
    """Mark a nucleus: a ring was missed, a cross is a false alarm, a dot in a ring is another class."""
    if kind == "right":
        cv2.circle(drawn, at, 2, SOFT, -1, cv2.LINE_AA)
    elif kind == "extra":
        cv2.line(drawn, (at[0] - 6, at[1] - 6), (at[0] + 6, at[1] + 6), found, 3, cv2.LINE_AA)
        cv2.line(drawn, (at[0] - 6, at[1] + 6), (at[0] + 6, at[1] - 6), found, 3, cv2.LINE_AA)
    else:
        cv2.circle(drawn, at, 9, true, 3, cv2.LINE_AA)
        if kind == "confused":
            cv2.circle(drawn, at, 5, found, -1, cv2.LINE_AA)


def _lay_out(panels: dict[str, Rgb], title: str, lines: Sequence[str], taxonomy: Taxonomy) -> Rgb:
    height, width = next(iter(panels.values())).shape[:2]
    top = _GAP + _TITLE + 10 + len(lines) * (_TEXT + 6) + _TEXT + 12
    whole = (_GAP + len(panels) * (width + _GAP), top + height + 4 * (_TEXT + 14))
    canvas = Image.new("RGB", whole, PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((_GAP, _GAP), title, INK, font=font(_TITLE))
    for index, line in enumerate(lines):
        pen.text((_GAP, _GAP + _TITLE + 10 + index * (_TEXT + 6)), line, SOFT, font=font(_TEXT))
    for index, (name, panel) in enumerate(panels.items()):
        x = _GAP + index * (width + _GAP)
        pen.text((x, top - _TEXT - 8), name, INK, font=font(_TEXT))
        canvas.paste(Image.fromarray(panel), (x, top))
    _draw_legend(canvas, top + height + _GAP, taxonomy)
    return np.asarray(canvas, dtype=np.uint8)


def _draw_legend(canvas: Image.Image, y: int, taxonomy: Taxonomy) -> None:
    pen, letters, step = ImageDraw.Draw(canvas), font(_TEXT), _TEXT + 14
    rows = (
        ("regions", {kind.name: kind.color for kind in taxonomy.regions}, pen.rectangle),
        ("nuclei", {kind.name: kind.color for kind in taxonomy.nuclei}, pen.ellipse),
    )
    for index, (title, colors, swatch) in enumerate(rows):
        x = _GAP + 100
        pen.text((_GAP, y + index * step), title, SOFT, font=letters)
        for name, color in colors.items():
            box = (x, y + index * step + 3, x + _TEXT, y + index * step + 3 + _TEXT)
            swatch(box, fill=color, outline=SOFT)
            pen.text((x + _TEXT + 8, y + index * step), name, INK, font=letters)
            x += _TEXT + 40 + round(letters.getlength(name))
    told = (
        "ring: missed",
        "cross: false alarm",
        "dot in a ring: found as another class than the ring's",
        "grey: right",
    )
    pen.text((_GAP, y + 2 * step), "differences   " + "   ·   ".join(told), SOFT, font=letters)
