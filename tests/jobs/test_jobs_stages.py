"""A run cut into jobs leaves the bytes of one run, whatever the number of shards; bad slides are answers."""

import json
import logging
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import tifffile
from oracle import OracleRuntime, tiny_bundle, tiny_net

from pathopan import cli, stages
from pathopan.config import load_config
from pathopan.datasets.synthetic import make_slide
from pathopan.errors import ConfigError
from pathopan.jobs.segment import Part
from pathopan.network.bundle import save_bundle
from pathopan.record import LEDGER
from pathopan.verify import verify_run

SETTINGS = "inference.shard_tiles=2"
TIMED = {"run.json", "record.json", "report.html", "config.yaml", "slides.csv", "import_into_qupath.groovy", LEDGER}
"""Files that tell when, how or where a run was made; everything else must be the same to the byte."""


class Counting(OracleRuntime):
    """Answers with the truth, and counts the tiles it was asked about."""

    def __init__(self):
        super().__init__()
        self.tiles = 0

    def run(self, image_BHW3):
        self.tiles += len(image_BHW3)
        return super().run(image_BHW3)


@pytest.fixture
def runtime(monkeypatch):
    runtime = Counting()
    monkeypatch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: runtime)
    return runtime


@pytest.fixture
def pathopan(monkeypatch, capsys, runtime):
    """Run the command line; gives the exit code, and what it wrote."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["pathopan", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        written = capsys.readouterr()
        return stop.value.code or 0, written.out + written.err

    return call


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "truth"
    description = tiny_bundle(step=256, halo=64)
    save_bundle(folder, description, tiny_net(description))
    return folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """A manifest of two good slides, a truncated one, one without mpp, and one that is not there."""
    folder = tmp_path_factory.mktemp("slides")
    for seed, name in enumerate(("good", "other")):
        make_slide(folder / f"{name}.tif", size_px=(1024, 768), discs_per_kind=1, seed=seed)
    (folder / "broken.svs").write_bytes((folder / "good.tif").read_bytes()[:5_000])
    tifffile.imwrite(folder / "unknown.tif", np.full((64, 64, 3), 200, np.uint8), photometric="rgb")
    names = {
        "broken": "broken.svs",
        "gone": "gone.svs",
        "good": "good.tif",
        "other": "other.tif",
        "unknown": "unknown.tif",
    }
    rows = "".join(f"{name},{file},2\n" for name, file in names.items())
    (folder / "slides.csv").write_text("slide_id,path,shards\n" + rows)
    return folder / "slides.csv"


GOOD, ALL = ("good", "other"), ("broken", "gone", "good", "other", "unknown")


def run_jobs(pathopan, out, *, shards, slides=ALL):
    """Do every job but the tables; all of them must end well."""
    for slide in slides:
        jobs = [
            ["tile"],
            *(["predict", "--shard", f"{i}/{shards}"] for i in range(shards, 0, -1)),
            ["stitch"],
            ["score"],
        ]
        for job, *options in [*jobs, ["export"]]:
            code, told = pathopan(job, out, "--slide", slide, *options)
            assert code == 0, told


def state(out, slide, job):
    return json.loads((out / "state" / slide / f"{job}.json").read_text())


def contents(out):
    """Everything that must not depend on how the run was cut."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in TIMED]
    return {str(path.relative_to(out)): path.read_bytes() for path in files if "state" not in path.parts}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, bundle, slides):
    """The same slides, by one run."""
    from pathopan.batch import RunSettings
    from pathopan.console import LineWatcher
    from pathopan.manifest import find_slides
    from pathopan.pipeline import run_cohort

    out = tmp_path_factory.mktemp("whole") / "out"
    settings = RunSettings(out, bundle, load_config(overrides=[SETTINGS]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: OracleRuntime())
        outcome = run_cohort(find_slides([slides]), settings, LineWatcher(sys.stderr))
    assert (outcome.done, len(outcome.failures)) == (2, 3)
    return out


@pytest.fixture
def planned(tmp_path, pathopan, bundle, slides):
    out = tmp_path / "out"
    code, told = pathopan("plan", slides, "--out", out, "--bundle", bundle, "--set", SETTINGS)
    assert code == 0, told
    assert "5 slides planned" in told
    return out


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_the_same_bytes_whatever_the_shards(pathopan, planned, whole, shards):
    run_jobs(pathopan, planned, shards=shards)
    code, told = pathopan("tables", planned)
    assert (code, "UNFINISHED" in told) == (0, False)
    found, expected = contents(planned), contents(whole)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert verify_run(planned) == []


def test_bad_slides_are_answers(pathopan, planned, runtime):
    run_jobs(pathopan, planned, shards=2, slides=["broken", "gone", "unknown"])
    assert runtime.tiles == 0
    errors = {slide: state(planned, slide, "export")["failure"]["error"] for slide in ("broken", "gone", "unknown")}
    assert errors == {"broken": "UnreadableSlide", "gone": "UnreadableSlide", "unknown": "MissingMpp"}
    assert {state(planned, "broken", job)["state"] for job in ("tile", "predict.1-of-2", "stitch", "score")} == {
        "refused"
    }
    code, told = pathopan("stitch", planned, "--slide", "unknown")
    assert (code, "refused" in told, "--slide-mpp" in told) == (0, True, True)


def test_a_mended_slide_is_no_longer_refused(pathopan, tmp_path, bundle, slides):
    slide = tmp_path / "slide.tif"
    slide.write_bytes(b"")
    pathopan("plan", slide, "--out", tmp_path / "out", "--bundle", bundle)
    run_jobs(pathopan, tmp_path / "out", shards=1, slides=["slide"])
    assert state(tmp_path / "out", "slide", "export")["state"] == "refused"
    shutil.copy(slides.parent / "good.tif", slide)
    run_jobs(pathopan, tmp_path / "out", shards=1, slides=["slide"])
    pathopan("tables", tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "scores.csv")["status"].tolist() == ["scored"]
    assert pd.read_csv(tmp_path / "out" / "failures.csv").empty


def test_finished_tiles_are_kept(pathopan, planned, runtime):
    pathopan("tile", planned, "--slide", "good")
    tiles = state(planned, "good", "tile")["tiles"]
    pathopan("predict", planned, "--slide", "good", "--shard", "1/2")
    first = runtime.tiles
    assert 0 < first < tiles
    pathopan("predict", planned, "--slide", "good", "--shard", "1/2")
    assert runtime.tiles == first
    assert state(planned, "good", "predict.1-of-2")["computed"] == 0
    code, told = pathopan("stitch", planned, "--slide", "good")
    assert code == 1
    assert "run predict again" in told
    assert (planned / "state" / "good" / "stitch.failed.json").is_file()
    pathopan("predict", planned, "--slide", "good")
    assert runtime.tiles == tiles
    assert pathopan("stitch", planned, "--slide", "good")[0] == 0
    assert not (planned / "state" / "good" / "stitch.failed.json").exists()
    pathopan("predict", planned, "--slide", "good", "--shard", "2/2")  # stitched already: nothing is computed again
    assert runtime.tiles == tiles
    record = json.loads((planned / "slides" / "good" / "record.json").read_text())
    assert record["stages"]["predict"]["runtime"] == "oracle"


def test_what_is_not_the_slides_fault_exits_1_and_is_told(pathopan, planned, monkeypatch):
    run_jobs(pathopan, planned, shards=1, slides=["other", "broken"])
    pathopan("tile", planned, "--slide", "good")

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathopan.stages.write_shard", full)
        code, told = pathopan("predict", planned, "--slide", "good", "--shard", "2/2")
    assert (code, "No space left" in told, "check the disk" in told) == (1, True, True)
    assert pathopan("tables", planned)[0] == 0
    scores = pd.read_csv(planned / "scores.csv").set_index("slide_id")
    assert scores["status"].to_dict() == dict.fromkeys(("broken", "gone", "good", "unknown"), "failed") | {
        "other": "scored"
    }
    failures = pd.read_csv(planned / "failures.csv").set_index("slide_id")
    assert "No space left" in failures.loc["good", "message"]
    assert failures.loc["gone", "message"] == "not complete: nothing was done yet"
    run_jobs(pathopan, planned, shards=2, slides=["good"])
    pathopan("tables", planned)
    assert pd.read_csv(planned / "scores.csv").set_index("slide_id").loc["good", "status"] == "scored"


def test_the_order_of_stages_is_kept(pathopan, planned):
    for job, first in (("predict", "tile"), ("stitch", "predict"), ("score", "stitch"), ("export", "score")):
        code, told = pathopan(job, planned, "--slide", "good")
        assert (code, f"`pathopan {first} " in told) == (2, True), told


def test_other_settings_ask_for_the_first_stage_again(pathopan, planned, bundle, slides):
    pathopan("tile", planned, "--slide", "good")
    pathopan("plan", slides, "--out", planned, "--bundle", bundle, "--set", "tiler.min_tissue_fraction=0.5")
    code, told = pathopan("predict", planned, "--slide", "good")
    assert (code, "changed since its tiles were chosen" in told) == (1, True)


def test_wrong_use_is_told(pathopan, planned, tmp_path):
    code, told = pathopan("tile", planned, "--slide", "god")
    assert (code, "did you mean 'good'?" in told) == (2, True)
    assert pathopan("tile", tmp_path, "--slide", "good")[1].startswith(f"pathopan: {tmp_path} holds no planned run")
    code, told = pathopan("score", planned, "--slide", "good", "--set", "scores.field_um=400")
    assert (code, "leave the other options out" in told) == (2, True)


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3"])
def test_a_shard_is_i_of_n(text):
    with pytest.raises(ConfigError, match="must read i/n"):
        Part.parse(text)


def told_of(out, folder):
    """Files that name the slides' folder."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return [str(path.relative_to(out)) for path in files if str(folder).encode() in path.read_bytes()]


def test_anonymous_jobs_leave_no_path_but_in_the_private_file(pathopan, tmp_path, bundle, slides):
    out = tmp_path / "out"
    pathopan("plan", slides, "--out", out, "--bundle", bundle, "--set", SETTINGS, "--anonymous")
    assert told_of(out, slides.parent) == ["private.json"]
    assert (out / "private.json").stat().st_mode & 0o077 == 0
    run_jobs(pathopan, out, shards=2, slides=["good", "broken", "gone"])
    pathopan("tables", out)  # two slides are not finished
    assert told_of(out, slides.parent) == ["private.json"]
    assert pd.read_csv(out / "failures.csv")["slide_id"].tolist() == ["broken", "gone", "other", "unknown"]
    assert pd.read_csv(out / "slides.csv")["path"].isna().all()


def test_a_job_of_an_anonymous_plan_that_fails_names_no_path(pathopan, tmp_path, bundle, slides, monkeypatch):
    out = tmp_path / "out"
    pathopan("plan", slides, "--out", out, "--bundle", bundle, "--anonymous")
    pathopan("tile", out, "--slide", "good")
    pathopan("tile", out, "--slide", "unknown")

    def full(*_args):
        raise OSError(28, "No space left on device", str(slides.parent / "good.tif"))

    with monkeypatch.context() as patch:
        patch.setattr("pathopan.stages.write_shard", full)
        code, told = pathopan("predict", out, "--slide", "good")
    assert (code, str(slides.parent) in told, "No space left" in told) == (1, False, True)
    failed = json.loads((out / "state" / "good" / "predict.1-of-1.failed.json").read_text())
    assert str(slides.parent) not in json.dumps(failed)
    pathopan("tables", out)
    assert set(told_of(out, slides.parent)) == {"private.json", "slides/good/record.json"}  # until its last stage


@pytest.mark.parametrize("options", [[], ["--anonymous"]], ids=["with paths", "anonymous"])
def test_tables_keep_what_the_manifest_calls_a_slide_so_that_others_can_be_joined(
    pathopan, tmp_path, bundle, slides, options
):
    manifest, out = tmp_path / "cases.csv", tmp_path / "out"
    rows = [("S 2024/17", "broken.svs"), ("S 2024/18", "gone.svs"), ("plain", "unknown.tif")]
    manifest.write_text("slide_id,path\n" + "".join(f"{name},{slides.parent / file}\n" for name, file in rows))
    pathopan("plan", manifest, "--out", out, "--bundle", bundle, *options)
    assert pathopan("tile", out, "--slide", "S_2024_17")[0] == 0
    pathopan("tables", out)  # the other two have not been reached
    scores = pd.read_csv(out / "scores.csv", dtype="str").set_index("slide_id")["manifest_id"]
    assert scores.to_dict() == {"S_2024_17": "S 2024/17", "S_2024_18": "S 2024/18", "plain": "plain"}
    if not options:
        told = pathopan("verify", out)[1]
        assert "manifest_id" not in told


def test_the_tables_of_an_anonymous_plan_outlive_its_private_file(pathopan, tmp_path, bundle, slides):
    out = tmp_path / "out"
    pathopan("plan", slides, "--out", out, "--bundle", bundle, "--set", SETTINGS, "--anonymous")
    run_jobs(pathopan, out, shards=1, slides=["good", "broken", "gone", "unknown"])
    (out / "private.json").unlink()
    assert pathopan("tables", out)[0] == 0
    assert pd.read_csv(out / "scores.csv").set_index("slide_id").loc["good", "status"] == "scored"
    code, told = pathopan("tile", out, "--slide", "other")
    assert (code, "private.json is gone" in told, "plan the run again" in told) == (1, True, True)
    assert pathopan("plan", slides, "--out", out, "--bundle", bundle, "--set", SETTINGS)[0] == 0
    assert told_of(out, slides.parent) == ["run.json", "slides.csv"]


def test_an_anonymous_plan_keeps_the_tissue_that_was_given(pathopan, tmp_path, bundle, slides):
    tissue = tmp_path / "Doe" / "tissue.geojson"
    tissue.parent.mkdir()
    square = {"type": "Polygon", "coordinates": [[[0, 0], [300, 0], [300, 300], [0, 300], [0, 0]]]}
    tissue.write_text(json.dumps({"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": {}, "geometry": square}]}))  # fmt: skip
    tiles, one = {}, slides.with_name("one.csv")
    header, *rows = slides.read_text().splitlines()
    one.write_text("\n".join([header, *(row for row in rows if row.startswith("good,"))]))
    for anonymous in (True, False):
        out = tmp_path / f"out-{anonymous}"
        words = ["plan", one, "--out", out, "--bundle", bundle, "--tissue", tissue]
        pathopan(*words, *(["--anonymous"] if anonymous else []))
        assert pathopan("tile", out, "--slide", "good")[0] == 0
        tiles[anonymous] = state(out, "good", "tile")["tiles"]
    assert tiles[True] == tiles[False] < 12
    assert told_of(tmp_path / "out-True", tissue.parent) == ["private.json"]


def test_a_planned_run_is_made_anonymous_afterwards(pathopan, planned, slides):
    run_jobs(pathopan, planned, shards=2, slides=["good", "broken"])
    pathopan("tables", planned)
    assert {"slides.csv", "state/broken/tile.json", "failures.csv"} <= set(told_of(planned, slides.parent))
    code, told = pathopan("export", planned, "--anonymous")
    assert code == 0, told
    assert told_of(planned, slides.parent) == ["private.json"]
    run_jobs(pathopan, planned, shards=2, slides=["other", "gone", "unknown"])  # the plan still works
    pathopan("tables", planned)
    assert told_of(planned, slides.parent) == ["private.json"]
    assert pd.read_csv(planned / "scores.csv")["status"].tolist().count("scored") == 2


def test_a_mended_slide_is_predicted_in_whatever_number_of_parts(pathopan, tmp_path, bundle, slides):
    out, slide, whole = tmp_path / "out", tmp_path / "mine.tif", (slides.parent / "good.tif").read_bytes()
    slide.write_bytes(whole[:5_000])
    pathopan("plan", slide, "--out", out, "--bundle", bundle, "--device", "cpu")
    run_jobs(pathopan, out, shards=2, slides=["mine"])
    assert state(out, "mine", "stitch")["state"] == "refused"
    slide.write_bytes(whole)
    run_jobs(pathopan, out, shards=1, slides=["mine"])
    assert state(out, "mine", "export")["state"] == "done"


def test_what_was_done_by_an_earlier_plan_is_not_finished(pathopan, planned, bundle, slides):
    run_jobs(pathopan, planned, shards=1)
    assert "UNFINISHED" not in pathopan("tables", planned)[1]
    words = ["--bundle", bundle, "--set", SETTINGS, "--set", "scores.min_compartment_mm2=0.02"]
    pathopan("plan", slides, "--out", planned, *words)
    assert "UNFINISHED good" in pathopan("tables", planned)[1]


def test_what_a_reader_warns_of_is_kept_by_jobs_as_by_a_run(pathopan, planned, monkeypatch):
    whole = stages.open_slide

    def warning(path, **named):
        logging.getLogger("tifffile").warning("%s: odd tag 7", path.name)
        return whole(path, **named)

    monkeypatch.setattr(stages, "open_slide", warning)
    run_jobs(pathopan, planned, shards=1, slides=["good"])
    record = json.loads((planned / "slides" / "good" / "record.json").read_text())
    assert record["stages"]["tile"]["reader_warnings"] == ["tifffile: good: odd tag 7"]
    assert state(planned, "good", "predict.1-of-1")["reader_warnings"] == ["tifffile: good: odd tag 7"]
    assert "odd tag 7" in (planned / "slides" / "good" / "report.html").read_text()
