"""A slide's nuclei as they are merged: a stream, so that memory does not grow with the slide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing

import geopandas as gpd
import numpy as np
import shapely

from pathopan.classes import Taxonomy
from pathopan.config import StitcherConfig
from pathopan.export.parquet_parts import GeoParquetWriter
from pathopan.geometry import Grid, l0_from_px
from pathopan.inference.ordered import ordered_map
from pathopan.objects import measure_nuclei
from pathopan.stitcher.audit import SeamCounter
from pathopan.stitcher.nuclei import MergedNuclei, merge_rows, tile_rows


class NucleusStream:
    """The nuclei of a slide on their way from the shards into the label map, written and counted as they pass.

    Parameters
    ----------
    candidates : iterable of GeoDataFrame
        What the tiles saw, in the order of the tiles; polygons in grid pixels.
    grid : Grid
        Where the seams are.
    table : GeoParquetWriter
        Where the rows go, with polygons in level-0 pixels.
    taxonomy : Taxonomy
        Names of the classes.
    um_per_px : (float, float)
        Of level 0.
    beat : callable
        Called for each part that has passed.
    """

    def __init__(
        self,
        candidates: Iterable[gpd.GeoDataFrame],
        grid: Grid,
        table: GeoParquetWriter,
        *,
        taxonomy: Taxonomy,
        um_per_px: tuple[float, float],
        beat: Callable[[], None],
    ) -> None:
        self._seen, self._grid, self._table = candidates, grid, table
        self._taxonomy, self._um_per_px, self._beat = taxonomy, um_per_px, beat
        self.seams = SeamCounter(grid)
        self.counts = Counter[str]()

    def merged(self, config: StitcherConfig, *, workers: int = 0) -> Generator[MergedNuclei, None, None]:
        """Give them part by part, each once; with a worker, a part is measured and written while the next is merged."""
        grid = self._grid
        rows = tile_rows(self._candidates(), grid)
        margin = config.seam_margin_um / grid.mpp
        parts = merge_rows(rows, grid, margin_px=margin, max_overlap=config.max_overlap)
        with closing(ordered_map(self._noted, parts, workers=min(workers, 1), ahead=1)) as noted:
            for part in noted:
                self.counts["nuclei"] += len(part.nuclei)
                self._beat()
                yield part

    def _candidates(self) -> Iterator[gpd.GeoDataFrame]:
        yield _no_candidates(self._taxonomy)
        for table in self._seen:
            self.counts["candidates"] += len(table)
            yield table

    def _noted(self, part: MergedNuclei) -> MergedNuclei:
        nuclei = part.nuclei
        centroids = shapely.get_coordinates(shapely.centroid(nuclei.geometry.to_numpy())).reshape(-1, 2)
        self.seams.add(centroids)
        found = measure_nuclei(to_level_0(nuclei, self._grid), um_per_px=self._um_per_px)
        names = {kind.id: kind.name for kind in self._taxonomy.nuclei}
        self._table.write(found.assign(**{"class": found["class_id"].map(names).astype("str")}))
        return part


def _no_candidates(taxonomy: Taxonomy) -> gpd.GeoDataFrame:
    floats = ["prob", "hematoxylin_mean", *(f"prob_{kind.name}" for kind in taxonomy.nuclei)]
    columns = {name: np.empty(0) for name in floats}
    ids = {name: np.empty(0, np.int64) for name in ("class_id", "tile_index")}
    return gpd.GeoDataFrame({**ids, **columns}, geometry=gpd.GeoSeries([], crs=None), crs=None)


def to_level_0(nuclei: gpd.GeoDataFrame, grid: Grid) -> gpd.GeoDataFrame:
    """Move polygons from grid pixels to level-0 pixels."""
    moved = shapely.transform(nuclei.geometry.to_numpy(), lambda xy: l0_from_px(xy, grid))
    return gpd.GeoDataFrame(nuclei.drop(columns="geometry"), geometry=moved, crs=None)
