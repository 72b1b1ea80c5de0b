"""Tiles of what was found, as images that lie on the slide: regions, nuclei, density of TILs. Pure but for reading."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import zarr
from PIL import Image

from pathopan.classes import Color, Taxonomy
from pathopan.export.overlay import Rgb, color_table, density_map, heat_colors
from pathopan.geometry import Window
from pathopan.result import SlideResult

_DENSITY_MPP = 16.0
_DENSITY_SIDE = 2048  # pixels of a density map, at most, along either axis


@dataclass(frozen=True)
class Density:
    """How densely TILs stand on a whole slide, colored."""

    rgba: npt.NDArray[np.uint8]  # (Y, X, 4)
    mpp: float
    top_per_mm2: float  # what the last color stands for, or more


def encode_jpeg(picture: Rgb) -> bytes:
    """Encode a picture to look at."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


def encode_classes(classes: npt.NDArray[np.uint8], colors: Mapping[int, Color]) -> bytes:
    """Encode class ids as a PNG with a palette; an id without a color is transparent.

    Parameters
    ----------
    classes : (Y, X) uint8
        Class ids.
    colors : mapping of int to RGB
        Color of each class to show.
    """
    image = Image.fromarray(classes, mode="P")
    image.putpalette(color_table(colors, default=(0, 0, 0)).tobytes())
    alpha = bytes(255 if key in colors else 0 for key in range(256))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=alpha, compress_level=3)
    return buffer.getvalue()


def encode_rgba(picture: npt.NDArray[np.uint8]) -> bytes:
    """Encode (Y, X, 4) pixels as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture, mode="RGBA").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def read_labels(levels: Sequence[zarr.Array], label_mpp: float, *, window: Window, mpp: float) -> npt.NDArray[Any]:
    """Read a window of a label map at any mpp: each pixel takes the stored value under its centre.

    Parameters
    ----------
    levels : sequence of (Y, X) arrays
        Finest first, each half as wide as the one before.
    label_mpp : float
        Micrometres per pixel of the finest.
    window : Window
        In pixels at ``mpp``.
    mpp : float
        Micrometres per pixel of the result.

    Returns
    -------
    (height, width) int
        0 outside the map.
    """
    number = int(np.clip(np.floor(np.log2(max(mpp / label_mpp, 1.0))), 0, len(levels) - 1))
    level, step = levels[number], mpp / (label_mpp * 2**number)
    rows = np.floor((window.y + np.arange(window.height) + 0.5) * step).astype(np.int64)
    columns = np.floor((window.x + np.arange(window.width) + 0.5) * step).astype(np.int64)
    rows_in = (rows >= 0) & (rows < level.shape[0])
    columns_in = (columns >= 0) & (columns < level.shape[1])
    found = np.zeros((window.height, window.width), level.dtype)
    if rows_in.any() and columns_in.any():
        wanted_rows, wanted_columns = rows[rows_in], columns[columns_in]
        top, left = wanted_rows[0], wanted_columns[0]
        block = np.asarray(level[top : wanted_rows[-1] + 1, left : wanted_columns[-1] + 1])
        found[np.ix_(rows_in, columns_in)] = block[np.ix_(wanted_rows - top, wanted_columns - left)]
    return found


def region_colors(taxonomy: Taxonomy, hidden: frozenset[int] = frozenset()) -> dict[int, Color]:
    """Give the colors of the region classes to show; background shows the slide."""
    return {c.id: c.color for c in taxonomy.regions if c.role != "background" and c.id not in hidden}


def nucleus_colors(taxonomy: Taxonomy, hidden: frozenset[int] = frozenset()) -> dict[int, Color]:
    """Give the colors of the nucleus classes to show."""
    return {c.id: c.color for c in taxonomy.nuclei if c.id not in hidden}


def find_density(slide: SlideResult, points_um: npt.NDArray[np.float64]) -> Density:
    """Smooth the places of TILs into a colored density on the slide's tissue.

    Parameters
    ----------
    slide : SlideResult
        Its region map says where tissue is.
    points_um : (N, 2) float
        x and y of the TILs.
    """
    panoptic = slide.panoptic
    height, width = (n * panoptic.mpp for n in panoptic.region.shape)
    mpp = max(_DENSITY_MPP, panoptic.mpp, max(height, width) / _DENSITY_SIDE)
    regions = slide.region_map((0.0, 0.0, width, height), mpp)
    tissue = np.isin(regions, [c.id for c in slide.taxonomy.regions if c.role != "background"])
    density = density_map(points_um / mpp, tissue, mpp=mpp)
    top = float(np.nanquantile(density, 0.995)) if tissue.any() else 0.0
    share = np.clip(np.nan_to_num(density) / top, 0, 1) if top > 0 else np.zeros(density.shape)
    alpha = np.round(255 * np.sqrt(share)).astype(np.uint8)  # where it is low, the slide shows through
    rgba = np.dstack([heat_colors(density, top=top), alpha])
    return Density(rgba, mpp, top)


def density_tile(density: Density, window: Window, mpp: float) -> npt.NDArray[np.uint8]:
    """Give a window of a density, interpolated, as (height, width, 4) RGBA."""
    step = mpp / density.mpp
    shifts = [(start + 0.5) * step - 0.5 for start in (window.x, window.y)]
    affine = np.array([[step, 0.0, shifts[0]], [0.0, step, shifts[1]]])
    size = (window.width, window.height)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(density.rgba, affine, size, flags=flags), np.uint8)
