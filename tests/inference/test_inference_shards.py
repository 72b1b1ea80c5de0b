import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from pathopan.errors import ResultError
from pathopan.geometry import Grid
from pathopan.inference.predict import TilePrediction
from pathopan.inference.shards import ShardPlan, iter_nuclei, read_regions, require_shards, shard_path, write_shard

GRID = Grid(mpp=0.5, step=8, halo=2, size=(64, 8), scale_l0=(1, 1))


def prediction(index: int, count: int) -> TilePrediction:
    rng = np.random.default_rng(index)
    corners = rng.uniform(0, 5, (count, 2))
    nuclei = gpd.GeoDataFrame(
        {
            "class_id": rng.integers(1, 5, count),
            "prob": rng.random(count),
            "tile_index": np.full(count, index, dtype=np.int64),
        },
        geometry=[shapely.box(x, y, x + 2, y + 2) for x, y in corners],
        crs=None,
    )
    return TilePrediction(GRID.tile(index), rng.integers(0, 6, (8, 8), dtype=np.uint8), nuclei)


@given(st.lists(st.integers(0, 99), unique=True, max_size=30), st.integers(1, 9))
def test_every_tile_lies_in_one_shard(indices, size):
    plan = ShardPlan(tuple(indices), size)
    parts = [plan.tiles(shard) for shard in range(len(plan))]
    assert [index for part in parts for index in part] == indices
    assert all(0 < len(part) <= size for part in parts)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_what_is_written_is_read_whatever_the_size_of_shards(tmp_path, size):
    predictions = [prediction(index, count) for index, count in enumerate([2, 0, 3, 0, 0, 1, 4, 2])]
    plan = ShardPlan(tuple(range(8)), size)
    for shard in reversed(range(len(plan))):
        write_shard(tmp_path, shard, [predictions[index] for index in plan.tiles(shard)])
    nuclei = pd.concat(iter_nuclei(tmp_path, range(len(plan))), ignore_index=True)
    expected = pd.concat([p.nuclei for p in predictions if len(p.nuclei)], ignore_index=True)
    pd.testing.assert_frame_equal(pd.DataFrame(nuclei), pd.DataFrame(expected))
    assert nuclei.crs is None
    regions = dict(read_regions(tmp_path, plan, step=8))
    assert list(regions) == list(range(8))
    for index, region in regions.items():
        np.testing.assert_array_equal(region, predictions[index].region)


def test_shards_without_nuclei(tmp_path):
    write_shard(tmp_path, 0, [prediction(0, 0), prediction(1, 0)])
    write_shard(tmp_path, 1, [prediction(2, 0)])
    nuclei = pd.concat(iter_nuclei(tmp_path, [0, 1]), ignore_index=True)
    assert len(nuclei) == 0
    assert list(nuclei.columns) == ["class_id", "prob", "tile_index", "geometry"]


def test_a_missing_shard_is_told(tmp_path):
    write_shard(tmp_path, 0, [prediction(0, 1)])
    with pytest.raises(ResultError, match=r"shards \[1, 2\] are missing; run predict again"):
        require_shards(tmp_path, [0, 1, 2])


def test_an_interrupted_shard_does_not_count(tmp_path, monkeypatch):
    def killed(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gpd.GeoDataFrame, "to_parquet", killed)
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, 0, [prediction(0, 1)])
    assert not shard_path(tmp_path, 0).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["00000.regions"]


def test_no_tiles_give_no_shards(tmp_path):
    plan = ShardPlan((), 4)
    assert len(plan) == 0
    assert list(read_regions(tmp_path, plan, step=8)) == []
