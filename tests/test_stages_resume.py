"""A slide that was stopped while predicting goes on, also with shards of another size."""

import geopandas as gpd
import pytest
from oracle import OracleRuntime, tiny_bundle, tiny_net

from pathopan.config import load_config
from pathopan.datasets.synthetic import make_slide
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import save_bundle
from pathopan.record import SlideRecord
from pathopan.stages import Engine, Job, predict_shards, predict_slide, stitch_slide, tile_slide


@pytest.fixture(autouse=True)
def truth(monkeypatch):
    monkeypatch.setattr("pathopan.stages.open_runtime", lambda *_args, **_more: OracleRuntime())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "truth"
    save_bundle(folder, tiny_bundle(step=256, halo=64), tiny_net())
    return folder


def go(job, progress=lambda *_heard: None):
    record = SlideRecord.open(job.folder / "record.json")
    tiling = tile_slide(job, record)
    plan = predict_slide(job, tiling, record, progress, predict=predict_shards)
    stitch_slide(job, tiling, plan, record, progress=progress)
    return gpd.read_parquet(job.folder / "detections.parquet")


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "truth.tif"
    make_slide(path, size_px=(1024, 768), discs_per_kind=1)
    return path


@pytest.mark.parametrize("sizes", [(4, 4), (4, 3)])
def test_a_stopped_prediction_goes_on_whatever_the_size_of_shards(tmp_path, bundle, slide, sizes):
    def job(folder, shard_tiles):
        config = load_config(overrides=[f"inference.shard_tiles={shard_tiles}"])
        entry = SlideEntry("truth", slide)
        return Job(entry, config, Engine(bundle, config, device="cpu"), tmp_path / folder, workers=0)

    def stop(_stage, done, _total):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(job("stopped", sizes[0]), stop)
    assert list((tmp_path / "stopped").rglob("0*.parquet"))
    assert go(job("stopped", sizes[1])).equals(go(job("whole", 16)))


def test_stitching_tells_row_by_row_that_it_goes_on(tmp_path, bundle, slide):
    config, told = load_config(), []
    job = Job(SlideEntry("truth", slide), config, Engine(bundle, config, device="cpu"), tmp_path / "out", workers=0)
    go(job, lambda *heard: told.append(heard))
    assert told.count(("stitch", 12, 12)) >= 3  # three rows of four tiles


@pytest.mark.parametrize("stopped", [False, True])
def test_the_network_s_memory_is_given_back_before_the_slide_is_stitched(tmp_path, bundle, slide, monkeypatch, stopped):
    released = []
    monkeypatch.setattr(OracleRuntime, "release", lambda _self: released.append(True))
    config = load_config()
    job = Job(SlideEntry("truth", slide), config, Engine(bundle, config, device="cpu"), tmp_path / "out", workers=2)

    def hear(stage, done, _total):
        assert released == ([True] if stage == "stitch" else [])
        if stopped and done == 6:
            raise KeyboardInterrupt

    if stopped:
        with pytest.raises(KeyboardInterrupt):
            go(job, hear)
    else:
        go(job, hear)
    assert released == [True]
