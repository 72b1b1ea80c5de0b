"""Predictions of consecutive tiles on disk: what is written stays written, whatever happens next.

A shard is ``NNNNN.parquet`` (its nuclei) and ``NNNNN.regions`` (the region maps of its tiles, compressed). The parquet
file is written last: a shard whose parquet exists is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
from numcodecs.blosc import Blosc

from pathopan.errors import ResultError
from pathopan.files import atomic_path, has_content, remove_empty, remove_leftovers
from pathopan.inference.predict import TilePrediction

_FOLDER, _FILE = re.compile(r"[0-9a-f]{16}-\d+"), re.compile(r"\d{5,}\.(parquet|regions)")
_CODEC = Blosc(cname="zstd", clevel=3, shuffle=Blosc.NOSHUFFLE)


@dataclass(frozen=True)
class ShardPlan:
    """Which tiles go into which shard: fixed by the list of tiles, so that a restart cuts it alike."""

    tile_indices: tuple[int, ...]
    shard_tiles: int

    def __len__(self) -> int:
        """Count the shards."""
        return -(-len(self.tile_indices) // self.shard_tiles)

    def tiles(self, shard: int) -> tuple[int, ...]:
        """List the tiles of a shard."""
        return self.tile_indices[shard * self.shard_tiles : (shard + 1) * self.shard_tiles]

    def part(self, number: int, total: int) -> range:
        """List the shards of one of several jobs, which share them evenly: ``number`` counts from 1.

        Examples
        --------
        >>> plan = ShardPlan(tuple(range(10)), 2)
        >>> [list(plan.part(number, 3)) for number in (1, 2, 3)]
        [[0], [1, 2], [3, 4]]
        """
        return range(len(self) * (number - 1) // total, len(self) * number // total)


def shard_path(folder: Path, shard: int) -> Path:
    """Name a shard's parquet file."""
    return folder / f"{shard:05d}.parquet"


def write_shard(folder: Path, shard: int, predictions: Sequence[TilePrediction]) -> None:
    """Write the predictions of a shard's tiles."""
    target = shard_path(folder, shard)
    with atomic_path(target.with_suffix(".regions")) as temporary:
        temporary.write_bytes(_CODEC.encode(np.stack([prediction.region for prediction in predictions])))
    tables = [prediction.nuclei for prediction in predictions]
    nuclei = gpd.GeoDataFrame(pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True), crs=None)
    with atomic_path(target) as temporary:
        nuclei.to_parquet(temporary, compression="zstd")


def remove_shards(folder: Path) -> None:
    """Delete the shards of all settings in a slide's folder ``shards``, and the folders where nothing else is left.

    No process may be writing shards there: what one that was killed left half-written goes, too.
    """
    remove_leftovers(folder.parent)
    for settings in folder.glob("*/"):
        if _FOLDER.fullmatch(settings.name):
            for path in settings.iterdir():
                if _FILE.fullmatch(path.name) and path.is_file():
                    path.unlink()
            remove_empty(settings)
    remove_empty(folder)


def missing_shards(folder: Path, shards: Iterable[int]) -> list[int]:
    """List the shards that are not there, or have an empty file, as a machine leaves it that lost its power."""
    files = {shard: (path := shard_path(folder, shard), path.with_suffix(".regions")) for shard in shards}
    return [shard for shard, pair in files.items() if not all(map(has_content, pair))]


def require_shards(folder: Path, shards: Sequence[int]) -> None:
    """Refuse to go on without some shards.

    Raises
    ------
    ResultError
        If one is missing.
    """
    missing = missing_shards(folder, shards)
    if missing:
        msg = f"{folder}: shards {missing[:5]} are missing; run predict again to complete them"
        raise ResultError(msg)


def iter_nuclei(folder: Path, shards: Sequence[int]) -> Iterator[gpd.GeoDataFrame]:
    """Read the nuclei of shards that are there, one after the other."""
    return (gpd.read_parquet(shard_path(folder, shard)) for shard in shards)


def read_regions(folder: Path, plan: ShardPlan, *, step: int) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield each tile's index and (step, step) region map, shard by shard."""
    for shard in range(len(plan)):
        tiles = plan.tiles(shard)
        stored = shard_path(folder, shard).with_suffix(".regions").read_bytes()
        maps = np.frombuffer(_CODEC.decode(stored), dtype=np.uint8).reshape(len(tiles), step, step)
        yield from zip(tiles, maps, strict=True)
