"""The stitched slide on disk: region tiles and nucleus polygons become the two label maps of one OME-Zarr group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
import zarr

from pathopan.classes import Taxonomy
from pathopan.contours import paint_nuclei
from pathopan.files import atomic_path
from pathopan.geometry import Grid, Window
from pathopan.inference.ordered import in_turn
from pathopan.stitcher.ngff import CHUNK, PanopticArrays, Version, build_label_levels, create_panoptic, halve_labels
from pathopan.stitcher.nuclei import MergedNuclei

_STRIP = CHUNK
"""Rows that nuclei are painted in at once: a chunk, so that no two threads write the same one."""


class Found(NamedTuple):
    """What a slide's tiles hold, as streams."""

    regions: Iterable[tuple[int, npt.NDArray[np.uint8]]]
    """Tile index and (step, step) region ids of its write window, in any order."""

    nuclei: Iterable[MergedNuclei]
    """``nucleus_id`` and polygons in grid pixels, part by part from top to bottom."""


def write_panoptic(
    path: Path,
    found: Found,
    *,
    grid: Grid,
    taxonomy: Taxonomy,
    picture: tuple[npt.NDArray[np.uint8], float],
    version: Version = "0.4",
    workers: int = 0,
) -> None:
    """Write ``panoptic.ome.zarr``; it appears when it is complete.

    Parameters
    ----------
    path : Path
        Folder to make; an older one is replaced.
    found : Found
        Regions and nuclei.
    grid : Grid
        The label maps have its mpp and size.
    taxonomy : Taxonomy
        Names and colors of the regions.
    picture : ((Y, X, 3) uint8, float)
        The slide at a coarse mpp, and that mpp.
    version : {"0.4", "0.5"}
        Of OME-NGFF.
    workers : int
        Threads that paint, compress and halve while the caller's thread draws the next regions and nuclei; 0 does
        everything in line, with the same result.
    """
    with atomic_path(path) as temporary:
        arrays = create_panoptic(
            temporary,
            label_shape=(grid.size[1], grid.size[0]),
            label_mpp=grid.mpp,
            image=picture[0],
            image_mpp=picture[1],
            taxonomy=taxonomy,
            version=version,
        )
        write = partial(_write_region, arrays.regions[0], grid)
        in_turn(write, found.regions, workers=min(workers, 1))  # one at a time: tiles share chunks
        in_turn(partial(_paint_strip, arrays.nuclei[0]), _strips(found.nuclei, grid.size[1]), workers=workers)
        build_label_levels(arrays.regions, method="mode", workers=workers)
        build_label_levels(arrays.nuclei, method="nearest", workers=workers)


def _write_region(array: zarr.Array, grid: Grid, item: tuple[int, npt.NDArray[np.uint8]]) -> None:
    """Crop a tile to its write window inside the slide: the windows cover the plane once, so nothing is blended."""
    index, region = item
    write = grid.tile(index).write
    inside = write.intersect(grid.plane)
    array[inside.slices] = region[inside.relative_to(write).slices]


class _Strip(NamedTuple):
    """Rows of the label map, as high as a chunk, and what lies in them."""

    top: int
    bottom: int
    shapes: npt.NDArray[np.object_]
    ids: npt.NDArray[np.int64]


def _strips(parts: Iterable[MergedNuclei], height: int) -> Iterator[_Strip]:
    """Give strips from top to bottom, each as soon as no later part can reach into it."""
    waiting, top = list[gpd.GeoDataFrame](), 0
    for settled, table in chain(((part.settled_px, part.nuclei) for part in parts), [(np.inf, None)]):
        waiting += [] if table is None else [table]
        while top < height and top + _STRIP <= settled:
            bottom = min(top + _STRIP, height)
            strip, waiting = _cut_strip(waiting, top, bottom)
            if len(strip.ids):
                yield strip
            top = bottom


def _cut_strip(waiting: list[gpd.GeoDataFrame], top: int, bottom: int) -> tuple[_Strip, list[gpd.GeoDataFrame]]:
    """Give a strip, and the nuclei that reach below it."""
    shapes, ids, left = [np.empty(0, object)], [np.empty(0, np.int64)], list[gpd.GeoDataFrame]()
    for table in waiting:
        bounds = shapely.bounds(table.geometry.to_numpy())
        found = table[(bounds[:, 1] < bottom) & (bounds[:, 3] > top)]
        shapes.append(found.geometry.to_numpy())
        ids.append(found["nucleus_id"].to_numpy())
        left.append(table[bounds[:, 3] > bottom])
    return _Strip(top, bottom, np.concatenate(shapes), np.concatenate(ids)), [table for table in left if len(table)]


def _paint_strip(array: zarr.Array, strip: _Strip) -> None:
    """Rasterise polygons; where two touch, the lower id keeps the pixel."""
    shape = (strip.bottom - strip.top, array.shape[1])
    array[strip.top : strip.bottom] = paint_nuclei(strip.shapes, strip.ids, shape=shape, origin=(0, strip.top))


def blocks(plane: Window, side: int) -> Iterator[Window]:
    """Cut a plane into squares, row by row; those at the border are smaller."""
    for y in range(plane.y, plane.y1, side):
        for x in range(plane.x, plane.x1, side):
            yield Window(x, y, side, side).intersect(plane)


def region_map(arrays: PanopticArrays, mpp: float) -> tuple[npt.NDArray[np.uint8], float]:
    """Read the region map at the stored level nearest to an mpp; halve further where the pyramid ends too early.

    Returns
    -------
    map : (Y, X) uint8
        Region ids.
    mpp : float
        Of that map: the labels' mpp times a power of two.
    """
    halvings = max(0, round(float(np.log2(mpp / arrays.label_mpp))))
    stored = min(halvings, len(arrays.regions) - 1)
    regions: npt.NDArray[np.uint8] = np.asarray(arrays.regions[stored][:])
    for times in range(stored, halvings):
        regions = halve_labels(regions, method="mode", times=times)
    return regions, arrays.label_mpp * 2**halvings
