"""A slide with known truth: tumor nests and infiltrates in stroma, with every nucleus in a color that tells its class.

The colors look like H&E from afar and are a code from near: every pair of nucleus class (0 for none) and region class
has its own color, all at least ``MIN_COLOR_DISTANCE`` apart, stored without loss. So a function from RGB to classes
(:func:`classes_from_colors`) can stand in for a network, and the whole line from slide to score has known answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile

from pathopan.classes import BREAST
from pathopan.contours import LabelMap
from pathopan.files import atomic_path

Rgb = tuple[int, int, int]

TRUTH_MPP = 0.5
"""Micrometres per pixel of the true region map."""

TUMOR, STROMA, TILS, OTHER, BACKGROUND = (
    BREAST.region(n).id for n in ("tumor", "stroma", "tils", "other", "background")
)

_REGION_BLUE: Mapping[int, int] = {TILS: 245, STROMA: 215, TUMOR: 185, OTHER: 155}
_NUCLEUS_RED_GREEN: Mapping[int, tuple[int, int]] = {
    BREAST.nucleus("til").id: (80, 129),
    BREAST.nucleus("stromal").id: (108, 75),
    BREAST.nucleus("tumor").id: (156, 38),
    BREAST.nucleus("other").id: (215, 25),
}
_BARE_RED_GREEN = (215, 165)

COLORS: Mapping[tuple[int, int], Rgb] = {
    (0, BACKGROUND): (243, 242, 243),
    **{
        (nucleus, region): (*red_green, blue)
        for region, blue in _REGION_BLUE.items()
        for nucleus, red_green in ((0, _BARE_RED_GREEN), *_NUCLEUS_RED_GREEN.items())
    },
}
"""Color of a pixel by (nucleus class id or 0, region class id).

Blue tells the region, red and green the nucleus: four colors at the same distance (140) from the bare one, 25 degrees
apart. So a pixel that resampling mixed at a nucleus's border is nearest to its own region, and to the nucleus exactly
where more than half of it is nucleus. Stroma lies between tumor and infiltrates in blue, as it does in the slide.
"""

MIN_COLOR_DISTANCE = 30.0
"""Euclidean distance in RGB between any two colors of the code, at least."""

RADIUS_UM: Mapping[int, float] = {
    BREAST.nucleus("tumor").id: 7.0,
    BREAST.nucleus("stromal").id: 5.0,
    BREAST.nucleus("til").id: 4.0,
    BREAST.nucleus("other").id: 5.0,
}
"""Radius of a nucleus by class id."""

_PITCH_UM = 18.0  # of the lattice that nuclei sit on
_JITTER_UM = 1.0  # largest shift along each axis: 2 um stay free between two tumor nuclei
_CLEARANCE_UM = 3.0  # from a centroid to the next region border, so that its region is beyond doubt
_MARGIN = 0.1  # of each side that is bare glass
_OCCUPANCY: Mapping[int, float] = {TUMOR: 0.75, STROMA: 0.35, TILS: 0.9, OTHER: 0.2}
_MIX: Mapping[int, tuple[float, float, float, float]] = {  # tumor, stromal, til, other
    TUMOR: (0.82, 0.05, 0.1, 0.03),
    STROMA: (0.02, 0.7, 0.25, 0.03),
    TILS: (0.02, 0.05, 0.9, 0.03),
    OTHER: (0.1, 0.3, 0.2, 0.4),
}
_TILE = 256  # side of the stored tiles, pixels
_SMALLEST_LEVEL = 256  # pixels along the longer side below which no level is added


@dataclass(frozen=True)
class Disc:
    """A round region, in micrometres."""

    x_um: float
    y_um: float
    radius_um: float
    region_id: int


@dataclass(frozen=True)
class SyntheticTruth:
    """What is true of a synthetic slide.

    Parameters
    ----------
    path : Path
        The slide.
    mpp : float
        Of its level 0.
    region : (Y, X) uint8
        Region class ids (``classes.BREAST``) at ``TRUTH_MPP``; glass is the background class, and nothing is 0.
    nuclei : DataFrame
        ``nucleus_id, x_um, y_um, radius_um, class_id, region_id``; the region is the one that holds the centroid.
    discs : tuple of Disc
        The regions that lie in the stroma.
    areas_mm2 : dict of str to float
        By region class name, counted on ``region``.
    til_counts : dict of str to int
        Nuclei with the role of a TIL, by the name of the region class that holds their centroid.
    """

    path: Path
    mpp: float
    region: npt.NDArray[np.uint8]
    nuclei: pd.DataFrame
    discs: tuple[Disc, ...]
    areas_mm2: dict[str, float]
    til_counts: dict[str, int]


def make_slide(
    path: Path, *, size_px: tuple[int, int] = (2048, 1536), mpp: float = 0.5, seed: int = 0, discs_per_kind: int = 3
) -> SyntheticTruth:
    """Write a synthetic slide and tell the truth about it. Same arguments, same slide.

    Parameters
    ----------
    path : Path
        The file to write: a pyramidal, tiled, losslessly compressed TIFF with its mpp in the resolution tags.
    size_px : (int, int)
        Width and height of level 0.
    mpp : float
        Micrometres per level-0 pixel.
    seed : int
        Of the random layout.
    discs_per_kind : int
        Tumor nests, and as many infiltrates; one disc of other tissue comes on top.

    Returns
    -------
    SyntheticTruth
    """
    rng = np.random.default_rng(seed)
    size_um = (size_px[0] * mpp, size_px[1] * mpp)
    discs = _place_discs(rng, size_um, discs_per_kind)
    nuclei = _place_nuclei(rng, size_um, discs)
    write_pyramid(path, _paint(size_px, mpp, size_um, discs, nuclei), mpp)
    shape = (math.ceil(size_um[1] / TRUTH_MPP - 1e-6), math.ceil(size_um[0] / TRUTH_MPP - 1e-6))
    x_um, y_um = (np.arange(shape[1]) + 0.5) * TRUTH_MPP, (np.arange(shape[0]) + 0.5) * TRUTH_MPP
    region = region_at(x_um[None, :], y_um[:, None], size_um, discs)
    til = nuclei["class_id"].isin(BREAST.nucleus_ids("til"))
    return SyntheticTruth(
        path=path,
        mpp=mpp,
        region=region,
        nuclei=nuclei,
        discs=discs,
        areas_mm2={c.name: float((region == c.id).sum()) * TRUTH_MPP**2 / 1e6 for c in BREAST.regions},
        til_counts={c.name: int((til & (nuclei["region_id"] == c.id)).sum()) for c in BREAST.regions},
    )


def classes_from_colors(pixels: npt.NDArray[np.uint8]) -> tuple[LabelMap, LabelMap]:
    """Read region and nucleus classes from colors: the nearest color of the code.

    Parameters
    ----------
    pixels : (Y, X, 3) uint8
        Of a synthetic slide, at any mpp.

    Returns
    -------
    region, nucleus : (Y, X) uint8
        Class ids; nucleus 0 is none. White beyond the slide is background.
    """
    keys = np.array(list(COLORS), np.uint8)
    palette = np.array(list(COLORS.values()), np.float32)
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    values, where = np.unique(packed, return_inverse=True)
    colors = np.stack([values >> 16, (values >> 8) & 255, values & 255], axis=1).astype(np.float32)
    distances = ((colors[:, None, :] - palette[None]) ** 2).sum(axis=2)
    found = keys[distances.argmin(axis=1)][where.reshape(packed.shape)]
    return found[..., 1], found[..., 0]


def region_at(
    x_um: npt.NDArray[np.floating],
    y_um: npt.NDArray[np.floating],
    size_um: tuple[float, float],
    discs: tuple[Disc, ...],
) -> npt.NDArray[np.uint8]:
    """Tell the region class at points: a rectangle of stroma on glass, with discs in it.

    Parameters
    ----------
    x_um, y_um : float arrays
        Points; they are broadcast against each other.
    size_um : (float, float)
        Width and height of the slide.
    discs : tuple of Disc
        Which do not overlap.
    """
    inside = (np.abs(x_um / size_um[0] - 0.5) < 0.5 - _MARGIN) & (np.abs(y_um / size_um[1] - 0.5) < 0.5 - _MARGIN)
    region = np.where(inside, np.uint8(STROMA), np.uint8(BACKGROUND))
    for disc in discs:
        region[(x_um - disc.x_um) ** 2 + (y_um - disc.y_um) ** 2 < disc.radius_um**2] = disc.region_id
    return region


def _place_discs(rng: np.random.Generator, size_um: tuple[float, float], per_kind: int) -> tuple[Disc, ...]:
    """Throw discs until they fit, smaller ones the longer it takes."""
    kinds = [TUMOR] * per_kind + [TILS] * per_kind + [OTHER]
    reach = {TUMOR: 0.2, TILS: 0.1, OTHER: 0.07}  # radius as a share of the slide's shorter side
    placed: list[Disc] = []
    for kind in kinds:
        radius = reach[kind] * min(size_um)
        while True:
            margins = [size * _MARGIN + radius + _PITCH_UM for size in size_um]
            x, y = (rng.uniform(m, max(m, s - m)) for m, s in zip(margins, size_um, strict=True))
            if all(math.hypot(x - d.x_um, y - d.y_um) > radius + d.radius_um + _PITCH_UM for d in placed):
                placed.append(Disc(x, y, radius, kind))
                break
            radius *= 0.99
    return tuple(placed)


def _place_nuclei(rng: np.random.Generator, size_um: tuple[float, float], discs: tuple[Disc, ...]) -> pd.DataFrame:
    """Put nuclei on a jittered lattice, far enough from region borders to leave no doubt where they are."""
    columns, rows = (int(size // _PITCH_UM) for size in size_um)
    x, y = np.meshgrid((np.arange(columns) + 0.5) * _PITCH_UM, (np.arange(rows) + 0.5) * _PITCH_UM)
    x = (x + rng.uniform(-_JITTER_UM, _JITTER_UM, x.shape)).ravel()
    y = (y + rng.uniform(-_JITTER_UM, _JITTER_UM, y.shape)).ravel()
    home = region_at(x, y, size_um, discs)
    angles = np.arange(16) * (2 * np.pi / 16)
    around_x, around_y = np.cos(angles)[:, None], np.sin(angles)[:, None]
    near = region_at(x + _CLEARANCE_UM * around_x, y + _CLEARANCE_UM * around_y, size_um, discs)
    largest = max(RADIUS_UM.values()) + _CLEARANCE_UM
    wide = region_at(x + largest * around_x, y + largest * around_y, size_um, discs)
    clear = (near == home).all(axis=0) & (wide != BACKGROUND).all(axis=0) & (home != BACKGROUND)
    taken, kind = rng.uniform(size=x.shape), rng.uniform(size=x.shape)
    class_id = np.zeros(x.shape, np.int64)
    for region, mix in _MIX.items():
        here = home == region
        class_id[here] = np.searchsorted(np.cumsum(mix)[:-1], kind[here], side="right") + 1
        clear[here] &= taken[here] < _OCCUPANCY[region]
    kept = np.flatnonzero(clear)
    return pd.DataFrame(
        {
            "nucleus_id": np.arange(1, len(kept) + 1),
            "x_um": x[kept],
            "y_um": y[kept],
            "radius_um": np.array([RADIUS_UM[int(c)] for c in class_id[kept]], np.float64),
            "class_id": class_id[kept],
            "region_id": home[kept].astype(np.int64),
        }
    )


def _paint(
    size_px: tuple[int, int], mpp: float, size_um: tuple[float, float], discs: tuple[Disc, ...], nuclei: pd.DataFrame
) -> npt.NDArray[np.uint8]:
    """Color every level-0 pixel by the region and the nucleus that hold its center."""
    x_um, y_um = (np.arange(size_px[0]) + 0.5) * mpp, (np.arange(size_px[1]) + 0.5) * mpp
    region = region_at(x_um[None, :], y_um[:, None], size_um, discs)
    nucleus = np.zeros(region.shape, np.uint8)
    for x, y, radius, class_id in nuclei[["x_um", "y_um", "radius_um", "class_id"]].itertuples(index=False):
        rows = slice(math.floor((y - radius) / mpp), math.ceil((y + radius) / mpp) + 1)
        columns = slice(math.floor((x - radius) / mpp), math.ceil((x + radius) / mpp) + 1)
        inside = (x_um[columns][None, :] - x) ** 2 + (y_um[rows][:, None] - y) ** 2 < radius**2
        nucleus[rows, columns][inside] = class_id
    table = np.zeros((max(RADIUS_UM) + 1, BACKGROUND + 1, 3), np.uint8)
    for (nucleus_id, region_id), color in COLORS.items():
        table[nucleus_id, region_id] = color
    return table[nucleus, region]


def write_pyramid(path: Path, pixels: npt.NDArray[np.uint8], mpp: float) -> None:
    """Write an image as a pyramidal, tiled TIFF without loss: what OpenSlide calls generic TIFF.

    Parameters
    ----------
    path : Path
        The file to write.
    pixels : (Y, X, 3) uint8
        Level 0; further levels halve it until 256 pixels are reached.
    mpp : float
        Micrometres per level-0 pixel, written into the resolution tags.
    """
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary) as writer:
        level, factor = pixels, 1
        while True:
            writer.write(
                level,
                photometric="rgb",
                tile=(_TILE, _TILE),
                compression="deflate",
                resolution=(1e4 / (mpp * factor), 1e4 / (mpp * factor)),
                resolutionunit="CENTIMETER",
                subfiletype=int(factor > 1),
                metadata=None,
            )
            factor *= 2
            rows, columns = pixels.shape[0] // factor, pixels.shape[1] // factor
            if max(rows, columns) < _SMALLEST_LEVEL:
                return
            whole = pixels[: rows * factor, : columns * factor]
            level = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
