"""What follows the network on a slide of a million nuclei. ``PYTHONPATH=tests python -m bench.million [NUCLEI]``.

The predictions are made up, 5,000 nuclei a square millimetre in blobs of tumor and stroma, and written as shards; then
they are stitched, scored and exported as in a run. Prints seconds and peak memory of each stage.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from bench.one import Clock
from pathopan.classes import BREAST
from pathopan.config import load_config
from pathopan.geometry import Tile, Window
from pathopan.inference.predict import TilePrediction
from pathopan.inference.shards import write_shard
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import DEFAULT_BUNDLE
from pathopan.outputs import export_to_files, find_place
from pathopan.record import SlideRecord
from pathopan.scoring import score_to_files
from pathopan.slide import SlideInfo
from pathopan.stages import Engine, Job, Tiling, describe_slide, shard_folder, shard_plan, stitch_slide
from pathopan.tiler.grid import make_grid
from pathopan.tiler.select import select_tiles
from pathopan.tiler.tissue import TissueMask

PER_MM2 = 5_000
MPP = 0.25
_COARSE = 32  # grid pixels to a pixel of the coarse map that regions are cut from


class Blank:
    """A slide without a file: only its size counts."""

    def __init__(self, info: SlideInfo) -> None:
        self.info = info

    def read(self, window: Window, mpp: float) -> np.ndarray:
        return np.full((window.height, window.width, 3), 235, np.uint8)

    def __enter__(self) -> Blank:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


@dataclass(frozen=True)
class MadeUpJob(Job):
    """A job whose slide is blank."""

    info: SlideInfo | None = None

    def open(self) -> Blank:
        return Blank(self.info)


def make_predictions(job: Job, tiling: Tiling, *, seed: int = 0) -> None:
    """Write all shards."""
    rng, grid = np.random.default_rng(seed), tiling.grid
    coarse = rng.normal(size=(grid.size[1] // 240 + 4, grid.size[0] // 240 + 4)).astype(np.float32)
    size = (grid.shape[1] * grid.step // _COARSE, grid.shape[0] * grid.step // _COARSE)
    smooth = cv2.resize(cv2.GaussianBlur(coarse, (0, 0), 1.2), size)
    region = np.where(smooth > 0.6 * smooth.std(), np.uint8(1), np.uint8(2))
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    ring = np.column_stack([np.cos(angle) * 8, np.sin(angle) * 6])
    plan, folder = shard_plan(job, tiling), shard_folder(job)
    folder.mkdir(parents=True)
    for shard in range(len(plan)):
        tiles = [grid.tile(index) for index in plan.tiles(shard)]
        write_shard(folder, shard, [_prediction(tile, region, ring, grid.mpp, rng) for tile in tiles])


def _prediction(
    tile: Tile, region: np.ndarray, ring: np.ndarray, mpp: float, rng: np.random.Generator
) -> TilePrediction:
    count = rng.poisson(PER_MM2 * (tile.write.width * mpp / 1000) ** 2)
    kinds = rng.choice([kind.id for kind in BREAST.nuclei], count, p=[0.45, 0.3, 0.2, 0.05])
    centres = rng.uniform(-6, tile.write.width + 6, (count, 2)) + np.array([tile.write.x, tile.write.y])
    columns = {
        "class_id": kinds.astype(np.int64),
        "prob": rng.uniform(0.4, 1, count),
        "tile_index": np.full(count, tile.index, np.int64),
        "hematoxylin_mean": np.ones(count),
        **{f"prob_{kind.name}": (kinds == kind.id) * 1.0 for kind in BREAST.nuclei},
    }
    rows, cols = (slice(v // _COARSE, (v + tile.write.width) // _COARSE) for v in (tile.write.y, tile.write.x))
    wide = region[rows, cols].repeat(_COARSE, axis=0).repeat(_COARSE, axis=1)
    return TilePrediction(tile, wide, gpd.GeoDataFrame(columns, geometry=shapely.polygons(centres[:, None] + ring)))


def main(count: int = 1_000_000) -> None:
    """Measure and print."""
    side = math.ceil(math.sqrt(count / PER_MM2) * 1000 / MPP)
    info = SlideInfo("made-up", Path("made-up"), (side, side), (MPP, MPP), (1.0,), (0, 0, side, side), "none")
    folder = Path(tempfile.mkdtemp(prefix="million-"))
    config = load_config()
    engine = Engine(DEFAULT_BUNDLE, config, device="cpu")
    job = MadeUpJob(SlideEntry("made-up", Path(__file__)), config, engine, folder, info=info)
    bundle = engine.bundle
    grid = make_grid(info, mpp=bundle.mpp, step=bundle.step, halo=bundle.halo)
    tissue = TissueMask(np.ones((1, 1), bool), mpp=side * MPP + 1)
    tiling = Tiling(info, grid, tissue, pd.DataFrame(select_tiles(grid, tissue)))
    record = SlideRecord.open(folder / "record.json")
    record.entries |= {"slide_id": "made-up", "path": "made-up", "slide": describe_slide(info)}
    clock = Clock()
    try:
        make_predictions(job, tiling)
        clock.time("stitch", lambda: stitch_slide(job, tiling, shard_plan(job, tiling), record))
        stitch_print = job.prints["stitch"]
        place = find_place("made-up", folder, record, taxonomy=BREAST, config=config, stitch_print=stitch_print)
        clock.time("score", lambda: score_to_files(place, record))
        clock.time("export", lambda: export_to_files(place, record, run={}))
    finally:
        shutil.rmtree(folder)
    sys.stdout.write(f"{side} x {side} px at {MPP} um/px, {record.notes('stitch')['nuclei']:,} nuclei\n")
    for name, took in clock.stages.items():
        sys.stdout.write(
            f"{name:8s}{took['wall_s']:8.1f} s wall{took['cpu_s']:8.1f} s CPU{took['peak_mib']:8.0f} MiB peak\n"
        )
    sys.stdout.write(json.dumps(clock.stages) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
