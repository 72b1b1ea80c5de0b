"""Time, memory and size of each export of a slide with a million nuclei. ``python tests/large_export.py [count]``.

The nuclei are a table on disk; each format is written by a process of its own, so that
its peak memory can be told from the others'.
"""

from __future__ import annotations

import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from large_case import detections, memory_mib

from pathopan.classes import BREAST
from pathopan.export.geojson import Ground, find_piece_paths, write_nuclei_geojson
from pathopan.export.geoparquet import iter_geoparquet, write_csv, write_geoparquet
from pathopan.export.histomicsui import write_nuclei_annotation
from pathopan.tables import nuclei_schema

SCHEMA = nuclei_schema(BREAST)


def make_table(path: Path, count: int) -> None:
    """Write ``nuclei.parquet``: outlines of 24 vertices with noise, as a decoder leaves them."""
    table = detections(12_500, count)
    rng = np.random.default_rng(2)
    table["geometry"] = noisy(table, rng)
    for column in SCHEMA.columns:
        if column.name not in table.columns:
            values = {"float": rng.random(count) * 90, "int": np.ones(count, np.int64), "str": np.full(count, "stroma")}
            table[column.name] = values[column.kind]
    write_geoparquet(path, table[SCHEMA.names], schema=SCHEMA)


def noisy(table: gpd.GeoDataFrame, rng: np.random.Generator) -> np.ndarray:
    """Give outlines of 24 vertices with a pixel of noise around the nuclei's centres."""
    centres = np.array([[shape.x, shape.y] for shape in table.centroid])
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = np.array([16, 12]) + rng.normal(0, 0.8, (len(table), 24, 1))
    return shapely.polygons(centres[:, None] + np.stack([np.cos(angle), np.sin(angle)], -1) * radius)


def geojson(folder: Path, table: Path) -> list[Path]:
    """Write QuPath's detections: all of them, and those of each piece of tissue besides."""
    path = folder / "large.nuclei.geojson.gz"

    def piece_of(nuclei: gpd.GeoDataFrame) -> np.ndarray:
        return 1 + (nuclei["x_um"] > nuclei["x_um"].median()).to_numpy(np.int64)

    rows = iter_geoparquet(table, schema=SCHEMA)
    write_nuclei_geojson(path, rows, taxonomy=BREAST, slide_id="large", ground=Ground(piece_of))
    return [path, *find_piece_paths(path)]


def histomicsui(folder: Path, table: Path) -> list[Path]:
    """Write HistomicsUI's polylines."""
    path = folder / "large.json"
    write_nuclei_annotation(path, iter_geoparquet(table, schema=SCHEMA), taxonomy=BREAST)
    return [path]


def csv(folder: Path, table: Path) -> list[Path]:
    """Write the table for people."""
    path = folder / "large.csv"
    write_csv(path, (rows.drop(columns="geometry") for rows in iter_geoparquet(table, schema=SCHEMA)))
    return [path]


def measure(name: str, folder: Path, table: Path) -> None:
    """Write one format and print what it took."""
    before = memory_mib("VmRSS")
    start, worked = time.perf_counter(), time.process_time()
    files = FORMATS[name](folder, table)
    took, busy = time.perf_counter() - start, time.process_time() - worked
    size = sum(path.stat().st_size for path in files) / 1e6
    peak = memory_mib("VmHWM")
    sys.stdout.write(f"{name}: {took:.1f} s ({busy:.1f} s of CPU), {size:.0f} MB in {len(files)} files, ")
    sys.stdout.write(f"peak {peak:.0f} MiB, of which {before:.0f} MiB before it began\n")


FORMATS = {"geojson": geojson, "histomicsui": histomicsui, "csv": csv}


def main(count: int = 1_000_000) -> None:
    """Make the table, then measure each format in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = folder / "nuclei.parquet"
        context = get_context("spawn")
        for target, words in [(make_table, (table, count)), *((measure, (f, folder, table)) for f in FORMATS)]:
            process = context.Process(target=target, args=words)
            process.start()
            process.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
