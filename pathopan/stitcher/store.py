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
from pathopan.contours import paint
from pathopan.files import atomic_path
from pathopan.geometry import Grid, Window
from pathopan.stitcher.ngff import PanopticArrays, Version, build_label_levels, create_panoptic, halve_labels

_BLOCK = 2048
"""Side of the blocks that nuclei are painted in, in grid pixels: four chunks."""


def write_panoptic(
    path: Path,
    *,
    grid: Grid,
    taxonomy: Taxonomy,
    regions: Iterable[tuple[int, npt.NDArray[np.uint8]]],
    nuclei: gpd.GeoDataFrame,
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
    nuclei : GeoDataFrame
        ``nucleus_id`` and polygons in grid pixels.
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
        _paint_nuclei(arrays.nuclei[0], grid, nuclei)
        build_label_levels(arrays.regions, method="mode")
        build_label_levels(arrays.nuclei, method="nearest")


def _write_regions(array: zarr.Array, grid: Grid, regions: Iterable[tuple[int, npt.NDArray[np.uint8]]]) -> None:
    """Crop each tile to its write window inside the slide: the windows cover the plane once, so nothing is blended."""
    for index, region in regions:
        write = grid.tile(index).write
        inside = write.intersect(grid.plane)
        array[inside.slices] = region[inside.relative_to(write).slices]


def _paint_nuclei(array: zarr.Array, grid: Grid, nuclei: gpd.GeoDataFrame) -> None:
    """Rasterise the polygons block by block; where two touch, the lower id keeps the pixel."""
    shapes, ids = nuclei.geometry.to_numpy(), nuclei["nucleus_id"].to_numpy()
    tree = shapely.STRtree(shapes)
    for block in blocks(grid.plane, _BLOCK):
        rows = np.sort(tree.query(shapely.box(block.x, block.y, block.x1, block.y1)))
        if len(rows):
            pairs = zip(shapes[rows], ids[rows].tolist(), strict=True)
            painted = paint(pairs, shape=(block.height, block.width), origin=(block.x, block.y))
            array[block.slices] = painted.astype(np.uint32)


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
    for _ in range(halvings - stored):
        regions = halve_labels(regions, method="mode")
    return regions, arrays.label_mpp * 2**halvings
