"""Decide which windows of a slide to read: its grid, its tissue, and the tiles that touch tissue."""

from pathopan.tiler.drawn import tissue_from_geojson, tissue_from_image
from pathopan.tiler.grid import make_grid
from pathopan.tiler.select import select_tiles, tissue_fractions
from pathopan.tiler.tissue import TissueMask, find_tissue

__all__ = [
    "TissueMask",
    "find_tissue",
    "make_grid",
    "select_tiles",
    "tissue_fractions",
    "tissue_from_geojson",
    "tissue_from_image",
]
