"""Tiles to predictions: read, look, decode, each stage ahead of the next by a bounded number of tiles."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain, islice

import cv2
import geopandas as gpd
import numpy as np
import numpy.typing as npt

from pathopan.classes import UNANALYSED, Taxonomy
from pathopan.contours import nucleus_polygons
from pathopan.geometry import Grid, Tile, Window
from pathopan.inference.ordered import ordered_map
from pathopan.inference.runtime import Runtime, TileMaps
from pathopan.network.bundle import Bundle
from pathopan.network.targets import Decoded, DecodeRules, decode_pixels
from pathopan.probabilities import apply_platt, apply_temperature
from pathopan.slide.base import Slide
from pathopan.slide.stain import hematoxylin_density
from pathopan.tiler.glass import GLASS_REACH_UM, find_glass
from pathopan.tiler.tissue import TissueMask

Rgb = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]

DECODE_MARGIN_UM = 32.0
"""Nuclei are decoded this far beyond the write window: no nucleus whose centroid it owns reaches farther."""


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
    Only the write window and what nuclei at its border need around it are looked at: the rest of the halo was context
    for the network.
    """
    shown = tile.write.grow((maps.region.shape[0] - tile.write.height) // 2)
    return TilePrediction(tile, _regions(tile, shown, image, maps, task), _nuclei(tile, shown, image, maps, task))


def decode_margin_px(mpp: float) -> int:
    """Pixels around the write window that decoding needs maps of."""
    return round(DECODE_MARGIN_UM / mpp)


def rim_px(bundle: Bundle) -> int:
    """Pixels at each side of a read window that are context only: a network need not answer for them."""
    return max(0, bundle.halo - decode_margin_px(bundle.mpp))


def _regions(tile: Tile, shown: Window, image: Rgb, maps: TileMaps, task: DecodeTask) -> npt.NDArray[np.uint8]:
    """Give the region ids of the write window; 0 outside tissue."""
    mpp, kinds = task.grid.mpp, task.taxonomy
    ids = np.zeros(256, np.uint8)
    ids[: len(kinds.regions)] = [kind.id for kind in kinds.regions]
    region: npt.NDArray[np.uint8] = cv2.LUT(maps.region[tile.write.relative_to(shown).slices], ids)
    around = tile.write.grow(math.ceil(GLASS_REACH_UM / mpp)).intersect(tile.read)
    seen = image[around.relative_to(tile.read).slices]
    glass = find_glass(seen, mpp=mpp, glass_level=task.tissue.glass_level, corner=(around.x, around.y))
    for background in kinds.region_ids("background")[:1]:
        np.copyto(region, np.uint8(background), where=glass[tile.write.relative_to(around).slices])
    x_um, y_um = ((np.arange(s, s + task.grid.step) + 0.5) * mpp for s in (tile.write.x, tile.write.y))
    np.copyto(region, np.uint8(UNANALYSED), where=~_tissue_lattice(task.tissue, x_um, y_um))
    return region


def _nuclei(tile: Tile, shown: Window, image: Rgb, maps: TileMaps, task: DecodeTask) -> gpd.GeoDataFrame:
    """Decode the middle of the read window, keep the nuclei that this tile may own, outline and measure them."""
    seen = tile.write.grow(decode_margin_px(task.grid.mpp)).intersect(shown)
    inner = seen.relative_to(shown)
    shape = maps.shape[:, *inner.slices]
    found = decode_pixels(shape[0], shape[1], shape[2:], rules=task.rules)
    row, column = np.divmod(found.pixels, inner.width)
    kept = _owned(seen, row, column, found.owner, tile=tile, task=task)
    ids = np.flatnonzero(kept)
    number = np.cumsum(kept) - 1
    mine = np.flatnonzero(kept[found.owner])
    owner, pixels = number[found.owner[mine]], found.pixels[mine]
    labels = Decoded(pixels, (owner + 1).astype(np.int32), found.prob).labels((inner.height, inner.width))
    level = task.rules.min_foreground
    _, polygons = nucleus_polygons(labels, foreground=shape[1], level=level, origin=(seen.x, seen.y))
    at = (row[mine] + inner.y) * shown.width + column[mine] + inner.x
    at_read = (row[mine] + (seen.y - tile.read.y)) * image.shape[1] + column[mine] + (seen.x - tile.read.x)
    pixel = image.reshape(-1, 3).take(at_read, axis=0)
    area = np.bincount(owner, minlength=len(ids))

    def mean(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return np.bincount(owner, weights=values, minlength=len(ids)) / area

    kinds = task.taxonomy.nuclei
    probs = np.stack([mean(plane.ravel()[at]) for plane in maps.nucleus], axis=1).reshape(len(ids), len(kinds))
    probs = apply_temperature(probs, task.rules.class_temperature)
    class_ids = np.array([kind.id for kind in kinds], dtype=np.int64)
    return gpd.GeoDataFrame(
        {
            "class_id": class_ids[probs.argmax(axis=1)] if len(ids) else class_ids[:0],
            "prob": apply_platt(found.prob[ids], task.rules.prob_slope, task.rules.prob_intercept),
            "tile_index": np.full(len(ids), tile.index, dtype=np.int64),
            "hematoxylin_mean": mean(hematoxylin_density(pixel)),
            **{f"prob_{kind.name}": probs[:, i] for i, kind in enumerate(kinds)},
        },
        geometry=polygons,
        crs=None,
    )


def _owned(
    seen: Window,
    row: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    owner: npt.NDArray[np.int32],
    *,
    tile: Tile,
    task: DecodeTask,
) -> npt.NDArray[np.bool_]:
    """Say for each instance id whether its centroid lies in the grown write window, the slide and the tissue."""
    count = int(owner.max(initial=0)) + 1
    area = np.maximum(np.bincount(owner, minlength=count), 1)
    x = np.bincount(owner, weights=column, minlength=count) / area + 0.5 + seen.x
    y = np.bincount(owner, weights=row, minlength=count) / area + 0.5 + seen.y
    write, plane, margin = tile.write, task.grid.plane, task.seam_margin_px
    kept = (x >= write.x - margin) & (x < write.x1 + margin) & (y >= write.y - margin) & (y < write.y1 + margin)
    kept &= (x >= 0) & (x < plane.x1) & (y >= 0) & (y < plane.y1)
    kept &= _is_tissue(task.tissue, x * task.grid.mpp, y * task.grid.mpp)
    kept[0] = False
    return kept


def _tissue_lattice(tissue: TissueMask, x_um: FloatArray, y_um: FloatArray) -> npt.NDArray[np.bool_]:
    """Look up all pairs of coordinates in the tissue mask; outside of it there is none."""
    columns, rows = (np.floor(axis / tissue.mpp).astype(np.int64) for axis in (x_um, y_um))
    height, width = tissue.mask.shape
    found = np.zeros((len(rows), len(columns)), bool)
    down, along = (np.flatnonzero((i >= 0) & (i < n)) for i, n in ((rows, height), (columns, width)))
    if len(down) and len(along):
        inside = slice(down[0], down[-1] + 1), slice(along[0], along[-1] + 1)
        found[inside] = _between(tissue.mask, rows[down], columns[along])
    return found


def _between(
    mask: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Look up all pairs of ascending rows and columns; whole columns, then whole rows, are copied fast."""
    seen = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return seen.take(columns - columns[0], axis=1).take(rows - rows[0], axis=0)


def _is_tissue(tissue: TissueMask, x_um: FloatArray, y_um: FloatArray) -> npt.NDArray[np.bool_]:
    """Look points up in the tissue mask; outside of it there is none."""
    rows, columns = np.floor(y_um / tissue.mpp).astype(np.int64), np.floor(x_um / tissue.mpp).astype(np.int64)
    height, width = tissue.mask.shape
    if min(height, width) == 0:
        return np.zeros(np.broadcast_shapes(rows.shape, columns.shape), dtype=bool)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return inside & tissue.mask[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
