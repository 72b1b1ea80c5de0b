"""Stand-ins for the network: one reads the synthetic slide's code of colors, one is tiny with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import torch

from pathopan.classes import BREAST, Taxonomy
from pathopan.doctor import TruthRuntime
from pathopan.geometry import Grid
from pathopan.inference.predict import DecodeTask, TilePrediction, predict_tiles
from pathopan.inference.runtime import Runtime
from pathopan.network.bundle import Bundle
from pathopan.network.targets import DecodeRules
from pathopan.slide import Slide
from pathopan.stitcher.nuclei import merge_nuclei
from pathopan.tiler.grid import make_grid
from pathopan.tiler.tissue import TissueMask

TINY = {
    "encoder": "tu-test_resnet.r160_in1k",
    "nucleus_channels": [16, 12, 8, 8],
    "region_channels": [8, 8, 8],
}
"""Arguments of a PanopticNet that builds and runs in milliseconds."""

MARGIN_PX = 6.0
"""Three micrometres at 0.5 um/px, as in a real run."""


class OracleRuntime(TruthRuntime):
    """The truth in the network's place, with the classes that most tests use."""

    name = "oracle"

    def __init__(self, taxonomy: Taxonomy = BREAST) -> None:
        super().__init__(taxonomy)


@dataclass(frozen=True)
class Look:
    """How a slide is looked at."""

    step: int = 256
    halo: int = 48
    offset: tuple[int, int] = (0, 0)
    workers: int = 0
    batch_size: int = 1

    def grid(self, slide: Slide) -> Grid:
        return make_grid(slide.info, mpp=0.5, step=self.step, halo=self.halo, offset=self.offset)


def everywhere(grid: Grid) -> TissueMask:
    """A tissue mask that is all tissue."""
    return TissueMask(np.ones((1, 1), dtype=bool), mpp=grid.mpp * max(grid.size) + 1)


def decode_task(grid: Grid, tissue: TissueMask | None = None) -> DecodeTask:
    return DecodeTask(grid, BREAST, tissue or everywhere(grid), DecodeRules(), seam_margin_px=MARGIN_PX)


def predict_all(open_reader: Callable[[], Slide], runtime: Runtime, look: Look) -> tuple[Grid, list[TilePrediction]]:
    """Look at every tile of a slide."""
    with open_reader() as slide:
        grid = look.grid(slide)
    predictions = predict_tiles(
        open_reader, runtime, grid, task=decode_task(grid), workers=look.workers, batch_size=look.batch_size
    )
    return grid, list(predictions)


def region_plane(grid: Grid, predictions: list[TilePrediction]) -> np.ndarray:
    """Put the tiles' regions into one map."""
    plane = np.zeros((grid.size[1], grid.size[0]), np.uint8)
    for prediction in predictions:
        inside = prediction.tile.write.intersect(grid.plane)
        plane[inside.slices] = prediction.region[inside.relative_to(prediction.tile.write).slices]
    return plane


def merged(grid: Grid, predictions: list[TilePrediction]) -> gpd.GeoDataFrame:
    """Merge the tiles' nuclei."""
    tables = [prediction.nuclei for prediction in predictions]
    table = gpd.GeoDataFrame(pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True), crs=None)
    return merge_nuclei(table, grid, margin_px=MARGIN_PX)


def tiny_bundle(**changes: object) -> Bundle:
    """A bundle of a tiny network on tiles of 64 pixels with a halo of 32."""
    settings: dict[str, object] = {
        "name": "tiny",
        "taxonomy": BREAST,
        "architecture": "PanopticNet",
        "arguments": dict(TINY),
        "mpp": 0.5,
        "step": 64,
        "halo": 32,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "decode": DecodeRules(),
    }
    return Bundle(**{**settings, **changes})  # type: ignore[arg-type]


def tiny_net(bundle: Bundle | None = None, *, seed: int = 0) -> torch.nn.Module:
    """The network of a tiny bundle, with random weights and statistics that are not those of a fresh one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = (bundle or tiny_bundle()).build()
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2.0)
        return net.eval()
