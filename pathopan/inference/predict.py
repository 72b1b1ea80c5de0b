"""Tiles to predictions: read, look, decode, each stage ahead of the next by a bounded number of tiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain, islice

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely

from pathopan.classes import UNANALYSED, Taxonomy
from pathopan.contours import nucleus_polygons
from pathopan.geometry import Grid, Tile
from pathopan.inference.ordered import ordered_map
from pathopan.inference.runtime import Runtime, TileMaps
from pathopan.network.targets import DecodeRules, decode
from pathopan.slide.base import Slide
from pathopan.slide.stain import hematoxylin_density
from pathopan.tiler.glass import find_glass
from pathopan.tiler.tissue import TissueMask

Rgb = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class TilePrediction:
    """What one tile decided."""

    tile: Tile
    region: npt.NDArray[np.uint8]  # (step, step) region ids in the write window; 0 outside tissue
    nuclei: gpd.GeoDataFrame  # class_id, prob, prob_<class>, hematoxylin_mean, tile_index, geometry in grid pixels


@dataclass(frozen=True)
class DecodeTask:
    """What decoding a tile needs besides the network's maps."""

    grid: Grid
    taxonomy: Taxonomy
    tissue: TissueMask
    rules: DecodeRules
    seam_margin_px: float  # nuclei whose centroid lies this far outside the write window are kept too


def predict_tiles(
    open_reader: Callable[[], Slide],
    runtime: Runtime,
    tiles: Iterable[Tile],
    *,
    task: DecodeTask,
    workers: int = 2,
    batch_size: int = 1,
) -> Generator[TilePrediction, None, None]:
    """Stream tiles through the network, in order, in bounded memory.

    Parameters
    ----------
    open_reader : callable
        Opens the slide; called once in each reader thread, and the handle is closed at the end.
    runtime : Runtime
        Executes the network.
    tiles : iterable of Tile
        Which to look at, in the order in which predictions are wanted.
    task : DecodeTask
        Grid, classes, tissue and thresholds.
    workers : int
        Threads for reading and as many for decoding; 0 does everything in line. The result is the same.
    batch_size : int
        Tiles in one forward pass. The result is the same.

    Raises
    ------
    UnreadableSlide
        If a window cannot be read, at that tile's turn.
    """
    readers = _Readers(open_reader)
    with ExitStack() as stages:  # the last one stops first, and no slide is closed while a thread may read it
        stages.callback(readers.close)
        images = ordered_map(lambda t: (t, readers.current().read(t.read, task.grid.mpp)), tiles, workers=workers)
        stages.enter_context(closing(images))
        looked = ordered_map(
            lambda batch: _look(runtime, batch),
            _batched(images, batch_size),
            workers=min(workers, runtime.streams),
        )
        stages.enter_context(closing(looked))
        yield from ordered_map(lambda item: decode_tile(*item, task=task), chain.from_iterable(looked), workers=workers)


def _batched(items: Iterable[tuple[Tile, Rgb]], size: int) -> Iterator[tuple[tuple[Tile, Rgb], ...]]:
    source = iter(items)
    while batch := tuple(islice(source, size)):
        yield batch


def _look(runtime: Runtime, batch: tuple[tuple[Tile, Rgb], ...]) -> list[tuple[Tile, Rgb, TileMaps]]:
    maps = runtime.run(np.stack([image for _, image in batch]))
    return [(tile, image, found) for (tile, image), found in zip(batch, maps, strict=True)]


class _Readers:
    """One slide handle a thread, all closed together."""

    def __init__(self, open_reader: Callable[[], Slide]) -> None:
        self._open = open_reader
        self._local = threading.local()
        self._lock = threading.Lock()
        self._all: list[Slide] = []

    def current(self) -> Slide:
        if not hasattr(self._local, "slide"):
            self._local.slide = self._open()
            with self._lock:
                self._all.append(self._local.slide)
        slide: Slide = self._local.slide
        return slide

    def close(self) -> None:
        for slide in self._all:
            slide.close()


def decode_tile(tile: Tile, image: Rgb, maps: TileMaps, *, task: DecodeTask) -> TilePrediction:
    """Turn the network's maps of a read window into regions of the write window and nuclei as polygons.

    Bare glass is background whatever the network says: tissue masks have a rim, and no denominator shall count it.
    """
    inner = tile.write.relative_to(tile.read)
    ids = np.array([kind.id for kind in task.taxonomy.regions], dtype=np.uint8)
    x_um, y_um = (
        (np.arange(start, start + tile.write.width) + 0.5) * task.grid.mpp for start in (tile.write.x, tile.write.y)
    )
    inside = _is_tissue(task.tissue, x_um[None, :], y_um[:, None])
    region = ids[maps.region[inner.slices]]
    glass = find_glass(image, mpp=task.grid.mpp, glass_level=task.tissue.glass_level)
    for background in task.taxonomy.region_ids("background")[:1]:
        region[glass[inner.slices]] = background
    region = np.where(inside, region, np.uint8(UNANALYSED))
    instances, prob = decode(maps.shape[0], maps.shape[1], maps.shape[2:], rules=task.rules)
    return TilePrediction(tile, region, _nuclei(tile, image, instances, prob, maps.nucleus, task=task))


def _nuclei(
    tile: Tile,
    image: Rgb,
    instances: npt.NDArray[np.int32],
    prob: npt.NDArray[np.float32],
    class_maps: npt.NDArray[np.float32],
    *,
    task: DecodeTask,
) -> gpd.GeoDataFrame:
    """Keep the nuclei that this tile may own, outline them, and average over their pixels."""
    kept = _owned(tile, instances, task)
    ids, polygons = nucleus_polygons(np.where(kept[instances], instances, 0))
    rows, columns = np.nonzero(kept[instances])
    owner = instances[rows, columns]
    pixels = np.bincount(owner, minlength=len(kept))[ids]

    def mean(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return np.bincount(owner, weights=values, minlength=len(kept))[ids] / pixels

    probs = np.stack([mean(plane[rows, columns]) for plane in class_maps], axis=1).reshape(len(ids), len(class_maps))
    class_ids = np.array([kind.id for kind in task.taxonomy.nuclei], dtype=np.int64)
    columns_of = {f"prob_{kind.name}": probs[:, i] for i, kind in enumerate(task.taxonomy.nuclei)}
    return gpd.GeoDataFrame(
        {
            "class_id": class_ids[probs.argmax(axis=1)] if len(ids) else class_ids[:0],
            "prob": prob[ids].astype(np.float64),
            "tile_index": np.full(len(ids), tile.index, dtype=np.int64),
            "hematoxylin_mean": mean(hematoxylin_density(image[rows, columns])),
            **columns_of,
        },
        geometry=shapely.transform(polygons, lambda xy: xy + np.array([tile.read.x, tile.read.y])),
        crs=None,
    )


def _owned(tile: Tile, instances: npt.NDArray[np.int32], task: DecodeTask) -> npt.NDArray[np.bool_]:
    """Say for each instance id whether its centroid lies in the grown write window, the slide and the tissue."""
    count = int(instances.max(initial=0)) + 1
    rows, columns = np.nonzero(instances)
    owner = instances[rows, columns]
    area = np.maximum(np.bincount(owner, minlength=count), 1)
    x = np.bincount(owner, weights=columns, minlength=count) / area + 0.5 + tile.read.x
    y = np.bincount(owner, weights=rows, minlength=count) / area + 0.5 + tile.read.y
    write, plane, margin = tile.write, task.grid.plane, task.seam_margin_px
    kept = (x >= write.x - margin) & (x < write.x1 + margin) & (y >= write.y - margin) & (y < write.y1 + margin)
    kept &= (x >= 0) & (x < plane.x1) & (y >= 0) & (y < plane.y1)
    kept &= _is_tissue(task.tissue, x * task.grid.mpp, y * task.grid.mpp)
    kept[0] = False
    return kept


def _is_tissue(tissue: TissueMask, x_um: FloatArray, y_um: FloatArray) -> npt.NDArray[np.bool_]:
    """Look points up in the tissue mask; outside of it there is none."""
    rows, columns = np.floor(y_um / tissue.mpp).astype(np.int64), np.floor(x_um / tissue.mpp).astype(np.int64)
    height, width = tissue.mask.shape
    if min(height, width) == 0:
        return np.zeros(np.broadcast_shapes(rows.shape, columns.shape), dtype=bool)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return inside & tissue.mask[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
