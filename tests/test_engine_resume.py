"""Killed at any moment, on any number of workers, in batches and shards of any size: the same bytes in the end."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_runs import LoggingRuntime, fingerprints, run_one
from oracle import OracleRuntime, tiny_bundle, tiny_net

from pathopan.datasets.synthetic import make_slide
from pathopan.errors import UnreadableSlide
from pathopan.inference import shards
from pathopan.network.bundle import save_bundle
from pathopan.slide.openslide import OpenSlideSlide

KILLS = int(os.environ.get("PATHOPAN_KILLS", "3"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "truth"
    description = tiny_bundle(step=128, halo=64)
    save_bundle(folder, description, tiny_net(description))
    return folder


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "truth.tif"
    make_slide(path, size_px=(768, 640), discs_per_kind=1)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, bundle, slide):
    """An undisturbed run: its files, and the tiles it looked at."""
    folder = tmp_path_factory.mktemp("whole")
    run_one(slide, bundle, folder / "out", LoggingRuntime(folder / "log"))
    return fingerprints(folder / "out"), (folder / "log").read_text().split()


@pytest.mark.parametrize("how", [{"workers": 0}, {"workers": 3, "batch_size": 4, "shard_tiles": 5}])
def test_workers_batches_and_shards_change_no_byte(tmp_path, bundle, slide, whole, how):
    run_one(slide, bundle, tmp_path, OracleRuntime(), **how)
    assert fingerprints(tmp_path) == whole[0]


@pytest.mark.slow
@pytest.mark.timeout(90 * KILLS + 60)
def test_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path, bundle, slide, whole):
    """Kills fall anywhere between the first tile and the end; PATHOPAN_KILLS=20 tries harder than a build does."""
    moments, killed = random.Random(0), 0
    for attempt in range(KILLS):  # a run that reached its end is followed by another
        out, log = tmp_path / f"out-{attempt}", tmp_path / f"log-{attempt}"
        finished = 0
        while killed < KILLS and not is_exported(out):
            killed += kill_one(slide, bundle, out, log, after_s=moments.uniform(0, 1.5))
            finished = 3 * len(list(out.rglob("shards/*/[0-9]*.parquet")))
        looked = len(log.read_text().split())
        run_one(slide, bundle, out, LoggingRuntime(log), shard_tiles=3)
        assert fingerprints(out) == whole[0]
        again = log.read_text().split()[looked:]
        assert len(again) <= max(0, len(whole[1]) - finished), "a finished tile was looked at twice"
        if killed == KILLS:
            break


def kill_one(slide: Path, bundle: Path, out: Path, log: Path, *, after_s: float) -> bool:
    """Start a run, or go on with it, and kill it some time after its first tile; says whether it was still alive."""
    before = log.stat().st_size if log.exists() else 0
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("engine_runs.py")), *map(str, (slide, bundle, out, log))]
    )
    while process.poll() is None and (not log.exists() or log.stat().st_size == before):
        time.sleep(0.01)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def is_exported(out: Path) -> bool:
    return (out / "record.json").exists() and '"export"' in (out / "record.json").read_text()


def test_a_full_disk_fails_clearly_and_the_next_call_goes_on(tmp_path, bundle, slide, whole, monkeypatch):
    write = shards.write_shard

    def full(folder, shard, predictions):
        if shard >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, shard, predictions)

    monkeypatch.setattr("pathopan.stages.write_shard", full)
    with pytest.raises(OSError, match="No space left"):
        run_one(slide, bundle, tmp_path / "out", LoggingRuntime(tmp_path / "log"), shard_tiles=3)
    monkeypatch.undo()
    tried = len((tmp_path / "log").read_text().split())
    run_one(slide, bundle, tmp_path / "out", LoggingRuntime(tmp_path / "log"), shard_tiles=3)
    assert fingerprints(tmp_path / "out") == whole[0]
    assert len((tmp_path / "log").read_text().split()) - tried == len(whole[1]) - 6


def test_a_read_error_in_the_middle_fails_clearly_and_the_next_call_goes_on(
    tmp_path, bundle, slide, whole, monkeypatch
):
    read = OpenSlideSlide.read

    def damaged(self, window, mpp):
        if mpp == 0.5 and window.y > 200:
            raise UnreadableSlide(f"{self.info.path}: cannot be read at {window}")
        return read(self, window, mpp)

    monkeypatch.setattr(OpenSlideSlide, "read", damaged)
    with pytest.raises(UnreadableSlide, match="cannot be read at"):
        run_one(slide, bundle, tmp_path, OracleRuntime(), shard_tiles=3)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("shards/*/0*")}
    assert kept
    monkeypatch.setattr(OpenSlideSlide, "read", read)
    with monkeypatch.context() as watched:
        watched.setattr("pathopan.stages.remove_shards", lambda path: None)
        run_one(slide, bundle, tmp_path, OracleRuntime(), shard_tiles=3)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished shards are left alone"


class Dying(OracleRuntime):
    """A worker that dies at its third tile."""

    looks = 0

    def _look(self, image):
        self.looks += 1
        if self.looks == 8:
            raise MemoryError("worker died")
        return super()._look(image)


def test_a_dying_worker_fails_clearly_and_the_next_call_goes_on(tmp_path, bundle, slide, whole):
    with pytest.raises(MemoryError, match="worker died"):
        run_one(slide, bundle, tmp_path, Dying(), shard_tiles=3)
    assert list(tmp_path.rglob("shards/*/0*.parquet"))
    run_one(slide, bundle, tmp_path, OracleRuntime(), shard_tiles=3)
    assert fingerprints(tmp_path) == whole[0]
