"""A slide's tiles spread over several devices: processes on the CPU stand for GPUs, and the bytes are those of one."""

import json

import pytest
from oracle import tiny_bundle, tiny_net

from pathopan.batch import RunSettings, read_gpus
from pathopan.config import load_config
from pathopan.datasets.synthetic import make_slide
from pathopan.errors import ConfigError, RuntimeUnavailable
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import save_bundle
from pathopan.pipeline import run_cohort
from pathopan.record import SlideRecord
from pathopan.spread import Spread
from pathopan.stages import Engine, Job, shard_folder, shard_plan, tile_slide

CONFIG = load_config(overrides=["inference.shard_tiles=2", "inference.runtime=torch", "inference.precision=float32"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    description = tiny_bundle(step=256, halo=32)
    save_bundle(folder, description, tiny_net(description))
    return folder


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "truth.tif"
    make_slide(path, size_px=(1024, 768), discs_per_kind=1)
    return SlideEntry("truth", path)


class Silence:
    def slide(self, *_told): ...
    def progress(self, *_told): ...
    def finished(self, *_told): ...


@pytest.mark.slow
def test_two_devices_leave_the_bytes_of_one(tmp_path, bundle, entry):
    for name, gpus in (("one", ()), ("two", (0, 1))):
        settings = RunSettings(tmp_path / name, bundle, CONFIG, "cpu", workers=1, gpus=gpus)
        assert run_cohort([entry], settings, Silence()).failures == ()
    slides = [tmp_path / name / "slides" / "truth" for name in ("one", "two")]
    for name in ("score.json", "nuclei.parquet", "regions.parquet", "truth.regions.geojson", "truth.nuclei.geojson.gz"):
        assert (slides[0] / name).read_bytes() == (slides[1] / name).read_bytes(), name
    predicted = [json.loads((slide / "record.json").read_text())["stages"]["predict"] for slide in slides]
    assert predicted[0]["tiles"] == predicted[1]["tiles"] > 4
    assert predicted[0]["fingerprint"] == predicted[1]["fingerprint"]


@pytest.mark.slow
def test_each_device_does_its_part_and_finished_tiles_are_kept(tmp_path, bundle, entry):
    job = Job(entry, CONFIG, Engine(bundle, CONFIG, device="cpu"), tmp_path, workers=0)
    tiling = tile_slide(job, SlideRecord.open(tmp_path / "record.json"))
    shards, heard = range(len(shard_plan(job, tiling))), []
    spread = Spread(bundle, CONFIG, device="cpu", gpus=(0, 1), patience_s=120)
    try:
        first = spread.predict(job, tiling, shards, lambda *told: heard.append(told))
        again = spread.predict(job, tiling, shards, lambda *_told: None)
    finally:
        spread.close()
    total = len(tiling.tiles)
    assert first == {"tiles": total, "computed": total, "runtime": "torch", "device": "cpu", "precision": "float32"}
    assert again == {"tiles": total, "computed": 0}
    assert heard[-1] == ("predict", total, total)
    assert len(list(shard_folder(job).glob("*.parquet"))) == len(shards)


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_told(tmp_path, bundle, entry):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    job = Job(entry, CONFIG, Engine(bundle, CONFIG), tmp_path, workers=0)
    tiling = tile_slide(job, SlideRecord.open(tmp_path / "record.json"))
    spread = Spread(bundle, CONFIG, device="auto", gpus=(0,), patience_s=120)
    try:
        with pytest.raises(RuntimeUnavailable, match="'cuda:0' was asked for"):
            spread.predict(job, tiling, range(len(shard_plan(job, tiling))), lambda *_told: None)
    finally:
        spread.close()


@pytest.mark.parametrize("text", ["a", "0,", "1,1", "-1", "0;1"])
def test_gpus_are_different_numbers(text):
    with pytest.raises(ConfigError, match="different GPUs"):
        read_gpus(text)
