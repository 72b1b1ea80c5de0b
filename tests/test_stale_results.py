"""What lies in a folder from earlier never passes for what a run was asked for: failures, settings, bundles, files."""

import json
import shutil

import pandas as pd
import pytest
from oracle import OracleRuntime, tiny_bundle, tiny_net

from pathopan.attempt import Attempts
from pathopan.batch import RunSettings
from pathopan.config import Config, load_config
from pathopan.datasets.synthetic import make_slide
from pathopan.errors import RuntimeUnavailable
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import save_bundle
from pathopan.pipeline import run_cohort
from pathopan.record import SlideRecord
from pathopan.rescore import rescore_run
from pathopan.result import open_result
from pathopan.verify import verify_run


class Counting(OracleRuntime):
    def __init__(self):
        super().__init__()
        self.looks = []

    def _look(self, image):
        self.looks.append(1)
        return super()._look(image)


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    runtime = Counting()
    monkeypatch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: runtime)
    return runtime


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "truth.tif"
    make_slide(path, size_px=(1100, 800), discs_per_kind=1)
    return path


def make_bundle(folder, *, seed=0, **changes):
    description = tiny_bundle(step=256, halo=64, **changes)
    save_bundle(folder, description, tiny_net(description, seed=seed))
    return folder


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def entries(tmp_path, slide_file):
    made = [SlideEntry(name, tmp_path / f"{name}.tif") for name in ("a", "b")]
    for entry in made:
        shutil.copy(slide_file, entry.path)
    return made


class Silence:
    def slide(self, *_told): ...
    def progress(self, *_told): ...
    def finished(self, *_told): ...


def run(out, bundle, entries, *, config=None, **more):
    return run_cohort(entries, RunSettings(out, bundle, config or Config(), **more), Silence())


def status(out):
    return pd.read_csv(out / "scores.csv").set_index("slide_id")["status"].to_dict()


def folder(out, name="a"):
    return out / "slides" / name


def test_a_complete_slide_loses_its_old_failure_also_where_slides_overlap(tmp_path, bundle, entries):
    out = tmp_path / "out"
    run(out, bundle, entries[:1])
    record = SlideRecord.open(folder(out) / "record.json")
    record.entries["failure"] = {"stage": "open"}
    record.write()
    attempts = Attempts(RunSettings(out, bundle, Config()))
    assert attempts(entries[0], {}, lambda *_told: None, finish=False) == (None, False)
    assert "failure" not in SlideRecord.open(record.path).entries


def test_a_failed_slide_does_not_come_back_with_the_score_of_an_earlier_run(tmp_path, bundle, entries):
    out = tmp_path / "out"
    run(out, bundle, entries)
    entries[1].path.write_bytes(entries[1].path.read_bytes()[:5_000])
    assert [failure.slide_id for failure in run(out, bundle, entries).failures] == ["b"]
    assert open_result(out).slide_ids == ["a"]
    lines = rescore_run(out, load_config(overrides=["scores.min_compartment_mm2=0.02"]))
    assert "b\tnote\tleft as it was: its last run was stopped or failed; run it again" in lines
    assert status(out) == {"a": "scored", "b": "failed"}
    assert list(pd.read_csv(out / "failures.csv")["slide_id"]) == ["b"]
    shutil.rmtree(folder(out, "b") / "panoptic.ome.zarr")
    outcome = run(out, bundle, entries)  # whose page does not need what is gone
    assert (outcome.skipped, [failure.slide_id for failure in outcome.failures]) == (0, ["b"]) or outcome.done == 1


@pytest.mark.parametrize("stage", ["tile", "stitch"])
def test_files_of_other_settings_do_not_pass_for_those_of_a_record(tmp_path, bundle, entries, monkeypatch, stage):
    out, others = tmp_path / "out", load_config(overrides=["tiler.tissue_mpp=4", "stitcher.max_overlap=0.9"])
    run(out, bundle, entries[:1])
    finish = SlideRecord.finish

    def stopped(self, name, *args, **named):
        if name == stage:
            raise KeyboardInterrupt
        finish(self, name, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(SlideRecord, "finish", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(out, bundle, entries[:1], config=others)
    outcome = run(out, bundle, entries[:1])
    assert (outcome.done, outcome.skipped) == (1, 0)
    assert verify_run(out) == []


def test_slides_of_two_bundles_are_named_and_each_page_names_its_own(tmp_path, entries):
    out = tmp_path / "out"
    first, second = (
        make_bundle(tmp_path / name, name=name, seed=seed) for seed, name in enumerate(["first", "second"])
    )
    run(out, first, entries[:1])
    notes = run(out, second, entries[1:]).notes
    assert any("a was segmented by first, and most slides by second: run all by the same" in note for note in notes)
    rescore_run(out, load_config(overrides=["scores.min_compartment_mm2=0.02"]))
    pages = {name: (folder(out, name) / "report.html").read_text() for name in "ab"}
    digests = {name: json.loads((path / "bundle.json").read_text())["sha256"] for name, path in
               (("a", first), ("b", second))}  # fmt: skip
    assert digests["a"] in pages["a"]
    assert digests["b"] not in pages["a"]
    assert digests["b"] in pages["b"]


@pytest.mark.parametrize("end", ["parquet", "regions"])
def test_an_empty_shard_is_looked_at_again(tmp_path, bundle, entries, runtime, monkeypatch, end):
    out, config = tmp_path / "out", load_config(overrides=["inference.shard_tiles=2"])
    with monkeypatch.context() as patch:
        patch.setattr("pathopan.attempt.stitch_slide", lambda *_args, **_kwargs: 1 / 0)
        assert run(out, bundle, entries[:1], config=config).failures
    whole = len(runtime.looks)
    (shard,) = folder(out).glob(f"shards/*/00001.{end}")
    shard.write_bytes(b"")
    assert run(out, bundle, entries[:1], config=config).done == 1
    assert len(runtime.looks) == whole + 2
    assert verify_run(out) == []


@pytest.mark.parametrize("name", ["score.json", "nuclei.parquet", "regions.parquet", "report.html"])
def test_an_empty_file_is_written_again(tmp_path, bundle, entries, name):
    out = tmp_path / "out"
    run(out, bundle, entries[:1])
    (folder(out) / name).write_bytes(b"")
    assert run(out, bundle, entries[:1]).done == 1
    assert status(out) == {"a": "scored"}
    assert verify_run(out) == []


def test_overwrite_looks_at_every_tile_again_but_not_twice_if_the_process_dies(
    tmp_path, bundle, entries, runtime, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("pathopan.attempt.stitch_slide", lambda *_args, **_kwargs: 1 / 0)
        run(out, bundle, entries[:1])
        whole = len(runtime.looks)
        run(out, bundle, entries[:1])
        assert len(runtime.looks) == whole
        run(out, bundle, entries[:1], overwrite=True)
        assert len(runtime.looks) == 2 * whole
    from pathopan import pipeline
    from pathopan.errors import ProcessDied

    asked = []

    class Dying:
        def ask(self, request, _hear):
            asked.append(request.overwrite)
            raise ProcessDied("killed", log="")

    settings = RunSettings(out, bundle, Config(), overwrite=True)
    pipeline._attempt(Dying(), pipeline.Request(entries[0], {}, overwrite=True), settings, lambda *_told: None)
    assert asked == [True, False]


def test_gpus_that_are_not_there_are_told_before_any_slide(tmp_path, bundle, entries, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeUnavailable, match="'cuda:0' was asked for, but torch sees none"):
        run(tmp_path / "out", bundle, entries, gpus=(0, 1))


def test_a_changed_level_of_a_dicom_folder_is_another_slide(tmp_path):
    from pathopan.stages import _slide_print

    (tmp_path / "slide").mkdir()
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / "slide" / name).write_bytes(b"1")
    before = _slide_print(tmp_path / "slide", None)
    assert _slide_print(tmp_path / "slide", None) == before
    (tmp_path / "slide" / "2.dcm").write_bytes(b"22")
    assert _slide_print(tmp_path / "slide", None) != before
