"""A slide's nuclei on their way from the shards into the label map, in one thread or beside the merging."""

from __future__ import annotations

import threading

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from pathopan.classes import BREAST
from pathopan.config import StitcherConfig
from pathopan.geometry import Grid
from pathopan.nucleus_stream import NucleusStream

GRID = Grid(mpp=0.5, step=128, halo=32, size=(256, 512), scale_l0=(2.0, 2.0))


class Table:
    """Keeps what is written, and who writes it."""

    def __init__(self) -> None:
        self.parts: list[pd.DataFrame] = []
        self.writers: set[int] = set()

    def write(self, rows):
        self.writers.add(threading.get_ident())
        self.parts.append(pd.DataFrame(rows))


class FullDisk(Table):
    def write(self, rows):
        raise OSError("no space left")


def candidates():
    """Three nuclei in every tile, none of them twice."""
    kinds = [f"prob_{kind.name}" for kind in BREAST.nuclei]
    for tile in GRID:
        shapes = [shapely.Point(tile.write.x + 30 * k, tile.write.y + 40).buffer(5) for k in (1, 2, 3)]
        columns = {"class_id": 1, "prob": 0.5, "tile_index": tile.index, "hematoxylin_mean": 0.2}
        table = pd.DataFrame([columns | dict.fromkeys(kinds, 0.25)] * len(shapes))
        yield gpd.GeoDataFrame(table, geometry=gpd.GeoSeries(shapes, crs=None), crs=None)


def stream(table, beats):
    return NucleusStream(
        candidates(), GRID, table, taxonomy=BREAST, um_per_px=(0.25, 0.25), beat=lambda: beats.append(1)
    )


def test_a_worker_changes_no_row_and_writes_beside_the_merging():
    found = {}
    for workers in (0, 4):
        table, beats = Table(), []
        nuclei = stream(table, beats)
        ids = [part.nuclei["nucleus_id"].tolist() for part in nuclei.merged(StitcherConfig(), workers=workers)]
        found[workers] = (pd.concat(table.parts, ignore_index=True), ids, nuclei.counts, len(beats))
        assert (threading.get_ident() in table.writers) == (workers == 0)
        assert len(table.writers) == 1  # rows are in order
    pd.testing.assert_frame_equal(found[0][0], found[4][0])
    assert found[0][1:] == found[4][1:]
    assert found[4][2] == {"candidates": 24, "nuclei": 24}
    assert np.concatenate(found[4][1]).tolist() == found[4][0]["nucleus_id"].tolist() == list(range(1, 25))


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_that_cannot_be_written_fail_the_slide(workers):
    with pytest.raises(OSError, match="no space left"):
        list(stream(FullDisk(), []).merged(StitcherConfig(), workers=workers))


def test_who_stops_early_leaves_no_thread_writing():
    table = Table()
    parts = stream(table, []).merged(StitcherConfig(), workers=1)
    next(parts)
    parts.close()
    written = len(table.parts)
    assert written < 4
    assert not [one for one in threading.enumerate() if one.ident in table.writers]
