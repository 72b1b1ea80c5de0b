"""The whole line on the synthetic slide, with a network that answers with the truth: scores must be the known ones."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import tifffile
from oracle import OracleRuntime, tiny_bundle, tiny_net

import pathopan
from pathopan.batch import RunSettings
from pathopan.classes import BREAST
from pathopan.config import Config, load_config
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import save_bundle
from pathopan.pipeline import run_cohort
from pathopan.record import LEDGER
from pathopan.verify import verify_run


class Silence:
    """Listens and keeps what it hears."""

    def __init__(self):
        self.heard = []

    def slide(self, slide_id, number, total):
        self.heard.append((slide_id, number, total))

    def progress(self, stage, done, total):
        self.heard.append((stage, done, total))

    def finished(self, slide_id, text):
        self.heard.append((slide_id, text))


@pytest.fixture(scope="session")
def truth_bundle(tmp_path_factory):
    """A bundle whose weights are never asked: step 256 and a halo of 64."""
    folder = tmp_path_factory.mktemp("bundles") / "truth"
    bundle = tiny_bundle(step=256, halo=64)
    save_bundle(folder, bundle, tiny_net(bundle))
    return folder


@pytest.fixture(autouse=True)
def truth(monkeypatch):
    monkeypatch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: OracleRuntime())


def run(out, bundle, slides, *, config=None, **changes):
    listener = Silence()
    settings = replace(RunSettings(out, bundle, config or Config()), **changes)
    outcome = run_cohort([SlideEntry(name, path) for name, path in slides.items()], settings, listener)
    return outcome, listener


def tables(out):
    """Everything that must not depend on how it was computed."""
    slide = next((out / "slides").iterdir())
    score = json.loads((slide / "score.json").read_text())
    nuclei, regions = (gpd.read_parquet(slide / f"{name}.parquet") for name in ("nuclei", "regions"))
    return score, nuclei, regions


def assert_same(first, second):
    assert first[0] == second[0]
    for left, right in zip(first[1:], second[1:], strict=True):
        pd.testing.assert_frame_equal(pd.DataFrame(left), pd.DataFrame(right))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, truth_bundle, synthetic_slide):
    out = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: OracleRuntime())
        outcome, listener = run(out, truth_bundle, {"truth": synthetic_slide.path})
    assert (outcome.done, outcome.skipped, outcome.failures) == (1, 0, ())
    assert ("truth", "done") in listener.heard
    return out


def test_the_scores_are_those_of_the_truth(finished, synthetic_slide):
    score, nuclei, _ = tables(finished)
    truth_nuclei, areas = synthetic_slide.nuclei, synthetic_slide.areas_mm2
    parts = score["compartments"]
    assert len(nuclei) == len(truth_nuclei)
    assert nuclei["class_id"].value_counts().to_dict() == truth_nuclei["class_id"].value_counts().to_dict()
    assert parts["tumor"]["n_til"] == synthetic_slide.til_counts["tumor"] > 0
    assert parts["stroma"]["n_til"] == synthetic_slide.til_counts["stroma"] + synthetic_slide.til_counts["tils"]
    assert parts["tumor"]["area_mm2"] == pytest.approx(areas["tumor"], rel=0.01)
    assert parts["stroma"]["area_mm2"] == pytest.approx(areas["stroma"] + areas["tils"], rel=0.01)
    density = synthetic_slide.til_counts["tumor"] / areas["tumor"]
    assert parts["tumor"]["til_density_per_mm2"] == pytest.approx(density, rel=0.01)


def test_every_file_of_the_contract_is_there_and_agrees(finished):
    slide = finished / "slides" / "truth"
    expected = {
        "tiles.parquet", "tissue.png", "panoptic.ome.zarr", "nuclei.parquet", "regions.parquet", "score.json",
        "truth.regions.geojson", "truth.nuclei.geojson.gz", "report.html", "record.json",
    }  # fmt: skip
    assert {path.name for path in slide.iterdir()} == expected
    cohort = {
        "run.json", "config.yaml", "scores.csv", "scores.parquet", "regions.parquet", "failures.csv", "report.html",
        "import_into_qupath.groovy", "slides", LEDGER,
    }  # fmt: skip
    assert {path.name for path in finished.iterdir()} == cohort
    assert verify_run(finished) == []


def test_the_result_opens_in_python(finished):
    result = pathopan.open_result(finished)
    assert result.scores["status"].tolist() == ["scored"]
    assert set(result.regions["slide_id"]) == {"truth"}
    slide = result.slide("truth")
    ids = np.unique(slide.panoptic.nucleus[:])
    assert ids[ids > 0].tolist() == slide.nuclei["nucleus_id"].tolist()


def test_the_region_map_is_the_truth(finished, synthetic_slide):
    found = pathopan.open_result(finished).slide("truth").panoptic.region[:]
    truth = synthetic_slide.region
    looked_at = found > 0
    assert (found == truth)[looked_at & (truth != BREAST.region("background").id)].mean() > 0.999


def test_a_second_call_has_nothing_to_do(finished, truth_bundle, synthetic_slide):
    before = {path: path.stat().st_mtime_ns for path in (finished / "slides").rglob("*") if path.is_file()}
    outcome, _ = run(finished, truth_bundle, {"truth": synthetic_slide.path})
    assert (outcome.done, outcome.skipped) == (0, 1)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("changes", [{"workers": 0}, {"config": load_config(overrides=["inference.batch_size=4"])}])
def test_workers_and_batch_size_change_nothing(finished, tmp_path, truth_bundle, synthetic_slide, changes):
    run(tmp_path, truth_bundle, {"truth": synthetic_slide.path}, **changes)
    assert_same(tables(tmp_path), tables(finished))


@pytest.mark.parametrize("step", [128, 512])
def test_the_tile_size_changes_next_to_nothing(finished, tmp_path, synthetic_slide, step):
    bundle = tiny_bundle(step=step, halo=64)
    save_bundle(tmp_path / "bundle", bundle, tiny_net(bundle))
    run(tmp_path / "out", tmp_path / "bundle", {"truth": synthetic_slide.path})
    (score, nuclei, _), (expected, wanted, _) = tables(tmp_path / "out"), tables(finished)
    assert len(nuclei) == len(wanted)
    for name in ("tumor", "stroma"):
        found, true = (s["compartments"][name]["til_density_per_mm2"] for s in (score, expected))
        assert found == pytest.approx(true, rel=0.001)


def test_a_changed_score_setting_redoes_the_scores_only(tmp_path, finished, truth_bundle, synthetic_slide):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    stitched = (out / "slides" / "truth" / "panoptic.ome.zarr").stat().st_mtime_ns
    config = load_config(overrides=["scores.til_footprint_um2=32"])
    outcome, listener = run(out, truth_bundle, {"truth": synthetic_slide.path}, config=config)
    assert outcome.done == 1
    assert not [heard for heard in listener.heard if heard[0] == "predict"]
    assert (out / "slides" / "truth" / "panoptic.ome.zarr").stat().st_mtime_ns == stitched
    halved, whole = (tables(folder)[0]["headline"]["stil_percent"] for folder in (out, finished))
    assert halved == pytest.approx(whole / 2)


def test_other_definitions_of_the_scores_redo_them(tmp_path, finished, truth_bundle, synthetic_slide, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    monkeypatch.setattr("pathopan.outputs.DEFINITIONS", 10_000)
    outcome, listener = run(out, truth_bundle, {"truth": synthetic_slide.path})
    assert outcome.done == 1
    assert [heard for heard in listener.heard if heard[0] in ("predict", "score")] == [("score", 0, 1)]
    assert_same(tables(out), tables(finished))


@pytest.mark.parametrize(
    ("limit", "value", "told"),
    [
        ("FEWEST_PER_MM2", 100_000, r"[\d.e+]+ nuclei in a mm2 of tissue, .* fewer than 100000: check the slide's mpp"),
        ("SMALLEST_UM", 50, r"the median nucleus is \d+\.\d um wide, .* narrower than 50 um: check the slide's mpp"),
        ("LEAST_SURE", 1.1, r"the network finds its nuclei \d\.\d\d probable .* less than 1\.1: check the slide's mpp"),
    ],
)
def test_a_slide_whose_nuclei_are_few_small_or_doubtful_asks_for_a_look_at_its_mpp(
    tmp_path, finished, truth_bundle, synthetic_slide, monkeypatch, limit, value, told
):
    record = tmp_path / "out" / "slides" / "truth" / "record.json"

    def warned():
        monkeypatch.setattr("pathopan.outputs.DEFINITIONS", next(definitions))
        run(tmp_path / "out", truth_bundle, {"truth": synthetic_slide.path})
        return json.loads(record.read_text())["stages"]["score"]["score_warnings"]

    definitions = iter(range(10_000, 10_009))
    shutil.copytree(finished, tmp_path / "out")
    entries = json.loads(record.read_text())
    assert entries["stages"]["stitch"]["bundle"]["prob_calibrated"] is False
    entries["stages"]["stitch"]["bundle"]["prob_calibrated"] = True
    record.write_text(json.dumps(entries))
    monkeypatch.setattr("pathopan.scoring._JUDGED_NUCLEI", 100)
    assert warned() == []
    monkeypatch.setattr(f"pathopan.scoring.{limit}", value)
    (text,) = warned()
    assert re.match(told, text)
    assert "check the slide&#39;s mpp" in (record.parent / "report.html").read_text()
    if limit == "LEAST_SURE":  # nuclei that are too small are doubtful for that reason
        monkeypatch.setattr("pathopan.scoring.SMALLEST_UM", 50)
        (other,) = warned()
        assert "the median nucleus" in other
    monkeypatch.setattr("pathopan.scoring._JUDGED_NUCLEI", 100_000)
    assert warned() == [text] * (limit == "FEWEST_PER_MM2")


def test_a_network_that_was_not_calibrated_is_not_called_unsure(
    tmp_path, finished, truth_bundle, synthetic_slide, monkeypatch
):
    shutil.copytree(finished, tmp_path / "out")
    monkeypatch.setattr("pathopan.scoring._JUDGED_NUCLEI", 100)
    monkeypatch.setattr("pathopan.scoring.LEAST_SURE", 1.1)
    monkeypatch.setattr("pathopan.outputs.DEFINITIONS", 10_000)
    run(tmp_path / "out", truth_bundle, {"truth": synthetic_slide.path})
    record = json.loads((tmp_path / "out" / "slides" / "truth" / "record.json").read_text())
    assert record["stages"]["score"]["score_warnings"] == []


def test_bad_slides_fail_alone_with_reason_and_remedy(tmp_path, truth_bundle, synthetic_slide):
    (tmp_path / "empty.svs").write_bytes(b"")
    (tmp_path / "broken.svs").write_bytes(synthetic_slide.path.read_bytes()[:5_000])
    tifffile.imwrite(tmp_path / "unknown.tif", np.full((64, 64, 3), 200, np.uint8), photometric="rgb")
    slides = {path.stem: path for path in sorted(tmp_path.glob("*.*"))} | {"truth": synthetic_slide.path}
    outcome, _ = run(tmp_path / "out", truth_bundle, slides)
    assert (outcome.done, len(outcome.failures)) == (1, 3)
    table = pd.read_csv(tmp_path / "out" / "failures.csv").set_index("slide_id")
    assert table.loc["unknown", "error"] == "MissingMpp"
    assert "--slide-mpp" in table.loc["unknown", "message"]
    assert {table.loc[name, "error"] for name in ("empty", "broken")} == {"UnreadableSlide"}
    assert table["remedy"].notna().all()
    scores = pd.read_csv(tmp_path / "out" / "scores.csv").set_index("slide_id")
    assert scores["status"].to_dict() == {
        "broken": "failed", "empty": "failed", "truth": "scored", "unknown": "failed",
    }  # fmt: skip
    assert np.isnan(scores.loc["broken", "stil_percent"])
    assert scores["manifest_id"].to_dict() == {name: name for name in scores.index}


def test_a_mended_slide_loses_its_failure(tmp_path, truth_bundle, synthetic_slide):
    slide = tmp_path / "slide.tif"
    slide.write_bytes(b"")
    assert run(tmp_path / "out", truth_bundle, {"slide": slide})[0].failures
    shutil.copy(synthetic_slide.path, slide)
    outcome, _ = run(tmp_path / "out", truth_bundle, {"slide": slide})
    assert (outcome.done, outcome.failures) == (1, ())
    assert pd.read_csv(tmp_path / "out" / "failures.csv").empty


def test_a_slide_without_tissue_is_a_valid_empty_result(tmp_path, truth_bundle):
    from pathopan.datasets.synthetic import write_pyramid

    write_pyramid(tmp_path / "glass.tif", np.full((600, 700, 3), 243, np.uint8), 0.5)
    outcome, _ = run(tmp_path / "out", truth_bundle, {"glass": tmp_path / "glass.tif"})
    assert (outcome.done, outcome.failures) == (1, ())
    score, nuclei, regions = tables(tmp_path / "out")
    assert (score["status"], len(nuclei), len(regions)) == ("empty", 0, 0)
    assert score["error"] == "nothing on the glass is stained"
    assert score["headline"]["stil_percent"] is None
    assert "no " in score["headline"]["reasons"]["stil_percent"]
    assert verify_run(tmp_path / "out") == []


_KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from oracle import OracleRuntime
import pathopan.stages
from test_pipeline import run

class Slow(OracleRuntime):
    def run(self, image):
        time.sleep(0.15)
        return super().run(image)

pathopan.stages.open_runtime = lambda *a, **k: Slow()
from pathopan.config import load_config
config = load_config(overrides=["inference.shard_tiles=4"])
run(Path({out!r}), Path({bundle!r}), {{"truth": Path({slide!r})}}, config=config, isolate=False)
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_ends_alike(finished, tmp_path, truth_bundle, synthetic_slide):
    names = {"tests": str(Path(__file__).parent), "out": str(tmp_path), "bundle": str(truth_bundle)}
    code = _KILLED.format(**names, slide=str(synthetic_slide.path))
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("00001.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("0*.parquet")}
    assert kept
    config = load_config(overrides=["inference.shard_tiles=4"])
    _, listener = run(tmp_path, truth_bundle, {"truth": synthetic_slide.path}, config=config)
    first = next(heard for heard in listener.heard if heard[0] == "predict")
    assert first[1] >= 4 * len(kept)
    assert_same(tables(tmp_path), tables(finished))
