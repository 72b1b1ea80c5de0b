"""The stitched slide on disk: region tiles and nucleus polygons become the two label maps of one OME-Zarr group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
import zarr

from pathopan.classes import Taxonomy
from pathopan.contours import paint_nuclei
from pathopan.files import atomic_path
from pathopan.geometry import Grid, Window
from pathopan.stitcher.ngff import PanopticArrays, Version, build_label_levels, create_panoptic, halve_labels
from pathopan.stitcher.nuclei import MergedNuclei

_STRIP = 512
"""Rows that nuclei are painted in at once: a chunk."""


def write_panoptic(
    path: Path,
    *,
    grid: Grid,
    taxonomy: Taxonomy,
    regions: Iterable[tuple[int, npt.NDArray[np.uint8]]],
    nuclei: Iterable[MergedNuclei],
    picture: tuple[npt.NDArray[np.uint8], float],
    version: Version = "0.4",
) -> None:
    """Write ``panoptic.ome.zarr``; it appears when it is complete.

    Parameters
    ----------
    path : Path
        Folder to make; an older one is replaced.
    grid : Grid
        The label maps have its mpp and size.
    taxonomy : Taxonomy
        Names and colors of the regions.
    regions : iterable of (int, (step, step) uint8)
        Tile index and region ids of its write window, in any order.
    nuclei : iterable of MergedNuclei
        ``nucleus_id`` and polygons in grid pixels, part by part from top to bottom.
    picture : ((Y, X, 3) uint8, float)
        The slide at a coarse mpp, and that mpp.
    version : {"0.4", "0.5"}
        Of OME-NGFF.
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
        _write_regions(arrays.regions[0], grid, regions)
        _paint_nuclei(arrays.nuclei[0], nuclei)
        build_label_levels(arrays.regions, method="mode")
        build_label_levels(arrays.nuclei, method="nearest")


def _write_regions(array: zarr.Array, grid: Grid, regions: Iterable[tuple[int, npt.NDArray[np.uint8]]]) -> None:
    """Crop each tile to its write window inside the slide: the windows cover the plane once, so nothing is blended."""
    for index, region in regions:
        write = grid.tile(index).write
        inside = write.intersect(grid.plane)
        array[inside.slices] = region[inside.relative_to(write).slices]


def _paint_nuclei(array: zarr.Array, parts: Iterable[MergedNuclei]) -> None:
    """Rasterise the polygons strip by strip, as they come; where two touch, the lower id keeps the pixel."""
    height = array.shape[0]
    waiting, top = list[gpd.GeoDataFrame](), 0
    for part in parts:
        waiting.append(part.nuclei)
        while top < height and top + _STRIP <= part.settled_px:
            waiting, top = _paint_strip(array, waiting, top)
    while top < height:
        waiting, top = _paint_strip(array, waiting, top)


def _paint_strip(array: zarr.Array, waiting: list[gpd.GeoDataFrame], top: int) -> tuple[list[gpd.GeoDataFrame], int]:
    """Paint the strip that begins at a row; give the nuclei that reach below it, and the next row."""
    bottom = min(top + _STRIP, array.shape[0])
    found, left = list[gpd.GeoDataFrame](), list[gpd.GeoDataFrame]()
    for table in waiting:
        bounds = shapely.bounds(table.geometry.to_numpy())
        found.append(table[(bounds[:, 1] < bottom) & (bounds[:, 3] > top)])
        left.append(table[bounds[:, 3] > bottom])
    if any(len(table) for table in found):
        shapes, ids = (
            np.concatenate([table[name].to_numpy() for table in found]) for name in ("geometry", "nucleus_id")
        )
        array[top:bottom] = paint_nuclei(shapes, ids, shape=(bottom - top, array.shape[1]), origin=(0, top))
    return [table for table in left if len(table)], bottom


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
